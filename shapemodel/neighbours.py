"""What little-seen vertices are expected to do, from the well-seen ones around them; and the choice of nodes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, diags
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree

from shapemodel import latent as lt
from shapemodel.mesh import Faces, Points

WELL_SEEN = 0.9
"""Vertices shown by this share of the most-shown vertex's subjects lend their modes to the others."""

MAX_NEIGHBOURS = 800
"""More well-seen nodes add nothing to kriging over 100 mm and cost its inversion."""

CAGE_LENGTH_MM, BONE_LENGTH_MM, BONE_SHARE = 100.0, 40.0, 0.3
"""Correlation lengths of displacement over the cage and within a bone, and the variance that is the bone's own:
the kernels with which the registration of thoraxes worked (60 to 200 mm and 20 to 60 mm)."""

NUGGET, MIN_FREEDOM = 1e-3, 0.02
"""Share of variance without spatial correlation; and the least freedom left to a vertex's own data."""


FADE_MM, FADE_POWER, FADE_SUBJECTS = 12.0, 2, 60
"""In cohorts up to this size a subject's vertices count less towards the edge of what it showed: otherwise mean and
modes would jump where one subject fewer was seen. In larger cohorts the jump is below the standard error."""

CORE_MM = 6.0
"""A hidden vertex with a seen one of its subject nearer than this belongs to a patch too small to fade about."""

TRACE = 1e-3
"""Weight of what a registration extrapolated in the base shape on which nothing but prior means rest."""

REST_LENGTH_MM, REST_NUGGET, REST_NODES, REST_REACH_MM = 35.0, 0.02, 700, 90.0
"""What the modes leave over continues into the hidden part over this length; from so many nodes within reach."""


SEAM_MM = 12.0
"""Over this length a last step between seen and filled vertices fades: a few edges, several nodes' spacing."""


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


