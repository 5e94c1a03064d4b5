"""Scores away from joints: what is left out lies at faces between two bones, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

from shapemodel.anatomy import OTHER_BONE, STERNUM, VERTEBRAE

SPACING = (2.0, 0.5, 0.5)
A, B = VERTEBRAE[3], VERTEBRAE[4]


@pytest.fixture(scope="module")
def joints(benchmark_script):
    return benchmark_script("segmentation_joints")


def bar(first: int, second: int, gap: int = 0) -> np.ndarray:
    """Two bones of 10 mm each, end to end along x, with so many empty voxels between them."""
    out = np.zeros((3, 20, 60), np.uint8)
    out[:, 5:15, 10:30], out[:, 5:15, 30 + gap : 50] = first, second
    return out


def test_a_band_on_both_sides_of_the_face_and_not_beyond_the_reach(joints) -> None:
    band = joints.near_joints(bar(A, B), 2.0, SPACING)
    across = np.flatnonzero(band[1, 10])
    assert (across[0], across[-1]) == (26, 33)  # middles of voxels at 0.25 ... 1.75 mm from the face at 30


@pytest.mark.parametrize(("first", "second", "gap"), [(A, B, 1), (A, OTHER_BONE, 0), (A, STERNUM, 0), (A, A, 0)])
def test_no_band_without_a_face_between_two_ribs_or_vertebrae(joints, first: int, second: int, gap: int) -> None:
    assert not joints.near_joints(bar(first, second, gap), 4.0, SPACING).any()


def test_a_joint_placed_otherwise_costs_nothing_within_the_doubt_and_all_beyond_it(joints) -> None:
    truth, ours = bar(A, B), bar(A, B)
    ours[:, 5:15, 30:33] = A  # 1.5 mm of B
    assert joints.away_from_joints(ours, truth, 2.0, SPACING)["dice"]["vertebra_T04"] == 1.0
    ours[:, 5:15, 30:36] = A  # 3 mm: the last of it lies beyond 2 mm
    dice = joints.away_from_joints(ours, truth, 2.0, SPACING)["dice"]["vertebra_T04"]
    assert dice == pytest.approx(2 * 16 / (16 + 18), abs=1e-3)


def test_what_the_spine_would_gain_is_told_by_kind_of_difference(joints) -> None:
    truth, ours = bar(A, B), bar(A, B)
    ours[:, 5:15, 30:33] = A
    ours[:, 5:15, 49] = 0
    told = joints.spine_if_agreed(ours, truth)
    assert told["as they are"] == pytest.approx((2 * 20 / 43 + 2 * 16 / 36) / 2, abs=1e-3)
    assert told["next vertebra"] == pytest.approx((1 + 2 * 19 / 39) / 2, abs=1e-3)
    assert told["ours rib"] == told["reference empty"] == told["as they are"] < told["ours empty"]
