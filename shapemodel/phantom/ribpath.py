"""The curve of each rib: Holcombe's six-parameter path, its place on the spine and its orientation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator

from shapemodel.phantom import tables
from shapemodel.phantom.spine import Spine
from shapemodel.phantom.subject import Array, Subject, by_sex, female_share, level_noise, stream

FINE = 400
"""Points of the finely sampled path."""

RESIDUAL_SD = {
    "S_x": 0.046,
    "X_pk": 0.018,
    "Y_pk": 0.022,
    "phi_pia": 4.0,
    "B_p": 0.10,
    "B_d": 0.12,
    "alpha_ph": 3.9,
    "alpha_ls": 3.2,
    "alpha_bh": 4.0,
}
"""Within-sex spread that covariates leave (S_x relative): rib length then has the 5.4 % of the NAKO cohort."""
REACH_LEVELS = {"S_x": 5.0, "alpha_ph": 5.0, "alpha_bh": 4.0}
ASYMMETRY = 0.05
"""Share of the variance that belongs to one side."""
FOLLOW_SPINE = 0.6
"""Share of a level's turn against the mean posture that its ribs follow."""


@dataclass(frozen=True)
class RibParameters:
    """Path and orientation of the 24 ribs; every array is (2, 12), left then right.

    Attributes
    ----------
    chord : mm from end to end
    x_peak, y_peak : peak of the path, in chords
    phi : degrees of the first tangent against the chord
    b_prox, b_dist : rates of the two logarithmic spirals
    polar, swing : direction of the chord, degrees from straight down and from forwards to the side
    bucket : turn of the rib's plane about its chord, degrees, positive with the lateral side lower
    wave : mm, amplitude of the sweep out of the plane
    neck : mm of arc from the head to the tubercle
    angle : place of the angle as a share of the rib's length
    """

    chord: Array
    x_peak: Array
    y_peak: Array
    phi: Array
    b_prox: Array
    b_dist: Array
    polar: Array
    swing: Array
    bucket: Array
    wave: Array
    neck: Array
    angle: Array


def covariate_path(subject: Subject) -> dict[str, Array]:
    """Holcombe 2017 by regression: parameter -> (12,) values at the subject's age, sex, height and weight."""
    x = np.array([1.0, subject.age_years, female_share(subject), subject.height_cm / 100.0, subject.weight_kg])
    return {name: table @ x for name, table in tables.regression().items()}


def rib_parameters(subject: Subject, column: Spine) -> RibParameters:
    """Regression plus the subject's own residuals, both sides."""
    rng = stream(subject, "ribs")
    value: dict[str, Array] = {}
    for name, expected in covariate_path(subject).items():
        noise = subject.residual * RESIDUAL_SD[name] * level_noise(rng, 12, REACH_LEVELS.get(name, 4.0), ASYMMETRY)
        value[name] = expected * (1 + noise) if name == "S_x" else expected + noise
    size = by_sex(subject, 0.93, 1.0) * subject.height_cm / by_sex(subject, 164.5, 178.0)
    wave = 1 + subject.residual * 0.25 * level_noise(rng, 12, 4.0, ASYMMETRY)
    neck, angle = (1 + subject.residual * 0.05 * level_noise(rng, 12, 4.0, ASYMMETRY) for _ in range(2))
    turn = FOLLOW_SPINE * column.turned[1:13]
    return RibParameters(
        chord=value["S_x"],
        x_peak=value["X_pk"],
        y_peak=np.maximum(value["Y_pk"], 0.12),
        phi=value["phi_pia"],
        b_prox=np.minimum(value["B_p"], -0.05),
        b_dist=value["B_d"],
        polar=np.clip(value["alpha_ph"] + tables.POLAR_OFFSET_DEG + turn, 35.0, 88.0),
        swing=value["alpha_ls"],
        bucket=value["alpha_bh"] + tables.BUCKET_OFFSET_DEG,
        wave=tables.WAVE_MM * size * wave,
        neck=tables.NECK_MM * size * neck,
        angle=tables.angle_share() * angle,
    )


def planar_path(shape: tuple[float, float, float, float, float]) -> Array:
    """(FINE, 2) points of Holcombe's path in the rib's plane, in chords, evenly spaced along the arc.

    ``shape`` is X_pk, Y_pk, phi (degrees), B_p, B_d. A straight piece at the angle phi, then a logarithmic
    spiral up to the peak, then another one down to (1, 0); tangents agree (Holcombe 2016).
    """
    x_peak, y_peak, phi_deg, b_prox, b_dist = shape
    phi = np.radians(phi_deg)
    top = np.pi - np.arctan2(1.0, b_prox)
    t = np.linspace(top + phi, top, FINE)
    spiral = np.exp(b_prox * t)[:, None] * np.column_stack([np.cos(t), np.sin(t)])
    span = spiral[-1] - spiral[0]
    straight, size = np.linalg.solve(np.array([[np.cos(phi), span[0]], [np.sin(phi), span[1]]]), [x_peak, y_peak])
    if straight < 0.0 or size <= 0.0:
        straight, size = 0.0, float(np.hypot(x_peak, y_peak) / np.hypot(*span))
    start = straight * np.array([np.cos(phi), np.sin(phi)])
    proximal = start + size * (spiral - spiral[0])
    proximal *= np.array([x_peak, y_peak]) / proximal[-1]
    t = np.pi / 2 + np.arctan(b_dist) + np.linspace(0.0, 2.2, 4 * FINE)
    outer = np.exp(b_dist * t)[:, None] * np.column_stack([-np.cos(t), np.sin(t)])
    outer -= outer[0]
    slope = outer[1:, 1] + outer[1:, 0] * y_peak / (1.0 - x_peak)
    end = 1 + int(np.argmax(slope <= 0.0)) if (slope <= 0.0).any() else len(outer) - 1
    distal = np.array([x_peak, y_peak]) + outer[: end + 1] * np.array([1.0 - x_peak, -y_peak]) / outer[end]
    points = np.vstack([[[0.0, 0.0]], proximal, distal[1:]])
    arc = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    keep = np.concatenate([[True], np.diff(arc) > 1e-9])
    even = np.linspace(0.0, arc[-1], FINE)
    return np.column_stack([np.interp(even, arc[keep], points[keep, i]) for i in range(2)])


