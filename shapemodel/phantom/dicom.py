"""CT volumes written as real DICOM series, tidy or messy, with the same bytes every time.

The volume lives in LPS with direction = identity. How it is stored (which way rows, columns and slices run,
names of files, nesting, signedness, compression) is set by :class:`DicomSettings`; the positions written keep
every voxel at its place in the patient, so all ways of storing are the same image.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from shapemodel.reasons import InputError

if TYPE_CHECKING:
    import SimpleITK as sitk
    from pydicom.dataset import Dataset
    from pydicom.uid import UID

DATE = "20200101"
"""Of every phantom study: dates of the real clock would change the bytes."""

Plane = Literal["axial", "coronal", "sagittal"]


class Person(Protocol):
    """What is read from a subject of the phantom population."""

    @property
    def subject(self) -> str: ...
    @property
    def sex(self) -> str | None: ...
    @property
    def age_years(self) -> float | None: ...
    @property
    def height_cm(self) -> float | None: ...
    @property
    def weight_kg(self) -> float | None: ...


@dataclass(frozen=True)
class DicomSettings:
    """How a series is stored.

    Attributes
    ----------
    seed : of UIDs and file names
    series : number of the series in its study; series of one subject and seed share the study UID
    plane : plane of the stored slices
    flip_columns, flip_rows : columns (rows) run against the usual direction of the plane
    descending : instance numbers count from the other end
    position : PatientPosition
    nested : files are spread over sub-folders
    signed : signed pixels and intercept 0, else unsigned and intercept -1024
    slope : rescale slope
    compressed : RLE lossless
    tilt_deg : gantry tilt: slices are stacked along z but lie inclined (the volume is sheared)
    description : SeriesDescription
    """

    seed: int = 0
    series: int = 3
    plane: Plane = "axial"
    flip_columns: bool = False
    flip_rows: bool = False
    descending: bool = False
    position: str = "HFS"
    nested: bool = False
    signed: bool = False
    slope: float = 1.0
    compressed: bool = False
    tilt_deg: float = 0.0
    description: str = "Thorax 2.0 phantom"


@dataclass(frozen=True)
class _Stack:
    """Slices of a volume as they are stored: pixels (n, rows, columns), and their geometry in LPS mm."""

    pixels: NDArray[np.int16]
    positions: NDArray[np.float64]
    along_row: NDArray[np.float64]
    along_column: NDArray[np.float64]
    spacing: tuple[float, float]
    thickness: float


def uid(*parts: object) -> UID:
    """A valid UID that follows from these parts alone."""
    from pydicom.uid import PYDICOM_ROOT_UID, generate_uid

    return generate_uid(prefix=PYDICOM_ROOT_UID, entropy_srcs=["phantom", *map(str, parts)])


def write_dicom(
    image: sitk.Image, folder: str | Path, person: Person | None = None, settings: DicomSettings | None = None
) -> list[Path]:
    """Write a volume as one DICOM CT series.

    Parameters
    ----------
    image : int16 HU, direction = identity
    folder : made if it does not exist; file names are meaningless
    person : pseudonym, sex, age, height, weight for the header
    settings : how it is stored

    Returns
    -------
    paths of the slices, in order of their position (bottom, front or right first)
    """
    settings = settings or DicomSettings()
    folder = Path(folder)
    stack = _stack(image, settings)
    base = _base(person, settings)
    stored, intercept, padding = _stored(stack.pixels, settings)
    n, paths = len(stored), []
    for k in range(n):
        ds = _copy(base)
        number = n - k if settings.descending else k + 1
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = uid(ds.SeriesInstanceUID, k)
        ds.InstanceNumber = number
        _geometry(ds, stack, k)
        _pixels(ds, stored[k], (intercept, settings.slope, padding), settings)
        name = _name(settings.seed, settings.series, k)
        where = folder / f"{int(name[:2], 16) % 4:02d}" / name[2:4] if settings.nested else folder
        paths.append(save(ds, where / (name + ("" if settings.nested else ".dcm"))))
    return paths


def save(ds: Dataset, path: Path) -> Path:
    """Write a dataset to a temporary name, then rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        ds.save_as(part, enforce_file_format=True)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _name(seed: int, *parts: object) -> str:
    return hashlib.sha1("/".join(map(str, (seed, *parts))).encode()).hexdigest()[:10].upper()


def _copy(base: Dataset) -> Dataset:
    import copy

    return copy.deepcopy(base)


