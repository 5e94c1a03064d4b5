"""Truth of correspondence: a material point of one subject, and where it is on another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from shapemodel.mesh import Faces, Points
from shapemodel.phantom.shape import parts
from shapemodel.phantom.subject import Subject
from shapemodel.reasons import InputError

CANDIDATES = 24
"""Triangles looked at for each point, by distance of their centres; edges are nearly even, so this suffices."""
CHUNK = 50_000


@dataclass(frozen=True)
class MaterialPoints:
    """Points fixed in the bones, the same on every subject.

    Attributes
    ----------
    label : (N,) uint8, the bone
    face : (N,) int64, triangle of that bone's own surface (numbered within the bone, the same for everyone)
    bary : (N, 3) weights of the triangle's corners
    distance : (N,) mm from the surface that the points were taken from
    """

    label: NDArray[np.uint8]
    face: NDArray[np.int64]
    bary: NDArray[np.float64]
    distance: NDArray[np.float64]


def material(subject: Subject, points: Points, labels: NDArray[np.integer]) -> MaterialPoints:
    """The material points of this subject that lie nearest to ``points`` (N, 3) mm LPS on the bones ``labels`` (N,).

    Raises
    ------
    InputError : a label is not one of the 37 bones, or shapes do not fit
    """
    points = np.asarray(points, dtype=np.float64)
    labels = np.asarray(labels)
    bones = parts(subject)
    if points.ndim != 2 or points.shape[1] != 3 or labels.shape != (len(points),):
        raise InputError(f"expected (N, 3) points and (N,) labels, got {points.shape} and {labels.shape}")
    unknown = sorted(set(np.unique(labels).tolist()) - set(bones))
    if unknown:
        raise InputError(f"no such bones on the phantom: {unknown}; expected labels 1-37")
    face = np.zeros(len(points), dtype=np.int64)
    bary = np.zeros((len(points), 3))
    distance = np.zeros(len(points))
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        v, f = bones[int(label)]
        for start in range(0, len(rows), CHUNK):
            own = rows[start : start + CHUNK]
            face[own], bary[own], distance[own] = closest(points[own], v, f)
    return MaterialPoints(labels.astype(np.uint8), face, bary, distance)


def locate(subject: Subject, points: MaterialPoints) -> Points:
    """(N, 3) mm, LPS: where these material points are on this subject, as if it had every bone."""
    bones = parts(subject)
    out = np.zeros((len(points.face), 3))
    for label in np.unique(points.label):
        rows = np.flatnonzero(points.label == label)
        v, f = bones[int(label)]
        out[rows] = np.einsum("nk,nki->ni", points.bary[rows], v[f[points.face[rows]]])
    return out


def closest(points: Points, v: Points, f: Faces) -> tuple[NDArray[np.int64], Points, NDArray[np.float64]]:
    """Nearest triangle (N,), barycentric weights (N, 3) and distance (N,) of points to a surface."""
    count = min(CANDIDATES, len(f))
    _, near = cKDTree(v[f].mean(axis=1)).query(points, k=count)
    near = near.reshape(len(points), count)
    corner = v[f[near]]
    bary = _barycentric(points[:, None], corner)
    gap = np.linalg.norm(np.einsum("nkc,nkci->nki", bary, corner) - points[:, None], axis=2)
    best = gap.argmin(axis=1)
    row = np.arange(len(points))
    return near[row, best].astype(np.int64), bary[row, best], gap[row, best]


def _barycentric(p: Points, corner: Points) -> Points:
    """Weights of the point of each triangle that is nearest to ``p``: the foot point, else the best of three edges."""
    a, b, c = corner[..., 0, :], corner[..., 1, :], corner[..., 2, :]
    ab, ac, ap = b - a, c - a, p - a
    d00, d01, d11 = (ab * ab).sum(-1), (ab * ac).sum(-1), (ac * ac).sum(-1)
    d20, d21 = (ap * ab).sum(-1), (ap * ac).sum(-1)
    det = np.maximum(d00 * d11 - d01 * d01, 1e-18)
    v, w = (d11 * d20 - d01 * d21) / det, (d00 * d21 - d01 * d20) / det
    foot = np.stack([1 - v - w, v, w], axis=-1)
    options, far = [foot], [np.where((foot >= 0).all(-1), -1.0, np.inf)]
    for i, j in ((0, 1), (1, 2), (2, 0)):
        start, along = corner[..., i, :], corner[..., j, :] - corner[..., i, :]
        t = ((p - start) * along).sum(-1) / np.maximum((along * along).sum(-1), 1e-18)
        t = np.clip(t, 0.0, 1.0)
        edge = np.zeros_like(foot)
        edge[..., i], edge[..., j] = 1 - t, t
        options.append(edge)
        far.append(((start + t[..., None] * along - p) ** 2).sum(-1))
    pick = np.argmin(np.stack(far, axis=-1), axis=-1)
    return np.asarray(np.take_along_axis(np.stack(options, axis=-1), pick[..., None, None], axis=-1)[..., 0])
