"""The estimate behind :mod:`shapemodel.completion`: model on the nodes, then every vertex, then the gaps.

Mean, modes and frames are estimated on a subset of vertices spread over each bone and carried to all of them;
hidden vertices get their expectation, joined to what the subject showed.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from shapemodel import latent as lt
from shapemodel.mesh import Points
from shapemodel.neighbours import (
    FADE_SUBJECTS,
    Neighbours,
    base_shape,
    continued,
    edges_of,
    fading_share,
    joined,
    neighbours,
    never_seen,
    node_weights,
    relative,
    spread_nodes,
    well_seen,
)
from shapemodel.population import Population, align, area_weights, rigid_fit, seen_mean

log = logging.getLogger(__name__)

BLOCK = 2048
"""Vertices worked on at a time when going to full resolution: tens of megabytes at 50 modes."""

MIN_COMPLETION_MODES, MAX_COMPLETION_MODES = 8, 50
"""More modes change the filled parts by less than the noise, and cost grows with their square."""


@dataclass(frozen=True)
class CompletionSettings:
    """How the missing parts are estimated.

    Attributes
    ----------
    n_modes : modes of the completion model; None: 0.4 of the subjects, at least 8, at most 50
    nodes : vertices on which frames and scores are estimated
    iterations, tolerance_mm : stop when the predicted missing vertices move less, root mean square
    calibration_folds : trials in which seen vertices are hidden to judge the predictions; 0: none
    """

    n_modes: int | None = None
    nodes: int = 2000
    iterations: int = 150
    tolerance_mm: float = 0.005
    calibration_folds: int = 3


@dataclass(frozen=True)
class HiddenError:
    """How well hidden vertices are predicted, judged by hiding vertices that were seen.

    Attributes
    ----------
    rms_mm : root mean square error over all hidden vertices; by_bone : label -> mm
    expected_mm : the same by the model's own standard deviation (equal when it is honest)
    repeats : subjects that were masked
    """

    rms_mm: float
    expected_mm: float
    by_bone: dict[int, float]
    repeats: int


@dataclass(frozen=True)
class Completion:
    """A population in its final frame with its gaps filled.

    Attributes
    ----------
    population : aligned; ``vertices`` are the studies' own where visible, expectations elsewhere
    sd : (S, V) float32, mm, standard deviation a coordinate of what was filled in, 0 where visible; widened so
        that it agrees with the error of predictions for vertices that were hidden on purpose (``hidden``)
    mean : (V, 3) pooled mean; modes : (V, 3, k) of the completion model, for whitened scores
    scores : (S, k); score_cov : (S, k, k); noise : mm2, what the modes leave over a coordinate
    iterations, change_mm : how the estimate ended; converged : whether below the tolerance
    """

    population: Population
    sd: NDArray[np.float32]
    mean: Points
    modes: NDArray[np.float64]
    scores: NDArray[np.float64]
    score_cov: NDArray[np.float64]
    noise: float
    iterations: int
    change_mm: float
    converged: bool
    hidden: HiddenError | None = None


def fitted(population: Population, settings: CompletionSettings) -> Completion:
    """The estimate, before its standard deviations are calibrated."""
    if bool(population.visible.all()):
        return trivial(align(population))
    most = np.asarray(population.vertices[int(np.argmax(population.visible.sum(axis=1)))], np.float64)
    nodes = spread_nodes(most, population.bone, settings.nodes)
    small = align(on_nodes(population, nodes))
    aligned = _carry_frames(population, nodes, np.asarray(small.vertices, np.float64))
    share = fading_share(most, population.visible)
    found, node_data, near, (steps, change) = _fit_nodes(aligned, share, nodes, settings)
    framed = _carry_frames(aligned, nodes, node_data)
    del aligned
    done = _all_vertices(framed, share, nodes, found, near)
    return replace(done, iterations=steps, change_mm=change, converged=change < settings.tolerance_mm)


def on_nodes(population: Population, nodes: NDArray[np.int64]) -> Population:
    """The population restricted to some vertices, without faces."""
    return replace(
        population,
        vertices=population.vertices[:, nodes],
        visible=population.visible[:, nodes],
        faces=np.zeros((0, 3), np.int64),
        bone=population.bone[nodes],
        prior=population.prior[nodes],
    )


def trivial(aligned: Population) -> Completion:
    """Nothing to fill in: the aligned population itself."""
    s, v = aligned.visible.shape
    empty = np.zeros((v, 3, 0))
    mean = seen_mean(aligned.vertices, aligned.visible)
    return Completion(
        aligned, np.zeros((s, v), np.float32), mean, empty, np.zeros((s, 0)), np.zeros((s, 0, 0)), 0.0, 0, 0.0, True
    )


def default_modes(n_subjects: int) -> int:
    """Modes of the completion model.

    On 48 phantoms 20 modes predicted hidden vertices better (6.2 mm root mean square) than 5, 10 or 47 (8.4,
    7.3, 7.2), while the error of the mean hardly cared; with a dozen subjects all modes may be offered.
    """
    return int(min(max(MIN_COMPLETION_MODES, 0.4 * n_subjects), MAX_COMPLETION_MODES, max(n_subjects - 1, 1)))


def _fit_nodes(
    aligned: Population, share: NDArray[np.float32], nodes: NDArray[np.int64], settings: CompletionSettings
) -> tuple[lt.Latent, NDArray[np.float64], Neighbours, tuple[int, float]]:
    """The joint estimate on the nodes: model, node positions in the final frames, neighbours, (steps, change)."""
    data = np.asarray(aligned.vertices[:, nodes], np.float64)
    visible = aligned.visible[:, nodes]
    reference = base_shape(aligned.vertices, share)
    weights = node_weights(reference, aligned.bone, nodes, area_weights(reference, aligned.faces))
    near = neighbours(reference[nodes], aligned.bone[nodes], visible)
    k = min(settings.n_modes or default_modes(aligned.n_subjects), aligned.n_subjects - 1)
    model = lt.start(data, visible, weights, reference[nodes], k)
    shares = (share[:, nodes], relative(share[:, nodes]))
    before, change, steps = lt.predict(model), np.inf, 0
    while steps < settings.iterations and change >= settings.tolerance_mm:
        model, data = _step(model, data, shares, weights, near)
        now = lt.predict(model)
        change = float(np.sqrt(np.mean((now - before)[~visible] ** 2)))
        before, steps = now, steps + 1
    log.info("completion: %d iterations, last change %.4f mm, noise %.3f mm", steps, change, model.noise**0.5)
    return model, data, near, (steps, change)


def _step(
    model: lt.Latent,
    data: NDArray[np.float64],
    shares: tuple[NDArray[np.float32], NDArray[np.float32]],
    weights: NDArray[np.float64],
    near: Neighbours,
) -> tuple[lt.Latent, NDArray[np.float64]]:
    """One iteration: scores and frames, then mean and modes, then the noise; the data move with their frames."""
    share, relative_share = shares
    motions = lt.rigid_motions(model.mean, weights)
    scores, cov, moved, _ = lt.infer(model, data, relative_share, weights, motions)
    data = _moved_back(data, model.mean, motions, moved)
    model = replace(model, scores=scores, score_cov=cov)
    mean, modes, row_cov = lt.rows(model, data, relative_share, weights, near.prior(base_shape(data, share), model))
    modes = lt.without_rigid(modes, motions, weights)
    model = lt.normalise(replace(model, mean=mean, modes=modes, row_cov=row_cov), weights)
    return replace(model, noise=lt.noise_variance(model, data, relative_share, weights)), data


def _moved_back(
    data: NDArray[np.float64], mean: Points, motions: NDArray[np.float64], moved: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Each subject moved rigidly so that its estimated small motion vanishes."""
    ones = np.ones(len(mean))
    new = np.empty_like(data)
    for i, q in enumerate(moved):
        rotation, shift = rigid_fit(mean, mean + motions @ q, ones)
        new[i] = (data[i] - shift) @ rotation
    return new


