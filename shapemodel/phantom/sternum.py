"""The sternum: manubrium, body and xiphoid as one solid, meshed once, bent and placed for each subject.

Canonical coordinates: x to the left, y to the back (0 in the middle of the plate), z up along the bone (0 at the
manubriosternal joint), millimetres of the mean man's bone laid straight.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.interpolate import PchipInterpolator

from shapemodel.phantom import tables
from shapemodel.phantom.solids import Array, cut, ellipsoid, join, mesh_of
from shapemodel.phantom.subject import Subject, by_sex, stream

STEP_MM = 1.6
MANUBRIUM = tables.MANUBRIUM_MM["M"]
BODY = tables.STERNAL_BODY_MM["M"]
XIPHOID = tables.STERNUM_MM["M"] - MANUBRIUM - BODY

OUTLINE_Z = (54.0, 50.0, 44.0, 36.0, 24.0, 10.0, 0.0, -14.0, -40.0, -66.0, -84.0, -98.0, -106.0, -120.0, -137.0)
OUTLINE_HALF_WIDTH = (19.0, 26.0, 29.5, 29.5, 23.5, 17.0, 14.5, 14.0, 16.5, 18.5, 18.0, 12.0, 8.5, 7.0, 3.0)
HALF_THICKNESS = (7.5, 8.0, 7.5, 6.5, 6.0, 5.8, 6.0, 5.4, 5.2, 5.0, 4.8, 4.4, 3.4, 2.8, 2.2)
"""Half width and half thickness of the plate down the bone, men (four chest CTs, rounded)."""

NOTCH_Z = (37.0, 0.0, -25.0, -48.0, -68.0, -83.0, -92.0)
"""Height of the notches of ribs 1-7."""
NOTCH_RADIUS = (4.5, 4.0, 3.6, 3.6, 3.4, 3.2, 3.0)


def outline(z: Array) -> tuple[Array, Array]:
    """Half width and half thickness of the canonical plate at heights ``z``."""
    knots = np.array(OUTLINE_Z)[::-1]
    z = np.clip(z, knots[0], knots[-1])
    width = PchipInterpolator(knots, np.array(OUTLINE_HALF_WIDTH)[::-1])(z)
    thick = PchipInterpolator(knots, np.array(HALF_THICKNESS)[::-1])(z)
    return np.asarray(width), np.asarray(thick)


def solid(p: Array) -> Array:
    """Distance-like field of the canonical sternum."""
    x, y, z = np.abs(p[..., 0]), p[..., 1], p[..., 2]
    width, thick = outline(z)
    waist = thick * (1.0 - 0.12 * (x / width).clip(0, 1) ** 2)
    r = ((x / width) ** 3.2 + (np.abs(y) / waist) ** 2.6) ** (1 / 2.8)
    plate = (r - 1.0) * waist
    top, bottom = z - MANUBRIUM, -XIPHOID - BODY - z
    out = -join(-plate, -top, 3.0)
    out = -join(-out, -bottom, 2.0)
    fold = p.copy()
    fold[..., 0] = x
    out = cut(out, ellipsoid(fold, np.array([0.0, 0.0, MANUBRIUM + 5.0]), np.array([17.0, 14.0, 9.5])), 2.0)
    out = cut(out, ellipsoid(fold, np.array([27.0, 0.5, MANUBRIUM + 2.5]), np.array([8.5, 11.0, 8.0])), 2.0)
    for height, radius in zip(NOTCH_Z, NOTCH_RADIUS, strict=True):
        edge = float(outline(np.array([height]))[0][0])
        notch = ellipsoid(fold, np.array([edge + 1.6, 0.0, height]), np.array([3.6, 8.0, radius]))
        out = cut(out, notch, 1.5)
    return out


@cache
def canonical() -> tuple[Array, np.ndarray]:
    """(V, 3) canonical coordinates and (F, 3) faces: the same for everyone."""
    low = np.array([-34.0, -12.0, -XIPHOID - BODY - 5.0])
    v, f = mesh_of(solid, low, np.array([34.0, 12.0, MANUBRIUM + 5.0]), STEP_MM)
    v.setflags(write=False)
    f.setflags(write=False)
    return v, f


@dataclass(frozen=True)
class SternumShape:
    """One subject's sternum.

    Attributes
    ----------
    lengths : (3,) mm of manubrium, body, xiphoid
    width, thickness : scale against the canonical plate
    angle : degrees by which the manubrium leans back against the body
    bow : mm, forward bulge of the body
    xiphoid_tilt : degrees, positive points forward
    lean : degrees of the body from the vertical, lower end forward
    origin : (3,) mm, LPS, middle of the manubriosternal joint
    roll, yaw : degrees about the front-back axis, and about the bone
    """

    lengths: Array
    width: float
    thickness: float
    angle: float
    bow: float
    xiphoid_tilt: float
    lean: float
    origin: Array
    roll: float
    yaw: float


def sternum_shape(subject: Subject, front: Array) -> SternumShape:
    """Size by sex and stature, place by the rib ends: ``front`` (2, 12, 3) mm, LPS, of left and right ribs."""
    rng = stream(subject, "sternum")
    noise = subject.residual * rng.normal(size=12).clip(-2.5, 2.5)
    scale = 1 + 0.7 * (subject.height_cm / by_sex(subject, 164.5, 178.0) - 1)
    size = {
        k: by_sex(subject, v["F"], v["M"])
        for k, v in (("manubrium", tables.MANUBRIUM_MM), ("body", tables.STERNAL_BODY_MM), ("all", tables.STERNUM_MM))
    }
    xiphoid = size["all"] - size["manubrium"] - size["body"]
    lengths = scale * np.array([size["manubrium"], size["body"], xiphoid]) * (1 + noise[:3] * [0.05, 0.065, 0.18])
    second, fifth = front[:, 1].mean(axis=0), front[:, 4].mean(axis=0)
    slope = np.degrees(np.arctan2(second[1] - fifth[1], second[2] - fifth[2]))
    lean = float(np.clip(0.5 * LEAN_DEG + 0.5 * slope + 1.5 * noise[3], 2.0, 30.0))
    origin = second + np.array([1.5 * noise[4], -FORWARD_MM, -2.0])
    return SternumShape(
        lengths=lengths,
        width=by_sex(subject, 0.87, 1.0) * scale * (1 + 0.07 * noise[5]),
        thickness=by_sex(subject, 0.90, 1.0) * (1 + 0.06 * noise[6]),
        angle=180.0 - by_sex(subject, *(tables.STERNAL_ANGLE_DEG[s] for s in ("F", "M"))) + 3.0 * noise[7],
        bow=2.0 + 1.5 * noise[8],
        xiphoid_tilt=4.0 + 8.0 * noise[9],
        lean=lean,
        origin=origin,
        roll=1.5 * noise[10],
        yaw=1.5 * noise[11],
    )


LEAN_DEG = 14.0
FORWARD_MM = 7.0
"""The joint of the sternum lies this far in front of the ends of the second ribs."""


def map_points(p: Array, s: SternumShape) -> Array:
    """Canonical points (n, 3) -> LPS: stretched piece by piece, bent at the sternal angle, leaned, placed."""
    canon = np.array([-XIPHOID - BODY, -BODY, 0.0, MANUBRIUM])
    real = np.array([-s.lengths[2] - s.lengths[1], -s.lengths[1], 0.0, s.lengths[0]])
    along = PchipInterpolator(canon, real)(p[:, 2].clip(-XIPHOID - BODY, MANUBRIUM))
    fine = np.linspace(real[0] - 1.0, real[3] + 1.0, 600)
    bend = np.radians(
        s.lean
        + s.angle * _step(fine, -9.0, 9.0)
        + s.xiphoid_tilt * (1 - _step(fine, real[1] - 10.0, real[1] + 10.0))
        + 2.0 * np.degrees(s.bow * 4.0 / s.lengths[1]) * _middle(fine / s.lengths[1] + 0.5)
    )
    step = np.diff(fine, prepend=fine[0])
    line = np.column_stack([np.zeros_like(fine), np.cumsum(np.sin(bend) * step), np.cumsum(np.cos(bend) * step)])
    zero = np.array([np.interp(0.0, fine, line[:, i]) for i in range(3)])
    centre = np.column_stack([np.interp(along, fine, line[:, i]) for i in range(3)]) - zero
    turn = np.interp(along, fine, bend)
    thick = p[:, 1] * s.thickness
    out = centre + np.column_stack([p[:, 0] * s.width, thick * np.cos(turn), -thick * np.sin(turn)])
    roll, yaw = np.radians([s.roll, s.yaw])
    about_y = np.array([[np.cos(roll), 0, np.sin(roll)], [0, 1, 0], [-np.sin(roll), 0, np.cos(roll)]])
    about_z = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    return np.asarray(out @ (about_z @ about_y).T + s.origin)


def _step(x: Array, low: float, high: float) -> Array:
    t = np.clip((x - low) / (high - low), 0.0, 1.0)
    return np.asarray(t * t * (3 - 2 * t))


def _middle(u: Array) -> Array:
    """Odd about the middle of the body of the sternum, zero outside it: bends it forward in its middle."""
    return np.asarray(np.where(np.abs(u) < 0.5, np.sin(2 * np.pi * u) * 0.25, 0.0))


def notches(s: SternumShape) -> Array:
    """(2, 7, 3) mm, LPS: where the cartilages of ribs 1-7 meet the sternum, left then right."""
    z = np.array(NOTCH_Z)
    half = outline(z)[0] - 0.8
    sides = [np.column_stack([sign * half, np.zeros(7), z]) for sign in (1.0, -1.0)]
    return np.stack([map_points(q, s) for q in sides])
