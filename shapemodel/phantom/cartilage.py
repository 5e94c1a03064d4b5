"""Costal cartilages: ribs 1-7 to the sternum, 8-10 to the cartilage above."""

from __future__ import annotations

import numpy as np

from shapemodel.mesh import Faces, Points
from shapemodel.phantom import sternum
from shapemodel.phantom.shape import MIRROR, Anatomy, anatomy
from shapemodel.phantom.subject import Array, Subject
from shapemodel.phantom.tube import bezier, tube

POINTS = 40
OVERLAP_MM = 1.2
"""Cartilage sits this deep in the cup of the rib's end."""
JOIN_AT = {8: 0.42, 9: 0.40, 10: 0.38}
"""Where along the cartilage above (0 at its rib) ribs 8-10 join it."""
ARRIVE = np.array(
    [
        [0.90, 0.05, -0.35],
        [1.00, 0.15, 0.05],
        [0.95, 0.20, -0.25],
        [0.85, 0.15, -0.50],
        [0.70, 0.10, -0.70],
        [0.55, 0.10, -0.85],
        [0.40, 0.10, -0.90],
    ]
)
"""Direction from the sternum in which the cartilage leaves it, left side: level above, from below further down."""


def cartilage(subject: Subject) -> dict[str, tuple[Points, Faces]]:
    """Closed tubes by name, ``costal_cartilage_left_01`` ... ``_right_10``: (V, 3) mm LPS and (F, 3).

    They reach into the cupped ends of the ribs and up to the notches of the sternum (no joint space is left there).
    A subject with 11 pairs keeps all ten. Calcification is the renderer's business.
    """
    a = anatomy(subject)
    out: dict[str, tuple[Points, Faces]] = {}
    for side, name in ((0, "left"), (1, "right")):
        curves = courses(a, side)
        for level, centre in curves.items():
            half = _half_sizes(a, side, level, len(centre))
            v, f = tube(centre, half, np.array([0.0, 0.0, 1.0]))
            v = a.bend(v * MIRROR if side else v)
            out[f"costal_cartilage_{name}_{level:02d}"] = (v, f[:, ::-1] if side else f)
    return out


def courses(a: Anatomy, side: int) -> dict[int, Array]:
    """Level -> (POINTS, 3) middle of each cartilage before the thorax-wide field, as for the left side."""
    notch = sternum.notches(a.breastbone)[side] * (MIRROR if side else 1.0)
    out: dict[int, Array] = {}
    for level in range(1, 11):
        curve = a.curves[side, level]
        tangent = curve.tangent[-12]
        start = curve.points[-1] - OVERLAP_MM * tangent
        if level <= 7:
            end, leave = notch[level - 1], ARRIVE[level - 1] / np.linalg.norm(ARRIVE[level - 1])
        else:
            above = out[level - 1]
            end = above[int(JOIN_AT[level] * POINTS)] + np.array([0.0, 0.0, -0.5 * a.sections.long[side, level - 1]])
            leave = above[0] - above[int(JOIN_AT[level] * POINTS)] + np.array([0.0, 0.0, -30.0])
            leave = leave / np.linalg.norm(leave)
        reach = float(np.linalg.norm(end - start))
        control = np.stack([start, start + 0.38 * reach * tangent, end + 0.42 * reach * leave, end])
        out[level] = bezier(control, POINTS)
    return out


def _half_sizes(a: Anatomy, side: int, level: int, count: int) -> Array:
    """(count, 2) half thickness and half height: the rib's end, narrowing to the notch."""
    j = level - 1
    long, short = 0.5 * a.sections.long[side, j], 0.5 * a.sections.short[side, j]
    if level == 1:
        long = short * 1.3
    u = np.linspace(0.0, 1.0, count)
    tall = long * np.interp(u, [0.0, 0.15, 1.0], [0.95, 0.92, 0.50 if level <= 7 else 0.42])
    thick = short * np.interp(u, [0.0, 0.15, 1.0], [0.85, 0.92, 0.80])
    return np.column_stack([thick, tall])