def _carry_frames(aligned: Population, nodes: NDArray[np.int64], node_data: NDArray[np.float64]) -> Population:
    """All vertices in the frames that the nodes ended in."""
    vertices = np.empty_like(aligned.vertices)
    ones = np.ones(len(nodes))
    for i in range(aligned.n_subjects):
        rotation, shift = rigid_fit(np.asarray(aligned.vertices[i, nodes], np.float64), node_data[i], ones)
        vertices[i] = aligned.vertices[i] @ rotation.T + shift
    return replace(aligned, vertices=vertices)


def _all_vertices(
    framed: Population, shares: NDArray[np.float32], nodes: NDArray[np.int64], model: lt.Latent, near: Neighbours
) -> Completion:
    """Mean and modes at every vertex for the scores found on the nodes, and the gaps filled with them."""
    s, v = framed.visible.shape
    k = model.scores.shape[1]
    mean, modes, row_cov = np.empty((v, 3)), np.empty((v, 3, k)), np.empty((v, k * k), np.float32)
    base = base_shape(framed.vertices, shares)
    weights = area_weights(base, framed.faces)
    most = int(framed.n_seen.max())
    lent = near.lend(base[nodes], model)
    for start in range(0, v, BLOCK):
        part = slice(start, min(start + BLOCK, v))
        own = well_seen(framed.visible[:, part], most)
        prior = near.carry(base[part], framed.bone[part], own, base[part], lent)
        data = np.asarray(framed.vertices[:, part], np.float64)
        m, w, cov = lt.rows(model, data, relative(shares[:, part]), weights[part], prior)
        mean[part], modes[part], row_cov[part] = m, w, cov.reshape(len(m), -1)
    unseen, known = np.flatnonzero(framed.n_seen == 0), nodes[framed.n_seen[nodes] > 0]
    if len(unseen):
        both = np.concatenate([modes[known], (mean - base)[known, :, None]], axis=2)
        taken = never_seen(base, framed.bone, unseen, known, both)
        modes[unseen], mean[unseen] = taken[:, :, :-1], base[unseen] + taken[:, :, -1]
    filled, sd = _filled(framed, model, (mean, modes, row_cov), base, nodes)
    population = replace(framed, vertices=filled)
    return Completion(population, sd, mean, modes, model.scores, model.score_cov, model.noise, 0, np.inf, False)


