"""Reading CTs: any storage of the same voxels is the same volume in patient space; what is broken says why."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicomfiles import (
    AXIAL,
    ORIGIN,
    SHAPE,
    SPACING,
    Files,
    body,
    compress_like_a_scanner,
    retag,
    write_enhanced,
    write_other,
    write_series,
)

from shapemodel.reasons import InputError, StudyError
from shapemodel.study import RESAMPLED, read_ct, scan_box, to_axial

IDENTITY = tuple(np.eye(3).ravel())


def array(image: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(image)


def as_image(hu: np.ndarray, origin: tuple[float, ...] = ORIGIN, spacing: tuple[float, ...] = SPACING) -> sitk.Image:
    image = sitk.GetImageFromArray(hu)
    image.SetOrigin(origin)
    image.SetSpacing(spacing)
    return image


def assert_same(image: sitk.Image, hu: np.ndarray) -> None:
    """The voxels of ``hu`` in the place where they were put, to the micrometre that DICOM decimals keep."""
    assert image.GetPixelID() == sitk.sitkInt16
    assert image.GetDirection() == IDENTITY
    np.testing.assert_allclose(image.GetOrigin(), ORIGIN, atol=1e-5)
    np.testing.assert_allclose(image.GetSpacing(), SPACING, atol=1e-6)
    np.testing.assert_array_equal(array(image), hu)


def refused(path: Path, code: str) -> str:
    with pytest.raises(StudyError) as caught:
        read_ct(path)
    assert caught.value.code == code, caught.value
    return str(caught.value)


def test_slices_are_sorted_by_position_not_by_name_or_number(tmp_path: Path) -> None:
    write_series(tmp_path, body())
    image = read_ct(tmp_path)
    assert_same(image, body())
    left_front_top = image.TransformIndexToPhysicalPoint((26, 6, 52))
    assert left_front_top[0] > scan_box(image)[:2].mean()
    assert left_front_top[2] > scan_box(image)[4:].mean()


def test_scan_box_is_the_outer_edge_of_the_voxels(tmp_path: Path) -> None:
    write_series(tmp_path, body())
    low = np.array(ORIGIN) - np.array(SPACING) / 2
    high = low + np.array(SPACING) * SHAPE[::-1]
    np.testing.assert_allclose(scan_box(read_ct(tmp_path)), np.column_stack([low, high]).ravel(), atol=1e-5)


def dicom_orientations() -> list[tuple[tuple[int, int, int], tuple[bool, bool]]]:
    """Every way to lay the volume's axes on columns and rows, each running either way; slices follow."""
    return list(product(permutations(range(3)), product((False, True), repeat=2)))


@pytest.mark.parametrize(("order", "flips"), dicom_orientations())
def test_dicom_of_any_orientation_is_the_same_volume(
    tmp_path: Path, order: tuple[int, ...], flips: tuple[bool, ...]
) -> None:
    """A stack stored along x, y or z, its rows and columns running either way (feet first, prone, sagittal ...)."""
    hu = body().transpose(2, 1, 0)  # x, y, z
    spacing, size, origin = np.array(SPACING), np.array(hu.shape), np.array(ORIGIN)
    axes = np.eye(3)[list(order)]
    axes[[i for i, f in enumerate(flips) if f]] *= -1
    axes[2] = np.cross(axes[0], axes[1])
    backwards = axes.sum(axis=1) < 0
    stored = hu.transpose(order)
    stored = stored[tuple(slice(None, None, -1) if b else slice(None) for b in backwards)]
    start = origin + sum(axes[i] * -1 * (size - 1)[order[i]] * spacing[order[i]] * b for i, b in enumerate(backwards))
    how = Files(
        origin=tuple(start),
        spacing=tuple(spacing[list(order)]),
        orientation=(*axes[0], *axes[1]),
    )
    write_series(tmp_path, stored.transpose(2, 1, 0), how)
    assert_same(read_ct(tmp_path), body())


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_volume_files_of_any_axis_order_and_flip(tmp_path: Path, ending: str, order: tuple[int, ...]) -> None:
    for number, flips in enumerate(product((False, True), repeat=3)):
        stored = sitk.Flip(sitk.PermuteAxes(as_image(body()), order), flips)
        path = tmp_path / f"ct{number}{ending}"
        sitk.WriteImage(stored, str(path))
        assert_same(read_ct(path), body())


