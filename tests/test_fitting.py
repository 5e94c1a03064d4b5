"""Fitting: a new subject's shape and frame come back, and what was not seen says how unsure it is."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from shapemodel.fitting import fit_landmarks, fit_surface, fit_vertices
from shapemodel.mesh import Mesh
from shapemodel.model import fit_model
from shapemodel.reasons import InputError
from tests.synthetic import population

TURN = Rotation.from_rotvec([0.2, -0.3, 0.5]).as_matrix()
SHIFT = np.array([100.0, -50.0, 900.0])


@pytest.fixture(scope="module")
def model():
    return fit_model(population(60, seed=4, cut=0.0)[0], n_modes=10)


@pytest.fixture(scope="module")
def person(model):
    scores = np.random.default_rng(2).standard_normal(10)
    return scores, model.instance(scores) @ TURN.T + SHIFT


def test_whole_shape_in_any_frame(model, person) -> None:
    scores, shape = person
    fit = fit_vertices(model, shape, noise_mm=0.1)
    assert fit.converged
    np.testing.assert_allclose(fit.scores, scores, atol=0.02)
    np.testing.assert_allclose(fit.mesh.vertices, shape, atol=0.1)
    np.testing.assert_allclose(model.instance(scores) @ fit.rotation.T + fit.shift, shape, atol=0.3)


def test_missing_bones_are_predicted_and_uncertain(model, person) -> None:
    _, shape = person
    visible = np.isin(model.reference.bone % 12, (1, 2))
    noisy = shape + np.random.default_rng(1).normal(size=shape.shape) * 1.0
    fit = fit_vertices(model, np.where(visible[:, None], noisy, 1e4), visible, noise_mm=1.0)
    error = np.linalg.norm(fit.mesh.vertices - shape, axis=1)
    sd = fit.mesh.arrays["sd_mm"]
    assert error[visible].mean() < 1.0
    assert sd[model.reference.bone % 12 == 11].mean() > 1.2 * sd[visible].mean()
    assert 0.3 < np.sqrt((error[~visible] ** 2).mean()) / np.sqrt((sd[~visible] ** 2).mean()) < 2.5


def test_posterior_spread_is_calibrated(model) -> None:
    """Standardised errors of hidden vertices have unit variance over many people drawn from the model."""
    visible = np.isin(model.reference.bone % 12, range(1, 8))
    ratios = []
    for seed in range(30):
        shape = model.sample(1, seed=seed)[0] + np.random.default_rng(seed).normal(size=model.mean.shape) * 1.0
        fit = fit_vertices(model, shape @ TURN.T + SHIFT, visible, noise_mm=1.0, independent=10**6)
        miss = ((fit.mesh.vertices - SHIFT) @ TURN - shape)[~visible]
        own = fit.mesh.arrays["sd_mm"][~visible] ** 2 + 3.0
        ratios.append((miss**2).sum(axis=1).mean() / own.mean())
    assert 0.8 < np.mean(ratios) < 1.25


def test_landmarks(model, person) -> None:
    _, shape = person
    chosen = {int(i): shape[i] for i in range(0, len(shape), 60)}
    fit = fit_landmarks(model, chosen, noise_mm=0.5)
    assert np.linalg.norm(fit.mesh.vertices - shape, axis=1).mean() < 2.0
    with pytest.raises(InputError, match="3 points"):
        fit_landmarks(model, {i: shape[i] for i in range(3)})


def test_gross_errors_lose_their_weight(model, person) -> None:
    _, shape = person
    bad = shape.copy()
    bad[model.reference.bone == 5] += 40.0
    plain = fit_vertices(model, bad)
    robust = fit_vertices(model, bad, robust=True)
    good = model.reference.bone != 5
    error = [np.linalg.norm(f.mesh.vertices - shape, axis=1)[good].mean() for f in (plain, robust)]
    assert error[1] < 0.5 < error[0]


def test_surface_without_correspondence(model, person) -> None:
    _, shape = person
    keep = model.reference.bone != 6  # a missing bone
    order = np.random.default_rng(3).permutation(np.flatnonzero(keep))
    target = Mesh(shape[order], np.zeros((0, 3), int), model.reference.bone[order])
    fit = fit_surface(model, target, noise_mm=1.0)
    assert np.linalg.norm(fit.mesh.vertices - shape, axis=1).mean() < 3.0
    with pytest.raises(InputError, match="bones"):
        fit_surface(model, Mesh(shape[:50], np.zeros((0, 3), int), np.full(50, 40)))