def _filled(
    framed: Population,
    model: lt.Latent,
    rows: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float32]],
    base: Points,
    nodes: NDArray[np.int64],
) -> tuple[NDArray[np.floating], NDArray[np.float32]]:
    """Vertices with expectations in the gaps, joined to what was seen, and their standard deviations (S, V)."""
    mean, modes, row_cov = rows
    s, v, k = len(model.scores), len(mean), model.scores.shape[1]
    filled, sd = np.array(framed.vertices), np.zeros((s, v), np.float32)
    second = np.einsum("sk,sl->skl", model.scores, model.scores) + model.score_cov
    for start in range(0, v, BLOCK):
        part = slice(start, min(start + BLOCK, v))
        seen, w = framed.visible[:, part], modes[part]
        predicted = mean[part] + (model.scores @ w.reshape(-1, k).T).reshape(s, -1, 3)
        filled[:, part][~seen] = predicted[~seen]
        grams = (np.einsum("jck,jcl->jkl", w, w) / 3).reshape(-1, k * k)
        variance = model.score_cov.reshape(s, -1) @ grams.T + second.reshape(s, -1) @ row_cov[part].T
        sd[:, part] = np.where(seen, 0, np.sqrt(np.maximum(variance + model.noise, 0)))
    edges = edges_of(framed.faces) if s <= FADE_SUBJECTS else np.zeros((0, 2), np.int64)
    for i in np.flatnonzero(~framed.visible.all(axis=1)):
        _join(filled[i], framed, int(i), mean + modes @ model.scores[i], (base, nodes, edges))
    return filled, sd


def _join(
    filled: NDArray[np.floating],
    framed: Population,
    i: int,
    expected: Points,
    mesh: tuple[Points, NDArray[np.int64], NDArray[np.int64]],
) -> None:
    """Continue subject ``i``'s departure from what was expected into its hidden part, in place (V, 3)."""
    base, nodes, edges = mesh
    visible = framed.visible[i]
    hidden = np.flatnonzero(~visible)
    seam = np.unique(edges[visible[edges].any(axis=1) & ~visible[edges].all(axis=1)])
    seam = seam[visible[seam]]
    known = nodes[visible[nodes]]
    departure = np.asarray(framed.vertices[i], np.float64) - expected
    wanted = np.concatenate([hidden, seam])
    step = continued(base, framed.bone, known, departure[known], wanted)
    if len(seam):
        left = np.zeros_like(expected)
        left[seam] = departure[seam] - step[len(hidden) :]
        step[: len(hidden)] += joined(base, edges, visible, left, hidden)
    filled[hidden] += step[: len(hidden)].astype(filled.dtype)
