"""Left-right symmetric shapes on a template whose meshes are not mirror images of each other.

A vertex of a left rib has no mirror vertex on the right one. :func:`mirror_map` finds, once for a template,
the point of the opposite bone's surface (three vertices and their weights) that mirrors each vertex: the bone is
reflected, laid on its partner rigidly, then by an affine and a smooth map, and projected. The map is then a fixed
sparse matrix for every shape of that template.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree

from shapemodel.anatomy import bone
from shapemodel.mesh import Faces, Mesh, Points
from shapemodel.model import ShapeModel, mean_shape
from shapemodel.population import area_weights, rigid_fit
from shapemodel.reasons import InputError

Array = NDArray[np.float64]

MIRROR = np.array([-1.0, 1.0, 1.0])

AFFINE_ROUNDS = 15
SMOOTH_MM = (40.0, 25.0, 15.0)
"""Lengths over which the remaining displacement is smoothed, coarse to fine: below the length of a vertebra."""

SMOOTH_ROUNDS = 4
SMOOTH_NODES = 150
SMOOTH_NUGGET = 0.05


def mirror_map(mesh: Mesh) -> csr_matrix:
    """(V, V) sparse matrix M: row i gives the surface point of the opposite side that mirrors vertex i.

    ``(M @ x) * [-1, 1, 1]`` is the mirrored shape in the template's own vertex order.

    Raises
    ------
    InputError
        when a bone is there without its partner, or fewer than two bones have one
    """
    labels = mesh.labels
    lonely = [k for k in labels if bone(k).mirror not in labels]
    if lonely:
        raise InputError(f"{bone(lonely[0]).name} has no partner on the other side in this mesh: no symmetric form")
    area = area_weights(mesh.vertices, mesh.faces)
    start = _mirrored_start(mesh, area)
    rows, columns, values = [], [], []
    for k in labels:
        _, _, ids = mesh.select(k)
        vertices, faces, other = mesh.select(bone(k).mirror)
        moved = _smoothly(_affinely(start[ids], area[ids], vertices, area[other]), vertices, faces)
        _, corners, weights = closest(moved, vertices, faces)
        rows.append(np.repeat(ids, 3))
        columns.append(other[corners].ravel())
        values.append(weights.ravel())
    n = len(mesh.vertices)
    return csr_matrix((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(n, n))


def _mirrored_start(mesh: Mesh, area: Array) -> Points:
    """The reflected mesh laid rigidly on itself by the centroids of mirrored bones."""
    own = {k: mesh.bone == k for k in mesh.labels}
    centre = {k: area[i] @ mesh.vertices[i] / area[i].sum() for k, i in own.items()}
    source = np.stack([centre[k] * MIRROR for k in centre])
    target = np.stack([centre[bone(k).mirror] for k in centre])
    rotation, shift = rigid_fit(source, target, np.ones(len(source)))
    return (mesh.vertices * MIRROR) @ rotation.T + shift


def _affinely(moving: Points, moving_area: Array, target: Points, target_area: Array) -> Points:
    """A bone laid on its partner by centroid, then by mutual nearest points under an affine map, area weighted."""
    tree = cKDTree(target)
    x = moving + target_area @ target / target_area.sum() - moving_area @ moving / moving_area.sum()
    weights = np.concatenate([moving_area, target_area])
    for i in range(AFFINE_ROUNDS):
        near = tree.query(x)[1]
        back = cKDTree(x).query(target)[1]
        source, goal = np.vstack([x, x[back]]), np.vstack([target[near], target])
        if i < AFFINE_ROUNDS // 2:
            rotation, shift = rigid_fit(source, goal, weights)
            x = x @ rotation.T + shift
        else:
            root = np.sqrt(weights)[:, None]
            extended = np.column_stack([source, np.ones(len(source))])
            solution = np.linalg.lstsq(extended * root, goal * root, rcond=None)[0]
            x = np.column_stack([x, np.ones(len(x))]) @ solution
    return x


def _smoothly(moving: Points, vertices: Points, faces: Faces) -> Points:
    """The rest of the way by displacements smoothed with Gaussian kernels, so that neighbours stay neighbours."""
    x = moving
    nodes = np.unique(np.linspace(0, len(x) - 1, min(SMOOTH_NODES, len(x))).astype(int))
    for length in SMOOTH_MM:
        for _ in range(SMOOTH_ROUNDS):
            goal, _, _ = closest(x[nodes], vertices, faces)
            distance2 = ((x[:, None] - x[None, nodes]) ** 2).sum(axis=2)
            kernel = np.exp(-distance2 / (2 * length**2))
            own = kernel[nodes] + SMOOTH_NUGGET * np.eye(len(nodes))
            x = x + kernel @ np.linalg.solve(own, goal - x[nodes])
    return x


def closest(points: Points, vertices: Points, faces: Faces) -> tuple[Points, NDArray[np.int64], Array]:
    """Nearest point of a surface to each point: position (n, 3), the triangle's vertices (n, 3), their weights."""
    import pyvista as pv

    cells = np.column_stack([np.full(len(faces), 3), faces]).ravel()
    found: Any = pv.PolyData(vertices, cells).find_closest_cell(points, return_closest_point=True)
    corners = faces[np.atleast_1d(found[0])]
    where = np.asarray(found[1], np.float64).reshape(-1, 3)
    return where, corners, _barycentric(where, vertices[corners])


