"""Ribs of L1 against its transverse processes: told by the joint, not by the length."""

from __future__ import annotations

import numpy as np
import pytest

from shapemodel.anatomy import OTHER_BONE, VERTEBRAE
from shapemodel.labels.canal import Canal
from shapemodel.labels.lumbar import process_hold
from shapemodel.labels.quality import HOLD_OK, NECK_OK
from shapemodel.labels.spine import Discs
from shapemodel.labels.vertebrae import SpineFrame, spine_frame

SPACING = (2.0, 1.0, 1.0)
LOW = 165.0
DISCS = Discs(np.array([20.0, 50.0, 80.0]), np.ones(3), np.zeros(3))
LEVELS = {0: OTHER_BONE, 1: OTHER_BONE, 2: VERTEBRAE[-1], 3: VERTEBRAE[-2]}


def scene(gap_hu: float, reach: float = 45.0) -> tuple[np.ndarray, np.ndarray, SpineFrame]:
    """HU and labels of L1 with an arm of 6 x 6 mm on its left, cortex 600 HU, that a joint of 2 mm crosses at 24 mm."""
    z = np.arange(50) * SPACING[0]
    points = np.column_stack([z, np.full(50, 80.0), np.full(50, 60.0)])
    canal = Canal(points, z, np.tile([1.0, 0.0, 0.0], (50, 1)), np.ones(50))
    frame = spine_frame((50, 160, 120), SPACING, canal, np.zeros(50), (52.0, 55.0, 75.0))
    level = np.abs(frame.s - 36.0)
    arm = (level < 4) & (np.abs(frame.ant + 2.0) < 4) & (frame.lat > 10) & (frame.lat < reach)
    body = (level < 12) & (np.abs(frame.lat) < 13) & (frame.ant > 4) & (frame.ant < 30)
    pedicle = (level < 5) & (frame.lat > 6) & (frame.lat < 13) & (np.abs(frame.ant) < 10)
    hu = np.where(arm | body | pedicle, 600, 40)
    hu[arm & (np.abs(frame.lat - 24.0) <= 1.0)] = gap_hu
    labels = np.where(hu > LOW, np.uint8(OTHER_BONE), np.uint8(0))
    return hu.astype(np.int16), labels, frame


@pytest.mark.parametrize(("gap_hu", "share"), [(600, 1.0), (240, 0.4), (40, 0.0)])
def test_hold_is_the_joint_over_the_cortex(gap_hu: float, share: float) -> None:
    """A process is held all through; a joint of 240 HU (real ones read 136-315) parts a rib at two fifths."""
    hold, _ = process_hold(*scene(gap_hu)[:2], SPACING, scene(gap_hu)[2], DISCS, LEVELS, LOW)
    assert abs(hold - share) < 0.06  # one step of the limit, 25 of 600 HU
    assert (hold < HOLD_OK) == (gap_hu < 600)


def with_short_rib(joint_hu: float, labels_of: int = OTHER_BONE) -> tuple[np.ndarray, np.ndarray, SpineFrame]:
    """The same with a process 12 mm behind the middle of the canal, and a piece of 14 x 6 x 6 mm before its outer half,
    which 2 mm of ``joint_hu`` tie to it; neither reaches further out than 38 mm."""
    hu, _, frame = scene(600, reach=0.0)
    level = np.abs(frame.s - 36.0)
    process = (level < 4) & (np.abs(frame.ant + 10.0) < 3) & (frame.lat > 5) & (frame.lat < 37)
    lamina = (level < 4) & (frame.ant < 0) & (frame.ant > -13) & (frame.lat > 5) & (frame.lat < 11)
    short = (level < 4) & (frame.ant > -5) & (frame.ant < 2) & (frame.lat > 22) & (frame.lat < 36)
    joint = (level < 4) & (frame.ant >= -7) & (frame.ant <= -5) & (frame.lat > 22) & (frame.lat < 36)
    hu = np.where(process | lamina | short, 600, hu)
    hu[joint] = joint_hu
    labels = np.where(hu > LOW, np.uint8(OTHER_BONE), np.uint8(0))
    labels[short & (labels > 0)] = labels_of
    return hu.astype(np.int16), labels, frame


@pytest.mark.parametrize(("joint_hu", "is_rib"), [(600, False), (300, True), (40, True)])
def test_a_short_rib_lies_before_the_process_and_comes_apart_from_it(joint_hu: float, is_rib: bool) -> None:
    """Short ribs came apart at 0.37-0.62 of their cortex, fronts of processes at 0.75 or more."""
    hu, labels, frame = with_short_rib(joint_hu)
    tip, neck = process_hold(hu, labels, SPACING, frame, DISCS, LEVELS, LOW)
    assert tip == 1.0  # it does not reach as far out as tips are looked at
    assert (neck < NECK_OK) == is_rib


def test_a_short_rib_is_seen_where_the_scan_ends_within_l1() -> None:
    """There the tips of processes may be cut off and say nothing, but what lies before them does."""
    ends = Discs(DISCS.s[1:], DISCS.score[1:], DISCS.tilt[1:])
    levels = {0: OTHER_BONE, 1: VERTEBRAE[-1], 2: VERTEBRAE[-2]}
    hu, labels, frame = with_short_rib(300)
    assert process_hold(hu, labels, SPACING, frame, ends, levels, LOW)[1] < NECK_OK
    hu, labels, frame = scene(240)
    assert process_hold(hu, labels, SPACING, frame, ends, levels, LOW)[0] == 1.0


def test_short_pieces_and_numbered_ribs_are_not_looked_at() -> None:
    hu, labels, frame = scene(240, reach=36.0)
    assert process_hold(hu, labels, SPACING, frame, DISCS, LEVELS, LOW)[0] == 1.0
    hu, labels, frame = scene(240)
    labels[(labels > 0) & (frame.lat > 24.0)] = 12
    assert process_hold(hu, labels, SPACING, frame, DISCS, LEVELS, LOW)[0] == 1.0


def test_a_scan_that_ends_in_t12_says_nothing() -> None:
    hu, labels, frame = scene(240)
    ends = {0: VERTEBRAE[-1], 1: VERTEBRAE[-2], 2: VERTEBRAE[-3], 3: VERTEBRAE[-4]}
    assert process_hold(hu, labels, SPACING, frame, DISCS, ends, LOW) == (1.0, 1.0)
