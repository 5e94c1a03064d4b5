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
SETTLED_MM = 0.05
"""Less than this is not pushed any more."""
MOST_MM = 1.5
"""Furthest push in one round."""


def clearance(points: Points, own: Points, tree: cKDTree, normals: Points) -> tuple[Points, Points]:
    """Signed distance (n,) mm of points from the vertices in ``tree``, negative inside, and the way out (n, 3).

    From the tangent planes of the nearest vertices that face the point's own normal ``own`` (n, 3), weighted by
    closeness: through a thin plate the far side would be nearer. Infinite beyond ``REACH_MM``.
    """
    other = tree.data
    d, near = tree.query(points, k=NEAREST, distance_upper_bound=REACH_MM)
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
    """Vertices of ``bone`` moved out of the others until ``gap`` mm lie between; what is near is carried along.

    Both sides are looked at: its vertices in the others, and theirs in it.
    """
    v = bone[0].copy()
    low, high = v.min(axis=0) - REACH_MM, v.max(axis=0) + REACH_MM
    points, normals = [np.zeros((0, 3))], [np.zeros((0, 3))]
    for other, faces in others:
        inside = ((other > low) & (other < high)).all(axis=1)
        if inside.any():
            points.append(other[inside])
            normals.append(vertex_normals(other, faces)[inside])
    near, outward = np.vstack(points), np.vstack(normals)
    if not len(near):
        return v
    tree = cKDTree(near)
    rows = np.flatnonzero(tree.query(v, distance_upper_bound=REACH_MM)[0] < REACH_MM)
    own = vertex_normals(*bone)[rows]
    for _ in range(ROUNDS):
        if not len(rows):
            break
        signed, way = clearance(v[rows], own, tree, outward)
        other, back = clearance(near, outward, cKDTree(v[rows]), own)
        close, poked = signed < gap + 3 * SOFT_MM, other < gap
        amount = np.concatenate([_amount(signed[close], gap), _amount(other[poked], gap)])
        if not len(amount) or amount.max() < SETTLED_MM:
            break
        push = amount[:, None] * np.vstack([way[close], -back[poked]])
        v = v + _carried(v, np.vstack([v[rows[close]], near[poked]]), push)
        keep = signed < gap + 3 * MOST_MM
        rows, own = rows[keep], own[keep]
    return v


def _amount(signed: Points, gap: float) -> Points:
    return np.asarray(np.minimum(SOFT_MM * np.logaddexp(0.0, (gap - signed) / SOFT_MM), MOST_MM))


def _carried(v: Points, at: Points, push: Points) -> Points:
    """The push of the vertices ``at`` (m, 3) spread to all vertices (n, 3), fading over ``CARRY_MM``."""
    k, far = min(4, len(at)), 3 * CARRY_MM
    low, high = at.min(axis=0) - far, at.max(axis=0) + far
    rows = np.flatnonzero(((v > low) & (v < high)).all(axis=1))
    d, near = cKDTree(at).query(v[rows], k=k, distance_upper_bound=far)
    d, near = d.reshape(len(rows), k), near.reshape(len(rows), k)
    reached = np.isfinite(d)
    weight = np.where(reached, 1.0 / (0.2 + np.where(reached, d, 0.0)) ** 2, 0.0)
    move = np.einsum("nk,nki->ni", weight, push[np.where(reached, near, 0)])
    move /= np.maximum(weight.sum(axis=1, keepdims=True), 1e-30)
    fade = np.exp(-0.5 * (np.where(reached[:, 0], d[:, 0], np.inf) / CARRY_MM) ** 2)
    out = np.zeros_like(v)
    out[rows] = fade[:, None] * move
    return out
