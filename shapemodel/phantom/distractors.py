"""Neighbouring bones that are not the model's: they touch it and look like it, and must not be taken for it."""

from __future__ import annotations

from functools import cache

import numpy as np

from shapemodel.anatomy import RIBS, VERTEBRAE
from shapemodel.mesh import Faces, Points
from shapemodel.phantom import sternum
from shapemodel.phantom.contact import give_way
from shapemodel.phantom.shape import FACET_GAP_MM, MIRROR, RIB_GAP_MM, Anatomy, anatomy, parts, vertebra_part
from shapemodel.phantom.solids import Array, blade, ellipsoid, join, mesh_of
from shapemodel.phantom.subject import Subject, by_sex, stream
from shapemodel.phantom.tube import bezier, tube
from shapemodel.phantom.wall import Wall, wall

Part = tuple[Points, Faces]
SHOULDER_GAP_MM = 4.0
"""Least distance of the scapula from the ribs (muscle lies between)."""
HUMERUS_MM = 230.0
"""Length of humerus that is made: more than any chest CT shows."""
LUMBAR_RIB_MM = (26.0, 8.0)
"""Mean and SD of the length of a thirteenth rib (26 mm in the NAKO cohort)."""


def distractors(subject: Subject, arms: str = "up") -> dict[str, Part]:
    """Closed surfaces by name, (V, 3) mm LPS and (F, 3), outward normals.

    ``clavicle_left/right``, ``scapula_left/right``, ``humerus_left/right``, ``vertebra_C6``, ``vertebra_C7``,
    ``vertebra_L1``, ``vertebra_L2``; a subject with 13 pairs also has ``rib_left_13`` and ``rib_right_13``.

    Parameters
    ----------
    subject : whose neighbours
    arms : ``up`` beside the head, or ``down`` along the chest
    """
    if arms not in ("up", "down"):
        raise ValueError(f"arms are 'up' or 'down', got {arms!r}")
    a, hull = anatomy(subject), wall(subject)
    bones = parts(subject)
    out: dict[str, Part] = {}
    for side, name in ((0, "left"), (1, "right")):
        for bone, part in shoulder(a, hull, side, arms).items():
            near = [bones[k] for k in RIBS if (k > 12) == bool(side)] + [bones[25]]
            out[f"{bone}_{name}"] = (give_way(part, near, 1.0), part[1])
    for bone, part in neighbours(a).items():
        near = [bones[k] for k in (VERTEBRAE[0], VERTEBRAE[-1], 1, 13, 12, 24)]
        out[bone] = (give_way(part, near, FACET_GAP_MM), part[1])
    if subject.n_pairs == 13:
        for side, name in ((0, "left"), (1, "right")):
            part = lumbar_rib(a, side)
            out[f"rib_{name}_13"] = (give_way(part, [out["vertebra_L1"], bones[VERTEBRAE[-1]]], RIB_GAP_MM), part[1])
    return out


def neighbours(a: Anatomy) -> dict[str, Part]:
    """The vertebrae above and below; C6 and L2 are C7 and L1 again, one step further."""
    out = {"vertebra_C7": vertebra_part(a, 0), "vertebra_L1": vertebra_part(a, 13)}
    for name, like, row, sign in (("vertebra_C6", "vertebra_C7", 0, 1.0), ("vertebra_L2", "vertebra_L1", 13, -1.0)):
        v, f = out[like]
        up = a.column.axes[row, :, 2]
        out[name] = (v + sign * (a.column.height[row] + a.column.disc[0 if sign > 0 else -1]) * up, f)
    return out


