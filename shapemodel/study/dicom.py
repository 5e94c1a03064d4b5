"""DICOM files, in any order and nesting -> series with a checked geometry.

UIDs may be missing, invalid, or the same for everyone; a series is therefore what has the same identifiers
*and* stacks into a volume. Files are sorted by position along the slice normal, never by name or number.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from shapemodel.reasons import StudyError
from shapemodel.study.geometry import SAME_PLACE_MM, Stack, axis_order, stack_slices
from shapemodel.study.headers import CT_CLASSES, Slice, frame_positions, pixel_bytes

log = logging.getLogger(__name__)

DIRECTORY_CLASS = "1.2.840.10008.1.3.10"
"""DICOMDIR, a table of contents that may be out of date: never read."""

NOT_VOLUME_KINDS = {"LOCALIZER", "SCOUT", "TOPOGRAM", "MIP", "MINIP", "PROJECTION IMAGE", "SCREEN SAVE", "MAX_IP"}
"""Values of ImageType that name a survey view or a projection."""

MIN_UID = 16
"""A UID shorter than this ('1.2.3', '') was made up by an anonymiser and groups nothing."""

MAX_SPACING_MM = 6.0
"""Thicker slices than this hide the spaces between the ribs."""

MAX_IN_PLANE_MM = 2.5
"""Coarser axial pixels than this are a coronal or sagittal series with thick slices."""

MIN_LENGTH_MM = 100.0
"""A shorter scan shows too few ribs to number them."""

HASH_DIGITS = 12
"""Length of a series' hash: collisions are unlikely (1e-9) among a thousand series."""


@dataclass(frozen=True)
class Series:
    """Slices that belong together.

    Attributes
    ----------
    slices : in order along the normal when ``stack`` is given
    stack : geometry, None when they are not a volume
    reason, message : why it is no usable volume; empty when it is
    dropped : copies of slices that were left out
    """

    slices: tuple[Slice, ...]
    stack: Stack | None = None
    reason: str = ""
    message: str = ""
    dropped: int = 0

    @property
    def first(self) -> Slice:
        return self.slices[0]

    @cached_property
    def folder(self) -> Path:
        """Deepest folder that holds all its files."""
        return Path(os.path.commonpath([s.path.parent for s in self.slices]))

    @property
    def path(self) -> Path:
        """What names it in a manifest: its folder, or its file when it is one multi-frame file."""
        return self.first.path if len(self.slices) == 1 else self.folder

    @cached_property
    def hash(self) -> str:
        """Name of the series: a hash of its UID and the geometry of its slices, independent of file names."""
        head = self.first
        text = [head.series, head.kernel, head.number, head.acquisition, str(head.image_type)]
        text += sorted(f"{s.rows},{s.columns},{s.position},{s.orientation},{s.pixel_spacing}" for s in self.slices)
        return hashlib.sha256("\n".join(text).encode()).hexdigest()[:HASH_DIGITS]

    @property
    def spacing(self) -> float:
        """mm between slices; 0 without a stack."""
        return 0.0 if self.stack is None else float(self.stack.spacing[2])

    @property
    def length(self) -> float:
        """mm along the patient's z that the scan covers; 0 without a stack."""
        if self.stack is None:
            return 0.0
        order, _, _ = axis_order(self.stack.direction)
        return float((self.size[order[2]]) * self.stack.spacing[order[2]])

    @property
    def size(self) -> tuple[int, int, int]:
        """Columns, rows, slices."""
        n = len(self.slices) if self.first.frames == 1 else self.first.frames
        return (self.first.columns, self.first.rows, n)


def group_series(slices: Iterable[Slice]) -> list[Series]:
    """Sort the slices of any number of files into series, usable or with the reason why not.

    Files are taken together when patient, study and series UID agree and they are of one kind; what then does
    not stack is taken apart by folder, by kernel, description and number, then by acquisition. Files whose UIDs
    say nothing belong together as long as they stack.
    """
    buckets: dict[Hashable, list[Slice]] = defaultdict(list)
    for s in slices:
        if s.sop_class != DIRECTORY_CLASS:
            buckets[_bucket(s)].append(s)
    found = [series for key in buckets for series in _resolve(sorted(buckets[key], key=lambda s: str(s.path)))]
    return sorted(found, key=lambda s: str(s.first.path))