def plane_axes(polar_deg: float, swing_deg: float, bucket_deg: float) -> Array:
    """(3, 3) columns: chord, towards the peak, normal (up), of a left rib's plane in LPS."""
    polar, swing, bucket = np.radians([polar_deg, swing_deg, bucket_deg])
    flat = np.array([np.sin(swing), -np.cos(swing), 0.0])
    chord = np.sin(polar) * flat - np.cos(polar) * np.array([0.0, 0.0, 1.0])
    level = np.array([np.cos(swing), np.sin(swing), 0.0])
    up = np.cross(level, chord)
    up *= np.sign(up[2])
    peak = np.cos(bucket) * level - np.sin(bucket) * up
    normal = np.cos(bucket) * up + np.sin(bucket) * level
    return np.column_stack([chord, peak, normal])


@dataclass(frozen=True)
class RibCurve:
    """One rib's curve as a LEFT rib (right ribs are mirrored by their owner), finely sampled.

    Attributes
    ----------
    points, tangent, outward, upward : (FINE, 3) mm and unit vectors; upward completes the frame of the section
    arc : (FINE,) mm from the head
    neck, angle : mm of arc at the tubercle and the angle
    """

    points: Array
    tangent: Array
    outward: Array
    upward: Array
    arc: Array
    neck: float
    angle: float

    @property
    def length(self) -> float:
        """mm along the curve."""
        return float(self.arc[-1])

    def landmark_arc(self, landmark: Array) -> Array:
        """Arc length of landmark coordinates: 0 head, 1 tubercle, 2 angle, 3 anterior end; smooth and increasing."""
        knots = [0.0, self.neck, self.angle, self.length]
        return np.asarray(PchipInterpolator([0.0, 1.0, 2.0, 3.0], knots)(landmark))


def rib_curve(p: RibParameters, side: int, level: int, head: Array, *, lowered: float = 0.0) -> RibCurve:
    """Place one rib's path: ``head`` (3,) is the tip of its head, as for a left rib; ``lowered`` degrees steeper."""
    j = level - 1
    chord = float(p.chord[side, j])
    shape = tuple(float(a[side, j]) for a in (p.x_peak, p.y_peak, p.phi, p.b_prox, p.b_dist))
    flat = planar_path(shape) * chord  # type: ignore[arg-type]
    u = np.linspace(0.0, 1.0, FINE)
    wave = p.wave[side, j] * PchipInterpolator(tables.WAVE_KNOTS, tables.WAVE_SHAPE)(u)
    axes = plane_axes(float(p.polar[side, j]) - lowered, float(p.swing[side, j]), float(p.bucket[side, j]))
    points = head + np.column_stack([flat, wave]) @ axes.T
    points = _smooth(points)
    step = np.linalg.norm(np.diff(points, axis=0), axis=1)
    arc = np.concatenate([[0.0], np.cumsum(step)])
    tangent = np.gradient(points, arc, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    upward = axes[:, 2] - tangent * (tangent @ axes[:, 2])[:, None]
    upward /= np.linalg.norm(upward, axis=1, keepdims=True)
    outward = np.cross(upward, tangent)
    neck = min(float(p.neck[side, j]), 0.3 * arc[-1])
    angle = min(float(p.angle[side, j]), tables.MOST_ANGLE) * arc[-1]
    return RibCurve(points, tangent, outward, upward, arc, neck, angle)


def _smooth(points: Array, passes: int = 60) -> Array:
    """Take the kink out of the curvature where the pieces of the path meet; both ends stay."""
    out = points.copy()
    for _ in range(passes):
        out[1:-1] = 0.25 * out[:-2] + 0.5 * out[1:-1] + 0.25 * out[2:]
    return out


def head_tip(column: Spine, side: int, level: int) -> Array:
    """(3,) tip of the head of a rib, as for a left rib: between two bodies for ribs 2-9, on its own one otherwise."""
    k = level
    width, depth, height = column.width[k], column.depth[k], column.height[k]
    above = HEAD_ABOVE[level - 1]
    z = 0.5 * height + 0.5 * column.disc[k - 1] + HEAD_UP_MM if 2 <= level <= 9 else above * height
    sign = 1.0 if side == 0 else -1.0
    local = np.array([sign * (0.5 * width + HEAD_OUT_MM[level - 1]), 0.5 * depth + HEAD_BACK_MM[level - 1], z])
    tip = column.to_world(k, local)
    return np.asarray(tip * np.array([sign, 1.0, 1.0]))


HEAD_ABOVE = (0.25, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.46, 0.25, 0.15)
"""Height of the head above the middle of the body, in body heights."""
HEAD_UP_MM = 1.0
HEAD_OUT_MM = (2.4, 2.4, 2.4, 2.4, 2.4, 2.4, 2.4, 2.4, 2.2, 2.2, 1.8, 1.8)
HEAD_BACK_MM = (-2.5, -3.0, -3.0, -3.0, -3.0, -3.0, -3.0, -3.0, -2.5, -1.0, 1.0, 2.5)
"""Tip of the head beside the widest part of the body, and behind its back wall."""
