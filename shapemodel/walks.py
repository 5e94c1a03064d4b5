"""Walks over the surface of a bone: mm along its edges, the two ends of a long bone, rings of neighbours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from shapemodel.mesh import Faces, Points


def edge_graph(vertices: Points, faces: Faces) -> csr_array:
    """(n, n) sparse lengths in mm of the edges of a surface, each in the direction in which its triangles go."""
    i, j = faces[:, [0, 1, 2]].ravel(), faces[:, [1, 2, 0]].ravel()
    length = np.linalg.norm(vertices[i] - vertices[j], axis=1)
    return csr_array((length, (i, j)), shape=(len(vertices), len(vertices)))


def walk(edges: csr_array, start: int, *, unreached: float | None = None) -> NDArray[np.float64]:
    """(n,) mm along edges, in either direction, from a vertex.

    Vertices not connected with it get ``unreached``, by default the largest distance of the others.
    """
    d = np.asarray(dijkstra(edges, directed=False, indices=start), np.float64)
    reached = np.isfinite(d)
    return np.where(reached, d, d[reached].max() if unreached is None else unreached)


def far_ends(edges: csr_array, *, unreached: float | None = None) -> tuple[int, int]:
    """The vertices at the two ends of a long bone: the farthest from any vertex, and the farthest from that one."""
    one = int(np.argmax(walk(edges, 0, unreached=unreached)))
    return one, int(np.argmax(walk(edges, one, unreached=unreached)))


def head_first(ends: tuple[int, int], vertices: Points, spine: Points) -> tuple[int, int]:
    """The ends of a rib, head first: the one nearer to any point of the spine, or farther back where there is none.

    ``spine`` is (n, 3), or (n, 2) to compare in the transverse plane only.
    """
    one, other = ends
    if not len(spine):
        return ends if vertices[one, 1] > vertices[other, 1] else (other, one)
    own = vertices[[one, other], : spine.shape[1]]
    gap = np.linalg.norm(own[:, None] - spine[None], axis=2).min(axis=1)
    return ends if gap[0] <= gap[1] else (other, one)


def grow(faces: Faces, first: NDArray[np.bool_] | NDArray[np.int64], n: int, rings: int) -> NDArray[np.int64]:
    """Which of ``n`` vertices lie within so many rings, ascending; those of the faces ``first`` are the first ring.

    ``first`` is a mask (F,) or indices of faces.
    """
    inside = np.zeros(n, dtype=bool)
    inside[faces[first]] = True
    for _ in range(rings - 1):
        inside[faces[inside[faces].any(axis=1)]] = True
    return np.flatnonzero(inside)
