"""Topology: spurious holes through a solid are filled, and spurious bridges cut, where they are and nowhere else.

A thin lamina that the scan shows with a gap, or two neighbours' edges that touch, give a bone a handle that its
anatomy has not. Candidates come from a closing (or an opening) of the solid; each is judged by the change of
the Euler number that it makes, so nothing but handles is changed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

RADII = (1.5, 2.0, 3.0, 4.0, 5.0)
"""Radii, in voxels, of closings and openings: below half the vertebral canal (15 mm wide) on a 1.25 mm grid."""

Field = NDArray[np.floating]


def solid_euler(solid: NDArray[np.bool_]) -> int:
    """Euler number of the surface of a solid, 2 (pieces + cavities - handles): the lower of two readings.

    Contouring may join voxels that touch at corners only, or not; a solid without handles both ways is safe.
    """
    from skimage.measure import euler_number

    return 2 * min(int(euler_number(solid, 1)), int(euler_number(solid, 3)))


def without_handles(field: Field, want: int) -> Field:
    """A field (positive inside, voxel units or mm) whose solid has the Euler number wanted, changed locally.

    Returns the field with as many handles removed as could be; the caller counts again.
    """
    out = field.copy()
    for radius in RADII:
        for candidates in (_fillings, _bridges):
            missing = want - solid_euler(out > 0)
            if missing <= 0:
                return out
            out = candidates(out, radius, missing)
    return out


def _fillings(field: Field, radius: float, missing: int) -> Field:
    """Fill what a closing would fill, where that removes a handle; smallest first."""
    solid = field > 0
    closed = ndimage.distance_transform_edt(ndimage.distance_transform_edt(~solid) <= radius) - radius
    return _apply(field, (closed > 0) & ~solid, np.maximum(field, closed), missing, True)


def _bridges(field: Field, radius: float, missing: int) -> Field:
    """Cut what an opening would cut, where that removes a handle and leaves the bone in one piece."""
    solid = field > 0
    core = ndimage.distance_transform_edt(solid) > radius / 2
    thin = solid & (ndimage.distance_transform_edt(~core) > radius / 2)
    return _apply(field, thin, np.minimum(field, -0.5), missing, False)


def _apply(field: Field, candidates: NDArray[np.bool_], changed: Field, missing: int, fill: bool) -> Field:
    """Take over ``changed`` at the components that remove handles, until ``missing`` is made up."""
    number, n = ndimage.label(candidates, np.ones((3, 3, 3)))
    size = np.bincount(number.ravel(), minlength=n + 1)[1:]
    boxes = ndimage.find_objects(number)
    out = field.copy()
    for k in np.argsort(size, kind="stable"):
        box = tuple(slice(max(b.start - 3, 0), b.stop + 3) for b in boxes[k])
        here = number[box] == k + 1
        if fill:
            here = ndimage.binary_dilation(here)
        trial = np.where(here, changed[box], out[box])
        gain = solid_euler(trial > 0) - solid_euler(out[box] > 0)
        if not 0 < gain <= missing:
            continue
        kept = out[box].copy()
        out[box] = trial
        if not fill and ndimage.label(out > 0, np.ones((3, 3, 3)))[1] > ndimage.label(field > 0, np.ones((3, 3, 3)))[1]:
            out[box] = kept
            continue
        missing -= gain
        if missing <= 0:
            break
    return out
