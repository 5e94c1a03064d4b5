"""Dice of ribs and vertebrae away from the joints of a reference label map (``segmentation.py --joints``).

Where two bones touch, a reference says by a flood or by a cut which of them a voxel is of, and is sure of that to some
millimetres only. Scores with a band on both sides of these contacts left out tell what lies beyond that doubt.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from shapemodel.anatomy import OTHER_BONE, RIBS, VERTEBRAE, bone

JOINED = (*RIBS, *VERTEBRAE)
"""Bones whose joints with each other count; the sternum has none with them, other bone is no bone of the model."""


def near_joints(reference: NDArray[np.uint8], reach: float, spacing: tuple[float, float, float]) -> NDArray[np.bool_]:
    """(z, y, x) bool: voxels whose middle lies within ``reach`` mm of a face between two different ribs or vertebrae.

    Bones that a gap parts in the reference (the bodies at a disc) have no such face, and nothing is left out there.
    """
    own = np.isin(reference, JOINED)
    out = np.zeros(reference.shape, bool)
    for axis in range(3):
        a, b = (np.moveaxis(reference, axis, 0)[part] for part in (slice(None, -1), slice(1, None)))
        both = [np.moveaxis(own, axis, 0)[part] for part in (slice(None, -1), slice(1, None))]
        face = both[0] & both[1] & (a != b)
        touching = np.zeros_like(np.moveaxis(own, axis, 0))
        touching[:-1] |= face
        touching[1:] |= face
        room = reach - spacing[axis] / 2  # from the middle of a voxel at a face to the face
        if room >= 0 and touching.any():
            out |= _within(np.moveaxis(touching, 0, axis), room, spacing)
    return out


def _within(mask: NDArray[np.bool_], reach: float, spacing: tuple[float, float, float]) -> NDArray[np.bool_]:
    """Voxels within ``reach`` mm of True ones, worked out in their box."""
    margin = [int(np.ceil(reach / s)) for s in spacing]
    box = tuple(
        slice(max(0, int(i.min()) - m), int(i.max()) + 1 + m) for i, m in zip(np.nonzero(mask), margin, strict=True)
    )
    out = np.zeros_like(mask)
    out[box] = ndi.distance_transform_edt(~mask[box], sampling=spacing) <= reach + 1e-6
    return out


def away_from_joints(
    ours: NDArray[np.uint8], reference: NDArray[np.uint8], reach: float, spacing: tuple[float, float, float]
) -> dict[str, object]:
    """Dice by rib and vertebra without the voxels near joints, and the share (0-1) of the reference's ribs and of its
    vertebrae that is left out.

    Our voxels that the reference calls other bone leave Dice, as they do in the scores of the whole.
    """
    band = near_joints(reference, reach, spacing)
    mine, theirs = ours[~band].astype(np.int64), reference[~band]
    table = np.bincount(mine * 64 + theirs, minlength=4096).reshape(64, 64)
    whole = np.bincount(reference.ravel(), minlength=64)
    size, left = table.sum(axis=1) - table[:, OTHER_BONE], table.sum(axis=0)
    dice = {bone(k).name: round(2 * float(table[k, k]) / float(size[k] + left[k]), 4) for k in JOINED if left[k]}
    out: dict[str, object] = {"reach_mm": reach, "dice": dice}
    for name, labels in (("ribs", list(RIBS)), ("vertebrae", list(VERTEBRAE))):
        out[f"{name}_left_out"] = round(1.0 - float(left[labels].sum()) / max(float(whole[labels].sum()), 1.0), 3)
    return out


def spine_if_agreed(ours: NDArray[np.uint8], reference: NDArray[np.uint8]) -> dict[str, float]:
    """Mean Dice of vertebrae as they are, and if one kind of difference at a time were as the reference has it."""
    a, b = ours, reference
    mine, theirs = np.isin(a, VERTEBRAE), np.isin(b, VERTEBRAE)
    kinds = {
        "as they are": np.zeros(a.shape, bool),
        "next vertebra": mine & theirs & (a != b),
        "ours rib": np.isin(a, RIBS) & theirs,
        "ours empty": (a == 0) & theirs,
        "reference empty": mine & (b == 0),
    }
    out = {}
    for name, where in kinds.items():
        agreed = np.where(where, b, a)
        counted = agreed[b != OTHER_BONE]
        dice = [
            2.0 * float(((agreed == k) & (b == k)).sum()) / float((counted == k).sum() + (b == k).sum())
            for k in VERTEBRAE
            if (b == k).any()
        ]
        out[name] = round(float(np.mean(dice)), 4)
    return out


def joint_line(result: dict) -> str:
    """One result of :func:`away_from_joints` in a line."""
    ribs = {n: d for n, d in result["dice"].items() if n.startswith("rib")}
    spine = {n: d for n, d in result["dice"].items() if n.startswith("vertebra")}
    return (
        f"  beyond {result['reach_mm']:g} mm of joints: ribs {np.mean(list(ribs.values())):.3f} "
        f"({result['ribs_left_out']:.0%} left out), T1-T12 {np.mean(list(spine.values())):.3f} "
        f"({result['vertebrae_left_out']:.0%}), lowest {min(spine, key=spine.get)} {min(spine.values()):.3f}"
    )
