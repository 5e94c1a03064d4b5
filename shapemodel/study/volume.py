"""A DICOM series or a volume file -> CT in Hounsfield units, axial LPS, int16.

Pixels are decoded by SimpleITK (GDCM), which knows JPEG Lossless, JPEG-LS, JPEG 2000 and RLE.
"""

from __future__ import annotations

import gzip
import logging
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from shapemodel.reasons import InputError, StudyError
from shapemodel.study.choose import choose_series
from shapemodel.study.dicom import Series, check_limits, group_series
from shapemodel.study.geometry import AIR_HU, to_axial
from shapemodel.study.headers import looks_like_dicom, pixel_bytes, read_slice

log = logging.getLogger(__name__)

VOLUME_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")

MAX_AIR_HU = -200
"""A chest CT holds lungs and the air around the patient: a volume whose least value is above this is not in HU."""

MAX_HU = 32767

BACKGROUND_LIMIT_HU = -500
"""A padding value above this would pass for tissue, so those voxels are set to air one by one."""


def is_volume_file(path: Path) -> bool:
    """By name: NIfTI, NRRD or MetaImage, but not a segmentation (.seg.nrrd)."""
    name = path.name.lower()
    return name.endswith(VOLUME_SUFFIXES) and not name.endswith(".seg.nrrd")


def walk(root: Path) -> Iterator[Path]:
    """Files below a folder (or the file itself), hidden ones left out, in the order of their names."""
    if root.is_file():
        yield root
        return
    for folder, inner, files in os.walk(root):
        inner[:] = sorted(d for d in inner if not d.startswith("."))
        yield from (Path(folder) / name for name in sorted(files) if not name.startswith("."))


def read_ct(path: str | Path, series: str | None = None) -> sitk.Image:
    """Read a CT.

    Parameters
    ----------
    path : folder with DICOM files in any order and nesting, one DICOM file (its series is read, from its folder),
        or a NIfTI, NRRD or MHA volume
    series : hash of the series to read (column ``series`` of the manifest); without it the best one is chosen

    Returns
    -------
    image : int16 Hounsfield units, 3D, direction = identity (LPS, mm): axes may have been exchanged and turned,
        voxels have not been interpolated unless metadata ``shapemodel.resampled`` says so. Values below -1024
        and padding outside the reconstruction are -1024.

    Raises
    ------
    StudyError
        with a reason code when the scan is unfit
    InputError
        when there is no such path or series, or the folder holds several studies and no series is named
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if path.is_file() and is_volume_file(path):
        return read_volume(path)
    found = group_series(read_slice(f) for f in _dicom_files(path))
    if path.is_file():
        found = [s for s in found if any(s2.path == path for s2 in s.slices)]
    if series is not None:
        named = [s for s in found if s.hash == series]
        if not named:
            raise InputError(f"{path}: expected a series {series}, found {', '.join(s.hash for s in found)}")
        found = named[:1]
    owners = {(s.first.patient, s.first.study) for s in found if not s.reason}
    if len(owners) > 1:
        raise InputError(f"{path}: holds {len(owners)} studies: name one series of {[s.hash for s in found]}")
    best, _ = choose_series(found)
    if best.reason:
        raise StudyError(best.reason, f"{path}: {best.message}")
    return decode(best)


def _dicom_files(path: Path) -> list[Path]:
    files = list(walk(path.parent if path.is_file() else path))
    if path.is_file():
        files = [f for f in files if f.parent == path.parent]
    found = [f for f in files if looks_like_dicom(f)]
    if path.is_file() and path not in found:
        raise StudyError("not_dicom", f"{path}: expected DICOM, NIfTI, NRRD or MHA, found something else")
    if not found:
        code = "not_dicom" if files else "no_images"
        raise StudyError(code, f"{path}: expected DICOM files, found {len(files)} file(s) of other kinds")
    return found


def decode(series: Series) -> sitk.Image:
    """Pixels of a usable series as an axial int16 image in HU; see :func:`read_ct`."""
    if series.stack is None or series.reason:
        raise StudyError(series.reason or "not_volume", series.message or "the series is not a volume")
    columns, rows, n = series.size
    voxels = np.empty((n, rows, columns), np.int16)
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    for k, s in enumerate(series.slices):
        pixel_bytes(s.path)
        frames = _decode_file(reader, s.path)
        if frames.shape[1:] != (rows, columns):
            raise StudyError("mixed_geometry", f"{s.path.name}: expected {rows} x {columns}, found {frames.shape}")
        if s.frames > 1:
            frames = frames[list(series.stack.order)]
        padding = None if s.padding is None else s.padding * (s.slope or 1.0) + (s.intercept or 0.0)
        _into_hu(voxels if s.frames > 1 else voxels[k : k + 1], frames, padding)
    check_hounsfield(voxels, str(series.path))
    image = sitk.GetImageFromArray(voxels)
    image.SetOrigin(series.stack.origin.tolist())
    image.SetSpacing(series.stack.spacing.tolist())
    image.SetDirection(series.stack.direction.ravel().tolist())
    return to_axial(image)


def _decode_file(reader: sitk.ImageFileReader, path: Path) -> NDArray[np.generic]:
    reader.SetFileName(str(path))
    try:
        image = reader.Execute()
    except RuntimeError as e:
        raise StudyError("truncated", f"{path.name}: its pixels cannot be decoded ({_last_line(e)})") from e
    frames = sitk.GetArrayFromImage(image)
    return frames if frames.ndim == 3 else frames[None]


def _last_line(error: RuntimeError) -> str:
    return str(error).strip().splitlines()[-1].strip()[:200]


def _into_hu(out: NDArray[np.int16], values: NDArray[np.generic], padding: float | None) -> None:
    """Write values in HU into ``out``: rounded, at least -1024, padding as air."""
    if values.dtype.kind == "f":
        values = np.rint(values)
    clipped = np.clip(values, AIR_HU, MAX_HU)
    if padding is not None and padding > BACKGROUND_LIMIT_HU:
        clipped = np.where(values == round(padding), AIR_HU, clipped)
    out[:] = clipped


def check_hounsfield(voxels: NDArray[np.generic], name: str) -> None:
    """StudyError ``bad_rescale`` unless the values can be HU of a chest."""
    least = voxels.min()
    if least > MAX_AIR_HU:
        raise StudyError(
            "bad_rescale",
            f"{name}: expected air near -1000 HU, found no value below {float(least):.0f}: "
            "export it again with its rescale slope and intercept",
        )


def read_volume(path: Path) -> sitk.Image:
    """A NIfTI, NRRD or MHA file as an axial int16 image in HU; see :func:`read_ct`."""
    image = load_volume(path)
    if image.GetNumberOfComponentsPerPixel() != 1 or image.GetPixelID() in (sitk.sitkUInt8, sitk.sitkInt8):
        raise StudyError("not_ct", f"{path.name}: expected CT values, found {image.GetPixelIDTypeAsString()}")
    if image.GetPixelID() != sitk.sitkInt16:
        values = sitk.GetArrayViewFromImage(image)
        if not np.isfinite(values).all():
            raise StudyError("bad_rescale", f"{path.name}: expected numbers, found some that are not finite")
    voxels = np.empty(image.GetSize()[::-1], np.int16)
    _into_hu(voxels, sitk.GetArrayViewFromImage(image), None)
    check_hounsfield(voxels, path.name)
    result = sitk.GetImageFromArray(voxels)
    result.CopyInformation(image)
    result = to_axial(result)
    check_limits(result.GetSpacing(), result.GetSize()[2] * result.GetSpacing()[2])
    return result


def load_volume(path: Path) -> sitk.Image:
    """The image as stored, 3D. StudyError ``not_dicom``, ``truncated``, ``sheared`` or ``not_volume``."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    code = "not_dicom"
    try:
        reader.ReadImageInformation()
        code = "truncated"
        if path.name.lower().endswith((".nii", ".nii.gz")):
            _check_nifti_length(path, reader)
        image = reader.Execute()
    except RuntimeError as e:
        code = "sheared" if "orthonormal" in str(e).lower() else code
        raise StudyError(code, f"{path.name}: cannot be read ({_last_line(e)})") from e
    while image.GetDimension() > 3 and image.GetSize()[-1] == 1:
        image = image[..., 0]
    if image.GetDimension() != 3 or min(image.GetSize()) < 2:
        raise StudyError("not_volume", f"{path.name}: expected a 3D volume, found size {image.GetSize()}")
    return image


