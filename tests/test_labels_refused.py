"""Scans without a thorax are refused with their reason, never labelled at random."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from shapemodel.labels import label_bones
from shapemodel.phantom.head import head_ct
from shapemodel.reasons import StudyError


def trunk(lungs: bool) -> sitk.Image:
    """A trunk of 35 x 26 x 27 cm with a ring of bone around a canal and, if wanted, two lungs of 3 L; no rib."""
    z, y, x = np.ogrid[0:90, 0:160, 0:160]
    hu = np.full((90, 160, 160), -1000.0)
    hu[np.broadcast_to(((x - 80) / 78) ** 2 + ((y - 80) / 58) ** 2 < 1, hu.shape)] = 45.0
    far = np.broadcast_to(np.hypot(x - 80, y - 105) * 2.2, hu.shape)
    hu[(far > 8) & (far < 22)] = 400.0
    for side in (-38, 38):
        lung = ((x - 80 - side) / 25) ** 2 + ((y - 75) / 34) ** 2 < 1
        hu[np.broadcast_to(lung, hu.shape)] = -850.0 if lungs else 45.0
    hu += np.random.default_rng(0).normal(0.0, 12.0, hu.shape)
    image = sitk.GetImageFromArray(hu.astype(np.int16))
    image.SetSpacing((2.2, 2.2, 3.0))
    return image


@pytest.mark.parametrize(
    ("image", "code"),
    [
        (lambda: head_ct(), "no_lungs"),  # skull, brain, neck
        (lambda: trunk(lungs=False), "no_lungs"),  # an abdomen
        (lambda: trunk(lungs=True), "not_thorax"),  # lungs and a spine that no rib leaves
        (lambda: sitk.Image(64, 64, 80, sitk.sitkInt16) - 1000, "too_short"),  # air, 80 mm long
        (lambda: sitk.Cast(sitk.Image(64, 64, 130, sitk.sitkInt16) - 1000, sitk.sitkInt16), "no_body"),  # air
    ],
    ids=["head", "abdomen", "no ribs", "short", "empty"],
)
def test_what_is_no_thorax_is_refused(image, code):
    with pytest.raises(StudyError) as e:
        label_bones(image())
    assert e.value.code == code
    assert "expected" in str(e.value)
