"""Front ends of ribs with spurs: told from sound ones on made-up rods, and kept out of a template."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.measure import marching_cubes

from shapemodel.anatomy import RIBS
from shapemodel.phantom.shape import surface
from shapemodel.phantom.subject import draw_population
from shapemodel.prongs import forked

SPINE = np.array([0.0, 10.0, 10.0])


def rod(prong_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """A rod of 80 x 12 x 8 mm, its end slit in two over ``prong_mm``."""
    solid = np.zeros((100, 24, 20))
    solid[6:86, 6:18, 6:14] = 1.0
    if prong_mm:
        solid[86 - int(prong_mm) : 86, 10:14] = 0.0
    vertices, faces, _, _ = marching_cubes(solid, 0.5)
    return np.asarray(vertices, float), np.asarray(faces, np.int64)


@pytest.mark.parametrize(("prong_mm", "found"), [(0.0, False), (3.0, False), (12.0, True), (20.0, True)])
def test_prongs_are_found_and_a_cup_is_none(prong_mm: float, found: bool) -> None:
    assert forked(*rod(prong_mm), SPINE) is found


def test_prongs_at_the_head_do_not_count() -> None:
    v, f = rod(20.0)
    assert not forked(v, f, np.array([100.0, 10.0, 10.0]))


def test_sound_ribs_have_none() -> None:
    person = surface(draw_population(1, 0, 3)[0])
    spine = person.vertices[person.bone > 25].mean(axis=0)
    assert [k for k in RIBS if forked(*person.select(k)[:2], spine)] == []
