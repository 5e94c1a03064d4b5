"""DICOM SEG: one binary segment a bone, with coded anatomy, and nothing that names a person.

Real UIDs may be invalid or identifying, so every UID is derived: the same labels, geometry and subject give the
same file, byte for byte. The segmentation has a study and a frame of reference of its own; it lies in the same
patient coordinates as the CT. A private block keeps the whole grid and its exact numbers, since DICOM leaves
out empty frames and rounds decimals.
"""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from shapemodel.anatomy import bone
from shapemodel.files import replacing
from shapemodel.labelmaps.codes import CATEGORY, SCHEME, SIDES, coded
from shapemodel.labelmaps.schemes import LAST_BONE, OUR_LABELS, our_number, present
from shapemodel.reasons import InputError, StudyError
from shapemodel.study.geometry import to_axial

SEG_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_CREATOR, _GROUP = "shapemodel grid", 0x0071
_UNDATED, _MIDNIGHT = "19000101", "000000"
"""The standard wants a date; the real one stays out."""
_ON_GRID = 1e-3


def write_dicom_seg(image: sitk.Image, path: Path, *, subject: str) -> Path:
    """Write a DICOM SEG: to ``path`` when it ends in .dcm, else to ``labels.dcm`` in that folder.

    ``image`` is uint8 with our numbers, axial LPS; at least one label.
    """
    target = path if path.suffix.lower() == ".dcm" else path / "labels.dcm"
    values = sitk.GetArrayViewFromImage(image)
    labels = present(values)
    if not labels:
        raise InputError(f"{path}: expected at least one label, found an empty map")
    target.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # highdicom warns of what it cannot know of derived sources
        ds = _segmentation(image, values, labels, subject)
        with replacing(target) as part:
            ds.save_as(part, enforce_file_format=True)
    return path


def _uid(key: str, *what: str) -> str:
    return str(generate_uid(entropy_srcs=["shapemodel", key, *what]))


def _segmentation(image: sitk.Image, values: NDArray[np.uint8], labels: list[int], subject: str) -> Dataset:
    import highdicom as hd

    from shapemodel import __version__

    grid = (*image.GetOrigin(), *image.GetSpacing())
    digest = hashlib.sha256(np.array(grid).tobytes() + np.ascontiguousarray(values).tobytes())
    key = hashlib.sha256(f"{subject}|{digest.hexdigest()}".encode()).hexdigest()
    numbers = np.zeros(256, np.uint8)
    numbers[labels] = np.arange(1, len(labels) + 1)
    ds: Any = hd.seg.Segmentation(
        source_images=_sources(image, key, subject),
        pixel_array=numbers[values],
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_description(i, k, key) for i, k in enumerate(labels, start=1)],
        series_instance_uid=_uid(key, "segmentation series"),
        series_number=1,
        sop_instance_uid=_uid(key, "segmentation"),
        instance_number=1,
        manufacturer="shapemodel",
        manufacturer_model_name="shapemodel",
        software_versions=__version__,
        device_serial_number="0",
        content_label="THORAX",
        content_description="Bones of the thorax",
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    for name in ("ContentDate", "SeriesDate", "InstanceCreationDate"):
        if name in ds:
            setattr(ds, name, _UNDATED)
    for name in ("ContentTime", "SeriesTime", "InstanceCreationTime"):
        if name in ds:
            setattr(ds, name, _MIDNIGHT)
    for item in ds.get("ContributingEquipmentSequence", []):
        del item.ContributionDateTime
    for item in (*ds.DimensionOrganizationSequence, *ds.DimensionIndexSequence):
        item.DimensionOrganizationUID = _uid(key, "dimensions")
    ds.SeriesDescription = "Bones of the thorax"
    ds.PatientIdentityRemoved = "YES"
    ds.DeidentificationMethod = "pseudonym, derived UIDs, no other tags kept"
    block = ds.private_block(_GROUP, _CREATOR, create=True)
    block.add_new(0x01, "US", list(image.GetSize()))
    block.add_new(0x02, "FD", list(image.GetOrigin()))
    block.add_new(0x03, "FD", list(image.GetSpacing()))
    return ds


def _sources(image: sitk.Image, key: str, subject: str) -> list[Dataset]:
    """Headers of a CT series that stands for the real one: a slice each, derived UIDs, a pseudonym."""
    size, spacing, origin = image.GetSize(), image.GetSpacing(), image.GetOrigin()
    sources = []
    for k in range(size[2]):
        ds = Dataset()
        ds.file_meta = pydicom.dataset.FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, _uid(key, "slice", str(k))
        ds.StudyInstanceUID, ds.SeriesInstanceUID = _uid(key, "study"), _uid(key, "series")
        ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = _uid(key, "frame"), ""
        ds.PatientID = ds.PatientName = subject
        ds.PatientBirthDate = ds.PatientSex = ds.StudyDate = ds.StudyTime = ""
        ds.AccessionNumber = ds.StudyID = ds.ReferringPhysicianName = ""
        ds.Modality, ds.SeriesNumber, ds.InstanceNumber = "CT", 1, k + 1
        ds.Rows, ds.Columns, ds.NumberOfFrames = size[1], size[0], 1
        ds.PixelSpacing = [_decimal(spacing[1]), _decimal(spacing[0])]
        ds.SliceThickness = _decimal(spacing[2])
        ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        ds.ImagePositionPatient = [_decimal(x) for x in (origin[0], origin[1], origin[2] + k * spacing[2])]
        del ds.NumberOfFrames
        sources.append(ds)
    return sources


