"""The steps of the labelling on made-up geometry with known answers, and the whole on the real CTs."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage as ndi

from shapemodel.anatomy import rib
from shapemodel.labels import LabelSettings, Overrides, label_bones
from shapemodel.labels.canal import Canal, find_canal
from shapemodel.labels.flood import flood, gap_depth, gaps, joint_cost, step_cost
from shapemodel.labels.fronts import BREADTH_MM, Front, _likelihood, broader, find_joints, joint_beside
from shapemodel.labels.morphology import close_mm, fill_planes
from shapemodel.labels.numbering import align_sides, without_processes
from shapemodel.labels.pipeline import apply_overrides, check_extent
from shapemodel.labels.ribs import Start
from shapemodel.labels.solid import drop_crumbs, solid_ribs
from shapemodel.labels.spine import Discs, _even_path, disc_score, expected_spacing
from shapemodel.labels.vertebrae import vote_levels
from shapemodel.labels.work import block_mean, smooth_slices, upsample
from shapemodel.mask import Coarse
from shapemodel.reasons import InputError, StudyError

SPACING = (2.0, 0.75, 0.75)


def start(s: float, side: str = "left") -> Start:
    return Start(s, side, 1, (0.0, 0.0, 0.0), 0.6, False, -15.0)


def test_flood_meets_in_the_dark_joint():
    hu = np.full((5, 9, 61), 600, np.int16)
    hu[:, :, 40] = 170  # a joint nearer to the second marker
    bone = np.ones(hu.shape, bool)
    markers = np.zeros(hu.shape, np.uint8)
    markers[:, :, :3], markers[:, :, -3:] = 1, 2
    labels = flood(step_cost(hu, 160.0), bone, markers, (1.0, 1.0, 1.0))
    assert (labels[:, :, :40] == 1).mean() > 0.999 - 10 / 40  # at most the cost of the joint is lost
    assert (labels[:, :, 41:] == 2).all()
    assert (labels > 0).all()


def test_a_narrow_joint_is_dearer_than_marrow_that_is_darker():
    """Marrow of 190 HU, 12 mm wide; in the cortex beside it a joint of 1 mm and 260 HU."""
    hu = np.full((5, 5, 40), 700, np.int16)
    hu[:, :, 2:14] = 190
    hu[:, :, 19] = 260
    line = np.s_[2, 2]
    before, now = step_cost(hu, 160.0)[line], joint_cost(hu, 160.0, (1.0, 1.0, 1.0))[line]
    assert before[19] < 0.6 * before[8]
    assert now[19] > 1.4 * now[8]
    depth = gap_depth(hu, 3.0, 760, (1.0, 1.0, 1.0))[line]
    assert depth[19] == 440
    assert not depth[5:11].any()  # bone on both sides, but 3 mm away on one of them at least


def test_a_gap_between_two_labels_is_empty_and_one_within_a_bone_is_not():
    """Slices of 2 mm: a disc of one slice, its HU raised by endplates of 500 HU, over walls of one or two vertebrae."""
    hu = np.full((9, 10, 10), 500, np.int16)
    hu[4] = 210
    one = np.full(hu.shape, 30, np.uint8)
    two = one.copy()
    two[5:] = 29
    assert not gaps(hu, one, 160.0, (2.0, 0.75, 0.75)).any()
    empty = gaps(hu, two, 160.0, (2.0, 0.75, 0.75))
    assert empty[4].all()
    assert empty.sum() == 100
    hu[4] = 300  # 41 % of the walls: spurs that bridge a disc stay
    assert not gaps(hu, two, 160.0, (2.0, 0.75, 0.75)).any()
    hu[4], hu[5:] = 165, 260  # a wall hardly above the noise
    assert not gaps(hu, two, 160.0, (2.0, 0.75, 0.75)).any()


def test_flood_leaves_what_no_marker_reaches():
    bone = np.zeros((3, 3, 20), bool)
    bone[..., :8] = bone[..., 12:] = True
    markers = np.zeros(bone.shape, np.uint8)
    markers[1, 1, 1] = 7
    labels = flood(np.ones(bone.shape), bone, markers, (1.0, 1.0, 1.0))
    assert (labels[..., :8] == 7).all()
    assert not labels[..., 8:].any()


def ring_scan(slope: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """A soft tube of 8 mm radius with a 4 mm bony wall that moves ``slope`` mm to the left per mm of height."""
    z, y, x = np.ogrid[0:50, 0:160, 0:160]
    cx = 60.0 + slope * z * 2.0
    r = np.hypot((y * 0.75 - 75.0), (x * 0.75 - cx))
    hu = np.where((r > 8) & (r < 12), 500, 40).astype(np.int16)
    return hu, np.broadcast_to(cx, (50, 1, 1)).ravel()


def test_canal_is_found_within_a_millimetre():
    hu, truth = ring_scan()
    lungs = np.zeros((34, 40, 40), bool)
    lungs[:, 5:30, 2:38] = True
    coarse = Coarse(np.ones_like(lungs), lungs, (3.0, 3.0, 3.0), (1, 4, 4), 3000.0)
    canal = find_canal(hu, SPACING, coarse, 160.0, 40.0)
    assert np.abs(canal.points[:, 2] - truth).max() < 1.5
    assert np.abs(canal.points[:, 1] - 75.0).max() < 1.5
    assert canal.s[-1] == pytest.approx(98.0 * np.hypot(1.0, 0.2), rel=0.02)


def test_no_canal_in_soft_tissue():
    hu = np.full((40, 160, 160), 40, np.int16)
    lungs = np.ones((40, 40, 40), bool)
    coarse = Coarse(lungs, lungs, (3.0, 3.0, 3.0), (1, 4, 4), 3000.0)
    with pytest.raises(StudyError) as e:
        find_canal(hu, SPACING, coarse, 160.0, 40.0)
    assert e.value.code == "no_canal"


def test_arclength_of_a_tilted_canal_is_along_it():
    z = np.arange(100.0)
    points = np.stack([z, 0.5 * z, np.zeros(100)], axis=1)
    t = np.array([1.0, 0.5, 0.0]) / np.hypot(1, 0.5)
    canal = Canal(points, z * np.hypot(1, 0.5), np.tile(t, (100, 1)), np.ones(100))
    aside = points[40] + 20.0 * np.array([-0.5, 1.0, 0.0]) / np.hypot(1, 0.5) + [0, 0, 30.0]
    assert canal.arclength(aside[None])[0] == pytest.approx(40 * np.hypot(1, 0.5), abs=0.1)
    assert canal.arclength((points[-1] + 30 * t)[None])[0] == pytest.approx(canal.s[-1] + 30, abs=0.1)


def test_discs_found_where_they_are_not_in_mid_bodies():
    s = np.arange(0.0, 260.0)
    v = np.arange(6.0, 34.0)
    truth = np.cumsum([12, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19])
    body = np.full(len(s), 110.0)  # osteoporotic marrow, as dark as the discs
    for d in truth:
        body[(np.abs(s - d) > 1.8) & (np.abs(s - d) < 4.5)] = 380.0
        body[np.abs(s - d) <= 1.8] = 80.0
    img = np.repeat(body[:, None], len(v), axis=1)
    score, _, _ = disc_score(img, s, v)
    found = s[_even_path(score, np.interp(s, [0, 260], [28.0, 19.0]))]
    inner = [np.abs(found - d).min() for d in truth]
    assert max(inner) <= 2.0


def test_thin_discs_drowned_by_their_endplates_are_found_as_bright_bands():
    """Slices of 5 mm over discs of 2 mm: what is dark and lies between bright places is then the middle of a body."""
    s = np.arange(0.0, 260.0)
    v = np.arange(6.0, 34.0)
    truth = np.cumsum([12, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19])
    body = np.full(len(s), 170.0)
    for d in truth:
        body[np.abs(s - d) < 4.0] = 300.0
        body[np.abs(s - d) < 1.0] = 80.0
    body = ndi.uniform_filter1d(body, 5)[np.clip((s // 5 * 5 + 2).astype(int), 0, 259)]
    score, gap, _ = disc_score(np.repeat(body[:, None], len(v), axis=1), s, v)
    found = s[_even_path(score, np.interp(s, [0, 260], [28.0, 19.0]))]
    assert max(np.abs(found - d).min() for d in truth) <= 3.0
    assert (gap >= 0).all()


def test_expected_spacing_follows_the_scale_of_the_ribs():
    s = np.linspace(0, 300, 301)
    starts = np.array(
        [[k, 280.0 - 1.2 * np.cumsum([0, 17.8, 19.2, 19.4, 19.9, 20.3, 21.3, 22.2, 22.9])[k - 1]] for k in range(1, 10)]
    )
    spacing = expected_spacing(s, starts)
    assert np.interp(280.0, s, spacing) == pytest.approx(1.2 * 18.0, rel=0.08)
    assert (np.diff(spacing) <= 1e-9).all()  # bodies grow downwards


def test_sides_align_although_one_lacks_its_first_rib():
    left = [start(s) for s in (300, 275, 250, 225, 200, 175)]
    right = [start(s, "right") for s in (279, 252, 224, 198, 176)]
    pairs = align_sides(left, right)
    assert pairs[0] == (left[0], None)
    assert [(a.s, b.s) for a, b in pairs[1:] if a and b][0] == (275, 279)


def test_what_lies_two_pitches_below_the_last_rib_is_no_rib():
    ribs = [start(s) for s in (200, 175, 150, 120, 90)] + [start(s, "right") for s in (203, 176, 149, 121, 88)]
    process = replace(start(20, "right"), edge=True)
    assert without_processes([*ribs, process]) == ribs
    stump = replace(start(52, "right"), edge=True)
    assert without_processes([*ribs, stump]) == [*ribs, stump]


def test_asymmetry_of_half_a_pitch_does_not_unpair():
    left = [start(s) for s in (301, 287, 266, 247, 230, 211)]
    right = [start(s, "right") for s in (317, 296, 268, 244, 223, 203)]
    assert all(a is not None and b is not None for a, b in align_sides(left, right))


def test_vote_names_the_level_and_its_share():
    discs = Discs(np.array([10.0, 40, 70, 100, 130]), np.ones(5), np.zeros(5))
    starts = [(k, s) for k, s in ((4, 115.0), (5, 85.0), (6, 55.0), (7, 25.0))] * 2
    top, share, n = vote_levels(discs, starts)
    assert (top, share, n) == (7, 1.0, 8)
    _, share, _ = vote_levels(discs, starts + [(4, 85.0)] * 2)
    assert share == pytest.approx(0.8)


def front(along, hu, label=3, expected=65.0):
    along, hu = np.asarray(along), np.asarray(hu)
    level = (label - 1) % 12 + 1
    places, likelihood = _likelihood(along, hu, expected, level)
    return Front(label, level, np.zeros((len(along), 3), np.int64), along, expected, places, likelihood)


def shaft(end, n=20, hu=320):
    along = np.repeat(np.arange(end, 130.0, 0.5), n)
    return along, np.full(len(along), hu)


def test_front_joint_lies_where_sparse_dense_cartilage_begins():
    along, hu = shaft(57.0)
    spots = np.repeat(np.arange(30.0, 57.0, 0.5), 7)
    fused = front(np.concatenate([spots, along]), np.concatenate([np.full(len(spots), 700), hu]))
    assert find_joints([fused])[0] == pytest.approx(57.0, abs=2.0)  # one SD from the expected place: a bin


def test_front_joint_of_a_rib_that_ends_by_itself_is_its_end():
    assert find_joints([front(*shaft(72.0))])[0] == pytest.approx(72.0, abs=2.0)


def test_front_joint_that_cannot_be_seen_is_found_from_the_neighbours():
    whole = np.repeat(np.arange(20.0, 130.0, 0.5), 20)  # cartilage that looks like the rib
    hidden = front(whole, np.full(len(whole), 320), label=4)
    short = [front(*shaft(80.0), label=k) for k in (3, 5, 15, 17)]
    alone, together = find_joints([hidden])[0], find_joints([*short[:1], hidden, *short[1:]])[1]
    assert abs(alone - 65.0) < 18.0  # two SD: alone it is not told from a rib
    assert abs(together - 80.0) < 9.0  # one SD from where the neighbours' joints lie


def test_tenth_ribs_follow_those_above_and_do_not_move_them():
    seen = [front(*shaft(80.0), label=k) for k in (8, 9, 21)]
    lime = np.repeat(np.arange(20.0, 52.0, 0.5), 7)
    bone_end, hu = shaft(52.0)
    tenth = front(np.concatenate([lime, bone_end]), np.concatenate([np.full(len(lime), 700), hu]), label=10)
    alone, together = find_joints(seen), find_joints([*seen[:2], tenth, seen[2]])
    assert together[:2] + together[3:] == alone
    assert find_joints([tenth])[0] == pytest.approx(52.0, abs=3.0)
    assert together[2] > 50.0


def test_a_rib_that_narrows_before_its_end_is_not_cut_there():
    """People's ribs have 0.7 of their section 3 mm before the end, 0.84 at 9 mm, 0.92 at 15 mm."""
    along, hu = shaft(60.0)
    thin = np.repeat(np.arange(48.0, 60.0, 0.5), np.linspace(12, 18, 24).astype(int))
    one = front(np.concatenate([thin, along]), np.full(len(thin) + len(along), 320), expected=56.0)
    assert find_joints([one])[0] == pytest.approx(48.0, abs=1.5)  # less than a bin


