"""Status, confidence and flags of a labelled scan."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from shapemodel.anatomy import MODEL_LABELS, RIBS, STERNUM, VERTEBRAE, bone
from shapemodel.labels import records
from shapemodel.labels.numbering import Numbering
from shapemodel.labels.records import Arms, BoneStatus
from shapemodel.labels.sternum import Plate
from shapemodel.labels.work import Work
from shapemodel.mask import Coarse, Mask, Spacing
from shapemodel.reasons import Flag

METAL_HU = 2600.0
"""Denser than enamel-free bone ever is at clinical resolution (cortex reaches 2000)."""
METAL_ML = 0.05
SHARE_OK = 0.8
RATIO = (0.7, 1.43)
"""Volume of a rib to its mirror; beyond, one of them lacks or has too much."""
DISC_OK = 0.4
ARM_FROM_LUNG_MM = 35.0
STERNUM_WIDE_MM = 75.0
LUNG_RATIO = 0.5
CARTILAGE_ML = 2.5
"""Less is a rim; more means that the end of the rib was chosen rather than seen."""


def bone_status(labels: NDArray[np.uint8], spacing: Spacing, numbering: Numbering) -> dict[int, BoneStatus]:
    """Status of each bone 1-37 from the label map (z, y, x) and the certainty of the numbering."""
    boxes = ndi.find_objects(labels, max_label=max(MODEL_LABELS))
    ml = np.bincount(labels.ravel(), minlength=64) * float(np.prod(spacing)) / 1000.0
    out: dict[int, BoneStatus] = {}
    for k in MODEL_LABELS:
        box = boxes[k - 1]
        if box is None:
            out[k] = BoneStatus("absent")
            continue
        faces = tuple(
            f"{name}{end}"
            for axis, name in ((2, "x"), (1, "y"), (0, "z"))
            for end, at in (("min", box[axis].start == 0), ("max", box[axis].stop == labels.shape[axis]))
            if at
        )
        _, pieces = ndi.label(labels[box] == k)
        other = ml[bone(k).mirror]
        sure = numbering.share
        if k in RIBS and not faces and other > 0 and not RATIO[0] < ml[k] / other < RATIO[1]:
            sure *= 0.6
        if k in VERTEBRAE:
            sure *= _disc_confidence(numbering, k)
        out[k] = BoneStatus("cut" if faces else "complete", faces, round(float(sure), 3), float(ml[k]), int(pieces))
    return out


def _disc_confidence(numbering: Numbering, label: int) -> float:
    """Mean disc score above and below the vertebra, so scaled that a sure disc gives 1."""
    level = next((k for k, v in numbering.levels.items() if v == label), None)
    if level is None:
        return 0.0
    scores = [numbering.discs.score[k] for k in (level - 1, level) if 0 <= k < len(numbering.discs.score)]
    return float(np.clip(0.5 + 0.5 * np.mean(scores) / 0.6, 0.0, 1.0)) if scores else 0.5


def arm_position(work: Work, girdle: Mask) -> Arms:
    """Up, down, or unknown where no shoulder is in the scan.

    Arms beside the body show a humerus or forearm far from the lungs in the lower half of their height.
    """
    z = np.flatnonzero((work.lung_mm <= 0).any(axis=(1, 2)))
    shoulder = np.flatnonzero(girdle.any(axis=(1, 2)))
    if not len(z) or not len(shoulder):
        return "unknown"
    top = z[-1]
    low = slice(max(0, top - int(220.0 / work.spacing[0])), max(1, top - int(140.0 / work.spacing[0])))
    far = (work.hu[low] > work.limits.working) & (work.lung_mm[low] > ARM_FROM_LUNG_MM)
    far &= np.abs(work.lat[low]) > 120.0
    per_slice = far.sum(axis=(1, 2)) * work.spacing[1] * work.spacing[2]
    return "down" if len(per_slice) and np.mean(per_slice > 60.0) > 0.6 else "up"


def study_flags(
    work: Work,
    coarse: Coarse,
    plate: Plate,
    numbering: Numbering,
    bones: dict[int, BoneStatus],
    trimmed: dict[int, float],
) -> tuple[Flag, ...]:
    """Flags of the whole study and of single bones."""
    out = list(numbering.flags)
    if numbering.share < SHARE_OK:
        out.append(Flag(records.NUMBERING, 0, f"{numbering.share:.0%} of {numbering.votes} ribs vote for the level"))
    weak = float(np.median(work.canal.score))
    if weak < 0.75:
        out.append(Flag(records.CANAL, 0, f"bone around the canal on {weak:.0%} of rays"))
    used = [q for k, q in enumerate(numbering.discs.score) if numbering.levels.get(k, 40) < 40]
    if used and float(np.mean(used)) < DISC_OK:
        out.append(Flag(records.DISC, 0, f"mean disc score {np.mean(used):.2f}"))
    metal = float(((work.hu > METAL_HU) & work.body).sum()) * work.voxel_ml
    if metal > METAL_ML:
        out.append(Flag(records.METAL, 0, f"{metal:.1f} mL above {METAL_HU:.0f} HU"))
    out += _lung_flag(work, coarse)
    for k, ml in trimmed.items():
        if ml > CARTILAGE_ML:
            out.append(Flag(records.CARTILAGE, k, f"{ml:.1f} mL of calcified cartilage cut off"))
    for k, b in bones.items():
        mirror = bones[bone(k).mirror]
        if k in RIBS and bone(k).level > 1 and k < bone(k).mirror and b.status == mirror.status == "complete":
            ratio = b.volume_ml / max(mirror.volume_ml, 1e-6)
            if not RATIO[0] < ratio < RATIO[1]:
                out.append(Flag(records.RATIO, k, f"volume ratio left to right {ratio:.2f}"))
        if b.pieces > 1:
            out.append(Flag(records.PIECES, k, f"{b.pieces} pieces"))
    out += _sternum_flag(plate, bones)
    return tuple(out)


def contrast_flag(ml: float) -> tuple[Flag, ...]:
    """Flag for ``ml`` of enhanced heart and vessels."""
    return (Flag(records.CONTRAST, 0, f"{ml:.0f} mL of heart and vessels as bright as bone"),) if ml > 0 else ()


def _lung_flag(work: Work, coarse: Coarse) -> list[Flag]:
    z = np.asarray(np.arange(coarse.lungs.shape[0]) * coarse.spacing[0], dtype=np.float64)
    middle = work.canal.at_z(z)[:, 1]
    x = np.arange(coarse.lungs.shape[2]) * coarse.spacing[2]
    left = float((coarse.lungs & (x[None] > middle[:, None])[:, None, :]).sum())
    right = float(coarse.lungs.sum()) - left
    ratio = min(left, right) / max(left, right, 1.0)
    return [Flag(records.EFFUSION, 0, f"lung volume ratio {ratio:.2f}")] if ratio < LUNG_RATIO else []


def _sternum_flag(plate: Plate, bones: dict[int, BoneStatus]) -> list[Flag]:
    if bones[STERNUM].status == "absent":
        return [Flag(records.STERNUM_ODD, STERNUM, "no sternum was found")]
    wide = float((plate.high - plate.low)[plate.present].max(initial=0.0))
    return [Flag(records.STERNUM_ODD, STERNUM, f"{wide:.0f} mm wide")] if wide > STERNUM_WIDE_MM else []
