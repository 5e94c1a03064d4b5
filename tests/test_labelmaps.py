"""Label maps: round trips bit for bit with their geometry, other tools' numbers, and refusals instead of guesses."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from shapemodel.anatomy import BONES, COSTAL_CARTILAGE, LABEL, OTHER_BONE, bone
from shapemodel.labelmaps import SCHEMES, read_labels, write_labels
from shapemodel.labelmaps.scene import write_scene
from shapemodel.labelmaps.schemes import TOTALSEGMENTATOR_V1, TOTALSEGMENTATOR_V2, our_number
from shapemodel.mesh import Mesh, read_vtp
from shapemodel.reasons import InputError, StudyError
from shapemodel.study import RESAMPLED

ORIGIN = (-172.1259765625, -1 / 3, -346.1)
SPACING = (0.748046875, 0.7, 2.0)
IDENTITY = tuple(np.eye(3).ravel())


def thorax() -> np.ndarray:
    """(40, 20, 30) uint8: every label, vertebrae descending, left ribs at larger x; empty slices at both ends."""
    labels = np.zeros((40, 20, 30), np.uint8)
    for b in BONES:
        z = 36 - 2 * b.level
        if b.kind == "rib":
            labels[z : z + 2, 2:14, 22 : 26 if b.side == "left" else 24] = 0
            labels[z, 2:14, slice(22, 26) if b.side == "left" else slice(3, 7)] = b.label
        elif b.kind == "vertebra":
            labels[z, 14:18, 12:18] = b.label
    labels[20:30, 0:2, 13:17] = LABEL["sternum"]
    labels[4:6, 3:5, 9:11] = OTHER_BONE
    labels[25, 1, 18:21] = COSTAL_CARTILAGE
    return labels


def image(array: np.ndarray, origin: tuple[float, ...] = ORIGIN, spacing: tuple[float, ...] = SPACING) -> sitk.Image:
    found = sitk.GetImageFromArray(array)
    found.SetOrigin(origin)
    found.SetSpacing(spacing)
    return found


def assert_exact(found: sitk.Image, expected: sitk.Image) -> None:
    assert found.GetPixelID() == sitk.sitkUInt8
    assert found.GetDirection() == IDENTITY
    assert found.GetSize() == expected.GetSize()
    assert found.GetOrigin() == expected.GetOrigin()
    assert found.GetSpacing() == expected.GetSpacing()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(found), sitk.GetArrayFromImage(expected))


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        ("l.nii.gz", "shapemodel"),
        ("l.nii", "shapemodel"),
        ("l.nrrd", "shapemodel"),
        ("l.mha", "shapemodel"),
        ("l.seg.nrrd", "slicer"),
        ("l.seg.nrrd", "shapemodel"),
        ("l.npz", "shapemodel"),
        ("l.npy", "shapemodel"),
        ("l.dcm", "dicom-seg"),
        ("folder", "dicom-seg"),
    ],
)
def test_round_trips_are_exact_to_the_bit(tmp_path: Path, name: str, scheme: str) -> None:
    """Voxels, origin and spacing, also where the format keeps single precision (NIfTI) or 16 decimals (DICOM)."""
    source = image(thorax())
    path = write_labels(source, tmp_path / name)
    assert_exact(read_labels(path, scheme, source if name.endswith(".npy") else None), source)
    assert sorted(p.name for p in tmp_path.iterdir()) == [name]


@pytest.mark.parametrize("name", ["l.nii.gz", "l.seg.nrrd", "l.npz", "l.dcm", "l.mrb"])
def test_the_same_labels_give_the_same_bytes(tmp_path: Path, name: str) -> None:
    one = write_labels(image(thorax()), tmp_path / name).read_bytes()
    two = write_labels(image(thorax()), tmp_path / name).read_bytes()
    assert one == two


def test_a_nifti_that_was_moved_since_is_where_it_says(tmp_path: Path) -> None:
    path = write_labels(image(thorax()), tmp_path / "l.nii.gz")
    stored = sitk.ReadImage(str(path))
    stored.SetOrigin((1.0, 2.0, 3.0))
    sitk.WriteImage(stored, str(path))
    assert read_labels(path, "shapemodel").GetOrigin() == (1.0, 2.0, 3.0)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
@pytest.mark.parametrize("ending", ["nii.gz", "nrrd"])
def test_any_storage_orientation(tmp_path: Path, order: tuple[int, ...], ending: str) -> None:
    source = image(thorax(), origin=(-172.125, -100.5, -346.25), spacing=(0.75, 0.5, 2.0))
    stored = sitk.Flip(sitk.PermuteAxes(source, order), (True, False, True))
    sitk.WriteImage(stored, str(tmp_path / f"l.{ending}"))
    assert_exact(read_labels(tmp_path / f"l.{ending}", "shapemodel"), source)


def test_masks_as_numpy(tmp_path: Path) -> None:
    write_labels(image(thorax()), tmp_path / "m.npy", mask=True)
    mask = np.load(tmp_path / "m.npy")
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, thorax() > 0)
    write_labels(image(thorax()), tmp_path / "m.npz", mask=True)
    loaded = np.load(tmp_path / "m.npz")
    assert tuple(loaded["origin"]) == ORIGIN
    assert tuple(loaded["spacing"]) == SPACING
    with pytest.raises(InputError, match="npy"):
        write_labels(image(thorax()), tmp_path / "m.nii.gz", mask=True)
    with pytest.raises(InputError, match="geometry"):
        read_labels(write_labels(image(thorax()), tmp_path / "l.npy"), "shapemodel")


# TotalSegmentator: spot checks against its published class lists, not against our tables


def test_totalsegmentator_numbers() -> None:
    assert (TOTALSEGMENTATOR_V1["vertebrae_L5"], TOTALSEGMENTATOR_V1["vertebrae_T12"]) == (18, 23)
    assert (TOTALSEGMENTATOR_V1["vertebrae_T1"], TOTALSEGMENTATOR_V1["vertebrae_C1"]) == (34, 41)
    assert (TOTALSEGMENTATOR_V1["rib_left_1"], TOTALSEGMENTATOR_V1["rib_right_12"]) == (58, 81)
    assert (TOTALSEGMENTATOR_V1["scapula_right"], TOTALSEGMENTATOR_V1["sacrum"]) == (85, 92)
    assert (TOTALSEGMENTATOR_V2["vertebrae_S1"], TOTALSEGMENTATOR_V2["vertebrae_L1"]) == (26, 31)
    assert (TOTALSEGMENTATOR_V2["vertebrae_T12"], TOTALSEGMENTATOR_V2["vertebrae_T1"]) == (32, 43)
    assert (TOTALSEGMENTATOR_V2["clavicula_right"], TOTALSEGMENTATOR_V2["hip_right"]) == (74, 78)
    assert (TOTALSEGMENTATOR_V2["rib_left_1"], TOTALSEGMENTATOR_V2["rib_right_1"]) == (92, 104)
    assert (TOTALSEGMENTATOR_V2["sternum"], TOTALSEGMENTATOR_V2["costal_cartilages"]) == (116, 117)


def foreign(table: dict[str, int]) -> np.ndarray:
    """The thorax in the numbers of TotalSegmentator, with a liver and L1."""
    labels = thorax()
    out = np.zeros_like(labels)
    for b in BONES:
        if b.totalsegmentator in table:
            out[labels == b.label] = table[b.totalsegmentator]
    if "costal_cartilages" in table:
        out[labels == COSTAL_CARTILAGE] = table["costal_cartilages"]
    out[labels == OTHER_BONE] = table["vertebrae_L1"]
    out[0:3, 5:9, 5:9] = 5  # liver in both versions
    return out


def expected(table: dict[str, int]) -> np.ndarray:
    labels = thorax()
    if "sternum" not in table:
        labels[np.isin(labels, [LABEL["sternum"], COSTAL_CARTILAGE])] = 0
    return labels


@pytest.mark.parametrize(
    ("scheme", "table"), [("totalsegmentator-v1", TOTALSEGMENTATOR_V1), ("totalsegmentator-v2", TOTALSEGMENTATOR_V2)]
)
def test_totalsegmentator_files_and_folders(tmp_path: Path, scheme: str, table: dict[str, int]) -> None:
    source = image(foreign(table), origin=(-100.5, -50.25, -300.0), spacing=(0.75, 0.5, 2.0))
    whole = image(expected(table), origin=(-100.5, -50.25, -300.0), spacing=(0.75, 0.5, 2.0))
    stored = sitk.Flip(source, (True, True, False))
    sitk.WriteImage(sitk.Cast(stored, sitk.sitkFloat32), str(tmp_path / "multi.nii.gz"))
    assert_exact(read_labels(tmp_path / "multi.nii.gz", scheme), whole)
    masks = tmp_path / "masks"
    masks.mkdir()
    for name, number in {**table, "liver": 5}.items():
        sitk.WriteImage(stored == number, str(masks / f"{name}.nii.gz"))
    assert_exact(read_labels(masks, scheme), whole)


def test_numbers_of_another_scheme_are_refused(tmp_path: Path) -> None:
    v2 = tmp_path / "v2.nii.gz"
    sitk.WriteImage(image(foreign(TOTALSEGMENTATOR_V2)), str(v2))
    v1 = tmp_path / "v1.nii.gz"
    sitk.WriteImage(image(foreign(TOTALSEGMENTATOR_V1)), str(v1))
    ours = write_labels(image(thorax()), tmp_path / "ours.nii.gz")
    wrong = [(v2, "totalsegmentator-v1"), (v1, "totalsegmentator-v2"), (v2, "shapemodel"), (v1, "shapemodel")]
    wrong += [(ours, "totalsegmentator-v1"), (ours, "totalsegmentator-v2")]
    for path, scheme in wrong:
        with pytest.raises(StudyError) as caught:
            read_labels(path, scheme)
        assert caught.value.code == "bad_labels", (path, scheme)
    with pytest.raises(InputError, match="one of shapemodel, totalsegmentator-v1"):
        read_labels(v2, "totalsegmentator")
    assert len(SCHEMES) == 5


def test_exchanged_sides_are_refused(tmp_path: Path) -> None:
    mirrored = np.ascontiguousarray(foreign(TOTALSEGMENTATOR_V2)[:, :, ::-1])
    sitk.WriteImage(image(mirrored), str(tmp_path / "m.nii.gz"))
    with pytest.raises(StudyError) as caught:
        read_labels(tmp_path / "m.nii.gz", "totalsegmentator-v2")
    assert caught.value.code == "mirrored"


def test_names() -> None:
    same = ["rib_left_07", "rib_left_7", "Rib left 7", "RIB_LEFT_07"]
    assert {our_number(n) for n in same} == {7}
    assert [our_number(n) for n in ("vertebrae_T1", "vertebra_T01", "vertebrae T12")] == [26, 26, 37]
    assert [our_number(n) for n in ("scapula_left", "vertebrae_L1", "liver")] == [OTHER_BONE, OTHER_BONE, 0]
    assert [our_number(n) for n in ("Segment_1", "rib_left_13", "vertebrae_T13", "")] == [None] * 4


def test_broken_label_files_are_refused(tmp_path: Path) -> None:
    path = write_labels(image(thorax()), tmp_path / "l.nii.gz")
    path.write_bytes(path.read_bytes()[:200])
    sitk.WriteImage(image(thorax().astype(np.float32) + 0.5), str(tmp_path / "half.nii.gz"))
    (tmp_path / "text.nii.gz").write_text("no")
    (tmp_path / "none.seg.nrrd").write_bytes(write_labels(image(thorax()), tmp_path / "a.nrrd").read_bytes())
    for name, scheme in (("l.nii.gz", "shapemodel"), ("half.nii.gz", "shapemodel"), ("text.nii.gz", "shapemodel")):
        with pytest.raises(StudyError) as caught:
            read_labels(tmp_path / name, scheme)
        assert caught.value.code == "bad_labels", name
    with pytest.raises(StudyError, match="segments"):
        read_labels(tmp_path / "none.seg.nrrd", "slicer")
    with pytest.raises(InputError, match="no such"):
        read_labels(tmp_path / "nowhere.nii.gz", "shapemodel")
    with pytest.raises(ValueError, match="vocabulary"):
        write_labels(image(thorax() + 60), tmp_path / "x.nii.gz")


# 3D Slicer


def test_slicer_names_and_colours(tmp_path: Path) -> None:
    path = write_labels(image(thorax()), tmp_path / "l.seg.nrrd")
    tags = sitk.ReadImage(str(path))
    number = int(next(k for k in tags.GetMetaDataKeys() if tags.GetMetaData(k) == "rib_left_07")[7:].split("_")[0])
    color = [float(x) for x in tags.GetMetaData(f"Segment{number}_Color").split()]
    np.testing.assert_allclose(color, np.array(bone("rib_left_07").color) / 255, atol=1e-6)
    assert tags.GetMetaData(f"Segment{number}_LabelValue") == "7"
    assert "24915002^Seventh rib~SCT^7771000^Left" in tags.GetMetaData(f"Segment{number}_Tags")


def test_what_slicer_saves_comes_back(tmp_path: Path) -> None:
    """Slicer crops to the segments, renumbers, and lays overlapping segments into layers: all is put back."""
    source = image(thorax())
    path = write_labels(source, tmp_path / "l.seg.nrrd")
    stored = sitk.ReadImage(str(path))
    tags = {k: stored.GetMetaData(k) for k in stored.GetMetaDataKeys() if k.startswith("Segment")}
    cropped = source[2:28, 0:19, 3:36]
    first = cropped * sitk.Cast(cropped == 7, sitk.sitkUInt8) * 0 + sitk.Cast(cropped == 7, sitk.sitkUInt8) * 3
    others = sitk.Mask(cropped, cropped != 7)
    layers = sitk.Compose(others, first)
    for key, value in tags.items():
        layers.SetMetaData(key, value)
    layers.SetMetaData("Segment6_LabelValue", "3")
    layers.SetMetaData("Segment6_Layer", "1")
    layers.SetMetaData("Segment6_Name", "Rib left 7")
    sitk.WriteImage(layers, str(path), useCompression=True)
    found = read_labels(path, "slicer")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(found), thorax())
    np.testing.assert_allclose(found.GetOrigin(), ORIGIN, atol=1e-9)


def test_unknown_segments_are_named(tmp_path: Path) -> None:
    path = write_labels(image(thorax()), tmp_path / "l.seg.nrrd")
    stored = sitk.ReadImage(str(path))
    stored.SetMetaData("Segment3_Name", "my rib")
    sitk.WriteImage(stored, str(path))
    with pytest.raises(StudyError, match="my rib"):
        read_labels(path, "slicer")


def test_a_scene_holds_ct_labels_and_surfaces(tmp_path: Path) -> None:
    source = image(thorax())
    ct = image(np.random.default_rng(0).integers(-1024, 2000, thorax().shape).astype(np.int16))
    vertices = np.array([[0.0, 0, 0], [9, 0, 0], [0, 9, 0], [0, 0, 9]])
    faces = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    mesh = Mesh(np.vstack([vertices, vertices + 20]), np.vstack([faces, faces + 4]), np.repeat([7, 25], 4))
    path = write_scene(tmp_path / "case.mrb", ct=ct, labels=source, mesh=mesh)
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path)
    scene = ET.parse(tmp_path / "case" / "case.mrml").getroot()
    for node in scene:
        if "fileName" in node.attrib:
            assert (tmp_path / "case" / node.attrib["fileName"]).is_file()
    ids = {n.attrib["id"] for n in scene}
    references = [r for n in scene for r in n.attrib.get("references", "").split(";") if r]
    assert {r.split(":")[1] for r in references} <= ids | {"vtkMRMLColorTableNodeGrey"}
    data = tmp_path / "case" / "Data"
    assert_exact(read_labels(data / "labels.seg.nrrd", "slicer"), source)
    stored = sitk.ReadImage(str(data / "ct.nrrd"))
    assert stored.GetOrigin() == ct.GetOrigin()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(stored), sitk.GetArrayFromImage(ct))
    np.testing.assert_array_equal(read_vtp(data / "sternum.vtp").vertices, vertices + 20)
    assert next(n for n in scene if n.tag == "ModelStorage").attrib["coordinateSystem"] == "LPS"


# DICOM SEG


def test_dicom_seg_is_coded_and_names_nobody(tmp_path: Path) -> None:
    path = write_labels(image(thorax()), tmp_path / "l.dcm", subject="S0001")
    ds = pydicom.dcmread(path)
    assert (str(ds.PatientID), str(ds.PatientName)) == ("S0001", "S0001")
    assert (ds.PatientBirthDate, ds.PatientSex, ds.StudyDate, ds.AccessionNumber) == ("", "", "", "")
    assert ds.PatientIdentityRemoved == "YES"
    segments = {s.SegmentLabel: s for s in ds.SegmentSequence}
    assert list(segments) == [bone(int(k)).name for k in np.unique(thorax()) if k]
    kind = segments["rib_right_03"].SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodeValue, kind.CodingSchemeDesignator, kind.CodeMeaning) == ("25888004", "SCT", "Third rib")
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Right"
    assert segments["vertebra_T06"].SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "T6 vertebra"
    uids = [ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID, ds.FrameOfReferenceUID]
    assert all(u.is_valid for u in uids)
    assert len(set(uids)) == 4
    other = pydicom.dcmread(write_labels(image(thorax()), tmp_path / "m.dcm", subject="S0002"))
    assert not set(uids) & {other.StudyInstanceUID, other.SeriesInstanceUID, other.SOPInstanceUID}


def test_dicom_seg_of_another_tool_is_known_by_its_codes(tmp_path: Path) -> None:
    """Without our block and names: the box of the frames, segments by SNOMED CT code and side."""
    path = write_labels(image(thorax()), tmp_path / "l.dcm")
    ds = pydicom.dcmread(path)
    for s in ds.SegmentSequence:
        if s.SegmentLabel not in ("other_bone", "costal_cartilage"):
            s.SegmentLabel = f"Segment {s.SegmentNumber}"
    del ds[0x0071, 0x0010], ds[0x0071, 0x1001], ds[0x0071, 0x1002], ds[0x0071, 0x1003]
    ds.save_as(path)
    whole = image(thorax())
    found = read_labels(path, "dicom-seg", whole)
    assert_exact(found, whole)
    assert not found.HasMetaDataKey(RESAMPLED)


def test_what_is_no_dicom_seg(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_text("no")
    with pytest.raises(StudyError, match="expected one DICOM segmentation, found 0"):
        read_labels(tmp_path, "dicom-seg")
    with pytest.raises(InputError, match="empty"):
        write_labels(image(np.zeros((3, 3, 3), np.uint8)), tmp_path / "b.dcm")


# the grid of the CT


def test_onto_the_grid_of_the_ct(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A crop is moved by whole voxels; another grid is resampled, and that is said."""
    whole = image(thorax())
    path = tmp_path / "crop.nii.gz"
    sitk.WriteImage(whole[2:28, 0:19, 3:36], str(path))
    ct = image(np.zeros(thorax().shape, np.int16))
    found = read_labels(path, "shapemodel", ct)
    assert_exact(found, whole)
    assert not found.HasMetaDataKey(RESAMPLED)
    assert not caplog.text
    fine = sitk.Expand(whole, (2, 2, 2), sitk.sitkNearestNeighbor)
    write_labels(fine, tmp_path / "fine.nii.gz")
    found = read_labels(tmp_path / "fine.nii.gz", "shapemodel", ct)
    assert found.GetSize() == ct.GetSize()
    assert found.HasMetaDataKey(RESAMPLED)
    assert "resampled" in caplog.text
    np.testing.assert_array_equal(sitk.GetArrayFromImage(found), thorax())


