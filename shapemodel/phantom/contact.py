"""Neighbouring bones keep apart: one yields, so that a joint gap stays between them."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from shapemodel.mesh import Faces, Points, vertex_normals

REACH_MM = 7.0
"""Vertices further away than this from the other bone are not looked at."""
SOFT_MM = 0.35
"""Width over which the push sets in."""
NEAREST = 4


def clearance(points: Points, other: Points, normals: Points) -> tuple[Points, Points]:
    """Signed distance (n,) mm of points from another bone's surface, negative inside, and the way out (n, 3).

    From the tangent planes of the nearest vertices, weighted by closeness; infinite beyond ``REACH_MM``.
    """
    tree = cKDTree(other)
    d, near = tree.query(points, k=NEAREST, distance_upper_bound=REACH_MM)
    far = ~np.isfinite(d[:, 0])
    near = np.where(np.isfinite(d), near, np.where(far, 0, near[:, 0])[:, None])
    weight = 1.0 / (0.3 + np.where(np.isfinite(d), d, 1e9)) ** 4
    weight /= np.maximum(weight.sum(axis=1, keepdims=True), 1e-30)
    plane = np.einsum("nki,nki->nk", points[:, None] - other[near], normals[near])
    way = np.einsum("nk,nki->ni", weight, normals[near])
    way /= np.maximum(np.linalg.norm(way, axis=1, keepdims=True), 1e-9)
    signed = (weight * plane).sum(axis=1)
    signed[far] = np.inf
    return signed, way


def give_way(bone: tuple[Points, Faces], others: list[tuple[Points, Faces]], gap: float) -> Points:
    """Vertices of ``bone`` moved out of the others, and away until ``gap`` mm lie between; smooth, shape kept."""
    v = bone[0].copy()
    for other, faces in others:
        low, high = v.min(axis=0) - REACH_MM, v.max(axis=0) + REACH_MM
        inside = ((other > low) & (other < high)).all(axis=1)
        if not inside.any():
            continue
        normals = vertex_normals(other, faces)[inside]
        for _ in range(2):
            signed, way = clearance(v, other[inside], normals)
            close = signed < gap + 4 * SOFT_MM
            push = SOFT_MM * np.logaddexp(0.0, (gap - signed[close]) / SOFT_MM)
            v[close] += push[:, None] * way[close]
    return v
