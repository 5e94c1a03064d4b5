"""Quality of a shape model: compactness, generalization, specificity, and how many subjects a mean needs.

Definitions differ between tools, so each number carries its own (:data:`DEFINITIONS`). After Davies 2002 and
Styner 2003 (IPMI, "Evaluation of 3D correspondence methods for model building"); the alignment, the filling-in of
hidden parts, the mean and the modes are all made again without the subjects that are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shapemodel.completion import Completion, CompletionSettings, complete
from shapemodel.mesh import Faces, Points
from shapemodel.model import ShapeModel, fit_model
from shapemodel.population import Population, area_weights, rigid_fit
from shapemodel.reasons import InputError
from shapemodel.symmetry import closest

Array = NDArray[np.float64]

DEFINITIONS = {
    "compactness": "C(M) = (sum of the M largest variances) / (total variance); variances with n - 1.",
    "generalization": (
        "G(M) = mean over left-out subjects of the per-vertex root mean square distance (mm, plain mean over the "
        "subject's visible vertices) between the subject, laid rigidly (area weighted) on the mean of a model built "
        "without it (alignment, filling and PCA repeated), and its least-squares reconstruction by M modes."
    ),
    "generalization_surface": (
        "The same, with the distance from the reconstruction's vertices to the subject's surface instead of to its "
        "corresponding vertices (mean, mm, one-sided, within each bone)."
    ),
    "specificity": (
        "S(M) = mean over N random shapes (scores N(0, 1) in the first M modes) of the smallest per-vertex root "
        "mean square distance (mm, all vertices) to a completed training shape."
    ),
    "learning": (
        "L(m) = mean over draws and vertices of the distance (mm) between the mean of m subjects drawn without "
        "replacement and the mean of all the others."
    ),
}


@dataclass(frozen=True)
class Curve:
    """A metric against the number of modes or subjects.

    Attributes
    ----------
    name, definition : what it is
    at : (P,) modes or subjects; value : (P,); error : (P,) standard error of the value
    by_bone : label -> (P,), where it is defined
    """

    name: str
    definition: str
    at: NDArray[np.int64]
    value: Array
    error: Array
    by_bone: dict[int, Array]


def compactness(model: ShapeModel) -> Curve:
    """Cumulative share of the variance; its standard error after Styner, ``sum sqrt(2 / (n - 1)) lambda``."""
    share = model.variances / model.total_variance
    error = np.cumsum(np.sqrt(2 / max(model.n_subjects - 1, 1)) * share)
    at = np.arange(1, model.n_modes + 1)
    return Curve("compactness", DEFINITIONS["compactness"], at, np.cumsum(share), error, {})


def generalization(
    population: Population,
    modes: Sequence[int],
    *,
    folds: int | None = None,
    surface: bool = False,
    settings: CompletionSettings | None = None,
    seed: int = 0,
) -> Curve:
    """How well a model describes a subject that it was not built from.

    Parameters
    ----------
    modes : numbers of modes M to report
    folds : None leaves out one subject at a time; else that many groups, drawn with ``seed``
    surface : distance to the subject's surface, bone by bone, instead of to corresponding vertices
    """
    n = population.n_subjects
    if n < 3:
        raise InputError(f"generalization needs at least 3 subjects, got {n}")
    order = np.arange(n) if folds is None else np.random.default_rng(seed).permutation(n)
    rows, bones = [], []
    labels = [int(k) for k in np.unique(population.bone)]
    for left_out in np.array_split(order, n if folds is None else folds):
        rest = np.setdiff1d(np.arange(n), left_out)
        model = fit_model(complete(population.take(rest), settings=settings), n_modes=max(modes))
        for i in left_out:
            distance = _left_out(model, population, int(i), modes, surface=surface)
            rows.append([_summary(d, surface=surface) for d in distance])
            bones.append([[_summary(d[population.bone == k], surface=surface) for k in labels] for d in distance])
    table = np.array(rows)
    each = np.nanmean(np.array(bones), axis=0) if labels else np.zeros((len(modes), 0))
    name = "generalization_surface" if surface else "generalization"
    error = table.std(axis=0, ddof=1) / np.sqrt(len(table))
    return Curve(
        name, DEFINITIONS[name], np.array(modes), table.mean(axis=0), error,
        {k: each[:, j] for j, k in enumerate(labels)},
    )  # fmt: skip


def _summary(distance: Array, *, surface: bool) -> float:
    """Root mean square, or mean for surface distances, of what is known (NaN: not visible)."""
    known = distance[np.isfinite(distance)]
    if not len(known):
        return float("nan")
    return float(known.mean() if surface else np.sqrt((known**2).mean()))


def _left_out(model: ShapeModel, population: Population, i: int, modes: Sequence[int], *, surface: bool) -> list[Array]:
    """(V,) distances of a left-out subject from its reconstruction by M modes, NaN where it is not visible."""
    visible = population.visible[i]
    weights = area_weights(model.mean, population.faces) * visible
    x = np.asarray(population.vertices[i], np.float64)
    rotation, shift = rigid_fit(x, model.mean, weights)
    x = x @ rotation.T + shift
    out = []
    basis = model.modes[:, visible].reshape(model.n_modes, -1).astype(np.float64)
    target = (x - model.mean)[visible].ravel()
    for m in modes:
        m = min(m, model.n_modes)
        b = np.linalg.lstsq(basis[:m].T, target, rcond=None)[0] if m else np.zeros(0)
        shape = model.instance(b / np.sqrt(model.variances[:m]))
        distance = np.full(len(x), np.nan)
        if surface:
            _to_surface(distance, shape, x, population, visible)
        else:
            distance[visible] = np.linalg.norm((shape - x)[visible], axis=1)
        out.append(distance)
    return out


def _to_surface(distance: Array, shape: Points, x: Points, population: Population, visible: NDArray[np.bool_]) -> None:
    """Fill in distances of the shape's visible vertices to the subject's own bone surfaces."""
    for k in np.unique(population.bone):
        own = np.flatnonzero(population.bone == k)
        faces: Faces = population.faces[population.bone[population.faces[:, 0]] == k]
        seen = own[visible[own]]
        if len(faces) and len(seen):
            local = np.full(len(x), -1)
            local[own] = np.arange(len(own))
            near, _, _ = closest(shape[seen], x[own], local[faces])
            distance[seen] = np.linalg.norm(near - shape[seen], axis=1)


def specificity(
    model: ShapeModel, shapes: NDArray[np.floating], modes: Sequence[int], *, count: int = 200, seed: int = 0
) -> Curve:
    """How near random shapes of the model lie to real ones.

    Parameters
    ----------
    shapes : (n, V, 3) completed training shapes in the model's frame (``Completion.population.vertices``)
    count : random shapes; 200 as in the largest published cohort (Davies used 10,000)
    """
    draws = np.random.default_rng(seed).standard_normal((count, model.n_modes))
    flat = (shapes.reshape(len(shapes), -1) - model.mean.ravel()).astype(np.float32)
    inside = flat @ model.modes.reshape(model.n_modes, -1).T
    norms = (flat.astype(np.float64) ** 2).sum(axis=1)
    value, error = [], []
    for m in modes:
        b = draws[:, :m] * np.sqrt(model.variances[:m])
        square = (b**2).sum(axis=1)[:, None] - 2 * b @ inside[:, :m].T + norms
        nearest = np.sqrt(np.maximum(square, 0.0).min(axis=1) / model.n_vertices)
        value.append(nearest.mean())
        error.append(nearest.std(ddof=1) / np.sqrt(count))
    return Curve("specificity", DEFINITIONS["specificity"], np.array(modes), np.array(value), np.array(error), {})


def learning_curve(
    done: Completion, sizes: Sequence[int], *, draws: int = 20, seed: int = 0, index: NDArray[np.int64] | None = None
) -> Curve:
    """How the mean settles with the number of subjects (``index``: of a group; None: of all)."""
    index = np.arange(done.population.n_subjects) if index is None else index
    if max(sizes) >= len(index):
        raise InputError(f"a mean of {max(sizes)} cannot be compared with the others of {len(index)} subjects")
    shapes = done.population.vertices[index].reshape(len(index), -1).astype(np.float32)
    total = shapes.sum(axis=0, dtype=np.float64)
    rng = np.random.default_rng(seed)
    value, error = [], []
    for m in sizes:
        found = []
        for _ in range(draws):
            part = shapes[rng.permutation(len(index))[:m]].sum(axis=0, dtype=np.float64)
            gap = (part / m - (total - part) / (len(index) - m)).reshape(-1, 3)
            found.append(np.linalg.norm(gap, axis=1).mean())
        value.append(np.mean(found))
        error.append(np.std(found, ddof=1) / np.sqrt(draws))
    return Curve("learning", DEFINITIONS["learning"], np.array(sizes), np.array(value), np.array(error), {})
