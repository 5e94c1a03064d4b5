"""What is there: a tree of files -> one row a study, usable or with the reason why not.

Headers only are read of every file; pixels are read once, undecoded, of the series that was chosen, for its
``sha256``: the hash of the geometry and of each slice's stored pixel bytes in order along the normal. Two
copies of a series have the same hash whatever their names and tags are; a recompressed copy has not. Of a
NIfTI, NRRD or MHA volume the voxels in HU are hashed.
"""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import SimpleITK as sitk

from shapemodel.reasons import InputError, StudyError
from shapemodel.study.choose import choose_series
from shapemodel.study.dicom import Series, group_series, trusted
from shapemodel.study.geometry import RESAMPLED, geometry_text
from shapemodel.study.headers import Slice, looks_like_dicom, pixel_bytes, read_slice
from shapemodel.study.record import Study
from shapemodel.study.subject import names_a_person, person, pseudonym
from shapemodel.study.volume import is_volume_file, read_volume, walk

log = logging.getLogger(__name__)

Progress = Callable[[str, float], None]

FOLDER_NAMES = "folder"
"""Value of ``subjects`` that takes the names of the folders as pseudonyms."""


@dataclass(frozen=True)
class _Found:
    """A study before it has a name: where it is, whose it is (never leaves this module), and its row."""

    where: Path
    patient: str
    row: Study


