"""Geodesic flood: labels grow from markers through bone, slowly where it is dark, so they meet in the joints."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shapemodel.labels.morphology import dilate
from shapemodel.mask import Mask, Spacing

JOINT_COST = 12.0
"""How many times dearer a step through the darkest bone voxel is than through dense bone."""
JOINT_HU = 110.0
"""HU above the bone outline at which the extra cost has fallen to 1/e: partial volume of a closed joint."""
GAP_MM = 3.0
"""Bone on both sides of a closed joint lies so near to its middle; marrow spaces are wider."""
GAP_HU = 50.0
"""A valley of this depth between two walls of bone costs as much again as dense bone."""
GAP_TOP_HU = 600.0
"""HU above the bone outline from which bone is a wall, however dense."""
GAP_WALL_HU = 120.0
"""Lower walls are hardly above the noise."""
GAP_SHARE = 0.25
"""A voxel of which bone fills a quarter, with the blur of walls on both sides."""
NEIGHBOURS = [(dz, dy, 1) for dz in (-1, 0, 1) for dy in (-1, 0, 1)]
"""A voxel and those that touch it, as rows."""


def step_cost(hu: NDArray[np.int16], low: float) -> NDArray[np.float64]:
    """Cost per mm: 1 in dense bone, 13 at the bone outline."""
    return 1.0 + JOINT_COST * np.exp(-np.clip(hu - low, 0.0, None) / JOINT_HU)


def joint_cost(hu: NDArray[np.int16], low: float, spacing: Spacing) -> NDArray[np.float64]:
    """Cost per mm where bones lie close together: that of a step, and more in narrow gaps between bright walls.

    Marrow is as dark as many a joint; but a joint is narrow, and dark against what bounds it on two sides.
    """
    return step_cost(hu, low) + gap_depth(hu, GAP_MM, int(low + GAP_TOP_HU), spacing) / GAP_HU


def gap_depth(hu: NDArray[np.int16], reach: float, top: int, spacing: Spacing) -> NDArray[np.int16]:
    """HU by which a voxel (z, y, x) is darker than the lower of the two walls beside it, along the axis where that
    is most.

    A wall is the brightest voxel within ``reach`` mm on one side of it, at most ``top`` HU.
    """
    flat = np.minimum(hu, np.int16(top))
    out = np.zeros_like(flat)
    for axis in range(3):
        n = max(1, round(reach / spacing[axis]))
        line = np.moveaxis(flat, axis, 0)
        before, behind = line.copy(), line.copy()
        for k in range(1, n + 1):
            np.maximum(before[k:], line[:-k], out=before[k:])
            np.maximum(behind[:-k], line[k:], out=behind[:-k])
        np.maximum(out, np.moveaxis(np.minimum(before, behind) - line, 0, axis), out=out)
    return out


def flood(
    cost: NDArray[np.float64], domain: Mask, markers: NDArray[np.uint8], spacing: Spacing, *, reach: float | None = None
) -> NDArray[np.uint8]:
    """Labels (z, y, x) uint8 of ``domain``: that of the marker with the cheapest path; 0 where none arrives.

    Markers are part of the domain. ``reach`` limits the cost of a path (mm of dense bone).
    """
    from skimage.graph import MCP_Geometric

    if not markers.any():
        return np.zeros_like(markers)
    open_ = domain | (markers > 0)
    weights = np.where(open_, cost, -1.0)
    # only marker voxels that touch what is to be decided need to start
    inner = (markers > 0) & ~dilate(open_ & (markers == 0), NEIGHBOURS)
    weights[inner] = -1.0
    starts = np.argwhere((markers > 0) & ~inner)
    mcp = MCP_Geometric(weights, fully_connected=True, sampling=spacing)
    total, trace = mcp.find_costs(starts)
    labels = _follow(trace, np.asarray(mcp.offsets), markers)
    if reach is not None:
        labels[(total > reach) & (markers == 0)] = 0
    labels[inner] = markers[inner]
    return labels


def _follow(trace: NDArray, offsets: NDArray, markers: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Label of the marker at the root of each voxel's path, by pointer doubling over the reached voxels."""
    shape = trace.shape
    flat = trace.ravel()
    reached = np.flatnonzero(flat >= -1)
    stride = offsets @ np.array([shape[1] * shape[2], shape[2], 1])
    where = np.full(flat.size, -1, np.int64)
    where[reached] = np.arange(len(reached))
    step = flat[reached]
    parent = np.arange(len(reached))
    moved = step >= 0
    parent[moved] = where[reached[moved] - stride[step[moved]]]
    while True:
        above = parent[parent]
        if np.array_equal(above, parent):
            break
        parent = above
    out = np.zeros(flat.size, np.uint8)
    out[reached] = markers.ravel()[reached[parent]]
    return out.reshape(shape)


def gaps(hu: NDArray[np.int16], labels: NDArray[np.uint8], low: float, spacing: Spacing) -> Mask:
    """Voxels of ``labels`` (z, y, x) that hold less bone than gap between two different ones.

    Slices and pixels as large as a joint are bright all through it: what tells is how much darker a voxel is than
    the walls on both its sides, which have to be of two labels and within :data:`GAP_MM` of it.
    """
    out = np.zeros(labels.size, bool)
    flat, owner = np.ascontiguousarray(hu).ravel(), np.ascontiguousarray(labels).ravel()
    bright = min(low + GAP_SHARE * GAP_TOP_HU, float(np.iinfo(np.int16).max))
    place = np.flatnonzero((owner > 0) & (flat < bright))
    index = np.unravel_index(place, labels.shape)
    share = (flat[place] - low).astype(np.float32)
    for axis in range(3):
        stride = int(np.prod(labels.shape[axis + 1 :]))
        wall, of = np.full((2, len(place)), low, np.float32), np.zeros((2, len(place)), np.uint8)
        for k in range(1, max(1, round(GAP_MM / spacing[axis])) + 1):
            for side, step in enumerate((-k, k)):
                inside = (index[axis] + step >= 0) & (index[axis] + step < labels.shape[axis])
                at = np.where(inside, place + step * stride, place)
                higher = inside & (owner[at] > 0) & (flat[at] > wall[side])
                wall[side, higher], of[side, higher] = flat[at[higher]], owner[at[higher]]
        lower = np.minimum(wall.min(axis=0) - low, GAP_TOP_HU)
        apart = (of > 0).all(axis=0) & (of[0] != of[1]) & (lower > GAP_WALL_HU)
        out[place] |= apart & (share < GAP_SHARE * lower)
    return out.reshape(labels.shape)
