"""Shapes by covariates, and what covariates leave over.

Scores of the model's modes are regressed on sex, age, height and weight (or BMI, lung volume ...). The modes are
an orthonormal basis of the shapes, so this is the linear regression of every coordinate. The shape at given
covariates is the *average* of such people; who varies about it is the conditional residual: the principal
components of what regression leaves over, at the same sex, age, height and weight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.stats import norm, t

from shapemodel.mesh import Mesh
from shapemodel.model import ShapeModel
from shapemodel.query import QueryReport, few, joint_percentile
from shapemodel.reasons import InputError

DEFAULT = ("sex", "age_years", "height_cm", "weight_kg")
"""Covariates of a question when none are named."""

SEX_CODE = {"F": -0.5, "M": 0.5}

SPARE_DEGREES = 3
"""Least degrees of freedom left for the residual: with fewer its spread means nothing."""

MIN_TOLERANCE = 1e-9

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Regression:
    """Scores on covariates by least squares.

    Attributes
    ----------
    model : whose scores
    names : covariates, in order; ``sex`` is -0.5 for F, +0.5 for M
    design : (n, P + 1) of the subjects used, first column 1; covariates centred and scaled to unit spread
    centre, scale : (P,)
    coefficients : (P + 1, K) ; residuals : (n, K) ; degrees : n - P - 1
    inverse : (P + 1, P + 1) of design^T design
    r2 : share of the whole shape variance explained; cv_error_mm : leave-one-out, root mean square per vertex
    dropped : subjects left out because a covariate is unknown
    """

    model: ShapeModel
    names: tuple[str, ...]
    design: Array
    centre: Array
    scale: Array
    coefficients: Array
    residuals: Array
    degrees: int
    inverse: Array
    r2: float
    cv_error_mm: float
    dropped: tuple[str, ...]

    def row(self, values: Mapping[str, float | str]) -> Array:
        """(P + 1,) design row of a person."""
        given = [_number(name, values[name]) for name in self.names]
        return np.concatenate([[1.0], (np.array(given) - self.centre) / self.scale])


@dataclass(frozen=True)
class Residual:
    """Conditional residual modes: (R, K) directions in standardised scores a standard deviation, variances in mm2."""

    directions: Array
    variances: Array


def column(model: ShapeModel, name: str) -> Array:
    """(n,) values of a covariate; ``bmi`` is derived from height and weight."""
    if name == "sex":
        return np.array([SEX_CODE.get(s or "", np.nan) for s in model.sex])
    if name == "bmi" and "bmi" not in model.covariates:
        return column(model, "weight_kg") / (column(model, "height_cm") / 100) ** 2
    if name not in model.covariates:
        raise InputError(f"the model has no covariate {name!r}; it has {', '.join(['sex', *sorted(model.covariates)])}")
    return np.asarray(model.covariates[name], np.float64)


def _number(name: str, value: float | str) -> float:
    if name == "sex":
        letter = {"female": "F", "male": "M"}.get(str(value).lower(), str(value).upper())
        if letter not in SEX_CODE:
            raise InputError(f"sex must be F or M, found {value!r}")
        return SEX_CODE[letter]
    return float(value)


def regress(model: ShapeModel, names: Sequence[str] = DEFAULT) -> Regression:
    """Least-squares regression of the scores on covariates.

    A covariate that does not vary in the sample (sex, in a model of one sex) is left out.

    Raises
    ------
    InputError
        when too few subjects have all covariates: at least three more than coefficients are needed
    """
    columns = {name: column(model, name) for name in names}
    known = np.all([np.isfinite(c) for c in columns.values()], axis=0) if columns else np.ones(model.n_subjects, bool)
    used = tuple(n for n in names if known.any() and np.ptp(columns[n][known]) > MIN_TOLERANCE)
    x = np.stack([columns[n][known] for n in used], axis=1) if used else np.zeros((int(known.sum()), 0))
    degrees = len(x) - x.shape[1] - 1
    if degrees < SPARE_DEGREES:
        raise InputError(
            f"{int(known.sum())} of {model.n_subjects} subjects of the {model.group} model have {', '.join(names)}: "
            f"{x.shape[1] + 1 + SPARE_DEGREES} are needed; ask with fewer covariates or of the pooled model"
        )
    centre, scale = x.mean(axis=0), x.std(axis=0)
    design = np.column_stack([np.ones(len(x)), (x - centre) / scale])
    if np.linalg.matrix_rank(design) < design.shape[1]:
        raise InputError(f"the covariates {', '.join(used)} determine one another in this sample: leave one out")
    inverse = np.linalg.inv(design.T @ design)
    scores = model.scores[known]
    coefficients = inverse @ design.T @ scores
    residuals = scores - design @ coefficients
    leverage = np.einsum("np,pq,nq->n", design, inverse, design)
    lambdas = model.variances / model.n_vertices
    left_out = residuals / (1 - leverage)[:, None]
    beyond = 3 * model.noise
    error = float(np.sqrt((left_out**2 @ lambdas).mean() + beyond))
    total = float(((scores - scores.mean(axis=0)) ** 2 @ lambdas).sum())
    r2 = 1 - float((residuals**2 @ lambdas).sum()) / total if total else 0.0
    dropped = tuple(s for s, k in zip(model.subjects, known, strict=True) if not k)
    return Regression(
        model, used, design, centre, scale, coefficients, residuals, degrees, inverse, r2, error, dropped
    )  # fmt: skip


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
    spread = _vertex_sd(model, residual_covariance(fit))
    mesh = model.mesh(model.instance(scores)).with_arrays(se_mm=spread * np.sqrt(leverage), sd_mm=spread)
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
        "se_mm": float(np.sqrt(leverage) * np.sqrt((spread**2).mean())),
        "residual_sd_mm": float(np.sqrt((spread**2).mean())),
        "degrees": fit.degrees,
    }
    joint = joint_percentile(distance, model.n_modes)
    return mesh, QueryReport(
        text, "covariates", scores, distance, joint, model.n_modes, model.n_subjects, warnings, details
    )


def mean_interval(fit: Regression, values: Mapping[str, float | str], *, level: float = 0.95) -> tuple[Array, Array]:
    """(V, 3) lower and upper limits of the average shape at these covariates, a coordinate (Student's t)."""
    model = fit.model
    row = fit.row(values)
    half = float(t.ppf((1 + level) / 2, fit.degrees) * np.sqrt(row @ fit.inverse @ row))
    root = _root(residual_covariance(fit)) * np.sqrt(model.variances)[:, None]
    variance = np.full((model.n_vertices, 3), model.noise)
    for direction in root.T:
        variance += np.tensordot(direction.astype(np.float32), model.modes, 1).astype(np.float64) ** 2
    centre = model.instance(row @ fit.coefficients)
    return centre - half * np.sqrt(variance), centre + half * np.sqrt(variance)


def residual_covariance(fit: Regression) -> Array:
    """(K, K) covariance of the standardised scores at fixed covariates."""
    return np.asarray(fit.residuals.T @ fit.residuals / fit.degrees, np.float64)


def residual_modes(fit: Regression) -> Residual:
    """Principal components, in mm, of what the covariates leave over; signs by the first large score."""
    root = np.sqrt(fit.model.variances)
    value, vector = np.linalg.eigh(residual_covariance(fit) * root[:, None] * root)
    order = np.argsort(value)[::-1][: min(fit.degrees, len(value))]
    value, vector = np.maximum(value[order], 0.0), vector[:, order]
    peak = vector[np.argmax(np.abs(vector), axis=0), np.arange(len(order))]
    vector = vector * np.where(peak < 0, -1, 1)
    keep = value > MIN_TOLERANCE * max(float(value.max(initial=0.0)), MIN_TOLERANCE)
    directions = (vector[:, keep] * np.sqrt(value[keep]) / root[:, None]).T
    return Residual(directions, value[keep])


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


def _root(covariance: Array) -> Array:
    value, vector = np.linalg.eigh(covariance)
    return np.asarray(vector * np.sqrt(np.maximum(value, 0.0)), np.float64)


def _vertex_sd(model: ShapeModel, covariance: Array) -> Array:
    """(V,) mm, root of the three coordinates' summed variances for scores of this covariance."""
    root = (_root(covariance) * np.sqrt(model.variances)[:, None]).astype(np.float32)
    total = np.full(model.n_vertices, 3 * model.noise)
    for direction in root.T:
        total += (np.tensordot(direction, model.modes, 1).astype(np.float64) ** 2).sum(axis=1)
    return np.sqrt(total)


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
