"""Neighbouring bones keep apart: one yields, so that a joint gap stays between them."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from shapemodel.mesh import Faces, Points, vertex_normals

REACH_MM = 7.0
"""Vertices further away than this from the other bone are not looked at."""
SOFT_MM = 0.35
"""Width over which the push sets in."""
NEAREST = 8
FACING = 0.5
"""Contact is between surfaces that face each other: the cosine of their normals is below this."""
CARRY_MM = 4.0
"""How far a push is carried into the bone, so that thin plates move as a whole."""
ROUNDS = 3
MOST_MM = 1.5
"""Furthest push in one round."""


def clearance(points: Points, own: Points, other: Points, normals: Points) -> tuple[Points, Points]:
    """Signed distance (n,) mm of points from another bone's surface, negative inside, and the way out (n, 3).

    From the tangent planes of the nearest vertices that face the point's own normal ``own`` (n, 3), weighted by
    closeness: through a thin plate the far side would be nearer. Infinite beyond ``REACH_MM``.
    """
    d, near = cKDTree(other).query(points, k=NEAREST, distance_upper_bound=REACH_MM)
    near = np.where(np.isfinite(d), near, 0)
    facing = np.einsum("ni,nki->nk", own, normals[near]) < FACING
    weight = np.where(np.isfinite(d) & facing, 1.0 / (0.3 + np.where(np.isfinite(d), d, 0.0)) ** 4, 0.0)
    total = weight.sum(axis=1, keepdims=True)
    weight = weight / np.maximum(total, 1e-30)
    plane = np.einsum("nki,nki->nk", points[:, None] - other[near], normals[near])
    way = np.einsum("nk,nki->ni", weight, normals[near])
    way /= np.maximum(np.linalg.norm(way, axis=1, keepdims=True), 1e-9)
    signed = np.where(total[:, 0] > 0.0, (weight * plane).sum(axis=1), np.inf)
    return signed, way


def give_way(bone: tuple[Points, Faces], others: list[tuple[Points, Faces]], gap: float) -> Points:
    """Vertices of ``bone`` moved out of the others until ``gap`` mm lie between; what is near is carried along."""
    v = bone[0].copy()
    for other, faces in others:
        low, high = v.min(axis=0) - REACH_MM, v.max(axis=0) + REACH_MM
        inside = ((other > low) & (other < high)).all(axis=1)
        if not inside.any():
            continue
        normals = vertex_normals(other, faces)[inside]
        near = other[inside]
        low, high = near.min(axis=0) - REACH_MM, near.max(axis=0) + REACH_MM
        rows = np.flatnonzero(((v > low) & (v < high)).all(axis=1))
        for _ in range(ROUNDS):
            own = vertex_normals(v, bone[1])[rows]
            signed, way = clearance(v[rows], own, near, normals)
            close = np.isfinite(signed) & (signed < gap + 3 * SOFT_MM)
            if not close.any():
                break
            amount = np.minimum(SOFT_MM * np.logaddexp(0.0, (gap - signed[close]) / SOFT_MM), MOST_MM)
            push = amount[:, None] * way[close]
            v += _carried(v, v[rows[close]], push)
    return v


def _carried(v: Points, at: Points, push: Points) -> Points:
    """The push of the vertices ``at`` (m, 3) spread to all vertices (n, 3), fading over ``CARRY_MM``."""
    k = min(4, len(at))
    d, near = cKDTree(at).query(v, k=k, distance_upper_bound=4 * CARRY_MM)
    d, near = d.reshape(len(v), k), near.reshape(len(v), k)
    reached = np.isfinite(d)
    weight = np.where(reached, 1.0 / (0.2 + np.where(reached, d, 0.0)) ** 2, 0.0)
    move = np.einsum("nk,nki->ni", weight, push[np.where(reached, near, 0)])
    move /= np.maximum(weight.sum(axis=1, keepdims=True), 1e-30)
    fade = np.exp(-0.5 * (np.where(reached[:, 0], d[:, 0], np.inf) / CARRY_MM) ** 2)
    return np.asarray(fade[:, None] * move)