def _check_nifti_length(path: Path, reader: sitk.ImageFileReader) -> None:
    """ITK fills what a truncated NIfTI lacks with zeros; the length tells (of a .gz, its trailer says it)."""
    bits = {sitk.sitkUInt8: 8, sitk.sitkInt8: 8, sitk.sitkInt16: 16, sitk.sitkUInt16: 16, sitk.sitkFloat64: 64}
    needed = int(np.prod(reader.GetSize())) * bits.get(reader.GetPixelID(), 32) // 8
    length = nifti_length(path, needed)
    if length < needed % 2**32:
        raise StudyError("truncated", f"{path.name}: expected {needed} bytes of voxels, found {length}: copy it again")


def nifti_length(path: Path, needed: int) -> int:
    """Bytes in a NIfTI file that should hold ``needed`` bytes of voxels, modulo 2**32 when it is compressed."""
    if path.stat().st_size < _GZIP_LEAST:
        return 0
    if path.suffix.lower() == ".gz":
        with path.open("rb") as f:
            f.seek(-4, os.SEEK_END)
            length = int.from_bytes(f.read(4), "little")
        return length if 0 <= length - needed % 2**32 <= _NIFTI_HEADER_LIMIT else _unzipped_length(path)
    return path.stat().st_size


_GZIP_LEAST = 18
_NIFTI_HEADER_LIMIT = 1 << 20
"""A NIfTI header with its extensions is smaller than this."""


def _unzipped_length(path: Path) -> int:
    """Bytes in a .gz of unusual make, or how many could be had of a broken one."""
    length = 0
    try:
        with gzip.open(path) as f:
            while block := f.read(1 << 22):
                length += len(block)
    except (EOFError, OSError, zlib.error):
        return 0
    return length
