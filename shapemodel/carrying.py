"""From one triangulation of a surface to another: what is known at vertices of the one, at those of the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shapemodel.mesh import Mesh


@dataclass(frozen=True)
class Carry:
    """Where each vertex of a mesh lies on the triangles of another.

    Attributes
    ----------
    corners : (V, 3) vertices of the other mesh, those of the nearest triangle of the same bone
    weight : (V, 3) barycentric, of the nearest point in it
    """

    corners: NDArray[np.int64]
    weight: NDArray[np.float64]

    def blended(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Values (U, ...) at the vertices of the other mesh, interpolated: (V, ...)."""
        return np.asarray(np.einsum("vk,vk...->v...", self.weight, values[self.corners]))

    def picked(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values (U, ...) of the corner that lies nearest: (V, ...); for marks and counts."""
        return np.asarray(values[self.corners[np.arange(len(self.corners)), self.weight.argmax(axis=1)]])


def carry(mesh: Mesh, other: Mesh) -> Carry:
    """Where the vertices of a mesh lie on another mesh of the same bones in the same place."""
    import gpytoolbox

    corners = np.zeros((len(mesh.vertices), 3), np.int64)
    weight = np.zeros((len(mesh.vertices), 3))
    for label in mesh.labels:
        mine = mesh.bone == label
        v, f, ids = other.select(label)
        _, face, bary = gpytoolbox.squared_distance(mesh.vertices[mine], v, F=f.astype(np.int32), use_cpp=True)
        corners[mine], weight[mine] = ids[f[face]], bary
    return Carry(corners, weight)