def cage(widths: dict[int, float], cut: tuple[int, ...] = ()) -> tuple[SimpleNamespace, np.ndarray]:
    """A working grid of 2 mm with bars for ribs that reach so many mm to both sides of its middle; ``cut`` ones touch
    the lowest slice."""
    ribs = np.zeros((24, 4, 200), np.uint8)
    for level, half in widths.items():
        z = 0 if level in cut else 24 - 2 * level
        n = round(half / 2.0)
        ribs[z, 1, 100 : 100 + n] = rib("left", level)
        ribs[z, 2, 100 - n : 100] = rib("right", level)
    return SimpleNamespace(spacing=(2.0, 2.0, 2.0)), ribs


def test_a_broad_chest_is_so_many_mm_broader_and_a_cut_rib_takes_it_from_above():
    work, ribs = cage({k: mm + 12.0 for k, mm in BREADTH_MM.items() if k <= 6} | {7: 90.0, 8: 60.0}, cut=(7,))
    more = broader(work, ribs)
    assert more[4] == pytest.approx(12.0, abs=1.0)
    assert more[7] == more[6]  # cut before its widest place
    assert more[8] == pytest.approx(60.0 - BREADTH_MM[8], abs=1.0)
    assert 9 not in more
    _, right_only = cage({4: 140.0})
    right_only[right_only == rib("left", 4)] = 0
    assert broader(work, right_only) == {}


