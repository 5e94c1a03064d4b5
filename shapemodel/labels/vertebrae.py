"""Markers of the vertebrae in the frame of the canal: bodies between discs, pedicles beside the canal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from shapemodel.anatomy import OTHER_BONE
from shapemodel.labels.canal import Canal
from shapemodel.labels.spine import Discs
from shapemodel.mask import Mask, Spacing

Box = tuple[slice, slice, slice]
FRONT = slice(0, None)
PIVOT_MM = 20.0
"""Distance in front of the canal around which a disc's tilt turns: the middle of a body."""
BODY_SIDE_MM = 11.0
BODY_DEPTH_MM = (11.0, 23.0)
ENDPLATE_MM = 3.0
PEDICLE_SIDE_MM = (6.5, 14.0)
PEDICLE_DEPTH_MM = (-4.0, 7.0)
PEDICLE_HEIGHT = (0.45, 0.88)
"""Pedicles leave the upper half of a body; the lower half bounds the foramen."""


LAMINA_SIDE_MM = 10.0
LAMINA_DEPTH_MM = (-13.0, -6.0)
LAMINA_HEIGHT = (0.18, 0.58)
"""The lamina stands behind the lower half of its body; above it is the joint with its upper neighbour."""

JOINT_SIDE_MM = (5.0, 15.0)
JOINT_DEPTH_MM = (-15.0, -9.0)
JOINT_HEIGHT = (0.06, 0.24)
"""Inferior articular processes hang behind the joint; where they end below the disc is left to the flood."""
PILLAR_SIDE_MM = (10.0, 24.0)
PILLAR_DEPTH_MM = (-8.0, 4.0)
PILLAR_HEIGHT = (0.25, 0.9)
"""Articular pillars and transverse processes of a neck stand beside the canal, further forward than those of a
chest: without a marker of their own those of C7 go to T1."""
ARCH_PARTS = (
    (PEDICLE_SIDE_MM, PEDICLE_DEPTH_MM, PEDICLE_HEIGHT),
    ((-1.0, LAMINA_SIDE_MM), LAMINA_DEPTH_MM, LAMINA_HEIGHT),
    (JOINT_SIDE_MM, JOINT_DEPTH_MM, JOINT_HEIGHT),
)
NECK_PARTS = ((PILLAR_SIDE_MM, PILLAR_DEPTH_MM, PILLAR_HEIGHT),)
"""Parts of every arch, and further ones of those above T1: mm beside and before the canal, share of the level."""
RISEN_SIDE_MM = (13.0, 20.0)
RISEN_DEPTH_MM = (-12.0, 2.0)
RISEN_MM = (-8.0, 4.0)
"""Behind a disc and its foramen stand the superior articular processes of the lower vertebra, to the side of and before
the inferior ones of the upper: mm beside and before the canal, and above the disc."""
TILTED_MM = 5.0
"""A disc tilted by 18 degrees rises so far at the rim of a body."""
ARCH_MM = 6.0
"""What lies less far in front of the canal's middle is arch."""
ARCH_SIDE_MM = 20.0
ARCH_BACK_MM = -3.0
"""Further out and further back are transverse processes and facet joints, and parts of the arch behind them rise above
their own disc: there the flood decides, which follows what joints it sees. Not so at the neck, whose arches have fewer
markers."""
COLUMN_SIDE_MM = 24.0
"""Half width of the broadest body with its spurs; rib necks lie further out."""
ABOVE_MM = 1.0
"""How surely the place of a disc is known."""


@dataclass(frozen=True)
class SpineFrame:
    """A box of fine voxels around the spine with its coordinates in the canal's frame (mm).

    ``box`` slices of the fine array; (Z, Y, X) float32: ``s`` arclength, ``lat`` to the left of the canal, ``ant``
    in front of it, both as the vertebrae are turned; ``turn`` (Z,) radians by which they are, left side forwards.
    """

    box: Box
    s: NDArray[np.float32]
    lat: NDArray[np.float32]
    ant: NDArray[np.float32]
    turn: NDArray[np.float64]


