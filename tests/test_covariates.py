"""Covariates: effects that were put in come back, intervals cover, the hull is watched, residuals are conditional."""

from __future__ import annotations

import numpy as np
import pytest

from shapemodel.covariates import covariate_query, in_hull, residual_query, residual_samples
from shapemodel.model import fit_model
from shapemodel.reasons import InputError
from shapemodel.regression import mean_interval, regress, residual_modes
from tests.synthetic import onto, population


@pytest.fixture(scope="module")
def model():
    return fit_model(population(60, seed=4, cut=0.0)[0])


def test_shape_at_covariates_is_the_known_average() -> None:
    full, _, truth = population(400, seed=5, cut=0.0, n_vertices=240, n_modes=6)
    big = fit_model(full)
    mesh, report = covariate_query(big, {"sex": "F", "height_cm": 160.0})
    # height = 168 + 5 a + noise of 3; a ~ N(-0.8, 1) in women: E[a | height] = -0.8 + 5 / 34 (160 - 164)
    known = truth.template + truth.modes[0] * (-0.8 + 5 / 34 * (160 - 164))
    assert np.linalg.norm(onto(mesh.vertices, known) - known, axis=1).mean() < 2.0  # 14 mm spread, 400 subjects
    assert report.kind == "covariates"
    assert not report.warnings
    assert report.details["cv_error_mm"] >= report.details["residual_sd_mm"] * 0.98


def test_leave_one_out_error_is_what_refitting_gives(model) -> None:
    fit = regress(model, ("height_cm",))
    x = np.column_stack([np.ones(60), model.covariates["height_cm"]])
    errors = []
    for i in range(60):
        rest = np.delete(np.arange(60), i)
        beta = np.linalg.lstsq(x[rest], model.scores[rest], rcond=None)[0]
        errors.append(((model.scores[i] - x[i] @ beta) ** 2 @ model.variances) / model.n_vertices)
    assert fit.cv_error_mm == pytest.approx(np.sqrt(np.mean(errors) + 3 * model.noise), rel=1e-6)


def test_intervals_cover_the_known_average() -> None:
    """50 cohorts of 30: the 95 % interval of the average at given covariates holds it in 90-98 % of coordinates."""
    share = []
    rng = np.random.default_rng(11)
    for seed in range(50):
        full, _, truth = population(30, seed=seed, cut=0.0, n_vertices=240, n_modes=4, noise=0.1)
        values = {"sex": "M", "height_cm": float(rng.uniform(165, 178))}
        fit = regress(fit_model(full), ("sex", "height_cm"))
        low, high = mean_interval(fit, values)
        known = truth.template + truth.modes[0] * (0.8 + 5 / 34 * (values["height_cm"] - 172))
        known = onto(known, (low + high) / 2)
        share.append(((low < known) & (known < high)).mean())
    assert 0.90 <= np.mean(share) <= 0.98


def test_outside_the_sample_is_said(model) -> None:
    _, report = covariate_query(model, {"sex": "F", "height_cm": 230.0})
    assert any("outside the sampled range" in w for w in report.warnings)
    heights = model.covariates["height_cm"]
    corner = {"age_years": float(model.covariates["age_years"].max()), "height_cm": float(heights.max())}
    _, report = covariate_query(model, corner)
    assert any("convex hull" in w for w in report.warnings)


def test_hull() -> None:
    square = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    assert in_hull(np.array([0.5, 0.9]), square)
    assert not in_hull(np.array([0.5, 1.1]), square)


def test_residual_modes_hold_what_regression_leaves(model) -> None:
    fit = regress(model, ("sex", "height_cm"))
    rest = residual_modes(fit)
    gram = rest.directions @ np.diag(model.variances) @ rest.directions.T
    np.testing.assert_allclose(gram, np.diag(rest.variances), atol=1e-6 * rest.variances[0])
    values = {"sex": "M", "height_cm": 175.0}
    up, report = residual_query(model, values, mode=1, percentile=95, fit=fit)
    down, _ = residual_query(model, values, mode=1, percentile=5, fit=fit)
    centre = covariate_query(model, values, fit=fit)[0].vertices
    np.testing.assert_allclose((up.vertices + down.vertices) / 2, centre, atol=1e-3)
    assert report.joint_percentile == pytest.approx(90, abs=0.01)
    people = residual_samples(model, values, 200, seed=1, fit=fit)
    spread = np.stack([m.vertices for m, _ in people]).std(axis=0)
    expected = np.sqrt(rest.variances.sum() / model.n_vertices / 3)
    assert np.sqrt((spread**2).mean()) == pytest.approx(expected, rel=0.1)


def test_refusals(model) -> None:
    with pytest.raises(InputError, match="no covariate 'shoe_size'"):
        covariate_query(model, {"shoe_size": 40})
    with pytest.raises(InputError, match="are needed"):
        regress(fit_model(population(8, seed=1, cut=0.0)[0], "female"), ("age_years", "height_cm"))
    with pytest.raises(InputError, match="sex must be"):
        covariate_query(model, {"sex": "X"})