def test_joints_lie_further_out_in_a_broad_chest():
    """Those of ribs 7 of eight people at 0.75-0.83 of half their chest's breadth, whatever that was."""
    for breadth in (127.0, 143.0, 164.0):
        at = joint_beside(7, 28.0, {7: breadth - BREADTH_MM[7]})
        assert 0.75 < at / breadth < 0.83
    assert joint_beside(1, 28.0, {1: 20.0}) == joint_beside(1, 28.0, {})  # the first rib's lies at the manubrium


def hollow_rod(n: int = 60) -> np.ndarray:
    z, y, x = np.ogrid[0:20, 0:40, 0:n]
    r = np.hypot((z - 10) * 2.0, (y - 20) * 0.75)
    return np.broadcast_to((r < 6) & (r > 4) & (x > 4) & (x < n - 5), (20, 40, n)).copy()


def test_solid_rib_is_filled_and_one_piece():
    rod = hollow_rod()
    rod[:, 20:24, 30] = False  # a gap in the cortex of one slice
    labels = np.where(rod, np.uint8(5), np.uint8(0))
    labels[1, 1, 1] = 5  # a crumb
    solid = solid_ribs(labels, [5], SPACING)
    z, y, x = np.ogrid[0:20, 0:40, 0:60]
    inside = np.broadcast_to((np.hypot((z - 10) * 2.0, (y - 20) * 0.75) < 5) & (x > 6) & (x < 53), rod.shape)
    assert (solid[inside] == 5).all()
    assert solid[1, 1, 1] == 0


