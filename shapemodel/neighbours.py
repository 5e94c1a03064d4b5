"""What little-seen vertices are expected to do, from the well-seen ones around them; and the choice of nodes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from shapemodel import latent as lt
from shapemodel.mesh import Points

WELL_SEEN = 0.9
"""Vertices shown by this share of the most-shown vertex's subjects lend their modes to the others."""

MAX_NEIGHBOURS = 800
"""More well-seen nodes add nothing to kriging over 100 mm and cost its inversion."""

CAGE_LENGTH_MM, BONE_LENGTH_MM, BONE_SHARE = 100.0, 40.0, 0.3
"""Correlation lengths of displacement over the cage and within a bone, and the variance that is the bone's own:
the kernels with which the registration of thoraxes worked (60 to 200 mm and 20 to 60 mm)."""

NUGGET, MIN_FREEDOM = 1e-3, 0.02
"""Share of variance without spatial correlation; and the least freedom left to a vertex's own data."""


@dataclass(frozen=True)
class Neighbours:
    """How mean and modes of little-seen vertices follow from well-seen ones (simple kriging).

    Where few subjects showed a vertex its modes cannot be told from its own data. Bones deform smoothly, so
    they are expected to continue those of the well-seen vertices around, the less tightly the farther away.

    Attributes
    ----------
    points, bone : (w, 3), (w,) of the well-seen nodes; index : (w,) which nodes they are
    inverse : (w, w) inverse of their kernel matrix
    weights : (m, w) kriging weights of all nodes; freedom : (m,) their share of unexplained variance
    """

    points: Points
    bone: NDArray[np.uint8]
    index: NDArray[np.int64]
    inverse: NDArray[np.floating]
    weights: NDArray[np.float64]
    freedom: NDArray[np.float64]

    def prior(self, extrapolated: Points, model: lt.Latent) -> lt.RowPrior:
        """Prior of the nodes; the mean starts from the registration's own extrapolation (m, 3)."""
        return _row_prior(extrapolated, self.weights, self.freedom, self.lend(extrapolated, model))

    def lend(self, extrapolated: Points, model: lt.Latent) -> NDArray[np.float64]:
        """(w, 3, k + 1) what well-seen nodes lend: their modes, and how far their mean is from extrapolation."""
        departure = (model.mean - extrapolated)[self.index]
        return np.concatenate([model.modes[self.index], departure[..., None]], axis=2)

    def carry(
        self,
        points: Points,
        bone: NDArray[np.uint8],
        own: NDArray[np.bool_],
        extrapolated: Points,
        lent: NDArray[np.float64],
    ) -> lt.RowPrior:
        """Prior of any vertices, given what the nodes lend; ``own``: well-seen ones, which borrow nothing."""
        return _row_prior(extrapolated, *_krige(points, bone, self.points, self.bone, self.inverse, own), lent)


def _row_prior(
    extrapolated: Points, weights: NDArray[np.float64], freedom: NDArray[np.float64], lent: NDArray[np.float64]
) -> lt.RowPrior:
    both = (weights @ lent.reshape(len(lent), -1)).reshape(-1, 3, lent.shape[2])
    return lt.RowPrior(extrapolated + both[:, :, -1], both[:, :, :-1], freedom)


def neighbours(points: Points, bone: NDArray[np.uint8], visible: NDArray[np.bool_]) -> Neighbours:
    """Kriging from the nodes that nearly all subjects showed to all nodes."""
    index = np.flatnonzero(well_seen(visible))
    index = index[:: max(1, len(index) // MAX_NEIGHBOURS)]
    inverse = np.linalg.inv(
        kernel(points[index], bone[index], points[index], bone[index]) + NUGGET * np.eye(len(index))
    )
    weights, freedom = _krige(points, bone, points[index], bone[index], inverse, well_seen(visible))
    return Neighbours(points[index], bone[index], index, inverse, weights, freedom)


def well_seen(visible: NDArray[np.bool_], most: int | None = None) -> NDArray[np.bool_]:
    """(m,) vertices that nearly as many subjects showed as the most-shown one."""
    count = visible.sum(axis=0)
    return np.asarray(count >= WELL_SEEN * (count.max() if most is None else most))


def _krige(
    points: Points,
    bone: NDArray[np.uint8],
    known: Points,
    known_bone: NDArray[np.uint8],
    inverse: NDArray[np.floating],
    own: NDArray[np.bool_],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights (m, w) and the share of variance (m,) that they leave; ``own``: vertices that need no neighbours.

    A well-seen vertex must not be expected where its own fit already is: its modes would never shrink.
    """
    cross = kernel(points, bone, known, known_bone)
    weights = cross @ inverse
    left = np.clip(1.0 - np.einsum("mw,mw->m", weights, cross), MIN_FREEDOM, 1.0)
    weights[own] = 0.0
    left[own] = 1.0
    return weights, left


def kernel(a: Points, bone_a: NDArray[np.uint8], b: Points, bone_b: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(len a, len b) correlation of a mode's displacement between vertices: near ones and those of one bone alike."""
    square = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    distance2 = np.maximum(square, 0.0)
    same = bone_a[:, None] == bone_b[None, :]
    shared = np.exp(-distance2 / (2 * CAGE_LENGTH_MM**2))
    own = np.exp(-distance2 / (2 * BONE_LENGTH_MM**2)) * same
    return np.asarray((1 - BONE_SHARE) * shared + BONE_SHARE * own, np.float64)


def spread_nodes(points: Points, bone: NDArray[np.uint8], count: int) -> NDArray[np.int64]:
    """Indices of about ``count`` vertices, each bone sampled by farthest points in proportion to its size."""
    if len(points) <= count:
        return np.arange(len(points))
    chosen = []
    for label in np.unique(bone):
        ids = np.flatnonzero(bone == label)
        want = min(len(ids), max(4, round(count * len(ids) / len(points))))
        p = points[ids]
        picked = np.empty(want, np.int64)
        picked[0] = int(np.argmax(((p - p.mean(axis=0)) ** 2).sum(axis=1)))
        distance = np.full(len(ids), np.inf)
        for i in range(1, want):
            distance = np.minimum(distance, ((p - p[picked[i - 1]]) ** 2).sum(axis=1))
            picked[i] = int(np.argmax(distance))
        chosen.append(np.sort(ids[picked]))
    return np.concatenate(chosen)


def node_weights(
    points: Points, bone: NDArray[np.uint8], nodes: NDArray[np.int64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Weight of each node: the weights of the vertices of its bone that lie nearest to it, mean 1."""
    total = np.zeros(len(nodes))
    for label in np.unique(bone):
        own = np.flatnonzero(bone[nodes] == label)
        ids = np.flatnonzero(bone == label)
        nearest = cKDTree(points[nodes[own]]).query(points[ids])[1]
        total[own] += np.bincount(nearest, weights[ids], minlength=len(own))
    return np.asarray(total / total.mean(), np.float64)