def scan_folder(
    root: str | Path,
    *,
    subjects: Mapping[str, str] | str | None = None,
    salt: str = "",
    progress: Progress | None = None,
) -> list[Study]:
    """List the studies below a folder.

    Parameters
    ----------
    root : folder with DICOM files in any order and nesting, and NIfTI, NRRD or MHA volumes
    subjects : pseudonyms by PatientID or by path below ``root`` (a folder, or the file of a volume), or
        ``"folder"`` to use the folders' names; by default they are hashes
    salt : secret for the hashes, so that the same person has the same pseudonym in another cohort; without one
        each study's own pixels are the salt, and nobody without the images can try patient numbers
    progress : called with a folder and the share that is done

    Returns
    -------
    studies : one a study, ordered by path; ``reason`` is empty for the usable ones. A person of whom several
        studies are usable is counted once (``same_subject``), identical images too (``duplicate``). Without a
        sex tag a study stays usable, for the pooled model only.

    Raises
    ------
    InputError
        no such folder, or ``subjects`` lacks someone
    StudyError
        ``no_images`` when there is nothing in it at all
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: expected a folder, found {'a file' if root.exists() else 'nothing'}")
    slices, volumes, broken = _read_headers(root, progress)
    found = _dicom_studies(slices, broken, progress)
    found += [_volume_study(path) for path in volumes]
    found += _leftovers(root, {p.parent for p in (*(s.path for s in slices), *volumes)}, broken)
    if not found:
        raise StudyError("no_images", f"{root}: expected DICOM, NIfTI, NRRD or MHA files, found none")
    found.sort(key=lambda f: (str(f.where), f.row.series or ""))
    return _named(root, _once(found), subjects, salt)


def _read_headers(root: Path, progress: Progress | None) -> tuple[list[Slice], list[Path], dict[Path, tuple[str, str]]]:
    slices, volumes, broken = [], [], {}
    files = list(walk(root))
    for i, path in enumerate(files):
        if progress is not None and i % 50 == 0:
            progress(str(path.parent.relative_to(root)), i / len(files))
        if is_volume_file(path):
            volumes.append(path)
        elif looks_like_dicom(path):
            try:
                slices.append(read_slice(path))
            except StudyError as e:
                broken[path] = (e.code, str(e))
        elif path.suffix.lower() in (".dcm", ".dicom", ".ima"):
            broken[path] = ("not_dicom", f"{path.name}: expected a DICOM file, found something else")
    return slices, volumes, broken


def _dicom_studies(
    slices: Sequence[Slice], broken: Mapping[Path, tuple[str, str]], progress: Progress | None
) -> list[_Found]:
    groups: dict[tuple[str, str], list[Series]] = defaultdict(list)
    sexes: dict[str, set[str]] = defaultdict(set)
    for s in slices:
        sexes[s.patient].add(dict(s.subject)["PatientSex"])
    for series in group_series(slices):
        patient = series.first.patient if names_a_person(series.first.patient, sexes[series.first.patient]) else ""
        key = series.first.study if trusted(series.first.study) else "" if patient else str(series.folder)
        groups[(patient, key)].append(series)
    found = []
    for i, ((patient, _), members) in enumerate(groups.items()):
        if progress is not None:
            progress(str(members[0].folder), i / len(groups))
        originals, copies = _set_copies_aside(members)
        found.append(_dicom_study(originals, patient, broken))
        found += [_dicom_study([copy], patient, broken) for copy in copies]
    return found


def _set_copies_aside(members: Sequence[Series]) -> tuple[list[Series], list[Series]]:
    """Usable series that the same study holds twice become rows of their own, to be shown as duplicates."""
    first: dict[str, Series] = {}
    copies = []
    for s in members:
        if s.hash not in first:
            first[s.hash] = s
        elif not s.reason:
            copies.append(s)
    return list(first.values()), copies


def _dicom_study(members: Sequence[Series], patient: str, broken: Mapping[Path, tuple[str, str]]) -> _Found:
    best, why = choose_series(members)
    who = person(_tags(best, members))
    reason, note, sha = best.reason, best.message or why, ""
    cut = [p for p, (code, _) in broken.items() if code == "truncated" and p.parent in _folders(best)]
    if cut and reason in ("", "missing_slice"):
        reason, note = "truncated", f"{len(cut)} file(s) of the folder break off in their header: copy them again"
    if not reason:
        try:
            sha = series_sha256(best)
        except StudyError as e:
            reason, note = e.code, str(e)
    if not who.sex and not reason:
        note += "; no sex tag: for the pooled model only"
    if who.position not in (None, "HFS", "FFS"):
        note += f"; lies {who.position}"
    row = Study(
        subject="",
        sex=who.sex,
        age_years=who.age_years,
        height_cm=who.height_cm,
        weight_kg=who.weight_kg,
        position=who.position,
        ct=best.path,
        series=best.hash,
        include=not reason,
        reason=reason,
        note=_anonymous(note, members),
        sha256=sha,
    )
    return _Found(best.path, patient, row)


def _folders(series: Series) -> set[Path]:
    return {s.path.parent for s in series.slices}


def _tags(best: Series, members: Sequence[Series]) -> dict[str, str]:
    """Subject tags of the chosen series, filled up from the study's other series."""
    tags = dict(best.first.subject)
    for series in members:
        for key, value in series.first.subject:
            if not tags.get(key) and key != "PatientPosition":
                tags[key] = value
    return tags


def _anonymous(note: str, members: Sequence[Series]) -> str:
    """File names and patient numbers may name a person: they do not enter the manifest."""
    names = {s.path.name for series in members for s in series.slices}
    names |= {s.patient for series in members for s in series.slices if len(s.patient) > 2}
    for name in sorted(names, key=len, reverse=True):
        note = note.replace(name, "a file")
    return note


def series_sha256(series: Series) -> str:
    """Hash of the geometry and of the stored pixel bytes of each slice, in order along the normal."""
    assert series.stack is not None
    stack = series.stack
    digest = hashlib.sha256()
    numbers = [*series.size, *stack.spacing, *stack.origin, *stack.direction.ravel()]
    digest.update(",".join(f"{x + 0.0:.3f}" for x in numbers).encode())
    for s in series.slices:
        digest.update(f"{s.slope},{s.intercept}".encode())
        digest.update(pixel_bytes(s.path))
    return digest.hexdigest()


def volume_sha256(image: sitk.Image) -> str:
    """Hash of the geometry and voxels of a CT that was read from a volume file."""
    digest = hashlib.sha256(geometry_text(image).encode())
    digest.update(sitk.GetArrayViewFromImage(image).tobytes())
    return digest.hexdigest()


