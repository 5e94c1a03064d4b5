"""Model: known mean and modes come back, from complete and from cut data, and the algebra holds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from shapemodel.completion import CompletionSettings, complete
from shapemodel.model import EXTRAPOLATED, OBSERVED, PRIOR, fit_model, mean_shape
from shapemodel.pca import principal_components
from shapemodel.population import align, seen_mean
from shapemodel.reasons import InputError
from tests.synthetic import onto, population

QUICK = CompletionSettings(calibration_folds=0)


@pytest.fixture(scope="module")
def cohort():
    return population(40, seed=1)


@pytest.fixture(scope="module")
def done(cohort):
    return complete(cohort[1], settings=QUICK)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Mean over vertices of the distance after a rigid fit, mm."""
    return float(np.linalg.norm(onto(a, b) - b, axis=1).mean())


def test_cut_chests_give_the_mean_of_their_whole_shapes(cohort, done) -> None:
    full, part, _ = cohort
    reference = align(full)
    plain = align(part)
    for sex in ("female", "male"):
        truth = reference.select(sex).vertices.mean(axis=0)
        ours = distance(fit_model(done, sex).mean, truth)
        chosen = plain.select(sex)
        seen_only = distance(seen_mean(chosen.vertices, chosen.visible), truth)
        whole = np.flatnonzero(chosen.visible.all(axis=1))
        dropped = distance(align(full.select(sex).take(whole)).vertices.mean(axis=0), truth)
        assert ours < 0.2  # noise of 0.2 mm, ten modes all supported
        assert seen_only > 4 * ours
        assert dropped > 4 * ours


def test_frames_do_not_tilt(cohort, done) -> None:
    full, part, _ = cohort
    reference = align(full)
    ours = onto(done.population.vertices.mean(axis=0), reference.vertices.mean(axis=0))
    move = ours.mean(axis=0) - done.population.vertices.mean(axis=(0, 1))
    assert np.linalg.norm(move) < 20  # the frames differ by little; now compare subject by subject
    seen = part.visible
    both = np.stack([onto(done.population.vertices[i], reference.vertices[i]) for i in range(40)])
    tilt_free = np.sqrt(((both - reference.vertices)[seen] ** 2).sum(axis=-1).mean())
    assert tilt_free < 0.3


def test_modes_of_cut_data_are_those_of_whole_data(cohort, done) -> None:
    full, _, _ = cohort
    whole, ours = fit_model(full), fit_model(done)
    rotation = np.linalg.svd(whole.mean.T @ (ours.mean - ours.mean.mean(axis=0)))
    turn = rotation[0] @ rotation[2]
    for k in range(3):
        cosine = abs(float(((ours.modes[k] @ turn.T) * whole.modes[k]).sum()))
        assert cosine > 0.98
    np.testing.assert_allclose(ours.variances[:3], whole.variances[:3], rtol=0.1)


def test_complete_data_is_plain_pca(cohort) -> None:
    full, _, _ = cohort
    model = fit_model(full, n_modes=12)
    x = align(full).vertices.reshape(40, -1)
    _, d, vt = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(model.variances, d[:12] ** 2 / 39, rtol=1e-6)
    np.testing.assert_allclose(np.abs((model.modes.reshape(12, -1) * vt[:12]).sum(axis=1)), 1, atol=1e-5)
    np.testing.assert_allclose(model.mean.ravel(), x.mean(axis=0), atol=1e-9)
    np.testing.assert_allclose(model.scores.std(axis=0, ddof=1), 1, rtol=1e-5)


def test_float32_streaming_equals_memory(cohort, tmp_path, monkeypatch) -> None:
    import h5py

    from shapemodel import pca

    x = align(cohort[0]).vertices.astype(np.float32)
    with h5py.File(tmp_path / "x.h5", "w") as f:
        f["x"] = x
        monkeypatch.setattr(pca, "BLOCK_BYTES", 40 * 12 * 100)  # a hundred vertices at a time
        disk = principal_components(f["x"], n_modes=5)
    np.testing.assert_allclose(disk.variances, principal_components(x.astype(float)).variances[:5], rtol=1e-5)


def test_invariants(done) -> None:
    model = fit_model(done, "female", n_modes=6)
    gram = model.modes.reshape(6, -1) @ model.modes.reshape(6, -1).T
    np.testing.assert_allclose(gram, np.eye(6), atol=1e-5)
    scores = np.array([1.5, -0.5, 2.0, 0.1, -1, 0.3])
    np.testing.assert_allclose(model.scores_of(model.instance(scores)), scores, atol=1e-4)
    np.testing.assert_array_equal(model.instance([]), model.mean)
    np.testing.assert_array_equal(model.sample(3, seed=4), model.sample(3, seed=4))
    short = model.truncate(2)
    assert short.n_modes == 2
    np.testing.assert_allclose(short.instance([1, 1]), model.instance([1, 1]), atol=1e-9)
    kept = short.variances.sum() + 3 * short.n_vertices * short.noise
    assert kept == pytest.approx(model.variances.sum() + 3 * model.n_vertices * model.noise)


def test_posterior_from_half_a_shape(done) -> None:
    model = fit_model(done)
    scores = np.random.default_rng(5).standard_normal(model.n_modes)
    shape = model.instance(scores)
    upper = np.flatnonzero(model.mean[:, 2] > model.mean[:, 2].mean())
    found, cov = model.posterior(shape[upper], upper, noise_mm=0.2)
    error = np.linalg.norm(model.instance(found) - shape, axis=1)
    assert error[upper].mean() < 0.5
    assert error.mean() < 3.0
    assert np.all(np.linalg.eigvalsh(cov) > 0)


