"""The manifest: a CSV with one row a study, read strictly and written atomically.

Paths are relative to the manifest. ``scan`` writes it; people fill in what the tags did not say, name label
maps made elsewhere, and set ``include`` to no.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from shapemodel.files import replacing
from shapemodel.labelmaps.schemes import SCHEMES
from shapemodel.reasons import REASONS, InputError
from shapemodel.study.record import Study

COLUMNS = (
    "subject",
    "sex",
    "age_years",
    "height_cm",
    "weight_kg",
    "position",
    "ct",
    "series",
    "labels",
    "labels_scheme",
    "include",
    "reason",
    "note",
    "sha256",
)

_YES, _NO = ("yes", "true", "1"), ("no", "false", "0")
_SUBJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_POSITION = re.compile(r"[HF]F(S|P|DL|DR)|[AP]FDR|[AP]FDL|L?F[DPS]|SITTING|STANDING")
_HASH = re.compile(r"[0-9a-f]{64}")
_SERIES = re.compile(r"[0-9a-f]{6,64}")
_RANGES = {"age_years": (0.0, 120.0), "height_cm": (40.0, 260.0), "weight_kg": (1.0, 400.0)}


def read_manifest(path: str | Path, *, check_files: bool = True) -> list[Study]:
    """Read and check a manifest; paths come back absolute.

    Parameters
    ----------
    path : the CSV file, UTF-8, with exactly the columns of :data:`COLUMNS` in any order
    check_files : refuse included rows whose ``ct`` or ``labels`` do not exist

    Raises
    ------
    InputError
        names file, row (the header is row 1), column, what was expected and what was found
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: expected a manifest (.csv), found {'a folder' if path.is_dir() else 'no file'}")
    try:
        with path.open(newline="", encoding="utf-8-sig") as f:
            rows = list(csv.reader(f, strict=True))
    except (UnicodeDecodeError, csv.Error) as e:
        raise InputError(f"{path}: expected a CSV file in UTF-8: {e}") from e
    if not rows:
        raise InputError(f"{path}: row 1: expected the columns {', '.join(COLUMNS)}, found an empty file")
    _check_header(path, rows[0])
    studies: list[Study] = []
    first_row: dict[str, int] = {}
    for number, cells in enumerate(rows[1:], start=2):
        if not any(c.strip() for c in cells):
            continue
        if len(cells) != len(rows[0]):
            raise InputError(f"{path}: row {number}: expected {len(rows[0])} cells, found {len(cells)}")
        study = _Row(path, number, dict(zip(rows[0], cells, strict=True))).study(check_files)
        if study.subject.casefold() in first_row:
            other = first_row[study.subject.casefold()]
            raise _wrong(path, number, "subject", "an id of its own for every row", f"{study.subject}, as row {other}")
        first_row[study.subject.casefold()] = number
        studies.append(study)
    if not studies:
        raise InputError(f"{path}: row 2: expected at least one study, found none")
    return studies


def write_manifest(studies: Iterable[Study], path: str | Path) -> Path:
    """Write studies as a manifest, paths relative to its folder; InputError when two have one id."""
    path = Path(path)
    seen: set[str] = set()
    with replacing(path) as part, part.open("w", newline="", encoding="utf-8") as f:
        writer = csv.writer(f, lineterminator="\n")
        writer.writerow(COLUMNS)
        for study in studies:
            if study.subject.casefold() in seen:
                raise InputError(f"{path}: expected an id of its own for every study, found {study.subject} twice")
            seen.add(study.subject.casefold())
            writer.writerow([_cell(getattr(study, c), path.parent) for c in COLUMNS])
    return path


def _cell(value: Any, folder: Path) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return _YES[0] if value else _NO[0]
    if isinstance(value, Path):
        return Path(os.path.relpath(value.absolute(), folder.absolute())).as_posix()
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return " ".join(str(value).split())


def _wrong(path: Path, row: int, column: str, expected: str, found: str) -> InputError:
    return InputError(f"{path}: row {row}, column {column}: expected {expected}, found {found}")


