"""What is known at the vertices of one mesh, at those of another mesh of the same surface."""

from __future__ import annotations

import gpytoolbox
import numpy as np

from shapemodel.carrying import carry
from shapemodel.mesh import Mesh, join


def balls(level: int) -> Mesh:
    """Two bones that touch each other."""
    v, f = gpytoolbox.icosphere(level)
    return join({1: (20.0 * v, f.astype(np.int64)), 2: (20.0 * v + [40.0, 0, 0], f.astype(np.int64))})


def test_positions_and_marks_come_along_bone_by_bone() -> None:
    fine, coarse = balls(4), balls(3)
    fine = fine.with_vertices(fine.vertices + [0.05, 0.02, -0.03])
    onto = carry(coarse, fine)
    place = onto.blended(fine.vertices)
    # a chord of the finer ball lies 0.04 mm below it at most, and the balls lie 0.06 mm beside each other
    assert np.linalg.norm(place - coarse.vertices, axis=1).max() < 0.12
    assert np.array_equal(onto.picked(fine.bone), coarse.bone)
    marked = fine.vertices[:, 2] > 5
    agrees = onto.picked(marked) == (coarse.vertices[:, 2] > 5)
    assert agrees[np.abs(coarse.vertices[:, 2] - 5) > 3].all()


def test_onto_itself_nothing_changes() -> None:
    mesh = balls(3)
    values = np.random.default_rng(1).normal(size=(len(mesh.vertices), 3))
    onto = carry(mesh, mesh)
    np.testing.assert_allclose(onto.blended(values), values, atol=1e-9)
    assert np.array_equal(onto.picked(mesh.bone), mesh.bone)
