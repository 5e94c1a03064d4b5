"""Which template vertices the scan shows, and how far they lie from its surface."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from shapemodel.anatomy import MODEL_LABELS
from shapemodel.mesh import Mesh, Points, vertex_normals
from shapemodel.registration.target import inside, open_vertices

REACH_MM = 2.5
"""A vertex farther than this from any bone surface of the target is not shown by it."""

OVERHANG_MM = 0.7
"""A vertex whose nearest surface is an open edge belongs to it only this far beyond (half a pixel)."""

FACING = (0.0, 0.7)
"""Least cosine between the vertex' normal and that of the surface it is seen on: of its own bone, of another one.
Another bone's surface counts only where it continues this one, as mislabelled pieces do."""


def visibility(
    y: Points, normals: Points, bone: NDArray[np.uint8], target: Mesh, fov: NDArray[np.float64]
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """(V,) seen, and (V,) mm from the target's tangent plane (0 where not seen).

    A vertex is seen when it lies inside the scan and a surface of any bone is near that faces the same way: with
    another bone's label if need be, so that a slice with the neighbour's label does not hide the bone.
    """
    used = np.isin(target.bone, MODEL_LABELS)
    border = open_vertices(target.faces, len(target.vertices))[used]
    x, n = target.vertices[used], vertex_normals(target.vertices, target.faces)[used]
    _, j = cKDTree(x, balanced_tree=False, compact_nodes=False).query(y, distance_upper_bound=4 * REACH_MM)
    found = j < len(x)
    j = np.where(found, j, 0)
    away = y - x[j]
    normal_part = np.abs((away * n[j]).sum(1))
    tangent_part = np.sqrt(np.maximum((away**2).sum(1) - normal_part**2, 0.0))
    seen = found & inside(y, fov) & (np.hypot(normal_part, tangent_part) < REACH_MM)
    seen &= (normals * n[j]).sum(1) > np.where(target.bone[used][j] == bone, *FACING)
    seen &= ~(border[j] & (tangent_part > OVERHANG_MM))
    return seen, np.where(seen, normal_part, 0.0)
