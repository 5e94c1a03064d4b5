"""Ribs as closed tubes on one chart: a landmark coordinate along the shaft, an angle around it.

The chart is the same on everybody, so that a vertex is a material point: stations are fixed in the landmark
coordinate (0 head, 1 tubercle, 2 angle, 3 anterior end), spokes are fixed in the section's own frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.interpolate import PchipInterpolator

from shapemodel.phantom import tables
from shapemodel.phantom.ribpath import ASYMMETRY, RibCurve
from shapemodel.phantom.subject import Array, Subject, by_sex, level_noise, stream

SPOKES = 20
"""Vertices around a section."""
STATION_MM = 1.8
"""Spacing of stations along the mean rib."""
RIDGE_WIDTH, RIDGE_SLANT = 0.08, 0.10
"""Half width of the line at the angle, and its slant per radian around the section, in landmark units of 80 mm."""
SQUARENESS = 2.4
"""Exponent of the superellipse of the shaft's section (2 is an ellipse)."""
HEAD_CAP = ((0.92, 0.62), (0.72, 0.30), (0.40, 0.09))
"""Rings of the head's cap: size against the first section, distance inside the tip in units of its depth."""
FRONT_CAP = ((0.93, 0.15), (0.72, 0.10), (0.38, 0.60))
"""Rings of the cupped front end: size, and distance inside the end in units of the cup's depth."""
HEAD_DEPTH_MM, CUP_DEPTH_MM = 2.6, 1.6


RIPPLES = 4
"""Waves along the shaft, of one to four half periods between head and anterior end."""
RIPPLE_SD = (0.022, 0.026, 0.035)
"""Of each wave: long axis, short axis (relative), twist (radians)."""


@dataclass(frozen=True)
class RibChart:
    """Topology of a rib: ``stations`` (n,) landmark coordinates, ``faces`` (F, 3) of a left rib."""

    stations: Array
    faces: np.ndarray


@dataclass(frozen=True)
class RibSections:
    """Cross-section parameters of the 24 ribs; arrays (2, 12) of mm or degrees unless said.

    ``head`` and ``front`` are relative sizes of the two ends; ``ripple`` (2, 12, n) are amplitudes of the slow
    waves along the shaft: relative for the long and the short axis, radians for the twist, in turn.
    """

    long: Array
    short: Array
    twist: Array
    tubercle: Array
    head: Array
    front: Array
    ripple: Array
    ridge: Array


def tubercle_angle(level: int) -> float:
    """Radians by which the tubercle faces below straight back: little in upper ribs, much in lower ones."""
    return float(np.interp(level, [1, 4, 10], [0.15, 0.30, 0.80]))


@cache
def chart(level: int) -> RibChart:
    """The fixed topology of rib ``level``; stations are evenly spaced on the mean man's rib."""
    length = float(tables.nako_length_mm()[level - 1].mean())
    neck, angle = tables.NECK_MM[level - 1], tables.angle_share()[level - 1] * length
    arcs = np.linspace(0.0, length, round(length / STATION_MM))
    spline = PchipInterpolator([0.0, 1.0, 2.0, 3.0], [0.0, neck, angle, length])
    fine = np.linspace(0.0, 3.0, 3001)
    stations = np.interp(arcs, spline(fine), fine)
    rings = len(HEAD_CAP) + len(stations) + len(FRONT_CAP)
    ring, spoke = np.meshgrid(np.arange(rings - 1), np.arange(SPOKES), indexing="ij")
    a, b = ring * SPOKES + spoke, ring * SPOKES + (spoke + 1) % SPOKES
    c, d = a + SPOKES, b + SPOKES
    even = (ring + spoke) % 2 == 0
    one = np.where(even[..., None], np.stack([a, b, c], -1), np.stack([a, b, d], -1))
    two = np.where(even[..., None], np.stack([b, d, c], -1), np.stack([a, d, c], -1))
    k = np.arange(SPOKES)
    last = (rings - 1) * SPOKES
    head = np.column_stack([np.full(SPOKES, rings * SPOKES), (k + 1) % SPOKES, k])
    front = np.column_stack([np.full(SPOKES, rings * SPOKES + 1), last + k, last + (k + 1) % SPOKES])
    faces = np.vstack([one.reshape(-1, 3), two.reshape(-1, 3), head, front]).astype(np.int64)
    return RibChart(stations, faces)


def rib_sections(subject: Subject) -> RibSections:
    """Section sizes by sex and age, with the subject's own residuals."""
    rng = stream(subject, "sections")
    s = subject.residual

    def noise(sd: float) -> Array:
        return s * sd * level_noise(rng, 12, 3.0, 2 * ASYMMETRY)

    build = 1 + 0.25 * (subject.height_cm / by_sex(subject, 164.5, 178.0) - 1)
    long = tables.SECTION_LONG_MM * by_sex(subject, tables.FEMALE_LONG, 1.0) * build
    short = tables.SECTION_SHORT_MM * by_sex(subject, tables.FEMALE_SHORT, 1.0) * build
    return RibSections(
        long=long * (1 + noise(0.085)),
        short=short * (1 + noise(0.085)),
        twist=noise(5.0),
        tubercle=tables.TUBERCLE_MM * by_sex(subject, 0.88, 1.0) * (1 + noise(0.15)),
        head=1 + noise(0.06),
        front=1 + noise(0.08),
        ripple=np.stack([noise(sd) for sd in RIPPLE_SD * RIPPLES], axis=-1),
        ridge=tables.RIDGE_MM * by_sex(subject, 0.88, 1.0) * (1 + noise(0.15)),
    )


