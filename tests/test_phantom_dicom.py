"""Phantom DICOM: what is written is what GDCM reads back, voxel for voxel and in place, however it is stored."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from shapemodel.phantom import mess
from shapemodel.phantom.dicom import DicomSettings, uid, write_dicom
from shapemodel.reasons import InputError


@dataclass(frozen=True)
class Someone:
    subject: str = "phantom_F001"
    sex: str | None = "F"
    age_years: float | None = 67.4
    height_cm: float | None = 162.0
    weight_kg: float | None = 70.25


@pytest.fixture
def image() -> sitk.Image:
    rng = np.random.default_rng(0)
    im = sitk.GetImageFromArray(rng.integers(-1024, 3071, (9, 14, 11)).astype(np.int16))
    im.SetOrigin((-31.25, 12.5, -404.0))
    im.SetSpacing((0.75, 0.8, 2.5))
    return im


def by_gdcm(folder: Path) -> sitk.Image:
    """The series as ITK reads it, turned to direction = identity."""
    reader = sitk.ImageSeriesReader()
    names = [str(p) for p in sorted(folder.rglob("*")) if p.is_file()]
    names.sort(key=lambda p: _along(pydicom.dcmread(p, stop_before_pixels=True)))
    reader.SetFileNames(names)
    return sitk.DICOMOrient(reader.Execute(), "LPS")


def _along(ds: pydicom.Dataset) -> float:
    iop = np.array(ds.ImageOrientationPatient, float)
    return float(np.cross(iop[:3], iop[3:]) @ np.array(ds.ImagePositionPatient, float))


STORED = [
    DicomSettings(),
    DicomSettings(flip_columns=True),
    DicomSettings(flip_rows=True, descending=True),
    DicomSettings(flip_rows=True, flip_columns=True, position="HFP"),
    DicomSettings(signed=True, nested=True),
    DicomSettings(position="FFS", compressed=True),
    DicomSettings(plane="coronal"),
    DicomSettings(plane="sagittal", flip_columns=True),
]


@pytest.mark.parametrize("settings", STORED, ids=range(len(STORED)))
def test_read_back_is_the_same_image_however_it_is_stored(
    tmp_path: Path, image: sitk.Image, settings: DicomSettings
) -> None:
    paths = write_dicom(image, tmp_path / "study", Someone(), settings)
    assert len(paths) == {"axial": 9, "coronal": 14, "sagittal": 11}[settings.plane]
    back = by_gdcm(tmp_path / "study")
    assert np.array_equal(sitk.GetArrayFromImage(back), sitk.GetArrayFromImage(image))
    assert np.allclose(back.GetOrigin(), image.GetOrigin(), atol=1e-6)
    assert np.allclose(back.GetSpacing(), image.GetSpacing(), atol=1e-6)


def test_header_is_valid_and_says_who(tmp_path: Path, image: sitk.Image) -> None:
    paths = write_dicom(image, tmp_path, Someone(), DicomSettings(seed=4))
    ds = pydicom.dcmread(paths[2])
    assert (ds.PatientSex, ds.PatientAge, ds.PatientID) == ("F", "067Y", "phantom_F001")
    assert float(ds.PatientSize) == pytest.approx(1.62)
    assert float(ds.PatientWeight) == pytest.approx(70.2, abs=0.06)
    uids = {pydicom.dcmread(p, stop_before_pixels=True).SOPInstanceUID for p in paths}
    assert len(uids) == len(paths)
    assert all(pydicom.uid.UID(u).is_valid for u in (*uids, ds.StudyInstanceUID, ds.SeriesInstanceUID))
    names = [p.name for p in paths]
    assert names != sorted(names), "file names must not give the order of the slices away"


def test_same_bytes_twice_other_bytes_for_another_seed(tmp_path: Path, image: sitk.Image) -> None:
    def digest(folder: Path, seed: int) -> list[str]:
        paths = write_dicom(image, folder, Someone(), DicomSettings(seed=seed))
        return [p.name + hashlib.sha256(p.read_bytes()).hexdigest() for p in paths]

    assert digest(tmp_path / "a", 1) == digest(tmp_path / "b", 1)
    assert digest(tmp_path / "a", 1) != digest(tmp_path / "c", 2)
    assert uid("a", 1) == uid("a", 1) != uid("a", 2)


@pytest.mark.parametrize("signed", [True, False])
def test_padding_is_declared_in_stored_units(tmp_path: Path, image: sitk.Image, signed: bool) -> None:
    array = sitk.GetArrayFromImage(image)
    array[:, :3, :3] = -2000
    padded = sitk.GetImageFromArray(array)
    ds = pydicom.dcmread(write_dicom(padded, tmp_path, None, DicomSettings(signed=signed))[0])
    hu = ds.pixel_array.astype(float) * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
    assert hu[0, 0] == -2000
    assert ds.PixelPaddingValue == ds.pixel_array[0, 0]


def test_tilt_leans_the_slices_but_stacks_them_along_z(tmp_path: Path, image: sitk.Image) -> None:
    paths = write_dicom(image, tmp_path, None, DicomSettings(tilt_deg=12.0))
    first, last = (pydicom.dcmread(p) for p in (paths[0], paths[-1]))
    iop = np.array(first.ImageOrientationPatient, float)
    normal = np.cross(iop[:3], iop[3:])
    step = np.array(last.ImagePositionPatient, float) - np.array(first.ImagePositionPatient, float)
    angle = np.degrees(np.arccos(abs(normal @ step) / np.linalg.norm(step)))
    assert angle == pytest.approx(12.0, abs=1e-4)


def test_each_mess_does_what_it_says(tmp_path: Path, image: sitk.Image) -> None:
    paths = write_dicom(image, tmp_path / "s", Someone())
    assert not mess.remove_slice(paths, 4).exists()
    copy = mess.duplicate_slice(paths, 0)
    assert copy.read_bytes() == paths[0].read_bytes()
    size = paths[1].stat().st_size
    assert mess.truncate(paths[1]).stat().st_size == size // 2
    with pytest.raises(pydicom.errors.InvalidDicomError):
        pydicom.dcmread(mess.text_file(tmp_path))
    scout = pydicom.dcmread(mess.localizer(image, tmp_path / "s", Someone()))
    assert "LOCALIZER" in scout.ImageType
    assert scout.StudyInstanceUID == pydicom.dcmread(paths[0]).StudyInstanceUID
    for path in (mess.dose_page(tmp_path), mess.secondary_capture(image, tmp_path)):
        page = pydicom.dcmread(path)
        assert page.SOPClassUID == "1.2.840.10008.5.1.4.1.1.7"
        assert "ImagePositionPatient" not in page
    assert len(mess.lung_series(image, tmp_path / "s", Someone())) == 5


def test_messy_uids_and_sizes(tmp_path: Path, image: sitk.Image) -> None:
    a = write_dicom(image, tmp_path / "a", None, DicomSettings(seed=1))
    b = write_dicom(image, tmp_path / "b", None, DicomSettings(seed=2))
    mess.shared_uids(a, b)
    assert pydicom.dcmread(b[3]).SeriesInstanceUID == pydicom.dcmread(a[0]).SeriesInstanceUID
    mess.change_size(a, 2)
    assert pydicom.dcmread(a[2]).pixel_array.shape == (7, 11)
    mess.without_rescale(a[:1])
    assert "RescaleSlope" not in pydicom.dcmread(a[0])
    mess.with_sex(a, "O")
    assert pydicom.dcmread(a[5]).PatientSex == "O"
    mess.invalid_uids(b)
    with pydicom.config.disable_value_validation():
        ds = pydicom.dcmread(b[0])
        assert not pydicom.uid.UID(ds.StudyInstanceUID).is_valid
        assert ds.SOPInstanceUID == "1.2.3"


def test_refuses_a_volume_in_another_frame(tmp_path: Path, image: sitk.Image) -> None:
    image.SetDirection((-1, 0, 0, 0, 1, 0, 0, 0, 1))
    with pytest.raises(InputError, match="identity"):
        write_dicom(image, tmp_path)
