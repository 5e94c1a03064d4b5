"""Contact: small penetrations between bones are pushed out smoothly, on fixed connectivity.

For what a deformation leaves (tenths of a millimetre to a few millimetres at joints); deep overlaps of bones of
different people are the business of :mod:`shapemodel.carve`. In each round every vertex that is inside another
bone, or nearer to it than the clearance, asks for a displacement relative to the nearest point there; the
smoothest field that grants it moves both bones (regularised least squares), so joints give way without dents.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, diags_array, eye_array, kron
from scipy.sparse.linalg import cg

from shapemodel.carve import Solid
from shapemodel.intersections import Intersections, find_again, find_intersections, intersecting_pairs
from shapemodel.mesh import Mesh, Points
from shapemodel.surfaces import vertex_adjacency
from shapemodel.walks import grow

RINGS = 5
"""Rings around cutting triangles that take part, so that a push fades out."""

STAY = 0.01
"""Weight of a displacement itself against its roughness."""

GRANT = 20.0
"""Weight of the wishes of vertices in contact against the roughness of the displacement."""

MOST_MM = 1.0
"""Largest step of a vertex in one round."""

REACH_MM = 8.0
"""A vertex that seems deeper than this inside another bone is beyond repair and asks for nothing."""


@dataclass(frozen=True)
class Separated:
    """A mesh with its penetrations pushed out.

    Attributes
    ----------
    mesh : same connectivity, ids and arrays
    moved_mm : (V,) how far each vertex went
    before : what cut what; ``after`` is what still does
    rounds : pushes made
    """

    mesh: Mesh
    moved_mm: NDArray[np.float64]
    before: Intersections
    rounds: int

    @cached_property
    def after(self) -> Intersections:
        """What still cuts what; looked for when first asked, since it costs as much as a round."""
        return find_intersections(self.mesh)


def separate(mesh: Mesh, *, clearance_mm: float = 0.15, rounds: int = 12) -> Separated:
    """Push bones out of each other until no triangle of one cuts another.

    Both bones give way; the clearance grows from round to round, so that edges part as well. Folds within a bone
    are smoothed. The best state is returned: never more cutting pairs than before.
    """
    first = find_intersections(mesh)
    if not len(first.pairs):
        return Separated(mesh, np.zeros(len(mesh.vertices)), first, 0)
    best, least, current, done = mesh.vertices, len(first.pairs), mesh.vertices, 0
    cutting = first.pairs
    while len(cutting) and done < rounds:
        zone = grow(mesh.faces, np.unique(cutting), len(current), RINGS)
        current = current + _step(mesh.with_vertices(current), zone, cutting, clearance_mm * (1 + done / 3))
        near = np.flatnonzero(np.isin(mesh.faces, grow(mesh.faces, np.unique(cutting), len(current), RINGS + 2)).any(1))
        cutting = near[intersecting_pairs(current, mesh.faces[near])]
        done += 1
        if not len(cutting):  # all that moved since the beginning, once the neighbourhood is clean
            cutting = find_again(mesh.with_vertices(current), mesh, first).pairs
        if len(cutting) < least:
            best, least = current, len(cutting)
    result = mesh.with_vertices(best)
    moved = np.linalg.norm(best - mesh.vertices, axis=1)
    return Separated(result, moved, first, done)


def _step(mesh: Mesh, zone: NDArray[np.int64], cutting: NDArray[np.int64], clearance: float) -> Points:
    """The smooth displacement (V, 3) of the zone that grants the wishes of the vertices in contact."""
    number = np.full(len(mesh.vertices), -1, dtype=np.int64)
    number[zone] = np.arange(len(zone))
    faces = number[mesh.faces[(number[mesh.faces] >= 0).all(axis=1)]]
    rough = eye_array(len(zone)) - vertex_adjacency(len(zone), faces)
    wishes, goal = _wishes(mesh, zone, number, cutting, clearance)
    matrix = kron(rough.T @ rough + STAY * eye_array(len(zone)), eye_array(3)) + GRANT * (wishes.T @ wishes)
    matrix = csr_array(matrix)
    u, _ = cg(matrix, GRANT * (wishes.T @ goal), rtol=1e-3, maxiter=150, M=diags_array(1 / matrix.diagonal()))
    step = u.reshape(-1, 3)
    folds = mesh.bone[mesh.faces[cutting[:, 0], 0]] == mesh.bone[mesh.faces[cutting[:, 1], 0]]
    if folds.any():
        inner = number[grow(mesh.faces, np.unique(cutting[folds]), len(mesh.vertices), 2)]
        step[inner] -= 0.5 * (rough @ mesh.vertices[zone])[inner]
    step *= np.minimum(1.0, MOST_MM / np.maximum(np.linalg.norm(step, axis=1, keepdims=True), 1e-12))
    out = np.zeros_like(mesh.vertices)
    out[zone] = step
    return out


def _wishes(
    mesh: Mesh, zone: NDArray[np.int64], number: NDArray[np.int64], cutting: NDArray[np.int64], clearance: float
) -> tuple[csr_array, NDArray[np.float64]]:
    """Rows ``n . (u_p - u_q) = depth + clearance`` over all pairs of bones that cut each other."""
    pairs = np.unique(np.sort(mesh.bone[mesh.faces[cutting, 0]], axis=1), axis=0)
    solids: dict[int, tuple[Solid, NDArray[np.int64]]] = {}
    for label in np.unique(pairs):
        v, f, ids = mesh.select(int(label))
        solids[int(label)] = (Solid(v, f), ids)
    rows, columns, values, goal, count = [], [], [], [], 0
    for i, j in pairs[pairs[:, 0] != pairs[:, 1]].tolist():
        for own, other in ((i, j), (j, i)):
            solid, ids = solids[other]
            mine = zone[mesh.bone[zone] == own]
            low, high = solid.vertices.min(axis=0) - clearance, solid.vertices.max(axis=0) + clearance
            mine = mine[((mesh.vertices[mine] >= low) & (mesh.vertices[mine] <= high)).all(axis=1)]
            depth, outward, corners, weight = solid.nearest(mesh.vertices[mine])
            facing = solids[own][0].normals[np.searchsorted(solids[own][1], mine)]
            touch = (depth > -clearance) & (depth < REACH_MM) & (number[ids[corners]] >= 0).all(axis=1)
            way = _directions(outward[touch], facing[touch])
            k = count + np.arange(int(touch.sum()))
            for axis in range(3):
                rows += [k, np.repeat(k, 3)]
                columns += [3 * number[mine[touch]] + axis, (3 * number[ids[corners[touch]]] + axis).ravel()]
                values += [way[:, axis], (-weight[touch] * way[:, axis : axis + 1]).ravel()]
            goal.append(depth[touch] + clearance)
            count += len(k)
    if not count:
        return csr_array((0, 3 * len(zone))), np.zeros(0)
    entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    return csr_array(entries, shape=(count, 3 * len(zone))), np.concatenate(goal)


def _directions(outward: Points, own: Points) -> Points:
    """Way out: between the other's outward normal and the own inward one; the own one where the two disagree."""
    way = outward - own
    length = np.linalg.norm(way, axis=1, keepdims=True)
    return np.where(length > 0.7, way / np.maximum(length, 1e-12), -own)