def _check_header(path: Path, header: list[str]) -> None:
    missing = [c for c in COLUMNS if c not in header]
    unknown = [c for c in header if c not in COLUMNS]
    twice = sorted({c for c in header if header.count(c) > 1})
    if missing or unknown or twice:
        found = "; ".join(
            f"{what} {', '.join(repr(c) for c in names)}"
            for what, names in (("without", missing), ("unknown", unknown), ("twice", twice))
            if names
        )
        raise InputError(f"{path}: row 1: expected exactly the columns {', '.join(COLUMNS)}, found {found}")


class _Row:
    """One row while it is read: knows where it stands, for the messages."""

    def __init__(self, path: Path, number: int, cells: dict[str, str]):
        self._path, self._number = path, number
        self._cells = {k: v.strip() for k, v in cells.items()}

    def study(self, check_files: bool) -> Study:
        include = self._include()
        reason = self._one_of("reason", tuple(REASONS), "a documented reason code, or nothing") or ""
        sex: Any = self._one_of("sex", ("F", "M"), "F, M or nothing")
        study = Study(
            subject=self._like(
                "subject", _SUBJECT, "letters, digits, '.', '_' and '-', starting with a letter or digit"
            )
            or self._fail("subject", "an id"),
            sex=sex,
            age_years=self._number_in("age_years"),
            height_cm=self._number_in("height_cm"),
            weight_kg=self._number_in("weight_kg"),
            position=self._like("position", _POSITION, "a DICOM patient position such as HFS, SITTING, STANDING"),
            ct=self._file("ct", check_files and include and not reason),
            series=self._like("series", _SERIES, "the hash that scan wrote"),
            labels=self._file("labels", check_files and include and not reason),
            labels_scheme=self._one_of("labels_scheme", SCHEMES, f"one of {', '.join(SCHEMES)}"),
            include=include,
            reason=reason,
            note=self._cells["note"],
            sha256=self._like("sha256", _HASH, "64 hexadecimal digits, or nothing") or "",
        )
        self._check_together(study)
        return study

    def _check_together(self, study: Study) -> None:
        if study.labels is not None and study.labels_scheme is None:
            self._fail("labels_scheme", f"whose numbers the labels use: one of {', '.join(SCHEMES)}")
        if study.labels is None and study.labels_scheme is not None:
            self._fail("labels", "a label map, since labels_scheme is given")
        if study.ct is None and study.labels is None:
            self._fail("ct", "a CT, or labels")
        if study.series is not None and study.ct is None:
            self._fail("ct", "the folder of the series")

    def _fail(self, column: str, expected: str) -> Any:
        found = repr(self._cells[column]) if self._cells[column] else "nothing"
        raise _wrong(self._path, self._number, column, expected, found)

    def _include(self) -> bool:
        value = self._cells["include"].lower()
        if value not in (*_YES, *_NO):
            self._fail("include", "yes or no")
        return value in _YES

    def _one_of(self, column: str, allowed: tuple[str, ...], expected: str) -> str | None:
        value = self._cells[column]
        if value and value not in allowed:
            self._fail(column, expected)
        return value or None

    def _like(self, column: str, pattern: re.Pattern[str], expected: str) -> str | None:
        value = self._cells[column]
        if value and not pattern.fullmatch(value):
            self._fail(column, expected)
        return value or None

    def _number_in(self, column: str) -> float | None:
        text, (low, high) = self._cells[column], _RANGES[column]
        if not text:
            return None
        value = _float(text)
        if value is None or not low <= value <= high:
            self._fail(column, f"a number from {low:g} to {high:g}, or nothing")
        return value

    def _file(self, column: str, must_exist: bool) -> Path | None:
        text = self._cells[column]
        if not text:
            return None
        found = Path(os.path.normpath((self._path.parent / text).absolute()))
        if must_exist and not found.exists():
            self._fail(column, "an existing file or folder, relative to the manifest")
        return found


def _float(text: str) -> float | None:
    convert: Callable[[str], float] = float
    try:
        return convert(text)
    except ValueError:
        return None
