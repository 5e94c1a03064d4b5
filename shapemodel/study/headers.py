"""DICOM headers: the few tags that intake needs, read without the pixels, and the pixel bytes as stored."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.config import disable_value_validation
from pydicom.dataset import FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID, ImplicitVRLittleEndian

from shapemodel.reasons import StudyError

log = logging.getLogger(__name__)

TAGS = [
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "Modality", "ImageType"),
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated", "PixelRepresentation"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "PixelPaddingValue"),
    *("RescaleSlope", "RescaleIntercept", "ConvolutionKernel", "SeriesNumber", "AcquisitionNumber"),
    *("SeriesDescription", "BodyPartExamined", "PatientPosition", "PatientID", "PatientSex", "PatientAge"),
    *("PatientBirthDate", "StudyDate", "PatientSize", "PatientWeight"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
]
"""Everything that is read of a header; of it, only sex, age, height, weight and position leave this package."""

CT_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.2",  # CT Image
    "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT Image
    "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT Image
}

_PIXEL_TAGS = ["Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "NumberOfFrames"]
_PREAMBLE, _MAGIC = 128, b"DICM"
_EXPLICIT_LENGTH = 0xFFFFFFFF
_DELIMITER = b"\xfe\xff\xdd\xe0"


@dataclass(frozen=True)
class Slice:
    """What one DICOM file says of itself.

    ``position`` (3,) mm LPS, ``orientation`` (6,), ``pixel_spacing`` (between rows, between columns) mm are None
    where the file has none. ``frames`` > 1 marks a multi-frame file. ``slope``, ``intercept`` may be None.
    """

    path: Path
    patient: str
    study: str
    series: str
    sop: str
    sop_class: str
    modality: str
    image_type: tuple[str, ...]
    rows: int
    columns: int
    frames: int
    samples: int
    signed: bool
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    pixel_spacing: tuple[float, float] | None
    thickness: float | None
    slope: float | None
    intercept: float | None
    padding: int | None
    kernel: str
    number: str
    acquisition: str
    description: str
    body_part: str
    subject: tuple[tuple[str, str], ...]


@contextmanager
def lenient() -> Iterator[None]:
    """Real headers break the standard (bad UIDs, empty values); they are read as they are, without warnings."""
    with warnings.catch_warnings(), disable_value_validation():
        warnings.simplefilter("ignore")
        yield


def looks_like_dicom(path: Path) -> bool:
    """By content: the DICM mark after the preamble, or a data set that starts with group 8 or 2."""
    with path.open("rb") as f:
        head = f.read(_PREAMBLE + len(_MAGIC))
    return head[_PREAMBLE:] == _MAGIC or head[:2] in (b"\x08\x00", b"\x02\x00") and head[3:4] == b"\x00"


def read_slice(path: Path) -> Slice:
    """Header of one DICOM file. StudyError ``not_dicom`` when it is none, ``truncated`` when it breaks off."""
    with lenient():
        found = _slice(path, _dataset(path, TAGS, stop=True))
    if found.rows == 0 and (found.sop_class in CT_CLASSES or not found.sop_class):
        raise StudyError("truncated", f"{path.name}: the file breaks off in its header: copy it again")
    return found


def _dataset(path: Path, tags: list[str], *, stop: bool) -> FileDataset:
    try:
        if not looks_like_dicom(path):
            raise StudyError("not_dicom", f"{path.name}: expected a DICOM file, found something else")
        specific: Any = tags
        return pydicom.dcmread(path, stop_before_pixels=stop, specific_tags=specific, force=True)
    except EOFError as e:
        raise StudyError("truncated", f"{path.name}: the file breaks off in its header ({e})") from e
    except (InvalidDicomError, ValueError, KeyError, AttributeError, NotImplementedError, TypeError) as e:
        if isinstance(e, StudyError):
            raise
        raise StudyError("not_dicom", f"{path.name}: its DICOM header cannot be read ({e})") from e


def _slice(path: Path, ds: FileDataset) -> Slice:
    def text(name: str) -> str:
        value = ds.get(name)
        return "" if value is None else str(value).strip()

    pad = ds.get("PixelPaddingValue")
    frames = int(_number(ds.get("NumberOfFrames")) or 1)
    shared = _Groups(ds) if frames > 1 or "PerFrameFunctionalGroupsSequence" in ds else None
    get = shared.get if shared else ds.get
    spacing = _numbers(get("PixelSpacing"), 2)
    kinds = ds.get("ImageType") or ()
    return Slice(
        path=path,
        patient=text("PatientID"),
        study=text("StudyInstanceUID"),
        series=text("SeriesInstanceUID"),
        sop=text("SOPInstanceUID"),
        sop_class=text("SOPClassUID") or str(ds.file_meta.get("MediaStorageSOPClassUID") or ""),
        modality=text("Modality"),
        image_type=tuple(str(k).upper() for k in ([kinds] if isinstance(kinds, str) else kinds)),
        rows=int(_number(ds.get("Rows")) or 0),
        columns=int(_number(ds.get("Columns")) or 0),
        frames=frames,
        samples=int(_number(ds.get("SamplesPerPixel")) or 1),
        signed=_number(ds.get("PixelRepresentation")) == 1,
        position=_numbers(get("ImagePositionPatient"), 3),
        orientation=_numbers(get("ImageOrientationPatient"), 6),
        pixel_spacing=(spacing[0], spacing[1]) if spacing and min(spacing) > 0 else None,
        thickness=_number(get("SliceThickness")),
        slope=_number(get("RescaleSlope")),
        intercept=_number(get("RescaleIntercept")),
        padding=int(pad) if isinstance(pad, int) else None,
        kernel=text("ConvolutionKernel"),
        number=text("SeriesNumber"),
        acquisition=text("AcquisitionNumber"),
        description=text("SeriesDescription"),
        body_part=text("BodyPartExamined").upper(),
        subject=tuple((k, text(k)) for k in SUBJECT_TAGS),
    )


SUBJECT_TAGS = (
    "PatientSex",
    "PatientAge",
    "PatientBirthDate",
    "StudyDate",
    "PatientSize",
    "PatientWeight",
    "PatientPosition",
)


class _Groups:
    """Attributes of the first frame of a multi-frame file, wherever its functional groups keep them."""

    def __init__(self, ds: FileDataset):
        self._places: list[Any] = []
        for name in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
            if ds.get(name):
                self._places += [seq.value[0] for seq in ds[name].value[0] if seq.VR == "SQ" and seq.value]
        self._places.append(ds)

    def get(self, name: str) -> Any:
        return next((place.get(name) for place in self._places if place.get(name) is not None), None)


def frame_positions(path: Path) -> NDArray[np.float64]:
    """(N, 3) mm LPS: positions of the frames of a multi-frame file, in stored order."""
    with lenient():
        groups: Any = _dataset(path, ["PerFrameFunctionalGroupsSequence"], stop=True).get(
            "PerFrameFunctionalGroupsSequence", []
        )
        found: list[Any] = [
            next((s.value[0].get("ImagePositionPatient") for s in g if s.keyword == "PlanePositionSequence"), None)
            for g in groups
        ]
    if not found or any(p is None for p in found):
        raise StudyError("not_volume", f"{path.name}: expected a position for every frame, found none")
    return np.array([[float(x) for x in p] for p in found])


def _number(value: Any) -> float | None:
    try:
        x = float(value)
    except (TypeError, ValueError):
        return None
    return x if np.isfinite(x) else None


def _numbers(value: Any, n: int) -> tuple[float, ...] | None:
    if value is None or isinstance(value, str) or not hasattr(value, "__len__") or len(value) != n:
        return None
    found = [_number(v) for v in value]
    return None if None in found else tuple(x for x in found if x is not None)


def pixel_bytes(path: Path) -> bytes:
    """The pixel data as it is stored, compressed or not.

    Raises
    ------
    StudyError
        ``truncated`` when the file ends before its pixel data does
    """
    with lenient():
        ds = _dataset(path, [*_PIXEL_TAGS, "PixelData"], stop=False)
        needed = int(ds.get("Rows") or 0) * int(ds.get("Columns") or 0) * int(ds.get("BitsAllocated") or 0) // 8
        needed *= int(ds.get("SamplesPerPixel") or 1) * int(_number(ds.get("NumberOfFrames")) or 1)
        encapsulated = UID(ds.file_meta.get("TransferSyntaxUID", ImplicitVRLittleEndian)).is_encapsulated
        data = ds.get("PixelData")
    if data is None:
        raise StudyError("truncated", f"{path.name}: the file ends before or within its pixel data: copy it again")
    if not encapsulated and len(data) < needed:
        raise StudyError(
            "truncated", f"{path.name}: expected {needed} bytes of pixels, found {len(data)}: copy the file again"
        )
    if encapsulated and not _complete(data):
        raise StudyError(
            "truncated", f"{path.name}: the file ends within its compressed pixel data: copy the file again"
        )
    return bytes(data)


def _complete(data: bytes) -> bool:
    """Walk over the items of encapsulated pixel data: does the last one end where the data does?"""
    at = 0
    while at + 8 <= len(data):
        tag, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if tag == _DELIMITER:
            return True
        if tag != b"\xfe\xff\x00\xe0" or length == _EXPLICIT_LENGTH:
            return False
        at += 8 + length
    return at == len(data) and at > 0