def lumbar_rib(a: Anatomy, side: int) -> Part:
    """A short thirteenth rib on L1: the twelfth's chart, along a straight course."""
    mean, sd = LUMBAR_RIB_MM
    length = float(np.clip(mean + sd * stream(a.subject, "lumbar").normal(), 14.0, 48.0))
    row = 13
    start = a.column.to_world(
        row,
        np.array([0.5 * a.column.width[row] + 6.0, 0.5 * a.column.depth[row] + 4.0, 0.2 * a.column.height[row]])
        * [1.0 if side == 0 else -1.0, 1.0, 1.0],
    ) * (MIRROR if side else 1.0)
    end = start + length * np.array([0.75, 0.45, -0.48])
    centre = np.linspace(start, end, max(8, round(length / 1.8)))
    u = np.linspace(0, 1, len(centre))
    half = np.column_stack([np.interp(u, [0, 1], [2.6, 2.0]), np.interp(u, [0, 0.4, 1], [3.2, 4.2, 2.6])])
    v, f = tube(centre, half, np.array([0.0, 0.0, 1.0]))
    return (a.bend(v * MIRROR), f[:, ::-1]) if side else (a.bend(v), f)


# --- shoulder -------------------------------------------------------------------------------------------------


def _scapula_field(p: Array) -> Array:
    """Canonical left scapula: x along its spine to the side, y to the back, z up; origin where the spine begins."""
    corners = np.array([[4.0, 32.0], [8.0, -8.0], [32.0, -108.0], [48.0, -98.0], [96.0, -14.0], [92.0, 14.0]])
    inside = np.full(p.shape[:-1], -np.inf)
    for i in range(len(corners)):
        a, b = corners[i], corners[(i + 1) % len(corners)]
        normal = np.array([b[1] - a[1], -(b[0] - a[0])]) / np.linalg.norm(b - a)
        inside = np.maximum(inside, (p[..., 0] - a[0]) * normal[0] + (p[..., 2] - a[1]) * normal[1])
    sheet = 3.0 - 3.0 * np.exp(-0.5 * ((p[..., 0] - 45) / 60) ** 2) * 0.3
    bow = p[..., 1] + 0.0016 * (p[..., 0] - 48.0) ** 2 - 3.0
    out = -join(-inside, -(np.abs(bow) - sheet), 3.0)
    v = np.array
    out = join(out, blade(p, (v([52.0, 0.0, -88.0]), v([93.0, -3.0, -8.0])), (3.5, 5.0), (4.0, 5.5)), 4.0)
    out = join(out, blade(p, (v([8.0, 3.0, 2.0]), v([96.0, 22.0, 24.0])), (4.5, 8.0), (4.0, 5.0)), 4.0)
    out = join(out, blade(p, (v([60.0, 4.0, 6.0]), v([92.0, 12.0, 18.0])), (8.0, 10.0), (3.4, 4.0)), 5.0)
    out = join(out, blade(p, (v([96.0, 22.0, 24.0]), v([120.0, 2.0, 30.0])), (8.0, 10.0), (4.5, 4.5)), 5.0)
    out = join(out, ellipsoid(p, v([98.0, -6.0, 0.0]), v([6.0, 12.0, 18.0])), 5.0)
    out = join(out, blade(p, (v([92.0, -8.0, 14.0]), v([92.0, -26.0, 24.0])), (5.0, 5.0), (6.0, 5.5)), 4.0)
    return join(out, blade(p, (v([92.0, -26.0, 24.0]), v([108.0, -38.0, 14.0])), (4.5, 4.0), (5.0, 4.5)), 4.0)


@cache
def _scapula() -> Part:
    return mesh_of(_scapula_field, np.array([-8.0, -50.0, -122.0]), np.array([138.0, 42.0, 50.0]), 2.2)


GLENOID = np.array([105.0, -8.0, 1.0])
ACROMION = np.array([116.0, 0.0, 31.0])


