"""The phantom's subjects: who they are, and the seeded numbers that make one unlike another.

A subject is a small record; everything about the shape follows from it. Each random quantity has a stream of
its own, ``stream(subject, name)``, so that a new one never changes the others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from shapemodel.reasons import InputError

Array = NDArray[np.float64]
Sex = Literal["F", "M"]

AGE_YEARS = (55.0, 16.0, 25.0, 85.0)
"""Mean, SD, least, most: an adult chest CT cohort."""
HEIGHT_CM = {"F": (164.5, 6.5), "M": (178.0, 7.0)}
BMI = {"F": (25.4, 0.17), "M": (26.6, 0.14)}
"""Median, and SD of the logarithm, kg/m2."""
KYPHOSIS_DEG = {"F": 35.0, "M": 32.0}
"""T1-T12 lying supine, at 55 years."""
KYPHOSIS_PER_YEAR, KYPHOSIS_SD = 0.18, 7.5


@dataclass(frozen=True)
class Subject:
    """One phantom person.

    Attributes
    ----------
    subject : identifier, e.g. ``phantom_F003``
    sex, age_years, height_cm, weight_kg : covariates
    seed : of everything random about the shape
    n_pairs : 12; 11 has no twelfth ribs, 13 has short lumbar ribs (a distractor, not a bone of the model)
    kyphosis_deg : sagittal angle between T1 and T12
    scoliosis_deg : largest coronal tilt of a level
    residual : 1 for a person; 0 for the mean shape at these covariates
    """

    subject: str
    sex: Sex
    age_years: float
    height_cm: float
    weight_kg: float
    seed: int
    n_pairs: int = 12
    kyphosis_deg: float = 33.0
    scoliosis_deg: float = 0.0
    residual: float = 1.0

    def __post_init__(self) -> None:
        if self.sex not in ("F", "M") or self.n_pairs not in (11, 12, 13):
            raise InputError(f"{self.subject}: sex is F or M and n_pairs 11-13, got {self.sex!r}, {self.n_pairs}")


def stream(subject: Subject, name: str) -> np.random.Generator:
    """The subject's own random numbers for the quantity of this name."""
    return np.random.default_rng([subject.seed, crc32(name.encode())])


def expected_kyphosis(sex: Sex, age_years: float) -> float:
    """Degrees between T1 and T12, supine, at this age."""
    return KYPHOSIS_DEG[sex] + KYPHOSIS_PER_YEAR * (age_years - AGE_YEARS[0])


def mean_subject(sex: Sex | None = None) -> Subject:
    """The person at the mean covariates of the population with no residual; ``None`` is the pooled reference.

    The pooled reference has a man's or woman's traits half each: its covariates are the average of the two
    means, and its sex is taken as F with sex effects halved (see :func:`female_share`).
    """
    if sex is None:
        women, men = mean_subject("F"), mean_subject("M")
        return replace(
            women,
            subject=POOLED,
            height_cm=0.5 * (women.height_cm + men.height_cm),
            weight_kg=0.5 * (women.weight_kg + men.weight_kg),
            kyphosis_deg=0.5 * (women.kyphosis_deg + men.kyphosis_deg),
        )
    height = HEIGHT_CM[sex][0]
    weight = BMI[sex][0] * (height / 100.0) ** 2
    kyphosis = expected_kyphosis(sex, AGE_YEARS[0])
    return Subject(f"phantom_mean_{sex}", sex, AGE_YEARS[0], height, weight, 0, kyphosis_deg=kyphosis, residual=0.0)


POOLED = "phantom_mean"
"""Identifier of the pooled reference."""


def female_share(subject: Subject) -> float:
    """1 for a woman, 0 for a man, a half for the pooled reference: the weight of every sex effect."""
    if subject.subject == POOLED:
        return 0.5
    return 1.0 if subject.sex == "F" else 0.0


def by_sex(subject: Subject, women: float, men: float) -> float:
    """A number that differs between the sexes, for this subject."""
    share = female_share(subject)
    return share * women + (1.0 - share) * men


def draw_population(n_female: int, n_male: int, seed: int, *, residual: float = 1.0) -> list[Subject]:
    """Women, then men, of an adult CT cohort: 25-85 years, height and weight by sex, kyphosis growing with age.

    Parameters
    ----------
    n_female, n_male : how many of each
    seed : of the cohort; subject ``k`` of a sex is the same person however many are drawn
    residual : scale of what covariates do not explain
    """
    groups: tuple[tuple[Sex, int], ...] = (("F", n_female), ("M", n_male))
    return [_draw(sex, k, seed, residual) for sex, n in groups for k in range(n)]


def _draw(sex: Sex, index: int, seed: int, residual: float) -> Subject:
    rng = np.random.default_rng([seed, ord(sex), index])
    mean, sd, low, high = AGE_YEARS
    age = float(np.clip(rng.normal(mean, sd), low, high))
    height = float(np.clip(rng.normal(*HEIGHT_CM[sex]), 145.0, 202.0))
    bmi = float(np.clip(BMI[sex][0] * np.exp(BMI[sex][1] * rng.normal()), 17.0, 42.0))
    kyphosis = expected_kyphosis(sex, age) + residual * KYPHOSIS_SD * float(np.clip(rng.normal(), -2.2, 2.2))
    return Subject(
        subject=f"phantom_{sex}{index:03d}",
        sex=sex,
        age_years=round(age, 1),
        height_cm=round(height, 1),
        weight_kg=round(bmi * (height / 100.0) ** 2, 1),
        seed=int(rng.integers(2**31)),
        kyphosis_deg=round(max(kyphosis, 8.0), 2),
        residual=residual,
    )


def level_noise(rng: np.random.Generator, count: int, reach: float, asymmetry: float = 0.0) -> Array:
    """(2, count) unit-variance noise, left and right, smooth from level to level.

    ``reach`` is the distance in levels over which it stays alike; ``asymmetry`` the share of the variance
    that is the side's own.
    """
    k = np.arange(count)
    cov = np.exp(-0.5 * ((k[:, None] - k[None]) / reach) ** 2) + 1e-6 * np.eye(count)
    shared, left, right = (np.linalg.cholesky(cov) @ rng.normal(size=(count, 3)).clip(-2.6, 2.6)).T
    mix = np.sqrt(1.0 - asymmetry) * shared
    return np.stack([mix + np.sqrt(asymmetry) * left, mix + np.sqrt(asymmetry) * right])
