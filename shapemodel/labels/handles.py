"""Handles that a label has and its bone has not: holes through thin cortex, loops of calcified cartilage.

Candidates come from closings of the label; each is taken only where it removes a handle, so nothing else changes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from shapemodel.anatomy import VERTEBRAE
from shapemodel.labels.morphology import shut
from shapemodel.labels.solid import keep_largest
from shapemodel.mask import Mask, Spacing

RADII_MM = (2.0, 4.0)
"""Radii of closings: up to a quarter of the width of the narrowest canal (14 mm), which must stay open."""
FIRST, REST = slice(None, -1), slice(1, None)
MAX_ML = 0.6
"""More is no hole in a cortex: a foramen, or the gap between a neck and its transverse process."""


def close_handles(labels: NDArray[np.uint8], keys: list[int], keep_out: Mask, spacing: Spacing) -> NDArray[np.uint8]:
    """Fill, in the bones ``keys`` of a label map (z, y, x), the holes that give them handles; changes ``labels``.

    Ribs and sternum are without handles, a vertebra has one around the canal. Only background outside ``keep_out``
    is filled.
    """
    for key, box in enumerate(ndi.find_objects(labels, max_label=max(keys)), start=1):
        if box is None or key not in keys:
            continue
        wide = tuple(slice(max(0, b.start - 1), b.stop + 1) for b in box)
        own = labels[wide] == key
        missing = (0 if key in VERTEBRAE else 1) - _euler(own)
        free = (labels[wide] == 0) & ~keep_out[wide]
        for radius in RADII_MM:
            if missing <= 0:
                break
            missing -= _fill(own, free, radius, missing, spacing)
        # what fills a hole and touches the bone by edges alone would be a piece of its own
        labels[wide][keep_largest(own) & free] = key
    return labels


def _euler(mask: Mask) -> int:
    """Pieces and cavities less handles, of voxels that touch by faces, edges or corners: corners less edges plus faces
    less cells of the union of the closed voxels."""
    total = 0
    near: dict[tuple[int, ...], Mask] = {(): np.pad(mask, 1)}
    for axis in range(3):
        either: dict[tuple[int, ...], Mask] = {}
        for done, cells in near.items():
            either[(*done, 0)] = cells
            low, high = (tuple(s if k == axis else slice(None) for k in range(3)) for s in (FIRST, REST))
            either[(*done, 1)] = cells[low] | cells[high]
        near = either
    for done, cells in near.items():
        total += int(np.count_nonzero(cells)) * (1 if sum(done) % 2 else -1)
    return total


def _fill(own: Mask, free: Mask, radius: float, missing: int, spacing: Spacing) -> int:
    """Fill in ``own`` what a closing fills and what removes at most ``missing`` handles; returns how many."""
    pad = [int(radius / s) + 1 for s in spacing]
    inner = tuple(slice(p, -p) for p in pad)
    wide = np.pad(own, [(p, p) for p in pad])
    gap = shut(wide, radius, spacing)[inner] & ~own & free
    number, n = ndi.label(gap, np.ones((3, 3, 3)))
    ml = np.bincount(number.ravel(), minlength=n + 1) * float(np.prod(spacing)) / 1000.0
    boxes = ndi.find_objects(number)
    gained = 0
    for k in np.argsort(ml[1:], kind="stable") + 1:
        if ml[k] > MAX_ML:
            break
        box = tuple(slice(max(0, b.start - 2), b.stop + 2) for b in boxes[k - 1])
        more = own[box] | (number[box] == k)
        gain = _euler(more) - _euler(own[box])
        if 0 < gain <= missing - gained:
            own[box] = more
            gained += gain
    return gained
