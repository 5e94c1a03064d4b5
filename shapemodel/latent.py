"""Variational probabilistic PCA with missing vertices and unknown rigid frames: the arithmetic.

The model of subject s at vertex j (3 coordinates share visibility) is::

    x_sj = mu_j + W_j z_s + J_j q_s + e_sj,    z ~ N(0, I),  e ~ N(0, sigma2 / a_j I3),  W_jk ~ N(0, v_k)

with the six rigid motions J (flat prior) estimated for each subject together with its scores: a cut chest is
not laid on the mean by what is left of it, but where its most probable whole would lie. Rows of W carry
their own uncertainty and each mode its own prior variance, so that modes the data do not support shrink away
(Ilin and Raiko 2010, JMLR 11:1957, "Practical approaches to PCA in the presence of missing values", section
3.4; Tipping and Bishop 1999 for the complete case). Each iteration is re-parametrised to whitened scores and
orthogonal modes, which is what makes it converge in tens of iterations.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

RIGID_PRIOR_MM = 1e3
"""Prior standard deviation of the frame's motion: flat at the scale of a body, finite for the solver."""

MEAN_FREEDOM = 9.0
"""Prior variance of a mean vertex, in variances of one subject: weak, felt where one or two subjects are left."""

VARIANCE_FLOOR = 1e-10
"""Smallest variance relative to the data's, so that exact low-rank data do not divide by zero."""


@dataclass(frozen=True)
class Latent:
    """Parameters and posteriors.

    Attributes
    ----------
    mean : (m, 3); modes : (m, 3, k), W above; row_cov : (m, k, k) posterior covariance of each row of W
    scores : (S, k) posterior means; score_cov : (S, k, k)
    mode_var : (k,) prior variance v of the entries of each mode; noise : sigma2, mm2
    """

    mean: Array
    modes: Array
    row_cov: Array
    scores: Array
    score_cov: Array
    mode_var: Array
    noise: float


def rigid_motions(points: Array, weights: Array) -> Array:
    """(m, 3, 6) displacements of the six small rigid motions, orthonormal under the weights."""
    m = len(points)
    p = points - (weights @ points) / weights.sum()
    motions = np.zeros((m, 3, 6))
    for axis in range(3):
        motions[:, axis, axis] = 1.0
        unit = np.zeros(3)
        unit[axis] = 1.0
        motions[:, :, 3 + axis] = np.cross(unit, p)
    flat = (motions * np.sqrt(weights)[:, None, None]).reshape(-1, 6)
    _, r = np.linalg.qr(flat)
    scale = np.sqrt(weights.sum())
    return np.asarray(motions @ np.linalg.inv(r) * scale, np.float64)


def start(data: Array, visible: NDArray[np.bool_], weights: Array, mean: Array, n_modes: int) -> Latent:
    """First values: principal components of the data with the mean in the gaps."""
    s, m = visible.shape
    centred = np.where(visible[..., None], data - mean, 0.0)
    scaled = (centred * np.sqrt(weights)[:, None]).reshape(s, -1)
    u, d, vt = np.linalg.svd(scaled, full_matrices=False)
    u, d, vt = u[:, :n_modes], d[:n_modes], vt[:n_modes]
    total = float((scaled**2).sum() / (3 * max(visible.sum(), 1)))
    modes = (vt * d[:, None] / np.sqrt(s)).T.reshape(m, 3, n_modes) / np.sqrt(weights)[:, None, None]
    kept = float((d**2).sum() / (3 * max(visible.sum(), 1)))
    return Latent(
        mean.copy(),
        modes,
        np.zeros((m, n_modes, n_modes)),
        u * np.sqrt(s),
        np.tile(np.eye(n_modes) * 1e-6, (s, 1, 1)),
        np.maximum((modes**2).mean(axis=(0, 1)), VARIANCE_FLOOR * total),
        max(total - kept, 1e-3 * total, 1e-12),
    )


