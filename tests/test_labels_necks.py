"""Rib necks: the turn of the spine, the path along a neck, and heads on a phantom whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from shapemodel.anatomy import RIBS, VERTEBRAE
from shapemodel.labels import label_bones
from shapemodel.labels.canal import Canal
from shapemodel.labels.necks import (
    MOST_TURN_DEG,
    axial_turn,
    hold_heads,
    neck_markers,
    process_markers,
    stump_starts,
)
from shapemodel.labels.ribs import Start
from shapemodel.labels.spine import Discs
from shapemodel.labels.vertebrae import spine_frame
from shapemodel.phantom.cohort import demo_knobs
from shapemodel.phantom.ct import render_ct
from shapemodel.phantom.subject import draw_population

SPACING = (2.0, 1.0, 1.0)


def straight_canal(slices: int = 60) -> Canal:
    z = np.arange(slices) * SPACING[0]
    points = np.column_stack([z, np.full(slices, 80.0), np.full(slices, 60.0)])
    return Canal(points, z, np.tile([1.0, 0.0, 0.0], (slices, 1)), np.ones(slices))


def pair(level: int, s: float, turn_deg: float) -> list[tuple[int, Start]]:
    """Starts of a pair 41 mm to the sides and 16 mm behind the canal of a spine that is turned."""
    c, t = np.cos(np.radians(turn_deg)), np.sin(np.radians(turn_deg))
    out = []
    for label, side, lat in ((level, "left", 41.0), (level + 12, "right", -41.0)):
        x, ant = c * lat - t * -16.0, t * lat + c * -16.0
        out.append((label, Start(s, side, 1, (s, 80.0 - ant, 60.0 + x), 0.6, False, ant)))
    return out


@pytest.mark.parametrize("turn", [0.0, 12.0, -9.0])
def test_turn_of_the_spine_is_read_from_pairs(turn: float) -> None:
    owners = [q for level, s in ((5, 80.0), (6, 60.0), (7, 40.0)) for q in pair(level, s, turn)]
    found = np.degrees(axial_turn(straight_canal(), owners))
    assert np.abs(found - turn).max() < 0.5  # degrees; half a degree is 0.3 mm at a rib's start


def test_no_pair_means_no_turn() -> None:
    assert not axial_turn(straight_canal(), pair(5, 80.0, 10.0)[:1]).any()


def test_a_broken_rib_does_not_turn_the_spine_over() -> None:
    far = np.degrees(axial_turn(straight_canal(), pair(5, 80.0, 70.0)))
    assert far.max() <= MOST_TURN_DEG + 1e-9


def test_a_neck_is_marked_and_the_process_behind_it_is_not() -> None:
    canal = straight_canal()
    frame = spine_frame((60, 160, 120), SPACING, canal, np.zeros(60), (52.0, 55.0, 75.0))
    t = (frame.lat - 18.0) / (41.0 - 18.0)
    neck = (frame.lat > 16) & (frame.lat < 45) & (np.abs(frame.ant - (1.0 - 17.0 * t)) < 3.5)
    neck &= np.abs(frame.s - 60.0) < 5.0
    process = (frame.lat > 10) & (frame.lat < 30) & (np.abs(frame.ant + 20.0) < 4.0) & (np.abs(frame.s - 56.0) < 5.0)
    discs = Discs(np.array([40.0, 62.0, 84.0]), np.zeros(3), np.ones(3))
    owners = pair(6, 60.0, 0.0)[:1]
    found = neck_markers(frame, neck | process, discs, {1: VERTEBRAE[5]}, owners, canal, SPACING)
    assert set(np.unique(found)) == {0, 6}
    assert found[neck].any()
    assert not found[process & ~neck].any()
    lat = np.broadcast_to(frame.lat, found.shape)[found == 6]
    assert lat.min() < 23.0
    assert lat.max() > 34.0


@pytest.mark.parametrize("turn", [0.0, 12.0])
def test_a_transverse_process_is_looked_for_behind_its_rib_and_else_behind_the_canal(turn: float) -> None:
    """Rib 6 on the left runs from (18, 0) to (41, -16) mm before the canal: its tubercle is up to 11 mm thicker."""
    canal = straight_canal()
    frame = spine_frame((60, 160, 120), SPACING, canal, np.full(60, np.radians(turn)), (52.0, 55.0, 75.0))
    discs = Discs(np.array([40.0, 62.0, 84.0]), np.zeros(3), np.ones(3))
    owners = pair(6, 60.0, turn)[:1]
    bone = np.ones(frame.s.shape, bool)
    found = process_markers(frame, bone, discs, {1: VERTEBRAE[5]}, owners, canal) == VERTEBRAE[5]
    slope = 16.0 / 23.0
    behind = (-slope * (frame.lat - 18.0) - frame.ant) / np.hypot(1.0, slope)
    left = found & (frame.lat > 0)
    assert left.any()
    assert behind[left].min() > 11.0
    right = found & (frame.lat < 0)  # no rib known there
    assert right.any()
    assert frame.ant[right].max() <= -16.0
    assert frame.s[found].min() > 40.0 + 0.4 * 22.0 - 0.1


def test_bone_before_a_head_is_its_body() -> None:
    canal = straight_canal()
    frame = spine_frame((60, 160, 120), SPACING, canal, np.zeros(60), (52.0, 55.0, 75.0))
    discs = Discs(np.array([40.0, 62.0, 84.0]), np.zeros(3), np.ones(3))
    levels = {1: VERTEBRAE[5], 2: VERTEBRAE[4]}
    labels = np.where((frame.lat > 14) & (frame.lat < 22) & (np.abs(frame.s - 62.0) < 12.0), np.uint8(6), np.uint8(0))
    held = hold_heads(labels.copy(), frame, discs, levels)
    ahead = (labels == 6) & (frame.ant > 13.0)
    assert (held[ahead & (frame.s < 61)] == VERTEBRAE[5]).all()
    assert (held[ahead & (frame.s > 63)] == VERTEBRAE[4]).all()
    assert (held[(labels == 6) & (frame.ant < 11.0)] == 6).all()


def test_a_rib_whose_start_is_cut_off_keeps_its_neck_where_the_scan_ends_and_only_there() -> None:
    """Neck of rib 7 from (18, 8) to (41, -14) mm beside the canal and above the lowest slice."""
    canal = straight_canal()
    frame = spine_frame((60, 160, 120), SPACING, canal, np.zeros(60), (52.0, 55.0, 75.0))
    t = (frame.lat - 18.0) / (41.0 - 18.0)
    neck = (frame.lat > 16) & (frame.lat < 45) & (np.abs(frame.ant - (1.0 - 17.0 * t)) < 3.5)
    neck &= np.abs(frame.s - (8.0 - 22.0 * t)) < 4.0
    owners = [pair(5, 46.0, 0.0)[0], pair(6, 16.0, 0.0)[0]]
    levels = {0: VERTEBRAE[6], 1: VERTEBRAE[5]}
    (label, start), *more = stump_starts(owners, levels)
    assert (label, start.s, more) == (7, pytest.approx(-14.0), [])
    discs = Discs(np.array([10.0, 40.0]), np.zeros(2), np.ones(2))
    found = neck_markers(frame, neck, discs, levels, owners, canal, SPACING)
    assert (found == 7).sum() > 20
    assert stump_starts(owners, {1: VERTEBRAE[5]}) == []  # its vertebra is not in the scan
    above = [(k, replace(q, s=q.s + 40.0, point=(q.point[0] + 40.0, *q.point[1:]))) for k, q in owners]
    discs = Discs(np.array([50.0, 80.0]), np.zeros(2), np.ones(2))
    higher = neck_markers(frame, np.roll(neck, 40, axis=0), discs, levels, above, canal, SPACING)
    assert not (higher == 7).any()  # the scan goes on below, so the rib would have been seen


def test_heads_of_ribs_are_the_ribs() -> None:
    """A turned phantom (8-11 degrees): without necks the last 20-35 mm of its right ribs went to the vertebrae."""
    person = draw_population(2, 0, 1)[1]
    scan = render_ct(person, replace(demo_knobs(1, 1), contrast_hu=0.0), 5)
    found = sitk.GetArrayFromImage(label_bones(scan.image).image)
    truth = sitk.GetArrayViewFromImage(scan.labels)
    share = []
    for rib, vertebra in zip(RIBS, (*VERTEBRAE, *VERTEBRAE), strict=True):
        own = np.argwhere(truth == rib)
        middle = np.median(np.nonzero((truth == vertebra).any(axis=(0, 1)))[0])
        away = np.abs(own[:, 2] - middle) * scan.image.GetSpacing()[0]
        head = own[away < away.min() + 12.0]  # mm
        share.append(float((found[tuple(head.T)] == rib).mean()))
    assert np.mean(share) > 0.75  # boundaries of joints are uncertain by 2-4 mm of these 12
    assert np.sort(share)[2] > 0.4  # all but two ribs keep their head
