"""Solids by distance functions, and their surface meshes of fixed topology.

A solid is described by a function of points that is negative inside; parts join by smooth unions. Meshes are
made once, in canonical coordinates: marching cubes, then vertices slide along the surface until triangles are
even.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Field = Callable[[Array], Array]

RELAX_PASSES = 12
"""Rounds of tangential smoothing, each followed by a step back onto the surface."""


def join(a: Array, b: Array, blend: float) -> Array:
    """Smooth union of two fields; ``blend`` mm is the width of the fillet."""
    h = np.clip(0.5 + 0.5 * (b - a) / blend, 0.0, 1.0)
    return np.asarray(b + (a - b) * h - blend * h * (1.0 - h))


def cut(a: Array, b: Array, blend: float) -> Array:
    """What is in ``a`` but not in ``b``, edges rounded by ``blend`` mm."""
    return -join(-a, b, blend)


def ellipsoid(p: Array, centre: Array, half: Array) -> Array:
    """Ellipsoid along the axes: ``half`` (3,) mm."""
    q = (p - centre) / half
    r = np.sqrt((q**2).sum(-1))
    return np.asarray((r - 1.0) * r / np.maximum(np.sqrt(((q / half) ** 2).sum(-1)), 1e-9))


def blade(p: Array, ends: tuple[Array, Array], thick: tuple[float, float], tall: tuple[float, float]) -> Array:
    """Bar from one end to the other whose section is an ellipse.

    ``thick`` and ``tall`` are the half sizes at the two ends, along x-like (horizontal) and across it.
    """
    a, b = ends
    axis = b - a
    length = float(np.linalg.norm(axis))
    axis = axis / length
    side = np.cross(axis, [0.0, 0.0, 1.0])
    side = side / np.linalg.norm(side)
    q = p - a
    t = np.clip(q @ axis / length, 0.0, 1.0)
    rest = q - (t * length)[..., None] * axis
    across = rest @ side
    other = np.sqrt(np.maximum((rest**2).sum(-1) - across**2, 0.0))
    rx = thick[0] + (thick[1] - thick[0]) * t
    ry = tall[0] + (tall[1] - tall[0]) * t
    r = np.sqrt((across / rx) ** 2 + (other / ry) ** 2)
    slope = np.sqrt((across / rx**2) ** 2 + (other / ry**2) ** 2)
    return np.asarray((r - 1.0) * r / np.maximum(slope, 1e-9))


def prism(p: Array, half: tuple[Array | float, Array | float, float], power: float, edge: float) -> Array:
    """Upright prism on a superellipse: half width (x), half depth (y), half height (z); edges rounded by ``edge``."""
    a, b, c = half
    r = ((np.abs(p[..., 0]) / a) ** power + (np.abs(p[..., 1]) / b) ** power) ** (1.0 / power)
    around = (r - 1.0) * np.minimum(a, b)
    return -join(-around, -(np.abs(p[..., 2]) - c), 4.0 * edge) + 0.0


def mesh_of(field: Field, low: Array, high: Array, step: float) -> tuple[Array, NDArray[np.int64]]:
    """(V, 3) and (F, 3) of the zero surface inside a box, the largest piece only; outward normals."""
    from scipy.ndimage import map_coordinates
    from skimage.measure import marching_cubes

    shape = np.ceil((high - low) / step).astype(int) + 1
    grid = np.stack(np.meshgrid(*(low[i] + step * np.arange(shape[i]) for i in range(3)), indexing="ij"), axis=-1)
    value = field(grid)
    v, f, _, _ = marching_cubes(value.astype(np.float64), 0.0, spacing=(step,) * 3)
    v = v.astype(np.float64) + low
    v, f = _largest(v, f.astype(np.int64))
    gradient = np.gradient(value, step)

    def project(x: Array) -> Array:
        at = ((x - low) / step).T
        d = map_coordinates(value, at, order=1, mode="nearest")
        g = np.stack([map_coordinates(part, at, order=1, mode="nearest") for part in gradient], axis=-1)
        move = d / np.maximum((g**2).sum(-1), 0.25)
        return np.asarray(x - np.clip(move, -0.5 * step, 0.5 * step)[:, None] * g)

    v = _relax(v, f, project)
    a, b, c = (v[f[:, i]] for i in range(3))
    if np.einsum("ij,ij->", a, np.cross(b, c)) < 0:
        f = f[:, ::-1]
    return v, np.ascontiguousarray(f)


def _largest(v: Array, f: NDArray[np.int64]) -> tuple[Array, NDArray[np.int64]]:
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    edges = np.vstack([f[:, [0, 1]], f[:, [1, 2]]])
    graph = coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(len(v), len(v)))
    _, piece = connected_components(graph, directed=False)
    keep = piece == np.bincount(piece).argmax()
    new = np.cumsum(keep) - 1
    return v[keep], new[f[keep[f[:, 0]]]]


def _relax(v: Array, f: NDArray[np.int64], project: Callable[[Array], Array]) -> Array:
    from scipy.sparse import coo_matrix, diags

    edges = np.vstack([f[:, [0, 1]], f[:, [1, 2]], f[:, [2, 0]]])
    edges = np.vstack([edges, edges[:, ::-1]])
    graph = coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(len(v), len(v))).tocsr()
    graph.data[:] = 1.0
    mean = diags(1.0 / np.asarray(graph.sum(axis=1)).ravel()) @ graph
    for _ in range(RELAX_PASSES):
        v = project(v + 0.6 * (mean @ v - v))
    return project(v)
