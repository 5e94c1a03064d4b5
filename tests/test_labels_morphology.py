"""Quick growing, closing and filling against the plain way, voxel by voxel."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage as ndi
from skimage.measure import euler_number

from shapemodel.labels.handles import _euler
from shapemodel.labels.morphology import ball_rows, close_mm, dilate, fill_planes, grow, round_rows

SPACING = (2.0, 0.7, 0.9)
SHAPES = ((9, 12, 15), (20, 31, 27), (3, 40, 9), (12, 2, 30))


def full(rows: list[tuple[int, int, int]]) -> np.ndarray:
    """The structuring element as an array of voxels."""
    rz, ry, rx = (max(abs(r[k]) for r in rows) for k in range(3))
    out = np.zeros((2 * rz + 1, 2 * ry + 1, 2 * rx + 1), bool)
    for dz, dy, w in rows:
        out[rz + dz, ry + dy, rx - w : rx + w + 1] = True
    return out


@pytest.mark.parametrize("radius", [0.5, 1.5, 2.0, 4.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_dilation_by_rows_is_that_by_voxels(shape: tuple[int, int, int], radius: float) -> None:
    mask = np.random.default_rng(1).random(shape) < 0.02
    for rows in (ball_rows(radius, SPACING), round_rows(radius, SPACING)):
        assert np.array_equal(dilate(mask, rows), ndi.binary_dilation(mask, full(rows)))


def test_a_ball_holds_what_lies_within_its_radius() -> None:
    ball = full(ball_rows(4.0, SPACING))
    z, y, x = np.ogrid[-2:3, -5:6, -4:5]
    assert np.array_equal(ball, (z * 2.0) ** 2 + (y * 0.7) ** 2 + (x * 0.9) ** 2 <= 16.0)
    assert full(round_rows(4.0, SPACING)).sum() > ball.sum()  # the rim of half voxels


def test_closing_is_that_by_distances() -> None:
    mask = np.random.default_rng(2).random((20, 31, 27)) < 0.03
    wide = np.pad(mask, 8)
    grown = ndi.distance_transform_edt(~wide, sampling=SPACING) <= 2.5
    shrunk = ndi.distance_transform_edt(grown, sampling=SPACING) > 2.5
    assert np.array_equal(close_mm(mask, 2.5, SPACING), shrunk[8:-8, 8:-8, 8:-8] | mask)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("shape", SHAPES)
def test_holes_in_planes_are_those_of_labelled_planes(shape: tuple[int, int, int], share: float) -> None:
    mask = np.random.default_rng(3).random(shape) < share
    for axis, most in ((0, 1.0), (1, 9.0), (2, 60.0), (0, 1e4)):
        area = np.prod([s for k, s in enumerate(SPACING) if k != axis])
        wanted = mask.copy()
        for i in range(shape[axis]):
            plane = np.take(mask, i, axis)
            pieces, n = ndi.label(~plane)
            edge = np.unique(np.concatenate([pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]]))
            for k in range(1, n + 1):
                if k not in edge and (pieces == k).sum() * area <= most:
                    wanted[tuple(i if a == axis else slice(None) for a in range(3))] |= pieces == k
        assert np.array_equal(fill_planes(mask, SPACING, most, (axis,)), wanted)


def test_growing_a_large_mask() -> None:
    """Shapes at which the result was once read from freed memory and came out empty."""
    for shape in ((275, 283, 436), (285, 286, 418)):
        mask = np.zeros(shape, bool)
        mask[100:110, 100:110, 100:110] = True
        assert grow(mask, 2.0, (1.0, 1.0, 1.0)).sum() > 1000 + 2 * 6 * 100


def test_euler_number_is_that_of_touching_voxels() -> None:
    rng = np.random.default_rng(4)
    for share in (0.1, 0.3, 0.5, 0.8):
        mask = rng.random((9, 8, 7)) < share
        assert _euler(mask) == euler_number(np.pad(mask, 1), 3)
