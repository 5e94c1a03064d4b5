"""Seeded random fields: smooth ones made small and interpolated, fine ones made as periodic tiles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Field = NDArray[np.float32]

TILE = 96
"""Voxels a side of a periodic tile: 70 mm at 0.75 mm pixels, more than any bone is wide."""


def tile(rng: np.random.Generator, sigma: tuple[float, float, float]) -> Field:
    """(TILE, TILE, TILE) periodic Gaussian field of unit variance, smoothed by sigma voxels (z, y, x)."""
    white = rng.standard_normal((TILE, TILE, TILE), dtype=np.float32)
    smooth = ndimage.gaussian_filter(white, sigma, mode="wrap")
    return np.asarray(smooth / smooth.std(), np.float32)


def from_tile(pattern: Field, box: tuple[slice, slice, slice]) -> Field:
    """The periodic pattern on a box of the grid, (nz, ny, nx)."""
    index = [np.arange(s.start, s.stop) % TILE for s in box]
    return pattern[np.ix_(*index)]


def _between(coarse: int, fine: int, part: slice | None) -> tuple[NDArray[np.int64], Field]:
    """Lower coarse cell and weight of the next one for the cells of a finer axis over the same length."""
    x = (np.arange(fine)[part or slice(None)] + 0.5) * coarse / fine - 0.5
    x = np.clip(x, 0, coarse - 1)
    low = np.clip(np.floor(x).astype(np.int64), 0, max(coarse - 2, 0))
    return low, (x - low).astype(np.float32)


def enlarge(coarse: Field, shape: tuple[int, int, int], box: tuple[slice, slice, slice] | None = None) -> Field:
    """Linear interpolation of a small (z, y, x) field over the same volume as one of this shape, or a box of that."""
    parts = box or (None, None, None)
    (iz, tz), (iy, ty), (ix, tx) = (_between(c, f, p) for c, f, p in zip(coarse.shape, shape, parts, strict=True))
    top = [min(1, n - 1) for n in coarse.shape]
    rows = coarse[:, iy] * (1 - ty)[:, None] + coarse[:, iy + top[1]] * ty[:, None]
    planes = rows[:, :, ix] * (1 - tx) + rows[:, :, ix + top[2]] * tx
    out = np.empty((len(iz), len(iy), len(ix)), np.float32)
    for k, (i, t) in enumerate(zip(iz, tz, strict=True)):
        np.multiply(planes[i], 1 - t, out=out[k])
        out[k] += t * planes[i + top[0]]
    return out


def smooth_field(rng: np.random.Generator, shape: tuple[int, int, int], cells: tuple[int, int, int]) -> Field:
    """Unit-variance field of this shape that varies over about ``cells`` voxels (z, y, x)."""
    small = tuple(max(2, int(np.ceil(n / c)) + 1) for n, c in zip(shape, cells, strict=True))
    return enlarge(rng.standard_normal(small, dtype=np.float32), shape)
