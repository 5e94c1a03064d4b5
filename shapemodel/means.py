"""Means of groups: how sure they are, where they differ, their symmetric and size-matched forms.

All means here are of completed shapes in one common frame (:func:`shapemodel.completion.complete`), so that a
female and a male mean can be laid on each other vertex by vertex.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from shapemodel.completion import Completion
from shapemodel.mesh import Points
from shapemodel.model import ShapeModel, mean_error
from shapemodel.population import Group, area_weights, group_index, rigid_fit
from shapemodel.reasons import InputError

Array = NDArray[np.float64]

BLOCK = 4096
"""Vertices worked on at a time."""

MIN_SEEN_FOR_TEST = 2
"""A vertex that fewer subjects of a group showed is not tested for a difference."""


@dataclass(frozen=True)
class MeanInterval:
    """A group's mean with its uncertainty.

    Attributes
    ----------
    mean : (V, 3) mm; sem : (V,) mm, standard error of all coordinates together
    low, high : (V, 3) bootstrap limits a coordinate
    level : their nominal cover; repeats : bootstrap samples; n_subjects : of the group
    """

    mean: Points
    sem: Array
    low: Points
    high: Points
    level: float
    repeats: int
    n_subjects: int


@dataclass(frozen=True)
class Difference:
    """Where two groups differ.

    Attributes
    ----------
    vector : (V, 3) mm, second mean minus first; distance : (V,) its length
    p : (V,) permutation p-value, 1 where a group showed the vertex in fewer than two subjects
    q : (V,) false-discovery rate at which the vertex would be called different (Benjamini and Hochberg 1995)
    groups, counts : names and subjects of both; permutations : how many
    """

    vector: Points
    distance: Array
    p: Array
    q: Array
    groups: tuple[str, str]
    counts: tuple[int, int]
    permutations: int


def mean_interval(
    done: Completion, group: Group = None, *, repeats: int = 1000, level: float = 0.95, seed: int = 0
) -> MeanInterval:
    """Mean of a group with a bootstrap interval over subjects.

    Each bootstrap mean is that of the expected shapes of the drawn subjects plus the mean departure from
    expectation of those drawn subjects who showed the vertex: what nobody of them showed rests on fewer people,
    and its interval is wider. Limits are normal-theory quantiles of the bootstrap's spread, widened to Student's
    t and by n / (n - 1), since percentiles of few subjects are too narrow (Efron and Tibshirani 1993).
    """
    index = group_index(done.population, group)
    n = len(index)
    if n < 2:
        raise InputError(f"an interval needs at least 2 subjects, the group has {n}")
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(n, np.full(n, 1 / n), size=repeats).astype(np.float64)
    own, visible = done.population.vertices[index], done.population.visible[index]
    mean = np.asarray(own.mean(axis=0, dtype=np.float64))
    spread = np.empty_like(mean)
    for start in range(0, len(mean), BLOCK):
        part = slice(start, start + BLOCK)
        expected = _expected(done, index, part)
        spread[part] = _bootstrap_sd(own[:, part], visible[:, part], expected, done.sd[index, part], weights)
    half = float(t.ppf((1 + level) / 2, n - 1)) * np.sqrt(n / (n - 1)) * spread
    return MeanInterval(mean, mean_error(done, index), mean - half, mean + half, level, repeats, n)


def _expected(done: Completion, index: NDArray[np.int64], part: slice) -> Array:
    """(n, b, 3) shapes that the completion model expects."""
    modes = done.modes[part]
    step = done.scores[index] @ modes.reshape(3 * len(modes), modes.shape[2]).T
    return done.mean[part] + step.reshape(len(index), len(modes), 3)


def _bootstrap_sd(
    own: NDArray[np.floating],
    visible: NDArray[np.bool_],
    expected: Array,
    sd: NDArray[np.floating],
    weights: Array,
) -> Array:
    """(b, 3) standard deviation of the bootstrap means of a block of vertices."""
    n, b = visible.shape
    whole = np.asarray(visible.all(axis=0))
    base = np.where(whole[:, None], own, expected).astype(np.float64)
    mean = (weights @ base.reshape(n, -1) / n).reshape(-1, b, 3)
    if not whole.all():
        seen = visible[:, ~whole].astype(np.float64)
        rest = np.where(visible[:, ~whole, None], own[:, ~whole] - expected[:, ~whole], 0.0)
        rest *= _honest_scale(rest, seen, sd[:, ~whole])[:, None]
        drawn = np.maximum(weights @ seen, 1.0)
        mean[:, ~whole] += (weights @ rest.reshape(n, -1)).reshape(len(weights), -1, 3) / drawn[..., None]
    return np.asarray(mean.std(axis=0, ddof=1))


def _honest_scale(rest: Array, seen: Array, sd: NDArray[np.floating]) -> Array:
    """(b,) factor that widens fitted departures to those expected of unseen ones (never below 1)."""
    count = np.maximum(seen.sum(axis=0), 1)
    fitted = (rest**2).sum(axis=(0, 2)) / (3 * count)
    hidden = np.maximum((1 - seen).sum(axis=0), 1)
    honest = (sd.astype(np.float64) ** 2).sum(axis=0) / hidden
    return np.asarray(np.sqrt(np.maximum(honest / np.maximum(fitted, 1e-12), 1.0)), np.float64)


def difference(
    done: Completion,
    first: Group = "female",
    second: Group = "male",
    *,
    permutations: int = 2000,
    seed: int = 0,
) -> Difference:
    """Difference of two groups' means, vertex by vertex, with a permutation test and false-discovery control.

    The statistic is the squared length of the difference; labels are exchanged among the subjects of both
    groups. ``p = (1 + exceedances) / (1 + permutations)``.
    """
    a, b = group_index(done.population, first), group_index(done.population, second)
    if np.intersect1d(a, b).size:
        raise InputError("the two groups share subjects")
    index = np.concatenate([a, b])
    contrast = np.concatenate([np.full(len(a), -1 / len(a)), np.full(len(b), 1 / len(b))])
    rng = np.random.default_rng(seed)
    shuffled = np.stack([rng.permutation(contrast) for _ in range(permutations)])
    own = done.population.vertices[index]
    v = own.shape[1]
    vector, p = np.empty((v, 3)), np.ones(v)
    for start in range(0, v, BLOCK // 4):
        part = slice(start, start + BLOCK // 4)
        x = own[:, part].reshape(len(index), -1).astype(np.float64)
        x -= x.mean(axis=0)
        vector[part] = (contrast @ x).reshape(-1, 3)
        null = ((shuffled @ x).reshape(permutations, -1, 3) ** 2).sum(axis=2)
        found = (vector[part] ** 2).sum(axis=1)
        p[part] = (1 + (null >= found * (1 - 1e-12)).sum(axis=0)) / (1 + permutations)
    visible = done.population.visible
    tested = np.minimum(visible[a].sum(axis=0), visible[b].sum(axis=0)) >= MIN_SEEN_FOR_TEST
    p = np.where(tested, p, 1.0)
    q = np.ones(v)
    q[tested] = false_discovery(p[tested])
    names = tuple(g if isinstance(g, str) else "group" for g in (first, second))
    distance = np.linalg.norm(vector, axis=1)
    return Difference(vector, distance, p, q, (names[0], names[1]), (len(a), len(b)), permutations)


def false_discovery(p: Array) -> Array:
    """Adjusted p-values of Benjamini and Hochberg (1995), J. R. Statist. Soc. B 57:289."""
    n = len(p)
    order = np.argsort(p)
    scaled = p[order] * n / np.arange(1, n + 1)
    q = np.empty(n)
    q[order] = np.minimum.accumulate(scaled[::-1])[::-1]
    return np.minimum(q, 1.0)


def centroid_size(vertices: Points, weights: Array) -> float:
    """mm, root of the area-weighted mean squared distance from the centroid."""
    w = weights / weights.sum()
    return float(np.sqrt(w @ ((vertices - w @ vertices) ** 2).sum(axis=1)))


def size_matched_mean(done: Completion, group: Group = None) -> tuple[Points, float]:
    """(V, 3) mean of a group with every subject brought to the pooled geometric-mean size, and that size in mm.

    Groups then differ in shape only. Each shape is scaled about its centroid and laid rigidly on the pooled
    mean of that size again.
    """
    own = done.population
    mean = own.vertices.mean(axis=0, dtype=np.float64)
    weights = area_weights(mean, own.faces)
    sizes = np.array([centroid_size(np.asarray(x, np.float64), weights) for x in own.vertices])
    common = float(np.exp(np.log(sizes).mean()))
    index = group_index(own, group)
    target = mean * (common / centroid_size(mean, weights))
    total = np.zeros_like(mean)
    for i in index:
        x = np.asarray(own.vertices[i], np.float64) * (common / sizes[i])
        rotation, shift = rigid_fit(x, target, weights)
        total += x @ rotation.T + shift
    return total / len(index), common


BOUNDARY_MM: Mapping[str, float] = {"rib": 0.6, "sternum": 1.6, "vertebra": 1.4}
"""Root mean square distance between surfaces of automatic labels and true bones, by kind, on twelve phantom CTs with
2 mm slices (``python benchmarks/line.py boundary DEMO``): it was measured there, not on the cohort at hand."""


@dataclass(frozen=True)
class Budget:
    """What a bone's mean is uncertain by, mm: three sources and their root sum of squares."""

    label: int
    boundary_mm: float
    correspondence_mm: float
    sampling_mm: float
    total_mm: float


def error_budget(
    model: ShapeModel, *, boundary_mm: Mapping[int, float], correspondence_mm: Mapping[int, float]
) -> list[Budget]:
    """One row a bone: label boundary + correspondence + sampling.

    Parameters
    ----------
    boundary_mm, correspondence_mm : label -> root mean square error of one subject, measured against truth (the
        phantom's, or reference labels); they are not divided by the number of subjects, since what is systematic
        in them does not average out

    Notes
    -----
    Sampling is the root mean square over the bone's vertices of the standard error of the mean.
    """
    rows = []
    for label in model.reference.labels:
        if label in boundary_mm and label in correspondence_mm:
            sampling = float(np.sqrt(np.mean(model.sem[model.reference.bone == label] ** 2)))
            parts = (float(boundary_mm[label]), float(correspondence_mm[label]), sampling)
            rows.append(Budget(label, *parts, float(np.sqrt(sum(x**2 for x in parts)))))
    return rows