def shoulder(a: Anatomy, hull: Wall, side: int, arms: str) -> dict[str, Part]:
    """Scapula, clavicle and humerus of one side, LPS."""
    size = by_sex(a.subject, 0.90, 1.0) * (1 + 0.6 * (a.subject.height_cm / by_sex(a.subject, 164.5, 178.0) - 1))
    flip = MIRROR if side else np.ones(3)
    canon, faces = _scapula()
    turn = _scapula_pose(arms)
    third = a.bend(a.column.centre[3][None])[0] * flip
    out, lift = (10.0, -22.0) if arms == "up" else (0.0, 0.0)
    start = np.array([(74.0 + out) * size, third[1] + 60.0, third[2] + lift])
    blade_points = canon * size @ turn.T + start
    shift = _clear_of(hull, blade_points * flip) * np.array([0.35, 1.0, 0.0])
    placed = blade_points + shift

    def at(point: Array) -> Array:
        return np.asarray(point * size @ turn.T + start + shift)

    notch = sternum.map_points(np.array([[24.5, -1.0, sternum.MANUBRIUM + 4.0]]) * flip, a.breastbone)
    inner = a.bend(notch)[0] * flip + np.array([2.5, 0.0, 3.0])
    clavicle = _clavicle(inner, at(ACROMION + [-9.0, -9.0, -2.0]), size)
    humerus = _humerus(at(GLENOID), size, arms)
    made = {"scapula": (placed, faces), "clavicle": clavicle, "humerus": humerus}
    return {k: (v * flip, f[:, ::-1] if side else f) for k, (v, f) in made.items()}


def _scapula_pose(arms: str) -> Array:
    """(3, 3) turn of the canonical scapula: plane 33 degrees off the frontal, swung up when the arms are up."""
    swing = np.radians(42.0 if arms == "up" else 4.0)
    plane = np.radians(-40.0 if arms == "up" else -33.0)
    in_plane = np.array([[np.cos(swing), 0, -np.sin(swing)], [0, 1, 0], [np.sin(swing), 0, np.cos(swing)]])
    about_z = np.array([[np.cos(plane), -np.sin(plane), 0], [np.sin(plane), np.cos(plane), 0], [0, 0, 1]])
    return np.asarray(about_z @ in_plane)


def _clear_of(hull: Wall, points: Array) -> float:
    """mm by which these points must move outwards (backwards) to lie just off the chest wall."""
    angle, radius = hull.polar(points)
    outside = radius - hull.radius(angle, points[:, 2])
    return float(SHOULDER_GAP_MM + 6.0 - np.percentile(outside, 2))


def _clavicle(inner: Array, outer: Array, size: float) -> Part:
    along = outer - inner
    control = np.stack(
        [inner, inner + 0.36 * along + [0.0, -30.0, 2.0], inner + 0.66 * along + [0.0, 26.0, 4.0], outer]
    )
    centre = bezier(control, 60)
    u = np.linspace(0, 1, 60)
    wide = size * np.interp(u, [0, 0.12, 0.4, 0.7, 0.95, 1.0], [9.5, 8.0, 5.8, 6.2, 9.0, 8.0])
    tall = size * np.interp(u, [0, 0.12, 0.4, 0.7, 0.95, 1.0], [10.0, 8.0, 5.8, 5.5, 4.8, 4.4])
    return tube(centre, np.column_stack([wide, tall]), np.array([0.0, 0.0, 1.0]))


def _humerus(glenoid: Array, size: float, arms: str) -> Part:
    head = glenoid + size * np.array([25.0, -4.0, 2.0])
    way = np.array([0.25, -0.25, 0.94]) if arms == "up" else np.array([0.16, 0.02, -0.98])
    way = way / np.linalg.norm(way)
    s = np.linspace(-16.0, HUMERUS_MM, 110)
    neck = np.array([-8.0, 0.0, 0.0]) * np.exp(-0.5 * (s[:, None] / 16.0) ** 2)
    centre = head + size * (s[:, None] * way + neck + [6.0, 0.0, 0.0])
    r = np.interp(s, [-16, -12, -4, 8, 24, 45, 70, HUMERUS_MM], [9.0, 17.0, 23.0, 24.0, 18.5, 13.5, 11.8, 11.0])
    return tube(centre, size * np.column_stack([r, r]), np.array([0.0, 1.0, 0.0]), spokes=28)