def turned(degrees: float) -> sitk.Image:
    image = as_image(body())
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    image.SetDirection((c, -s, 0, s, c, 0, 0, 0, 1))
    return image


def test_a_rounded_direction_is_no_rotation() -> None:
    """0.02 degrees moves no corner by half a millimetre: the voxels stay, about the same centre."""
    image = to_axial(turned(0.02))
    np.testing.assert_array_equal(array(image), body())
    assert not image.HasMetaDataKey(RESAMPLED)
    middle = (np.array(SHAPE[::-1]) - 1) / 2
    np.testing.assert_allclose(
        image.TransformContinuousIndexToPhysicalPoint(middle),
        turned(0.02).TransformContinuousIndexToPhysicalPoint(middle),
        atol=1e-9,
    )


def test_a_tilted_volume_is_resampled_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    source = turned(8.0)
    smooth = sitk.Cast(sitk.DiscreteGaussian(sitk.Cast(source, sitk.sitkFloat32), 9.0), sitk.sitkInt16)
    image = to_axial(smooth)
    assert "8.00 degrees" in image.GetMetaData(RESAMPLED)
    assert "resampled" in caplog.text
    block = source.TransformIndexToPhysicalPoint((26, 6, 52))
    value = image[image.TransformPhysicalPointToIndex(block)]
    assert abs(value - smooth[26, 6, 52]) < 60  # linear interpolation of a smooth field at the same place
    assert to_axial(source, labels=True).GetPixelID() == source.GetPixelID()


def test_a_volume_turned_too_far_is_refused() -> None:
    with pytest.raises(StudyError) as caught:
        to_axial(turned(37.0))
    assert caught.value.code == "not_axial"


def test_a_tilted_gantry_is_refused(tmp_path: Path) -> None:
    write_series(tmp_path, body(), Files(step=(0.0, 0.3, 2.0)))
    assert "18.9 mm" in refused(tmp_path, "sheared")


def test_a_missing_slice_is_named(tmp_path: Path) -> None:
    paths = write_series(tmp_path, body())
    paths[10].unlink()
    message = refused(tmp_path, "missing_slice")
    assert f"{ORIGIN[2] + 18:.2f} -> {ORIGIN[2] + 22:.2f}" in message


def test_uneven_steps_are_refused(tmp_path: Path) -> None:
    paths = write_series(tmp_path, body())
    for k in range(40, 64):
        retag(paths[k], ImagePositionPatient=[*ORIGIN[:2], ORIGIN[2] + 2 * k + 0.9])
    refused(tmp_path, "mixed_geometry")


def test_copies_of_slices_are_ignored_but_other_pixels_in_the_same_place_are_not(tmp_path: Path) -> None:
    paths = write_series(tmp_path, body())
    for k in (3, 30):
        (tmp_path / f"copy{k}.dcm").write_bytes(paths[k].read_bytes())
    assert_same(read_ct(tmp_path), body())
    retag(tmp_path / "copy3.dcm", PixelData=bytes(24 * 32 * 2))
    assert "same" in refused(tmp_path, "mixed_geometry") or "one slice a position" in refused(
        tmp_path, "mixed_geometry"
    )


@pytest.mark.parametrize("change", [{"PixelSpacing": [1.0, 1.0]}, {"ImageOrientationPatient": [0.0, 1, 0, -1, 0, 0]}])
def test_mixed_geometry(tmp_path: Path, change: dict[str, list[float]]) -> None:
    write_series(tmp_path, body(), Files(per_slice={20: change}))
    refused(tmp_path, "mixed_geometry")


