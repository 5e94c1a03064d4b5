"""Population: rigid frames with known truth, groups, storage."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from shapemodel.mesh import Mesh
from shapemodel.population import align, area_weights, gather, read_population, rigid_fit, write_population
from shapemodel.reasons import InputError
from tests.synthetic import population


def test_rigid_fit_returns_the_motion_that_was_applied() -> None:
    rng = np.random.default_rng(1)
    points = rng.normal(size=(200, 3)) * 100
    turn = Rotation.from_rotvec([0.3, -1.2, 2.0]).as_matrix()
    rotation, shift = rigid_fit(points, points @ turn.T + [10, -20, 5], rng.uniform(0.1, 2, 200))
    np.testing.assert_allclose(rotation, turn, atol=1e-12)
    np.testing.assert_allclose(shift, [10, -20, 5], atol=1e-9)


def test_rigid_fit_never_reflects() -> None:
    points = np.random.default_rng(2).normal(size=(50, 3)) * [100, 60, 30]
    rotation, _ = rigid_fit(points, points * [-1, 1, 1], np.ones(50))
    assert np.linalg.det(rotation) == pytest.approx(1.0)


def test_align_keeps_size_and_undoes_frames() -> None:
    full, _, truth = population(12, seed=3, n_modes=3, noise=0.0)
    same = replace(full, vertices=np.stack([full.vertices[0] @ Rotation.from_rotvec([0, 0, a]).as_matrix().T + 50 * a
                                            for a in np.linspace(0, 0.5, 12)]))  # fmt: skip
    aligned = align(same)
    assert np.abs(aligned.vertices - aligned.vertices[0]).max() < 1e-6  # one shape in twelve frames
    sizes = [np.linalg.norm(x - x.mean(axis=0)) for x in align(full).vertices]
    np.testing.assert_allclose(sizes, [np.linalg.norm(x - x.mean(axis=0)) for x in truth.whole], rtol=1e-9)


def test_the_frame_is_that_in_which_people_lie_on_average() -> None:
    """The one who shows most lies askew by 0.4 rad, the others by 0.1 to both sides: the mean lies straight."""
    full, _, _ = population(6, seed=3, n_modes=3, noise=0.0)
    straight = np.asarray(full.vertices[0])
    centre = straight.mean(axis=0)
    angles = [0.4, -0.1, -0.1, -0.1, -0.1, 0.0]
    turned = [(straight - centre) @ Rotation.from_rotvec([a, 0, 0]).as_matrix().T + centre for a in angles]
    visible = np.ones((6, full.n_vertices), bool)
    visible[1:, 0] = False
    aligned = align(replace(full, vertices=np.stack(turned), visible=visible))
    rotation, _ = rigid_fit(straight, aligned.vertices[0], np.ones(full.n_vertices))
    assert Rotation.from_matrix(rotation).magnitude() < 0.005


def test_alignment_is_weighted_by_area_not_by_vertex_count() -> None:
    # a square of 4 corners beside one finely meshed small triangle fan: the fan must not dominate
    points = np.array([[0, 0, 0], [10, 0, 0], [10, 10, 0], [0, 10, 0], [20, 0, 0], [20.1, 0, 0], [20, 0.1, 0.0]])
    faces = np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6]])
    weights = area_weights(points, faces)
    assert weights[:4].sum() / weights.sum() > 0.99


def test_groups_and_refusals() -> None:
    full, _, _ = population(6)
    assert full.select("female").sex == ("F", "F", "F")
    assert full.select(np.array([1, 4])).subjects == ("s001", "s004")
    with pytest.raises(InputError, match="unknown group"):
        full.select("women")
    with pytest.raises(InputError, match="6 subjects"):
        full.select(np.ones(5, bool))
    with pytest.raises(InputError, match="no subjects"):
        full.select("male").select("female")
    with pytest.raises(InputError, match="twice"):
        replace(full, subjects=("a", "a", "b", "c", "d", "e"))
    with pytest.raises(InputError, match="sex"):
        replace(full, sex=("F", "M", "X", "F", "M", "F"))


def test_gather_refuses_another_template() -> None:
    full, _, _ = population(2)
    one, two = full.mesh(0), full.mesh(1)
    other = Mesh(two.vertices, two.faces[:-1], two.bone)
    assert gather([one, two], subjects=["a", "b"], sex=["F", None]).n_seen.tolist() == [2] * full.n_vertices
    with pytest.raises(InputError, match="b: .*register all with one template"):
        gather([one, other], subjects=["a", "b"])


def test_storage_is_exact_and_deterministic(tmp_path) -> None:
    _, part, _ = population(5)
    a, b = write_population(part, tmp_path / "a.h5"), write_population(part, tmp_path / "b.h5")
    assert a.read_bytes() == b.read_bytes()
    back = read_population(a)
    np.testing.assert_array_equal(back.vertices, part.vertices)
    np.testing.assert_array_equal(back.visible, part.visible)
    assert (back.subjects, back.sex) == (part.subjects, part.sex)
    np.testing.assert_array_equal(back.covariates["height_cm"], part.covariates["height_cm"])
