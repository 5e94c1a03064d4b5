"""The spinal canal: the one soft tube that bone surrounds on (nearly) all sides in every slice.

In each slice a point scores by how many of 24 rays meet bone 4-16 mm away, in a soft disc; dynamic
programming over slices takes the smoothest path of high scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from shapemodel.mask import Coarse, Spacing
from shapemodel.reasons import StudyError

GRID_MM = 1.4
"""In-plane edge of the search grid: a tenth of the canal's width."""
RAYS = 24
RAY_MM = (4.0, 16.0)
"""Half the width of the narrowest (T5) and of the widest (T12, oblique) canal, with the lamina's depth."""
DISC_MM = 3.5
"""Radius of the disc that must be soft (dura and cord)."""
BEND = (0.02, 0.15)
"""Cost of a move by a voxel forwards or back, and sideways, from slice to slice: a spine hardly bends sideways within a
level, and a path that wanders there tilts everything that is measured along it (by 38 degrees at the end of a phantom,
with the same cost for both)."""
MAX_SLOPE = 1.2
"""Largest in-plane move per mm of height: 50 degrees, a strong kyphosis."""
MIN_SCORE = 0.55
"""Mean score under which the path is no canal."""


@dataclass(frozen=True)
class Canal:
    """Centre of the canal in each slice, in mm of the array's own frame (index times spacing).

    ``points`` (Z, 3) as z, y, x; ``s`` (Z,) arclength in mm from the lowest slice; ``tangent`` (Z, 3) unit,
    headwards; ``score`` (Z,) 0-1, share of rays that met bone.
    """

    points: NDArray[np.float64]
    s: NDArray[np.float64]
    tangent: NDArray[np.float64]
    score: NDArray[np.float64]

    def at_z(self, z_mm: NDArray[np.floating] | float) -> NDArray[np.float64]:
        """(n, 2) y and x of the centre at these heights in mm."""
        z = np.atleast_1d(np.asarray(z_mm, dtype=float))
        return np.stack([np.interp(z, self.points[:, 0], self.points[:, k]) for k in (1, 2)], axis=1)

    def arclength(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Arclength (mm) of the canal's cross-section plane through each (n, 3) z, y, x point.

        Found by a few fixed-point steps, which converge since the planes through nearby points hardly tilt.
        """
        n = min(8, len(self.s) - 1)
        lo, hi = self.points[n] - self.points[0], self.points[-1] - self.points[-1 - n]
        lo, hi = lo / np.linalg.norm(lo), hi / np.linalg.norm(hi)
        far = 80.0  # straight on beyond both ends of the scan
        line = np.concatenate([[self.points[0] - far * lo], self.points, [self.points[-1] + far * hi]])
        along = np.concatenate([[self.s[0] - far], self.s, [self.s[-1] + far]])
        tangent = np.concatenate([[lo], self.tangent, [hi]])
        s = np.interp(points[:, 0], line[:, 0], along)
        for _ in range(12):
            c = np.stack([np.interp(s, along, line[:, k]) for k in range(3)], axis=1)
            t = np.stack([np.interp(s, along, tangent[:, k]) for k in range(3)], axis=1)
            s = np.clip(s + 0.7 * ((points - c) * t).sum(axis=1), along[0], along[-1])
        return s


def _block_mean(hu: NDArray[np.int16], f: int) -> NDArray[np.float32]:
    ny, nx = hu.shape[1] // f * f, hu.shape[2] // f * f
    part = hu[:, :ny, :nx].astype(np.float32)
    if f == 1:
        return part
    return part.reshape(hu.shape[0], ny // f, f, nx // f, f).mean(axis=(2, 4))


def _ring_score(bone: NDArray[np.bool_], px: float) -> NDArray[np.float64]:
    """(Z, Y, X) share of rays that meet bone between the limits of :data:`RAY_MM`."""
    hits = np.zeros(bone.shape, np.uint8)
    radii = np.arange(RAY_MM[0], RAY_MM[1] + 0.1, px)
    m = int(np.ceil(RAY_MM[1] / px)) + 1
    padded = np.pad(bone, ((0, 0), (m, m), (m, m)))
    ny, nx = bone.shape[1:]
    for k in range(RAYS):
        angle = 2 * np.pi * k / RAYS
        offsets = {(round(r * np.sin(angle) / px), round(r * np.cos(angle) / px)) for r in radii}
        ray = np.zeros(bone.shape, bool)
        for dy, dx in offsets:
            ray |= padded[:, m + dy : m + dy + ny, m + dx : m + dx + nx]
        hits += ray
    return hits.astype(np.float64) / RAYS


def _best_path(score: NDArray[np.float32], reach: int) -> NDArray[np.int64]:
    """(Z, 2) row and column per slice of the path with the highest sum of scores, moves within ``reach``."""
    nz = len(score)
    total = score[0].copy()
    back = np.zeros(score.shape, np.int32)
    moves = [(dy, dx) for dy in range(-reach, reach + 1) for dx in range(-reach, reach + 1)]
    ny, nx = total.shape
    for k in range(1, nz):
        pad = np.pad(total, reach, constant_values=-1e9)
        best = np.full(total.shape, -np.inf, np.float32)
        for i, (dy, dx) in enumerate(moves):
            cand = (
                pad[reach + dy : reach + dy + ny, reach + dx : reach + dx + nx]
                - (BEND[0] * dy * dy + BEND[1] * dx * dx) / reach
            )
            better = cand > best
            best[better] = cand[better]
            back[k][better] = i
        total = best + score[k]
    path = np.zeros((nz, 2), np.int64)
    path[-1] = np.unravel_index(int(total.argmax()), total.shape)
    for k in range(nz - 1, 0, -1):
        dy, dx = moves[back[k][tuple(path[k])]]
        path[k - 1] = np.clip(path[k] + (dy, dx), 0, (ny - 1, nx - 1))
    return path


def _search_box(coarse: Coarse, spacing: Spacing, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Rows and columns (fine voxels) where the canal can be: behind the lungs' middle, in their central part."""
    y = np.flatnonzero(coarse.lungs.any(axis=(0, 2))) * coarse.spacing[1]
    x = np.flatnonzero(coarse.lungs.any(axis=(0, 1))) * coarse.spacing[2]
    bx = np.flatnonzero(coarse.body.any(axis=(0, 1))) * coarse.spacing[2]
    by = np.flatnonzero(coarse.body.any(axis=(0, 2))) * coarse.spacing[1]
    # an effusion takes the back of the lungs, so that the body's back says how far to look
    y0, y1 = y[0] + 0.45 * (y[-1] - y[0]), max(y[-1] + 40.0, by[-1] - 30.0)
    if x[-1] - x[0] < 0.45 * (bx[-1] - bx[0]):  # one lung only: the body gives the middle
        x = bx
    x0, x1 = x[0] + 0.22 * (x[-1] - x[0]), x[-1] - 0.22 * (x[-1] - x[0])
    return (
        slice(max(0, int(y0 / spacing[1])), min(shape[1], int(y1 / spacing[1]))),
        slice(max(0, int(x0 / spacing[2])), min(shape[2], int(x1 / spacing[2]))),
    )


def find_canal(hu: NDArray[np.int16], spacing: Spacing, coarse: Coarse, low: float, tissue: float) -> Canal:
    """The canal of ``hu`` (z, y, x); ``low`` is the bone outline, ``tissue`` the soft-tissue peak in HU.

    Raises StudyError no_canal where the best path is surrounded by bone in too few slices.
    """
    rows, cols = _search_box(coarse, spacing, hu.shape)
    f = max(1, round(GRID_MM / spacing[1]))
    part = _block_mean(hu[:, rows, cols], f)
    px = spacing[1] * f
    ring = _ring_score(part > low, px)
    n = max(1, round(DISC_MM / px))
    soft = ndi.uniform_filter(part, (0, 2 * n + 1, 2 * n + 1), mode="nearest")
    fit = np.clip(1.0 - np.abs(soft - tissue) / (0.9 * max(low - tissue, 60.0)), 0.0, 1.0)
    score = ring * (0.35 + 0.65 * fit) * (soft < low)
    reach = max(1, int(np.ceil(MAX_SLOPE * spacing[0] / px)))
    centred = score + 0.5 * ndi.uniform_filter(score, (0, 7, 7))  # many rays meet bone from off the middle too
    path = _best_path(centred.astype(np.float32), reach)
    along = score[np.arange(len(path)), path[:, 0], path[:, 1]]
    if np.median(along) < MIN_SCORE:
        raise StudyError(
            "no_canal",
            f"expected a spinal canal with bone around it in most slices, found a best score of {np.median(along):.2f} "
            f"(needed {MIN_SCORE}): is this a chest CT with the spine in the field?",
        )
    return _as_canal(path, along, (rows.start, cols.start), f, spacing)


def _as_canal(
    path: NDArray[np.int64], score: NDArray[np.float32], start: tuple[int, int], f: int, sp: Spacing
) -> Canal:
    z = np.arange(len(path), dtype=np.float64) * sp[0]
    y = (start[0] + path[:, 0] * f + (f - 1) / 2) * sp[1]
    x = (start[1] + path[:, 1] * f + (f - 1) / 2) * sp[2]
    sigma = 12.0 / sp[0]  # mm: smooths the jitter of single slices, keeps the curvature of the spine
    pts = np.stack([z, *(_smooth(v, sigma) for v in (y, x))], axis=1)
    step = np.diff(pts, axis=0)
    s = np.concatenate([[0.0], np.cumsum(np.linalg.norm(step, axis=1))])
    tangent = np.gradient(pts, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    return Canal(pts.astype(np.float64), s.astype(np.float64), tangent.astype(np.float64), score.astype(np.float64))


def _smooth(v: NDArray[np.floating], sigma: float) -> NDArray[np.float64]:
    """Gaussian smoothing that keeps straight lines straight at the ends (odd reflection)."""
    n = min(len(v) - 1, int(4 * sigma))
    padded = np.concatenate([2 * v[0] - v[n:0:-1], v, 2 * v[-1] - v[-2 : -n - 2 : -1]])
    return ndi.gaussian_filter1d(padded, sigma)[n : n + len(v)]