def _barycentric(points: Points, triangles: NDArray[np.float64]) -> Array:
    """(n, 3) weights of points that lie in their triangles (n, 3, 3), clipped to the triangle."""
    a, b, c = triangles[:, 0], triangles[:, 1], triangles[:, 2]
    u, v, w = b - a, c - a, points - a
    uu, uv, vv = (u * u).sum(axis=1), (u * v).sum(axis=1), (v * v).sum(axis=1)
    wu, wv = (w * u).sum(axis=1), (w * v).sum(axis=1)
    area = np.maximum(uu * vv - uv**2, 1e-18)
    second, third = (vv * wu - uv * wv) / area, (uu * wv - uv * wu) / area
    weights = np.clip(np.stack([1 - second - third, second, third], axis=1), 0.0, None)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float64)


def mirrored(vertices: Points, matrix: csr_matrix, faces: Faces) -> Points:
    """(V, 3) the mirror image in the same vertex order, laid rigidly on the shape itself (area weighted)."""
    image = np.asarray(matrix @ vertices, np.float64) * MIRROR
    rotation, shift = rigid_fit(image, vertices, area_weights(vertices, faces))
    return image @ rotation.T + shift


def symmetric(vertices: Points, matrix: csr_matrix, faces: Faces) -> Points:
    """(V, 3) the symmetric form: the mean of a shape and its mirror image, in the shape's frame.

    For a mean shape this is the mean over all subjects and their mirror images.
    """
    return (vertices + mirrored(vertices, matrix, faces)) / 2


def asymmetry(vertices: Points, matrix: csr_matrix, faces: Faces) -> Array:
    """(V,) mm, distance of each vertex from its mirror partner."""
    return np.asarray(np.linalg.norm(vertices - mirrored(vertices, matrix, faces), axis=1), np.float64)


def symmetric_mean(model: ShapeModel, matrix: csr_matrix | None = None) -> Mesh:
    """The left-right symmetric form of a model's mean, with arrays of the mean and ``asymmetry_mm``.

    ``n_seen`` of a vertex is that of the vertex itself; its mirror partner may have been seen more or less often.
    """
    made = mean_shape(model)
    matrix = mirror_map(made) if matrix is None else matrix
    faces = model.reference.faces
    shape = symmetric(model.mean, matrix, faces)
    return made.with_vertices(shape).with_arrays(asymmetry_mm=asymmetry(model.mean, matrix, faces))