def _volume_study(path: Path) -> _Found:
    try:
        image = read_volume(path)
    except StudyError as e:
        note = str(e).replace(path.name, "the file")
        return _Found(path, "", Study("", ct=path, include=False, reason=e.code, note=note))
    size, spacing = image.GetSize(), image.GetSpacing()
    note = f"volume of {size[2]} slices, {spacing[2]:g} mm; no sex tag: for the pooled model only"
    if image.HasMetaDataKey(RESAMPLED):
        note += f"; resampled, {image.GetMetaData(RESAMPLED)}"
    return _Found(path, "", Study("", ct=path, note=note, sha256=volume_sha256(image)))


def _leftovers(root: Path, used: Collection[Path], broken: Mapping[Path, tuple[str, str]]) -> list[_Found]:
    """Rows for broken files that belong to no study, and for folders in which nothing was found."""
    found = []
    folders: dict[Path, list[str]] = defaultdict(list)
    for path, (code, _) in broken.items():
        if path.parent not in used:
            folders[path.parent].append(code)
    for folder, codes in folders.items():
        code = max(codes)  # truncated says more than not_dicom
        note = f"{len(codes)} file(s) cannot be read: expected DICOM, found something else or a file that breaks off"
        found.append(_Found(folder, "", Study("", ct=folder, include=False, reason=code, note=note)))
    taken = [*used, *folders]
    for folder in sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")):
        if not any(folder == t or folder in t.parents for t in taken):
            note = "expected DICOM, NIfTI, NRRD or MHA files, found none"
            found.append(_Found(folder, "", Study("", ct=folder, include=False, reason="no_images", note=note)))
    return found


def _once(found: Sequence[_Found]) -> list[_Found]:
    """Mark identical images, and further studies of a person, as not to be used."""
    images: dict[str, Path] = {}
    people: dict[str, Path] = {}
    result = []
    for f in found:
        row = f.row
        if row.usable and row.sha256 in images:
            row = replace(row, include=False, reason="duplicate", note=f"{row.note}; same images as an earlier row")
        elif row.usable and f.patient and f.patient in people:
            note = f"{row.note}; an earlier row is of the same person"
            row = replace(row, include=False, reason="same_subject", note=note)
        elif row.usable:
            images[row.sha256] = f.where
            if f.patient:
                people[f.patient] = f.where
        result.append(replace(f, row=row))
    return result


def _named(root: Path, found: Sequence[_Found], subjects: Mapping[str, str] | str | None, salt: str) -> list[Study]:
    """Give every row its pseudonym; a name that is taken gets a number."""
    taken: dict[str, int] = defaultdict(int)
    studies = []
    for f in found:
        below = f.where.relative_to(root)
        if subjects is None:
            own = f.row.sha256 or f.row.series or ""
            name = pseudonym(f.patient or str(below), salt or own)
        elif isinstance(subjects, str):
            name = _folder_name(below, root, subjects)
        else:
            name = _from_table(f, below, subjects)
        taken[name] += 1
        subject = name if taken[name] == 1 else f"{name}-{taken[name]}"
        studies.append(replace(f.row, subject=subject))
    return studies


def _folder_name(below: Path, root: Path, subjects: str) -> str:
    if subjects != FOLDER_NAMES:
        raise InputError(f"subjects: expected a table or {FOLDER_NAMES!r}, found {subjects!r}")
    name = (below.parts or (root.resolve().name,))[0]
    name = name.split(".")[0] if len(below.parts) == 1 and is_volume_file(below) else name
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in name).lstrip("._-") or "S"


def _from_table(found: _Found, below: Path, subjects: Mapping[str, str]) -> str:
    keys = [found.patient, str(below), *(str(p) for p in below.parents)]
    name = next((subjects[k] for k in keys if k and k in subjects), None)
    if name is None:
        raise InputError(f"{below}: expected a row in the table of subjects, by PatientID or by path, found none")
    return name