def row_grams(modes: Array, row_cov: Array, weights: Array) -> Array:
    """(m, k, k) a_j E[W_j^T W_j]."""
    return np.asarray((modes.transpose(0, 2, 1) @ modes + 3 * row_cov) * weights[:, None, None])


def infer(
    latent: Latent, data: Array, share: NDArray[np.floating], weights: Array, motions: Array | None
) -> tuple[Array, Array, Array, Array]:
    """E-step: scores (S, k), their covariances, rigid motions q (S, 6), and the Gram of each subject's modes.

    ``share`` (S, m) is how much a vertex of a subject counts, 0 where hidden. Without ``motions`` the frames
    are taken as they are and q is zero.
    """
    s, m = share.shape
    k = latent.modes.shape[2]
    seen = share.astype(np.float64)
    grams: Array = (seen @ row_grams(latent.modes, latent.row_cov, weights).reshape(m, -1)).reshape(s, k, k)
    residual = np.where(seen[..., None] > 0, data - latent.mean, 0.0) * (seen * weights)[..., None]
    flat = residual.reshape(s, -1)
    rhs = flat @ latent.modes.reshape(-1, k) / latent.noise
    precision = grams / latent.noise + np.eye(k)
    if motions is None:
        cov = np.asarray(np.linalg.inv(precision), np.float64)
        return np.asarray(np.einsum("skl,sl->sk", cov, rhs)), cov, np.zeros((s, 6)), grams
    cross = (latent.modes.transpose(0, 2, 1) @ motions) * weights[:, None, None]
    own = (motions.transpose(0, 2, 1) @ motions) * weights[:, None, None]
    full = np.zeros((s, k + 6, k + 6))
    full[:, :k, :k] = precision
    full[:, :k, k:] = (seen @ cross.reshape(m, -1)).reshape(s, k, 6) / latent.noise
    full[:, k:, :k] = full[:, :k, k:].transpose(0, 2, 1)
    full[:, k:, k:] = (seen @ own.reshape(m, -1)).reshape(s, 6, 6) / latent.noise + np.eye(6) / RIGID_PRIOR_MM**2
    cov = np.asarray(np.linalg.inv(full), np.float64)
    both = np.einsum("skl,sl->sk", cov, np.hstack([rhs, flat @ motions.reshape(-1, 6) / latent.noise]))
    return both[:, :k], cov[:, :k, :k], both[:, k:], grams


@dataclass(frozen=True)
class RowPrior:
    """What is expected of vertices before their own data: mean (m, 3), modes (m, 3, k), and how freely they depart.

    ``freedom`` (m,) in (0, 1] scales the prior variance of a vertex: small near well-seen neighbours.
    """

    mean: Array
    modes: Array
    freedom: Array


def rows(
    latent: Latent, data: NDArray[np.floating], share: NDArray[np.floating], weights: Array, prior: RowPrior
) -> tuple[Array, Array, Array]:
    """M-step for vertices: mean (m, 3), modes (m, 3, k), row covariances (m, k, k), given scores.

    The mean is estimated jointly with the modes (scores extended by one), so that subjects who are cut,
    when they differ in shape from those who are not, do not bias it. A priori it departs from the prior's
    mean as far as any subject would. ``share`` (S, m) is how much each
    subject's vertex counts: 0 hidden, 1 seen, between near the edge of what was seen.
    """
    s, k = latent.scores.shape
    m = share.shape[1]
    extended = np.hstack([latent.scores, np.ones((s, 1))])
    moments = np.einsum("sk,sl->skl", extended, extended)
    moments[:, :k, :k] += latent.score_cov
    seen = share.astype(np.float64)
    weight = (weights / latent.noise)[:, None, None]
    precision = (seen.T @ moments.reshape(s, -1)).reshape(m, k + 1, k + 1) * weight
    centred = np.where(seen[..., None] > 0, data - prior.mean, 0.0) * seen[..., None]
    rhs = (extended.T @ centred.reshape(s, -1)).reshape(k + 1, m, 3).transpose(1, 0, 2) * weight
    rhs -= precision[:, :, :k] @ prior.modes.transpose(0, 2, 1)
    spread = MEAN_FREEDOM * max(float(latent.mode_var.sum()), latent.noise)
    diagonal = np.concatenate([1.0 / latent.mode_var, [1.0 / spread]])
    step = np.arange(k + 1)
    precision[:, step, step] += diagonal / prior.freedom[:, None]
    cov = np.asarray(np.linalg.inv(precision), np.float64)
    solution = cov @ rhs
    return prior.mean + solution[:, k], prior.modes + solution[:, :k].transpose(0, 2, 1), cov[:, :k, :k]


