"""Prongs: front ends of ribs that split in two.

Calcified cartilage goes on from the edges of a rib's front end as two spurs. A scan shows them as bone; a template
must not have them, since every later shape would.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, dijkstra

from shapemodel.mesh import Faces, Points

END_MM = 30.0
"""The front end of a rib that is looked at."""

STEP_MM = 2.0
"""Places along it are looked at this far apart."""

PRONG_MM = 5.0
"""Two parts that both go on so far beyond the place where they split are prongs; a sound end's cup is shallower."""


def geodesic(vertices: Points, faces: Faces, start: int) -> NDArray[np.float64]:
    """(n,) mm along edges from a vertex; parts not connected with it get the largest finite distance."""
    n = len(vertices)
    d = dijkstra(_edges(vertices, faces), directed=False, indices=start)
    return np.asarray(np.where(np.isfinite(d), d, d[np.isfinite(d)].max()), np.float64).reshape(n)


def _edges(vertices: Points, faces: Faces) -> csr_array:
    i, j = faces[:, [0, 1, 2]].ravel(), faces[:, [1, 2, 0]].ravel()
    length = np.linalg.norm(vertices[i] - vertices[j], axis=1)
    return csr_array((length, (i, j)), shape=(len(vertices), len(vertices)))


def forked(vertices: Points, faces: Faces, spine: Points) -> bool:
    """Whether the front end of a rib, the one farther from ``spine`` (3,), splits into prongs."""
    far = int(np.argmax(geodesic(vertices, faces, 0)))
    other = int(np.argmax(geodesic(vertices, faces, far)))
    head = min((far, other), key=lambda k: float(np.linalg.norm(vertices[k] - spine)))
    along = geodesic(vertices, faces, head)
    graph = _edges(vertices, faces)
    for place in np.arange(along.max() - END_MM, along.max() - PRONG_MM, STEP_MM):
        own = np.flatnonzero(along > place)
        _, part = connected_components(graph[own][:, own], directed=False)
        reach = np.zeros(part.max() + 1)
        np.maximum.at(reach, part, along[own] - place)
        if (reach > PRONG_MM).sum() > 1:
            return True
    return False
