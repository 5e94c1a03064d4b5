"""The working grid: the CT at about 1.4 mm, with the maps in millimetres that every step asks for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from shapemodel.labels.canal import Canal
from shapemodel.mask import Coarse, Mask, Spacing, Thresholds

WORK_MM = 1.4
"""Aim for the edge of the working grid: a rib is 6 mm thin, the gap between two ribs 8 mm or more."""
PLEURA_BEHIND_MM = 8.0
PLEURA_SIDE = 0.55
FLUID_BEHIND_MM = 25.0
APEX_MM = 50.0
"""Where the pleura surely is behind the canal: share of the half width of the lungs, less than half of its
depth; the whole of it where, below the apex, no air is seen so far back."""
LEVEL_MM, LEVEL_SHARE = 9.0, 0.88
"""Air that is in its last so many mm still as wide as this share of its widest ends in a level: 0.95-1 above fluid in
phantoms lying on their backs, 0.52-0.79 in lungs that reach the back of the chest."""
ROUND_POINTS = 7
"""Points of the round of the back that fluid fills."""


@dataclass(frozen=True)
class Work:
    """CT on the working grid, arrays (z, y, x) and maps that broadcast to them.

    ``hu`` int16; ``spacing`` mm; ``factor`` fine voxels per voxel; ``body`` bool; ``lung_mm`` float32 distance
    from the hull of the lungs; ``lat`` (Z, 1, X) mm to the patient's left of the canal; ``ant`` (Z, Y, 1) mm in
    front of it.
    """

    hu: NDArray[np.int16]
    spacing: Spacing
    factor: tuple[int, int, int]
    body: Mask
    lung_mm: NDArray[np.float32]
    canal: Canal
    limits: Thresholds
    lat: NDArray[np.float32]
    ant: NDArray[np.float32]

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in mL."""
        return float(np.prod(self.spacing)) / 1000.0

    @cached_property
    def apex(self) -> int:
        """Index of the highest slice with lung, -1 where there is none."""
        return int(np.flatnonzero((self.lung_mm <= 0).any(axis=(1, 2))).max(initial=-1))

    def mm(self, index: NDArray[np.int64]) -> NDArray[np.float64]:
        """(n, 3) z, y, x in mm of the array's frame for (n, 3) voxel indices (centres of their blocks)."""
        fine = [s / f for s, f in zip(self.spacing, self.factor, strict=True)]
        off = [(f - 1) / 2 * s for f, s in zip(self.factor, fine, strict=True)]
        return np.asarray(index, dtype=float) * self.spacing + off


