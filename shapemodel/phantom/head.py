"""A head CT, for tests of what must be refused: skin, skull, brain, teeth, no thorax."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from shapemodel.phantom import hounsfield as hu_of
from shapemodel.phantom.knobs import CTKnobs
from shapemodel.phantom.raster import Grid
from shapemodel.phantom.scanner import blur, finish

if TYPE_CHECKING:
    import SimpleITK as sitk

HALF_MM = (72.0, 92.0, 75.0)
"""Half width, depth and height of the outer skull."""


def head_ct(seed: int = 0, *, matrix: int = 256, pixel_mm: float = 1.0, slice_mm: float = 3.0) -> sitk.Image:
    """CT of an ellipsoidal head, int16 HU, LPS, direction = identity."""
    import SimpleITK as sitk

    nz = int(round(190.0 / slice_mm))
    half = (matrix - 1) / 2 * pixel_mm
    grid = Grid((-half, -half, -110.0), (pixel_mm, pixel_mm, slice_mm), (matrix, matrix, nz))
    x, y, z = (grid.axis(i) for i in range(3))
    z, y, x = z[:, None, None], y[None, :, None], x[None, None, :]
    hu = np.full(grid.shape, hu_of.AIR, np.float32)
    radius = np.hypot(x / 58.0, y / 62.0)
    hu[np.broadcast_to((radius < 1) & (z < -40), hu.shape)] = hu_of.MUSCLE
    for grow, level in ((9.0, hu_of.FAT), (4.0, hu_of.MUSCLE), (0.0, 900.0), (-7.0, 36.0)):
        inside = (x / (HALF_MM[0] + grow)) ** 2 + (y / (HALF_MM[1] + grow)) ** 2 + (z / (HALF_MM[2] + grow)) ** 2 < 1
        hu[inside] = level
    neck = np.hypot(x, y - 25.0)
    hu[np.broadcast_to((neck < 14) & (neck > 7) & (z < -60), hu.shape)] = 500.0
    knobs = CTKnobs(slice_mm=slice_mm, pixel_mm=pixel_mm, matrix=matrix)
    hu = blur(hu, grid, knobs)
    hu += np.random.default_rng(seed).normal(0.0, 12.0, hu.shape).astype(np.float32)
    image = sitk.GetImageFromArray(finish(hu, grid, knobs))
    image.SetOrigin(grid.origin)
    image.SetSpacing(grid.spacing)
    return image
