"""Heart and great vessels that contrast agent has made as bright as bone."""

from __future__ import annotations

import numpy as np
from scipy import ndimage as ndi

from shapemodel.labels.work import Work
from shapemodel.mask import Mask

HALF_THICK_MM = 6.0
"""Bright through and through over twice this: no rib, and outside the column of the bodies no other bone."""
COLUMN_SIDE_MM = 21.0
COLUMN_FRONT_MM = 45.0
"""Box of the vertebral bodies, which are as thick."""
MIN_ML = 25.0
"""Less is a calcified valve, a stent or a node; an enhanced heart alone is over 400 mL."""


def find_vessels(work: Work) -> Mask:
    """(Z, Y, X) bool on the working grid: enhanced heart and vessels; empty on a plain scan.

    Thick bright cores inside the hull of the lungs and outside the vertebral column, grown back to their rim.
    """
    half = (slice(None, None, 2),) * 3
    bright = (work.hu[half] > work.limits.low) & (work.lung_mm[half] <= 0)
    spacing = tuple(2 * s for s in work.spacing)
    column = (np.abs(work.lat[::2, :, ::2]) < COLUMN_SIDE_MM) & (work.ant[::2, ::2] < COLUMN_FRONT_MM)
    depth = ndi.distance_transform_edt(bright & ~column, sampling=spacing)
    lab, n = ndi.label(depth > HALF_THICK_MM)
    ml = np.bincount(lab.ravel(), minlength=n + 1) * 8 * work.voxel_ml
    keep = ml > MIN_ML
    keep[0] = False
    core = keep[lab]
    if not core.any():
        return np.zeros(work.hu.shape, bool)
    near = ndi.distance_transform_edt(~core, sampling=spacing) < HALF_THICK_MM + 3.0
    index = np.ix_(*(np.minimum(np.arange(a) // 2, b - 1) for a, b in zip(work.hu.shape, near.shape, strict=True)))
    wide = (np.abs(work.lat) < COLUMN_SIDE_MM) & (work.ant < COLUMN_FRONT_MM)
    return near[index] & (work.hu > work.limits.low) & ~wide & (work.lung_mm <= 0)
