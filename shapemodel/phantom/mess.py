"""What real folders hold besides a good series, each fault by one function, for tests of the intake.

Functions that change a series take the paths that :func:`shapemodel.phantom.dicom.write_dicom` returned.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from shapemodel.phantom import dicom
from shapemodel.phantom.dicom import DicomSettings, Person, save, uid

if TYPE_CHECKING:
    import SimpleITK as sitk
    from pydicom.dataset import Dataset


def remove_slice(paths: Sequence[Path], index: int) -> Path:
    """Delete one slice; the series has a gap there."""
    paths[index].unlink()
    return paths[index]


def duplicate_slice(paths: Sequence[Path], index: int) -> Path:
    """The same file once more under another name."""
    copy = paths[index].with_name("COPY_OF_" + paths[index].name)
    shutil.copyfile(paths[index], copy)
    return copy


def truncate(path: Path, keep: float = 0.5) -> Path:
    """Cut a file off after a share of its bytes."""
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    return path


def text_file(folder: str | Path, name: str = "README.dcm") -> Path:
    """A text file that is called .dcm."""
    path = Path(folder) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("This is not a DICOM file.\n" * 20)
    return path


def invalid_uids(paths: Sequence[Path], instance: str = "1.2.3") -> None:
    """Study and series UIDs that are no UIDs, and one instance UID for all slices (empty: none at all)."""
    from pydicom import config

    def change(ds: Dataset) -> None:
        ds.StudyInstanceUID, ds.SeriesInstanceUID = "not-a-uid-study", "not-a-uid-series"
        ds.SOPInstanceUID = instance

    with config.disable_value_validation():
        _rewrite(paths, change)


def change_size(paths: Sequence[Path], index: int) -> None:
    """One slice has half the rows of the others."""

    def change(ds: Dataset) -> None:
        ds.Rows = int(ds.Rows) // 2
        ds.PixelData = ds.PixelData[: 2 * int(ds.Rows) * int(ds.Columns)]

    _rewrite([paths[index]], change)


def without_rescale(paths: Sequence[Path]) -> None:
    """No rescale to HU in any slice."""

    def change(ds: Dataset) -> None:
        del ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType

    _rewrite(paths, change)


def with_sex(paths: Sequence[Path], sex: str) -> None:
    """Another PatientSex, e.g. O or X."""

    def change(ds: Dataset) -> None:
        ds.PatientSex = sex

    _rewrite(paths, change)


def localizer(image: sitk.Image, folder: str | Path, person: Person | None = None, seed: int = 0) -> Path:
    """A scout view: the mean along y as one coronal image, a series of its own in the same study."""
    import SimpleITK as sitk

    array = sitk.GetArrayFromImage(image).astype(np.float64).mean(axis=1)[::-1]
    ds = _single(array.astype(np.int16), person, DicomSettings(seed=seed, series=1, description="Topogram"))
    ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    ds.ImagePositionPatient = ["-200", "0", "200"]
    ds.ImageOrientationPatient = ["1", "0", "0", "0", "0", "-1"]
    ds.PixelSpacing, ds.SliceThickness = ["1", "1"], "400"
    return save(ds, Path(folder) / f"{dicom._name(seed, 'localizer')}.dcm")


def dose_page(folder: str | Path, person: Person | None = None, seed: int = 0) -> Path:
    """A dose report as a secondary capture, with the modality CT as some scanners write it."""
    page = np.full((512, 512), -1024, np.int16)
    page[40:470:24, 40:300] = 1000
    ds = _single(page, person, DicomSettings(seed=seed, series=501, description="Patient Protocol"))
    _as_capture(ds)
    return save(ds, Path(folder) / f"{dicom._name(seed, 'dose')}.dcm")


def secondary_capture(image: sitk.Image, folder: str | Path, person: Person | None = None, seed: int = 0) -> Path:
    """A picture of the middle slice without geometry."""
    import SimpleITK as sitk

    array = sitk.GetArrayFromImage(image)
    middle: NDArray[np.int16] = array[len(array) // 2]
    ds = _single(middle, person, DicomSettings(seed=seed, series=502, description="Screenshot"))
    _as_capture(ds)
    return save(ds, Path(folder) / f"{dicom._name(seed, 'capture')}.dcm")


def lung_series(image: sitk.Image, folder: str | Path, person: Person | None = None, seed: int = 0) -> list[Path]:
    """A second, thicker series of the same study: every other slice, 4 mm when the first has 2."""
    settings = DicomSettings(seed=seed, series=7, description="Lung 4.0")
    return dicom.write_dicom(image[:, :, ::2], folder, person, settings)


def shared_uids(paths_a: Sequence[Path], paths_b: Sequence[Path]) -> None:
    """Two different series with one SeriesInstanceUID and one StudyInstanceUID."""
    import pydicom

    first = pydicom.dcmread(paths_a[0], stop_before_pixels=True)

    def change(ds: Dataset) -> None:
        ds.StudyInstanceUID, ds.SeriesInstanceUID = first.StudyInstanceUID, first.SeriesInstanceUID

    _rewrite(paths_b, change)


def _rewrite(paths: Sequence[Path], change: Callable[[Dataset], None]) -> None:
    import pydicom

    for path in paths:
        ds = pydicom.dcmread(path)
        change(ds)
        save(ds, Path(path))


def _single(pixels: NDArray[np.int16], person: Person | None, settings: DicomSettings) -> Dataset:
    ds = dicom._base(person, settings)
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = uid(ds.SeriesInstanceUID, "single")
    ds.InstanceNumber = 1
    stored, intercept, padding = dicom._stored(pixels, replace(settings, signed=False))
    dicom._pixels(ds, stored, (intercept, 1.0, padding), settings)
    return ds


def _as_capture(ds: Dataset) -> None:
    from pydicom.uid import SecondaryCaptureImageStorage

    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = SecondaryCaptureImageStorage
    ds.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    ds.ConversionType = "WSD"
    for name in ("FrameOfReferenceUID", "PositionReferenceIndicator"):
        if name in ds:
            delattr(ds, name)
