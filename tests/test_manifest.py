"""The manifest: what is written is read back; what is wrong is refused with its place."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from shapemodel.manifest import COLUMNS, read_manifest, write_manifest
from shapemodel.reasons import InputError
from shapemodel.study import Study


def studies(folder: Path) -> list[Study]:
    (folder / "ct" / "p1").mkdir(parents=True)
    (folder / "labels.nii.gz").write_bytes(b"")
    return [
        Study(
            "S1",
            "F",
            70.0,
            163.5,
            1 / 3 + 60,
            "HFS",
            folder / "ct" / "p1",
            "0123456789ab",
            note="a, b",
            sha256="a" * 64,
        ),
        Study("S2", "M", labels=folder / "labels.nii.gz", labels_scheme="totalsegmentator-v2"),
        Study("S3", None, ct=folder / "gone", include=False, reason="missing_slice", note='said "no"\nand more'),
    ]


def test_round_trip(tmp_path: Path) -> None:
    """Every value, floats to the last bit; paths relative in the file, absolute in memory; a note on one line."""
    rows = studies(tmp_path)
    path = write_manifest(rows, tmp_path / "data_manifest.csv")
    expected = [*rows[:2], replace(rows[2], note='said "no" and more')]
    assert read_manifest(path) == expected
    with path.open(newline="") as f:
        cells = list(csv.reader(f))
    assert tuple(cells[0]) == COLUMNS
    assert cells[1][6] == "ct/p1"
    again = write_manifest(read_manifest(path), tmp_path / "again.csv")
    assert again.read_bytes() == path.read_bytes()


def test_paths_are_relative_to_the_manifest_wherever_it_lies(tmp_path: Path) -> None:
    rows = studies(tmp_path)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    path = write_manifest(rows, tmp_path / "deep" / "er" / "m.csv")
    assert "../../ct/p1" in path.read_text()
    assert read_manifest(path)[0].ct == rows[0].ct


def test_columns_may_stand_in_any_order(tmp_path: Path) -> None:
    path = write_manifest(studies(tmp_path), tmp_path / "m.csv")
    with path.open(newline="") as f:
        rows = [list(reversed(r)) for r in csv.reader(f)]
    with path.open("w", newline="", encoding="utf-8-sig") as f:
        csv.writer(f).writerows(rows)
    assert read_manifest(path)[0] == studies_first(tmp_path)


def studies_first(folder: Path) -> Study:
    return Study(
        "S1", "F", 70.0, 163.5, 1 / 3 + 60, "HFS", folder / "ct" / "p1", "0123456789ab", note="a, b", sha256="a" * 64
    )


def edited(folder: Path, row: int, **cells: str) -> Path:
    path = write_manifest(studies(folder), folder / "m.csv")
    with path.open(newline="") as f:
        rows = list(csv.reader(f))
    for column, value in cells.items():
        rows[row - 1][COLUMNS.index(column)] = value
    with path.open("w", newline="") as f:
        csv.writer(f).writerows(rows)
    return path


@pytest.mark.parametrize(
    ("row", "cells", "column"),
    [
        (2, {"sex": "X"}, "sex"),
        (2, {"sex": "female"}, "sex"),
        (3, {"subject": "S1"}, "subject"),
        (3, {"subject": "s1"}, "subject"),
        (2, {"subject": ""}, "subject"),
        (2, {"subject": "../S1"}, "subject"),
        (2, {"age_years": "old"}, "age_years"),
        (2, {"age_years": "nan"}, "age_years"),
        (2, {"age_years": "700"}, "age_years"),
        (2, {"height_cm": "1.74"}, "height_cm"),
        (2, {"weight_kg": "-3"}, "weight_kg"),
        (2, {"position": "standing on one leg"}, "position"),
        (2, {"ct": "nowhere"}, "ct"),
        (2, {"ct": "", "series": ""}, "ct"),
        (2, {"series": "1.2.3"}, "series"),
        (3, {"labels": "nowhere.nii.gz"}, "labels"),
        (3, {"labels_scheme": ""}, "labels_scheme"),
        (3, {"labels_scheme": "totalsegmentator"}, "labels_scheme"),
        (2, {"labels_scheme": "slicer"}, "labels"),
        (2, {"include": "perhaps"}, "include"),
        (2, {"include": ""}, "include"),
        (2, {"reason": "ugly"}, "reason"),
        (2, {"sha256": "abc"}, "sha256"),
    ],
)
def test_a_wrong_cell_is_refused_with_its_place(tmp_path: Path, row: int, cells: dict[str, str], column: str) -> None:
    path = edited(tmp_path, row, **cells)
    with pytest.raises(InputError) as caught:
        read_manifest(path)
    text = str(caught.value)
    assert f"row {row}, column {column}: expected " in text
    assert "found " in text
    value = cells.get(column, "")
    assert (value in text) if value else ("nothing" in text)


def test_wrong_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file"):
        read_manifest(tmp_path / "m.csv")
    path = tmp_path / "m.csv"
    path.write_text("")
    with pytest.raises(InputError, match="row 1: expected the columns"):
        read_manifest(path)
    path.write_text(",".join(COLUMNS[:-1]) + ",hash\n")
    with pytest.raises(InputError, match="without 'sha256'; unknown 'hash'"):
        read_manifest(path)
    path.write_text(",".join(COLUMNS) + "\nS1,F\n")
    with pytest.raises(InputError, match="row 2: expected 14 cells, found 2"):
        read_manifest(path)
    path.write_text(",".join(COLUMNS) + "\n")
    with pytest.raises(InputError, match="at least one study"):
        read_manifest(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        read_manifest(path)


def test_two_studies_with_one_id_are_not_written_and_nothing_is_left(tmp_path: Path) -> None:
    rows = studies(tmp_path)
    path = write_manifest(rows, tmp_path / "m.csv")
    before = path.read_bytes()
    with pytest.raises(InputError, match="S1 twice"):
        write_manifest([rows[0], rows[0]], path)
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ct", "labels.nii.gz", "m.csv"]


def test_files_of_rows_that_are_left_out_need_not_exist(tmp_path: Path) -> None:
    path = edited(tmp_path, 2, ct="nowhere", include="no")
    assert not read_manifest(path)[0].usable
    assert read_manifest(path, check_files=False)