def noise_variance(latent: Latent, data: Array, share: NDArray[np.floating], weights: Array) -> float:
    """sigma2 (mm2) by expected squared residuals over what was seen."""
    s, m = share.shape
    k = latent.scores.shape[1]
    seen = share.astype(np.float64)
    residual = np.where(seen[..., None] > 0, data - latent.mean, 0.0)
    weighted = residual * (seen * weights)[..., None]
    cross = np.einsum("sk,sk->", latent.scores, weighted.reshape(s, -1) @ latent.modes.reshape(-1, k))
    grams = (seen @ row_grams(latent.modes, latent.row_cov, weights).reshape(m, -1)).reshape(s, k, k)
    second = np.einsum("sk,sl->skl", latent.scores, latent.scores) + latent.score_cov
    total = float((residual * weighted).sum())
    count = 3 * max(float(seen.sum()), 1.0)
    value = (total - 2 * cross + float(np.einsum("skl,skl->", grams, second))) / count
    return max(float(value), VARIANCE_FLOOR * total / count, 1e-12)


def without_rigid(modes: Array, motions: Array, weights: Array) -> Array:
    """Modes without their rigid part (motions orthonormal under the weights): it belongs to the frames."""
    scale = weights.sum()
    part = (motions * weights[:, None, None]).reshape(-1, 6).T @ modes.reshape(-1, modes.shape[2]) / scale
    return modes - motions @ part


def normalise(latent: Latent, weights: Array) -> Latent:
    """The same model with zero-mean, whitened scores and modes orthogonal under the weights, largest first."""
    s = len(latent.scores)
    centre = latent.scores.mean(axis=0)
    scores = latent.scores - centre
    mean = latent.mean + latent.modes @ centre
    spread = (scores.T @ scores + latent.score_cov.sum(axis=0)) / s
    value, vector = np.linalg.eigh(spread)
    value = np.maximum(value, 1e-12)
    root, back = vector * np.sqrt(value), (vector / np.sqrt(value)).T
    k = latent.modes.shape[2]
    gram = (latent.modes * weights[:, None, None]).reshape(-1, k).T @ latent.modes.reshape(-1, k)
    gram += 3 * np.tensordot(weights, latent.row_cov, axes=1)
    strength, turn = np.linalg.eigh(root.T @ gram @ root)
    turn = turn[:, np.argsort(strength)[::-1]]
    forward, backward = root @ turn, turn.T @ back
    modes = latent.modes @ forward
    row_cov = forward.T @ latent.row_cov @ forward
    variance = (modes**2).mean(axis=(0, 1)) + np.einsum("jkk->k", row_cov) / len(row_cov)
    floor = VARIANCE_FLOOR * variance.max() + 1e-14
    return replace(
        latent,
        mean=mean,
        modes=modes,
        row_cov=row_cov,
        scores=scores @ backward.T,
        score_cov=backward @ latent.score_cov @ backward.T,
        mode_var=np.maximum(variance, floor),
    )


def predict(latent: Latent) -> Array:
    """(S, m, 3) expected shapes."""
    s = len(latent.scores)
    flat = latent.scores @ latent.modes.reshape(-1, latent.modes.shape[2]).T
    return latent.mean + flat.reshape(s, -1, 3)
