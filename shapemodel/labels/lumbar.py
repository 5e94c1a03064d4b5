"""Ribs of the first lumbar vertebra: told from its transverse processes by the joint that parts them from it.

A process is one piece of dense bone with its vertebra up to nearly the HU of its own cortex. A rib, however short, is
held to the vertebra through a joint only, and comes apart from it far below that. A long one is what reaches furthest
out; a short one lies before the process, as all ribs do, and is told from it there.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from shapemodel.anatomy import OTHER_BONE, VERTEBRAE
from shapemodel.labels.spine import Discs
from shapemodel.labels.vertebrae import SpineFrame
from shapemodel.mask import Spacing

TIP_SIDE_MM = (31.0, 46.0)
"""Where a process of L1 ends, and where a rib of it goes on."""
TIP_DEPTH_MM = (-30.0, 8.0)
CORE_SIDE_MM = 13.0
CORE_DEPTH_MM = (-13.0, 20.0)
"""Body, pedicles and laminae."""
REACH_MM = 38.0
"""Shorter pieces are the ends of processes, whose growth plates may stay open."""
NECK_SIDE_MM = (22.0, 36.0)
NECK_DEPTH_MM = (-4.0, 8.0)
NECK_ABOVE_MM = 5.0
"""Where the head and neck of a rib of L1 lie: before its transverse process, which leaves the vertebra behind the
middle of the canal, and up to so far above the disc."""
NECK_ML = 0.1
"""Less bone there is the front of a process or the side of a body."""
MIN_TIP_ML, MIN_CORE_ML = 0.02, 0.03
"""Fewer voxels above a limit are noise."""
LOOKED_AT_ML = 0.15
"""Less bone so far out is the end of a process."""
STEP_HU = 25.0
MARGIN_MM = 14.0
"""Processes rise and sink by so much beyond the discs of their vertebra."""


def process_hold(
    hu: NDArray[np.int16],
    labels: NDArray[np.uint8],
    spacing: Spacing,
    frame: SpineFrame,
    discs: Discs,
    levels: dict[int, int],
    low: float,
) -> tuple[float, float]:
    """How firmly what lies beside the vertebra below T12 is held to it, at the tips of its processes and before them:
    the HU up to which both are one piece, as a share of the HU of the outer piece's own cortex; the lesser of both
    sides, 1 where nothing is to be seen.

    ``hu`` and final ``labels`` (Z, Y, X) in the frame's box; numbered ribs are no part of it.
    """
    below = next((k - 1 for k, label in levels.items() if label == VERTEBRAE[-1]), -1)
    if below < 0 or below >= len(discs.s):
        return 1.0, 1.0  # T12 is not in the scan, or the scan ends within it
    high_s = float(discs.s[below])
    low_s = float(discs.s[below - 1]) if below else high_s - float(discs.s[1] - discs.s[0])
    rows = np.flatnonzero(((frame.s > low_s - MARGIN_MM) & (frame.s < high_s + MARGIN_MM)).any(axis=(1, 2)))
    part = slice(int(rows[0]), int(rows[-1]) + 1)
    s, lat, ant = frame.s[part], frame.lat[part], frame.ant[part]
    level = (s > low_s - MARGIN_MM) & (s < high_s + 0.5 * MARGIN_MM)
    bone = level & (labels[part] == OTHER_BONE)
    values = np.where(bone, hu[part], np.int16(-1000))
    core = bone & (np.abs(lat) < CORE_SIDE_MM) & (ant > CORE_DEPTH_MM[0]) & (ant < CORE_DEPTH_MM[1])
    beside = bone & (s > low_s) & (s < high_s + NECK_ABOVE_MM)
    tips, necks = [1.0], [1.0]
    ml = float(np.prod(spacing)) / 1000.0
    for side in (lat, -lat):
        tip = bone & (side > TIP_SIDE_MM[0]) & (side < TIP_SIDE_MM[1])
        tip &= (ant > TIP_DEPTH_MM[0]) & (ant < TIP_DEPTH_MM[1])
        if below and tip.sum() * ml >= LOOKED_AT_ML and float(side[tip].max()) >= REACH_MM:
            tips.append(_held(values, tip, core, low, ml))  # a scan that ends within L1 may cut its processes off
        neck = beside & (side > NECK_SIDE_MM[0]) & (side < NECK_SIDE_MM[1])
        neck &= (ant > NECK_DEPTH_MM[0]) & (ant < NECK_DEPTH_MM[1])
        if neck.sum() * ml >= NECK_ML:
            necks.append(_held(values, neck, core, low, ml))
    return min(tips), min(necks)


def _held(values: NDArray[np.int16], tip: NDArray[np.bool_], core: NDArray[np.bool_], low: float, ml: float) -> float:
    """The highest threshold at which the largest piece of ``tip`` is one with ``core``, over the highest at which it
    is there at all."""
    joined, there = 0.0, low
    for limit in np.arange(low, 1500.0, STEP_HU):
        pieces, n = ndi.label(values > limit, np.ones((3, 3, 3)))
        outer = np.bincount(pieces[tip], minlength=n + 1)
        outer[0] = 0
        if outer.max() * ml < MIN_TIP_ML:
            break
        there = float(limit)
        inner = np.bincount(pieces[core], minlength=n + 1)
        if inner[int(outer.argmax())] * ml >= MIN_CORE_ML:
            joined = float(limit)
    return joined / there
