"""Which triangles of a mesh cut each other: the named detector ``segment-triangle``.

Two triangles that share no vertex intersect when an edge of one meets the other; with one shared vertex the
edge opposite to it is tested; with a shared edge they intersect when one is folded flat onto the other.
Orientation tests are signed volumes in float64 (Guigue and Devillers 2003); touching counts as cutting.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shapemodel.anatomy import names
from shapemodel.mesh import Faces, Mesh, Points, face_normals, vertex_normals

DETECTOR = "segment-triangle"
"""Name of this detector, as printed in quality tables."""

FOLD_COS = -0.9998
"""Cosine of two normals (179 degrees apart) at which neighbours that share an edge count as folded together."""

NEAR_PLANE = 1e-6
"""Six times a volume, mm3, below which rounding may decide on which side of a plane a point lies (coordinates are below
1e4 mm, edges below 100 mm: the error is below 1e-7)."""

UPRIGHT = 1e-3
"""Cosine of a triangle's normal with that at its corner, below which rounding may decide which way it faces."""

Pairs = NDArray[np.int64]


@dataclass(frozen=True)
class Intersections:
    """Pairs of faces that cut each other.

    Attributes
    ----------
    pairs : (K, 2) face indices
    places : (K, 3) mm, midpoint of the two centroids
    bones : (K, 2) label numbers of the two faces
    """

    pairs: Pairs
    places: Points
    bones: NDArray[np.uint8]

    @property
    def faces(self) -> NDArray[np.int64]:
        """Faces that take part in an intersection, ascending."""
        return np.unique(self.pairs)

    @property
    def within(self) -> int:
        """Pairs inside one bone."""
        return int((self.bones[:, 0] == self.bones[:, 1]).sum())

    @property
    def between(self) -> int:
        """Pairs of two bones that penetrate each other."""
        return len(self.pairs) - self.within

    def describe(self, most: int = 3) -> str:
        """One sentence with the counts and the first places."""
        if not len(self.pairs):
            return f"no intersecting triangles ({DETECTOR})"
        text = f"{len(self.pairs)} intersecting pairs of triangles ({DETECTOR}), {self.between} between bones"
        places = []
        for bones, place in zip(self.bones[:most], self.places[:most], strict=True):
            both = " / ".join(dict.fromkeys(names(bones.tolist())))
            places.append(f"{both} at ({place[0]:.1f}, {place[1]:.1f}, {place[2]:.1f})")
        return f"{text}: {'; '.join(places)}"


def find_intersections(mesh: Mesh) -> Intersections:
    """All pairs of triangles of a mesh that cut each other, within bones and between them."""
    return _placed(mesh, intersecting_pairs(mesh.vertices, mesh.faces))


def find_again(mesh: Mesh, before: Mesh, known: Intersections) -> Intersections:
    """The same, of a mesh of which all cuts were known before some of its vertices moved: only there it is looked.

    A pair of which neither triangle moved is what it was; every other has a triangle near those that did.
    """
    changed = (mesh.vertices != before.vertices).any(axis=1)
    moved = changed[mesh.faces].any(axis=1)
    near = within_reach(mesh.vertices, mesh.faces, moved)
    again = near[intersecting_pairs(mesh.vertices, mesh.faces[near])]
    pairs = np.vstack([known.pairs[~moved[known.pairs].any(axis=1)], again[moved[again].any(axis=1)]])
    return _placed(mesh, _in_order(pairs))


