"""Quality: generalization and specificity equal those of an independent script that uses NumPy alone."""

from __future__ import annotations

import numpy as np
import pytest

from shapemodel.completion import complete, hidden_error
from shapemodel.model import fit_model
from shapemodel.population import area_weights
from shapemodel.quality import compactness, generalization, learning_curve, specificity
from shapemodel.reasons import InputError
from tests.synthetic import population


@pytest.fixture(scope="module")
def cohort():
    return population(12, seed=9, n_vertices=240, n_modes=6)


def lay_on(x: np.ndarray, y: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Weighted Kabsch, written again."""
    cx, cy = np.average(x, axis=0, weights=w), np.average(y, axis=0, weights=w)
    u, _, v = np.linalg.svd((x - cx).T @ ((y - cy) * w[:, None]))
    d = np.diag([1, 1, np.linalg.det(u @ v)])
    return (x - cx) @ (u @ d @ v) + cy


def procrustes(shapes: np.ndarray, faces: np.ndarray) -> np.ndarray:
    w = area_weights(shapes[0], faces)
    mean = shapes[0]
    for _ in range(40):
        shapes = np.stack([lay_on(x, mean, w) for x in shapes])
        mean = lay_on(shapes.mean(axis=0), shapes[0] * 0 + mean, w)
    return shapes


def test_generalization_by_an_independent_script(cohort) -> None:
    full = cohort[0]
    ours = generalization(full, [1, 3, 5])
    found = np.zeros((12, 3))
    for i in range(12):
        train = procrustes(np.delete(full.vertices, i, axis=0), full.faces)
        mean = train.mean(axis=0)
        modes = np.linalg.svd((train - mean).reshape(11, -1), full_matrices=False)[2]
        x = lay_on(full.vertices[i], mean, area_weights(mean, full.faces)) - mean
        for j, m in enumerate((1, 3, 5)):
            rest = x.ravel() - modes[:m].T @ (modes[:m] @ x.ravel())
            found[i, j] = np.sqrt((rest.reshape(-1, 3) ** 2).sum(axis=1).mean())
    np.testing.assert_allclose(ours.value, found.mean(axis=0), rtol=2e-3)  # area weights: theirs from one shape
    assert np.all(np.diff(ours.value) < 0)
    assert "without it" in ours.definition
    assert set(ours.by_bone) == set(range(1, 25))


def test_specificity_by_an_independent_script(cohort) -> None:
    done = complete(cohort[0])
    model = fit_model(done)
    ours = specificity(model, done.population.vertices, [1, 4], count=50, seed=3)
    draws = np.random.default_rng(3).standard_normal((50, model.n_modes))
    for j, m in enumerate((1, 4)):
        nearest = []
        for b in draws:
            y = model.mean + sum(b[k] * np.sqrt(model.variances[k]) * model.modes[k] for k in range(m))
            gap = [np.sqrt(((y - x) ** 2).sum(axis=1).mean()) for x in done.population.vertices]
            nearest.append(min(gap))
        assert ours.value[j] == pytest.approx(np.mean(nearest), rel=1e-4)


def test_left_out_subjects_do_not_touch_the_alignment(cohort) -> None:
    """One monstrous subject changes the others' errors only through models that contain it."""
    full = cohort[0]
    five = generalization(full.take(np.arange(6)), [2], folds=3, seed=1)
    again = generalization(full.take(np.arange(6)), [2], folds=3, seed=1)
    np.testing.assert_array_equal(five.value, again.value)
    with pytest.raises(InputError, match="at least 3"):
        generalization(full.take(np.arange(2)), [1])


def test_surface_distance_is_below_vertex_distance(cohort) -> None:
    whole = generalization(cohort[0].take(np.arange(8)), [2])
    surface = generalization(cohort[0].take(np.arange(8)), [2], surface=True)
    assert 0 < surface.value[0] < whole.value[0]


def test_compactness_ends_at_one(cohort) -> None:
    curve = compactness(fit_model(cohort[0], n_modes=11))
    assert curve.value[-1] == pytest.approx(1, abs=1e-6)
    assert np.all(np.diff(curve.value) > 0)


def test_learning_curve_falls_like_one_over_root_n() -> None:
    curve = learning_curve(complete(population(80, seed=2, n_vertices=240, cut=0.0)[0]), [5, 20], draws=40)
    # variance of the gap is s2 (1 / m + 1 / (n - m)): sqrt(1/5 + 1/75) / sqrt(1/20 + 1/60) = 1.79
    assert curve.value[0] / curve.value[1] == pytest.approx(1.79, rel=0.12)


def test_hidden_error_is_near_what_the_completion_expects() -> None:
    _, part, _ = population(30, seed=5, n_vertices=240, n_modes=6)
    found = hidden_error(part, folds=2)
    assert found.rms_mm < 3.0  # of 14 mm spread
    assert 0.4 < found.rms_mm / found.expected_mm < 3.0
    assert set(found.by_bone) <= set(range(1, 25))
