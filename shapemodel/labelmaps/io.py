"""Reading a label map of a stated scheme, and writing ours, by the ending of the file's name."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from shapemodel.labelmaps.schemes import OUR_LABELS, SCHEMES, check_order, present, table_of
from shapemodel.labelmaps.slicer import read_seg_nrrd, write_seg_nrrd
from shapemodel.labelmaps.volumes import load, read_masks, read_numpy, same_grid, translate, write_numpy, write_volume
from shapemodel.mesh import Mesh
from shapemodel.reasons import InputError, StudyError
from shapemodel.study.geometry import RESAMPLED, require_axial, to_axial

log = logging.getLogger(__name__)

ENDINGS = (".nii.gz", ".nii", ".seg.nrrd", ".nrrd", ".mha", ".npy", ".npz", ".dcm", ".mrb")
_VOLUMES = (".nii.gz", ".nii", ".nrrd", ".mha", ".nhdr", ".mhd")
_ON_GRID = 1e-3
"""In voxels: a map that lies this near to the CT's grid is moved by whole voxels, not interpolated."""


def ending_of(path: Path) -> str:
    """The known ending of a path, lower case; its last suffix when it is none of them, empty for a folder."""
    name = path.name.lower()
    return next((e for e in ENDINGS if name.endswith(e)), path.suffix.lower())


def read_labels(path: str | Path, scheme: str, reference: sitk.Image | None = None) -> sitk.Image:
    """Read a label map as ours.

    Parameters
    ----------
    path : a multi-label volume, a .seg.nrrd, .npy or .npz, a DICOM SEG (file, or folder with one), or a folder of
        masks (TotalSegmentator)
    scheme : whose numbers or names it uses, one of :data:`SCHEMES`; never guessed
    reference : the CT (axial LPS). The result then lies on its grid: moved by whole voxels where the grids agree,
        otherwise resampled (nearest neighbour), which is logged and noted in metadata ``shapemodel.resampled``

    Returns
    -------
    labels : uint8 image, our label numbers, direction = identity (LPS, mm)

    Raises
    ------
    StudyError
        ``bad_labels`` when the map does not hold what its scheme promises, ``mirrored`` when sides are exchanged
    InputError
        unknown scheme, no such file, or a kind of file that the scheme does not use
    """
    path = Path(path)
    if scheme not in SCHEMES:
        raise InputError(f"labels_scheme: expected one of {', '.join(SCHEMES)}, found {scheme!r}")
    if not path.exists():
        raise InputError(f"{path}: no such label map")
    image = _read(path, scheme, reference)
    if scheme.startswith("totalsegmentator"):
        check_order(sitk.GetArrayViewFromImage(image), image.GetSpacing()[2], str(path))
    return image if reference is None else onto(image, reference)


def _read(path: Path, scheme: str, reference: sitk.Image | None) -> sitk.Image:
    ending = ending_of(path)
    if scheme == "slicer":
        if ending != ".seg.nrrd":
            raise InputError(f"{path}: expected a .seg.nrrd for the scheme slicer")
        return read_seg_nrrd(path)
    if scheme == "dicom-seg":
        from shapemodel.labelmaps.seg import read_dicom_seg

        return read_dicom_seg(path)
    if path.is_dir():
        if not scheme.startswith("totalsegmentator"):
            raise InputError(f"{path}: expected a file for the scheme {scheme}, found a folder")
        return read_masks(path)
    if ending in (".npy", ".npz"):
        return translate(read_numpy(path, reference), table_of(scheme), str(path))
    if ending == ".seg.nrrd" and scheme == "shapemodel":
        return read_seg_nrrd(path)
    if ending not in _VOLUMES:
        raise InputError(f"{path}: expected {', '.join(_VOLUMES)}, .seg.nrrd, .npy or .npz, found {ending or 'none'}")
    return translate(load(path), table_of(scheme), str(path))


