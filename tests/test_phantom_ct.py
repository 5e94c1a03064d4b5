"""Phantom CT: the volume that surfaces fill, tissue HU, blur and noise, and each knob, against known numbers."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from shapemodel import anatomy
from shapemodel.mesh import join, volume
from shapemodel.phantom import hounsfield
from shapemodel.phantom.ct import PhantomCT, render_ct, render_scene
from shapemodel.phantom.head import head_ct
from shapemodel.phantom.knobs import NOISE_HU, CTKnobs
from shapemodel.phantom.raster import Grid, box_of, coverage
from shapemodel.phantom.scene import Scene, pose
from shapemodel.phantom.subject import mean_subject
from shapemodel.phantom.suite import CASES, ORIENTATIONS, stored_as, suite
from shapemodel.phantom.texture import enlarge
from shapemodel.reasons import InputError

SMALL = CTKnobs(matrix=128, pixel_mm=3.2, slice_mm=5.0, noise="low")


def ball(centre: tuple[float, float, float], radius: float | tuple[float, float, float], n: int = 60) -> tuple:
    """Closed ellipsoid: vertices, faces."""
    import pyvista as pv

    s = pv.Sphere(radius=1.0, theta_resolution=n, phi_resolution=n)
    return np.asarray(s.points, float) * radius + centre, s.faces.reshape(-1, 4)[:, 1:].astype(np.int64)


@pytest.fixture(scope="module")
def toy() -> Scene:
    """A body with two ribs of different size, a sternum, a lung: sides can be told apart."""
    bones = {
        anatomy.rib("left", 5): ball((60, 0, 10), (9, 40, 8)),
        anatomy.rib("right", 5): ball((-60, 0, 0), (7, 30, 6)),
        anatomy.STERNUM: ball((0, -60, 5), (18, 8, 40)),
    }
    organs = {"skin": ball((0, 0, 5), (95, 85, 120)), "lung_left": ball((28, -5, 5), (18, 30, 14))}
    organs["heart"] = ball((-10, -15, 5), (18, 18, 30))
    return Scene(join(bones), organs=organs, age_years=50.0, sex="M")


def arrays(scan: PhantomCT) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    return sitk.GetArrayFromImage(scan.image), sitk.GetArrayFromImage(scan.labels)


def around(scan: PhantomCT, centre: tuple[float, float, float], half: float = 6.0) -> tuple[slice, slice, slice]:
    """Index of the voxels (z, y, x) within ``half`` mm of a point."""
    index = [
        slice(int(round((c - half - o) / s)), int(round((c + half - o) / s)) + 1)
        for c, o, s in zip(centre, scan.image.GetOrigin(), scan.image.GetSpacing(), strict=True)
    ]
    return index[2], index[1], index[0]


HEART = (-10.0, -15.0, 5.0)
TOY = CTKnobs(matrix=184, pixel_mm=1.1, slice_mm=2.0, noise="low", cut_above_mm=-30, cut_below_mm=-30)


@pytest.fixture(scope="module")
def toy_scan(toy: Scene) -> PhantomCT:
    return render_scene(toy, TOY, seed=3)


@pytest.mark.parametrize("shift", [(0, 0, 0), (0.3, -0.41, 0.77), (13.2, 5.0, -3.3)])
@pytest.mark.parametrize("slice_mm", [1.0, 2.0, 5.0])
def test_coverage_sums_to_the_volume(shift: tuple[float, float, float], slice_mm: float) -> None:
    v, f = ball(shift, (12.0, 7.0, 20.0))
    grid = Grid((-40, -40, -40), (0.75, 0.8, slice_mm), (108, 100, int(80 / slice_mm)))
    box = box_of(v, grid)
    assert box is not None
    share = coverage(v, f, grid, box)
    assert share.min() >= 0
    assert share.max() <= 1
    # in the plane it is exact; along z it is a midpoint rule of steps <= 0.5 mm
    assert share.sum() * np.prod(grid.spacing) == pytest.approx(volume(v, f), rel=1e-3)


def test_coverage_is_cut_by_the_grid_and_blind_to_surfaces_inside_out() -> None:
    v, f = ball((0, 0, 0), 10.0)
    grid = Grid((0.25, -19.75, -19.75), (0.5, 0.5, 0.5), (60, 80, 80))
    box = box_of(v, grid)
    assert box is not None
    assert coverage(v, f, grid, box).sum() * 0.125 == pytest.approx(volume(v, f) / 2, rel=2e-3)
    assert coverage(v, f[:, ::-1], grid, box).max() == pytest.approx(0, abs=1e-6)
    assert box_of(v - [50, 0, 0], grid) is None


def test_enlarging_is_linear_interpolation() -> None:
    coarse = np.random.default_rng(0).random((7, 9, 8)).astype(np.float32)
    fine = enlarge(coarse, (21, 36, 24))
    at = [np.clip((np.arange(n) + 0.5) * c / n - 0.5, 0, c - 1) for n, c in zip((21, 36, 24), (7, 9, 8), strict=True)]
    expected = ndimage.map_coordinates(coarse, np.meshgrid(*at, indexing="ij"), order=1)
    assert np.abs(fine - expected).max() < 1e-6
    box = (slice(3, 9), slice(5, 30), slice(2, 11))
    assert np.array_equal(enlarge(coarse, (21, 36, 24), box), fine[box])


def test_labels_hold_the_volume_of_the_true_surfaces_on_the_right_sides(toy: Scene, toy_scan: PhantomCT) -> None:
    scan = toy_scan
    _, labels = arrays(scan)
    for label in toy.bones.labels:
        v, f, _ = toy.bones.select(label)
        assert (labels == label).sum() * 2.0 * 1.1**2 == pytest.approx(volume(v, f), rel=0.02)
        x = np.argwhere(labels == label)[:, 2].mean() * 1.1 + scan.image.GetOrigin()[0]
        assert x == pytest.approx(v[:, 0].mean(), abs=0.5)
    assert (labels == 5).sum() > 1.5 * (labels == 17).sum(), "the left rib of the toy is the big one"
    assert scan.surface.arrays["visible"].all()


def test_tissues_have_their_hu(toy_scan: PhantomCT) -> None:
    scan = toy_scan
    hu, labels = arrays(scan)

    def at(x: float, y: float) -> float:
        return float(np.median(hu[around(scan, (x, y, 5.0), 3.0)]))

    assert at(-10, -15) == pytest.approx(hounsfield.BLOOD, abs=6)
    assert at(26, -8) == pytest.approx(hounsfield.LUNG, abs=60)
    assert hu[labels == 0].min() >= -1024
    # deep spongiosa: sternum 0.4 of the vertebral value, 180 HU at 50 years
    assert at(0, -60) == pytest.approx(0.4 * hounsfield.spongiosa_hu(50, "M"), abs=25)
    shell = hu[labels == 5]
    assert 600 < np.percentile(shell, 95) < 1300


def test_spongiosa_and_cortex_fall_with_age_and_calcification_rises() -> None:
    assert hounsfield.spongiosa_hu(25, "M") == 226
    assert hounsfield.spongiosa_hu(90, "F") == 89
    ages = [30, 50, 70, 85]
    assert np.all(np.diff([hounsfield.spongiosa_hu(a, "F") for a in ages]) < 0)
    assert np.all(np.diff([hounsfield.cortex_mm(6, a, "F") for a in ages]) < 0)
    assert np.all(np.diff([hounsfield.calcified_share(a) for a in ages]) > 0)


def test_edge_of_the_body_has_the_blur_that_was_asked_for() -> None:
    scene = Scene(join({25: ball((0, 0, 0), (5, 5, 30))}), organs={"skin": ball((0, 0, 0), (60, 60, 400))}, fat_mm=0.0)
    knobs = CTKnobs(matrix=300, pixel_mm=0.5, slice_mm=4.0, noise="low", blur_mm=2.0, couch=False, cut_below_mm=0)
    hu, _ = arrays(render_scene(scene, replace(knobs, cut_above_mm=0), seed=1))
    line = hu[2:-2, 145:155, :100].mean(axis=(0, 1))
    slope = np.diff(line)
    fwhm = (slope > slope.max() / 2).sum() * 0.5
    assert fwhm == pytest.approx(2.0, abs=0.75), "blur 2 mm, pixels 0.5 mm"


def test_noise_levels_grow_and_leave_the_truth_alone(toy: Scene, toy_scan: PhantomCT) -> None:
    levels: tuple[Literal["low", "middle", "high"], ...] = ("low", "middle", "high")
    scans = [toy_scan, *(render_scene(toy, replace(TOY, noise=n), seed=3) for n in levels[1:])]
    sd = [arrays(s)[0][around(s, HEART)].std() for s in scans]
    # the toy is a slim body: about 0.8 of the nominal level, and tissue texture of 3 HU adds to it
    for got, name in zip(sd, levels, strict=True):
        assert 0.6 * NOISE_HU[name] < got < 1.3 * NOISE_HU[name]
    assert all(np.array_equal(arrays(s)[1], arrays(scans[0])[1]) for s in scans)


def test_same_arguments_same_image_other_seed_other_noise(toy: Scene, toy_scan: PhantomCT) -> None:
    a, b, c = (arrays(scan)[0] for scan in (toy_scan, *(render_scene(toy, TOY, seed=s) for s in (3, 4))))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_contrast_effusion_wires_and_padding(toy: Scene, toy_scan: PhantomCT) -> None:
    scan = toy_scan
    plain, labels = arrays(scan)
    knobs = replace(TOY, contrast_hu=200.0, effusion=0.4, wires=3, padding_hu=-2000.0)
    full, _ = arrays(render_scene(toy, knobs, seed=3))
    heart = around(scan, HEART)
    assert full[heart].mean() - plain[heart].mean() == pytest.approx(160, abs=15), "the heart takes up 0.8 of it"
    back, front = around(scan, (28, 15, 5), 3.0), around(scan, (28, -18, 5), 3.0)
    assert full[back].mean() == pytest.approx(hounsfield.FLUID, abs=15), "fluid lies at the back"
    assert full[front].mean() < -600
    assert full.max() > 2000 > plain.max()
    assert (full[:, 0, 0] == -2000).all()
    assert full[30, 92, 92] > -1024
    assert labels.max() == 25


def test_turns_and_shifts_move_truth_and_image_together(toy: Scene) -> None:
    knobs = replace(TOY, rotate_deg=(5.0, -4.0, 12.0), shift_mm=(9.0, -6.0, 4.0))
    scan = render_scene(toy, knobs, seed=3)
    expected = toy.bones.vertices @ scan.pose[:3, :3].T + scan.pose[:3, 3]
    assert np.allclose(scan.surface.vertices, expected)
    assert np.linalg.det(scan.pose[:3, :3]) == pytest.approx(1.0)
    labels = arrays(scan)[1]
    for label in toy.bones.labels:
        index = np.argwhere(labels == label)[:, ::-1]
        world = index * np.array(scan.image.GetSpacing()) + scan.image.GetOrigin()
        assert np.abs(world.mean(axis=0) - scan.surface.select(label)[0].mean(axis=0)).max() < 0.6
    assert np.allclose(pose((0, 0, 90), (0, 0, 0), np.zeros(3))[:3, :3] @ [1, 0, 0], [0, 1, 0])


def test_cuts_shorten_the_scan_and_hide_what_is_beyond(toy: Scene, toy_scan: PhantomCT) -> None:
    whole = toy_scan
    cut = render_scene(toy, replace(TOY, cut_above_mm=10, cut_below_mm=15), seed=3)
    assert whole.image.GetSize()[2] - cut.image.GetSize()[2] == pytest.approx((40 + 45) / 2, abs=1)
    v = cut.surface.vertices
    inside = (v[:, 2] > cut.fov[4]) & (v[:, 2] < cut.fov[5])
    assert np.array_equal(cut.surface.arrays["visible"], inside)
    assert 0.3 < inside.mean() < 0.95


def test_calcified_cartilage_is_label_41_and_fused_means_more_of_it() -> None:
    bones = join({1: ball((50, 0, 0), (10, 8, 8)), 25: ball((0, 0, 0), (10, 8, 30))})
    rod = ball((30, 0, 0), (12, 5, 6))
    body = {"skin": ball((0, 0, 0), (90, 60, 80))}
    counts = []
    for calcified, fused in ((0.0, False), (0.5, False), (0.5, True)):
        scene = Scene(bones, cartilage={"left_02": rod}, organs=body, age_years=70, sex="M")
        knobs = CTKnobs(matrix=200, pixel_mm=0.8, noise="low", calcified=calcified, fused=fused)
        _, labels = arrays(render_scene(scene, knobs, seed=1))
        counts.append(int((labels == anatomy.COSTAL_CARTILAGE).sum()))
    assert counts[0] == 0 < counts[1] < counts[2]


@pytest.fixture(scope="module")
def person() -> PhantomCT:
    return render_ct(mean_subject("F"), SMALL, seed=1)


def test_a_phantom_person_has_every_bone_and_its_neighbours(person: PhantomCT) -> None:
    hu, labels = arrays(person)
    assert set(anatomy.MODEL_LABELS) <= set(np.unique(labels).tolist())
    assert anatomy.OTHER_BONE in labels
    x = np.array([np.argwhere(labels == k)[:, 2].mean() for k in (6, 18, 25)])
    assert x[0] > x[2] > x[1], "left is +x"
    z = [np.argwhere(labels == anatomy.vertebra(k))[:, 0].mean() for k in range(1, 13)]
    assert np.all(np.diff(z) < 0)
    assert 1.5e6 < (hu < -600).sum() * 3.2**2 * 5 < 4e7
    assert person.surface.fov is not None
    assert np.allclose(person.fov, person.surface.fov)


@pytest.mark.slow
def test_person_knobs_change_the_anatomy() -> None:
    few = render_ct(mean_subject("F"), replace(SMALL, n_pairs=11, arms="down"), seed=1)
    assert not {12, 24} & set(np.unique(arrays(few)[1]).tolist())


def test_wrong_knobs_are_refused() -> None:
    for wrong in ({"noise": "loud"}, {"arms": "sideways"}, {"effusion": 2.0}, {"slice_mm": 0.0}, {"calcified": -0.1}):
        with pytest.raises(InputError):
            CTKnobs(**wrong)


def test_head_has_a_skull_and_no_lungs() -> None:
    hu = sitk.GetArrayFromImage(head_ct())
    assert (hu > 500).any()
    middle = hu[hu.shape[0] // 2]
    assert middle[128, 128] == pytest.approx(36, abs=40)


def test_cohort_on_disk_is_the_scan_and_its_truth(tmp_path: Path) -> None:
    from shapemodel.phantom.cohort import read_truth, write_study

    knobs = replace(SMALL, cut_below_mm=30.0)
    study = write_study(tmp_path, mean_subject("F"), knobs, 5)
    again = write_study(tmp_path / "again", mean_subject("F"), knobs, 5)
    for a, b in zip(sorted(study.ct.rglob("*.dcm")), sorted(again.ct.rglob("*.dcm")), strict=True):
        assert (a.name, a.read_bytes()) == (b.name, b.read_bytes())
    assert study.labels.read_bytes() == again.labels.read_bytes()
    row = study.row(tmp_path)
    assert row["ct"] == f"ct/{row['subject']}"
    truth = read_truth(study.bones)
    assert truth.subject == study.subject
    assert 0.3 < truth.bones.arrays["visible"].mean() < 1
    labels = sitk.ReadImage(str(study.labels))
    assert labels.GetSize()[:2] == (128, 128)


def test_suite_covers_all_knobs_and_repeats_itself() -> None:
    cases = suite()
    assert len(cases) >= 60
    assert cases == suite()
    changed = {k for _, knobs in CASES.values() for k in knobs}
    spared = {"pixel_mm", "matrix", "blur_mm", "couch"}
    assert changed | spared == {f.name for f in fields(CTKnobs)}
    for name in CASES:
        who = [c.subject.subject for c in cases if c.name == name]
        assert len(set(who)) == len(who)


@pytest.mark.parametrize("code", ORIENTATIONS)
def test_stored_otherwise_is_the_same_image(toy_scan: PhantomCT, code: str) -> None:
    image = toy_scan.image
    turned = stored_as(image, code)
    assert turned.GetSize() != image.GetSize() or not np.allclose(turned.GetDirection(), image.GetDirection())
    for index in ((10, 20, 5), (100, 90, 12)):
        there = turned.TransformPhysicalPointToIndex(image.TransformIndexToPhysicalPoint(index))
        assert turned[there] == image[index]


@pytest.mark.slow
def test_cohort_of_two(tmp_path: Path) -> None:
    from shapemodel.phantom.cohort import demo_knobs, write_cohort

    studies = write_cohort(tmp_path, 1, 1, seed=2, knobs=lambda i, s: replace(demo_knobs(i, s), slice_mm=5.0))
    assert [s.subject.sex for s in studies] == ["F", "M"]
    assert all(s.labels.is_file() and s.bones.is_file() for s in studies)
