"""The corrections of a study, carried out on its labels: crop, seeds, then the steps of ``overrides.toml``.

Labels are SimpleITK images in axial LPS; nothing is changed in place.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from shapemodel.anatomy import COSTAL_CARTILAGE, OTHER_BONE, RIBS, STERNUM
from shapemodel.edit import local_threshold, scissors
from shapemodel.labels.flood import flood, step_cost
from shapemodel.labels.morphology import close_mm, fill_planes
from shapemodel.labels.records import Overrides
from shapemodel.mask import measure
from shapemodel.overrides import NEEDS, Corrections, Step, label_name
from shapemodel.places import distance_mm, like, piece_at, pieces_of, spacing_zyx, voxel_of, voxels_about, voxels_in
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

_BACKGROUND = 255
"""Stands for background while labels grow, where 0 means nothing is known."""

Labels = NDArray[np.uint8]


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
        labels = like(labels, after)
    return labels


def _relabel(ct: sitk.Image, labels: sitk.Image, step: Step) -> Labels:
    del ct
    array = sitk.GetArrayFromImage(labels)
    hit = array == step.label
    if step.box is not None:
        inside = np.zeros_like(hit)
        inside[voxels_in(labels, step.box)] = True
        hit &= inside
    if step.at is not None:
        hit = piece_at(hit, voxel_of(labels, step.at))
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
        pieces, volumes = pieces_of(part == label, labels)
        keep = volumes >= step.min_mm3 if step.min_mm3 is not None else volumes == volumes.max()
        part[np.concatenate([[False], ~keep])[pieces]] = step.to
    return array


def _local_threshold(ct: sitk.Image, labels: sitk.Image, step: Step) -> Labels:
    assert step.at is not None
    assert step.low is not None
    assert step.high is not None
    assert step.radius is not None
    array = sitk.GetArrayFromImage(labels)
    free = like(labels, (array == 0) | (array == step.label))
    found = local_threshold(ct, step.at, low=step.low, high=step.high, radius=step.radius, within=free)
    array[sitk.GetArrayViewFromImage(found) != 0] = step.label
    return array


def _apply_seeds(ct: sitk.Image, labels: sitk.Image, corrections: Overrides) -> sitk.Image:
    """Draw outlines anew around each seed whose place does not bear its label yet."""
    hu, array = sitk.GetArrayViewFromImage(ct), sitk.GetArrayFromImage(labels)
    z, y, x = spacing_zyx(ct)
    low, seeds = measure(hu, (z, y, x))[1].low + corrections.threshold_shift, corrections.seeds
    for sx, sy, sz, label in seeds:
        at = (sx, sy, sz)
        there = int(array[voxel_of(labels, at)])
        if there == label:
            continue
        loose = there in (0, OTHER_BONE, COSTAL_CARTILAGE)
        reach = LOOSE_REACH_MM if loose else SEED_REACH_MM
        box = voxels_about(ct, at, reach + 2 * SEED_BALL_MM)
        near = distance_mm(ct, at, box)
        old = array[box].copy()
        markers = np.where(near > reach, old, 0).astype(np.uint8)
        if loose:
            markers = np.where(np.isin(old, (0, OTHER_BONE, COSTAL_CARTILAGE)), 0, old).astype(np.uint8)
        for ox, oy, oz, other in seeds:
            markers[distance_mm(ct, (ox, oy, oz), box) <= SEED_BALL_MM] = other or _BACKGROUND
        grown = flood(step_cost(hu[box], low), (old > 0) | (hu[box] >= low), markers, (z, y, x))
        mark = label or _BACKGROUND
        own = (near <= reach) & ((grown == mark) | ((old > 0) & (grown > 0) & (not loose)))
        grown[grown == _BACKGROUND] = 0
        array[box][own] = grown[own]
        if loose and label in HOLLOW:
            solid = fill_planes(close_mm(array[box] == label, CLOSE_MM, (z, y, x)), (z, y, x), MARROW_MM2)
            array[box][solid & (array[box] == 0)] = label
    return like(labels, array)
