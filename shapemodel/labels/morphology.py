"""Growing, closing and filling of masks by millimetres, quick on whole scans.

A ball is taken as rows of voxels along x: a mask is widened along x once for each half length of a row, packed to
bits, and the rows are put together by shifts of whole planes. Holes in planes are found among the gaps within rows
of voxels, of which there are a thousand times fewer than voxels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from shapemodel.mask import Mask, Spacing

Row = tuple[int, int, int]
"""A row of voxels of a structuring element: steps along z and y, and half of its length along x."""


def ball_rows(radius: float, spacing: Spacing) -> list[Row]:
    """Voxels whose centres lie within ``radius`` mm."""
    reach = [int(radius / s) for s in spacing]
    out = []
    for dz in range(-reach[0], reach[0] + 1):
        for dy in range(-reach[1], reach[1] + 1):
            left = radius**2 - (dz * spacing[0]) ** 2 - (dy * spacing[1]) ** 2
            if left >= -1e-6:
                out.append((dz, dy, int(np.sqrt(max(left, 0.0)) / spacing[2] + 1e-6)))
    return out


def round_rows(radius: float, spacing: Spacing) -> list[Row]:
    """Voxels that an ellipsoid reaches whose half axes are those whole voxels that fit into ``radius`` mm, and half a
    voxel more: a ball with its rim."""
    reach = [int(radius / s) for s in spacing]
    half = [k + 0.5 for k in reach]
    out = []
    for dz in range(-reach[0], reach[0] + 1):
        for dy in range(-reach[1], reach[1] + 1):
            left = 1.0 - (dz / half[0]) ** 2 - (dy / half[1]) ** 2
            if left >= 0.0:
                out.append((dz, dy, int(half[2] * np.sqrt(left) + 1e-9)))
    return out


def dilate(mask: Mask, rows: Sequence[Row]) -> Mask:
    """Dilation of ``mask`` (z, y, x) by the rows of a symmetric structuring element; outside of it is nothing."""
    wide = np.array(mask, dtype=bool, order="C")
    needed = {w for *_, w in rows}
    packed: dict[int, NDArray[np.uint8]] = {}
    for w in range(max(needed) + 1):
        if 0 < w < mask.shape[2]:
            wide[..., w:] |= mask[..., :-w]
            wide[..., :-w] |= mask[..., w:]
        if w in needed:
            packed[w] = np.packbits(wide, axis=2)
    out = np.zeros_like(packed[max(needed)])
    for dz, dy, w in rows:
        if abs(dz) < mask.shape[0] and abs(dy) < mask.shape[1]:
            (to_z, from_z), (to_y, from_y) = _shift(dz, mask.shape[0]), _shift(dy, mask.shape[1])
            out[to_z, to_y] |= packed[w][from_z, from_y]
    return np.unpackbits(out, axis=2, count=mask.shape[2]).view(bool)


def _shift(step: int, n: int) -> tuple[slice, slice]:
    """Where an axis of ``n`` voxels moved by ``step`` goes to, and what comes there."""
    return slice(max(0, step), n + min(0, step)), slice(max(0, -step), n - max(0, step))


def grow(mask: Mask, radius: float, spacing: Spacing) -> Mask:
    """Dilation by a ball of ``radius`` mm with its rim (:func:`round_rows`)."""
    return dilate(mask, round_rows(radius, spacing))


def shut(mask: Mask, radius: float, spacing: Spacing) -> Mask:
    """Closing by a ball of ``radius`` mm with its rim; the mask needs that much room around it."""
    rows = round_rows(radius, spacing)
    return ~dilate(~dilate(mask, rows), rows)


def close_mm(mask: Mask, radius: float, spacing: Spacing) -> Mask:
    """Closing by a ball of ``radius`` mm (:func:`ball_rows`); the box is padded meanwhile."""
    pad = [int(np.ceil(radius / s)) + 1 for s in spacing]
    rows = ball_rows(radius, spacing)
    closed = ~dilate(~dilate(np.pad(mask, [(p, p) for p in pad]), rows), rows)
    return closed[tuple(slice(p, -p) for p in pad)] | mask


def fill_planes(mask: Mask, spacing: Spacing, max_mm2: float, axes: tuple[int, ...] = (0, 1, 2)) -> Mask:
    """Fill holes below ``max_mm2`` in the planes across each axis (0: axial), one axis after the other."""
    out = np.array(mask, dtype=bool, order="C")
    nz, ny, nx = out.shape
    for axis in axes:
        area = float(np.prod([s for k, s in enumerate(spacing) if k != axis]))
        flat = out.transpose(0, 2, 1) if axis == 2 else out  # rows along y where planes lie across x
        rows = np.ascontiguousarray(flat).reshape(-1, flat.shape[2])
        place = np.arange(len(rows))
        inside = flat.shape[1]
        step, of = (1, place % ny) if axis == 0 else (inside, place // inside)
        last = ny - 1 if axis == 0 else nz - 1
        row, first, end = _holes(rows, step, (of == 0) | (of == last), max_mm2 / area)
        if len(row):
            length = end - first
            at = np.arange(length.sum()) + np.repeat(first - np.cumsum(length) + length, length)
            row = np.repeat(row, length)
            z, q = row // inside, row % inside
            out[(z, at, q) if axis == 2 else (z, q, at)] = True
    return out


def _holes(
    rows: NDArray[np.bool_], step: int, edge: NDArray[np.bool_], most: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Gaps (row, first, end) of the holes of at most ``most`` voxels in planes of ``rows`` (n, length).

    Rows ``step`` apart are neighbours in their plane; ``edge`` (n,) marks its first and last ones. A hole is closed in
    where its gaps, which touch by faces, touch neither the edge nor the open ends of rows.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n, size = rows.shape
    change = np.flatnonzero(rows[:, 1:] != rows[:, :-1])
    row, col = change // (size - 1), change % (size - 1) + 1
    ends = rows[row, col - 1]  # a run of the mask ends here
    # where the open ends of each row begin: all of it where nothing of the mask is in it
    left, right = np.where(rows[:, 0], 0, size), np.where(rows[:, -1], size, 0)
    top = np.flatnonzero(np.diff(row, prepend=-1))
    tail = np.flatnonzero(np.diff(row, append=n))
    left[row[top]] = np.where(ends[top], 0, col[top])
    right[row[tail]] = np.where(ends[tail], col[tail], size)
    gap = np.flatnonzero(ends[:-1] & (row[1:] == row[:-1]))
    row, first, end = row[gap], col[gap], col[gap + 1]
    open_ = edge[row]
    for other in (row - step, row + step):
        inner = (other >= 0) & (other < n) & ~edge[row]
        beside = np.where(inner, other, 0)
        open_ |= inner & ((first < left[beside]) | (end > right[beside]))
    inner = row + step < n
    inner &= ~(edge[row] & edge[np.where(inner, row + step, 0)])  # the last row of a plane and the first of the next
    low = np.searchsorted(row * size + end, (row + step) * size + first, side="right")
    high = np.searchsorted(row * size + first, (row + step) * size + end, side="left")
    count = np.where(inner, np.maximum(high - low, 0), 0)
    one = np.repeat(np.arange(len(row)), count)
    other = np.arange(count.sum()) + np.repeat(low - np.cumsum(count) + count, count)
    pairs = coo_matrix((np.ones(len(one), bool), (one, other)), shape=(len(row), len(row)))
    _, number = connected_components(pairs, directed=False)
    volume = np.bincount(number, weights=end - first)
    shut_in = np.bincount(number, weights=open_) == 0
    keep = (shut_in & (volume <= most + 1e-9))[number]
    return row[keep], first[keep], end[keep]