def block_mean(hu: NDArray[np.int16], factor: tuple[int, int, int]) -> NDArray[np.int16]:
    """Mean over blocks of ``factor`` voxels along z, y, x (a rest at the end is dropped), int16."""
    size = [n // f for n, f in zip(hu.shape, factor, strict=True)]
    part = hu[: size[0] * factor[0], : size[1] * factor[1], : size[2] * factor[2]]
    total = np.zeros(size, np.int32)
    for k in np.ndindex(*factor):
        total += part[k[0] :: factor[0], k[1] :: factor[1], k[2] :: factor[2]]
    return (total // int(np.prod(factor))).astype(np.int16)


def upsample(
    small: NDArray, factor: tuple[int, int, int], shape: tuple[int, ...], box: tuple[slice, ...] = (slice(None),) * 3
) -> NDArray:
    """Nearest-neighbour enlargement by ``factor`` to ``shape``, or a ``box`` of that; the last row is repeated where
    blocks end short."""
    ix = [np.minimum(np.arange(n)[b] // f, m - 1) for n, b, f, m in zip(shape, box, factor, small.shape, strict=True)]
    return small.take(ix[2], axis=2).take(ix[1], axis=1).take(ix[0], axis=0)


def _resample(
    small: NDArray, step: tuple[int, int, int], factor: tuple[int, int, int], shape: tuple[int, ...]
) -> NDArray:
    """A coarse array, every ``step``-th fine voxel, read at the centres of work voxels (nearest)."""
    ix = []
    for n, f, st, m in zip(shape, factor, step, small.shape, strict=True):
        fine = np.arange(n) * f + (f - 1) / 2
        ix.append(np.clip(np.round(fine / st).astype(int), 0, m - 1))
    return small[np.ix_(*ix)]


def lung_hull(lungs: Mask, canal_yx: NDArray[np.float64], spacing: Spacing) -> Mask:
    """Convex hull of all lung of each slice (coarse grid), continued downwards to the end of the scan.

    It also holds what an effusion or a consolidation took; downwards it is the upper abdomen, which the lower
    ribs hug as the upper ones hug the lungs.
    """
    from skimage.morphology import convex_hull_image

    hull = np.zeros_like(lungs)
    top = int(np.flatnonzero(lungs.any(axis=(1, 2)))[-1])
    for k, m in enumerate(lungs):
        if m.sum() > 8:
            full = m.copy()
            y, x = _pleura_behind(m, canal_yx[k], spacing, (top - k) * spacing[0] > APEX_MM)
            inside = (y >= 0) & (y < m.shape[0]) & (x >= 0) & (x < m.shape[1])
            full[y[inside], x[inside]] = True
            hull[k] = convex_hull_image(full)
    for k in range(len(hull) - 2, -1, -1):
        hull[k] |= hull[k + 1]
    return hull


def _pleura_behind(
    lung: Mask, canal_yx: NDArray[np.float64], spacing: Spacing, below_apex: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns that pleura surely holds behind the canal in a slice (y, x): two points of its back, and on a
    side whose air ends in a level the whole round that fluid fills, a quarter of an ellipse on from that level."""
    rows, cols = np.nonzero(lung)
    down, beside = rows * spacing[1], cols * spacing[2] - canal_yx[1]
    half = 0.5 * float(beside.max() - beside.min())
    healthy, whole = canal_yx[0] + PLEURA_BEHIND_MM, canal_yx[0] + FLUID_BEHIND_MM
    back = whole if below_apex and down.max() < healthy else healthy
    y, x = [back, back], [-PLEURA_SIDE * half, PLEURA_SIDE * half]
    for side in (-1.0, 1.0):
        own = side * beside > 0
        if not below_apex or not own.any() or down[own].max() >= healthy:
            continue
        end, wide = float(down[own].max()), float((side * beside[own]).max())
        if float((side * beside[own & (down > end - LEVEL_MM)]).max()) < LEVEL_SHARE * wide:
            continue
        back = max(whole, float(down.max()))
        for turn in np.linspace(0.0, 0.5 * np.pi, ROUND_POINTS):
            y.append(end + np.sin(turn) * (back - end))
            x.append(side * (wide * np.cos(turn) + PLEURA_SIDE * half * (1 - np.cos(turn))))
    return (
        np.round(np.array(y) / spacing[1]).astype(np.int64),
        np.round((np.array(x) + canal_yx[1]) / spacing[2]).astype(np.int64),
    )


def make_work(hu: NDArray[np.int16], spacing: Spacing, coarse: Coarse, canal: Canal, limits: Thresholds) -> Work:
    """The working grid of ``hu`` (z, y, x)."""
    fz, fy, fx = (max(1, round(WORK_MM / s)) for s in spacing)
    factor = (fz, fy, fx)
    small = block_mean(hu, factor)
    sp = (spacing[0] * fz, spacing[1] * fy, spacing[2] * fx)
    heights = np.arange(len(coarse.lungs)) * coarse.spacing[0]
    hull = lung_hull(coarse.lungs, canal.at_z(heights), coarse.spacing)
    far = ndi.distance_transform_edt(~hull, sampling=coarse.spacing).astype(np.float32)
    fine_mm = [(np.arange(n) * f + (f - 1) / 2) * s for n, f, s in zip(small.shape, factor, spacing, strict=True)]
    centre = canal.at_z(fine_mm[0])
    return Work(
        hu=small,
        spacing=sp,
        factor=factor,
        body=_resample(coarse.body, coarse.step, factor, small.shape),
        lung_mm=_resample(far, coarse.step, factor, small.shape),
        canal=canal,
        limits=limits,
        lat=(fine_mm[2][None, :] - centre[:, 1:]).astype(np.float32)[:, None, :],
        ant=(centre[:, :1] - fine_mm[1][None, :]).astype(np.float32)[:, :, None],
    )


def smooth_slices(hu: NDArray[np.int16], spacing: Spacing, sigma_mm: float) -> NDArray[np.int16]:
    """Gaussian smoothing within slices; voxels as large as ``sigma_mm`` or larger are hardly changed."""
    out = hu
    for axis in (1, 2):
        n = int(np.ceil(2.0 * sigma_mm / spacing[axis]))
        w = np.exp(-0.5 * (np.arange(n + 1) * spacing[axis] / sigma_mm) ** 2)
        w = np.round(1024 * w / (w[0] + 2 * w[1:].sum())).astype(np.int32)
        w[0] = 1024 - 2 * w[1:].sum()
        out = _weighted(out, w, axis)
    return out


def _weighted(hu: NDArray[np.int16], w: NDArray[np.int32], axis: int) -> NDArray[np.int16]:
    """Symmetric filter with integer weights of sum 1024 along an in-plane axis, slice by slice."""
    out = np.empty_like(hu, order="C")
    n = len(w) - 1
    pad = [(0, 0), (0, 0)]
    pad[axis - 1] = (n, n)
    size = hu.shape[axis]
    for k, plane in enumerate(hu):
        wide = np.pad(plane.astype(np.int32), pad, mode="edge")
        if axis == 2:
            wide = wide.T
        total = w[0] * wide[n : n + size]
        for i in range(1, n + 1):
            total += w[i] * (wide[n - i : n - i + size] + wide[n + i : n + i + size])
        total += 512
        total >>= 10
        out[k] = total.T if axis == 2 else total
    return out
