"""The same CT stored along other axes gives the same labels in patient space."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from shapemodel.labels import label_bones
from shapemodel.phantom.suite import ORIENTATIONS, stored_as
from shapemodel.study import read_ct

STUDY = "cap002"


@pytest.fixture(scope="module")
def stored(tmp_path_factory, real):
    """A real CT, and a function that stores it along other axes, compressed without loss, and reads it again."""
    ct = read_ct(real / "ct" / STUDY)
    folder = tmp_path_factory.mktemp("stored")

    def again(code: str) -> sitk.Image:
        path = folder / f"{code}.nrrd"
        sitk.WriteImage(stored_as(ct, code), str(path))
        return read_ct(path)

    return ct, again


@pytest.mark.real
@pytest.mark.parametrize("code", ORIENTATIONS)
def test_a_ct_is_read_the_same_however_it_is_stored(stored, code):
    """Bit for bit: labelling is deterministic, so equal images have equal labels (Dice 1, not only >= 0.995)."""
    ct, again = stored
    other = again(code)
    assert np.array_equal(sitk.GetArrayViewFromImage(ct), sitk.GetArrayViewFromImage(other))
    assert np.allclose(ct.GetOrigin(), other.GetOrigin(), atol=1e-3)  # mm
    assert np.allclose(ct.GetSpacing(), other.GetSpacing(), atol=1e-6)
    assert other.GetDirection() == pytest.approx((1, 0, 0, 0, 1, 0, 0, 0, 1), abs=1e-9)


@pytest.mark.slow
@pytest.mark.real
def test_labels_of_a_permuted_ct_are_the_same(stored):
    ct, again = stored
    a, b = (sitk.GetArrayFromImage(label_bones(image).image) for image in (ct, again("PIR")))
    assert np.array_equal(a, b)
