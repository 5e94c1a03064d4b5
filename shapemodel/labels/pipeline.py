"""From a CT volume to numbered, solid bones."""

from __future__ import annotations

import logging
import time

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from shapemodel.anatomy import COSTAL_CARTILAGE, MODEL_LABELS, OTHER_BONE, RIBS, STERNUM, VERTEBRAE
from shapemodel.labels.breastbone import solid_sternum
from shapemodel.labels.canal import find_canal
from shapemodel.labels.clavicles import clavicle_ends
from shapemodel.labels.flood import flood, gaps, joint_cost
from shapemodel.labels.fronts import trim_fronts
from shapemodel.labels.girdle import drop_outliers, split_girdle
from shapemodel.labels.handles import close_handles
from shapemodel.labels.lumbar import process_hold
from shapemodel.labels.necks import axial_turn, hold_heads, neck_markers, process_markers
from shapemodel.labels.numbering import Numbering, number_bones
from shapemodel.labels.plausible import refuse_absurd
from shapemodel.labels.quality import arm_position, bone_status, study_flags, study_measures
from shapemodel.labels.records import REMARKS, Labelled, LabelSettings, Overrides
from shapemodel.labels.ribs import paraspinal
from shapemodel.labels.solid import bounding_box, drop_crumbs, fill_cups, solid_ribs, solid_vertebra
from shapemodel.labels.sternum import CORE_MM, Plate, find_plate
from shapemodel.labels.vertebrae import SpineFrame, canal_mask, disc_height, hold_levels, level_markers, spine_frame
from shapemodel.labels.vessels import find_vessels
from shapemodel.labels.work import Work, make_work, smooth_slices, upsample
from shapemodel.mask import Mask, Spacing, Thresholds, measure
from shapemodel.reasons import Flag, InputError, StudyError

log = logging.getLogger(__name__)

SPINE_MM = (52.0, 55.0, 75.0)
"""Box of the spine beside, before and behind the canal: transverse processes, bodies and aortic spurs, spinous
processes."""
RIB_MARKER_MM = 36.0
"""Sideways from here on a rib is its own marker: the tubercle lies nearer."""
SMOOTH_MM = 0.6
"""In-plane smoothing before outlines are taken: half a pixel to one pixel, removes the noise of single pixels."""
MAX_SLICE_MM = 5.5
"""Thicker slices join neighbouring ribs where these run obliquely."""
MIN_LENGTH_MM = 120.0
"""Six ribs on a side, the least that can be numbered."""
DISC_HALF_MM = 2.0
"""Half of a thin disc: what no filling may cross."""


def label_bones(ct, *, settings: LabelSettings | None = None, overrides: Overrides | None = None) -> Labelled:
    """Label the bones of the thorax in an axial LPS CT.

    Parameters
    ----------
    ct : SimpleITK int16 image in HU, identity direction (as :func:`shapemodel.study.read_ct` gives it)
    settings, overrides : parameters of the method, corrections of this study

    Returns the :class:`Labelled` record. Raises StudyError (no_lungs, no_canal, not_thorax, too_few_ribs, ...) for
    a scan that cannot be labelled.
    """
    import SimpleITK as sitk

    settings = settings or LabelSettings()
    overrides = overrides or Overrides()
    if overrides.exclude:
        raise StudyError("excluded", "the study is excluded by hand: remove exclude from its overrides to use it")
    clock = Clock()
    hu = sitk.GetArrayViewFromImage(ct)
    sp = tuple(float(v) for v in ct.GetSpacing()[::-1])
    spacing: Spacing = (sp[0], sp[1], sp[2])
    check_extent(hu.shape, spacing)
    coarse, limits = measure(hu, spacing)
    shift = settings.threshold_shift + overrides.threshold_shift
    limits = Thresholds(limits.low + shift, limits.working + shift, limits.tissue, limits.noise)
    clock("prep")
    canal = find_canal(hu, spacing, coarse, limits.low, limits.tissue)
    clock("canal")
    work = make_work(hu, spacing, coarse, canal, limits)
    clock("grid")
    plate = find_plate(work)
    vessels = find_vessels(work)
    girdle, comps = _components(work, plate, vessels)
    clock("girdle")
    numbering = number_bones(work, plate, comps, hu, spacing, settings)
    cartilage, trimmed = trim_fronts(work, plate, numbering.ribs)
    clock("numbering")
    smooth = smooth_slices(hu, spacing, SMOOTH_MM)
    clock("smooth")
    labels, hold = _fine(smooth, spacing, work, numbering, girdle, cartilage, plate, clock)
    labels = apply_overrides(labels, ct, overrides)
    refuse_absurd(labels, spacing)
    image = sitk.GetImageFromArray(labels)
    image.CopyInformation(ct)
    bones = bone_status(labels, spacing, numbering)
    measures = study_measures(work, coarse, plate, numbering, trimmed, vessels) | {
        "lumbar_hold": hold[0],
        "lumbar_neck": hold[1],
    }
    flags = study_flags(measures, numbering, bones, trimmed)
    clock("quality")
    return Labelled(
        image=image,
        bones=bones,
        flags=flags,
        thresholds=(limits.low, limits.working),
        lung_volume_ml=coarse.lung_volume_ml,
        arms=arm_position(work, girdle),
        score=_score(numbering, flags),
        measures=measures,
        seconds=clock.seconds,
    )


