"""Percentile shapes of a mode and of the whole distribution, each with both numbers printed beside it.

A percentile *of a mode* moves one mode (Gaussian: by the normal quantile; empirical: by the quantile of the
subjects' own scores). The *joint* percentile says how far a shape lies out in the whole distribution: the
share of the population nearer to the mean by Mahalanobis distance, chi-square with as many degrees of freedom
as modes. They are not interchangeable: ten modes each at their 95th make a shape at the 99.7th joint
percentile among those ten. Percentiles by covariates are in :mod:`shapemodel.covariates`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2, norm

from shapemodel.mesh import Mesh
from shapemodel.model import FEW_SUBJECTS, ShapeModel
from shapemodel.reasons import InputError

Kind = Literal["gaussian", "empirical"]

MIN_EMPIRICAL = 3
"""An empirical quantile of fewer scores is not a quantile."""


@dataclass(frozen=True)
class QueryReport:
    """What a queried shape is.

    Attributes
    ----------
    what : one sentence
    kind : ``mode-gaussian``, ``mode-empirical``, ``joint``, ``covariates``, ``residual`` or ``sample``
    scores : (K,) standard deviations
    mahalanobis : length of the scores
    joint_percentile : of that distance, chi-square with ``degrees`` degrees of freedom
    degrees : the modes that the question moves (the joint percentile's dimension)
    n_subjects : of the model
    warnings : sentences for the user
    details : further numbers by name
    """

    what: str
    kind: str
    scores: NDArray[np.float64]
    mahalanobis: float
    joint_percentile: float
    degrees: int
    n_subjects: int
    warnings: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """The report as sentences, one a line."""
        joint = (
            f"Mahalanobis distance {self.mahalanobis:.2f}: joint percentile {self.joint_percentile:.4g} "
            f"over {self.degrees} mode{'s' if self.degrees != 1 else ''} (per cent of people nearer to the mean)."
        )
        return [self.what, joint, *(f"Warning: {w}" for w in self.warnings)]


def joint_percentile(mahalanobis: float, degrees: int) -> float:
    """Percent of the population nearer to the mean, for ``degrees`` independent Gaussian scores."""
    return float(100 * chi2.cdf(mahalanobis**2, degrees)) if degrees > 0 else 0.0


def few(model: ShapeModel) -> tuple[str, ...]:
    """A warning when the model rests on few subjects."""
    n = model.n_subjects
    return (f"the model rests on {n} subject{'s' if n != 1 else ''} only: few",) if n < FEW_SUBJECTS else ()


def query(
    model: ShapeModel,
    *,
    mode: int | Mapping[int, float],
    percentile: float | None = None,
    kind: Kind = "gaussian",
) -> tuple[Mesh, QueryReport]:
    """The shape at a percentile of one mode, or of several (``mode={1: 95, 2: 5}``); modes count from 1.

    Raises
    ------
    InputError
        for a mode that the model does not have, a percentile outside (0, 100), or an empirical quantile of
        too few subjects
    """
    wanted = dict(mode) if isinstance(mode, Mapping) else {mode: percentile}
    scores = np.zeros(model.n_modes)
    for number, value in wanted.items():
        if value is None:
            raise InputError(f"mode {number} is asked for without a percentile")
        scores[check_mode(model, number)] = mode_score(model, number, value, kind)
    moved = len(wanted)
    text = ", ".join(f"mode {k} at its {float(p or 0):g}th percentile" for k, p in wanted.items())
    warnings = list(few(model))
    distance = float(np.linalg.norm(scores))
    joint = joint_percentile(distance, moved)
    if moved > 1:
        warnings.append(
            f"percentiles do not add up: {moved} modes at these percentiles are a shape at the "
            f"{joint:.4g}th joint percentile"
        )
    if kind == "gaussian":
        warnings += _beyond_sample(model, scores)
    report = QueryReport(
        f"{model.group} model of {model.n_subjects}: {text} ({kind}).",
        f"mode-{kind}", scores, distance, joint, moved, model.n_subjects, tuple(warnings),
    )  # fmt: skip
    return model.mesh(model.instance(scores)), report


def check_mode(model: ShapeModel, number: int) -> int:
    """Index from 0 of a mode counted from 1."""
    if not 1 <= number <= model.n_modes:
        raise InputError(f"mode {number} does not exist: the {model.group} model has modes 1 to {model.n_modes}")
    return number - 1


def mode_score(model: ShapeModel, number: int, percentile: float, kind: Kind) -> float:
    """Score (standard deviations) at a percentile of a mode.

    Empirical quantiles are Hazen's, ``(i - 0.5) / n``, linear between; outside ``[50/n, 100 - 50/n]`` the
    sample does not say, and the question is refused.
    """
    k = check_mode(model, number)
    if not 0 < percentile < 100:
        raise InputError(f"percentile {percentile:g} is outside 0 to 100")
    if kind == "gaussian":
        return float(norm.ppf(percentile / 100))
    if kind != "empirical":
        raise InputError(f"unknown kind {kind!r}: expected gaussian or empirical")
    n = model.n_subjects
    if n < MIN_EMPIRICAL or not 50 / n <= percentile <= 100 - 50 / n:
        raise InputError(
            f"the {percentile:g}th empirical percentile of {n} subjects does not exist (they reach from "
            f"{50 / n:.3g} to {100 - 50 / n:.3g}): ask for kind gaussian"
        )
    return float(np.percentile(model.scores[:, k], percentile, method="hazen"))


def _beyond_sample(model: ShapeModel, scores: NDArray[np.float64]) -> list[str]:
    """Warnings for modes moved further than any subject of the sample."""
    if not len(model.scores) or not model.n_modes:
        return []
    low, high = model.scores.min(axis=0), model.scores.max(axis=0)
    out = [k + 1 for k in range(model.n_modes) if scores[k] and not low[k] <= scores[k] <= high[k]]
    return [f"mode {', '.join(map(str, out))}: further out than any subject of the sample"] if out else []


def joint_query(
    model: ShapeModel, percentile: float, *, direction: NDArray[Any] | list[float], degrees: int | None = None
) -> tuple[Mesh, QueryReport]:
    """The shape along a direction of score space whose joint (Mahalanobis) percentile is as given.

    Parameters
    ----------
    direction : up to K numbers, in standard deviations; only its direction counts
    degrees : dimension of the joint distribution; None: all modes of the model (truncate it to ask about fewer)
    """
    if not 0 <= percentile < 100:
        raise InputError(f"joint percentile {percentile:g} is outside 0 to 100")
    d = np.zeros(model.n_modes)
    given = np.asarray(direction, np.float64).ravel()
    if len(given) > model.n_modes or not np.linalg.norm(given) > 0:
        raise InputError(f"the direction needs 1 to {model.n_modes} numbers, not all zero")
    d[: len(given)] = given
    dof = model.n_modes if degrees is None else degrees
    scores = d / np.linalg.norm(d) * np.sqrt(chi2.ppf(percentile / 100, dof))
    distance = float(np.linalg.norm(scores))
    report = QueryReport(
        f"{model.group} model of {model.n_subjects}: joint percentile {percentile:g} {_along(d)}.",
        "joint", scores, distance, joint_percentile(distance, dof), dof, model.n_subjects,
        (*few(model), *_beyond_sample(model, scores)),
    )  # fmt: skip
    return model.mesh(model.instance(scores)), report


def _along(direction: NDArray[np.float64]) -> str:
    """A direction in words: its modes, and their parts where they are not equal."""
    used = np.flatnonzero(direction)
    modes = ", ".join(str(k + 1) for k in used)
    if len(used) == 1:
        return f"along mode {modes}, towards its {'high' if direction[used[0]] > 0 else 'low'} side"
    if np.ptp(direction[used]) == 0:
        return f"along modes {modes} by equal parts"
    parts = ", ".join(f"{x:.3g}" for x in direction[used] / np.linalg.norm(direction))
    return f"along modes {modes} by parts {parts}"


def sample_shapes(model: ShapeModel, count: int, *, seed: int) -> list[tuple[Mesh, QueryReport]]:
    """Random members of the group, each with its joint percentile over all modes."""
    draws = np.random.default_rng(seed).standard_normal((count, model.n_modes))
    out = []
    for i, b in enumerate(draws):
        distance = float(np.linalg.norm(b))
        report = QueryReport(
            f"{model.group} model of {model.n_subjects}: random shape {i + 1} of {count}, seed {seed}.",
            "sample", b, distance, joint_percentile(distance, model.n_modes), model.n_modes, model.n_subjects,
            few(model),
        )  # fmt: skip
        out.append((model.mesh(model.instance(b)), report))
    return out
