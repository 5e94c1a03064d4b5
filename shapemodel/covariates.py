"""Shapes by covariates, and what covariates leave over.

The shape at given covariates is the *average* of such people (:mod:`shapemodel.regression`); who varies about it is
the conditional residual: the principal components of what regression leaves over, at the same sex, age, height and
weight.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.optimize import linprog
from scipy.stats import norm

from shapemodel.mesh import Mesh
from shapemodel.model import ShapeModel
from shapemodel.query import QueryReport, few, joint_percentile
from shapemodel.reasons import InputError
from shapemodel.regression import (
    MIN_TOLERANCE,
    Array,
    Regression,
    Residual,
    hidden_excess,
    regress,
    residual_covariance,
    residual_modes,
    vertex_sd,
)


def covariate_query(
    model: ShapeModel, values: Mapping[str, float | str], *, fit: Regression | None = None
) -> tuple[Mesh, QueryReport]:
    """The average shape of people with these covariates, with the error and spread about it.

    The mesh has arrays ``se_mm`` (standard error of this average, all coordinates) and ``sd_mm`` (how much one
    person of these covariates departs from it).
    """
    fit = fit or regress(model, tuple(values))
    row = fit.row(values)
    scores = row @ fit.coefficients
    leverage = float(row @ fit.inverse @ row)
    spread = vertex_sd(model, residual_covariance(fit))
    error = np.sqrt(leverage * (spread**2 + hidden_excess(model)))
    mesh = model.mesh(model.instance(scores)).with_arrays(se_mm=error, sd_mm=spread)
    warnings = (*few(model), *_outside(fit, values))
    if fit.dropped:
        warnings += (f"{len(fit.dropped)} subjects without these covariates were left out of the regression",)
    said = ", ".join(f"{k} {v}" for k, v in values.items())
    distance = float(np.linalg.norm(scores))
    text = (
        f"{model.group} model of {model.n_subjects}: average at {said}. Covariates explain {100 * fit.r2:.0f} % of "
        f"the shape variance; leave-one-out error {fit.cv_error_mm:.1f} mm root mean square per vertex; one person "
        f"departs from this average by {float(np.sqrt((spread**2).mean())):.1f} mm."
    )
    details = {
        "r2": fit.r2,
        "cv_error_mm": fit.cv_error_mm,
        "se_mm": float(np.sqrt((error**2).mean())),
        "residual_sd_mm": float(np.sqrt((spread**2).mean())),
        "degrees": fit.degrees,
    }
    joint = joint_percentile(distance, model.n_modes)
    return mesh, QueryReport(
        text, "covariates", scores, distance, joint, model.n_modes, model.n_subjects, warnings, details
    )


def residual_query(
    model: ShapeModel,
    values: Mapping[str, float | str],
    *,
    mode: int,
    percentile: float,
    fit: Regression | None = None,
) -> tuple[Mesh, QueryReport]:
    """Same covariates, another shape: a Gaussian percentile of a conditional residual mode (from 1)."""
    fit = fit or regress(model, tuple(values))
    rest = residual_modes(fit)
    if not 1 <= mode <= len(rest.variances):
        raise InputError(f"residual mode {mode} does not exist: there are 1 to {len(rest.variances)}")
    if not 0 < percentile < 100:
        raise InputError(f"percentile {percentile:g} is outside 0 to 100")
    z = float(norm.ppf(percentile / 100))
    steps = np.zeros(len(rest.variances))
    steps[mode - 1] = z
    what = f"residual mode {mode} at its {percentile:g}th percentile"
    return _about(fit, rest, values, steps, what, degrees=1)


def residual_samples(
    model: ShapeModel,
    values: Mapping[str, float | str],
    count: int,
    *,
    seed: int,
    fit: Regression | None = None,
) -> list[tuple[Mesh, QueryReport]]:
    """Random people of these covariates."""
    fit = fit or regress(model, tuple(values))
    rest = residual_modes(fit)
    draws = np.random.default_rng(seed).standard_normal((count, len(rest.variances)))
    return [
        _about(fit, rest, values, z, f"random person {i + 1} of {count}, seed {seed},", degrees=len(z))
        for i, z in enumerate(draws)
    ]


def _about(
    fit: Regression, rest: Residual, values: Mapping[str, float | str], steps: Array, what: str, *, degrees: int
) -> tuple[Mesh, QueryReport]:
    model = fit.model
    average, report = covariate_query(model, values, fit=fit)
    del average
    scores = report.scores + steps @ rest.directions
    distance = float(np.linalg.norm(steps))
    said = ", ".join(f"{k} {v}" for k, v in values.items())
    share = rest.variances / rest.variances.sum()
    details = {**report.details, "residual_share": float(share[np.flatnonzero(steps)].sum()) if steps.any() else 0.0}
    made = QueryReport(
        f"{model.group} model of {model.n_subjects}: {what} at {said} (distance among people of these covariates).",
        "residual" if degrees == 1 else "sample",
        scores, distance, joint_percentile(distance, degrees), degrees, model.n_subjects, report.warnings, details,
    )  # fmt: skip
    return model.mesh(model.instance(scores)), made


def _outside(fit: Regression, values: Mapping[str, float | str]) -> tuple[str, ...]:
    """Warnings when a person lies outside what was sampled, by one covariate or by their combination."""
    row = fit.row(values)[1:]
    low, high = fit.design[:, 1:].min(axis=0), fit.design[:, 1:].max(axis=0)
    out = []
    for i, name in enumerate(fit.names):
        if not low[i] - MIN_TOLERANCE <= row[i] <= high[i] + MIN_TOLERANCE and name != "sex":
            a, b = (float(x * fit.scale[i] + fit.centre[i]) for x in (low[i], high[i]))
            out.append(f"{name} {values[name]} is outside the sampled range {a:.4g} to {b:.4g}")
    if not out and len(fit.names) > 1 and not in_hull(row, fit.design[:, 1:]):
        out.append("this combination of covariates is outside the convex hull of the sampled people")
    unknown = sorted(set(values) - set(fit.names))
    if unknown:
        out.append(f"{', '.join(unknown)} does not vary in this model and was not used")
    return tuple(out)


def in_hull(point: Array, sample: Array) -> bool:
    """Whether a point (P,) is a convex combination of the rows of a sample (n, P)."""
    n = len(sample)
    found = linprog(
        np.zeros(n),
        A_eq=np.vstack([sample.T, np.ones(n)]),
        b_eq=np.concatenate([point, [1.0]]),
        bounds=(0, None),
        method="highs",
    )
    return bool(found.status == 0)
