"""Scores of a model's modes regressed on covariates: sex, age, height and weight (or BMI, lung volume ...).

The modes are an orthonormal basis of the shapes, so this is the linear regression of every coordinate. What it
leaves over varies along the conditional residual modes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from shapemodel.model import ShapeModel
from shapemodel.pca import GROWTH_COSINE
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


def mean_interval(fit: Regression, values: Mapping[str, float | str], *, level: float = 0.95) -> tuple[Array, Array]:
    """(V, 3) lower and upper limits of the average shape at these covariates, a coordinate (Student's t).

    Where some subjects did not show a vertex, what the seen parts do not tell of it rests on fewer people than the
    regression has; by how much is known from the standard error of the mean (:func:`shapemodel.model.mean_error`).
    """
    model = fit.model
    row = fit.row(values)
    leverage = float(row @ fit.inverse @ row)
    root = _root(residual_covariance(fit)) * np.sqrt(model.variances)[:, None]
    variance = np.full((model.n_vertices, 3), model.noise)
    for direction in root.T:
        variance += np.tensordot(direction.astype(np.float32), model.modes, 1).astype(np.float64) ** 2
    variance += hidden_excess(model)[:, None] / 3
    half = float(t.ppf((1 + level) / 2, fit.degrees)) * np.sqrt(leverage * variance)
    centre = model.instance(row @ fit.coefficients)
    return centre - half, centre + half


def hidden_excess(model: ShapeModel) -> Array:
    """(V,) mm2 to add to the summed variances of a vertex so that over n subjects they give the mean's error there.

    Zero where all subjects showed the vertex.
    """
    if model.n_subjects < 2:
        return np.zeros(model.n_vertices)
    spread = vertex_sd(model, np.eye(model.n_modes)) ** 2
    excess = model.n_subjects * model.sem**2 - spread
    return np.where(model.n_seen < model.n_subjects, np.maximum(excess, 0.0), 0.0)


def residual_covariance(fit: Regression) -> Array:
    """(K, K) covariance of the standardised scores at fixed covariates."""
    return np.asarray(fit.residuals.T @ fit.residuals / fit.degrees, np.float64)


def residual_modes(fit: Regression) -> Residual:
    """Principal components, in mm, of what the covariates leave over; positive is growth, as for modes of a model."""
    root = np.sqrt(fit.model.variances)
    value, vector = np.linalg.eigh(residual_covariance(fit) * root[:, None] * root)
    order = np.argsort(value)[::-1][: min(fit.degrees, len(value))]
    value, vector = np.maximum(value[order], 0.0), vector[:, order]
    vector = vector * _growth_signs(fit.model, vector)
    keep = value > MIN_TOLERANCE * max(float(value.max(initial=0.0)), MIN_TOLERANCE)
    directions = (vector[:, keep] * np.sqrt(value[keep]) / root[:, None]).T
    return Residual(directions, value[keep])


def _growth_signs(model: ShapeModel, vector: Array) -> Array:
    """(R,) +-1 by movement away from the mean's centroid; by the largest part where a direction hardly grows."""
    outward = (model.mean - model.mean.mean(axis=0)).astype(np.float32)
    growth = np.tensordot(model.modes, outward, 2).astype(np.float64) / max(float(np.linalg.norm(outward)), 1e-30)
    cosine = growth @ vector
    peak = vector[np.argmax(np.abs(vector), axis=0), np.arange(vector.shape[1])]
    return np.where(np.where(np.abs(cosine) > GROWTH_COSINE, cosine, peak) < 0, -1.0, 1.0)


def _root(covariance: Array) -> Array:
    value, vector = np.linalg.eigh(covariance)
    return np.asarray(vector * np.sqrt(np.maximum(value, 0.0)), np.float64)


def vertex_sd(model: ShapeModel, covariance: Array) -> Array:
    """(V,) mm, root of the three coordinates' summed variances for scores of this covariance."""
    root = (_root(covariance) * np.sqrt(model.variances)[:, None]).astype(np.float32)
    total = np.full(model.n_vertices, 3 * model.noise)
    for direction in root.T:
        total += (np.tensordot(direction, model.modes, 1).astype(np.float64) ** 2).sum(axis=1)
    return np.sqrt(total)
