"""Status, confidence and flags of a labelled scan."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from shapemodel.anatomy import MODEL_LABELS, OTHER_BONE, RIBS, STERNUM, VERTEBRAE, bone
from shapemodel.labels import records
from shapemodel.labels.numbering import Numbering
from shapemodel.labels.records import Arms, BoneStatus, State
from shapemodel.labels.sternum import Plate, bone_share
from shapemodel.labels.work import Work
from shapemodel.mask import Coarse, Mask, Spacing
from shapemodel.reasons import Flag

METAL_HU = 2600.0
"""Denser than enamel-free bone ever is at clinical resolution (cortex reaches 2000)."""
METAL_ML, METAL_MUCH_ML = 0.05, 1.0
"""Six wires hold 0.15-0.34 mL; how labels fare beside more was not seen."""
STUB_MM = 10.0
SHARE_OK = 0.7
"""Right numberings had 0.78-1.0 of the votes, one that was a level off 0.52."""
CANAL_OK = 0.62
"""Bone around the canal: 0.92-0.96 in real CTs, 0.71-0.81 in phantoms, whose foramina are wider; 0.55 is no canal."""
CONTRAST_ML = 25.0
"""Less is a calcified valve or a node."""
RATIO = (0.7, 1.43)
"""Volume of a rib to its mirror; beyond, one of them lacks or has too much."""
DISC_OK = 0.7
"""Contrast of discs to the middles of bodies: 0.78-1.6 in scans of 1-3 mm, 0.35-0.52 in those of 5 mm, some of which
come out half a level off with a little less luck, 0.60 in a noisy one of 3 mm."""
HOLD_OK = 0.57
"""Processes of L1 are one with it up to 0.9-1 of their cortex' HU, one short one up to 0.62; ribs with their vertebrae
up to 0.3-0.55."""
NECK_OK = 0.68
"""What lies before these processes: 0.75-1 where it is their front or the side of the body, 0.37-0.62 where it is a rib
(one of 0.79 reaches far enough to be counted)."""
ARM_FROM_LUNG_MM = 35.0
STERNUM_WIDE_MM = 75.0
STERNUM_ML = 25.0
"""Whole ones hold 32-92 mL; one that came out as shreds of a thin cortex held 14."""
STERNUM_BONE = 0.6
"""Cortex too thin to be seen: 0.38-0.49 in phantoms of thin bone, whose other bones go wrong too, 0.68-0.94 else."""
LUNG_RATIO = 0.5
CARTILAGE_ML = 6.0
"""4 cm of a calcified first cartilage; up to 4 mL are cut off ordinary scans of the middle-aged."""


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
        extent = max((b.stop - b.start) * s for b, s in zip(box, spacing, strict=True))
        state: State = "cut" if faces else "complete"
        out[k] = BoneStatus(state, faces, round(float(sure), 3), float(ml[k]), int(pieces), float(extent))
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
    shoulder = np.flatnonzero(girdle.any(axis=(1, 2)))
    if work.apex < 0 or not len(shoulder):
        return "unknown"
    top = work.apex
    low = slice(max(0, top - int(220.0 / work.spacing[0])), max(1, top - int(140.0 / work.spacing[0])))
    far = (work.hu[low] > work.limits.working) & (work.lung_mm[low] > ARM_FROM_LUNG_MM)
    far &= np.abs(work.lat[low]) > 120.0
    per_slice = far.sum(axis=(1, 2)) * work.spacing[1] * work.spacing[2]
    return "down" if len(per_slice) and np.mean(per_slice > 60.0) > 0.6 else "up"


def study_measures(
    work: Work, coarse: Coarse, plate: Plate, numbering: Numbering, trimmed: dict[int, float], vessels: Mask
) -> dict[str, float]:
    """What the flags of the whole study are decided on, by name; the unit ends the name.

    ``level_share`` of the ribs' votes for the level; ``canal_rays`` median share of rays from the canal that meet
    bone; ``disc_score`` mean of the discs used; ``lung_ratio`` air of the smaller lung to the larger;
    ``contrast_ml`` of enhanced vessels; ``metal_ml``; ``sternum_mm`` greatest width; ``sternum_bone`` share of its
    middle in which bone is seen; ``cartilage_ml`` most that was cut off one rib. ``lumbar_hold``
    and ``lumbar_neck`` (:func:`shapemodel.labels.lumbar.process_hold`) come from the fine labels.
    """
    used = [k for k in range(len(numbering.discs.s)) if min(numbering.levels[k], numbering.levels[k + 1]) < OTHER_BONE]
    return {
        "level_share": numbering.share,
        "canal_rays": float(np.median(work.canal.score)),
        "disc_score": float(np.mean(numbering.discs.score[used])) if used else 0.0,
        "disc_contrast": float(np.mean(numbering.discs.contrast[used])) if used else 0.0,
        "lung_ratio": _lung_ratio(work, coarse),
        "contrast_ml": float(vessels.sum()) * work.voxel_ml,
        "metal_ml": float(((work.hu > METAL_HU) & work.body).sum()) * work.voxel_ml,
        "sternum_mm": float((plate.high - plate.low)[plate.present].max(initial=0.0)),
        "sternum_bone": bone_share(work, plate),
        "cartilage_ml": max(trimmed.values(), default=0.0),
    }


LIMITS = (
    (records.NUMBERING, "level_share", "<", SHARE_OK, "{:.0%} of the ribs' votes for the level"),
    (records.CANAL, "canal_rays", "<", CANAL_OK, "bone around the canal on {:.0%} of rays"),
    (records.DISC, "disc_contrast", "<", DISC_OK, "discs stand out from bodies by {:.2f}"),
    (records.EFFUSION, "lung_ratio", "<", LUNG_RATIO, "lung volume ratio {:.2f}"),
    (records.CONTRAST, "contrast_ml", ">", CONTRAST_ML, "{:.0f} mL of heart and vessels as bright as bone"),
    (records.METAL, "metal_ml", ">", METAL_ML, "{:.1f} mL of metal"),
    (records.METAL_MUCH, "metal_ml", ">", METAL_MUCH_ML, "{:.1f} mL of metal"),
    (records.VARIANT, "lumbar_hold", "<", HOLD_OK, "parted from L1 at {:.0%} of its cortex' HU: a rib of a 13th pair"),
    (
        records.VARIANT,
        "lumbar_neck",
        "<",
        NECK_OK,
        "before L1's process, parted from it at {:.0%}: a rib of a 13th pair",
    ),
    (records.STERNUM_ODD, "sternum_mm", ">", STERNUM_WIDE_MM, "{:.0f} mm wide"),
    (records.STERNUM_ODD, "sternum_bone", "<", STERNUM_BONE, "its cortex is seen on {:.0%} of its middle"),
)
"""Flag, measure, on which side of which limit it is raised, and its note."""


def study_flags(
    measures: dict[str, float], numbering: Numbering, bones: dict[int, BoneStatus], trimmed: dict[int, float]
) -> tuple[Flag, ...]:
    """Flags of the whole study and of single bones."""
    out = list(numbering.flags)
    for code, name, side, limit, note in LIMITS:
        value = measures[name]
        if value < limit if side == "<" else value > limit:
            out.append(Flag(code, STERNUM if code == records.STERNUM_ODD else 0, note.format(value)))
    for k, ml in trimmed.items():
        if ml > CARTILAGE_ML:
            out.append(Flag(records.CARTILAGE, k, f"{ml:.1f} mL of calcified cartilage cut off"))
    for k, b in bones.items():
        mirror = bones[bone(k).mirror]
        if k in RIBS and bone(k).level > 1 and k < bone(k).mirror and b.status == mirror.status == "complete":
            ratio = b.volume_ml / max(mirror.volume_ml, 1e-6)
            if not RATIO[0] < ratio < RATIO[1]:
                out.append(Flag(records.RATIO, k, f"volume ratio left to right {ratio:.2f}"))
        if b.status == "cut" and 0 < b.extent_mm < STUB_MM:
            out.append(Flag(records.STUB, k, f"{b.extent_mm:.0f} mm of it"))
        if b.pieces > 1:
            out.append(Flag(records.PIECES, k, f"{b.pieces} pieces"))
    cut = [k for k in RIBS if bone(k).level > 1 and "zmax" in bones[k].cut_faces]
    if cut:
        out.append(Flag(records.FIELD, cut[0], f"the top of the scan cuts {len(cut)} ribs below the first"))
    if bones[STERNUM].status == "absent":
        out.append(Flag(records.STERNUM_ODD, STERNUM, "no sternum was found"))
    elif bones[STERNUM].status == "complete" and bones[STERNUM].volume_ml < STERNUM_ML:
        out.append(Flag(records.STERNUM_ODD, STERNUM, f"only {bones[STERNUM].volume_ml:.0f} mL of it were found"))
    return tuple(out)


def _lung_ratio(work: Work, coarse: Coarse) -> float:
    z = np.asarray(np.arange(coarse.lungs.shape[0]) * coarse.spacing[0], dtype=np.float64)
    middle = work.canal.at_z(z)[:, 1]
    x = np.arange(coarse.lungs.shape[2]) * coarse.spacing[2]
    left = float((coarse.lungs & (x[None] > middle[:, None])[:, None, :]).sum())
    right = float(coarse.lungs.sum()) - left
    return min(left, right) / max(left, right, 1.0)
