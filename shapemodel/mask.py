"""Body, lungs and bone thresholds of one CT: what the labelling measures before it looks for any bone.

Arrays are indexed (z, y, x) as SimpleITK hands them out; with axial LPS input x grows to the patient's
left, y to the back, z to the head. Lengths are mm, values Hounsfield units (HU).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from shapemodel.reasons import StudyError

HU = NDArray[np.int16]
Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]

COARSE_MM = 3.0
"""Edge of the coarse grid: body and lungs are decimetres, so 3 mm is enough and 100 times cheaper."""
SKIN_HU = -300
"""Half way between air and fat."""
LUNG_HU = -400
"""Half way between inflated lung (-850) and soft tissue (50)."""
MIN_LUNG_ML = 300.0
"""An adult lung, even collapsed by an effusion, holds more air than any gas-filled bowel loop of a chest CT."""
COUCH_OPENING_MM = 7.5
"""Half of 15 mm: couch tops and blankets are thinner, limbs and trunk are thicker."""
FLANK_SIGMAS = 4.0
"""Soft tissue above peak + 4 sigma of its upper flank is 3 voxels in 100,000."""
LOW_RANGE_HU = (158.0, 200.0)
"""Outline of bone: below, cartilage and enhanced muscle join it; above, thin cortex is lost to partial volume."""
DEFAULT_TISSUE_HU = 50
"""Unenhanced muscle and blood."""
DEFAULT_NOISE_HU = 30.0
"""Noise of a 2 mm slice with a medium kernel, in case that the soft tissue has no upper flank."""


@dataclass(frozen=True)
class Thresholds:
    """HU limits of one scan: ``low`` outlines bone, ``working`` separates bones, ``noise`` is the flank sigma."""

    low: float
    working: float
    tissue: float
    noise: float


@dataclass(frozen=True)
class Coarse:
    """Body and lungs on the coarse grid (arrays (z, y, x)), its voxel edges in mm, and the step in fine voxels."""

    body: Mask
    lungs: Mask
    spacing: Spacing
    step: tuple[int, int, int]
    lung_volume_ml: float


def coarse_hu(hu: HU, spacing: Spacing) -> tuple[HU, Spacing, tuple[int, int, int]]:
    """Every n-th voxel, so that edges are about :data:`COARSE_MM`; the grid, its spacing and the steps."""
    step = tuple(max(1, round(COARSE_MM / s)) for s in spacing)
    small = np.ascontiguousarray(hu[:: step[0], :: step[1], :: step[2]])
    return small, (spacing[0] * step[0], spacing[1] * step[1], spacing[2] * step[2]), (step[0], step[1], step[2])


def largest(mask: Mask) -> Mask:
    """The largest 6-connected component (an empty mask stays empty)."""
    lab, n = ndi.label(mask)
    if n < 2:
        return mask
    size = np.bincount(lab.ravel())
    size[0] = 0
    return lab == int(size.argmax())


def find_body(hu: HU, spacing: Spacing) -> Mask:
    """Trunk (with arms that touch it) without couch, filled; ``hu`` (z, y, x) on the coarse grid.

    Holes are filled in every slice before the opening: the other order loses the lungs of a thin chest wall.
    """
    mask = hu > SKIN_HU
    mask = np.stack([ndi.binary_fill_holes(m) for m in mask])
    n = max(1, round(COUCH_OPENING_MM / spacing[1]))
    yy, xx = np.ogrid[-n : n + 1, -n : n + 1]
    disc = yy * yy + xx * xx <= n * n + 1
    mask = ndi.binary_opening(mask, disc[None])
    mask = largest(mask)
    if mask.sum() * float(np.prod(spacing)) < 2e6:  # 2 L: less is no trunk
        raise StudyError("no_body", "expected a trunk of at least 2 L above -300 HU, found less: is this a chest CT?")
    return mask


def find_lungs(hu: HU, body: Mask, spacing: Spacing) -> tuple[Mask, float]:
    """Air inside the body in components of at least :data:`MIN_LUNG_ML`, and their volume in mL.

    ``hu`` and ``body`` (z, y, x) on the coarse grid.
    """
    inside = ndi.binary_erosion(body, iterations=2, border_value=1)  # a scan that ends in lung keeps it
    air = (hu < LUNG_HU) & inside
    lab, n = ndi.label(air)
    ml = np.bincount(lab.ravel(), minlength=n + 1) * float(np.prod(spacing)) / 1000.0
    ml[0] = 0.0
    keep = ml >= MIN_LUNG_ML
    lungs = keep[lab]
    return lungs, float(ml[keep].sum())


def find_thresholds(hu: HU, inside: Mask) -> Thresholds:
    """Bone limits of this scan from the histogram of ``hu`` where ``inside``.

    ``low`` is the soft-tissue peak plus four sigma of its upper flank, ``working`` the mean of that and an
    Otsu split of what lies above the peak: both follow the scan's noise, kernel, contrast and beam energy.
    """
    values = hu[inside]
    edges = np.arange(-1000, 1600, 4).astype(np.float64)
    counts = np.histogram(values, edges)[0].astype(float)
    mid: NDArray[np.float64] = edges[:-1] + np.float64(2.0)
    smooth = ndi.gaussian_filter1d(counts, 2.0)
    near = (mid > -10) & (mid < 130)
    peak = _top(smooth, mid, near) if smooth[near].any() else float(DEFAULT_TISSUE_HU)
    sigma = _upper_flank(smooth, mid, peak)
    low = float(np.clip(peak + FLANK_SIGMAS * sigma, *LOW_RANGE_HU))
    above = mid > peak
    otsu = _otsu(counts[above], mid[above])
    working = float(np.clip(0.5 * (low + otsu), low + 30.0, 280.0))
    return Thresholds(low, working, peak, sigma)


def _top(counts: NDArray[np.float64], mid: NDArray[np.float64], near: Mask) -> float:
    """Top of the parabola through the highest bin among ``near`` and its neighbours, HU."""
    k = int(np.flatnonzero(near)[counts[near].argmax()])
    a, b, c = counts[k - 1], counts[k], counts[k + 1]
    bend = a - 2 * b + c
    shift = 0.5 * (a - c) / bend if bend < 0 else 0.0
    return float(mid[k] + np.clip(shift, -0.5, 0.5) * (mid[1] - mid[0]))


def _upper_flank(counts: NDArray[np.float64], mid: NDArray[np.float64], peak: float) -> float:
    """Sigma of the upper side of the peak: where it has fallen to exp(-1/2) of its height."""
    k = int(np.abs(mid - peak).argmin())
    level = counts[k] * np.exp(-0.5)
    below = np.flatnonzero(counts[k:] < level)
    if not len(below):
        return DEFAULT_NOISE_HU
    j = k + int(below[0])  # the crossing lies between bins j - 1 and j; a whole bin would be 4 x 4 HU of threshold
    return float(np.interp(-level, [-counts[j - 1], -counts[j]], [mid[j - 1], mid[j]]) - peak)


def _otsu(counts: NDArray[np.float64], mid: NDArray[np.float64]) -> float:
    w = np.cumsum(counts)
    m = np.cumsum(counts * mid)
    with np.errstate(invalid="ignore", divide="ignore"):
        between = (m[-1] * w / w[-1] - m) ** 2 / (w * (w[-1] - w))
    return float(mid[int(np.nanargmax(np.where(np.isfinite(between), between, -1.0)))])


def measure(hu: HU, spacing: Spacing) -> tuple[Coarse, Thresholds]:
    """Body, lungs and thresholds of a CT ``hu`` (z, y, x) int16; StudyError no_body or no_lungs."""
    small, sp, step = coarse_hu(hu, spacing)
    body = find_body(small, sp)
    lungs, ml = find_lungs(small, body, sp)
    if ml < MIN_LUNG_ML:
        raise StudyError(
            "no_lungs",
            "expected at least one lung of 300 mL air inside the body, found none: give a chest CT of the whole thorax",
        )
    z = np.flatnonzero(lungs.any(axis=(1, 2)))
    slab = slice(int(z[0]), int(z[-1]) + 1)
    limits = find_thresholds(small[slab], body[slab])
    return Coarse(body, lungs, sp, step, ml), limits
