"""Joint gaps: neighbouring bones are cut apart in their distance fields, so that a template starts clean.

Where two solids overlap or come closer than the gap, both give way to the surface half-way between them:
``d_i' = min(d_i, (d_i - d_j - gap) / 2)`` with distances positive inside.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from shapemodel.mesh import Faces, Points, vertex_normals, volume
from shapemodel.meshquality import open_edges
from shapemodel.surfaces import OFF_NODE_MM, euler_number, keep_pieces
from shapemodel.topology import without_handles

logger = logging.getLogger(__name__)

Part = tuple[Points, Faces]

BAND_VOXELS = 2
"""Half width, in voxels, of the shell around a surface where its distance is computed exactly."""


@dataclass(frozen=True)
class CarveSettings:
    """gap_mm : distance left between bones; grid_mm : edge of the field's voxels; reach_mm : see below.

    ``reach_mm`` is the width of the zone around a neighbour in which a bone's field is changed; it bounds how
    deep two bones may overlap and still be parted half-way.
    """

    gap_mm: float = 0.6
    grid_mm: float = 1.0
    reach_mm: float = 6.0


def carve(parts: Mapping[int, Part], *, settings: CarveSettings = CarveSettings()) -> dict[int, Part]:  # noqa: B008
    """Part neighbouring closed surfaces so that they keep ``gap_mm`` from each other.

    Bones that touch no other are returned unchanged; the others are contoured anew on the grid.
    """
    solids = {k: Solid(v, f) for k, (v, f) in parts.items()}
    out = {}
    for k, own in solids.items():
        near = [s for j, s in solids.items() if j != k and _comes_near(own.vertices, s, settings)]
        out[k] = _carve_one(own, near, settings) if near else parts[k]
    return out


class Solid:
    """A closed surface that answers distances; its tree is built once."""

    def __init__(self, vertices: Points, faces: Faces):
        import gpytoolbox

        self.vertices, self.faces = vertices, faces.astype(np.int32)
        self.normals = vertex_normals(vertices, faces)
        self.tree = gpytoolbox.squared_distance_precompute(vertices, self.faces)

    def nearest(self, points: Points) -> tuple[NDArray[np.float64], Points, NDArray[np.int64], NDArray[np.float64]]:
        """Depth (n,) mm of points below the surface (negative outside), outward normals (n, 3) at the nearest
        points, the corners (n, 3) of their triangles and barycentric weights (n, 3).

        The sign is that of the interpolated normal at the nearest point.
        """
        import gpytoolbox

        if not len(points):
            return np.zeros(0), np.zeros((0, 3)), np.zeros((0, 3), np.int64), np.zeros((0, 3))
        square, face, weight = gpytoolbox.squared_distance(
            points, self.vertices, F=self.faces, use_cpp=True, cpp_aabb=self.tree
        )
        corners = self.faces[face].astype(np.int64)
        nearest = np.einsum("ij,ijk->ik", weight, self.vertices[corners])
        normal = np.einsum("ij,ijk->ik", weight, self.normals[corners])
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
        out = np.einsum("ij,ij->i", points - nearest, normal) > 0
        return np.where(out, -1.0, 1.0) * np.sqrt(square), normal, corners, weight

    def inside(self, points: Points) -> NDArray[np.float64]:
        """(n,) mm, distance to the surface, positive inside."""
        return self.nearest(points)[0]


def _comes_near(v: Points, other: Solid, s: CarveSettings) -> bool:
    """Whether these vertices come within the gap of another bone, or into it."""
    low, high = other.vertices.min(axis=0) - s.gap_mm, other.vertices.max(axis=0) + s.gap_mm
    inside = v[((v >= low) & (v <= high)).all(axis=1)]
    return bool((other.inside(inside) > -s.gap_mm).any())


def _carve_one(own: Solid, others: list[Solid], s: CarveSettings) -> Part:
    """Contour one bone with its neighbours taken away."""
    from skimage.measure import marching_cubes

    pad = (BAND_VOXELS + 2) * s.grid_mm
    start = own.vertices.min(axis=0) - pad
    shape = np.ceil((own.vertices.max(axis=0) + pad - start) / s.grid_mm).astype(int) + 1
    field = _banded_field(own, start, shape, s)
    for other in others:
        _take_away(field, own, other, start, s)
    want = euler_number(len(own.vertices), own.faces.astype(np.int64))
    for trial in (field, None):
        values = without_handles(field, want) if trial is None else trial
        u, g, _, _ = marching_cubes(np.where(np.abs(values) < OFF_NODE_MM, -OFF_NODE_MM, values), 0.0)
        u, g = keep_pieces(u * s.grid_mm + start, g.astype(np.int64), 0.5)
        if euler_number(len(u), g) >= want:
            break
    if open_edges(g):  # a surface that folds through itself has no inside; contact will part what it can
        logger.warning("a bone's surface folds through itself: it is left as it is, without a joint gap")
        return own.vertices, own.faces.astype(np.int64)
    return (u, g) if volume(u, g) > 0 else (u, np.ascontiguousarray(g[:, ::-1]))


def _banded_field(own: Solid, start: Points, shape: NDArray[np.int64], s: CarveSettings) -> NDArray[np.float64]:
    """Signed distance on a grid: exact near the surface, the band's width with the right sign elsewhere."""
    band = np.zeros(shape, dtype=bool)
    samples = np.vstack([own.vertices, own.vertices[own.faces].mean(axis=1)])
    band[tuple(np.round((samples - start) / s.grid_mm).astype(int).T)] = True
    band = ndimage.binary_dilation(band, np.ones((3, 3, 3)), iterations=BAND_VOXELS)
    far = (BAND_VOXELS + 0.5) * s.grid_mm
    field = np.full(shape, -far)
    field[band] = own.inside(start + np.argwhere(band) * s.grid_mm)
    number, n = ndimage.label(~band)
    for k, box in enumerate(ndimage.find_objects(number, n), start=1):
        piece = number[box] == k
        corner = np.array([b.start for b in box])
        first = np.array(np.unravel_index(piece.argmax(), piece.shape)) + corner
        if (first > 0).all() and own.inside(start + first[None] * s.grid_mm)[0] > 0:
            field[box][piece] = far
    return field


def _take_away(field: NDArray[np.float64], own: Solid, other: Solid, start: Points, s: CarveSettings) -> None:
    """Lower the field of a bone where another one is near, in place."""
    low = np.floor((other.vertices.min(axis=0) - s.reach_mm - start) / s.grid_mm).astype(int)
    high = np.ceil((other.vertices.max(axis=0) + s.reach_mm - start) / s.grid_mm).astype(int) + 1
    box = tuple(slice(max(a, 0), max(b, 0)) for a, b in zip(low, high, strict=True))
    view = field[box]
    corner = np.array([b.start for b in box])
    index = np.argwhere(view > -2 * s.grid_mm)
    if not len(index):
        return
    points = start + (index + corner) * s.grid_mm
    close = cKDTree(other.vertices).query(points, distance_upper_bound=s.reach_mm)[0] < np.inf
    index, points = index[close], points[close]
    here = tuple(index.T)
    view[here] = np.minimum(view[here], (own.inside(points) - other.inside(points) - s.gap_mm) / 2)
