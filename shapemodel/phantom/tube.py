"""Closed tubes along a curve: cartilages, vessels, long bones."""

from __future__ import annotations

import numpy as np

from shapemodel.mesh import Faces, Points
from shapemodel.phantom.subject import Array


def bezier(control: Array, count: int) -> Array:
    """(count, 3) points of the Bezier curve of four control points (4, 3)."""
    t = np.linspace(0.0, 1.0, count)[:, None]
    a, b, c, d = control
    return np.asarray((1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t**2 * c + t**3 * d)


def tube(centre: Array, half: Array, up: Array, *, spokes: int = 18) -> tuple[Points, Faces]:
    """Closed surface around a curve.

    Parameters
    ----------
    centre : (n, 3) mm
    half : (n, 2) half sizes across and along ``up``
    up : (3,) direction that the second axis of the section leans to
    spokes : vertices around
    """
    tangent = np.gradient(centre, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    second = up - tangent * (tangent @ up)[:, None]
    second /= np.linalg.norm(second, axis=1, keepdims=True)
    first = np.cross(second, tangent)
    ends = []
    for i, sign in ((0, -1.0), (-1, 1.0)):
        r = float(half[i].min())
        for size, out in ((0.92, 0.20), (0.70, 0.45), (0.38, 0.60)):
            ends.append((centre[i] + sign * out * r * tangent[i], half[i] * size, i))
    order = [*ends[2::-1], *((centre[i], half[i], i) for i in range(len(centre))), *ends[3:]]
    t = np.arange(spokes) * 2 * np.pi / spokes
    rings = [c + np.cos(t)[:, None] * h[0] * first[i] + np.sin(t)[:, None] * h[1] * second[i] for c, h, i in order]
    caps = [centre[0] - 0.68 * half[0].min() * tangent[0], centre[-1] + 0.68 * half[-1].min() * tangent[-1]]
    n = len(rings)
    ring, k = np.meshgrid(np.arange(n - 1), np.arange(spokes), indexing="ij")
    a, b = ring * spokes + k, ring * spokes + (k + 1) % spokes
    c, d = a + spokes, b + spokes
    j = np.arange(spokes)
    last = (n - 1) * spokes
    faces = np.vstack(
        [
            np.stack([a, b, c], -1).reshape(-1, 3),
            np.stack([b, d, c], -1).reshape(-1, 3),
            np.column_stack([np.full(spokes, n * spokes), (j + 1) % spokes, j]),
            np.column_stack([np.full(spokes, n * spokes + 1), last + j, last + (j + 1) % spokes]),
        ]
    )
    return np.vstack([*rings, caps]), faces.astype(np.int64)