def fading_share(points: Points, visible: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(S, V) how much each subject's vertices count: 1 well inside what it showed, fading to 0 at its edge."""
    share = visible.astype(np.float32)
    if len(visible) > FADE_SUBJECTS:
        return share
    for i, seen in enumerate(visible):
        ids, hidden = np.flatnonzero(seen), points[~seen]
        if not len(hidden) or not len(ids):
            continue
        core = hidden[cKDTree(points[ids]).query(hidden)[0] > CORE_MM]
        if len(core):
            reach = FADE_MM + CORE_MM
            distance = cKDTree(core).query(points[ids], distance_upper_bound=reach)[0]
            fade = np.clip((np.minimum(distance, reach) - CORE_MM) / FADE_MM, 0.0, 1.0)
            share[i, ids] = fade**FADE_POWER
    return share


def small_gaps(vertices: NDArray[np.floating], visible: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(S, V) hidden vertices so near to seen ones of their subject that the registration bridged them."""
    out = np.zeros_like(visible)
    for i, seen in enumerate(visible):
        hidden = np.flatnonzero(~seen)
        if len(hidden) and seen.any():
            out[i, hidden] = cKDTree(vertices[i, seen]).query(vertices[i, hidden])[0] <= CORE_MM
    return out


def base_shape(vertices: NDArray[np.floating], share: NDArray[np.floating]) -> Points:
    """(V, 3) a continuous mean: what was seen, and what was extrapolated only where nobody saw anything."""
    total, weight = np.zeros(vertices.shape[1:]), np.zeros(vertices.shape[1])
    for x, part in zip(vertices, share, strict=True):
        w = part + TRACE
        total += x * w[:, None]
        weight += w
    return np.asarray(total / weight[:, None], np.float64)


def relative(share: NDArray[np.float32]) -> NDArray[np.float32]:
    """Shares divided by the largest at each vertex: the last subject who showed a vertex counts fully."""
    most = share.max(axis=0)
    return np.asarray(share / np.where(most > 0, most, 1), np.float32)


def never_seen(
    points: Points,
    bone: NDArray[np.uint8],
    unseen: NDArray[np.int64],
    known: NDArray[np.int64],
    lent: NDArray[np.float64],
) -> NDArray[np.float64]:
    """(u, ...) what vertices that nobody saw take from the nearest seen nodes ``known`` (n,), kriged from (n, ...)."""
    distance = cKDTree(points[unseen]).query(points[known])[0]
    order = np.argsort(distance, kind="stable")[:MAX_NEIGHBOURS]
    at, own = points[known[order]], bone[known[order]]
    inner = kernel(at, own, at, own) + NUGGET * np.eye(len(order))
    flat = lent[order].reshape(len(order), -1)
    out = kernel(points[unseen], bone[unseen], at, own) @ np.linalg.solve(inner, flat)
    return np.asarray(out.reshape(len(unseen), *lent.shape[1:]), np.float64)


def continued(
    points: Points,
    bone: NDArray[np.uint8],
    known: NDArray[np.int64],
    rest: Points,
    wanted: NDArray[np.int64],
) -> Points:
    """(w, 3) displacement that continues one subject's residual to the vertices ``wanted``.

    ``rest`` (n, 3) is what the modes leave over at the subject's visible nodes ``known`` (n,), kriged.
    """
    distance = cKDTree(points[wanted]).query(points[known])[0]
    order = np.argsort(distance, kind="stable")[:REST_NODES]
    order = order[distance[order] < REST_REACH_MM]
    if not len(order):
        return np.zeros((len(wanted), 3))
    at, own = points[known[order]], bone[known[order]]
    inner = _rest_kernel(at, own, at, own) + REST_NUGGET * np.eye(len(order))
    out = _rest_kernel(points[wanted], bone[wanted], at, own) @ np.linalg.solve(inner, rest[order])
    return np.asarray(out, np.float64)


def edges_of(faces: Faces) -> NDArray[np.int64]:
    """(E, 2) every edge of a triangle mesh once."""
    both = np.sort(np.vstack([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    return np.unique(both, axis=0)


def joined(
    points: Points, edges: NDArray[np.int64], visible: NDArray[np.bool_], step: Points, hidden: NDArray[np.int64]
) -> Points:
    """(h, 3) displacement of hidden vertices that takes up the step (V, 3) left at the seen vertices beside them.

    It solves the screened Laplace equation on the mesh, so it is exact at the seam and dies off inside within
    about :data:`SEAM_MM`.
    """
    local = np.full(len(visible), -1)
    local[hidden] = np.arange(len(hidden))
    own = edges[~visible[edges].all(axis=1)]
    length = float(np.linalg.norm(points[own[:, 0]] - points[own[:, 1]], axis=1).mean())
    rows, columns = np.concatenate([own[:, 0], own[:, 1]]), np.concatenate([own[:, 1], own[:, 0]])
    rows, columns = rows[~visible[rows]], columns[~visible[rows]]
    degree = np.bincount(local[rows], minlength=len(hidden)) + (length / SEAM_MM) ** 2
    inside = ~visible[columns]
    at = (local[rows[inside]], local[columns[inside]])
    matrix = diags(degree) - coo_matrix((np.ones(len(at[0])), at), shape=(len(hidden), len(hidden)))
    pull = np.zeros((len(hidden), 3))
    np.add.at(pull, local[rows[~inside]], step[columns[~inside]])
    return np.asarray(splu(matrix.tocsc()).solve(pull), np.float64)


def _rest_kernel(a: Points, bone_a: NDArray[np.uint8], b: Points, bone_b: NDArray[np.uint8]) -> NDArray[np.float64]:
    distance2 = np.maximum((a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T, 0.0)
    same = np.where(bone_a[:, None] == bone_b[None, :], 1.0, 0.5)
    return np.asarray(np.exp(-distance2 / (2 * REST_LENGTH_MM**2)) * same, np.float64)