def onto(labels: sitk.Image, reference: sitk.Image) -> sitk.Image:
    """A label map on the grid of a CT, both axial LPS; see :func:`read_labels`."""
    require_axial(reference)
    if same_grid(labels, reference):
        labels = sitk.Image(labels)
        labels.CopyInformation(reference)
        return labels
    spacing = np.array(reference.GetSpacing())
    offset = (np.array(labels.GetOrigin()) - np.array(reference.GetOrigin())) / spacing
    whole = np.rint(offset).astype(int)
    if np.allclose(labels.GetSpacing(), spacing, rtol=1e-5) and np.abs(offset - whole).max() < _ON_GRID:
        return _shifted(labels, reference, whole)
    result = sitk.Resample(labels, reference, sitk.Transform(), sitk.sitkNearestNeighbor, 0.0)
    note = f"nearest neighbour from {labels.GetSize()} at {labels.GetSpacing()} mm onto the CT's grid"
    log.warning("label map does not lie on the CT's grid: resampled, %s", note)
    result.SetMetaData(RESAMPLED, note)
    return result


def _shifted(labels: sitk.Image, reference: sitk.Image, offset: np.ndarray) -> sitk.Image:
    out = np.zeros(reference.GetSize()[::-1], np.uint8)
    source = sitk.GetArrayViewFromImage(labels)
    low = np.maximum(offset[::-1], 0)
    high = np.minimum(offset[::-1] + source.shape, out.shape)
    if (high <= low).any():
        raise StudyError("bad_labels", "expected a label map within the CT, found one that lies outside it")
    start, stop = low - offset[::-1], high - offset[::-1]
    cut = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    if np.count_nonzero(source) != np.count_nonzero(source[cut]):
        log.warning("label map reaches beyond the CT: what lies outside is dropped")
    out[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = source[cut]
    result = sitk.GetImageFromArray(out)
    result.CopyInformation(reference)
    return result


def write_labels(
    image: sitk.Image,
    path: str | Path,
    *,
    mask: bool = False,
    subject: str = "subject",
    ct: sitk.Image | None = None,
    mesh: Mesh | None = None,
) -> Path:
    """Write a label map in the format that the ending of ``path`` names.

    ``.nii.gz``, ``.nii``, ``.nrrd``, ``.mha``; ``.seg.nrrd`` with names and colours for 3D Slicer; ``.npy`` (no
    geometry) and ``.npz`` (with ``mask``: bone or not, bool); ``.dcm``, or a folder (no ending), for DICOM SEG with
    ``subject`` as its patient; ``.mrb`` for a Slicer scene, with ``ct`` and surfaces (``mesh``) if they are given.

    Parameters
    ----------
    image : our label numbers, direction = identity (LPS, mm); stored as uint8

    Raises
    ------
    InputError
        another ending
    ValueError
        numbers that are not ours
    """
    path = Path(path)
    require_axial(image)
    if image.GetPixelID() != sitk.sitkUInt8:
        image = sitk.Cast(image, sitk.sitkUInt8)
    strange = set(present(sitk.GetArrayViewFromImage(image))) - set(OUR_LABELS)
    if strange:
        raise ValueError(f"expected the label numbers of the vocabulary, found {sorted(strange)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    ending = ending_of(path)
    if mask and ending not in (".npy", ".npz"):
        raise InputError(f"{path}: a mask is written as .npy or .npz")
    if ending in (".npy", ".npz"):
        return write_numpy(image, path, mask=mask)
    if ending == ".seg.nrrd":
        return write_seg_nrrd(image, path)
    if ending in (".dcm", ""):
        from shapemodel.labelmaps.seg import write_dicom_seg

        return write_dicom_seg(image, path, subject=subject)
    if ending == ".mrb":
        from shapemodel.labelmaps.scene import write_scene

        return write_scene(path, ct=ct, labels=image, mesh=mesh)
    if ending in _VOLUMES[:4]:
        return write_volume(image, path)
    raise InputError(f"{path}: expected one of {', '.join(ENDINGS)} or a folder for DICOM SEG, found {ending}")


__all__ = ["ending_of", "onto", "read_labels", "to_axial", "write_labels"]
