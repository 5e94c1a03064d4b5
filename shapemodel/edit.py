"""Tools to put a study right, with the names they have in 3D Slicer.

All take and return SimpleITK images in axial LPS (direction = identity); masks are uint8 0 or 1; positions and
boxes are mm LPS. Nothing is changed in place. :mod:`shapemodel.steps` carries out what ``overrides.toml`` asks of them.
"""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from shapemodel.labels.flood import flood, step_cost
from shapemodel.mask import measure
from shapemodel.overrides import Box, Point
from shapemodel.places import (
    block_of,
    distance_mm,
    like,
    piece_at,
    pieces_of,
    spacing_zyx,
    voxel_in,
    voxels_about,
    voxels_in,
)
from shapemodel.reasons import InputError
from shapemodel.study.geometry import require_axial


def threshold(ct: sitk.Image, *, low: float | None = None, high: float | None = None, shift: float = 0.0) -> sitk.Image:
    """Mask of ``low`` <= HU <= ``high``; without ``low`` the scan's own bone threshold plus ``shift`` HU.

    Raises
    ------
    StudyError
        ``no_body`` or ``no_lungs`` when the automatic threshold cannot be found
    """
    require_axial(ct)
    hu = sitk.GetArrayViewFromImage(ct)
    if low is None:
        z, y, x = spacing_zyx(ct)
        low = measure(hu, (z, y, x))[1].low + shift
    elif shift:
        raise InputError("threshold: a shift moves the automatic threshold; it cannot go with a lower limit")
    mask = hu >= low
    if high is not None:
        if high < low:
            raise InputError(f"threshold: expected low <= high, found {low:g} and {high:g}")
        mask &= hu <= high
    return like(ct, mask)


def islands(mask: sitk.Image, *, keep_largest: bool = False, min_mm3: float = 0.0, split: bool = False) -> sitk.Image:
    """Connected pieces (touching by face, edge or corner) of a mask.

    Parameters
    ----------
    keep_largest : only the largest stays
    min_mm3 : smaller ones go
    split : number the pieces 1, 2, ... by volume, largest first (uint16), instead of 1 for all
    """
    pieces, volumes = pieces_of(sitk.GetArrayViewFromImage(mask) != 0, mask)
    order = np.argsort(-volumes, kind="stable")
    keep = [int(k) for k in order if volumes[k] >= min_mm3]
    keep = keep[:1] if keep_largest else keep
    table = np.zeros(len(volumes) + 1, np.uint16)
    table[np.array(keep, int) + 1] = np.arange(1, len(keep) + 1) if split else 1
    return like(mask, table[pieces], np.uint16 if split else np.uint8)


def local_threshold(
    ct: sitk.Image, at: Point, *, low: float, high: float, radius: float, within: sitk.Image | None = None
) -> sitk.Image:
    """Mask of what is ``low``..``high`` HU, within ``radius`` mm of ``at`` and connected to it; empty if ``at`` is not.

    ``within`` limits it to a mask.
    """
    require_axial(ct)
    box = voxels_about(ct, at, radius)
    hu = sitk.GetArrayViewFromImage(ct)[box]
    allowed = (hu >= low) & (hu <= high) & (distance_mm(ct, at, box) <= radius)
    if within is not None:
        allowed &= sitk.GetArrayViewFromImage(within)[box] != 0
    whole = np.zeros(ct.GetSize()[::-1], bool)
    whole[box] = piece_at(allowed, voxel_in(ct, at, box))
    return like(ct, whole)


def grow_from_seeds(
    ct: sitk.Image, seeds: sitk.Image, *, low: float, within: sitk.Image | None = None, reach: float | None = None
) -> sitk.Image:
    """Grow seed labels through bone until they meet; fronts meet where it is dark, as in joints.

    Parameters
    ----------
    seeds : label image, 0 where nothing is known
    low : HU from which it is bone
    within : mask that may be filled; all that is at least ``low`` without it
    reach : how far labels grow, mm of dense bone; as far as it goes without it
    """
    require_axial(ct)
    hu, markers = sitk.GetArrayViewFromImage(ct), sitk.GetArrayFromImage(seeds).astype(np.uint8)
    domain = hu >= low if within is None else sitk.GetArrayViewFromImage(within) != 0
    box = block_of(domain | (markers > 0))
    if box is None:
        return like(ct, np.zeros_like(markers))
    out = np.zeros_like(markers)
    z, y, x = spacing_zyx(ct)
    out[box] = flood(step_cost(hu[box], low), domain[box], markers[box], (z, y, x), reach=reach)
    return like(ct, out)


def scissors(
    image: sitk.Image, box: Box, *, keep: str = "outside", fill: int = 0, label: int | None = None
) -> sitk.Image:
    """Set what lies inside a box (``keep`` outside) or outside it (``keep`` inside) to ``fill``.

    ``box`` is xmin, xmax, ymin, ymax, zmin, zmax; voxels whose centre is in it belong to it. ``label`` limits
    it to that label.
    """
    if keep not in ("inside", "outside"):
        raise InputError(f"scissors: keep: expected inside or outside, found {keep!r}")
    array = sitk.GetArrayFromImage(image)
    hit = np.zeros(array.shape, bool)
    hit[voxels_in(image, box)] = True
    if keep == "inside":
        hit = ~hit
    if label is not None:
        hit &= array == label
    array[hit] = fill
    return like(image, array, array.dtype)