def spine_frame(
    shape: tuple[int, ...],
    spacing: Spacing,
    canal: Canal,
    turn: NDArray[np.float64],
    reach: tuple[float, float, float],
) -> SpineFrame:
    """The box within ``reach`` mm of the canal: to the sides, before and behind it; ``turn`` (Z,) radians."""
    p = canal.points
    side, front, back = reach
    y0, y1 = (p[:, 1].min() - front) / spacing[1], (p[:, 1].max() + back) / spacing[1]
    x0, x1 = (p[:, 2].min() - side) / spacing[2], (p[:, 2].max() + side) / spacing[2]
    box = (
        slice(0, shape[0]),
        slice(max(0, int(y0)), min(shape[1], int(y1) + 1)),
        slice(max(0, int(x0)), min(shape[2], int(x1) + 1)),
    )
    z = np.arange(shape[0]) * spacing[0]
    y = np.arange(box[1].start, box[1].stop) * spacing[1]
    x = np.arange(box[2].start, box[2].stop) * spacing[2]
    lat = (x[None] - p[:, 2:3]).astype(np.float32)[:, None, :]
    ant = (p[:, 1:2] - y[None]).astype(np.float32)[:, :, None]
    grid = np.stack(np.broadcast_arrays(z[:, None], y[None, :], p[:, 2:3]), axis=-1).reshape(-1, 3)
    s = canal.arclength(grid).reshape(len(z), len(y)).astype(np.float32)
    s3 = s[:, :, None] + lat * canal.tangent[:, 2].astype(np.float32)[:, None, None]
    c, t = (f(turn).astype(np.float32)[:, None, None] for f in (np.cos, np.sin))
    return SpineFrame(box, s3, c * lat + t * ant, c * ant - t * lat, turn)


CANAL_SIDE_MM = 14.0
CANAL_DEPTH_MM = (-12.0, 10.5)


def canal_mask(frame: SpineFrame, soft: Mask) -> Mask:
    """(Z, Y, X) bool: the soft inside of the canal, slice by slice connected to its middle."""
    y0 = -sum(CANAL_DEPTH_MM) / 2
    half = (CANAL_DEPTH_MM[1] - CANAL_DEPTH_MM[0]) / 2
    inside = (frame.lat / CANAL_SIDE_MM) ** 2 + ((frame.ant + y0) / half) ** 2 < 1.0
    flat = np.zeros((3, 3, 3), bool)
    flat[1] = ndi.generate_binary_structure(2, 1)
    lab, n = ndi.label(soft & inside, flat)
    keep = np.zeros(n + 1, bool)
    keep[np.unique(lab[np.broadcast_to(np.hypot(frame.lat, frame.ant) < 4.0, lab.shape)])] = True
    keep[0] = False
    return keep[lab]


def disc_height(discs: Discs, k: int, ant: NDArray[np.float32]) -> NDArray[np.float32]:
    """Arclength of disc ``k`` at these depths, tilted about the middle of the body."""
    depth = np.clip(ant, PIVOT_MM - 12.0, PIVOT_MM + 12.0) - PIVOT_MM  # a tilt is measured on the body only
    return (discs.s[k] + np.tan(np.deg2rad(discs.tilt[k])) * depth).astype(np.float32)


def _rows(frame: SpineFrame, low: float, high: float) -> slice:
    """Slices of the box that hold some of the arclengths ``low`` to ``high`` (mm), tilted discs included."""
    ends = frame.s[:, [0, 0, -1, -1], [0, -1, 0, -1]]  # s is nearly linear across a slice: its corners are extremes
    k = np.flatnonzero((ends.max(axis=1) > low - TILTED_MM) & (ends.min(axis=1) < high + TILTED_MM))
    return slice(int(k[0]), int(k[-1]) + 1) if len(k) else slice(0, 0)


def level_bounds(frame: SpineFrame, discs: Discs, k: int) -> tuple[slice, NDArray[np.float32], NDArray[np.float32]]:
    """Slices of the box that hold interval ``k``, and the arclength of its lower and upper disc at each depth there.

    The first and the last interval are as high as their neighbours.
    """
    n = len(discs.s)
    heights = np.diff(discs.s)
    below = discs.s[k - 1] if k > 0 else discs.s[0] - heights[0]
    above = discs.s[k] if k < n else discs.s[-1] + heights[-1]
    rows = _rows(frame, float(below), float(above))
    ant = frame.ant[rows]
    low = disc_height(discs, k - 1, ant) if k > 0 else disc_height(discs, 0, ant) - heights[0]
    high = disc_height(discs, k, ant) if k < n else disc_height(discs, n - 1, ant) + heights[-1]
    return rows, np.asarray(low, np.float32), np.asarray(high, np.float32)


