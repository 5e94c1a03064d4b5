"""The editing tools on a small made-up scan, and overrides.toml."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from shapemodel.anatomy import COSTAL_CARTILAGE, LABEL, OTHER_BONE
from shapemodel.edit import grow_from_seeds, islands, local_threshold, scissors, threshold
from shapemodel.overrides import Corrections, Step, change_study, read_overrides, write_overrides
from shapemodel.reasons import InputError
from shapemodel.steps import apply_steps, correct

ORIGIN = (-150.0, -120.0, -300.0)
SPACING = (3.0, 3.0, 4.0)
R7, R8 = LABEL["rib_left_07"], LABEL["rib_left_08"]


def chest() -> tuple[sitk.Image, sitk.Image]:
    """CT and labels: an elliptic body with two lungs, and three bars of bone along x beside the left lung.

    Bar A (y 20) is rib 7 on its first half and unlabelled on the second; B (y 30) and C (y 31-33), rib 8, touch in
    a plane that is darker.
    """
    hu = np.full((60, 80, 100), -1000, np.int16)
    z, y, x = np.mgrid[:60, :80, :100]
    hu[((x - 50) / 46) ** 2 + ((y - 40) / 36) ** 2 < 1] = 40
    for cx in (30, 70):
        hu[((x - cx) / 14) ** 2 + ((y - 40) / 20) ** 2 + ((z - 30) / 27) ** 2 < 1] = -850
    labels = np.zeros(hu.shape, np.uint8)
    hu[28:32, 20, 40:60], labels[28:32, 20, 40:50] = 500, R7
    hu[28:32, 30, 44:56], labels[28:32, 30:34, 44:56] = 260, R8
    hu[28:32, 31:34, 44:56] = 600
    del z
    return image(hu), image(labels)


def image(array: np.ndarray) -> sitk.Image:
    found = sitk.GetImageFromArray(array)
    found.SetOrigin(ORIGIN)
    found.SetSpacing(SPACING)
    return found


def at(x: int, y: int, z: int) -> tuple[float, float, float]:
    """Centre of a voxel, mm LPS."""
    px, py, pz = (o + s * i for o, s, i in zip(ORIGIN, SPACING, (x, y, z), strict=True))
    return (px, py, pz)


def values(found: sitk.Image) -> np.ndarray:
    assert found.GetOrigin() == ORIGIN
    assert found.GetSpacing() == SPACING
    return sitk.GetArrayFromImage(found)


def test_threshold() -> None:
    ct, _ = chest()
    hu = sitk.GetArrayFromImage(ct)
    np.testing.assert_array_equal(values(threshold(ct, low=200, high=550)), (hu >= 200) & (hu <= 550))
    automatic = values(threshold(ct)).sum()
    assert automatic == (hu > 200).sum()  # the made-up scan has nothing between tissue and bone
    assert values(threshold(ct, shift=-400)).sum() > automatic
    assert values(threshold(ct, shift=300)).sum() < automatic
    with pytest.raises(InputError, match="shift"):
        threshold(ct, low=200, shift=10)
    with pytest.raises(InputError, match="low <= high"):
        threshold(ct, low=200, high=100)


def test_islands() -> None:
    mask = np.zeros((10, 10, 10), np.uint8)
    mask[1:3, 1:3, 1:3], mask[5:9, 5:9, 5:9], mask[9, 0, 0] = 1, 1, 1
    voxel = np.prod(SPACING)
    assert values(islands(image(mask))).sum() == 8 + 64 + 1
    assert values(islands(image(mask), keep_largest=True)).sum() == 64
    assert values(islands(image(mask), min_mm3=8 * voxel)).sum() == 72
    pieces = values(islands(image(mask), split=True))
    assert [int((pieces == k).sum()) for k in (1, 2, 3)] == [64, 8, 1]
    assert values(islands(image(mask * 0), keep_largest=True)).sum() == 0


def test_local_threshold_stays_near_and_connected() -> None:
    ct, _ = chest()
    found = values(local_threshold(ct, at(59, 20, 30), low=400, high=3000, radius=20.0))
    assert found.any()
    assert set(np.unique(found.nonzero()[1])) == {20}  # the bar it was put on, not its neighbours
    assert found.nonzero()[2].min() >= 59 - 7
    assert not values(local_threshold(ct, at(50, 5, 30), low=400, high=3000, radius=20.0)).any()
    with pytest.raises(InputError, match="inside the scan"):
        local_threshold(ct, (0.0, 0.0, 999.0), low=1, high=2, radius=3)


def test_grow_from_seeds_meets_where_it_is_dark() -> None:
    """Two seeds, one each side of the dark row: the front lies in the row, three voxels from one seed, one from the
    other."""
    ct, _ = chest()
    hu = sitk.GetArrayFromImage(ct)
    hu[28:32, 26:30, 44:56] = 600
    ct = image(hu)
    seeds = np.zeros(hu.shape, np.uint8)
    seeds[30, 29, 50], seeds[30, 33, 50] = 1, 2
    grown = values(grow_from_seeds(ct, image(seeds), low=200))
    assert set(np.unique(grown[28:32, 26:30, 44:56])) == {1}
    assert set(np.unique(grown[28:32, 31:34, 44:56])) == {2}
    assert not grown[28:32, 20].any()
    near = values(grow_from_seeds(ct, image(seeds), low=200, reach=9.0))
    assert 0 < near.astype(bool).sum() < grown.astype(bool).sum()


def test_scissors() -> None:
    _, labels = chest()
    array = sitk.GetArrayFromImage(labels)
    lo, hi = at(45, 20, 28), at(52, 31, 31)
    box = (lo[0], hi[0], lo[1], hi[1], lo[2], hi[2])
    inside = np.zeros(array.shape, bool)
    inside[28:32, 20:32, 45:53] = True
    np.testing.assert_array_equal(values(scissors(labels, box)), np.where(inside, 0, array))
    np.testing.assert_array_equal(values(scissors(labels, box, keep="inside")), np.where(inside, array, 0))
    expected = np.where(inside & (array == R8), OTHER_BONE, array)
    np.testing.assert_array_equal(values(scissors(labels, box, fill=OTHER_BONE, label=R8)), expected)
    with pytest.raises(InputError, match="inside or outside"):
        scissors(labels, box, keep="left")


def test_a_seed_claims_a_loose_piece_of_bone() -> None:
    ct, labels = chest()
    seed = (*at(58, 20, 30), R7)
    found = values(correct(ct, labels, Corrections(seeds=(seed,))))
    assert (found[28:32, 20, 40:60] == R7).all()
    assert (found == R8).sum() == (sitk.GetArrayFromImage(labels) == R8).sum()
    np.testing.assert_array_equal(values(correct(ct, image(found), Corrections(seeds=(seed,)))), found)


def test_a_seed_draws_the_border_to_a_neighbour_anew() -> None:
    """Row 30 is labelled as rib 8: a seed of other_bone in it takes what is nearer to it than to the dark joint."""
    ct, labels = chest()
    found = values(correct(ct, labels, Corrections(seeds=((*at(50, 30, 30), OTHER_BONE), (*at(50, 33, 30), R8)))))
    assert found[30, 30, 50] == OTHER_BONE
    assert found[30, 33, 50] == R8
    assert (found > 0).sum() == (sitk.GetArrayFromImage(labels) > 0).sum()
    assert (found[:, :, :40] == sitk.GetArrayFromImage(labels)[:, :, :40]).all()


def test_steps() -> None:
    ct, labels = chest()
    old = sitk.GetArrayFromImage(labels)

    def after(*steps: Step) -> np.ndarray:
        return values(apply_steps(ct, labels, steps))

    assert ((after(Step("relabel", R7, R8)) == R8) == (old > 0)).all()
    two = old.copy()
    two[50, 50, 50:53] = R7
    piece = values(apply_steps(ct, image(two), [Step("relabel", R7, R8, at=at(51, 50, 50))]))
    assert (piece[50, 50, 50:53] == R8).all()
    assert (piece[28:32, 20, 40:50] == R7).all()
    cut = after(Step("cut", R7, COSTAL_CARTILAGE, at=at(45, 20, 30), normal=(2.0, 0.0, 0.0)))
    assert (cut[28:32, 20, 40:46] == R7).all()
    assert (cut[28:32, 20, 46:50] == COSTAL_CARTILAGE).all()
    lo, hi = at(0, 0, 0), at(99, 25, 59)
    gone = after(Step("scissors", box=(lo[0], hi[0], lo[1], hi[1], lo[2], hi[2])))
    assert not (gone == R7).any()
    assert (gone == R8).any()
    one = values(apply_steps(ct, image(two), [Step("islands")]))
    np.testing.assert_array_equal(one, old)
    kept = values(apply_steps(ct, image(two), [Step("islands", R7, min_mm3=3 * np.prod(SPACING))]))
    np.testing.assert_array_equal(kept, two)
    grown = after(Step("local_threshold", R7, at=at(55, 20, 30), low=400.0, high=2000.0, radius=40.0))
    assert (grown[28:32, 20, 42:60] == R7).all()
    order = after(Step("relabel", R7, R8), Step("relabel", R8, OTHER_BONE))
    assert set(np.unique(order)) == {0, OTHER_BONE}


def test_steps_that_do_nothing_or_lack_something_are_told(caplog: pytest.LogCaptureFixture) -> None:
    ct, labels = chest()
    apply_steps(ct, labels, [Step("relabel", LABEL["sternum"], 0)])
    assert "relabel of sternum) changes nothing" in caplog.text
    with pytest.raises(InputError, match="expected normal"):
        apply_steps(ct, labels, [Step("cut", R7, at=(0.0, 0.0, 0.0))])


def test_crop() -> None:
    ct, labels = chest()
    lo, hi = at(0, 0, 0), at(99, 25, 59)
    found = values(correct(ct, labels, Corrections(crop=(lo[0], hi[0], lo[1], hi[1], lo[2], hi[2]))))
    assert set(np.unique(found)) == {0, R7}


def test_labels_without_a_ct_can_be_corrected_but_not_grown() -> None:
    _, labels = chest()
    found = values(correct(None, labels, Corrections(steps=(Step("relabel", R7, R8),))))
    assert not (found == R7).any()
    with pytest.raises(InputError, match="need the CT"):
        correct(None, labels, Corrections(seeds=((0.0, 0.0, 0.0, R7),)))


# overrides.toml


def full() -> Corrections:
    return Corrections(
        threshold_shift=-20.0,
        crop=(-1.0, 1.0, -2.5, 2.0, -3.0, 1 / 3),
        seeds=((1.0, 2.0, 3.25, R7), (0.0, 0.0, 0.0, 0)),
        steps=(
            Step("relabel", R7, R8, at=(1.0, 2.0, 3.0)),
            Step("cut", LABEL["sternum"], COSTAL_CARTILAGE, at=(1.0, 2.0, 3.0), normal=(0.0, 0.0, 1.0)),
            Step("scissors", box=(0.0, 1.0, 0.0, 1.0, 0.0, 1.0)),
            Step("islands", min_mm3=200.0),
            Step("local_threshold", R8, at=(0.0, 0.0, 0.0), low=100.0, high=900.0, radius=7.5),
        ),
        exclude=True,
        why='metal "plate"\\ and\nmore',
        version=4,
    )


def test_overrides_round_trip_and_versions(tmp_path: Path) -> None:
    path = tmp_path / "overrides.toml"
    assert read_overrides(path) == {}
    write_overrides({"S.1": full(), "S2": Corrections()}, path)
    assert read_overrides(path) == {"S.1": full(), "S2": Corrections()}
    assert change_study(path, "S.1", full()).version == 4
    assert change_study(path, "S.1", Corrections(threshold_shift=5.0)).version == 5
    assert change_study(path, "S3", Corrections(threshold_shift=5.0)).version == 1
    assert {k: v.version for k, v in read_overrides(path).items()} == {"S.1": 5, "S2": 0, "S3": 1}
    assert Corrections(version=3).empty
    assert not full().empty


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("format = 2", "format = 1"),
        ("nonsense", "TOML"),
        ("[studies.S1]\nshift = 3", "unknown.*shift"),
        ("[studies.S1]\nthreshold_shift = 'a'", "threshold_shift: expected a number"),
        ("[studies.S1]\nthreshold_shift = 900", "at most 300 HU"),
        ("[studies.S1]\ncrop = [1, 0, 0, 1, 0, 1]", "minimum below"),
        ("[studies.S1]\nexclude = true", "a sentence why"),
        ("[[studies.S1.seeds]]\nlabel = 'rib_left_13'\nat = [1, 2, 3]", "bone name"),
        ("[[studies.S1.seeds]]\nlabel = 'sternum'\nat = [1, 2]", "x, y, z"),
        ("[[studies.S1.steps]]\ndo = 'paint'", "expected one of relabel"),
        ("[[studies.S1.steps]]\ndo = 'cut'\nlabel = 'sternum'", "missing.*normal"),
        ("[[studies.S1.steps]]\ndo = 'islands'\nat = [1, 2, 3]", "unknown.*at"),
    ],
)
def test_wrong_overrides_are_refused_with_their_place(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "overrides.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=says):
        read_overrides(path)
