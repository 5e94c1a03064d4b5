"""Labels that no thorax can have are refused, those of a phantom are not."""

from __future__ import annotations

import numpy as np
import pytest

from shapemodel.anatomy import RIBS, STERNUM, VERTEBRAE, rib, vertebra
from shapemodel.labels.plausible import refuse_absurd
from shapemodel.reasons import StudyError

SPACING = (2.0, 2.0, 2.0)


def thorax() -> np.ndarray:
    """Blocks where bones are: a column of vertebrae, ribs beside it (x grows to the left), a plate in front."""
    labels = np.zeros((170, 80, 150), np.uint8)
    for i, k in enumerate(VERTEBRAE):
        top = 160 - 12 * i
        labels[top - 10 : top, 50:65, 68:82] = k
        labels[top - 6 : top, 20:60, 84:88] = RIBS[i]
        labels[top - 6 : top, 20:60, 60:64] = RIBS[i + 12]
    labels[70:150, 5:10, 65:85] = STERNUM
    return labels


def test_a_thorax_passes():
    refuse_absurd(thorax(), SPACING)
    refuse_absurd(thorax()[:100], SPACING)  # cut above: vertebrae at the edge are not held to their order


def refused(labels: np.ndarray, name: str) -> None:
    with pytest.raises(StudyError, match=name) as e:
        refuse_absurd(labels, SPACING)
    assert e.value.code == "absurd_labels"


def test_a_rib_that_fills_the_scan_is_refused():
    """Half a litre: so a reading of freed memory once showed, flagged only by what it had done to the sternum."""
    labels = thorax()
    labels[60:100, 0:40, 90:130] = rib("left", 6)
    refused(labels, "rib_left_06")


def test_a_rib_as_long_as_no_chest_is_wide_is_refused():
    labels = np.zeros((20, 20, 200), np.uint8)
    labels[5, 5, 5:195] = rib("left", 6)
    refused(labels, "rib_left_06")


def test_vertebrae_out_of_order_and_ribs_on_the_wrong_side_are_refused():
    swapped = thorax()
    a, b = swapped == vertebra(5), swapped == vertebra(6)
    swapped[a], swapped[b] = vertebra(6), vertebra(5)
    refused(swapped, "vertebra_T05")
    refused(thorax()[:, :, ::-1], "rib_left_01")
