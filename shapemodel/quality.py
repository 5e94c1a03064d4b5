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
from shapemodel.filling import on_nodes
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
    bones = {}
    for k in model.reference.labels:
        own = model.reference.bone == k
        each = model.variances * (model.modes[:, own].astype(np.float64) ** 2).sum(axis=(1, 2))
        bones[k] = np.cumsum(each) / max(float(each.sum()) + 3 * int(own.sum()) * model.noise, 1e-30)
    return Curve("compactness", DEFINITIONS["compactness"], at, np.cumsum(share), error, bones)


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
    name = "generalization_surface" if surface else "generalization"
    return generalizations(population, modes, names=(name,), folds=folds, settings=settings, seed=seed)[0]


def generalizations(
    population: Population,
    modes: Sequence[int],
    *,
    names: Sequence[str] = ("generalization", "generalization_surface"),
    nodes: NDArray[np.int64] | None = None,
    folds: int | None = None,
    settings: CompletionSettings | None = None,
    seed: int = 0,
) -> tuple[Curve, ...]:
    """Both kinds of generalization from the same models; see :func:`generalization`.

    ``nodes`` : models are built of, and judged at, these vertices alone, which spares time; surfaces stay whole
    """
    n = population.n_subjects
    if n < 3:
        raise InputError(f"generalization needs at least 3 subjects, got {n}")
    order = np.arange(n) if folds is None else np.random.default_rng(seed).permutation(n)
    nodes = np.arange(population.n_vertices) if nodes is None else nodes
    small = population if len(nodes) == population.n_vertices else on_nodes(population, nodes)
    labels = [int(k) for k in np.unique(population.bone)]
    whole: dict[str, list[list[float]]] = {name: [] for name in names}
    bones: dict[str, list[list[list[float]]]] = {name: [] for name in names}
    for left_out in np.array_split(order, n if folds is None else min(folds, n)):
        rest = np.setdiff1d(np.arange(n), left_out)
        model = fit_model(complete(small.take(rest), settings=settings), n_modes=max(modes))
        for i in left_out:
            found = _left_out(model, population, int(i), modes, nodes)
            for name in names:
                surface = name.endswith("surface")
                own = [_surface_distance(population, nodes, f) if surface else f.distance for f in found]
                whole[name].append([_summary(d, surface=surface) for d in own])
                bones[name].append([[_summary(d[small.bone == k], surface=surface) for k in labels] for d in own])
    return tuple(_curve(name, modes, whole[name], bones[name], labels) for name in names)


def _curve(
    name: str, modes: Sequence[int], whole: list[list[float]], bones: list[list[list[float]]], labels: list[int]
) -> Curve:
    table, each = np.array(whole), np.array(bones)
    known = np.isfinite(each).sum(axis=0)
    mean = np.where(known > 0, np.nansum(each, axis=0) / np.maximum(known, 1), np.nan)
    error = table.std(axis=0, ddof=1) / np.sqrt(len(table))
    by_bone = {k: mean[:, j] for j, k in enumerate(labels)}
    return Curve(name, DEFINITIONS[name], np.array(modes), table.mean(axis=0), error, by_bone)


@dataclass(frozen=True)
class LeftOut:
    """A left-out subject and its reconstruction ``shape`` (m, 3), both in the model's frame.

    ``whole`` (V, 3) is all of the subject; ``distance`` (m,) to corresponding vertices, NaN where not ``visible``
    """

    subject: int
    whole: Points
    shape: Points
    distance: Array
    visible: NDArray[np.bool_]


def _summary(distance: Array, *, surface: bool) -> float:
    """Root mean square, or mean for surface distances, of what is known (NaN: not visible)."""
    known = distance[np.isfinite(distance)]
    if not len(known):
        return float("nan")
    return float(known.mean() if surface else np.sqrt((known**2).mean()))