@pytest.mark.real
def test_a_real_label_map_through_every_format(real: Path, tmp_path: Path) -> None:
    source = read_labels(real / "labels" / "cap002.nii.gz", "shapemodel")
    for name, scheme in (("l.nii.gz", "shapemodel"), ("l.seg.nrrd", "slicer"), ("l.npz", "shapemodel")):
        assert_exact(read_labels(write_labels(source, tmp_path / name), scheme), source)


def test_a_file_that_cannot_be_written_whole_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    """ITK writes half a NIfTI without a word: a limit on the size of files stands for a full disk."""
    script = """
import resource, sys
import numpy as np, SimpleITK as sitk
from pathlib import Path
from shapemodel.labelmaps import write_labels
from shapemodel.mesh import Mesh, write_vtp
folder = Path(sys.argv[1])
labels = sitk.GetImageFromArray(np.random.default_rng(0).integers(0, 38, (40, 50, 60)).astype(np.uint8))
mesh = Mesh(np.random.default_rng(0).normal(size=(3000, 3)), np.arange(3000).reshape(-1, 3), np.ones(3000))
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
write = {n: lambda p: write_labels(labels, p) for n in ("l.nii.gz", "l.nii", "l.seg.nrrd", "l.npy", "l.npz", "l.dcm")}
for name, to in {**write, "m.vtp": lambda p: write_vtp(mesh, p)}.items():
    try:
        to(folder / name)
    except (OSError, RuntimeError):
        continue
    sys.exit(f"{name} was written")
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())