def test_closing_bridges_only_what_it_should():
    mask = np.zeros((11, 11, 60), bool)
    mask[:, :, 10:20] = mask[:, :, 23:30] = mask[:, :, 45:50] = True
    closed = close_mm(mask, 2.0, (1.0, 1.0, 1.0))
    assert closed[5, 5, 10:30].all()
    assert not closed[5, 5, 33:42].any()


def test_fill_planes_leaves_large_rings():
    mask = np.zeros((3, 60, 60), bool)
    mask[1, 5:55, 5:55] = True
    mask[1, 8:52, 8:52] = False
    assert not fill_planes(mask, (1.0, 1.0, 1.0), 250.0, (0,))[1, 30, 30]
    assert fill_planes(mask, (1.0, 1.0, 1.0), 2500.0, (0,))[1, 30, 30]


def test_drop_crumbs_keeps_the_largest_piece():
    labels = np.zeros((4, 4, 12), np.uint8)
    labels[..., :5], labels[0, 0, 10] = 3, 3
    assert drop_crumbs(labels.copy(), [3])[0, 0, 10] == 0
    assert drop_crumbs(labels.copy(), [4])[0, 0, 10] == 3


def test_smoothing_keeps_the_mean_and_lowers_noise():
    rng = np.random.default_rng(1)
    hu = rng.normal(100, 40, (4, 80, 80)).astype(np.int16)
    out = smooth_slices(hu, SPACING, 0.6)
    assert out[:, 5:-5, 5:-5].mean() == pytest.approx(hu[:, 5:-5, 5:-5].mean(), abs=1.0)
    assert out.std() < 0.65 * hu.std()


