"""Pairs of points: nearest by place and direction on the same bone, both ways, with weights that forgive outliers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from shapemodel.registration.target import Target

NORMAL_MM = 4.0
"""A normal turned by 60 degrees costs as much as this distance in the search for the partner."""

NEIGHBOURS = 3
"""Samples whose mean place and normal are the partner: their noise averages, and the surface is less jagged."""

COSINE = (0.3, 0.7)
"""Pairs whose normals agree less than the first are dropped, more than the second fully believed."""

NORM_FLOOR = 0.3
"""Least norm by which the sum of two normals is divided: nearly opposite normals do not blow up."""


@dataclass(frozen=True)
class Pairs:
    """(B, R) template vertices, (B, R, 3) their partners, symmetric normals and (B, R) weights."""

    vertex: NDArray[np.int64]
    goal: NDArray[np.float64]
    direction: NDArray[np.float64]
    weight: NDArray[np.float64]


def feature(points: NDArray, normals: NDArray) -> NDArray[np.float64]:
    """(n, 6) place and direction in one metric."""
    return np.hstack([points, NORMAL_MM * normals])


def trees(target: Target) -> list[cKDTree | None]:
    """One search tree a bone; None where the bone is absent."""
    return [
        cKDTree(feature(p, n), balanced_tree=False) if here else None
        for p, n, here in zip(target.points, target.normals, target.present, strict=True)
    ]


def believe(points: NDArray, normals: NDArray, goal: NDArray, goal_normals: NDArray, scale: float) -> NDArray:
    """(...,) weight of pairs: squared Cauchy of the distance, and a ramp over the cosine of the normals."""
    d2 = ((goal - points) ** 2).sum(-1)
    cosine = (normals * goal_normals).sum(-1)
    ramp = np.clip((cosine - COSINE[0]) / (COSINE[1] - COSINE[0]), 0.0, 1.0)
    return np.asarray(ramp / (1.0 + d2 / scale**2) ** 2)


def symmetric_normal(a: NDArray, b: NDArray) -> NDArray[np.float64]:
    """Unit mean of two unit normals (Rusinkiewicz 2019).

    The distance along it is exact to second order on a round shaft, and noise of one normal along the rib,
    which would brake the slide that the fit still has to make, is halved.
    """
    total = a + b
    return np.asarray(total / np.maximum(np.linalg.norm(total, axis=-1, keepdims=True), NORM_FLOOR))


def local(x: NDArray, n: NDArray, near: NDArray) -> tuple[NDArray, NDArray]:
    """Weighted mean place and normal (m, 3) of the neighbours x, n (m, k, 3) at these distances (m, k)."""
    width = near[:, -1:] + 1e-9
    w = np.exp(-4.0 * (near**2 - near[:, :1] ** 2) / width**2)
    w /= w.sum(1, keepdims=True)
    normal = np.einsum("mk,mkd->md", w, n)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    c = np.einsum("mk,mkd->md", w, x)
    return c, normal


def forward(target: Target, forest: list, nodes: NDArray, y: NDArray, normals: NDArray, scale: float) -> Pairs:
    """Each template node to the target; ``y``, ``normals`` (V, 3) are the deformed template's."""
    p, n = y[nodes], normals[nodes]
    goal, goal_normal, weight = p.copy(), n.copy(), np.zeros(nodes.shape)
    for b, tree in enumerate(forest):
        if tree is None:
            continue
        near, j = tree.query(feature(p[b], n[b]), k=NEIGHBOURS)
        goal[b], goal_normal[b] = local(target.points[b, j], target.normals[b, j], near)
        weight[b] = target.solid[b, j[:, 0]]
    weight *= believe(p, n, goal, goal_normal, scale)
    return Pairs(nodes, goal, symmetric_normal(n, goal_normal), weight)


def backward(
    target: Target, members: list[NDArray[np.int64]], count: int, y: NDArray, normals: NDArray, scale: float
) -> Pairs:
    """``count`` samples of each target bone to the nearest vertex of the deformed template."""
    stride = target.points.shape[1] // count
    p, n = target.points[:, ::stride][:, :count], target.normals[:, ::stride][:, :count]
    vertex = np.zeros(p.shape[:2], dtype=np.int64)
    for b, ids in enumerate(members):
        if target.present[b]:
            vertex[b] = ids[cKDTree(feature(y[ids], normals[ids]), balanced_tree=False).query(feature(p[b], n[b]))[1]]
        else:
            vertex[b] = ids[0]
    weight = believe(y[vertex], normals[vertex], p, n, scale) * target.solid[:, ::stride][:, :count]
    weight *= target.present[:, None]
    return Pairs(vertex, p, symmetric_normal(normals[vertex], n), weight)


def both(a: Pairs, b: Pairs, share: float) -> Pairs:
    """All pairs of both directions, the second with this share of its weight."""
    return Pairs(
        np.hstack([a.vertex, b.vertex]),
        np.concatenate([a.goal, b.goal], axis=1),
        np.concatenate([a.direction, b.direction], axis=1),
        np.hstack([a.weight, share * b.weight]),
    )
