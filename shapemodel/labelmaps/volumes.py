"""Label maps as NIfTI, NRRD, MetaImage and NumPy files.

NIfTI stores positions in single precision. What this project writes carries its exact origin and spacing in
the description field too, and a file that still agrees with them is read back to the last bit.
"""

from __future__ import annotations

import base64
import errno
import io
import logging
import os
import shutil
import struct
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from shapemodel.files import replacing
from shapemodel.labelmaps.schemes import LAST_BONE, our_number, to_ours
from shapemodel.reasons import InputError, StudyError
from shapemodel.study.geometry import to_axial
from shapemodel.study.volume import load_volume, nifti_length

log = logging.getLogger(__name__)

_MARK = "shapemodel:"
_EXACT = struct.Struct("<6d")
_NEAR_MM = 1e-3
"""NIfTI's rounding is below this; a larger difference means that somebody moved the image since."""

NIFTI = (".nii", ".nii.gz")


def load(path: Path) -> sitk.Image:
    """A 3D label image as stored, whole numbers, in its stored orientation and scheme, as int32."""
    try:
        image = load_volume(path)
    except StudyError as e:
        raise StudyError("bad_labels", str(e)) from e
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise StudyError("bad_labels", f"{path}: expected one label a voxel, found several")
    values = sitk.GetArrayViewFromImage(image)
    if values.dtype.kind == "f" and not (np.isfinite(values).all() and (values == np.rint(values)).all()):
        raise StudyError("bad_labels", f"{path}: expected whole label numbers, found fractions")
    _restore_exact(image)
    return image if values.dtype.kind != "f" else sitk.Cast(image, sitk.sitkInt32)


def _restore_exact(image: sitk.Image) -> None:
    note = image.GetMetaData("descrip") if image.HasMetaDataKey("descrip") else ""
    if not note.startswith(_MARK):
        return
    numbers = _EXACT.unpack(base64.b64decode(note[len(_MARK) :]))
    stored = (*image.GetOrigin(), *image.GetSpacing())
    if np.allclose(numbers, stored, rtol=0, atol=_NEAR_MM) and np.allclose(image.GetDirection(), np.eye(3).ravel()):
        image.SetOrigin(numbers[:3])
        image.SetSpacing(numbers[3:])
        image.SetDirection(np.eye(3).ravel().tolist())


def translate(image: sitk.Image, table: NDArray[np.int16], what: str) -> sitk.Image:
    """Our numbers, uint8, axial LPS; ``table`` as from :func:`shapemodel.labelmaps.schemes.table_of`."""
    ours = sitk.GetImageFromArray(to_ours(sitk.GetArrayViewFromImage(image), table, what))
    ours.CopyInformation(image)
    return to_axial(ours, outside=0, labels=True)


def read_masks(folder: Path) -> sitk.Image:
    """A folder of one mask a structure, ``rib_left_7.nii.gz`` and so on, as one axial map with our numbers."""
    files = sorted(p for p in folder.iterdir() if p.name.lower().endswith((*NIFTI, ".nrrd", ".mha")))
    known = [(p, our_number(p.name.split(".")[0])) for p in files]
    unknown = [p.name for p, number in known if number is None]
    if unknown:
        log.info("%s: %d masks of other structures are not used", folder.name, len(unknown))
    parts = [(p, number) for p, number in known if number]
    if not parts:
        raise StudyError("bad_labels", f"{folder}: expected masks such as rib_left_7.nii.gz, found {len(files)} others")
    parts.sort(key=lambda p: (p[1] <= LAST_BONE, p[0].name))  # bones of the model win where masks overlap
    first = load(parts[0][0])
    whole = np.zeros(first.GetSize()[::-1], np.uint8)
    for path, number in parts:
        image = load(path)
        if not same_grid(image, first):
            raise StudyError("bad_labels", f"{path}: expected the grid of the folder's other masks, found another")
        whole[sitk.GetArrayViewFromImage(image) != 0] = number
    result = sitk.GetImageFromArray(whole)
    result.CopyInformation(first)
    return to_axial(result, outside=0, labels=True)


