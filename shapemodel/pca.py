"""Principal components of complete data, streamed block by block from memory or disk.

For S subjects and D = 3 V coordinates with S below about 5,000 the (S, S) Gram matrix is small: one pass over
blocks of vertices gives mean and Gram, a second one the modes (Sirovich 1987, the method of snapshots). Above that the
leading modes come from a randomised range finder with power iterations over blocks of subjects, whose cost is linear
in S (Halko, Martinsson and Tropp 2011, SIAM Review 53:217, algorithm 4.4).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

BLOCK_BYTES = 64 * 2**20
"""Size of a block of vertices in memory: large enough for the matrix product, small beside the budget."""

GRAM_SUBJECTS = 5000
"""Above this the Gram matrix (200 MB here) and its eigenvectors cost more than passes over the data."""

OVERSAMPLING, POWER_PASSES = 20, 3
"""Directions beyond the wanted ones, and passes that sharpen them: variances of thoraxes fall slowly beyond mode 20."""

RANK_TOLERANCE = 1e-9
"""Eigenvalues below this share of the largest are rounding, not modes."""


GROWTH_COSINE = 0.05
"""A mode below this cosine with pure growth has no direction of growth worth naming."""


class Rows(Protocol):
    """An array or an HDF5 dataset of shape (S, V, 3)."""

    shape: tuple[int, ...]

    def __getitem__(self, key: Any) -> Any: ...


@dataclass(frozen=True)
class Components:
    """Principal components.

    Attributes
    ----------
    mean : (V, 3) float64, mm
    modes : (K, V, 3) float32, orthonormal in the plain sum over coordinates, sign fixed
    variances : (K,) mm2, with n - 1 in the denominator, largest first
    total : mm2, the variance of all modes, kept or not
    scores : (S, K), standard deviations (mean 0, variance 1 over the sample)
    """

    mean: NDArray[np.float64]
    modes: NDArray[np.float32]
    variances: NDArray[np.float64]
    total: float
    scores: NDArray[np.float64]


def principal_components(data: Rows, *, n_modes: int | None = None) -> Components:
    """Mean, modes and scores of S shapes (S, V, 3), in two passes over blocks of vertices.

    Deterministic; ``n_modes`` None keeps every mode above rounding (at most S - 1). More than
    :data:`GRAM_SUBJECTS` subjects: :func:`leading_components`, when ``n_modes`` is given.
    """
    s, v = int(data.shape[0]), int(data.shape[1])
    if s > GRAM_SUBJECTS and n_modes is not None:
        return leading_components(data, n_modes)
    block = max(1, BLOCK_BYTES // (3 * 4 * s))
    mean, gram = np.empty((v, 3)), np.zeros((s, s))
    for start in range(0, v, block):
        centred, mean[start : start + block] = _centred(data, start, block)
        gram += centred @ centred.T
    gram = (gram + gram.T) / 2
    value, vector = np.linalg.eigh(gram / max(s - 1, 1))
    value, vector = np.maximum(value[::-1], 0.0), vector[:, ::-1]
    rank = int((value > RANK_TOLERANCE * max(value[0], 1e-30)).sum()) if s > 1 else 0
    k = min(rank, s - 1, n_modes if n_modes is not None else rank)
    scores = vector[:, :k] * np.sqrt(max(s - 1, 1))
    modes = np.empty((k, v, 3), np.float32)
    project = np.ascontiguousarray((vector[:, :k] / np.sqrt(np.maximum(value[:k], 1e-30) * max(s - 1, 1))).T)
    for start in range(0, v, block):
        centred, _ = _centred(data, start, block)
        modes[:, start : start + block] = (project.astype(centred.dtype) @ centred).reshape(k, centred.shape[1] // 3, 3)
    sign = mode_signs(modes, mean)
    return Components(mean, modes * sign[:, None, None], value[:k], float(value.sum()), scores * sign)


def leading_components(data: Rows, n_modes: int, *, seed: int = 0) -> Components:
    """The first modes of many shapes (S, V, 3) by a randomised range finder, in passes over blocks of subjects."""
    s, v = int(data.shape[0]), int(data.shape[1])
    block = max(1, BLOCK_BYTES // (3 * 4 * v))
    total = np.zeros((v, 3))
    for start in range(0, s, block):
        total += np.asarray(data[start : start + block]).sum(axis=0, dtype=np.float64)
    mean = total / s
    wide = min(n_modes + OVERSAMPLING, s - 1, 3 * v)
    basis = np.random.default_rng(seed).standard_normal((3 * v, wide)).astype(np.float32)
    for _ in range(POWER_PASSES):
        image = np.zeros((3 * v, wide))
        for rows in _subjects(data, mean, block):
            image += rows.T @ (rows @ basis)
        basis = np.linalg.qr(image)[0].astype(np.float32)
    inside, squares = np.empty((s, wide)), 0.0
    for start, rows in zip(range(0, s, block), _subjects(data, mean, block), strict=True):
        inside[start : start + len(rows)] = rows @ basis
        squares += float(np.einsum("ij,ij->", rows, rows, dtype=np.float64))
    u, d, vt = np.linalg.svd(inside, full_matrices=False)
    value = d**2 / (s - 1)
    k = min(n_modes, int((value > RANK_TOLERANCE * max(float(value[0]), 1e-30)).sum()))
    modes = np.ascontiguousarray((basis @ vt[:k].T.astype(np.float32)).T).reshape(k, v, 3)
    sign = mode_signs(modes, mean)
    scores = u[:, :k] * np.sqrt(s - 1) * sign
    return Components(mean, modes * sign[:, None, None], value[:k], squares / (s - 1), scores)


def _subjects(data: Rows, mean: NDArray[np.float64], block: int) -> Iterator[NDArray[np.float32]]:
    """(b, 3 V) centred blocks of subjects."""
    for start in range(0, int(data.shape[0]), block):
        part = np.asarray(data[start : start + block])
        yield (part - mean.astype(part.dtype)).reshape(len(part), -1).astype(np.float32, copy=False)


def _centred(data: Rows, start: int, block: int) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """(S, 3 b) centred coordinates of a block, float32 when the data are, and their mean (b, 3)."""
    part = np.asarray(data[:, start : start + block])
    if part.dtype != np.float32:
        part = part.astype(np.float64)
    mean = part.mean(axis=0, dtype=np.float64)
    centred = part - mean.astype(part.dtype)
    return centred.reshape(len(part), -1), mean


def mode_signs(modes: NDArray[Any], mean: NDArray[Any]) -> NDArray[np.float32]:
    """(K,) +-1 that make each mode's positive direction the one of growth, whatever the solver returned.

    Growth is movement away from the centroid of the mean; a mode that hardly grows (cosine with the growth
    direction below :data:`GROWTH_COSINE`) has its largest coordinate positive instead.
    """
    flat = modes.reshape(len(modes), mean.size)
    if not flat.size:
        return np.ones(len(modes), np.float32)
    outward = (mean - mean.mean(axis=0)).ravel()
    cosine = flat @ (outward / max(float(np.linalg.norm(outward)), 1e-30)) / np.linalg.norm(flat, axis=1)
    peak = flat[np.arange(len(flat)), np.argmax(np.abs(flat), axis=1)]
    return np.where(np.where(np.abs(cosine) > GROWTH_COSINE, cosine, peak) < 0, -1.0, 1.0).astype(np.float32)
