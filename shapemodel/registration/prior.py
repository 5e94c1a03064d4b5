"""Deformation priors: low-rank Gaussian processes on the template, thorax-wide and bone by bone.

A deformation is ``basis @ coefficients`` with coefficients (rank, 3) that are independent standard normal
beforehand, so that their squared norm is twice the negative log prior. Bases come from kernels by the Nystrom
method (Williams and Seeger 2001; for shapes Luethi et al. 2018, Gaussian process morphable models).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from shapemodel.mesh import Points

Basis = NDArray[np.float32]

JITTER = 1e-6
"""Eigenvalues below this fraction of the largest are dropped: they carry rounding, not shape."""


def spread(points: Points, count: int) -> NDArray[np.int64]:
    """Indices of ``count`` points far apart from each other (farthest-point order, deterministic).

    The first is the point farthest from the centroid. Where there are fewer points than asked for, all.
    """
    count = min(count, len(points))
    chosen = np.zeros(count, dtype=np.int64)
    if count == 0:
        return chosen
    x = points - points.mean(0)
    square = (x**2).sum(1)
    chosen[0] = int(np.argmax(square))
    nearest = np.full(len(x), np.inf)
    for i in range(1, count):
        last = x[chosen[i - 1]]
        np.minimum(nearest, square - 2.0 * (x @ last) + last @ last, out=nearest)
        chosen[i] = int(np.argmax(nearest))
    return chosen


def kernel(a: Points, b: Points, scales: Sequence[tuple[float, float]]) -> NDArray[np.float64]:
    """(A, B) sum of Gaussian kernels ``amplitude^2 exp(-d^2 / (2 length^2))``; scales are (length, amplitude) mm."""
    d2 = (a**2).sum(1)[:, None] + (b**2).sum(1)[None, :] - 2.0 * a @ b.T
    np.maximum(d2, 0.0, out=d2)
    total = np.zeros_like(d2)
    for length, amplitude in scales:
        total += amplitude**2 * np.exp(d2 * (-0.5 / length**2))
    return total


def nystrom(points: Points, landmarks: Points, scales: Sequence[tuple[float, float]], rank: int) -> Basis:
    """(P, rank) basis of the process at these points; columns beyond the process' own rank are zero."""
    value, vector = np.linalg.eigh(kernel(landmarks, landmarks, scales))
    value, vector = value[::-1][:rank], vector[:, ::-1][:, :rank]
    keep = value > JITTER * value[0]
    # a fixed sign: the same bases whatever the linear algebra library
    vector = vector * np.sign(vector[np.abs(vector).argmax(0), np.arange(vector.shape[1])] + 1e-300)
    basis = np.zeros((len(points), rank), dtype=np.float32)
    basis[:, : keep.sum()] = kernel(points, landmarks, scales) @ (vector[:, keep] / np.sqrt(value[keep]))
    return basis


def linear(points: Points, center: Points, shift: float, slope: float) -> Basis:
    """(P, 4) basis of a shift (mm) and a linear map about the centre (standard deviation of each entry)."""
    return np.column_stack([np.full(len(points), shift), slope * (points - center)]).astype(np.float32)