def same_grid(a: sitk.Image, b: sitk.Image) -> bool:
    """Do two images have the same voxels, to :data:`_NEAR_MM` and a part in 100,000 of spacing and direction?"""
    return (
        a.GetSize() == b.GetSize()
        and np.allclose(a.GetSpacing(), b.GetSpacing(), rtol=1e-5, atol=0)
        and np.allclose(a.GetOrigin(), b.GetOrigin(), rtol=0, atol=_NEAR_MM)
        and np.allclose(a.GetDirection(), b.GetDirection(), rtol=0, atol=1e-5)
    )


def write_volume(image: sitk.Image, path: Path) -> Path:
    """Write .nii, .nii.gz, .nrrd or .mha."""
    image = sitk.Image(image)
    for key in image.GetMetaDataKeys():
        image.EraseMetaData(key)
    if path.name.lower().endswith(NIFTI):
        exact = base64.b64encode(_EXACT.pack(*image.GetOrigin(), *image.GetSpacing())).decode()
        image.SetMetaData("ITK_FileNotes", _MARK + exact)
    with replacing(path) as part:
        write_image(image, part)
    return path


def write_image(image: sitk.Image, path: Path) -> None:
    """Write an image compressed; OSError when the disk is full, which ITK says in other ways or not at all."""
    error: RuntimeError | None = None
    try:
        sitk.WriteImage(image, str(path), useCompression=True)
    except RuntimeError as e:
        error = e
    needed = sitk.GetArrayViewFromImage(image).nbytes
    whole = error is None
    if whole and path.name.lower().endswith(NIFTI):
        whole = nifti_length(path, needed) >= needed % 2**32
    if whole:
        return
    if shutil.disk_usage(path.parent).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
    raise error or OSError(errno.EIO, "the file was written only in part", str(path))


def write_numpy(image: sitk.Image, path: Path, *, mask: bool) -> Path:
    """(Z, Y, X) uint8 label numbers, or bool with ``mask``; .npz adds ``origin``, ``spacing`` (3,) mm."""
    array = sitk.GetArrayFromImage(image)
    array = array != 0 if mask else array
    buffer = io.BytesIO()  # NumPy's own file writing loses the error number of a full disk
    if path.suffix == ".npy":
        np.save(buffer, array)
    else:
        origin, spacing = np.array(image.GetOrigin()), np.array(image.GetSpacing())
        np.savez_compressed(buffer, labels=array, origin=origin, spacing=spacing)
    with replacing(path) as part:
        part.write_bytes(buffer.getbuffer())
    return path


def read_numpy(path: Path, reference: sitk.Image | None) -> sitk.Image:
    """What :func:`write_numpy` wrote; a bare .npy has no geometry and needs the CT as ``reference``."""
    try:
        loaded = np.load(path, allow_pickle=False)
        array = loaded["labels"] if path.suffix == ".npz" else loaded
    except (ValueError, KeyError, OSError, EOFError) as e:
        raise StudyError("bad_labels", f"{path}: expected an array of labels ({e})") from e
    if array.ndim != 3 or array.dtype.kind not in "ui":
        raise StudyError("bad_labels", f"{path}: expected (Z, Y, X) label numbers, found {array.dtype} {array.shape}")
    image = sitk.GetImageFromArray(np.ascontiguousarray(array))
    if path.suffix == ".npz":
        image.SetOrigin(loaded["origin"].tolist())
        image.SetSpacing(loaded["spacing"].tolist())
    elif reference is None:
        raise InputError(f"{path}: a .npy has no geometry: give the CT that it belongs to")
    elif reference.GetSize() != image.GetSize():
        raise StudyError("bad_labels", f"{path}: expected the CT's size {reference.GetSize()}, found {image.GetSize()}")
    else:
        image.CopyInformation(reference)
    return image
