"""Fitting a model to a new subject: from corresponding vertices, full or partial, from landmarks, from a surface.

Scores and the rigid frame are found together; missing bones and cut ends simply carry no weight. The answer has
a posterior mean and a standard deviation at every vertex, so that what was not seen says how little is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from shapemodel.latent import rigid_motions
from shapemodel.mesh import Mesh, Points
from shapemodel.model import ShapeModel
from shapemodel.population import rigid_fit
from shapemodel.reasons import InputError

Array = NDArray[np.float64]

ITERATIONS = 30
TOLERANCE_MM = 1e-3
"""The frame and shape have settled when vertices move less than this, root mean square."""

MIN_POINTS = 4
"""Three points fix a frame and nothing else."""

RIGID_PRIOR_MM = 1e3
"""Prior standard deviation of the frame's motion: flat at the scale of a body."""

INDEPENDENT_POINTS = 400
"""Neighbouring vertices share their registration error (patches of some 20 mm on 300 cm2 of a cage): however
finely a surface is meshed, it counts as at most so many independent points, else the posterior is overconfident."""

ROBUST_SCALE = 3.0
"""Residuals beyond this many robust standard deviations lose weight (squared Cauchy weights)."""


@dataclass(frozen=True)
class Fit:
    """A subject as the model sees it.

    Attributes
    ----------
    mesh : posterior mean in the subject's own frame, with arrays ``sd_mm`` (root of the summed variances of the
        three coordinates) and ``visible`` (vertices that had data)
    scores : (K,) standard deviations; score_cov : (K, K)
    rotation, shift : model frame -> subject frame, ``x @ rotation.T + shift``
    residual_mm : root mean square over the data; noise_mm : the noise that was assumed
    iterations, converged : how it ended
    """

    mesh: Mesh
    scores: Array
    score_cov: Array
    rotation: Array
    shift: Array
    residual_mm: float
    noise_mm: float
    iterations: int
    converged: bool


def fit_vertices(
    model: ShapeModel,
    vertices: Points,
    visible: NDArray[np.bool_] | None = None,
    *,
    noise_mm: float = 0.5,
    robust: bool = False,
    independent: int = INDEPENDENT_POINTS,
) -> Fit:
    """Fit a subject whose vertices correspond to the model's (a registration), in any frame.

    Parameters
    ----------
    vertices : (V, 3) mm; visible : (V,) which of them are data (None: all)
    noise_mm : standard deviation of a coordinate (the registration's error)
    robust : let vertices that fit badly lose weight
    independent : as how many independent points the vertices count at most
    """
    if vertices.shape != model.mean.shape:
        raise InputError(f"{len(vertices)} vertices for a model of {model.n_vertices}: register with its template")
    index = np.arange(len(vertices)) if visible is None else np.flatnonzero(visible)
    points = np.asarray(vertices, np.float64)[index]
    return fit_points(model, points, index, noise_mm=noise_mm, robust=robust, independent=independent)


def fit_landmarks(model: ShapeModel, landmarks: Mapping[int, Points], *, noise_mm: float = 2.0) -> Fit:
    """Fit from a few landmarks: vertex number -> position (3,), mm, in any frame."""
    index = np.array(sorted(landmarks), np.int64)
    if len(index) and not (0 <= index[0] and index[-1] < model.n_vertices):
        raise InputError(
            f"landmarks name vertices {index[0]} to {index[-1]}; the model has 0 to {model.n_vertices - 1}"
        )
    return fit_points(model, np.array([landmarks[int(i)] for i in index], np.float64), index, noise_mm=noise_mm)


def fit_points(
    model: ShapeModel,
    points: Points,
    index: NDArray[np.int64],
    *,
    noise_mm: float = 1.0,
    robust: bool = False,
    independent: int = INDEPENDENT_POINTS,
) -> Fit:
    """Scores and frame given positions (m, 3) of the vertices ``index`` (m,)."""
    if len(index) < MIN_POINTS:
        raise InputError(f"{len(index)} points cannot place a shape: at least {MIN_POINTS} are needed")
    target = np.asarray(points, np.float64)
    share = min(1.0, independent / len(index))
    scores, weights = np.zeros(model.n_modes), np.full(len(index), share)
    rotation, shift = rigid_fit(target, model.mean[index], weights)
    before, change, steps = model.mean[index], np.inf, 0
    cov = np.eye(model.n_modes)
    while steps < ITERATIONS and change > TOLERANCE_MM:
        scores, cov, rotation, shift = _step(model, target, index, weights, (rotation, shift), noise_mm)
        now = _vertices(model, scores, index)
        change, before, steps = float(np.sqrt(np.mean((now - before) ** 2))), now, steps + 1
        if robust:
            weights = share * _cauchy(np.linalg.norm(target @ rotation.T + shift - now, axis=1))
    residual = target @ rotation.T + shift - before
    return _result(model, (scores, cov), (rotation, shift), index, residual, (noise_mm, steps, change <= TOLERANCE_MM))


