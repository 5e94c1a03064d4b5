"""Contact: small penetrations between bones, and folds within one, are pushed out on fixed connectivity.

For what a deformation leaves (tenths of a millimetre to a few millimetres at joints); deep overlaps of bones of
different people are the business of :mod:`shapemodel.carve`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from shapemodel.carve import Solid
from shapemodel.intersections import Intersections, find_intersections
from shapemodel.mesh import Faces, Mesh, Points

RINGS = 3
"""Rings around cutting triangles that take part in the push, so that it fades out instead of making a dent."""


@dataclass(frozen=True)
class Separated:
    """A mesh with its penetrations pushed out.

    Attributes
    ----------
    mesh : same connectivity, ids and arrays
    moved_mm : (V,) how far each vertex went
    before, after : what cut what
    rounds : pushes made
    """

    mesh: Mesh
    moved_mm: NDArray[np.float64]
    before: Intersections
    after: Intersections
    rounds: int


def separate(mesh: Mesh, *, clearance_mm: float = 0.1, rounds: int = 12) -> Separated:
    """Push bones out of each other, and smooth folds within a bone, until no triangle cuts another.

    Each of two bones gives way by half. The best state is returned: never more cutting pairs than before.
    """
    first = found = find_intersections(mesh)
    adjacency = vertex_adjacency(len(mesh.vertices), mesh.faces)
    best, least, current, done = mesh.vertices, found, mesh.vertices, 0
    while len(found.pairs) and done < rounds:
        step = np.zeros_like(current)
        for i, j in np.unique(np.sort(found.bones, axis=1), axis=0):
            rows = (np.sort(found.bones, axis=1) == (i, j)).all(axis=1)
            patch = _patch(mesh.faces, np.unique(found.pairs[rows]), len(current))
            if i == j:
                step[patch] += 0.5 * (adjacency[patch] @ current - current[patch])
            else:
                now = mesh.with_vertices(current)
                for own, other in ((i, j), (j, i)):
                    mine = patch[mesh.bone[patch] == own]
                    step[mine] += _push(now, mine, int(other), clearance_mm * (1 + done / 4))
        current = current + _fade(step, adjacency)
        found = find_intersections(mesh.with_vertices(current))
        done += 1
        if len(found.pairs) < len(least.pairs):
            best, least = current, found
    return Separated(mesh.with_vertices(best), np.linalg.norm(best - mesh.vertices, axis=1), first, least, done)


def vertex_adjacency(n: int, faces: Faces) -> csr_array:
    """(n, n) sparse average over the neighbours of each vertex."""
    i, j = faces[:, [0, 1, 2]].ravel(), faces[:, [1, 2, 0]].ravel()
    links = csr_array((np.ones(2 * len(i)), (np.concatenate([i, j]), np.concatenate([j, i]))), shape=(n, n))
    links.data[:] = 1.0
    degree = np.maximum(np.asarray(links.sum(axis=1)).ravel(), 1)
    return csr_array(links.multiply(1 / degree[:, None]))


def _patch(faces: Faces, cutting: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    inside = np.zeros(n, dtype=bool)
    inside[faces[cutting]] = True
    for _ in range(RINGS - 1):
        inside[faces[inside[faces].any(axis=1)]] = True
    return np.flatnonzero(inside)


def _push(mesh: Mesh, mine: NDArray[np.int64], other: int, clearance: float) -> Points:
    """Half the way out of the other bone, for those vertices that are inside it or nearer than the clearance."""
    v, f, _ = mesh.select(other)
    solid = Solid(v, f)
    depth, outward = solid.depth(mesh.vertices[mine])
    return np.asarray(np.maximum(depth + clearance, 0.0)[:, None] * outward / 2)


def _fade(step: Points, adjacency: csr_array) -> Points:
    """Let neighbours follow: half of the mean step around them, where that is more than their own."""
    for _ in range(2):
        around = adjacency @ step * 0.7
        follow = np.linalg.norm(around, axis=1) > np.linalg.norm(step, axis=1)
        step = np.where(follow[:, None], around, step)
    return step