def _left_out(
    model: ShapeModel, population: Population, i: int, modes: Sequence[int], nodes: NDArray[np.int64]
) -> list[LeftOut]:
    """A left-out subject and its least-squares reconstruction by M modes on the nodes, for each M."""
    visible = population.visible[i, nodes]
    faces = population.faces if len(nodes) == population.n_vertices else np.zeros((0, 3), np.int64)
    weights = area_weights(model.mean, faces) * visible
    whole = np.asarray(population.vertices[i], np.float64)
    rotation, shift = rigid_fit(whole[nodes], model.mean, weights)
    whole = whole @ rotation.T + shift
    x = whole[nodes]
    out = []
    basis = model.modes[:, visible].reshape(model.n_modes, -1).astype(np.float64)
    target = (x - model.mean)[visible].ravel()
    for m in modes:
        m = min(m, model.n_modes)
        b = np.linalg.lstsq(basis[:m].T, target, rcond=None)[0] if m else np.zeros(0)
        shape = model.instance(b / np.sqrt(model.variances[:m]))
        distance = np.where(visible, np.linalg.norm(shape - x, axis=1), np.nan)
        out.append(LeftOut(i, whole, shape, distance, visible))
    return out


def _surface_distance(population: Population, nodes: NDArray[np.int64], found: LeftOut) -> Array:
    """(m,) distances of the reconstruction's visible nodes to the subject's own bone surfaces; NaN elsewhere."""
    distance = np.full(len(nodes), np.nan)
    for k in np.unique(population.bone):
        own = np.flatnonzero(population.bone == k)
        faces: Faces = population.faces[population.bone[population.faces[:, 0]] == k]
        seen = np.flatnonzero((population.bone[nodes] == k) & found.visible)
        if len(faces) and len(seen):
            local = np.full(population.n_vertices, -1)
            local[own] = np.arange(len(own))
            near, _, _ = closest(found.shape[seen], found.whole[own], local[faces])
            distance[seen] = np.linalg.norm(near - found.shape[seen], axis=1)
    return distance


def specificity(
    model: ShapeModel, shapes: NDArray[np.floating], modes: Sequence[int], *, count: int = 200, seed: int = 0
) -> Curve:
    """How near random shapes of the model lie to real ones; by bone, each to the nearest bone of its kind.

    Parameters
    ----------
    shapes : (n, V, 3) completed training shapes in the model's frame (``Completion.population.vertices``)
    count : random shapes; 200 as in the largest published cohort (Davies used 10,000)
    """
    draws = np.random.default_rng(seed).standard_normal((count, model.n_modes))
    nearest = _nearest(model, shapes, modes, draws, np.ones(model.n_vertices, bool))
    bones = {
        k: _nearest(model, shapes, modes, draws, model.reference.bone == k).mean(axis=1) for k in model.reference.labels
    }
    error = nearest.std(axis=1, ddof=1) / np.sqrt(count)
    return Curve("specificity", DEFINITIONS["specificity"], np.array(modes), nearest.mean(axis=1), error, bones)


def _nearest(
    model: ShapeModel,
    shapes: NDArray[np.floating],
    modes: Sequence[int],
    draws: Array,
    part: NDArray[np.bool_],
) -> Array:
    """(P, N) per-vertex root mean square distance of random shapes to the nearest real one, over a part."""
    basis = model.modes[:, part].reshape(model.n_modes, -1).astype(np.float64)
    flat = (shapes[:, part] - model.mean[part]).reshape(len(shapes), -1)
    inside, gram = flat @ basis.T, basis @ basis.T
    norms = (flat.astype(np.float64) ** 2).sum(axis=1)
    out = []
    for m in modes:
        b = draws[:, :m] * np.sqrt(model.variances[:m])
        own = np.einsum("nk,kl,nl->n", b, gram[:m, :m], b)
        square = own[:, None] - 2 * b @ inside[:, :m].T + norms
        out.append(np.sqrt(np.maximum(square, 0.0).min(axis=1) / part.sum()))
    return np.array(out)


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


def mean_scale(curve: Curve, n_subjects: int) -> float:
    """mm, c of a learning curve ``L(m) = c sqrt(1 / m + 1 / (n - m))``: c / sqrt(m) is the error of a mean of m."""
    m = curve.at.astype(np.float64)
    shape = np.sqrt(1 / m + 1 / (n_subjects - m))
    return float((curve.value @ shape) / (shape @ shape))


def subjects_needed(scale_mm: float, error_mm: float) -> int:
    """How many subjects a mean needs so that it is expected to lie this near to its population's."""
    return int(np.ceil((scale_mm / error_mm) ** 2))
