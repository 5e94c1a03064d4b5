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


def weights(coarse: int, fine: int) -> Field:
    """(fine, coarse) matrix of linear interpolation from cell centres of a coarse axis to those of a fine one."""
    x = (np.arange(fine) + 0.5) * coarse / fine - 0.5
    x = np.clip(x, 0, coarse - 1)
    low = np.minimum(np.floor(x).astype(int), max(coarse - 2, 0))
    w = np.zeros((fine, coarse), np.float32)
    w[np.arange(fine), low] = 1 - (x - low)
    if coarse > 1:
        w[np.arange(fine), low + 1] += x - low
    return w


def enlarge(coarse: Field, shape: tuple[int, int, int]) -> Field:
    """Linear interpolation of a small (z, y, x) field that fills the same box as one of this shape."""
    wz, wy, wx = (weights(c, f) for c, f in zip(coarse.shape, shape, strict=True))
    planes = np.matmul(np.matmul(wy, coarse), wx.T)
    return np.asarray(np.tensordot(wz, planes, axes=(1, 0)), np.float32)


def smooth_field(rng: np.random.Generator, shape: tuple[int, int, int], cells: tuple[int, int, int]) -> Field:
    """Unit-variance field of this shape that varies over about ``cells`` voxels (z, y, x)."""
    small = tuple(max(2, int(np.ceil(n / c)) + 1) for n, c in zip(shape, cells, strict=True))
    return enlarge(rng.standard_normal(small, dtype=np.float32), shape)