def trusted(uid: str) -> bool:
    """Long enough to be unique; real UIDs may be invalid by the standard and still serve."""
    return len(uid) >= MIN_UID


def kind_of(s: Slice) -> str:
    """``volume`` slice of CT, or the reason code why a file cannot be one."""
    if s.sop_class and s.sop_class not in CT_CLASSES or s.modality and s.modality != "CT":
        secondary = "1.2.840.10008.5.1.4.1.1.7" in s.sop_class or s.rows == 0
        return "not_volume" if secondary and s.modality in ("CT", "SR", "OT", "") else "not_ct"
    if not s.sop_class and not s.modality:
        return "not_dicom" if s.rows == 0 else "not_ct"
    if NOT_VOLUME_KINDS & set(s.image_type) or s.rows == 0 or s.samples != 1:
        return "not_volume"
    return "volume" if s.orientation and s.pixel_spacing and (s.position or s.frames > 1) else "not_volume"


def _bucket(s: Slice) -> Hashable:
    kind = kind_of(s)
    apart = kind != "volume" and not trusted(s.series)
    single = str(s.path) if s.frames > 1 else str(s.path.parent) if apart else ""
    return (s.patient, s.study, s.series, kind, single)


def _series_key(s: Slice) -> Hashable:
    return (s.number, s.kernel, s.description, s.image_type, s.thickness)


def _acquisition_key(s: Slice) -> Hashable:
    return s.acquisition


def _shape_key(s: Slice) -> Hashable:
    return (s.rows, s.columns, s.pixel_spacing, tuple(np.round(s.orientation or (), 3)))


def _branch_key(slices: Sequence[Slice]) -> Callable[[Slice], Hashable]:
    """Which way a file's path goes where the paths of these files part."""
    depth = len(Path(os.path.commonpath([s.path.parent for s in slices])).parts)
    return lambda s: s.path.parent.parts[depth : depth + 1]


def _resolve(slices: Sequence[Slice]) -> list[Series]:
    """One series if the slices stack, otherwise the series they fall into."""
    branch = _branch_key(slices)
    branches = _split(slices, branch)
    if len(branches) > 1 and _overlap(branches):
        parts = [series for part in branches for series in _resolve(part)]
        if any(not p.reason for p in parts):
            return parts
    whole = assemble(slices)
    if not whole.reason or kind_of(slices[0]) != "volume":
        return [whole]
    mixed, named = whole.reason in ("mixed_geometry", "sheared"), trusted(slices[0].series)
    keys = [branch] if mixed or not named else []
    keys += [_series_key, _acquisition_key] if mixed else []
    keys += [_shape_key] if mixed and not named else []
    for key in keys:
        groups = _split(slices, key)
        if len(groups) > 1:
            parts = [series for part in groups for series in _resolve(part)]
            if any(not p.reason for p in parts):
                return parts
    return [whole]


def _split(slices: Sequence[Slice], key: Callable[[Slice], Hashable]) -> list[list[Slice]]:
    parts: dict[Hashable, list[Slice]] = defaultdict(list)
    for s in slices:
        parts[key(s)].append(s)
    return list(parts.values())


def _overlap(parts: Sequence[Sequence[Slice]]) -> bool:
    """True when slices of different parts lie in the same place."""
    places = [{(tuple(np.round(s.position, 2)), s.orientation) for s in p if s.position} for p in parts]
    return sum(len(p) for p in places) > len(set().union(*places))


