"""The phantom's population: covariates, known mean, sex differences, spread and spectrum like the published ones."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from shapemodel.phantom import Subject, draw_population, mean_subject
from shapemodel.phantom.shape import MIRROR, anatomy
from shapemodel.phantom.tables import scree_percent
from shapemodel.reasons import InputError

EACH = 40


def curves(subject: Subject) -> tuple[np.ndarray, np.ndarray]:
    """(n, 3) points along the 24 ribs as in the NAKO study, and (2, 12) lengths, mm."""
    a = anatomy.__wrapped__(subject)
    points, lengths = [], np.zeros((2, 12))
    for (side, level), curve in a.curves.items():
        p = a.bend(curve.points[::8] * (MIRROR if side else 1.0))
        points.append(p)
        lengths[side, level - 1] = np.linalg.norm(np.diff(p, axis=0), axis=1).sum()
    return np.vstack(points), lengths


@cache
def cohort() -> tuple[list[Subject], np.ndarray, np.ndarray]:
    people = draw_population(EACH, EACH, seed=5)
    made = [curves(s) for s in people]
    return people, np.array([p for p, _ in made]), np.array([x for _, x in made])


def aligned(shapes: np.ndarray) -> np.ndarray:
    """Rigid generalised Procrustes, size kept."""
    out = shapes - shapes.mean(axis=1, keepdims=True)
    mean = out[0]
    for _ in range(4):
        for i, x in enumerate(out):
            u, _, vt = np.linalg.svd(x.T @ mean)
            u[:, -1] *= np.sign(np.linalg.det(u @ vt))
            out[i] = x @ u @ vt
        mean = out.mean(axis=0)
    return out


def test_same_seed_same_people_and_more_people_keep_the_first():
    assert draw_population(3, 2, seed=7) == draw_population(3, 2, seed=7)
    assert draw_population(3, 2, seed=7)[:2] == draw_population(2, 0, seed=7)
    assert draw_population(3, 0, seed=7) != draw_population(3, 0, seed=8)
    assert len({s.subject for s in draw_population(4, 4, seed=1)}) == 8


def test_covariates_are_those_of_an_adult_cohort():
    people = draw_population(300, 300, seed=1)
    age = np.array([s.age_years for s in people])
    assert age.min() >= 25
    assert age.max() <= 85
    assert 50 < age.mean() < 60
    for sex, height in (("F", 164.5), ("M", 178.0)):
        group = [s for s in people if s.sex == sex]
        assert np.mean([s.height_cm for s in group]) == pytest.approx(height, abs=1.5)
        bmi = [s.weight_kg / (s.height_cm / 100) ** 2 for s in group]
        assert 23 < np.median(bmi) < 29
    young, old = age < 45, age > 65
    kyphosis = np.array([s.kyphosis_deg for s in people])
    assert kyphosis[old].mean() > kyphosis[young].mean() + 3


def test_wrong_subject_is_refused():
    with pytest.raises(InputError, match="sex"):
        Subject("x", "X", 50.0, 170.0, 70.0, seed=1)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="n_pairs"):
        replace(mean_subject("F"), n_pairs=10)


def test_mean_shape_is_the_mean_of_people():
    """With covariates fixed, people scatter about the mean shape: the mean of 80 lies within its standard error."""
    base = mean_subject("F")
    group = [replace(base, subject=f"s{i}", seed=1000 + i, residual=1.0) for i in range(80)]
    shapes = aligned(np.array([curves(base)[0], *(curves(s)[0] for s in group)]))
    spread = np.sqrt(((shapes[1:] - shapes[1:].mean(axis=0)) ** 2).sum(axis=2).mean())
    off = np.linalg.norm(shapes[1:].mean(axis=0) - shapes[0], axis=1).mean()
    assert off < 2.5 * spread / np.sqrt(80)


def test_spread_is_that_of_the_published_cohort():
    shapes = aligned(cohort()[1])
    rms = np.sqrt(((shapes - shapes.mean(axis=0)) ** 2).sum(axis=2).mean())
    assert 12.0 < rms < 16.0, f"{rms:.1f} mm; 14 mm follow from the NAKO cohort"


def test_spectrum_falls_like_the_published_one():
    shapes = aligned(cohort()[1])
    flat = (shapes - shapes.mean(axis=0)).reshape(len(shapes), -1)
    variance = np.linalg.svd(flat, compute_uv=False) ** 2
    percent = 100 * variance / variance.sum()
    published = scree_percent()
    assert np.all(np.abs(percent[:3] - published[:3]) < [9, 9, 4]), percent[:3]
    assert np.all(np.abs(np.cumsum(percent)[[5, 9, 19]] - np.cumsum(published)[[5, 9, 19]]) < 8)
    assert (np.cumsum(percent) < 95).sum() + 1 >= 10, "not a handful of modes"


def test_rib_length_varies_within_sex_as_published():
    people, _, lengths = cohort()
    for sex in ("F", "M"):
        own = lengths[[s.sex == sex for s in people]].mean(axis=1)
        percent = 100 * own.std(axis=0, ddof=1) / own.mean(axis=0)
        assert 4.0 < percent[1:10].mean() < 6.8, f"{sex}: {percent.round(1)}; about 5.4 published"


def test_women_are_smaller_and_their_ribs_steeper():
    women, men = anatomy(mean_subject("F")), anatomy(mean_subject("M"))
    ratio = women.curves[0, 6].length / men.curves[0, 6].length
    assert 0.90 < ratio < 0.95  # Holcombe 2016: 0.932

    def slope(a, level):
        chord = a.curves[0, level].points[-1] - a.curves[0, level].points[0]
        return np.degrees(np.arccos(-chord[2] / np.linalg.norm(chord)))

    assert 1.5 < np.mean([slope(men, k) - slope(women, k) for k in range(2, 8)]) < 7.0
    assert women.column.width[6] / men.column.width[6] == pytest.approx(0.91, abs=0.02)
    assert women.sections.long[0, 5] < 0.92 * men.sections.long[0, 5]


def test_heavier_and_older_people_have_more_level_ribs():
    base = mean_subject("M")

    def height_of(subject):
        curve = anatomy(subject).curves[0, 6]
        return curve.points[-1, 2] - curve.points[0, 2]

    assert height_of(replace(base, weight_kg=base.weight_kg + 20)) > height_of(base) + 8
    assert height_of(replace(base, age_years=80.0)) > height_of(base) + 3


def test_sides_differ_little():
    lengths = cohort()[2]
    percent = 100 * np.abs(lengths[:, 0] - lengths[:, 1]) / lengths.mean(axis=1)
    assert 0.3 < percent[:, 1:10].mean() < 2.5


def test_kyphosis_and_scoliosis_do_what_they_say():
    base = mean_subject("F")
    bent = anatomy(replace(base, kyphosis_deg=55.0)).column
    tilt = np.degrees(np.arctan2(bent.axes[[1, 12], 1, 2], bent.axes[[1, 12], 2, 2]))
    assert tilt[1] - tilt[0] == pytest.approx(55.0, abs=1.0)
    side = anatomy(replace(base, scoliosis_deg=10.0)).column
    lean = np.degrees(np.arctan2(side.axes[1:13, 0, 2], side.axes[1:13, 2, 2]))
    assert np.abs(lean).max() == pytest.approx(10.0, abs=1.0)
