"""Completion: the frames of all subjects, and the most probable positions of what their studies cut off.

:func:`complete` estimates alignment, mean and modes together from visible vertices alone
(:mod:`shapemodel.latent`, :mod:`shapemodel.filling`). Observed vertices stay as observed; the others get their
expectation and its standard deviation, calibrated on vertices that were hidden on purpose.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from shapemodel.filling import Completion, CompletionSettings, HiddenError, fitted, on_nodes, trivial
from shapemodel.neighbours import (
    FADE_SUBJECTS,
    small_gaps,
    spread_nodes,
)
from shapemodel.population import Population, align, finite, rigid_fit
from shapemodel.reasons import InputError

log = logging.getLogger(__name__)

MIN_SEEN_SHARE = 0.05
"""A study that shows less of the template than this cannot be placed in the common frame."""

SMALL_COHORT = 8
"""Below this many subjects hidden vertices are left as registered: too few to learn how parts go together."""

STEP_RATIO = 2.0
"""Edges between seen and hidden vertices longer than this times any other edge: nothing was continued there."""

CALIBRATION_NODES, CALIBRATION_ITERATIONS = 500, 40
"""The calibration repeats the estimate on so few nodes: displacements vary over many centimetres."""

MIN_WHOLE = 4
"""With fewer subjects who show enough, hiding one of them changes the cohort too much to judge it."""

UNCALIBRATED = 2.0
"""Factor on the standard deviation where it cannot be judged: that found on 48 phantoms."""


def complete(population: Population, *, settings: CompletionSettings | None = None) -> Completion:
    """Frames, mean, modes and missing parts of a population, estimated together from what was seen.

    Raises
    ------
    InputError
        when a subject shows too little of the template to be placed
    """
    settings = settings or CompletionSettings()
    population = finite(population)
    share = population.visible.mean(axis=1)
    if share.min() < MIN_SEEN_SHARE:
        worst = population.subjects[int(np.argmin(share))]
        raise InputError(f"{worst} shows {share.min():.0%} of the template: too little to place it, leave it out")
    if bool(population.visible.all()) or population.n_subjects == 1:
        return trivial(align(population))
    if population.n_subjects < SMALL_COHORT and continues(population):
        return _as_registered(population)
    trusted = population
    if population.n_subjects <= FADE_SUBJECTS and continues(population):
        trusted = replace(population, visible=population.visible | small_gaps(population.vertices, population.visible))
    done = fitted(trusted, settings)
    bridged = trusted.visible & ~population.visible
    sd = np.where(bridged, np.float32(np.sqrt(done.noise)), done.sd)
    done = replace(done, sd=sd, population=replace(done.population, visible=population.visible))
    if not settings.calibration_folds:
        return done
    hidden = _calibration(population, settings)
    ratio = max(1.0, hidden.rms_mm / hidden.expected_mm) if hidden else UNCALIBRATED
    return replace(done, sd=done.sd * np.float32(ratio), hidden=hidden)


def continues(population: Population) -> bool:
    """Whether hidden vertices are a registration's smooth continuation of the seen ones, by the edges between them."""
    if not len(population.faces):
        return False
    edges = np.vstack([population.faces[:, [0, 1]], population.faces[:, [1, 2]], population.faces[:, [2, 0]]])
    for x, seen in zip(population.vertices, population.visible, strict=True):
        length = np.linalg.norm(x[edges[:, 0]] - x[edges[:, 1]], axis=1)
        inside, across = seen[edges].all(axis=1), seen[edges].any(axis=1) & ~seen[edges].all(axis=1)
        if across.any() and (not inside.any() or length[across].max() > STEP_RATIO * length[inside].max()):
            return False
    return True


def _as_registered(population: Population) -> Completion:
    """A handful of subjects: hidden vertices stay where the registration's own smoothness put them.

    Regressing hidden parts on three or four scores is less sure than that (an unseen manubrium came out 49 mm
    longer in one real study of four). Their standard deviation is the spread of the cohort at the vertex.
    """
    everything = replace(population, visible=np.ones_like(population.visible))
    aligned = replace(align(everything), visible=population.visible)
    spread = aligned.vertices.std(axis=0, dtype=np.float64, ddof=1)
    each = np.sqrt((spread**2).mean(axis=1)).astype(np.float32)
    return replace(
        trivial(aligned),
        sd=np.where(population.visible, np.float32(0), each).astype(np.float32),
        mean=np.asarray(aligned.vertices.mean(axis=0), np.float64),
    )


def _calibration(population: Population, settings: CompletionSettings) -> HiddenError | None:
    """How far predictions of hidden vertices are off, on few nodes; None where nobody can be spared to test it."""
    most = np.asarray(population.vertices[int(np.argmax(population.visible.sum(axis=1)))], np.float64)
    small = on_nodes(population, spread_nodes(most, population.bone, CALIBRATION_NODES))
    quick = replace(settings, nodes=CALIBRATION_NODES, iterations=CALIBRATION_ITERATIONS)
    try:
        return hidden_error(small, folds=settings.calibration_folds, settings=quick)
    except InputError as error:
        log.info("predictions are not calibrated: %s", error)
        return None


def hidden_error(
    population: Population, *, folds: int = 4, settings: CompletionSettings | None = None, seed: int = 0
) -> HiddenError:
    """Error of what :func:`complete` fills in, before calibration.

    In each fold some (an eighth) of the subjects who show most get the masks of subjects who show less; the
    population is completed again and the prediction compared, after a rigid fit on what stayed visible, with
    what was hidden.

    Raises
    ------
    InputError
        when nothing is hidden, or fewer than four subjects show enough to hide something
    """
    visible, n = population.visible, population.n_subjects
    share = visible.mean(axis=1)
    donors = np.flatnonzero(share < share.max() - 0.01)
    whole = np.flatnonzero(share >= np.quantile(share, 0.6))
    if not len(donors) or len(whole) < MIN_WHOLE:
        raise InputError("nothing is hidden, or too few subjects show enough to hide something of them")
    rng = np.random.default_rng(seed)
    quick = replace(settings or CompletionSettings(), calibration_folds=0)
    square, count = np.zeros(population.n_vertices), np.zeros(population.n_vertices)
    expected, repeats = 0.0, 0
    for _ in range(folds):
        masked = visible.copy()
        chosen = rng.permutation(whole)[: max(1, min(n // 8, len(whole) // 2))]
        for i in chosen:
            masked[i] &= visible[rng.choice(donors)]
        done = complete(replace(population, visible=masked), settings=quick)
        for i in chosen:
            hidden = visible[i] & ~masked[i]
            x = np.asarray(population.vertices[i], np.float64)
            predicted = np.asarray(done.population.vertices[i], np.float64)
            rotation, shift = rigid_fit(x, predicted, masked[i].astype(float))
            square += np.where(hidden, ((x @ rotation.T + shift - predicted) ** 2).sum(axis=1), 0.0)
            count += hidden
            expected += float(3 * (done.sd[i][hidden].astype(np.float64) ** 2).sum())
            repeats += 1
    if not count.sum():
        raise InputError("the masks of the other subjects hid nothing")
    own = {int(k): population.bone == k for k in np.unique(population.bone)}
    each = {k: float(np.sqrt(square[i].sum() / count[i].sum())) for k, i in own.items() if count[i].sum()}
    total = float(np.sqrt(square.sum() / count.sum()))
    return HiddenError(total, float(np.sqrt(expected / count.sum())), each, repeats)


__all__ = ["Completion", "CompletionSettings", "HiddenError", "complete", "continues", "hidden_error"]
