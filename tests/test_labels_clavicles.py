"""A made-up clavicle whose end lies within the plate of the sternum, in contact with the manubrium."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from shapemodel.labels.clavicles import clavicle_ends

SPACING = (2.0, 1.5, 1.5)
SHAPE = (40, 40, 90)
MIDDLE_MM, HALF_MM = 67.5, 30.0


@pytest.mark.parametrize("joint_hu", [40, 240])
def test_the_end_of_a_clavicle_is_told_from_the_manubrium(joint_hu: int) -> None:
    """Across a joint space, and across a contact that is dense enough to make both one piece: what is beyond the joint
    is clavicle but for a voxel at the joint, what is before it is sternum but for as much."""
    z, y, x = np.meshgrid(*(np.arange(n) * s for n, s in zip(SHAPE, SPACING, strict=True)), indexing="ij")
    beside = x - MIDDLE_MM
    wide = (np.abs(y - 30.0) < 7.0) & (z < 70.0)
    sternum = wide & (beside > -HALF_MM) & (beside < 21.0)
    clavicle = (np.abs(y - 30.0) < 7.0) & (np.abs(z - 60.0) < 8.0) & (beside > 24.0) & (beside < 62.0)
    joint = clavicle.any(axis=2, keepdims=True) & (beside >= 21.0) & (beside <= 24.0)
    hu = np.where(sternum | clavicle, 450, np.where(joint, joint_hu, 40)).astype(np.int16)
    girdle = clavicle & (beside > 40.0)
    region = wide & (np.abs(beside) < HALF_MM)

    def within(_, margin: float = 0.0) -> np.ndarray:
        return wide & (np.abs(beside) < HALF_MM + margin)

    work = SimpleNamespace(hu=hu, spacing=SPACING, factor=(1, 1, 1), limits=SimpleNamespace(low=160.0, working=220.0))
    plate = SimpleNamespace(region=within, middle=np.full(SHAPE[0], MIDDLE_MM))
    ends = clavicle_ends(hu, hu > 160, work, plate, girdle)
    voxel = float(np.prod(SPACING)) / 1000.0
    assert (clavicle & region & ~ends).sum() * voxel < 0.4  # 16 x 14 x 1.5 mm: a voxel along the joint
    assert (sternum & ends).sum() * voxel < 0.4
    assert (clavicle & region).sum() * voxel > 0.8
