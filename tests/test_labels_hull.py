"""The hull of the lungs on made-up chests: what fluid took is part of it, and healthy lungs are left as they are."""

from __future__ import annotations

import numpy as np
import pytest

from shapemodel.labels.work import lung_hull

SPACING = (3.0, 3.0, 3.0)
HALF_MM, DEPTH_MM = 120.0, 85.0
"""Half the width and half the depth of the chest."""
CANAL_MM = (240.0, 150.0)


def chest(slices: int = 40) -> np.ndarray:
    """(slices, 100, 100) bool: both halves of a chest without the column between them; its back, 30 mm behind the
    canal, is flat over two thirds of its width, as backs are (P001: 0.65)."""
    y, x = np.mgrid[0:100, 0:100] * 3.0
    inside = (np.abs(x - 150.0) / HALF_MM) ** 3 + (np.abs(y - 185.0) / DEPTH_MM) ** 3 < 1
    return np.repeat((inside & (np.abs(x - 150.0) > 25.0))[None], slices, axis=0)


def hull_of(lungs: np.ndarray) -> np.ndarray:
    return lung_hull(lungs, np.tile(CANAL_MM, (len(lungs), 1)), SPACING)


@pytest.mark.parametrize("sides", [(-1,), (1,), (-1, 1)])
def test_the_round_that_fluid_fills_is_part_of_the_hull(sides: tuple[int, ...]) -> None:
    """Fluid that lies behind the middle of the chest: ribs lie within 9 mm of the pleura, so that no more of it may be
    missing; a straight cut from the level to the back misses up to 20 mm of the round."""
    lungs = chest()
    y, x = np.mgrid[0:100, 0:100] * 3.0
    fluid = np.zeros((100, 100), bool)
    for side in sides:
        fluid |= (y > 200.0) & (side * (x - 150.0) > 0)
    whole, found = hull_of(lungs)[0], hull_of(lungs & ~fluid)[0]
    missed = np.argwhere(whole & ~found) * 3.0
    far = [np.hypot(*(np.argwhere(found) * 3.0 - p).T).min() for p in missed]
    assert max(far, default=0.0) < 9.0
    extra = np.argwhere(found & ~whole) * 3.0
    far = [np.hypot(*(np.argwhere(whole) * 3.0 - p).T).min() for p in extra]
    assert max(far, default=0.0) < 9.0


def test_healthy_lungs_keep_their_hull() -> None:
    lungs = chest()
    found, own = hull_of(lungs), lungs[0]
    x = np.flatnonzero(own.any(axis=0))
    assert np.array_equal(np.flatnonzero(found[0].any(axis=0)), np.arange(x[0], x[-1] + 1))  # no wider than its lungs
    assert found[0].sum() < 1.15 * own.sum() + (np.abs(np.arange(100) * 3.0 - 150.0) <= 25.0).sum() * 2 * DEPTH_MM / 3