def within_reach(vertices: Points, faces: Faces, chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Faces, ascending, that may reach a chosen one (F,), by surrounding balls: all that can cut one are there."""
    from scipy.spatial import cKDTree

    if not chosen.any():
        return np.zeros(0, np.int64)
    centre, radius = _balls(vertices, faces)
    reach = radius.max() + radius[chosen].max()
    return np.flatnonzero(chosen | (cKDTree(centre[chosen]).query(centre, distance_upper_bound=reach)[0] < np.inf))


def _placed(mesh: Mesh, pairs: Pairs) -> Intersections:
    places = mesh.vertices[mesh.faces[pairs]].mean(axis=(1, 2))
    return Intersections(pairs, places, mesh.bone[mesh.faces[pairs, 0]].reshape(-1, 2))


def _in_order(pairs: Pairs) -> Pairs:
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def intersecting_pairs(vertices: Points, faces: Faces) -> Pairs:
    """(K, 2) pairs i < j of faces that cut each other, in ascending order."""
    near = _near_pairs(vertices, faces)
    shared = np.zeros(len(near), np.int8)
    corners = [faces[:, k].take(near[:, side]) for side in range(2) for k in range(3)]
    for one in corners[:3]:  # corner by corner: sums over axes of three numbers take ten times as long
        for other in corners[3:]:
            shared += one == other
    beside = _side_by_side(vertices, faces).take(near[:, 0])
    at_vertex = np.flatnonzero((shared == 1) & ~beside)
    at_vertex = at_vertex[_may_cross(vertices, faces, near[at_vertex])]
    hit = shared == 3
    for rows, test in (
        (np.flatnonzero(shared == 0), _cut_apart),
        (at_vertex, _cut_at_vertex),
        (np.flatnonzero((shared == 2) & ~beside), _cut_at_edge),
    ):
        hit[rows] = test(vertices, faces[near[rows, 0]], faces[near[rows, 1]])
    return _in_order(near[hit])


def _side_by_side(vertices: Points, faces: Faces) -> NDArray[np.bool_]:
    """(F,) whether a triangle cannot cut any that shares a corner with it.

    So it is where, at each of its corners, all triangles face the corner's way and go round it once: seen along the
    normal there they lie beside each other and nowhere on top. Most of a mesh is like that, and need not be tested.
    """
    normals, corner = face_normals(vertices, faces), vertex_normals(vertices, faces)
    own = [[x.take(faces[:, k]) for k in range(3)] for x in np.ascontiguousarray(vertices.T)]
    nx, ny, nz = np.ascontiguousarray(normals.T)
    ux, uy, uz = np.ascontiguousarray(corner.T)
    length = np.sqrt(nx * nx + ny * ny + nz * nz)
    turned, bad = np.zeros(len(vertices)), np.zeros(len(vertices), dtype=bool)
    for k in range(3):
        at = faces[:, k]
        vx, vy, vz = ux.take(at), uy.take(at), uz.take(at)
        (ax, bx), (ay, by), (az, bz) = ((x[(k + 1) % 3] - x[k], x[(k + 2) % 3] - x[k]) for x in own)
        up = nx * vx + ny * vy + nz * vz
        flat = ax * bx + ay * by + az * bz - (ax * vx + ay * vy + az * vz) * (bx * vx + by * vy + bz * vz)
        turned += np.bincount(at, np.arctan2(up, flat), minlength=len(vertices))
        bad[at[up <= UPRIGHT * length]] = True
    good = ~bad & (np.abs(turned - 2 * np.pi) < 1e-3)
    return np.asarray(good[faces[:, 0]] & good[faces[:, 1]] & good[faces[:, 2]])


def _may_cross(vertices: Points, faces: Faces, pairs: Pairs) -> NDArray[np.bool_]:
    """(K,) False for pairs with one common vertex where each lies clearly on one side of the other's plane, as most do.

    Cheaper than the exact test and never against it: what lies within rounding of a plane is left to that. The common
    vertex lies in both planes, so two corners clearly on one side say that both of the others are there.
    """
    x, y, z = np.ascontiguousarray(vertices.T)
    corners = np.ascontiguousarray(faces.T)
    normal = face_normals(vertices, faces)
    height = (normal * vertices[faces[:, 0]]).sum(axis=1)
    nx, ny, nz = np.ascontiguousarray(normal.T)
    may = np.zeros(len(pairs), dtype=bool)
    for one, other in ((pairs[:, 0], pairs[:, 1]), (pairs[:, 1], pairs[:, 0])):
        a, b, c, d = nx.take(other), ny.take(other), nz.take(other), height.take(other)
        above, below = np.zeros(len(pairs), np.int8), np.zeros(len(pairs), np.int8)
        for corner in corners:
            own = corner.take(one)
            side = a * x.take(own) + b * y.take(own) + c * z.take(own) - d
            above += side > NEAR_PLANE
            below += side < -NEAR_PLANE
        may |= (above < 2) & (below < 2)
    return may


def _balls(vertices: Points, faces: Faces) -> tuple[Points, NDArray[np.float64]]:
    """(F, 3) centroids of triangles, and (F,) how far their corners lie from them."""
    centre = np.empty((len(faces), 3))
    square = [np.zeros(len(faces)) for _ in range(3)]
    for k, x in enumerate(np.ascontiguousarray(vertices.T)):
        own = [x.take(faces[:, i]) for i in range(3)]
        centre[:, k] = mean = (own[0] + own[1] + own[2]) / 3
        for total, corner in zip(square, own, strict=True):
            total += (corner - mean) ** 2
    return centre, np.sqrt(np.maximum(np.maximum(square[0], square[1]), square[2]))


def _near_pairs(vertices: Points, faces: Faces) -> Pairs:
    """(K, 2) pairs of triangles whose axis-aligned boxes overlap, by trees over classes of size."""
    from scipy.spatial import cKDTree

    if not len(faces):
        return np.zeros((0, 2), np.int64)
    centre, radius = _balls(vertices, faces)
    low, high = np.empty((2, 3, len(faces)))
    for k, x in enumerate(np.ascontiguousarray(vertices.T)):
        a, b, c = (x.take(faces[:, i]) for i in range(3))
        np.minimum(np.minimum(a, b), c, out=low[k])
        np.maximum(np.maximum(a, b), c, out=high[k])
    size = np.floor(np.log2(np.maximum(radius, 1e-9))).astype(int)
    groups = [np.flatnonzero(size == k) for k in np.unique(size)]
    trees = [cKDTree(centre[g]) for g in groups]
    found = []
    for i, g in enumerate(groups):
        for j in range(i + 1):
            reach = radius[g].max() + radius[groups[j]].max()
            if i == j:
                p = trees[i].query_pairs(reach, output_type="ndarray").astype(np.int64)
                p = g[p]
            else:
                near = trees[i].sparse_distance_matrix(trees[j], reach, output_type="ndarray")
                p = np.column_stack([g[near["i"]], groups[j][near["j"]]])
            for k in range(3):
                one, other = p[:, 0], p[:, 1]
                p = p[(low[k][one] <= high[k][other]) & (low[k][other] <= high[k][one])]
            found.append(np.column_stack([p.min(axis=1), p.max(axis=1)]))
    return np.vstack(found)


def _volume(a: Points, b: Points, c: Points, d: Points) -> NDArray[np.float64]:
    """Six times the signed volume of tetrahedra."""
    u, v, w = b - a, c - a, d - a
    return np.asarray(
        u[:, 0] * (v[:, 1] * w[:, 2] - v[:, 2] * w[:, 1])
        + u[:, 1] * (v[:, 2] * w[:, 0] - v[:, 0] * w[:, 2])
        + u[:, 2] * (v[:, 0] * w[:, 1] - v[:, 1] * w[:, 0])
    )


def _segment_hits(p: Points, q: Points, a: Points, b: Points, c: Points) -> NDArray[np.bool_]:
    """Whether segments pq meet triangles abc, both (K, 3); segments in the triangle's plane do not count here."""
    side_p, side_q = _volume(a, b, c, p), _volume(a, b, c, q)
    hit = (side_p * side_q <= 0) & ((side_p != 0) | (side_q != 0))
    rows = np.flatnonzero(hit)
    p, q, a, b, c = p[rows], q[rows], a[rows], b[rows], c[rows]
    e = np.column_stack([_volume(p, q, a, b), _volume(p, q, b, c), _volume(p, q, c, a)])
    hit[rows] = (e >= 0).all(axis=1) | (e <= 0).all(axis=1)
    return hit


def _cut_apart(vertices: Points, a: Faces, b: Faces) -> NDArray[np.bool_]:
    """Triangles without a shared vertex: any edge of one through the other, or coplanar and overlapping."""
    hit = np.zeros(len(a), dtype=bool)
    for one, other in ((a, b), (b, a)):
        corners = [vertices[other[:, k]] for k in range(3)]
        for k in range(3):
            rows = np.flatnonzero(~hit)
            p, q = vertices[one[rows, k]], vertices[one[rows, (k + 1) % 3]]
            hit[rows] = _segment_hits(p, q, *(c[rows] for c in corners))
    flat = np.flatnonzero(~hit & _coplanar(vertices, a, b))
    hit[flat] = _flat_overlap(vertices, a[flat], b[flat])
    return hit


def _coplanar(vertices: Points, a: Faces, b: Faces) -> NDArray[np.bool_]:
    corners = [vertices[a[:, k]] for k in range(3)]
    side = np.column_stack([_volume(corners[0], corners[1], corners[2], vertices[b[:, k]]) for k in range(3)])
    return np.asarray((side == 0).all(axis=1))


def _flat_overlap(vertices: Points, a: Faces, b: Faces) -> NDArray[np.bool_]:
    """Coplanar triangles overlap unless an edge normal separates them (separating axis)."""
    apart = np.zeros(len(a), dtype=bool)
    for one in (a, b):
        normal = face_normals(vertices, one)
        for k in range(3):
            axis = np.cross(normal, vertices[one[:, (k + 1) % 3]] - vertices[one[:, k]])
            pa, pb = (np.einsum("kij,kj->ki", vertices[f], axis) for f in (a, b))
            apart |= (pa.max(axis=1) <= pb.min(axis=1)) | (pb.max(axis=1) <= pa.min(axis=1))
    return ~apart


def _cut_at_vertex(vertices: Points, a: Faces, b: Faces) -> NDArray[np.bool_]:
    """Triangles that share one vertex: the opposite edge of one through the other."""
    hit = np.zeros(len(a), dtype=bool)
    for one, other in ((a, b), (b, a)):
        position = np.where(_among(one[:, 0], other), 0, np.where(_among(one[:, 1], other), 1, 2))
        rows = np.arange(len(one))
        p, q = vertices[one[rows, (position + 1) % 3]], vertices[one[rows, (position + 2) % 3]]
        hit |= _segment_hits(p, q, *(vertices[other[:, k]] for k in range(3)))
    return hit


def _among(vertex: NDArray[np.int64], corners: Faces) -> NDArray[np.bool_]:
    return np.asarray((vertex == corners[:, 0]) | (vertex == corners[:, 1]) | (vertex == corners[:, 2]))


def _cut_at_edge(vertices: Points, a: Faces, b: Faces) -> NDArray[np.bool_]:
    """Triangles that share an edge: folded flat onto each other."""
    na, nb = face_normals(vertices, a), face_normals(vertices, b)
    length = np.linalg.norm(na, axis=1) * np.linalg.norm(nb, axis=1)
    return np.asarray(np.einsum("ij,ij->i", na, nb) < FOLD_COS * np.maximum(length, 1e-30))