def test_mixed_sizes(tmp_path: Path) -> None:
    paths = write_series(tmp_path, body())
    retag(paths[20], Rows=12, PixelData=bytes(12 * 32 * 2))
    assert "rows" in refused(tmp_path, "mixed_geometry")


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(("slope", "intercept"), [(1.0, -1024.0), (2.0, -1000.0), (0.5, -1024.5)])
def test_rescale(tmp_path: Path, compressed: bool, slope: float, intercept: float) -> None:
    hu = (body() // 2 * 2).astype(np.int16)
    write_series(tmp_path, hu, Files(slope=slope, intercept=intercept, compressed=compressed))
    assert np.abs(array(read_ct(tmp_path)).astype(int) - hu).max() <= (0 if intercept == int(intercept) else 1)


@pytest.mark.parametrize(("compressor", "name"), [("JPEG", "JPEG Lossless"), ("JPEG2000", "JPEG 2000")])
def test_compressed_transfer_syntaxes(tmp_path: Path, compressor: str, name: str) -> None:
    assert name in compress_like_a_scanner(write_series(tmp_path, body()), compressor)
    assert_same(read_ct(tmp_path), body())


def test_jpeg_ls(tmp_path: Path) -> None:
    for path in write_series(tmp_path, body()):
        ds = pydicom.dcmread(path)
        ds.compress(pydicom.uid.JPEGLSLossless, generate_instance_uid=False)
        ds.save_as(path)
    assert_same(read_ct(tmp_path), body())


def test_rescale_may_differ_from_slice_to_slice(tmp_path: Path) -> None:
    """As in PET-like exports: each slice is brought to HU by its own intercept."""
    hu = body()
    how = Files(per_slice={5: {"RescaleIntercept": -924}})
    write_series(tmp_path, hu, how)
    expected = hu.copy()
    expected[5] += 100
    assert_same(read_ct(tmp_path), expected)


def test_values_without_rescale_are_refused(tmp_path: Path) -> None:
    write_series(tmp_path / "none", body() + 1024, Files(slope=None, intercept=None))
    refused(tmp_path / "none", "bad_rescale")
    write_series(tmp_path / "zero", body(), Files(tags={"RescaleSlope": 0}))
    refused(tmp_path / "zero", "bad_rescale")
    sitk.WriteImage(as_image(body() + 1024), str(tmp_path / "shifted.nii.gz"))
    refused(tmp_path / "shifted.nii.gz", "bad_rescale")


def test_padding_is_air(tmp_path: Path) -> None:
    hu = body()
    hu[:, :3, :3] = -2000
    write_series(tmp_path / "below", hu, Files(intercept=-3024.0))
    assert (array(read_ct(tmp_path / "below"))[:, :3, :3] == -1024).all()
    bright = body()
    bright[:, :3, :3] = 3000
    write_series(tmp_path / "above", bright, Files(tags={"PixelPaddingValue": 4024}))
    found = array(read_ct(tmp_path / "above"))
    assert (found[:, :3, :3] == -1024).all()
    np.testing.assert_array_equal(found[:, 3:], body()[:, 3:])


def test_multi_frame(tmp_path: Path) -> None:
    path = write_enhanced(tmp_path / "enhanced.dcm", body(), np.random.default_rng(3).permutation(SHAPE[0]))
    assert_same(read_ct(path), body())
    assert_same(read_ct(tmp_path), body())


def test_one_file_names_its_series(tmp_path: Path) -> None:
    paths = write_series(tmp_path, body())
    other = Files(series="1.2.826.0.1.3680043.8.498.3333333333333", tags={"ConvolutionKernel": "B70f"}, name="B{}.dcm")
    write_series(tmp_path, body(2), other)
    assert_same(read_ct(paths[7]), body())


@pytest.mark.parametrize("compressed", [False, True])
def test_truncated_dicom(tmp_path: Path, compressed: bool) -> None:
    paths = write_series(tmp_path, body(), Files(compressed=compressed))
    data = paths[9].read_bytes()
    for length in (len(data) - 300, len(data) // 3, 140):
        paths[9].write_bytes(data[:length])
        with pytest.raises(StudyError) as caught:
            read_ct(tmp_path)
        assert caught.value.code in ("truncated", "missing_slice"), length
        if length > 1000:
            assert caught.value.code == "truncated"


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_truncated_volume_files(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"ct{ending}"
    sitk.WriteImage(as_image(body()), str(path), useCompression=True)
    path.write_bytes(path.read_bytes()[:20000])
    refused(path, "truncated")
    path.write_bytes(b"no image at all")
    refused(path, "not_dicom")


def test_what_is_no_volume(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "no_images")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "notes.dcm").write_text("not a DICOM file\n" * 100)
    refused(tmp_path / "text", "not_dicom")
    refused(tmp_path / "text" / "notes.dcm", "not_dicom")
    write_series(tmp_path / "single", body()[:1])
    refused(tmp_path / "single", "not_volume")
    write_series(tmp_path / "scout", body(), Files(tags={"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}))
    refused(tmp_path / "scout", "not_volume")
    capture = "1.2.840.10008.5.1.4.1.1.7"
    write_other(
        tmp_path / "capture" / "a.dcm", sop_class=capture, modality="CT", Rows=2, Columns=2, PixelData=b"\0" * 8
    )
    refused(tmp_path / "capture", "not_volume")
    write_series(tmp_path / "mr", body(), Files(tags={"Modality": "MR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}))
    refused(tmp_path / "mr", "not_ct")
    sitk.WriteImage(sitk.GetImageFromArray(body()[0]), str(tmp_path / "flat.nii.gz"))
    refused(tmp_path / "flat.nii.gz", "not_volume")
    sitk.WriteImage(as_image((body() > 0).astype(np.uint8)), str(tmp_path / "mask.nii.gz"))
    refused(tmp_path / "mask.nii.gz", "not_ct")
    with pytest.raises(InputError, match="no such file"):
        read_ct(tmp_path / "nowhere")


def test_thick_coarse_and_short_scans_are_refused(tmp_path: Path) -> None:
    write_series(tmp_path / "thick", body(), Files(spacing=(1.5, 1.25, 7.0)))
    refused(tmp_path / "thick", "too_thick")
    write_series(tmp_path / "coarse", body(), Files(spacing=(3.0, 3.0, 2.0)))
    refused(tmp_path / "coarse", "not_axial")
    write_series(tmp_path / "short", body()[:40])
    refused(tmp_path / "short", "too_short")


def test_uids_that_say_nothing(tmp_path: Path) -> None:
    """Empty or repeated UIDs and the same file twice under other names: the positions decide."""
    for study, series in (("", ""), ("1.2.3", "1.2.3")):
        folder = tmp_path / f"uid{len(series)}"
        write_series(folder, body(), Files(study=study, series=series, tags={"SOPInstanceUID": series}))
        assert_same(read_ct(folder), body())


def test_axial_reads_as_axial_from_feet_to_head() -> None:
    assert to_axial(as_image(body())).GetDirection() == IDENTITY
    assert AXIAL[:3] == (1.0, 0.0, 0.0)


@pytest.mark.real
@pytest.mark.parametrize("name", ["P001", "cap002", "normal001", "normal002"])
def test_real_cts_lie_where_their_labels_do(real: Path, name: str) -> None:
    image = read_ct(real / "ct" / name)
    labels = sitk.ReadImage(str(real / "labels" / f"{name}.nii.gz"))
    assert image.GetSize() == labels.GetSize()
    np.testing.assert_allclose(image.GetOrigin(), labels.GetOrigin(), atol=1e-3)
    inside = sitk.GetArrayViewFromImage(labels)
    hu = sitk.GetArrayViewFromImage(image)
    assert np.median(hu[(inside > 0) & (inside < 38)]) > 200  # bone, so slices and sides are in place
    assert hu.min() == -1024