def _profiles(level: int, sections: RibSections, side: int, landmark: Array) -> tuple[Array, Array, Array]:
    """Half sizes along the long and the short axis, and twist (radians), at each station."""
    j = level - 1
    long_profile = tables.FIRST_LONG_PROFILE if level == 1 else tables.LONG_PROFILE
    knots = np.array(tables.SECTION_KNOTS)
    ends = np.where(knots < 0.9, sections.head[side, j], np.where(knots > 2.4, sections.front[side, j], 1.0))
    if level >= 11:  # a floating rib tapers to a point
        ends = ends * np.where(knots > 2.4, np.interp(knots, [2.4, 3.0], [0.95, 0.6]), 1.0)
    half = np.arange(1, RIPPLES + 1)
    waves = np.sin(np.pi * half * (landmark[:, None] + 0.35) / 3.7) @ sections.ripple[side, j].reshape(RIPPLES, 3)
    long = PchipInterpolator(knots, np.array(long_profile) * ends)(landmark) * (1 + waves[:, 0])
    short = PchipInterpolator(knots, np.array(tables.SHORT_PROFILE) * ends)(landmark) * (1 + waves[:, 1])
    twist = PchipInterpolator(tables.TWIST_KNOTS, tables.TWIST_DEG[j])(landmark)
    turn = np.radians(twist + sections.twist[side, j] * np.clip(landmark - 0.8, 0.0, 1.0)) + waves[:, 2]
    return 0.5 * sections.long[side, j] * long, 0.5 * sections.short[side, j] * short, turn


def _section(level: int, sections: RibSections, side: int, landmark: Array) -> tuple[Array, Array]:
    """(n, SPOKES) outward and upward coordinates of the section outline at each station, mm."""
    a, b, twist = _profiles(level, sections, side, landmark)
    t = np.arange(SPOKES) * 2 * np.pi / SPOKES
    round_off = (np.abs(np.cos(t)) ** SQUARENESS + np.abs(np.sin(t)) ** SQUARENESS) ** (-1 / SQUARENESS)
    across = b[:, None] * np.cos(t) * round_off
    along = a[:, None] * np.sin(t) * round_off
    if level > 1:  # costal groove: the inner side of the lower edge is hollow, the edge itself is sharp
        window = np.clip(4 * (landmark - 1.1), 0, 1) * np.clip(3 * (2.75 - landmark), 0, 1)
        groove = np.exp(-0.5 * ((t - np.radians(235.0)) / 0.38) ** 2)
        across = across + 0.22 * b[:, None] * window[:, None] * groove
    out = across * np.cos(twist)[:, None] + along * np.sin(twist)[:, None]
    up = along * np.cos(twist)[:, None] - across * np.sin(twist)[:, None]
    bump = sections.tubercle[side, level - 1] * np.exp(-0.5 * ((landmark - 1.0) / 0.17) ** 2)
    direction = np.arctan2(up, out)
    lobe = np.exp(-0.5 * ((np.angle(np.exp(1j * (direction + tubercle_angle(level))))) / 0.75) ** 2)
    radius = np.hypot(out, up)
    # the line of the angle runs downwards and forwards across the outer side
    oblique = landmark[:, None] - 2.0 + RIDGE_SLANT * direction
    ridge = sections.ridge[side, level - 1] * np.exp(-0.5 * ((oblique / RIDGE_WIDTH) ** 2 + (direction / 0.8) ** 2))
    grow = 1 + (bump[:, None] * lobe + ridge) / radius
    return out * grow, up * grow


def rib_surface(curve: RibCurve, level: int, side: int, sections: RibSections) -> Array:
    """(V, 3) vertices of one rib on its chart, as a LEFT rib, mm."""
    landmark = chart(level).stations
    arc = curve.landmark_arc(landmark)
    first, last = HEAD_DEPTH_MM, curve.length - CUP_DEPTH_MM * 0.35
    arc = first + (last - first) * arc / curve.length
    out, up = _section(level, sections, side, landmark)
    rings = [(out[0] * size, up[0] * size, HEAD_DEPTH_MM * depth) for size, depth in reversed(HEAD_CAP)]
    shaft_out, shaft_up = [r[0] for r in rings], [r[1] for r in rings]
    arcs = [r[2] for r in rings] + list(arc)
    for size, depth in FRONT_CAP:
        shaft_out.append(out[-1] * size)
        shaft_up.append(up[-1] * size)
        arcs.append(curve.length - CUP_DEPTH_MM * depth)
    n = len(HEAD_CAP)
    all_out = np.vstack([*shaft_out[:n], out, *shaft_out[n:]])
    all_up = np.vstack([*shaft_up[:n], up, *shaft_up[n:]])
    s = np.array([*arcs, 0.0, curve.length - CUP_DEPTH_MM * 0.85])
    centre, outward, upward = (
        np.column_stack([np.interp(s, curve.arc, field[:, i]) for i in range(3)])
        for field in (curve.points, curve.outward, curve.upward)
    )
    body = centre[:-2, None] + all_out[..., None] * outward[:-2, None] + all_up[..., None] * upward[:-2, None]
    return np.vstack([body.reshape(-1, 3), centre[-2:]])
