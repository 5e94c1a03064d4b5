"""Scanning a tree: one row a study, the best series of each, and nothing in it that names a person."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from dicomfiles import ORIGIN, SPACING, Files, body, retag, write_other, write_series

from shapemodel.reasons import InputError, StudyError
from shapemodel.study import Study, read_ct, scan_folder
from shapemodel.study.subject import person

SERIES = "1.2.826.0.1.3680043.8.498.7777777777{}"
STUDY = "1.2.826.0.1.3680043.8.498.8888888888{}"
DOSE_REPORT = "1.2.840.10008.5.1.4.1.1.88.67"
SECONDARY = "1.2.840.10008.5.1.4.1.1.7"


def by_reason(studies: list[Study]) -> dict[str, list[Study]]:
    found: dict[str, list[Study]] = {}
    for s in studies:
        found.setdefault(s.reason, []).append(s)
    return found


def patient(n: int, **more: object) -> Files:
    return replace(Files(patient=f"MRN-{n:05d}", study=STUDY.format(n), series=SERIES.format(n)), **more)


def write_volume(path: Path, seed: int) -> None:
    image = sitk.GetImageFromArray(body(seed))
    image.SetOrigin(ORIGIN)
    image.SetSpacing(SPACING)
    sitk.WriteImage(image, str(path))


def test_a_messy_tree(tmp_path: Path) -> None:
    """Two patients, one folder a patient or all in one; a localizer, a dose report, a capture, junk, a volume."""
    write_series(tmp_path / "a" / "deep" / "er", body(1), patient(1, tags={"PatientSex": "M"}))
    scout = patient(1, series=SERIES.format(91), tags={"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, name="S{}")
    write_series(tmp_path / "a" / "deep" / "er", body(1)[:2], scout)
    write_other(tmp_path / "a" / "dose", sop_class=DOSE_REPORT, modality="SR", how=patient(1), PatientID="MRN-00001")
    write_series(tmp_path / "b", body(2), patient(2))
    write_other(tmp_path / "b" / "shot.dcm", sop_class=SECONDARY, modality="OT", how=patient(2), Rows=4, Columns=4)
    (tmp_path / "b" / "README.txt").write_text("hello")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "x.dcm").write_text("not DICOM")
    (tmp_path / "volumes").mkdir()
    write_volume(tmp_path / "volumes" / "ct.nii.gz", 3)
    rows = by_reason(scan_folder(tmp_path))
    assert {k: len(v) for k, v in rows.items()} == {"": 3, "no_images": 1, "not_dicom": 1}
    first, second, volume = rows[""]
    assert (first.sex, first.age_years, first.position) == ("M", 61.0, "HFS")
    assert "2 other(s) not used (not_volume)" in first.note
    assert "original, axial, 2 mm, 128 mm long, 64 slices" in first.note
    assert second.ct == tmp_path / "b"
    assert volume.series is None
    assert volume.sex is None
    assert "pooled" in volume.note
    assert len({s.subject for v in rows.values() for s in v}) == 5
    for study, seed in ((first, 1), (second, 2), (volume, 3)):
        image = read_ct(study.ct, study.series)
        np.testing.assert_array_equal(sitk.GetArrayViewFromImage(image), body(seed))


@pytest.mark.parametrize(("study", "series"), [("", ""), ("1.2.3", "1.2.3")])
def test_patients_that_share_all_uids_in_folders_of_their_own(tmp_path: Path, study: str, series: str) -> None:
    for n in (1, 2, 3):
        how = Files(patient="ANON", study=study, series=series, tags={"SOPInstanceUID": series})
        write_series(tmp_path / f"p{n}", body(n), how)
    rows = scan_folder(tmp_path)
    assert [r.reason for r in rows] == ["", "", ""]
    assert [r.ct for r in rows] == [tmp_path / f"p{n}" for n in (1, 2, 3)]


def test_series_without_uids_in_one_folder_are_told_apart_by_patient_or_kernel(tmp_path: Path) -> None:
    for n, kernel in ((1, "B30f"), (2, "B70f")):
        how = patient(1, study="", series="", tags={"ConvolutionKernel": kernel}, name=f"{kernel}-{{}}")
        write_series(tmp_path / "flat", body(n), how)
    write_series(tmp_path / "flat", body(3), patient(2, study="", series="", name="other-{}"))
    rows = scan_folder(tmp_path)
    assert [r.reason for r in rows] == ["", ""]
    found = {int(sitk.GetArrayFromImage(read_ct(r.ct, r.series))[0, 0, 0]) for r in rows}
    assert found == {int(body(1)[0, 0, 0]), int(body(3)[0, 0, 0])}
    assert any("best of 2" in r.note and "soft kernel" in r.note for r in rows)


def test_one_series_may_be_spread_over_folders(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "s" / "1", body(), patient(1))
    (tmp_path / "s" / "2").mkdir()
    for p in paths[::2]:
        p.rename(tmp_path / "s" / "2" / p.name)
    (row,) = scan_folder(tmp_path)
    assert row.usable
    assert row.ct == tmp_path / "s"


def test_the_best_series_is_long_original_axial_thin_and_soft(tmp_path: Path) -> None:
    hu = body()
    variants = {
        "thick": {"spacing": (1.5, 1.25, 4.0)},
        "short": {"stop": 56, "spacing": (1.5, 1.25, 1.8)},
        "sharp": {"kernel": "B70f"},
        "best": {"kernel": "B31f"},
        "derived": {"type": ["DERIVED", "SECONDARY", "AXIAL"], "spacing": (1.5, 1.25, 2.0)},
        "mip": {"type": ["DERIVED", "PRIMARY", "MIP"]},
    }
    for i, (name, v) in enumerate(variants.items()):
        tags = {"ConvolutionKernel": v.get("kernel", "B31f"), "SeriesDescription": name}
        if "type" in v:
            tags["ImageType"] = v["type"]
        how = patient(1, series=SERIES.format(i + 20), spacing=v.get("spacing", SPACING), tags=tags, name=f"{name}{{}}")
        stack = hu[::2] if name == "thick" else hu[: v.get("stop")]
        write_series(tmp_path / "study", stack, how)
    (row,) = scan_folder(tmp_path)
    image = read_ct(row.ct, row.series)
    assert image.GetSize()[2] == 64
    assert row.note.startswith("best of 5 usable series: original, axial, 2 mm, 128 mm long, 64 slices, soft kernel")
    assert "1 other(s) not used (not_volume)" in row.note
    with pytest.raises(InputError, match="expected a series"):
        read_ct(row.ct, "abcdef123456")


def test_identical_images_are_used_once(tmp_path: Path) -> None:
    write_series(tmp_path / "one", body(), patient(1))
    write_series(tmp_path / "two", body(), patient(1, seed=5, name="X{}"))
    write_series(tmp_path / "three", body(), patient(3))
    rows = scan_folder(tmp_path)
    assert [r.reason for r in rows] == ["", "duplicate", "duplicate"]
    assert len({r.sha256 for r in rows}) == 1


def test_one_person_is_used_once(tmp_path: Path) -> None:
    write_series(tmp_path / "2019", body(1), patient(1))
    write_series(tmp_path / "2021", body(2), patient(1, study=STUDY.format(77), series=SERIES.format(77)))
    rows = scan_folder(tmp_path, salt="pepper")
    assert [r.reason for r in rows] == ["", "same_subject"]
    assert rows[1].subject == rows[0].subject + "-2"


def test_a_patient_number_of_both_sexes_names_nobody(tmp_path: Path) -> None:
    write_series(tmp_path / "f", body(1), patient(1))
    other = patient(1, study=STUDY.format(77), series=SERIES.format(77), tags={"PatientSex": "M"})
    write_series(tmp_path / "m", body(2), other)
    assert [r.reason for r in scan_folder(tmp_path)] == ["", ""]


def test_broken_studies_are_rows_with_a_reason(tmp_path: Path) -> None:
    write_series(tmp_path / "gap", body(1), patient(1))[9].unlink()
    cut = write_series(tmp_path / "cut", body(2), patient(2))[3]
    cut.write_bytes(cut.read_bytes()[:-500])
    header = write_series(tmp_path / "header", body(4), patient(4))[0]
    header.write_bytes(header.read_bytes()[:200])
    write_series(tmp_path / "single", body(3)[:1], patient(3))
    write_series(tmp_path / "good", body(5), patient(5))
    rows = {r.ct.name.split(".")[0]: r for r in scan_folder(tmp_path)}
    assert rows["gap"].reason == "missing_slice"
    assert rows["cut"].reason == "truncated"
    assert rows["header"].reason == "truncated"
    assert rows["good"].usable
    assert [r.reason for n, r in rows.items() if n not in ("gap", "cut", "header", "good")] == ["not_volume"]
    assert not any(r.include for n, r in rows.items() if n != "good")


def test_nothing_that_names_a_person_is_in_a_row(tmp_path: Path) -> None:
    secret = {"PatientName": "Doe^Jane", "InstitutionName": "St Elsewhere", "StudyDate": "20190314"}
    folder = tmp_path / "study"
    how = patient(1, patient="DOE-JANE-1950", tags=secret, name="DOE-JANE-1950_{}.dcm")
    paths = write_series(folder, body(), how)
    paths[9].write_bytes(paths[9].read_bytes()[:-500])
    (row,) = scan_folder(tmp_path)
    text = repr(replace(row, ct=None))
    assert row.reason == "truncated"
    for word in ("DOE", "Doe", "Jane", "Elsewhere", "2019", how.series, how.study):
        assert word not in text


def test_pseudonyms(tmp_path: Path) -> None:
    write_series(tmp_path / "p1", body(1), patient(1))
    write_series(tmp_path / "p2", body(2), patient(2))
    by_pixels = [r.subject for r in scan_folder(tmp_path)]
    salted = [r.subject for r in scan_folder(tmp_path, salt="secret")]
    assert len({*by_pixels, *salted}) == 4
    assert salted == [r.subject for r in scan_folder(tmp_path, salt="secret")]
    assert salted[0] == "S" + hashlib.sha256(b"secret\0MRN-00001").hexdigest()[:10]
    assert [r.subject for r in scan_folder(tmp_path, subjects="folder")] == ["p1", "p2"]
    table = {"MRN-00001": "A", "p2": "B"}
    assert [r.subject for r in scan_folder(tmp_path, subjects=table)] == ["A", "B"]
    with pytest.raises(InputError, match="p2"):
        scan_folder(tmp_path, subjects={"MRN-00001": "A"})


def test_sha256_is_of_pixels_and_geometry_not_of_tags_or_names(tmp_path: Path) -> None:
    def sha(where: str, hu: np.ndarray, **more: object) -> str:
        write_series(tmp_path / where / "s", hu, patient(1, **more))
        return scan_folder(tmp_path / where)[0].sha256

    first = sha("a", body())
    assert first == sha("b", body(), seed=9, name="Z{}", patient="OTHER", tags={"PatientSex": "M"})
    changed = body()
    changed[5, 5, 5] += 1
    assert first != sha("c", changed)
    assert first != sha("d", body(), origin=(0.0, 0.0, 0.0))
    assert first != sha("e", body()[::-1])


def test_nothing_to_scan(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a folder"):
        scan_folder(tmp_path / "nowhere")
    with pytest.raises(StudyError) as caught:
        scan_folder(tmp_path)
    assert caught.value.code == "no_images"


def test_progress_is_told(tmp_path: Path) -> None:
    write_series(tmp_path / "p1", body(), patient(1))
    shares: list[float] = []
    scan_folder(tmp_path, progress=lambda _, share: shares.append(share))
    assert shares
    assert all(0 <= s <= 1 for s in shares)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"PatientSex": "F", "PatientAge": "018M"}, ("F", 1.5, None, None)),
        ({"PatientSex": "O", "PatientAge": "093Y"}, (None, 90.0, None, None)),
        ({"PatientSex": "X", "PatientSize": "1.74", "PatientWeight": "81.5"}, (None, None, 174.0, 81.5)),
        ({"PatientSex": "m", "PatientSize": "181", "PatientWeight": "0"}, ("M", None, 181.0, None)),
        ({"PatientBirthDate": "19600704", "StudyDate": "20200703"}, (None, 59.0, None, None)),
        ({"PatientAge": "old", "PatientSize": "17"}, (None, None, None, None)),
    ],
)
def test_what_tags_say_of_a_person(tags: dict[str, str], expected: tuple[object, ...]) -> None:
    who = person(tags)
    assert (who.sex, who.age_years, who.height_cm, who.weight_kg) == expected


def test_a_study_without_sex_is_for_the_pooled_model(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "p", body(), patient(1))
    for p in paths:
        retag(p, PatientSex="O")
    (row,) = scan_folder(tmp_path)
    assert row.usable
    assert row.sex is None
    assert "pooled" in row.note


@pytest.mark.real
def test_real_cts_are_four_usable_studies(real: Path) -> None:
    rows = scan_folder(real / "ct", subjects="folder")
    assert [(r.subject, r.sex, r.age_years, r.reason) for r in rows] == [
        ("P001", "M", 39.0, ""),
        ("cap002", "F", 77.0, ""),
        ("normal001", "F", 70.0, ""),
        ("normal002", "M", 68.0, ""),
    ]


def test_files_without_uids_spread_over_folders(tmp_path: Path) -> None:
    """Two patients without any identifier, their slices in numbered sub-folders: what stacks belongs together."""
    for n in (1, 2):
        how = Files(patient="", study="", series="1.2.3", origin=(ORIGIN[0], ORIGIN[1], ORIGIN[2] + 300.0 * n))
        for k, path in enumerate(write_series(tmp_path / f"p{n}", body(n), how)):
            (tmp_path / f"p{n}" / str(k % 3)).mkdir(exist_ok=True)
            path.rename(tmp_path / f"p{n}" / str(k % 3) / path.name)
    rows = scan_folder(tmp_path)
    assert [r.reason for r in rows] == ["", ""]
    assert [r.ct for r in rows] == [tmp_path / "p1", tmp_path / "p2"]


def test_a_copied_tree_is_a_duplicate(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for k, path in enumerate(write_series(tmp_path / name, body(), patient(1))):
            (tmp_path / name / str(k % 2)).mkdir(exist_ok=True)
            path.rename(tmp_path / name / str(k % 2) / path.name)
    assert [r.reason for r in scan_folder(tmp_path)] == ["", "duplicate"]


def test_series_of_a_study_in_folders_of_their_own_leave_no_further_rows(tmp_path: Path) -> None:
    write_series(tmp_path / "thin", body(), patient(1))
    write_series(tmp_path / "thick", body()[::2], patient(1, series=SERIES.format(9), spacing=(1.5, 1.25, 4.0)))
    (tmp_path / "note.dcm").write_text("not DICOM")
    rows = scan_folder(tmp_path)
    assert sorted(r.reason for r in rows) == ["", "not_dicom"]