def _score(numbering: Numbering, flags: tuple[Flag, ...]) -> float:
    """Share of votes for the level, less a tenth for each kind of flag that asks for a second look."""
    return round(max(0.0, numbering.share - 0.1 * len({f.code for f in flags} - REMARKS)), 3)


def apply_overrides(labels: NDArray[np.uint8], ct, overrides: Overrides) -> NDArray[np.uint8]:
    """Crop, seeds and relabelling of a label map (z, y, x) by hand.

    A seed gives the connected piece of its label (any label, bone left over included) to another label; one in
    the background is refused.
    """
    out = labels
    if overrides.crop is not None:
        x0, x1, y0, y1, z0, z1 = overrides.crop
        keep = np.ones(labels.shape, bool)
        for axis, (lo, hi) in enumerate(((z0, z1), (y0, y1), (x0, x1))):
            k = 2 - axis
            at = ct.GetOrigin()[k] + np.arange(labels.shape[axis]) * ct.GetSpacing()[k]
            inside = (at >= lo) & (at <= hi)
            keep &= inside.reshape([-1 if a == axis else 1 for a in range(3)])
        out = np.where(keep, out, np.uint8(0))
    for x, y, z, label in overrides.seeds:
        index = ct.TransformPhysicalPointToIndex((float(x), float(y), float(z)))[::-1]
        if any(not 0 <= i < n for i, n in zip(index, labels.shape, strict=True)) or out[index] == 0:
            raise InputError(f"the seed for label {label} at {x}, {y}, {z} mm is not on bone: move it onto the bone")
        out = out.copy() if out is labels else out
        pieces, _ = ndi.label(out == out[index])
        out[pieces == pieces[index]] = label
    if overrides.relabel:
        table = np.arange(256, dtype=np.uint8)
        for old, new in overrides.relabel.items():
            table[old] = new
        out = table[out]
    return out


def check_extent(shape: tuple[int, ...], spacing: Spacing) -> None:
    """StudyError too_thick or too_short where no numbered cage can come of the scan."""
    if spacing[0] > MAX_SLICE_MM:
        raise StudyError(
            "too_thick",
            f"expected slices of at most {MAX_SLICE_MM} mm, found {spacing[0]:.1f} mm: choose a thinner series",
        )
    if shape[0] * spacing[0] < MIN_LENGTH_MM:
        raise StudyError(
            "too_short",
            f"expected at least {MIN_LENGTH_MM:.0f} mm of body length, found {shape[0] * spacing[0]:.0f} mm: "
            "give a scan of the whole chest",
        )


