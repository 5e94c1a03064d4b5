"""Small DICOM series with every fault that real ones have, for the tests of the intake."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RLELossless, generate_uid

SHAPE = (64, 24, 32)
SPACING = (1.5, 1.25, 2.0)
ORIGIN = (-20.5, -140.25, -310.1)
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def body(seed: int = 1) -> np.ndarray:
    """(64, 24, 32) int16 HU: air, noise, and a bright block at the patient's left front top."""
    hu = np.random.default_rng(seed).integers(-900, 400, SHAPE).astype(np.int16)
    hu[48:56, 4:8, 24:28] = 1000
    return hu


@dataclass
class Files:
    """How a series is written; ``tags`` go into every slice, ``per_slice`` into single ones."""

    origin: tuple[float, float, float] = ORIGIN
    spacing: tuple[float, float, float] = SPACING
    orientation: tuple[float, ...] = AXIAL
    step: tuple[float, float, float] | None = None
    study: str = "1.2.826.0.1.3680043.8.498.11111111111111111"
    series: str = "1.2.826.0.1.3680043.8.498.22222222222222222"
    patient: str = "SMITH-4711"
    slope: float | None = 1.0
    intercept: float | None = -1024.0
    name: str = "IM{:04d}.dcm"
    compressed: bool = False
    seed: int = 0
    tags: dict[str, Any] = field(default_factory=dict)
    per_slice: dict[int, dict[str, Any]] = field(default_factory=dict)


def write_series(folder: Path, stored_hu: np.ndarray, how: Files | None = None) -> list[Path]:
    """Write (slices, rows, columns) of HU, slice k at origin + k * step, under shuffled names and numbers."""
    how = how or Files()
    folder.mkdir(parents=True, exist_ok=True)
    row, column = np.array(how.orientation).reshape(2, 3)
    step = np.array(how.step) if how.step else np.cross(row, column) * how.spacing[2]
    order = np.random.default_rng(how.seed).permutation(len(stored_hu))
    paths = []
    for k, pixels in enumerate(stored_hu):
        ds = _slice(how, int(order[k]))
        ds.ImagePositionPatient = [float(x) for x in np.round(np.array(how.origin) + k * step, 6)]
        slope, intercept = how.slope or 1.0, how.intercept or 0.0
        values = np.rint((pixels.astype(float) - intercept) / slope)
        ds.Rows, ds.Columns = pixels.shape
        ds.PixelData = values.astype("<i2" if ds.PixelRepresentation else "<u2").tobytes()
        with disable_value_validation():
            for key, value in {**how.tags, **how.per_slice.get(k, {})}.items():
                setattr(ds, key, value)
        if how.compressed:
            ds.compress(RLELossless, generate_instance_uid=False)
        paths.append(folder / how.name.format(int(order[k])))
        with disable_value_validation():
            ds.save_as(paths[-1], enforce_file_format=True)
    return paths


def _slice(how: Files, number: int) -> FileDataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[how.series, str(number)])
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    with disable_value_validation():
        ds.StudyInstanceUID, ds.SeriesInstanceUID = how.study, how.series
    ds.Modality, ds.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.PatientID, ds.PatientName, ds.PatientSex, ds.PatientAge = how.patient, "Smith^Jo", "F", "061Y"
    ds.PatientPosition, ds.InstanceNumber, ds.SliceThickness = "HFS", number + 1, how.spacing[2]
    ds.ImageOrientationPatient = list(how.orientation)
    ds.PixelSpacing = [how.spacing[1], how.spacing[0]]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    if how.slope is not None:
        ds.RescaleSlope = how.slope
    if how.intercept is not None:
        ds.RescaleIntercept = how.intercept
    return ds


def write_enhanced(path: Path, hu: np.ndarray, order: np.ndarray) -> Path:
    """One multi-frame Enhanced CT file with its frames in the given order."""
    how = Files()
    ds = _slice(how, 0)
    for key in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"):
        if key in ds:
            delattr(ds, key)
    enhanced = "1.2.840.10008.5.1.4.1.1.2.1"
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = enhanced
    ds.Rows, ds.Columns, ds.NumberOfFrames = hu.shape[1], hu.shape[2], len(hu)
    shared = Dataset()
    shared.PlaneOrientationSequence = [_with(ImageOrientationPatient=list(AXIAL))]
    shared.PixelMeasuresSequence = [_with(PixelSpacing=[SPACING[1], SPACING[0]], SliceThickness=SPACING[2])]
    shared.PixelValueTransformationSequence = [_with(RescaleSlope=1, RescaleIntercept=-1024, RescaleType="HU")]
    ds.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for k in order:
        frame = Dataset()
        place = [ORIGIN[0], ORIGIN[1], round(ORIGIN[2] + int(k) * SPACING[2], 6)]
        frame.PlanePositionSequence = [_with(ImagePositionPatient=place)]
        frames.append(frame)
    ds.PerFrameFunctionalGroupsSequence = frames
    ds.PixelData = (hu[order].astype(int) + 1024).astype("<u2").tobytes()
    ds.save_as(path, enforce_file_format=True)
    return path


def _with(**tags: Any) -> Dataset:
    ds = Dataset()
    for key, value in tags.items():
        setattr(ds, key, value)
    return ds


def write_other(path: Path, *, sop_class: str, modality: str, how: Files | None = None, **tags: Any) -> Path:
    """A DICOM object that is no CT slice: a dose report, a secondary capture ..."""
    how = how or Files()
    ds = _slice(how, 999)
    for key in ("ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"):
        delattr(ds, key)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = sop_class
    ds.Modality, ds.SeriesInstanceUID = modality, generate_uid(entropy_srcs=[str(path)])
    for key, value in tags.items():
        setattr(ds, key, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path


def retag(path: Path, **tags: Any) -> None:
    """Change tags of a file in place."""
    with disable_value_validation():
        ds = pydicom.dcmread(path)
        for key, value in tags.items():
            setattr(ds, key, value)
        ds.save_as(path)


def compress_like_a_scanner(paths: list[Path], compressor: str) -> str:
    """Store the pixels of files as JPEG Lossless (``JPEG``) or JPEG 2000; the name of the transfer syntax."""
    import SimpleITK as sitk

    for path in paths:
        ds = pydicom.dcmread(path)
        stored = np.frombuffer(ds.PixelData, "<u2").reshape(ds.Rows, ds.Columns)
        writer = sitk.ImageFileWriter()
        writer.SetFileName(str(path.with_suffix(".tmp.dcm")))
        writer.SetImageIO("GDCMImageIO")
        writer.SetUseCompression(True)
        writer.SetCompressor(compressor)
        writer.Execute(sitk.GetImageFromArray(stored[None]))
        packed = pydicom.dcmread(path.with_suffix(".tmp.dcm"))
        path.with_suffix(".tmp.dcm").unlink()
        assert packed.file_meta.TransferSyntaxUID.is_compressed
        ds.file_meta.TransferSyntaxUID = packed.file_meta.TransferSyntaxUID
        ds.PixelData = packed.PixelData
        ds["PixelData"].VR = "OB"
        ds["PixelData"].is_undefined_length = True
        ds.save_as(path)
    return str(packed.file_meta.TransferSyntaxUID.name)
