"""Query: percentiles mean what they say, and both numbers stand beside every shape."""

from __future__ import annotations

import numpy as np
import pytest

from shapemodel.model import fit_model
from shapemodel.query import joint_percentile, joint_query, query, sample_shapes
from shapemodel.reasons import InputError
from tests.synthetic import population


@pytest.fixture(scope="module")
def model():
    return fit_model(population(40, seed=8, cut=0.0)[0], n_modes=10)


def test_gaussian_percentile_of_a_mode(model) -> None:
    mesh, report = query(model, mode=1, percentile=95)
    np.testing.assert_allclose(mesh.vertices, model.instance([1.6448536]), atol=1e-5)
    assert report.kind == "mode-gaussian"
    assert report.joint_percentile == pytest.approx(90.0, abs=0.01)  # two-sided, one mode
    assert query(model, mode=1, percentile=50)[1].mahalanobis == pytest.approx(0, abs=1e-12)


def test_empirical_percentile_is_of_the_sample(model) -> None:
    score = query(model, mode=2, percentile=25, kind="empirical")[1].scores[1]
    assert (model.scores[:, 1] < score).mean() == pytest.approx(0.25, abs=0.025)
    with pytest.raises(InputError, match="does not exist"):
        query(model, mode=2, percentile=99.5, kind="empirical")


def test_ten_modes_at_their_95th_are_a_joint_997th(model) -> None:
    _, report = query(model, mode=dict.fromkeys(range(1, 11), 95.0))
    assert report.joint_percentile == pytest.approx(99.74, abs=0.01)  # FACTS section 4
    assert any("do not add up" in w and "99.7" in w for w in report.warnings)


def test_joint_percentile_along_a_direction(model) -> None:
    _, report = joint_query(model, 95, direction=np.ones(10))
    np.testing.assert_allclose(report.scores, 1.353, atol=0.001)  # sqrt(chi2inv(0.95, 10) / 10)
    draws = np.random.default_rng(3).standard_normal((20000, 10))
    assert (np.linalg.norm(draws, axis=1) < report.mahalanobis).mean() == pytest.approx(0.95, abs=0.005)
    assert joint_percentile(report.mahalanobis, 10) == pytest.approx(95)


def test_samples_are_seeded_and_say_how_far_out_they_are(model) -> None:
    one, two = sample_shapes(model, 4, seed=2), sample_shapes(model, 4, seed=2)
    np.testing.assert_array_equal(one[3][0].vertices, two[3][0].vertices)
    assert all(0 < r.joint_percentile < 100 for _, r in one)


def test_few_subjects_are_said_to_be_few() -> None:
    small = fit_model(population(4, seed=1)[0], "female")
    report = query(small, mode=1, percentile=95)[1]
    assert any("2 subjects only" in w for w in report.warnings)
    assert any("further out" in w for w in report.warnings)
    assert report.lines()[0].startswith("female model of 2")


@pytest.mark.parametrize(("mode", "percentile"), [(0, 50), (99, 50), (1, 0), (1, 100), (1, None)])
def test_refusals(model, mode, percentile) -> None:
    with pytest.raises(InputError):
        query(model, mode=mode, percentile=percentile)