def _step(
    model: ShapeModel,
    target: Points,
    index: NDArray[np.int64],
    weights: Array,
    frame: tuple[Array, Array],
    noise_mm: float,
) -> tuple[Array, Array, Array, Array]:
    """One joint solve of scores and small rigid motion, and the exact frame that follows."""
    rotation, shift = frame
    moved = target @ rotation.T + shift
    k = model.n_modes
    w = (np.sqrt(model.variances)[:, None, None] * model.modes[:, index]).astype(np.float64).transpose(1, 2, 0)
    centre = model.mean[index]
    both = np.concatenate([w, rigid_motions(centre, np.ones(len(index)))], axis=2).reshape(-1, k + 6)
    each = np.repeat(weights, 3) / (noise_mm**2 + model.noise)
    precision = (both * each[:, None]).T @ both
    precision[np.arange(k + 6), np.arange(k + 6)] += np.concatenate([np.ones(k), np.full(6, RIGID_PRIOR_MM**-2)])
    cov = np.linalg.inv(precision)
    solution = cov @ (both.T @ (each * (moved - centre).ravel()))
    shape = centre + (w @ solution[:k])
    rotation, shift = rigid_fit(target, shape, weights) if not k else _moved(moved, both, solution, k, frame)
    return solution[:k], cov[:k, :k], rotation, shift


def _moved(moved: Points, both: Array, solution: Array, k: int, frame: tuple[Array, Array]) -> tuple[Array, Array]:
    """The frame after taking out the small rigid motion that was found."""
    motion = (both[:, k:] @ solution[k:]).reshape(-1, 3)
    turn, step = rigid_fit(moved + motion, moved, np.ones(len(moved)))
    rotation, shift = frame
    return turn @ rotation, turn @ shift + step


def _vertices(model: ShapeModel, scores: Array, index: NDArray[np.int64]) -> Points:
    step = np.tensordot(scores * np.sqrt(model.variances), model.modes[:, index], 1)
    return np.asarray(model.mean[index] + step, np.float64)


def _cauchy(residual: Array) -> Array:
    scale = ROBUST_SCALE * max(1.4826 * float(np.median(residual)), 1e-6)
    return np.asarray(1.0 / (1.0 + (residual / scale) ** 2) ** 2, np.float64)


def _result(
    model: ShapeModel,
    posterior: tuple[Array, Array],
    frame: tuple[Array, Array],
    index: NDArray[np.int64],
    residual: Points,
    ending: tuple[float, int, bool],
) -> Fit:
    """The record of a fit; its variances grow with data that the model cannot explain.

    A model of few people does not hold a new one: what its modes leave over beyond the noise that was assumed is added
    to every vertex, and the covariance of the scores is scaled to it (as by a reduced chi-square above one).
    """
    scores, cov = posterior
    rotation, shift = frame
    visible = np.zeros(model.n_vertices, bool)
    visible[index] = True
    own = (model.instance(scores) - shift) @ rotation
    noise_mm, steps, converged = ending
    rms = float(np.sqrt((residual**2).sum(axis=1).mean()))
    expected = 3 * (noise_mm**2 + model.noise)
    cov = cov * max(1.0, rms**2 / expected)
    sd = np.sqrt(vertex_sd(model, cov) ** 2 + max(0.0, rms**2 - expected))
    mesh = model.mesh(own).with_arrays(sd_mm=sd, visible=visible)
    return Fit(mesh, scores, cov, rotation.T, -shift @ rotation, rms, noise_mm, steps, converged)


def vertex_sd(model: ShapeModel, score_cov: Array) -> Array:
    """(V,) mm, root of the three coordinates' summed posterior variances."""
    value, vector = np.linalg.eigh(score_cov)
    root = vector * np.sqrt(np.maximum(value, 0.0)) * np.sqrt(model.variances)[:, None]
    total = np.full(model.n_vertices, 3 * model.noise)
    for direction in root.T:
        total += (np.tensordot(direction.astype(np.float32), model.modes, 1).astype(np.float64) ** 2).sum(axis=1)
    return np.sqrt(total)


def fit_surface(model: ShapeModel, mesh: Mesh, *, noise_mm: float = 2.0, rounds: int = 25, count: int = 4000) -> Fit:
    """Fit labelled surfaces without correspondence (from a label map): bones that are there pull, others follow.

    Each round takes, bone by bone, the target point nearest to each model vertex and solves scores and frame
    together (an iterative closest point whose deformation is the model). Vertices nearest to the edge of the
    scanned volume are left out. Registration with the template is more exact; this needs no template.
    """
    present = [k for k in model.reference.labels if (mesh.bone == k).any()]
    if len(present) < 2:
        raise InputError(f"{len(present)} bones of the model are in the mesh: at least 2 are needed to place it")
    trees = {k: cKDTree(mesh.vertices[mesh.bone == k]) for k in present}
    stride = max(1, model.n_vertices // count)
    index = np.flatnonzero(np.isin(model.reference.bone, present))[::stride]
    bone = model.reference.bone[index]
    centres = np.array([mesh.vertices[mesh.bone == k].mean(axis=0) for k in present])
    own = np.array([model.mean[model.reference.bone == k].mean(axis=0) for k in present])
    rotation, shift = rigid_fit(own, centres, np.ones(len(present)))
    shape = model.mean[index] @ rotation.T + shift
    fit = None
    for _ in range(rounds):
        target, good = shape.copy(), np.ones(len(index), bool)
        for k in present:
            mine = np.flatnonzero(bone == k)
            target[mine] = trees[k].data[trees[k].query(shape[mine])[1]]
        if mesh.fov is not None:
            low, high = mesh.fov[::2], mesh.fov[1::2]
            good = np.all((shape > low + noise_mm) & (shape < high - noise_mm), axis=1)
        fit = fit_points(model, target[good], index[good], noise_mm=noise_mm, robust=True)
        shape = fit.mesh.vertices[index]
    assert fit is not None
    return fit
