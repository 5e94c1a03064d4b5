"""What the scanner adds to the tissues: couch, metal with streaks, blur, noise, the circle of reconstruction."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from shapemodel.phantom import hounsfield as hu_of
from shapemodel.phantom.knobs import NOISE_HU, CTKnobs
from shapemodel.phantom.raster import Grid
from shapemodel.phantom.texture import enlarge

Image = NDArray[np.float32]

FWHM_TO_SIGMA = 1.0 / 2.3548
SLICE_SPILL = 0.1
"""Share of a slice that comes from each of its neighbours (slices overlap in spiral scanning)."""

COUCH_GAP_MM = 6.0
"""Mattress between the back and the couch."""


def add_couch(hu: Image, grid: Grid, back_mm: float, centre_mm: float) -> None:
    """Two curved shells with foam between, hollow towards the patient, below ``back_mm`` (y of the back)."""
    x = (grid.axis(0) - centre_mm)[None, :]
    y = grid.axis(1)[:, None]
    curve = back_mm + COUCH_GAP_MM - 0.00065 * x**2
    for low, high, level in ((0.0, 2.4, 60.0), (2.4, 32.0, -960.0), (32.0, 34.4, 90.0)):
        inside = np.clip((y - curve - low) / grid.spacing[1] + 0.5, 0, 1) * np.clip(
            (curve + high - y) / grid.spacing[1] + 0.5, 0, 1
        )
        share = (inside * (np.abs(x) < 240)).astype(np.float32)
        rows = share.any(axis=1)
        part = hu[:, rows]
        air = part < -900.0
        hu[:, rows] = np.where(air, part + share[rows] * (level - part), part)


def blur(hu: Image, grid: Grid, knobs: CTKnobs) -> Image:
    """In-plane point spread and slice profile."""
    sigma = knobs.blur_mm * FWHM_TO_SIGMA / grid.spacing[0]
    for axis in (1, 2):
        ndimage.gaussian_filter1d(hu, sigma, axis=axis, output=hu, mode="nearest", truncate=3.0)
    kernel = np.array([SLICE_SPILL, 1 - 2 * SLICE_SPILL, SLICE_SPILL], np.float32)
    return np.asarray(ndimage.correlate1d(hu, kernel, axis=0, mode="nearest"), np.float32)


def add_noise(hu: Image, grid: Grid, knobs: CTKnobs, seed: int) -> None:
    """Correlated noise, stronger where the body is wide and bony, with horizontal streaks through the shoulders."""
    rng = np.random.default_rng([seed, 13])
    level = NOISE_HU[knobs.noise] * (2.0 / grid.spacing[2]) ** 0.25  # thin slices are noisier, at a higher dose
    coarse = max(2, grid.size[0] // 24)
    for z in range(hu.shape[0]):
        path = np.clip(hu[z] + 1000.0, 0.0, 2500.0).sum(axis=1) * grid.spacing[0] / 1000.0
        path = ndimage.gaussian_filter1d(path, 12.0 / grid.spacing[1])
        row = np.clip(np.exp(0.0035 * (path.astype(np.float32) - 260.0)), 0.7, 2.6)[:, None]
        fine = ndimage.gaussian_filter(rng.standard_normal(hu.shape[1:], dtype=np.float32), 0.62, truncate=3.0)
        small = rng.standard_normal((hu.shape[1] // 5 + 1, hu.shape[2] // 5 + 1), dtype=np.float32)
        slow = np.kron(small, np.ones((5, 5), np.float32))[: hu.shape[1], : hu.shape[2]]
        wide = rng.standard_normal((1, hu.shape[1], coarse), dtype=np.float32)
        streak = enlarge(wide, (1, hu.shape[1], hu.shape[2]))[0]
        excess = np.clip(row - 1.15, 0.0, 1.5)
        hu[z] += level * row * (2.1 * fine + 0.25 * slow) + 0.8 * level * excess * streak


def add_wires(hu: Image, grid: Grid, loops: list[NDArray[np.float64]]) -> None:
    """Steel wires of 0.8 mm along closed paths, (n, 3) mm each, with dark and bright streaks in their slices."""
    for loop in loops:
        e = (loop - grid.origin) / grid.spacing
        index = np.round(e).astype(int)[:, ::-1]
        ok = np.all((index >= 1) & (index < np.array(grid.shape) - 1), axis=1)
        index = np.unique(index[ok], axis=0)
        if not len(index):
            continue
        hu[tuple(index.T)] = hu_of.STEEL
        for z in np.unique(index[:, 0]):
            _streak(hu[z], grid, index[index[:, 0] == z, 1:].mean(axis=0), len(index[index[:, 0] == z]))


def _streak(plane: Image, grid: Grid, centre: NDArray[np.float64], strength: int) -> None:
    """Rays from a piece of metal: alternating with angle, fading with distance."""
    y = (np.arange(plane.shape[0]) - centre[0])[:, None] * grid.spacing[1]
    x = (np.arange(plane.shape[1]) - centre[1])[None, :] * grid.spacing[0]
    r, angle = np.hypot(x, y), np.arctan2(y, x)
    amount = min(strength, 12) * 24.0 * np.exp(-r / 45.0) / (1.0 + 0.08 * r)
    plane += (amount * (np.cos(2 * angle) * 0.7 + np.cos(14 * angle + 0.5) * 0.5)).astype(np.float32)


def finish(hu: Image, grid: Grid, knobs: CTKnobs) -> NDArray[np.int16]:
    """Rounded to 12-bit Hounsfield units; outside the circle of reconstruction the padding value, if one is set."""
    out = np.clip(np.rint(hu), -1024, hu_of.CEILING).astype(np.int16)
    if knobs.padding_hu is not None:
        n = grid.size[0]
        x = np.arange(n) - (n - 1) / 2
        y = np.arange(grid.size[1]) - (grid.size[1] - 1) / 2
        out[:, np.hypot(x[None, :], y[:, None]) > n / 2] = np.int16(knobs.padding_hu)
    return out
