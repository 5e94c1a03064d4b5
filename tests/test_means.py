"""Means: intervals that cover, differences that are there and only there, sizes that match."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from shapemodel.completion import complete
from shapemodel.means import centroid_size, difference, error_budget, false_discovery, mean_interval, size_matched_mean
from shapemodel.model import fit_model
from shapemodel.population import align, area_weights
from shapemodel.reasons import InputError
from tests.synthetic import onto, population


@pytest.mark.parametrize("cohorts", [8, pytest.param(50, marks=pytest.mark.slow)])
def test_interval_of_the_mean_covers_the_known_mean(cohorts) -> None:
    """Cohorts of 24 with half of the chests cut: 95 % limits hold the truth in 90-98 % of coordinates."""
    share, hidden = [], []
    for seed in range(cohorts):
        _, part, truth = population(24, seed=seed, n_vertices=240, n_modes=4, noise=0.1)
        got = mean_interval(complete(part), repeats=200)
        known = onto(truth.template, got.mean)  # half of each sex: the scores' mean is zero
        inside = (got.low < known) & (known < got.high)
        share.append(inside.mean())
        hidden.append(inside[part.n_seen < 16].mean())
    slack = 0.0 if cohorts >= 50 else 0.06  # eight cohorts share much of their luck
    assert 0.90 - slack <= np.mean(share) <= 0.98 + slack
    assert 0.88 - slack <= np.nanmean(hidden) <= 0.99 + slack


def test_standard_error_is_larger_where_less_was_seen() -> None:
    full, part, _ = population(24, seed=3, n_modes=30, cut=0.7)
    done = complete(part)
    pooled, whole = mean_interval(done, repeats=300), mean_interval(complete(full), repeats=300)
    assert np.all(pooled.sem > 0)
    low = part.n_seen < 16
    assert (pooled.sem / whole.sem)[low].mean() > (pooled.sem / whole.sem)[~low].mean()
    np.testing.assert_allclose(whole.sem**2, (((whole.high - whole.low) / 2) ** 2).sum(axis=1) / 4.46, rtol=0.35)
    with pytest.raises(InputError, match="at least 2"):
        mean_interval(done, np.array([3]))


def test_difference_is_found_where_it_was_put_and_nowhere_else() -> None:
    rng = np.random.default_rng(1)
    full, _, truth = population(40, seed=2, n_modes=1, cut=0.0)
    shapes = truth.template + rng.normal(size=(40, len(truth.template), 3)) * 1.0
    male = np.array([s == "M" for s in full.sex])
    changed = truth.template[:, 2] > 100
    shapes[np.ix_(male, changed)] += [3.0, 0, 0]
    result = difference(complete(replace(full, vertices=shapes)), permutations=500)
    called = result.q < 0.05
    assert called[changed].mean() > 0.99
    assert called[~changed].mean() < 0.25  # rigid alignment shares some of the change with the rest
    assert result.counts == (20, 20)
    none = difference(
        complete(replace(full, vertices=shapes)), np.arange(0, 40, 4), np.arange(2, 40, 4), permutations=500
    )
    assert (none.q < 0.05).mean() < 0.05


def test_false_discovery_is_benjamini_hochberg() -> None:
    p = np.array([0.01, 0.04, 0.03, 0.5])
    np.testing.assert_allclose(false_discovery(p), [0.04, 0.16 / 3, 0.16 / 3, 0.5])


def test_size_matched_means_have_one_size() -> None:
    full, _, truth = population(20, seed=5, n_modes=2, cut=0.0)
    scaled = full.vertices * np.where(np.array(full.sex) == "M", 1.1, 0.95)[:, None, None]
    done = complete(replace(full, vertices=scaled))
    women, size = size_matched_mean(done, "female")
    men, _ = size_matched_mean(done, "male")
    weights = area_weights(women, full.faces)
    plain = align(replace(full, vertices=scaled))
    sizes = [centroid_size(plain.select(g).vertices.mean(axis=0), weights) for g in ("female", "male")]
    assert sizes[1] / sizes[0] > 1.1
    assert centroid_size(men, weights) / centroid_size(women, weights) == pytest.approx(1, abs=0.01)
    assert size == pytest.approx(centroid_size(truth.template, weights), rel=0.05)


def test_error_budget_adds_in_squares() -> None:
    model = fit_model(population(12, seed=5, cut=0.0)[0], "female")
    rows = error_budget(model, boundary_mm={3: 0.3, 4: 0.4}, correspondence_mm={3: 0.5})
    assert [r.label for r in rows] == [3]
    sampling = np.sqrt((model.sem[model.reference.bone == 3] ** 2).mean())
    assert rows[0].total_mm == pytest.approx(np.sqrt(0.3**2 + 0.5**2 + sampling**2))
