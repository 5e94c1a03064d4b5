"""Stage A: label-wise soft assignment moves the thorax-wide field (coherent point drift, Myronenko and Song 2010).

Every bone has its own mixture, the deformation is one low-rank Gaussian process for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shapemodel.registration.prior import spread
from shapemodel.registration.target import Target

Seen = Callable[[NDArray], NDArray]
Pulled = Callable[[NDArray], tuple[NDArray, NDArray, NDArray, NDArray]]

ANCHOR_EVERY = 7
"""Steps between two looks for the ends of ribs."""

ANCHOR_MASS = 30.0
"""A rib end weighs as many points as a fifth of a bone: what is known of sliding is known there."""


CHOICE = 6
"""Far-apart samples are chosen among so many times their number: evenly drawn ones leave no more to choose."""


@dataclass(frozen=True)
class Cloud:
    """(B, M, 3) template points, (B*M, r) their basis, (B, M) weights; (B, N, 3) target points, (B, N) theirs."""

    template: NDArray[np.float64]
    basis: NDArray[np.float64]
    weight: NDArray[np.float64]
    target: NDArray[np.float64]
    believed: NDArray[np.float64]


def thin(target: Target, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(B, count, 3) far-apart samples of each bone's main pieces; (B, count) 1, or 0 where the bone is absent."""
    points = np.zeros((len(target.present), count, 3))
    weight = np.zeros((len(target.present), count))
    for b in np.flatnonzero(target.present):
        own = target.points[b][target.main[b]]
        own = own[:: max(1, len(own) // (CHOICE * count))]
        far = own[spread(own, count)]
        points[b] = far[np.arange(count) % len(far)]
        weight[b, : len(far)] = 1.0
    return points, weight


def posterior_mean(y: NDArray, pull: NDArray, mass: NDArray, basis: NDArray) -> NDArray[np.float64]:
    """Coefficients (r, 3) of ``argmin sum mass |y + basis c - pull / mass|^2 + |c|^2``; y, pull (n, 3), mass (n,)."""
    weighted = basis * mass[:, None]
    normal = basis.T @ weighted
    normal[np.diag_indices_from(normal)] += 1.0
    return np.asarray(np.linalg.solve(normal, basis.T @ pull - weighted.T @ y))


def soft_assign(
    cloud: Cloud, sigmas: tuple[float, ...], steps: int, outlier: float, seen: Seen, pulled: Pulled
) -> NDArray[np.float64]:
    """Coefficients (r, 3) of the thorax-wide field.

    ``seen(points (B, M, 3)) -> (B, M) bool`` says which template points are predicted inside the scan: those
    outside have no partner, and without this mask the lowest bones collapse onto the cut.
    ``pulled(coefficients) -> (E, 3), (E, 3), (E, r), (B, M)``: rib ends undeformed, where they should go, their
    basis; and which template points are not beyond a cut of their rib.
    """
    n_bones, m, _ = cloud.template.shape
    y0 = cloud.template.reshape(-1, 3)
    coefficients = np.zeros((cloud.basis.shape[1], 3))
    extent = np.maximum(np.ptp(cloud.target, axis=1), 20.0).prod(1)
    x = cloud.target.astype(np.float32)
    x2 = (x**2).sum(-1)
    for sigma in sigmas:
        for step in range(steps):
            y = (y0 + cloud.basis @ coefficients).reshape(n_bones, m, 3)
            if step % ANCHOR_EVERY == 0:
                start, goal, rows, kept = pulled(coefficients)
            weight = cloud.weight * kept * seen(y)
            yf = y.astype(np.float32)
            d2 = (yf**2).sum(-1)[:, :, None] + x2[:, None, :] - 2.0 * yf @ x.transpose(0, 2, 1)
            p = np.exp(d2 * np.float32(-0.5 / sigma**2)) * weight[:, :, None].astype(np.float32)
            # uniform density of partnerless points over the box of the bone
            floor = outlier / (1 - outlier) * weight.sum(1) * (2 * np.pi * sigma**2) ** 1.5 / extent
            p *= (cloud.believed / (p.sum(1) + floor[:, None] + 1e-12))[:, None, :].astype(np.float32)
            mass = p.sum(2).astype(np.float64).ravel() / sigma**2
            pull = (p @ x).astype(np.float64).reshape(-1, 3) / sigma**2
            firm = np.full(len(start), ANCHOR_MASS / sigma**2)
            coefficients = posterior_mean(
                np.vstack([y0, start]),
                np.vstack([pull, goal * firm[:, None]]),
                np.concatenate([mass, firm]),
                np.vstack([cloud.basis, rows]),
            )
    return coefficients
