"""Body, lungs and thresholds on made-up volumes whose numbers are known."""

from __future__ import annotations

import numpy as np
import pytest

from shapemodel.mask import find_thresholds, measure
from shapemodel.reasons import StudyError

SPACING = (4.0, 3.0, 3.0)


def chest(air_ml: float = 2000.0, couch: bool = True) -> np.ndarray:
    """An elliptic trunk of 50 HU with two lung cylinders of -850 HU, holding ``air_ml`` together, and a couch."""
    z, y, x = np.ogrid[0:60, 0:90, 0:120]
    hu = np.full((60, 90, 120), -1000, np.int16)
    yy, xx = (y - 40) * SPACING[1], (x - 60) * SPACING[2]
    hu[np.broadcast_to((yy / 100) ** 2 + (xx / 150) ** 2 < 1, hu.shape)] = 50
    height = 40 * SPACING[0]
    radius = np.sqrt(air_ml * 1000 / 2 / np.pi / height)
    for side in (-1, 1):
        lung = (yy**2 + (xx - side * 75) ** 2 < radius**2) & (z >= 10) & (z < 50)
        hu[np.broadcast_to(lung, hu.shape)] = -850
    if couch:
        hu[:, 80:82, :] = 100
    return hu


def test_lung_volume_within_five_percent():
    coarse, _ = measure(chest(2000.0), SPACING)
    assert coarse.lung_volume_ml == pytest.approx(2000.0, rel=0.05)


def test_couch_is_not_body():
    coarse, _ = measure(chest(), SPACING)
    assert coarse.body[:, 60:, :].sum() == 0 or not coarse.body[:, 80:, :].any()


def test_lung_that_the_scan_cuts_reaches_the_last_slice():
    coarse, _ = measure(chest()[20:40], SPACING)
    assert coarse.lungs[0].any()
    assert coarse.lungs[-1].any()


def test_no_lungs_is_refused_with_what_to_do():
    with pytest.raises(StudyError, match="chest CT") as e:
        measure(chest(50.0), SPACING)
    assert e.value.code == "no_lungs"


def test_air_alone_is_no_body():
    with pytest.raises(StudyError) as e:
        measure(np.full((40, 60, 60), -1000, np.int16), SPACING)
    assert e.value.code == "no_body"


@pytest.mark.parametrize("sigma", [28.0, 36.0])
def test_low_threshold_is_peak_plus_four_sigma(sigma):
    rng = np.random.default_rng(0)
    tissue = rng.normal(45.0, sigma, 400_000)
    bone = rng.normal(450.0, 150.0, 20_000)
    hu = np.concatenate([tissue, bone]).astype(np.int16).reshape(1, 1, -1)
    limits = find_thresholds(hu, np.ones(hu.shape, bool))
    assert limits.tissue == pytest.approx(45.0, abs=8.0)
    assert limits.low == pytest.approx(np.clip(45.0 + 4 * sigma, 158.0, 200.0), abs=16.0)
    assert limits.low + 30.0 <= limits.working <= 280.0