class Clock:
    """CPU seconds by step: call it with the name of the step that has just ended."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.process_time()

    def __call__(self, step: str) -> None:
        now = time.process_time()
        self.seconds[step] = round(self.seconds.get(step, 0.0) + now - self._last, 3)
        self._last = now


def _components(work: Work, plate: Plate, vessels: Mask) -> tuple[Mask, NDArray[np.int32]]:
    """The girdle (with enhanced vessels), and components of the other bone outside spine and sternum (work grid)."""
    bone = (work.hu > 0.5 * (work.limits.low + work.limits.working)) & work.body & ~vessels
    spine = paraspinal(work)
    breast = plate.region(work, 4.0)
    girdle = split_girdle(work, bone, spine, plate.region(work, -CORE_MM))
    free = bone & ~spine & ~breast & ~girdle
    comps, _ = ndi.label(free, np.ones((3, 3, 3)))
    return girdle | vessels, comps


def _fine(
    hu, spacing, work: Work, numbering: Numbering, girdle: Mask, cartilage: Mask, plate: Plate, clock: Clock
) -> tuple[NDArray[np.uint8], tuple[float, float]]:
    """Labels at full resolution: flood around the spine, ribs and sternum by their components, then solid; and how
    firmly what lies beside L1 is held (:func:`process_hold`)."""
    frame = spine_frame(hu.shape, spacing, work.canal, axial_turn(work.canal, numbering.owners), SPINE_MM)
    low = work.limits.low
    small = np.where(girdle, np.uint8(OTHER_BONE), numbering.ribs)
    small[cartilage] = COSTAL_CARTILAGE
    ribs = upsample(_with_rim(small), work.factor, hu.shape)
    raw = np.zeros(hu.shape, np.uint8)
    raw[frame.box] = _flooded(hu[frame.box], spacing, work, numbering, frame, ribs[frame.box])
    clock("flood")
    mask = (hu > low) & upsample(work.body, work.factor, hu.shape)
    rest = (raw == 0) & mask
    raw[rest] = np.where(ribs[rest] >= OTHER_BONE, 0, ribs[rest])
    clavicles = clavicle_ends(hu, mask, work, plate, girdle)
    others = upsample(girdle, work.factor, hu.shape) | clavicles
    sternum = solid_sternum(hu, mask, work, plate, others, spacing)
    raw[sternum] = STERNUM
    clock("gather")
    out = solid_ribs(drop_outliers(raw, work, RIBS), list(RIBS), spacing)
    fill_cups(out, list(RIBS), work.canal.at_z(np.arange(hu.shape[0]) * spacing[0]), spacing)
    clock("solid ribs")
    out[sternum & (out == 0)] = STERNUM
    canal = np.zeros(hu.shape, bool)
    canal[frame.box] = canal_mask(frame, hu[frame.box] < low)
    spine = raw[frame.box]
    gap = gaps(hu[frame.box], np.where(np.isin(spine, VERTEBRAE), spine, np.uint8(0)), low, spacing)
    spine[gap] = 0
    dark = hu[frame.box] < 0.5 * (low + work.limits.tissue)
    _solid_spine(raw, out, spacing, canal[frame.box] | gap, dark, frame, numbering)
    drop_crumbs(out, list(MODEL_LABELS))
    clock("solid spine")
    close_handles(out, list(MODEL_LABELS), canal, spacing)
    clock("handles")
    rest = (out == 0) & mask
    rest[frame.box] &= ~gap
    front = (work.ant > 45.0) & (work.lung_mm < 25.0) & ~girdle
    front = upsample(front, work.factor, hu.shape) & ~clavicles
    out[rest] = np.where(front[rest], COSTAL_CARTILAGE, OTHER_BONE)
    hold = process_hold(hu[frame.box], out[frame.box], spacing, frame, numbering.discs, numbering.levels, low)
    clock("lumbar")
    return out, hold


def _flooded(
    hu: NDArray[np.int16],
    spacing: Spacing,
    work: Work,
    numbering: Numbering,
    frame: SpineFrame,
    ribs: NDArray[np.uint8],
) -> NDArray[np.uint8]:
    """Labels around the spine: vertebrae and ribs grow from their markers. ``hu`` and ``ribs`` in the frame's box."""
    low = work.limits.low
    bone = hu > low
    discs, levels = numbering.discs, numbering.levels
    markers = process_markers(frame, bone, discs, levels, numbering.owners, work.canal)
    arches = level_markers(frame, bone, discs, levels)
    markers[arches > 0] = arches[arches > 0]
    own = (markers == 0) & (np.abs(frame.lat) > RIB_MARKER_MM) & bone
    markers[own] = ribs[own]
    necks = neck_markers(frame, bone, discs, levels, numbering.owners, work.canal, spacing)
    markers[necks > 0] = necks[necks > 0]
    labels = hold_levels(flood(joint_cost(hu, low, spacing), bone, markers, spacing), frame, discs, levels)
    return hold_heads(labels, frame, discs, levels)


def _with_rim(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Labels of the working grid with one more layer: what of it is bone the fine outline says, since a block of which
    a bone's edge fills a quarter is as dark as fat."""
    return np.where(labels == 0, ndi.grey_dilation(labels, (3, 3, 3)), labels)


def _solid_spine(raw, out, spacing: Spacing, empty: Mask, dark: Mask, frame: SpineFrame, numbering: Numbering) -> None:
    discs = numbering.discs
    local = raw[frame.box]
    target = out[frame.box]
    n = len(discs.s)
    for level, label in numbering.levels.items():
        mask = local == label
        if label == OTHER_BONE or not mask.any():
            continue
        box = bounding_box(mask, 4.0, spacing)
        s = frame.s[box]
        ant, lat = frame.ant[box], frame.lat[box]
        disc = np.zeros(s.shape, bool)
        body = (ant > 6) & (np.abs(lat) < 25)
        if level > 0:
            body &= s > disc_height(discs, level - 1, ant)
            disc |= np.abs(s - disc_height(discs, level - 1, ant)) < DISC_HALF_MM
        if level < n:
            body &= s < disc_height(discs, level, ant)
            disc |= np.abs(s - disc_height(discs, level, ant)) < DISC_HALF_MM
        solid = solid_vertebra(mask[box], body, empty[box], disc & (ant > 4), dark[box], spacing)
        view = target[box]
        view[solid & (view == 0)] = label
