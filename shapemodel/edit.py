"""Tools to put a study right, with the names they have in 3D Slicer, and the steps of ``overrides.toml``.

All take and return SimpleITK images in axial LPS (direction = identity); masks are uint8 0 or 1; positions and
boxes are mm LPS. Nothing is changed in place.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from shapemodel.anatomy import COSTAL_CARTILAGE, OTHER_BONE, RIBS, STERNUM
from shapemodel.labels.flood import flood, step_cost
from shapemodel.labels.records import Overrides
from shapemodel.labels.solid import close_mm, fill_planes
from shapemodel.mask import measure
from shapemodel.overrides import NEEDS, Box, Corrections, Point, Step, label_name
from shapemodel.reasons import InputError
from shapemodel.study.geometry import require_axial

log = logging.getLogger(__name__)

SEED_REACH_MM = 12.0
"""Around a seed the outlines between bones are drawn anew this far: about the width of a joint region."""

LOOSE_REACH_MM = 60.0
"""A seed in bone that bears no number claims the piece around it up to this far: half of a rib."""

HOLLOW = frozenset((*RIBS, STERNUM))
"""Bones whose marrow is filled when a seed has claimed their cortex; vertebrae have a canal that stays open."""

CLOSE_MM, MARROW_MM2 = 1.5, 250.0
"""Gaps of thin cortex that are closed first, and the largest section of marrow."""

SEED_BALL_MM = 1.5
"""Radius of a seed: a click is no better than this."""

Labels = NDArray[np.uint8]
_ALL_ROUND = np.ones((3, 3, 3), bool)


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
        z, y, x = _spacing(ct)
        low = measure(hu, (z, y, x))[1].low + shift
    elif shift:
        raise InputError("threshold: a shift moves the automatic threshold; it cannot go with a lower limit")
    mask = hu >= low
    if high is not None:
        if high < low:
            raise InputError(f"threshold: expected low <= high, found {low:g} and {high:g}")
        mask &= hu <= high
    return _like(ct, mask)


def islands(mask: sitk.Image, *, keep_largest: bool = False, min_mm3: float = 0.0, split: bool = False) -> sitk.Image:
    """Connected pieces (touching by face, edge or corner) of a mask.

    Parameters
    ----------
    keep_largest : only the largest stays
    min_mm3 : smaller ones go
    split : number the pieces 1, 2, ... by volume, largest first (uint16), instead of 1 for all
    """
    pieces, volumes = _pieces(sitk.GetArrayViewFromImage(mask) != 0, mask)
    order = np.argsort(-volumes, kind="stable")
    keep = [int(k) for k in order if volumes[k] >= min_mm3]
    keep = keep[:1] if keep_largest else keep
    table = np.zeros(len(volumes) + 1, np.uint16)
    table[np.array(keep, int) + 1] = np.arange(1, len(keep) + 1) if split else 1
    return _like(mask, table[pieces], np.uint16 if split else np.uint8)


def local_threshold(
    ct: sitk.Image, at: Point, *, low: float, high: float, radius: float, within: sitk.Image | None = None
) -> sitk.Image:
    """Mask of what is ``low``..``high`` HU, within ``radius`` mm of ``at`` and connected to it; empty if ``at`` is not.

    ``within`` limits it to a mask.
    """
    require_axial(ct)
    box = _ball_box(ct, at, radius)
    hu = sitk.GetArrayViewFromImage(ct)[box]
    allowed = (hu >= low) & (hu <= high) & (_distance(ct, at, box) <= radius)
    if within is not None:
        allowed &= sitk.GetArrayViewFromImage(within)[box] != 0
    whole = np.zeros(ct.GetSize()[::-1], bool)
    whole[box] = _connected(allowed, _local(ct, at, box))
    return _like(ct, whole)


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
    box = _box_of(domain | (markers > 0))
    if box is None:
        return _like(ct, np.zeros_like(markers))
    out = np.zeros_like(markers)
    z, y, x = _spacing(ct)
    out[box] = flood(step_cost(hu[box], low), domain[box], markers[box], (z, y, x), reach=reach)
    return _like(ct, out)


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
    hit[_slices(image, box)] = True
    if keep == "inside":
        hit = ~hit
    if label is not None:
        hit &= array == label
    array[hit] = fill
    return _like(image, array, array.dtype)


def correct(ct: sitk.Image | None, labels: sitk.Image, corrections: Overrides) -> sitk.Image:
    """Carry out a study's corrections on its labels: crop, seeds, then the steps in their order.

    The threshold shift is the labelling's own. What is done already changes nothing, so that it does no harm if
    the labelling took crop and seeds into account. Seeds and ``local_threshold`` need the CT (InputError).
    """
    steps = corrections.steps if isinstance(corrections, Corrections) else ()
    if ct is None:
        if corrections.seeds or any(s.do == "local_threshold" for s in steps):
            raise InputError("corrections: seeds and local_threshold need the CT, found labels alone")
        ct = labels
    require_axial(ct)
    if corrections.crop is not None:
        labels = scissors(labels, corrections.crop, keep="inside")
    if corrections.seeds:
        labels = _apply_seeds(ct, labels, corrections)
    return apply_steps(ct, labels, steps) if steps else labels


def apply_steps(ct: sitk.Image, labels: sitk.Image, steps: Iterable[Step]) -> sitk.Image:
    """Carry out steps in their order; one that changes nothing is logged, InputError names one that lacks a key."""
    tools = {
        "relabel": _relabel,
        "cut": _cut,
        "scissors": _scissors,
        "islands": _islands,
        "local_threshold": _local_threshold,
    }
    for number, step in enumerate(steps, start=1):
        missing = [k for k in NEEDS[step.do][0] if getattr(step, k) is None]
        if missing:
            raise InputError(f"correction {number} ({step.do}): expected {', '.join(missing)}, found nothing")
        before = sitk.GetArrayViewFromImage(labels)
        after = tools[step.do](ct, labels, step)
        changed = int(np.count_nonzero(after != before))
        if not changed:
            what = f" of {label_name(step.label)}" if step.label is not None else ""
            log.warning("correction %d (%s%s) changes nothing", number, step.do, what)
        labels = _like(labels, after)
    return labels


def _relabel(ct: sitk.Image, labels: sitk.Image, step: Step) -> Labels:
    del ct
    array = sitk.GetArrayFromImage(labels)
    hit = array == step.label
    if step.box is not None:
        inside = np.zeros_like(hit)
        inside[_slices(labels, step.box)] = True
        hit &= inside
    if step.at is not None:
        hit = _connected(hit, _index(labels, step.at))
    array[hit] = step.to
    return array


def _cut(ct: sitk.Image, labels: sitk.Image, step: Step) -> Labels:
    del ct
    array = sitk.GetArrayFromImage(labels)
    z, y, x = (array == step.label).nonzero()
    world = np.column_stack([x, y, z]) * labels.GetSpacing() + labels.GetOrigin()
    beyond = (world - np.array(step.at)) @ np.array(step.normal) > 0
    array[z[beyond], y[beyond], x[beyond]] = step.to
    return array


def _scissors(ct: sitk.Image, labels: sitk.Image, step: Step) -> Labels:
    del ct
    assert step.box is not None
    return sitk.GetArrayFromImage(scissors(labels, step.box, fill=step.to, label=step.label))


def _islands(ct: sitk.Image, labels: sitk.Image, step: Step) -> Labels:
    del ct
    array = sitk.GetArrayFromImage(labels)
    boxes = ndimage.find_objects(array)
    wanted = [step.label] if step.label is not None else [k + 1 for k, b in enumerate(boxes) if b is not None]
    for label in wanted:
        box = boxes[label - 1] if label and label <= len(boxes) else None
        if box is None:
            continue
        part = array[box]
        pieces, volumes = _pieces(part == label, labels)
        keep = volumes >= step.min_mm3 if step.min_mm3 is not None else volumes == volumes.max()
        part[np.concatenate([[False], ~keep])[pieces]] = step.to
    return array


def _local_threshold(ct: sitk.Image, labels: sitk.Image, step: Step) -> Labels:
    assert step.at is not None
    assert step.low is not None
    assert step.high is not None
    assert step.radius is not None
    array = sitk.GetArrayFromImage(labels)
    free = _like(labels, (array == 0) | (array == step.label))
    found = local_threshold(ct, step.at, low=step.low, high=step.high, radius=step.radius, within=free)
    array[sitk.GetArrayViewFromImage(found) != 0] = step.label
    return array


def _apply_seeds(ct: sitk.Image, labels: sitk.Image, corrections: Overrides) -> sitk.Image:
    """Draw outlines anew around each seed whose place does not bear its label yet."""
    hu, array = sitk.GetArrayViewFromImage(ct), sitk.GetArrayFromImage(labels)
    z, y, x = _spacing(ct)
    low, seeds = measure(hu, (z, y, x))[1].low + corrections.threshold_shift, corrections.seeds
    for sx, sy, sz, label in seeds:
        at = (sx, sy, sz)
        there = int(array[_index(labels, at)])
        if there == label:
            continue
        loose = there in (0, OTHER_BONE, COSTAL_CARTILAGE)
        reach = LOOSE_REACH_MM if loose else SEED_REACH_MM
        box = _ball_box(ct, at, reach + 2 * SEED_BALL_MM)
        near = _distance(ct, at, box)
        old = array[box].copy()
        markers = np.where(near > reach, old, 0).astype(np.uint8)
        if loose:
            markers = np.where(np.isin(old, (0, OTHER_BONE, COSTAL_CARTILAGE)), 0, old).astype(np.uint8)
        for ox, oy, oz, other in seeds:
            markers[_distance(ct, (ox, oy, oz), box) <= SEED_BALL_MM] = other or _BACKGROUND
        grown = flood(step_cost(hu[box], low), (old > 0) | (hu[box] >= low), markers, (z, y, x))
        mark = label or _BACKGROUND
        own = (near <= reach) & ((grown == mark) | ((old > 0) & (grown > 0) & (not loose)))
        grown[grown == _BACKGROUND] = 0
        array[box][own] = grown[own]
        if loose and label in HOLLOW:
            solid = fill_planes(close_mm(array[box] == label, CLOSE_MM, (z, y, x)), (z, y, x), MARROW_MM2)
            array[box][solid & (array[box] == 0)] = label
    return _like(labels, array)


_BACKGROUND = 255
"""Stands for background while labels grow, where 0 means nothing is known."""


def _spacing(image: sitk.Image) -> tuple[float, float, float]:
    x, y, z = image.GetSpacing()
    return (z, y, x)


def _like(image: sitk.Image, array: NDArray[np.generic], dtype: type | np.dtype = np.uint8) -> sitk.Image:
    result = sitk.GetImageFromArray(np.ascontiguousarray(array, dtype=dtype))
    result.CopyInformation(image)
    return result


def _pieces(mask: NDArray[np.bool_], image: sitk.Image) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Numbers of connected pieces (0: none) and the volume of each, mm3."""
    pieces: NDArray[np.int32]
    pieces, count = ndimage.label(mask, _ALL_ROUND)
    voxel = float(np.prod(image.GetSpacing()))
    volumes = np.bincount(pieces.ravel(), minlength=count + 1)[1:].astype(np.float64) * voxel
    return pieces, volumes