def test_blocks_and_back():
    hu = np.arange(4 * 6 * 7, dtype=np.int16).reshape(4, 6, 7)
    small = block_mean(hu, (1, 2, 2))
    assert small.shape == (4, 3, 3)
    assert small[0, 0, 0] == (0 + 1 + 7 + 8) // 4
    assert upsample(small, (1, 2, 2), hu.shape).shape == hu.shape


def image_of(labels: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(labels.astype(np.int16))
    image.SetSpacing((1.0, 1.0, 2.0))
    image.SetOrigin((-10.0, -20.0, -30.0))
    return image


def test_overrides_crop_seed_relabel():
    labels = np.zeros((10, 12, 14), np.uint8)
    labels[2:4, 2:4, 2:4], labels[6:8, 6:8, 6:8] = 7, 7
    ct = image_of(labels)
    seeded = apply_overrides(labels, ct, Overrides(seeds=((-7.0, -17.0, -25.0, 9),)))
    assert (seeded[2:4, 2:4, 2:4] == 9).all()
    assert (seeded[6:8, 6:8, 6:8] == 7).all()
    assert set(np.unique(apply_overrides(labels, ct, Overrides(relabel={7: 8})))) == {0, 8}
    cropped = apply_overrides(labels, ct, Overrides(crop=(-10, 0, -20, 0, -30, -22)))
    assert (cropped == 7).sum() == 8
    with pytest.raises(InputError, match="not on bone"):
        apply_overrides(labels, ct, Overrides(seeds=((0.0, -20.0, -30.0, 9),)))
    assert (labels == 7).sum() == 16  # the input is not touched


def test_excluded_and_unfit_scans_have_their_codes():
    empty = image_of(np.zeros((4, 4, 4), np.uint8))
    with pytest.raises(StudyError) as e:
        label_bones(empty, overrides=Overrides(exclude=True))
    assert e.value.code == "excluded"
    for shape, spacing, code in (
        ((100, 9, 9), (10.0, 1.0, 1.0), "too_thick"),
        ((30, 9, 9), (2.0, 1.0, 1.0), "too_short"),
    ):
        with pytest.raises(StudyError) as e:
            check_extent(shape, spacing)
        assert e.value.code == code


def test_settings_are_plain_values():
    assert LabelSettings() == LabelSettings(threshold_shift=0.0)


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize("study", ["P001", "cap002", "normal001", "normal002"])
def test_real_cts_are_numbered_right(real, study):
    """Every rib of the reference above Dice 0.6; the mean limits leave room below what was measured."""
    from shapemodel.study import read_ct

    labelled = label_bones(read_ct(real / "ct" / study))
    ours = sitk.GetArrayFromImage(labelled.image)
    truth = sitk.GetArrayFromImage(sitk.ReadImage(str(real / "labels" / f"{study}.nii.gz")))
    table = np.bincount(ours.ravel().astype(np.int64) * 64 + truth.ravel(), minlength=4096).reshape(64, 64)
    total = table.sum(axis=0) + table.sum(axis=1) - table[:, 40]
    with np.errstate(invalid="ignore", divide="ignore"):
        dice = 2 * table.diagonal() / total
    there = table.sum(axis=0) > 0
    ribs = dice[1:25][there[1:25]]
    assert ribs.min() > 0.6
    assert ribs.mean() > 0.94
    assert dice[26:38][there[26:38]].mean() > 0.86
    assert dice[25] > 0.85


def test_a_lopsided_top_does_not_unpair_ribs():
    """First ribs 28 mm apart along the canal, as on a tilted patient: still twelve pairs, not thirteen rows."""
    left = [start(s) for s in (358, 330, 303, 271, 256, 238, 201, 184, 148, 119, 82, 48)]
    right = [start(s, "right") for s in (330, 322, 301, 281, 253, 224, 208, 172, 157, 112, 80, 41)]
    assert align_sides(left, right) == list(zip(left, right, strict=True))
    overlooked = align_sides(left, right[:5] + right[6:])
    assert [b is None for _, b in overlooked].index(True) == 5
    assert len(overlooked) == 12