def test_two_subjects_and_origin() -> None:
    _, part, _ = population(8, seed=2)
    visible = part.visible.copy()
    lowest, next_up = part.bone % 12 == 0, part.bone % 12 == 11
    visible[:, lowest] = False  # nobody saw rib 12
    visible[0::2, :] &= ~next_up  # no woman saw rib 11
    done = complete(replace(part, visible=visible), settings=QUICK)
    two = fit_model(done, np.array([0, 2]))
    assert two.n_subjects == 2
    assert two.n_modes >= 1
    women = fit_model(done, "female")
    assert set(women.origin[lowest]) == {PRIOR}
    assert EXTRAPOLATED in set(women.origin[next_up])
    assert women.origin[part.bone == 1].max() == OBSERVED
    assert np.isfinite(women.mean).all()
    mesh = mean_shape(women)
    assert mesh.arrays["n_seen"][part.bone == 1].min() > 0
    assert mesh.arrays["prior"][lowest].all()


def test_one_subject_is_its_own_mean() -> None:
    full, _, _ = population(3)
    model = fit_model(full, np.array([1]))
    assert model.n_modes == 0
    assert np.isnan(model.sem).all()
    np.testing.assert_allclose(distance(model.mean, full.vertices[1]), 0, atol=1e-9)


def test_same_bits_twice(cohort) -> None:
    part = cohort[1].take(np.arange(10))
    a, b = fit_model(part, "male"), fit_model(part, "male")
    np.testing.assert_array_equal(a.modes, b.modes)
    np.testing.assert_array_equal(a.mean, b.mean)


def test_hidden_positions_carry_no_information(cohort) -> None:
    """What a registration put into hidden vertices, or that it put nothing there, changes nothing."""
    part = cohort[1].take(np.arange(20))
    plain = complete(part, settings=QUICK)
    empty = complete(replace(part, vertices=np.where(part.visible[..., None], part.vertices, np.nan)), settings=QUICK)
    known = part.n_seen > 0
    gap = np.linalg.norm(plain.population.vertices.mean(axis=0) - empty.population.vertices.mean(axis=0), axis=1)
    assert gap[known].max() < 0.3  # half of what a mean is uncertain by; only the base of unseen vertices moves
    bad = part.vertices.copy()
    bad[0, np.flatnonzero(part.visible[0])[0]] = np.nan
    with pytest.raises(InputError, match="visible but"):
        complete(replace(part, vertices=bad))


def test_filled_parts_join_what_was_seen() -> None:
    """Four subjects, all cut elsewhere: no mean has a step where one subject fewer was seen."""
    full, _, truth = population(4, seed=3, n_vertices=4800, noise=0.0)
    z = truth.template[:, 2]
    visible = np.stack([z > q for q in np.quantile(z, [0.0, 0.15, 0.3, 0.4])])
    visible[:, z < np.quantile(z, 0.04)] = False  # and the very end was seen by nobody
    done = complete(replace(full, visible=visible), settings=QUICK)
    edges = np.vstack([full.faces[:, [0, 1]], full.faces[:, [1, 2]]])

    def lengths(x: np.ndarray) -> np.ndarray:
        return np.linalg.norm(x[edges[:, 0]] - x[edges[:, 1]], axis=1)

    ratio = lengths(done.population.vertices.mean(axis=0)) / lengths(align(full).vertices.mean(axis=0))
    assert np.abs(np.log(ratio)).max() < np.log(2.5)  # edges of 3 to 9 mm: no step of more than a few millimetres


def test_a_handful_of_subjects_keep_the_registrations_continuation() -> None:
    """Below eight subjects hidden vertices stay as registered, unless nothing was continued there."""
    full, part, _ = population(4, seed=3, n_vertices=2400)
    kept = complete(replace(full, visible=part.visible), settings=QUICK)  # positions are the true continuation
    whole = align(full)
    gap = onto(kept.population.vertices.mean(axis=0), whole.vertices.mean(axis=0)) - whole.vertices.mean(axis=0)
    assert np.abs(gap).max() < 1e-6
    assert (kept.sd[~part.visible] > 0).all()
    nowhere = np.where(part.visible[..., None], full.vertices, 0.0)
    filled = complete(replace(full, vertices=nowhere, visible=part.visible), settings=QUICK)
    assert np.linalg.norm(filled.population.vertices - 0.0, axis=2).min() > 1.0  # zeros were not believed


def test_leading_components_are_those_of_the_gram_matrix() -> None:
    """The way of large cohorts, on one where both can be done: variances, modes and scores agree."""
    from shapemodel.pca import leading_components, principal_components

    rng = np.random.default_rng(3)
    basis = rng.normal(size=(30, 3 * 400))
    shapes = (rng.normal(size=(300, 30)) * 10 * 0.85 ** np.arange(30)) @ basis + 0.3 * rng.normal(size=(300, 1200))
    shapes = (shapes + 500 * rng.normal(size=1200)).reshape(300, 400, 3).astype(np.float32)
    gram, found = principal_components(shapes, n_modes=10), leading_components(shapes, 10)
    np.testing.assert_allclose(found.mean, gram.mean, atol=1e-4)
    np.testing.assert_allclose(found.variances, gram.variances, rtol=1e-4)
    assert found.total == pytest.approx(gram.total, rel=1e-4)
    cosines = np.einsum("kvi,kvi->k", found.modes.astype(float), gram.modes.astype(float))
    np.testing.assert_allclose(cosines, 1, atol=1e-4)
    np.testing.assert_allclose(found.scores, gram.scores, atol=0.02)
