"""The preview shows what is in the CT, on the right side, and says what it lacks."""

import numpy as np
import pytest
import SimpleITK as sitk

from shapemodel import preview as pv
from shapemodel.mesh import Mesh, join
from shapemodel.reasons import InputError
from shapemodel.render import missing

needs_opengl = pytest.mark.skipif(missing() != "", reason=missing() or "pictures can be made")


def study(bone_hu: int = 700) -> tuple[sitk.Image, sitk.Image, Mesh]:
    """A soft body of 150 mm with one bright block on the patient's left (+x), labelled as a left rib."""
    hu = np.full((60, 60, 60), -1000, np.int16)
    hu[5:55, 5:55, 5:55] = 40
    hu[20:40, 10:16, 36:50] = bone_hu
    label = np.zeros(hu.shape, np.uint8)
    label[20:40, 10:16, 36:50] = 5
    images = []
    for a in (hu, label):
        image = sitk.GetImageFromArray(a)
        image.SetSpacing((3.0, 3.0, 3.0))
        image.SetOrigin((-90.0, -90.0, -90.0))
        images.append(image)
    v = 1.5 * np.array([[12, -40, -20], [40, -40, -20], [12, -40, 20], [12, -28, -20.0]])
    f = np.array([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]])
    return images[0], images[1], join({5: (v, f)})


def test_slices_show_the_patients_left_on_the_right():
    ct, labels, _ = study()
    axial, coronal, sagittal = pv.slice_pictures(ct, labels, height=120)
    assert all(p.shape == (120, 120, 3) for p in (axial, coronal, sagittal))
    for p in (axial, coronal):
        bright = p.min(axis=2) > 200
        assert bright[:, 60:].sum() > 20 * max(bright[:, :60].sum(), 1)
    colored = (axial.max(axis=2).astype(int) - axial.min(axis=2)) > 30
    assert 50 < colored.sum() < 1000  # an outline, not an area


@needs_opengl
def test_volume_shows_bone_on_the_patients_left_and_shift_hides_it():
    ct, _, _ = study(bone_hu=300)
    seen = pv.volume_picture(ct, height=120).min(axis=2) < 250
    assert seen[:, 60:].sum() > 100
    assert seen[:, :58].sum() == 0
    assert (pv.volume_picture(ct, shift=400, height=120).min(axis=2) < 250).sum() == 0


@needs_opengl
def test_roi_limits_the_volume():
    ct, _, _ = study()
    away = pv.volume_picture(ct, roi=(-90, 0, -90, 90, -90, 90), height=120)
    assert (away.min(axis=2) < 250).sum() == 0
    with pytest.raises(InputError, match="holds nothing"):
        pv.volume_picture(ct, roi=(200, 300, 0, 1, 0, 1))


@needs_opengl
def test_preview_puts_volume_surfaces_and_slices_side_by_side():
    ct, labels, mesh = study()
    image = pv.preview(ct, labels, mesh, height=300)
    assert image.shape[0] == 300
    assert image.shape[1] > 300 + 2 * 60  # a square volume, then two columns of pictures
    with pytest.raises(InputError, match="grid"):
        pv.preview(ct, labels[:30], mesh)