def _index(image: sitk.Image, at: Point) -> tuple[int, int, int]:
    """(z, y, x) of the voxel that holds a point; InputError when it lies outside the scan."""
    index = np.rint((np.array(at) - image.GetOrigin()) / image.GetSpacing()).astype(int)
    if (index < 0).any() or (index >= image.GetSize()).any():
        raise InputError(f"expected a point inside the scan, found {at} mm LPS")
    return (int(index[2]), int(index[1]), int(index[0]))


def _slices(image: sitk.Image, box: Box) -> tuple[slice, slice, slice]:
    """(z, y, x) slices of the voxels whose centres lie in a box."""
    origin, spacing, size = np.array(image.GetOrigin()), np.array(image.GetSpacing()), np.array(image.GetSize())
    low = np.clip(np.ceil((np.array(box[::2]) - origin) / spacing - 1e-9), 0, size).astype(int)
    high = np.clip(np.floor((np.array(box[1::2]) - origin) / spacing + 1e-9) + 1, low, size).astype(int)
    z, y, x = (slice(int(low[k]), int(high[k])) for k in (2, 1, 0))
    return (z, y, x)


def _ball_box(image: sitk.Image, at: Point, radius: float) -> tuple[slice, slice, slice]:
    _index(image, at)
    half = radius + max(image.GetSpacing())
    x, y, z = at
    return _slices(image, (x - half, x + half, y - half, y + half, z - half, z + half))


def _distance(image: sitk.Image, at: Point, box: tuple[slice, slice, slice]) -> NDArray[np.float64]:
    """mm from a point for the voxels of a box, (z, y, x)."""
    origin, spacing = image.GetOrigin(), image.GetSpacing()
    axes = [np.arange(b.start, b.stop) * spacing[k] + origin[k] - at[k] for k, b in zip((2, 1, 0), box, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    return np.sqrt(z**2 + y**2 + x**2)


def _local(image: sitk.Image, at: Point, box: tuple[slice, slice, slice]) -> tuple[int, int, int]:
    z, y, x = (i - b.start for i, b in zip(_index(image, at), box, strict=True))
    return (z, y, x)


def _connected(mask: NDArray[np.bool_], seed: tuple[int, int, int]) -> NDArray[np.bool_]:
    """The connected piece that holds a voxel; empty when the voxel is not in the mask."""
    pieces, _ = ndimage.label(mask, _ALL_ROUND)
    return (pieces == pieces[seed]) & mask if mask[seed] else np.zeros_like(mask)


def _box_of(mask: NDArray[np.bool_]) -> tuple[slice, slice, slice] | None:
    found = ndimage.find_objects(mask.astype(np.uint8))
    return found[0] if found else None