def assemble(slices: Sequence[Slice]) -> Series:
    """These slices as one series, with its geometry or the reason why there is none."""
    kind = kind_of(slices[0])
    if kind != "volume":
        what = " ".join(slices[0].image_type) or slices[0].modality or "no modality"
        return Series(tuple(slices), reason=kind, message=f"expected CT slices, found {len(slices)} file(s) of {what}")
    try:
        if slices[0].frames > 1:
            return _limits(Series(tuple(slices), _stack_of(slices)))
        kept = _without_copies(slices)
        if len(kept) < 2:
            raise StudyError("not_volume", "expected a volume, found a single 2D image")
        stack = _stack_of(kept)
        ordered = tuple(kept[i] for i in stack.order)
        return _limits(Series(ordered, stack, dropped=len(slices) - len(kept)))
    except StudyError as e:
        return Series(tuple(slices), reason=e.code, message=str(e))


def _stack_of(slices: Sequence[Slice]) -> Stack:
    head = slices[0]
    for name, tolerance in (("rows", 0.0), ("columns", 0.0), ("pixel_spacing", 1e-3), ("orientation", 1e-3)):
        values = np.array([np.ravel(getattr(s, name)) for s in slices], float)
        if np.ptp(values, axis=0).max() > tolerance:
            found = sorted({str(getattr(s, name)) for s in slices})
            shown = "; ".join(found[:3])
            raise StudyError("mixed_geometry", f"expected one {name} in a series, found {len(found)}: {shown}")
    if head.orientation is None or head.pixel_spacing is None:
        raise StudyError("not_volume", "expected a position and a pixel spacing in every slice")
    positions = frame_positions(head.path) if head.frames > 1 else np.array([s.position for s in slices], float)
    if len(positions) < 2:
        raise StudyError("not_volume", "expected a volume, found a single 2D image")
    return stack_slices(positions, np.array(head.orientation), head.pixel_spacing)


def _without_copies(slices: Sequence[Slice]) -> list[Slice]:
    """Drop files whose place and pixels are those of another; different pixels in one place stay (an error later)."""
    by_place: dict[Hashable, list[Slice]] = defaultdict(list)
    for s in slices:
        by_place[tuple(int(x) for x in np.round(np.array(s.position) / SAME_PLACE_MM))].append(s)
    kept = []
    for group in by_place.values():
        if len(group) == 1:
            kept += group
            continue
        seen: dict[tuple[bytes, float | None, float | None], Slice] = {}
        for s in group:
            seen.setdefault((hashlib.sha256(pixel_bytes(s.path)).digest(), s.slope, s.intercept), s)
        kept += seen.values()
    return kept


def _limits(series: Series) -> Series:
    """Refuse what the labelling cannot use: thick, coarse or short series, and values that are not HU."""
    assert series.stack is not None
    order, _, _ = axis_order(series.stack.direction)
    spacing = [float(series.stack.spacing[k]) for k in order]
    check_limits(spacing, series.length)
    head = series.first
    if any(s.slope == 0 for s in series.slices) or (head.slope is None and not head.signed and head.frames == 1):
        raise StudyError("bad_rescale", f"expected a rescale slope and intercept, found slope {head.slope}")
    return series


def check_limits(spacing: Sequence[float], length: float) -> None:
    """Is a volume of this axial spacing (x, y, z mm) and length along z (mm) fit for labelling?

    Raises
    ------
    StudyError
        ``too_thick``, ``not_axial`` or ``too_short``
    """
    if spacing[2] > MAX_SPACING_MM:
        raise StudyError("too_thick", f"expected slices at most {MAX_SPACING_MM} mm apart, found {spacing[2]:.2f} mm")
    if max(spacing[0], spacing[1]) > MAX_IN_PLANE_MM:
        raise StudyError(
            "not_axial",
            f"expected axial pixels of at most {MAX_IN_PLANE_MM} mm, found {spacing[0]:.2f} x {spacing[1]:.2f} mm",
        )
    if length < MIN_LENGTH_MM:
        raise StudyError("too_short", f"expected at least {MIN_LENGTH_MM:.0f} mm of body, found {length:.0f} mm")
