"""Ends of the clavicles, which reach into the plate of the sternum, told from it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from shapemodel.labels.flood import flood, step_cost
from shapemodel.labels.solid import bounding_box
from shapemodel.labels.sternum import CORE_MM, MIDDLE_MM, Plate
from shapemodel.labels.work import Work, upsample
from shapemodel.mask import Mask, Spacing

JOINT_TOP_MM = 20.0
"""Clavicles meet the uppermost part of the manubrium; lower down the middle of the plate is surely sternum."""
TIP_MM = 12.0
"""Down to here from the notch a piece of dense bone well inside the edges may still be a clavicle's."""
CLAVICLE_SIDE_MM = 20.0
"""So far around the manubrium the clavicles are followed to what is known as shoulder girdle."""


def clavicle_ends(hu: NDArray[np.int16], bone: Mask, work: Work, plate: Plate, girdle: Mask) -> Mask:
    """(Z, Y, X) bool, fine grid: ends of clavicles that reach into the plate's region.

    Pieces of dense bone that lie for the most part beside the region and do not hold the middle of the plate; and of
    what is one piece with the sternum that part which is nearer through dense bone to the shoulder ``girdle`` (work
    grid) than to what is surely sternum. ``bone`` is the fine outline mask; what it has around a piece goes with it.
    """
    out = np.zeros(bone.shape, bool)
    region = upsample(plate.region(work), work.factor, bone.shape)
    z = np.flatnonzero(region.any(axis=(1, 2)))
    fine: Spacing = tuple(s / f for s, f in zip(work.spacing, work.factor, strict=True))  # type: ignore[assignment]
    if not len(z):
        return out
    notch = int(z[-1]) - int(JOINT_TOP_MM / fine[0])
    upper = region.copy()
    upper[: max(0, notch)] = False
    box = bounding_box(upper, CLAVICLE_SIDE_MM, fine)
    part, inside = bone[box], region[box]
    x = np.arange(bone.shape[2])[box[2]] * fine[2]
    rows = np.minimum(np.arange(bone.shape[0])[box[0]] // work.factor[0], len(plate.middle) - 1)
    middle = (np.abs(x[None] - plate.middle[rows][:, None]) < MIDDLE_MM)[:, None, :] & inside
    pieces, n = ndi.label(part & (hu[box] > work.limits.working))
    held = 2 * np.bincount(pieces[inside], minlength=n + 1) < np.bincount(pieces.ravel(), minlength=n + 1)
    inner = upsample(plate.region(work, -CORE_MM), work.factor, bone.shape, box)
    core = inner.copy()
    core[max(0, int(z[-1]) - int(TIP_MM / fine[0]) - box[0].start) :] = False
    held[np.unique(pieces[middle | core])] = False
    held[0] = False
    kind = np.where(held, 1, 2)[pieces] * (pieces > 0)
    near = ndi.distance_transform_edt(kind == 0, sampling=fine, return_distances=False, return_indices=True)
    ends = part & (kind[tuple(near)] == 1)
    own = middle | inner
    markers = np.where(own & part & ~ends, np.uint8(1), np.uint8(0))
    markers[upsample(girdle, work.factor, bone.shape, box) & part] = 2
    parts = flood(step_cost(hu[box], work.limits.working), part, markers, fine)
    out[box] = (ends | (parts == 2)) & upper[box]
    return out