def _decimal(x: float) -> str:
    """A decimal string of at most 16 characters, as DICOM wants it."""
    return next(text for text in (f"{x:.{n}g}" for n in range(16, 0, -1)) if len(text) <= 16)


def _description(number: int, label: int, key: str) -> Any:
    import highdicom as hd
    from pydicom.sr.coding import Code

    c = coded(label)
    description: Any = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=bone(label).name,
        segmented_property_category=Code(CATEGORY[0], SCHEME, CATEGORY[1]),
        segmented_property_type=Code(c.code, SCHEME, c.meaning),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name="shapemodel", family=Code("123104", "DCM", "Morphological Operations"), version="1"
        ),
        tracking_uid=_uid(key, "segment", str(label)),
        tracking_id=bone(label).name,
        display_color=hd.color.CIELabColor.from_rgb(*bone(label).color),
    )
    if c.side:
        modifier = Dataset()
        modifier.CodeValue, modifier.CodingSchemeDesignator, modifier.CodeMeaning = c.side[0], SCHEME, c.side[1]
        description.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [modifier]
    return description


def read_dicom_seg(path: Path) -> sitk.Image:
    """Segments of a DICOM SEG (a file, or the only one in a folder) as an axial map with our numbers.

    Segments are known by label, ours or TotalSegmentator's, or by their SNOMED CT code and side.

    Raises
    ------
    StudyError
        ``bad_labels``: no segmentation, several of them, a segment that is no known structure, or no regular grid
    """
    import highdicom as hd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seg: Any = hd.seg.segread(_only_seg(path))
        try:
            volume = seg.get_volume(combine_segments=True, skip_overlap_checks=True)
        except (ValueError, RuntimeError) as e:
            raise StudyError("bad_labels", f"{path}: expected segments on a regular grid ({e})") from e
    table = np.full(int(max(seg.segment_numbers)) + 1, 0, np.uint8)
    unknown = []
    for n in seg.segment_numbers:
        number = _our_segment(seg.get_segment_description(n))
        if number is None:
            unknown.append(str(seg.get_segment_description(n).segment_label))
        else:
            table[n] = number
    if unknown:
        raise StudyError("bad_labels", f"{path}: expected known bones, found segments {', '.join(unknown)}")
    return _on_whole_grid(to_axial(_image(table[volume.array.astype(np.int64)], volume)), seg)


def _only_seg(path: Path) -> Path:
    from shapemodel.study.headers import lenient, looks_like_dicom

    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    found = []
    for file in files:
        if looks_like_dicom(file):
            with lenient():
                if pydicom.dcmread(file, specific_tags=["SOPClassUID"], force=True).get("SOPClassUID") in SEG_CLASSES:
                    found.append(file)
    if len(found) != 1:
        raise StudyError("bad_labels", f"{path}: expected one DICOM segmentation, found {len(found)}")
    return found[0]


def _our_segment(description: Any) -> int | None:
    number = our_number(str(description.segment_label))
    if number is not None:
        return number
    kind = description.SegmentedPropertyTypeCodeSequence[0]
    sides = kind.get("SegmentedPropertyTypeModifierCodeSequence") or []
    side = next((s for s, (code, _) in SIDES.items() if any(m.get("CodeValue") == code for m in sides)), "middle")
    for label in (k for k in OUR_LABELS if k <= LAST_BONE):
        if coded(label).code == kind.get("CodeValue") and bone(label).side == side:
            return label
    return None


def _image(labels: NDArray[np.uint8], volume: Any) -> sitk.Image:
    """A highdicom volume (axes slice, row, column; LPS affine) as an image (axes column, row, slice)."""
    affine = np.asarray(volume.affine, float)[:, [2, 1, 0, 3]]
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image = sitk.GetImageFromArray(np.ascontiguousarray(labels))
    image.SetSpacing(spacing.tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    return image


def _on_whole_grid(image: sitk.Image, seg: Dataset) -> sitk.Image:
    """Undo what the format drops, when the private block is there and still agrees with the frames."""
    try:
        block = seg.private_block(_GROUP, _CREATOR)
    except KeyError:
        return image
    size, origin, spacing = (np.array(block[i].value, float) for i in (1, 2, 3))
    offset = (np.array(image.GetOrigin()) - origin) / spacing
    whole = np.rint(offset).astype(int)
    upper = size.astype(int) - whole - image.GetSize()
    off_grid = np.abs(offset - whole).max() > _ON_GRID or not np.allclose(image.GetSpacing(), spacing, rtol=1e-4)
    if off_grid or (whole < 0).any() or (upper < 0).any():
        return image
    result = sitk.ConstantPad(image, whole.tolist(), upper.tolist(), 0)
    result.SetOrigin(origin.tolist())
    result.SetSpacing(spacing.tolist())
    return result
