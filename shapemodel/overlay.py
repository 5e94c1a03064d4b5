"""Shapes laid on each other: a similarity that keeps sizes, and how far one lies from another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shapemodel.mesh import Mesh, Points, vertex_areas, vertex_normals
from shapemodel.template import Placement, similarity_fit


def size_fit(source: Points, target: Points, weights: NDArray[np.float64]) -> Placement:
    """Similarity whose scale is the ratio of the weighted sizes.

    The least-squares scale is smaller by as much as the shapes differ, so that a template would shrink or grow
    from round to round; this one is the same forth and back.
    """
    w = weights / weights.sum()
    _, rotation, _ = similarity_fit(source, target, w)
    a, b = w @ source, w @ target
    size = [np.sqrt(w @ ((x - c) ** 2).sum(axis=1)) for x, c in ((source, a), (target, b))]
    scale = float(size[1] / size[0])
    return scale, rotation, b - scale * a @ rotation.T


def movement(before: Mesh, after: Mesh) -> tuple[float, float]:
    """Mean movement of vertices after the best rigid overlay, and its mean part along the normals; mm."""
    area = vertex_areas(before.vertices, before.faces)
    _, rotation, _ = similarity_fit(after.vertices, before.vertices, area)
    a = after.vertices - np.average(after.vertices, axis=0, weights=area)
    b = before.vertices - np.average(before.vertices, axis=0, weights=area)
    way = a @ rotation.T - b
    along = np.einsum("ij,ij->i", way, vertex_normals(before.vertices, before.faces))
    return float(np.linalg.norm(way, axis=1).mean()), float(np.abs(along).mean())
