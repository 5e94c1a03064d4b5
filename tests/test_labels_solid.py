"""Labels as solids: handles closed where the bone has none, levels held at their discs, clavicles kept out."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from scipy import ndimage as ndi
from skimage.measure import euler_number

from shapemodel.anatomy import OTHER_BONE, rib, vertebra
from shapemodel.labels.breastbone import solid_plate
from shapemodel.labels.girdle import drop_outliers
from shapemodel.labels.handles import close_handles
from shapemodel.labels.pipeline import _with_rim
from shapemodel.labels.solid import fill_cavities, fill_cups, keep_largest, solid_vertebra
from shapemodel.labels.spine import Discs
from shapemodel.labels.vertebrae import SpineFrame, hold_levels, level_markers

SPACING = (2.0, 0.75, 0.75)
RIB, T5 = rib("left", 5), vertebra(5)


def euler(mask: np.ndarray) -> int:
    """Pieces and cavities less handles."""
    return int(euler_number(np.pad(mask, 1), 3))


def test_the_cup_at_the_front_of_a_rib_is_filled_and_the_shaft_left_alone():
    """A tube of 10 x 10 mm outside and one voxel of wall, 60 mm long across the front, canal 60 mm behind it."""
    labels = np.zeros((20, 60, 120), np.uint8)
    labels[5:11, 10:24, 20:100] = RIB
    hollow = (slice(6, 10), slice(11, 23), slice(20, 99))
    labels[hollow] = 0  # open at its inner end, x = 20
    before = labels.copy()
    fill_cups(labels, [RIB], np.tile([80.0, 0.0], (20, 1)), SPACING)
    filled = labels[hollow] == RIB
    assert filled[:, :, 2:22].mean() > 0.95  # 1.5-16 mm from the opening
    assert not filled[:, :, 40:].any()  # 30 mm: marrow is left to the fillings of the whole bone
    assert np.array_equal(labels[before > 0], before[before > 0])


def test_a_rim_that_fills_little_of_a_coarse_voxel_goes_with_its_bone():
    """Two coarse voxels beside a rib: the next one may be its edge, the one after it is not."""
    labels = np.zeros((3, 3, 7), np.uint8)
    labels[1, 1, 2] = RIB
    labels[1, 1, 4] = OTHER_BONE
    thick = _with_rim(labels)
    assert thick[1, 1, 1] == RIB
    assert thick[1, 1, 0] == 0
    assert thick[1, 1, 3] == OTHER_BONE  # what touches both is left to the shoulder


def plate_with_hole(width: int) -> np.ndarray:
    """A bar of 12 x 12 x 45 mm with a hole of ``width`` voxels (0.75 mm) bored through its middle, along y."""
    bar = np.zeros((12, 30, 70), np.uint8)
    bar[3:9, 7:23, 5:65] = RIB
    bar[5:7, :, 35 - width // 2 : 35 - width // 2 + width] = 0
    return bar


def test_a_hole_through_a_rib_is_filled():
    bar = plate_with_hole(3)
    assert euler(bar == RIB) == 0
    solid = close_handles(bar.copy(), [RIB], np.zeros(bar.shape, bool), SPACING)
    assert euler(solid == RIB) == 1
    assert (solid == RIB).sum() - (bar == RIB).sum() <= 2 * 16 * 3  # the hole and nothing else


def test_what_must_stay_empty_is_not_filled():
    bar = plate_with_hole(3)
    assert np.array_equal(close_handles(bar.copy(), [RIB], bar == 0, SPACING), bar)


def test_a_vertebra_keeps_its_canal_and_loses_a_foramen_of_noise():
    z, y, x = np.ogrid[0:14, 0:60, 0:60]
    r = np.hypot((y - 30) * 0.75, (x - 30) * 0.75)
    ring = np.broadcast_to((r > 8.0) & (r < 15.0) & (z > 1) & (z < 12), (14, 60, 60))
    labels = np.where(ring, np.uint8(T5), np.uint8(0))
    labels[6, 30, 40:] = 0  # one voxel wide, from the canal outwards
    assert euler(labels == T5) == -1
    solid = close_handles(labels, [T5], np.zeros(ring.shape, bool), SPACING)
    assert euler(solid == T5) == 0
    assert not solid[:, 30, 30].any()


def straight_frame() -> SpineFrame:
    """A box of 60 x 60 x 60 mm, 1 mm voxels, canal along z in its middle."""
    z, y, x = np.meshgrid(np.arange(60.0), np.arange(60.0), np.arange(60.0), indexing="ij")
    box = (slice(0, 60), slice(0, 60), slice(0, 60))
    lat, ant = (x - 30).astype(np.float32), (40 - y).astype(np.float32)
    return SpineFrame(box, z.astype(np.float32), lat, ant, np.zeros(60))


def test_bodies_end_at_their_discs_and_arches_hang_down():
    frame = straight_frame()
    discs = Discs(np.array([10.0, 32.0, 54.0]), np.ones(3), np.zeros(3))
    levels = {0: OTHER_BONE, 1: vertebra(6), 2: T5, 3: vertebra(4)}
    labels = np.full(frame.s.shape, T5, np.uint8)  # a flood that climbed and sank along spurs
    held = hold_levels(labels, frame, discs, levels)
    body = (frame.ant > 8) & (np.abs(frame.lat) < 20)
    assert (held[body & (frame.s < 30)] != T5).all()
    assert (held[body & (frame.s > 34) & (frame.s < 54)] == T5).all()
    assert (held[body & (frame.s > 56)] == vertebra(4)).all()
    arch = (frame.ant < 0) & (np.abs(frame.lat) < 15)
    assert (held[arch & (frame.s < 54)] == T5).all()
    assert (held[arch & (frame.ant > -2) & (frame.s > 56)] == vertebra(4)).all()
    assert (held[arch & (frame.ant < -8) & (frame.s > 56)] == T5).all()  # processes and facets: what the flood saw
    neck = hold_levels(np.full(frame.s.shape, T5, np.uint8), frame, discs, levels | {3: OTHER_BONE})
    assert (neck[arch & (frame.s > 56)] == OTHER_BONE).all()


def test_markers_lie_in_their_own_levels():
    frame = straight_frame()
    discs = Discs(np.array([10.0, 32.0, 54.0]), np.ones(3), np.zeros(3))
    levels = {1: vertebra(6), 2: T5}
    markers = level_markers(frame, np.ones(frame.s.shape, bool), discs, levels)
    for label, low, high in ((vertebra(6), 10, 32), (T5, 32, 54)):
        s = frame.s[markers == label]
        assert s.min() > low
        assert s.max() < high
    assert not markers[np.abs(frame.s - 32) < 1].any()


def test_what_stands_behind_the_lowest_disc_is_the_vertebra_below():
    """Where the scan ends at a disc only the superior articular processes of the next vertebra are in it, beside and
    before the inferior ones of the last (13-18 mm beside the canal where T12 meets L1); further up they are reached
    from their pedicles and need no mark."""
    frame = straight_frame()
    bone = np.ones(frame.s.shape, bool)
    levels = {0: OTHER_BONE, 1: T5, 2: vertebra(4)}
    process = (np.abs(frame.lat) > 13) & (np.abs(frame.lat) < 20) & (frame.ant > -12) & (frame.ant < 2)
    at_the_edge = level_markers(frame, bone, Discs(np.array([2.0, 24.0, 46.0]), np.ones(3), np.zeros(3)), levels)
    assert (at_the_edge[process & (frame.s < 5)] == OTHER_BONE).all()
    assert (at_the_edge[process & (frame.s > 7)] != OTHER_BONE).all()
    assert (at_the_edge[(np.abs(frame.lat) < 12) & (frame.s > 2)] != OTHER_BONE).all()
    whole = level_markers(frame, bone, Discs(np.array([24.0, 46.0]), np.ones(2), np.zeros(2)), levels)
    assert (whole[process & (frame.s > 20)] != OTHER_BONE).all()


def test_a_notch_stays_open_and_a_broken_shell_is_filled():
    region, nothing = np.ones((5, 40, 80), bool), np.zeros((5, 40, 80), bool)
    corners = np.zeros(region.shape, bool)
    corners[:, 10:26, 5:18] = corners[:, 10:26, 60:73] = True
    corners[0:2, 10:26, 5:73] = True  # the plate below the notch joins them
    assert not solid_plate(corners, region, nothing, SPACING)[4, 15:20, 35:45].any()
    shell = np.zeros(region.shape, bool)
    shell[:, 10:12, 5:73] = shell[:, 24:26, 5:73] = True  # front and back cortex, thin ends not seen
    shell[0] = False
    shell[0, 10:26, 5:73] = True
    assert solid_plate(shell, region, nothing, SPACING)[3, 15:20, 35:45].all()


def test_the_tip_of_a_shoulder_blade_is_no_piece_of_the_rib():
    """A loose piece 6 mm further from the lungs than the rib goes; one in line with the rib, beyond a gap, stays."""
    labels = np.zeros((20, 40, 80), np.uint8)
    labels[8:12, 10:18, 5:50] = labels[8:12, 10:18, 53:70] = RIB
    labels[8:12, 24:28, 20:30] = RIB
    depth = np.broadcast_to(np.arange(40, dtype=np.float32)[None, :, None] * 0.75, labels.shape)
    work = SimpleNamespace(factor=(1, 1, 1), lung_mm=depth)
    out = drop_outliers(labels, work, [RIB])
    assert not out[:, 20:].any()
    assert (out[8:12, 10:18, 53:70] == RIB).all()


def test_what_closes_a_handle_leaves_the_bone_in_one_piece() -> None:
    """A sponge of which filled voxels touched the rest by edges alone."""
    rng = np.random.default_rng(218)
    sponge = ndi.gaussian_filter(rng.random((14, 24, 24)), 1.2) > 0.51
    labels = np.zeros(sponge.shape, np.uint8)
    inside = keep_largest(np.pad(sponge[1:-1, 1:-1, 1:-1] & keep_largest(sponge)[1:-1, 1:-1, 1:-1], 1))
    labels[inside] = RIB
    close_handles(labels, [RIB], np.zeros(labels.shape, bool), SPACING)
    assert (labels[inside] == RIB).all()
    assert (labels == RIB).sum() > inside.sum()
    assert ndi.label(labels == RIB)[1] == 1


def test_the_outside_of_a_vertebra_is_not_as_dark_as_soft_tissue_and_its_marrow_may_be():
    """A body of 36 x 30 x 20 mm of cortex around marrow: the closing bridges the bottom of a groove."""
    mask = np.zeros((16, 60, 70), bool)
    mask[3:13, 10:50, 10:58] = True
    mask[7, 10:50, 10:12] = False
    mask[5:11, 14:46, 14:54] = False
    everywhere, nowhere = np.ones(mask.shape, bool), np.zeros(mask.shape, bool)
    bright = solid_vertebra(mask, everywhere, nowhere, nowhere, nowhere, SPACING)
    dark = solid_vertebra(mask, everywhere, nowhere, nowhere, ~mask, SPACING)
    assert bright[7, 12:48, 11].all()
    assert not dark[7, 12:48, 11].any()
    assert dark[5:11, 14:46, 14:54].all()
    assert dark[mask].all()


def test_a_gap_that_ends_within_a_bone_is_filled_and_a_foramen_is_not():
    mask = np.zeros((12, 50, 60), bool)
    mask[2:10, 8:42, 8:52] = True
    gap, foramen, open_ = (np.zeros(mask.shape, bool) for _ in range(3))
    gap[5, 20:22, 12:20] = foramen[4:7, 18:26, 30:38] = True
    open_[5, 20:22, 40:60] = True
    nowhere = np.zeros(mask.shape, bool)
    empty = gap | foramen | open_
    solid = solid_vertebra(mask & ~empty, ~nowhere, empty, nowhere, foramen, SPACING)
    assert solid[gap].all()
    assert not solid[foramen].any()
    assert not solid[open_].any()
    assert fill_cavities(mask & ~empty)[gap | foramen].all()