def _stack(image: sitk.Image, settings: DicomSettings) -> _Stack:
    """The slices of the wanted plane, flipped as wanted, with the place of each first pixel."""
    import SimpleITK as sitk

    if image.GetDimension() != 3 or not np.allclose(image.GetDirection(), np.eye(3).ravel()):
        raise InputError("expected a 3D image in LPS with direction = identity; bring it there with read_ct")
    array = sitk.GetArrayFromImage(image)
    origin, spacing = np.array(image.GetOrigin()), np.array(image.GetSpacing())
    # world axes of (slice, row index, column index), and whether the row index usually runs against the axis
    axes = {"axial": (2, 1, 0), "coronal": (1, 2, 0), "sagittal": (0, 2, 1)}[settings.plane]
    pixels = array.transpose([2 - a for a in axes])
    steps = np.eye(3)[list(axes)] * spacing[list(axes)][:, None]
    start = origin.copy()
    against = [False, settings.flip_rows != (settings.plane != "axial"), settings.flip_columns]
    for i in (1, 2):
        if against[i]:
            start = start + steps[i] * (pixels.shape[i] - 1)
            steps[i] = -steps[i]
            pixels = np.flip(pixels, axis=i)
    positions = start + np.arange(len(pixels))[:, None] * steps[0]
    along_row, along_column = steps[2] / np.linalg.norm(steps[2]), steps[1] / np.linalg.norm(steps[1])
    if settings.tilt_deg:
        t = np.deg2rad(settings.tilt_deg)
        along_column = np.cos(t) * along_column + np.sin(t) * steps[0] / np.linalg.norm(steps[0])
    return _Stack(
        np.ascontiguousarray(pixels, np.int16),
        positions,
        along_row,
        along_column,
        (float(spacing[axes[1]]), float(spacing[axes[2]])),
        float(spacing[axes[0]]),
    )


def _base(person: Person | None, settings: DicomSettings) -> Dataset:
    """Header that all slices of the series share."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = CTImageStorage
    who = person.subject if person else "phantom"
    study = (who, settings.seed)
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    if settings.plane != "axial":
        ds.ImageType = ["DERIVED", "SECONDARY", "MPR"]
    ds.StudyDate = ds.SeriesDate = ds.ContentDate = DATE
    ds.StudyTime = ds.SeriesTime = ds.ContentTime = "120000"
    ds.AccessionNumber = ds.ReferringPhysicianName = ""
    ds.Modality, ds.Manufacturer, ds.ManufacturerModelName = "CT", "shapemodel", "phantom"
    ds.StudyDescription, ds.SeriesDescription = "Chest", settings.description
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = who, who, ""
    ds.PatientSex = (person.sex if person else None) or ""
    if person and person.age_years is not None:
        ds.PatientAge = f"{int(person.age_years):03d}Y"
    if person and person.height_cm is not None:
        ds.PatientSize = f"{person.height_cm / 100:.3f}"
    if person and person.weight_kg is not None:
        ds.PatientWeight = f"{person.weight_kg:.1f}"
    ds.BodyPartExamined, ds.KVP, ds.ConvolutionKernel = "CHEST", "120", "D40s"
    ds.GantryDetectorTilt = f"{settings.tilt_deg:g}"
    ds.PatientPosition = settings.position
    ds.StudyInstanceUID = uid(*study)
    ds.SeriesInstanceUID = uid(*study, settings.series)
    ds.FrameOfReferenceUID = uid(*study, "frame")
    ds.StudyID, ds.SeriesNumber, ds.AcquisitionNumber = "1", settings.series, 1
    ds.PositionReferenceIndicator = ""
    return ds


def _stored(pixels: NDArray[np.int16], settings: DicomSettings) -> tuple[NDArray[np.generic], float, int | None]:
    """Stored values (same shape), rescale intercept, and the stored padding value if the image is padded."""
    low = int(pixels.min())
    intercept = 0.0 if settings.signed else float(min(low, -1024))
    values = np.rint((pixels.astype(np.float64) - intercept) / settings.slope)
    padding = int(round((low - intercept) / settings.slope)) if low < -1024 else None
    return values.astype(np.int16 if settings.signed else np.uint16), intercept, padding


def _number(x: float) -> str:
    """A decimal string of at most 16 characters, as DICOM wants it."""
    for digits in range(12, 0, -1):
        text = f"{x:.{digits}g}"
        if len(text) <= 16:
            return text if float(text) != 0 else "0"
    raise InputError(f"{x} does not fit into a DICOM decimal string")


def _geometry(ds: Dataset, stack: _Stack, k: int) -> None:
    ds.ImagePositionPatient = [_number(x) for x in stack.positions[k]]
    ds.ImageOrientationPatient = [_number(x) for x in (*stack.along_row, *stack.along_column)]
    ds.PixelSpacing = [_number(x) for x in stack.spacing]
    ds.SliceThickness = _number(stack.thickness)
    ds.SliceLocation = _number(float(stack.positions[k] @ np.cross(stack.along_row, stack.along_column)))


def _pixels(
    ds: Dataset, values: NDArray[np.generic], scale: tuple[float, float, int | None], settings: DicomSettings
) -> None:
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = values.shape
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, int(settings.signed)
    intercept, slope, padding = scale
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = _number(intercept), _number(slope), "HU"
    ds.WindowCenter, ds.WindowWidth = ["50", "-600"], ["350", "1200"]
    if padding is not None:
        ds.add_new(0x00280120, "SS" if settings.signed else "US", padding)
    ds.PixelData = np.ascontiguousarray(values).tobytes()
    ds["PixelData"].VR = "OW"
    if settings.compressed:
        from pydicom.uid import RLELossless

        ds.compress(RLELossless, encoding_plugin="pydicom")
