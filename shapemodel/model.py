"""ShapeModel: mean, modes and scores of a group, with what is known about every vertex.

``fit_model`` takes a population (or its :class:`~shapemodel.completion.Completion`, made once and shared by
all groups, so that their means lie in one frame). Scores are in standard deviations: ``x = mean + sum_k
scores_k sqrt(variances_k) modes_k``, with scores ~ N(0, 1).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shapemodel.completion import Completion, CompletionSettings, complete
from shapemodel.mesh import Mesh, Points
from shapemodel.pca import mode_signs, principal_components
from shapemodel.population import Group, Population, group_index
from shapemodel.reasons import InputError

OBSERVED, EXTRAPOLATED, PRIOR = 0, 1, 2
"""Origin of a vertex in a model: seen in a subject of the group; only in other groups (or predicted for all);
in nobody, so that the template's prior or the registration's extrapolation stands there."""

ORIGIN_NAMES = ("observed", "extrapolated", "prior")

FEW_SUBJECTS = 20
"""Below this a mean is said to rest on few subjects (25 a sex were enough for Larsson 2024, FACTS section 1)."""

LITTLE_SEEN = 0.5
"""A vertex shown by less than this share of the group is marked as little seen."""

KEPT_VARIANCE = 0.999
"""Share of the variance that the kept modes explain when their number is not given."""

MAX_MODES = 150


@dataclass(frozen=True)
class ShapeModel:
    """Statistical shape model of one group; immutable.

    Attributes
    ----------
    reference : template mesh (connectivity, bones); its vertices are the pooled mean
    mean : (V, 3) mm, LPS
    modes : (K, V, 3) float32, orthonormal; variances : (K,) mm2, largest first
    noise : mm2, variance of a coordinate that the kept modes leave over
    total_variance : mm2, of all modes
    scores : (n, K) standard deviations; subjects, sex : n; covariates : name -> (n,)
    n_seen : (V,) subjects of the group that showed the vertex; origin : (V,) OBSERVED, EXTRAPOLATED, PRIOR
    sem : (V,) mm, standard error of the mean (root of the three coordinates' summed variances)
    group : pooled, female, male or a given name
    metadata : JSON-able facts (settings, posture, hash of the cohort, format)
    base : (V, 3) mm, the mean healed so that it passes the gate of exported shapes (:mod:`shapemodel.ready`), which
        spares every query that work; None when it was not made
    healing : (k, 2, d, V, 3) mm float32, what shapes below and above the mean along the first k modes needed besides,
        at the d distances of :data:`shapemodel.ready.HEALED_SD`; None when it was not made
    """

    reference: Mesh
    mean: Points
    modes: NDArray[np.float32]
    variances: NDArray[np.float64]
    noise: float
    total_variance: float
    scores: NDArray[np.float64]
    subjects: tuple[str, ...]
    sex: tuple[str | None, ...]
    covariates: Mapping[str, NDArray[np.float64]]
    n_seen: NDArray[np.int64]
    origin: NDArray[np.uint8]
    sem: NDArray[np.float64]
    group: str = "pooled"
    metadata: Mapping[str, Any] = field(default_factory=dict)
    base: Points | None = None
    healing: NDArray[np.float32] | None = None

    @property
    def n_subjects(self) -> int:
        """n."""
        return len(self.subjects)

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that name this model: of mean, modes and variances as they are stored."""
        digest = hashlib.sha256()
        for array in (self.mean.astype(np.float32), self.modes, self.variances.astype(np.float32)):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:16]

    @property
    def n_modes(self) -> int:
        """K."""
        return len(self.variances)

    @property
    def n_vertices(self) -> int:
        """V."""
        return len(self.mean)

    def instance(self, scores: NDArray[Any] | list[float]) -> Points:
        """(V, 3) vertices for scores in standard deviations; fewer than K: the others are zero."""
        b = np.asarray(scores, np.float64).ravel()
        if len(b) > self.n_modes:
            raise InputError(f"{len(b)} scores for a model of {self.n_modes} modes")
        k = len(b)
        if not k:
            return self.mean.copy()
        step = (b * np.sqrt(self.variances[:k])).astype(np.float32) @ self.modes[:k].reshape(k, -1)
        return np.asarray(self.mean + step.reshape(-1, 3), np.float64)

    def scores_of(self, vertices: Points) -> NDArray[np.float64]:
        """(K,) scores of a complete shape in the model's frame (projection)."""
        flat = (np.asarray(vertices, np.float64) - self.mean).ravel()
        return np.asarray(self.modes.reshape(self.n_modes, len(flat)) @ flat / np.sqrt(self.variances), np.float64)

    def sample(self, count: int, *, seed: int) -> NDArray[np.float64]:
        """(count, V, 3) random shapes of the group."""
        draws = np.random.default_rng(seed).standard_normal((count, self.n_modes))
        return np.stack([self.instance(b) for b in draws]) if count else np.empty((0, self.n_vertices, 3))

    def posterior(
        self, vertices: Points, index: NDArray[np.int64], *, noise_mm: float = 1.0
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Scores (K,) and their covariance (K, K) given some vertices, in the model's frame.

        Parameters
        ----------
        vertices : (m, 3) positions of the vertices ``index``; a vertex may be given more than once
        noise_mm : standard deviation of a coordinate of these positions, beside the model's own noise

        Notes
        -----
        Albrecht, Luethi et al. 2013, Medical Image Analysis 17:959, "Posterior shape models".
        """
        w = np.sqrt(self.variances)[:, None] * self.modes[:, index].reshape(self.n_modes, -1).astype(np.float64)
        variance = noise_mm**2 + self.noise
        precision = np.eye(self.n_modes) + w @ w.T / variance
        residual = (np.asarray(vertices, np.float64) - self.mean[index]).ravel()
        cov = np.linalg.inv(precision)
        return cov @ (w @ residual) / variance, cov

    def truncate(self, n_modes: int) -> ShapeModel:
        """The same model with its first modes only; what is dropped goes to the noise."""
        k = min(n_modes, self.n_modes)
        if k < 0:
            raise InputError(f"a model cannot have {n_modes} modes")
        dropped = float(self.variances[k:].sum()) / (3 * self.n_vertices)
        return replace(
            self,
            modes=self.modes[:k],
            variances=self.variances[:k],
            scores=self.scores[:, :k],
            noise=self.noise + dropped,
            healing=None if self.healing is None else self.healing[:k],
        )

    def mesh(self, vertices: Points) -> Mesh:
        """A shape of this model with the arrays that say where it comes from."""
        arrays = {"n_seen": self.n_seen.astype(np.int32), "origin": self.origin, "prior": self.origin == PRIOR}
        fields = {"group": self.group, "n_subjects": self.n_subjects}
        return Mesh(vertices, self.reference.faces, self.reference.bone, None, arrays, fields)


def mean_shape(model: ShapeModel) -> Mesh:
    """The mean as a mesh with arrays ``n_seen``, ``origin``, ``prior`` and ``sem_mm``."""
    return model.mesh(model.mean).with_arrays(sem_mm=model.sem)


def fit_model(
    population: Population | Completion,
    group: Group = None,
    *,
    n_modes: int | None = None,
    name: str | None = None,
    settings: CompletionSettings | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> ShapeModel:
    """The shape model of a group, in the frame of the whole population.

    Parameters
    ----------
    population : corresponding shapes, or their completion (which saves time when several groups are fitted)
    group : None or ``pooled``, ``female``, ``male``, a boolean mask, or subject indices
    n_modes : modes kept; None: those of 99.9 % of the variance, at most 150

    Notes
    -----
    The group's mean is that of its completed shapes. The covariance is that of the completed shapes plus
    the posterior covariance of what was filled in, as in the M-step of probabilistic PCA: filling in
    expectations alone would shrink the modes where little was seen. With complete data this is plain PCA.
    """
    done = population if isinstance(population, Completion) else complete(population, settings=settings)
    index = group_index(done.population, group)
    own = done.population.take(index)
    parts = principal_components(own.vertices, n_modes=max(n_modes or 0, MAX_MODES))
    modes, variances, total = parts.modes, parts.variances, parts.total
    if not own.visible.all() and done.modes.shape[2]:
        modes, variances = _with_uncertainty(done, index, modes, variances)
        total = float(variances.sum())
    keep = n_modes if n_modes is not None else kept_modes(variances, total)
    keep = min(keep, len(variances))
    noise = max(total - float(variances[:keep].sum()), 0.0) / (3 * own.n_vertices)
    seen = own.n_seen
    everywhere = done.population.n_seen
    origin = np.where(seen > 0, OBSERVED, np.where(everywhere > 0, EXTRAPOLATED, PRIOR)).astype(np.uint8)
    reference = Mesh(done.mean, own.faces, own.bone)
    model = ShapeModel(
        reference, parts.mean, modes[:keep], variances[:keep], noise, total, np.zeros((len(index), keep)),
        own.subjects, own.sex, own.covariates, seen, origin, mean_error(done, index),
        name or (group if isinstance(group, str) else "pooled" if group is None else "group"), dict(metadata or {}),
    )  # fmt: skip
    return replace(model, scores=_all_scores(model, own.vertices))


def kept_modes(variances: NDArray[np.float64], total: float) -> int:
    """How many modes explain 99.9 % of the variance, at most 150, at least one if there is one."""
    if not len(variances):
        return 0
    share = np.cumsum(variances) / max(total, 1e-30)
    return min(int(np.searchsorted(share, KEPT_VARIANCE)) + 1, MAX_MODES, len(variances))


def _all_scores(model: ShapeModel, vertices: NDArray[Any]) -> NDArray[np.float64]:
    """(n, K) scores of these completed shapes."""
    return np.stack([model.scores_of(x) for x in vertices])


def _with_uncertainty(
    done: Completion, index: NDArray[np.int64], modes: NDArray[np.float32], variances: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Modes and variances with the posterior covariance of the filled parts added, in the span of both."""
    v = done.population.n_vertices
    scaled = done.modes.reshape(3 * v, -1)
    data = modes[: min(len(modes), MAX_MODES)].reshape(-1, 3 * v).T.astype(np.float64)
    rest = scaled - data @ (data.T @ scaled)
    u, d, _ = np.linalg.svd(rest, full_matrices=False)
    basis = np.hstack([data, u[:, d > 1e-6 * max(float(d.max(initial=0.0)), 1e-12)]])
    r = basis.shape[1]
    cov = np.zeros((r, r))
    cov[np.arange(data.shape[1]), np.arange(data.shape[1])] = variances[: data.shape[1]]
    added = np.zeros((r, r))
    for i in index:
        gap = ~done.population.visible[i]
        if gap.any():
            three = np.repeat(gap, 3)
            part = basis[three].T @ scaled[three]
            added += part @ done.score_cov[i] @ part.T
    value, vector = np.linalg.eigh(cov + added / len(index))
    order = np.argsort(value)[::-1][: max(len(index) - 1, 1)]
    value, vector = value[order], vector[:, order]
    good = value > 1e-9 * max(float(value[0]), 1e-30)
    new = (basis @ vector[:, good]).T.reshape(-1, v, 3).astype(np.float32)
    return new * mode_signs(new, done.mean)[:, None, None], value[good]


def mean_error(done: Completion, index: NDArray[np.int64]) -> NDArray[np.float64]:
    """(V,) mm, standard error of the group's mean at each vertex, all three coordinates together.

    What a vertex's position shares with the seen parts rests on all n subjects, the rest of its variance on
    those alone who showed the vertex: ``sem2 = (total - rest) / n + rest / n_seen`` (the regression
    estimator of a mean with data missing at random; Little and Rubin, Statistical Analysis with Missing Data).
    """
    n, v = len(index), done.population.n_vertices
    if n < 2:
        return np.full(v, np.nan)
    own = done.population.vertices[index]
    spread = np.zeros(v)
    for start in range(0, v, 8192):
        spread[start : start + 8192] = own[:, start : start + 8192].var(axis=0, ddof=1, dtype=np.float64).sum(axis=1)
    visible = done.population.visible[index]
    hidden = (~visible).sum(axis=0)
    filled = 3 * (done.sd[index].astype(np.float64) ** 2).sum(axis=0)
    rest = np.where(hidden > 0, filled / np.maximum(hidden, 1), 0.0)
    total = spread + filled / n
    seen = np.maximum(visible.sum(axis=0), 1)
    return np.asarray(np.sqrt(np.maximum(total - rest, 0.0) / n + rest / seen), np.float64)