def level_markers(frame: SpineFrame, bone: Mask, discs: Discs, levels: dict[int, int]) -> NDArray[np.uint8]:
    """Markers of bodies and arches; ``levels`` maps an interval (0: below the lowest disc) to a label."""
    out = np.zeros(frame.s.shape, np.uint8)
    top = max((k for k, label in levels.items() if label < OTHER_BONE), default=len(discs.s))
    for k, label in levels.items():
        rows, low, high = level_bounds(frame, discs, k)
        s, ant, solid, view = frame.s[rows], frame.ant[rows], bone[rows], out[rows]
        side = np.abs(frame.lat[rows])
        body = (side < BODY_SIDE_MM) & (ant > BODY_DEPTH_MM[0]) & (ant < BODY_DEPTH_MM[1])
        view[body & (s > low + ENDPLATE_MM) & (s < high - ENDPLATE_MM)] = label
        share = (s - low) / (high - low)
        for (near, far), (back, front), (a, b) in ARCH_PARTS + NECK_PARTS * (k > top):
            part = (side > near) & (side < far) & (ant > back) & (ant < front) & (share > a) & (share < b)
            view[part & solid] = label
    if 0 in levels:
        _mark_risen(out, frame, bone, discs, levels[0])
    return out


def _mark_risen(out: NDArray[np.uint8], frame: SpineFrame, bone: Mask, discs: Discs, label: int) -> None:
    """Mark the superior articular processes of the lowest interval, if the scan ends above its pedicles, from which
    else they are reached; changes ``out``."""
    rows, low, high = level_bounds(frame, discs, 0)
    s, ant, side = frame.s[rows], frame.ant[rows], np.abs(frame.lat[rows])
    share = (s - low) / (high - low)
    (near, far), (back, front), (a, b) = ARCH_PARTS[0]
    pedicles = (side > near) & (side < far) & (ant > back) & (ant < front) & (share > a) & (share < b)
    if pedicles.any():
        return
    risen = bone[rows] & (side > RISEN_SIDE_MM[0]) & (side < RISEN_SIDE_MM[1])
    risen &= (ant > RISEN_DEPTH_MM[0]) & (ant < RISEN_DEPTH_MM[1])
    out[rows][risen & (s - high > RISEN_MM[0]) & (s - high < RISEN_MM[1])] = label


def hold_levels(
    labels: NDArray[np.uint8], frame: SpineFrame, discs: Discs, levels: dict[int, int]
) -> NDArray[np.uint8]:
    """Give bone that a flood took from beyond a vertebra's own discs to its neighbour; changes ``labels``.

    Bodies end at their discs both ways, also where spurs bridge these. Arches hang down over the next level; beside
    the canal none rises above its own disc (superior articular processes end near it).
    """
    body = (frame.ant >= ARCH_MM) & (np.abs(frame.lat) < COLUMN_SIDE_MM)
    arch = (frame.ant < ARCH_MM) & (np.abs(frame.lat) < ARCH_SIDE_MM)
    front = arch & (frame.ant > ARCH_BACK_MM)
    own = sorted((k, label) for k, label in levels.items() if label < OTHER_BONE)
    for k, label in own:
        if k < len(discs.s) and k + 1 in levels:
            neck = levels[k + 1] == OTHER_BONE
            _give(labels, label, levels[k + 1], (arch if neck else front) | body, frame, discs, k, 1.0)
    for k, label in own[::-1]:
        if k > 0 and k - 1 in levels:
            _give(labels, label, levels[k - 1], body, frame, discs, k - 1, -1.0)
    return labels


def _give(
    labels: NDArray[np.uint8], label: int, other: int, region: Mask, frame: SpineFrame, discs: Discs, k: int, up: float
) -> None:
    """Give what of a label lies beyond disc ``k`` (above it: ``up`` 1, below it: -1) in a region to another one."""
    ends = (float(discs.s[k]), np.inf) if up > 0 else (-np.inf, float(discs.s[k]))
    rows = _rows(frame, *ends)
    at = np.nonzero((labels[rows] == label) & region[rows])
    beyond = up * (frame.s[rows][at] - disc_height(discs, k, frame.ant[rows][at])) > ABOVE_MM
    labels[rows][tuple(i[beyond] for i in at)] = other


def vote_levels(discs: Discs, starts: list[tuple[int, float]]) -> tuple[int, float, int]:
    """Which interval is level 1, by ribs: (interval index of level 1, share of votes for it, number of votes).

    ``starts`` are (rib level, arclength); ribs 1-3, 11 and 12 leave their bodies at a slant and count less.
    Interval k lies between disc k-1 and disc k; levels grow downwards.
    """
    votes: dict[int, float] = {}
    for level, s in starts:
        k = int(np.searchsorted(discs.s, s))
        votes[k + level - 1] = votes.get(k + level - 1, 0.0) + (1.0 if 4 <= level <= 10 else 0.4)
    best = max(sorted(votes), key=lambda v: votes[v])
    total = sum(votes.values())
    return best, votes[best] / total, len(starts)
