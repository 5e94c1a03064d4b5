"""The target's side: even samples of each bone, smooth normals, what is real surface, where the scan ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from shapemodel.anatomy import RIBS, STERNUM
from shapemodel.mesh import Mesh, Points, face_normals, vertex_normals

EDGE_MM = 1.5
"""Surface this near to a face of the scanned volume is its cut, not bone."""

EDGE_RINGS = 3
"""Rings of vertices about an open edge that are not trusted: the surface rounds off there."""

LITTLE = 0.25
"""Of a bone of whose surface less than this part would be left only the vertices next to an edge are not trusted: a rib
of which a scan shows 10 mm is hardly more than its edge."""

NORMAL_PASSES = 4
"""Umbrella passes over the normals: about 2 mm on a marching-cubes surface, as smooth as a template's."""

MIN_FACES = 20
"""A bone with fewer triangles is a crumb: treated as absent."""

FLAT = 0.995
"""Cosine to an axis from which a triangle at the end of the mesh counts as part of a flat cut."""

FLAT_MM = 0.15
"""Its depth: a cut is a plane, and what is round leaves it."""

CRUMB = 0.15
"""A piece with less than this part of its bone's area is calcified cartilage or a labelling fault, not bone."""

SHORT_MM, ELSEWHERE_MM, ASTRAY_MM, NEXT_MM = 40.0, 10.0, 25.0, 4.0
"""A piece that is shorter, and so much farther from where its bone is predicted than another of its pieces, or farther
than the third from there, is not of that bone; points of it are farther than the last from all others."""

CUT_AREA, CUT_EDGES = (75.0, 75.0, 30.0), 30
"""mm2 of flat cut by axis, or vertices on open edges, at an end of the mesh that make it a face of the scan. The sides
of whole chests have up to 45 mm2 of such, their tops and lowest tips 4."""


@dataclass(frozen=True)
class Target:
    """Samples of the B bones of a template on a target (absent bones: zeros).

    Attributes
    ----------
    points, normals : (B, S, 3), mm and unit; solid : (B, S) real surface, neither cut nor open edge
    main : (B, S) solid and not part of a crumb
    piece : (B, S) number of the piece of surface that it is on
    dense : B times (k, 3), points of ribs as of ``main``, twice as many and more; of other bones none
    present : (B,) the bone is there
    center : (B, 3) centroid of its surface; whole : (B,) it touches no face of the scan
    fov : (6,) faces of the scan, infinite where there is none
    """

    points: NDArray[np.float64]
    normals: NDArray[np.float64]
    solid: NDArray[np.bool_]
    main: NDArray[np.bool_]
    piece: NDArray[np.int64]
    dense: tuple[Points, ...]
    present: NDArray[np.bool_]
    center: NDArray[np.float64]
    whole: NDArray[np.bool_]
    fov: NDArray[np.float64]


def neighbour_matrix(faces: NDArray[np.int64], n: int) -> sp.csr_matrix:
    """(n, n) row-stochastic matrix that averages over the ends of each vertex' edges; empty rows stay empty."""
    i = np.concatenate([faces[:, 0], faces[:, 1], faces[:, 2], faces[:, 1], faces[:, 2], faces[:, 0]])
    j = np.concatenate([faces[:, 1], faces[:, 2], faces[:, 0], faces[:, 0], faces[:, 1], faces[:, 2]])
    a = sp.csr_matrix((np.ones(len(i), dtype=np.float64), (i, j)), shape=(n, n))
    a.data[:] = 1.0
    count = np.maximum(np.asarray(a.sum(1)).ravel(), 1.0)
    return (sp.diags(1.0 / count) @ a).tocsr()


def open_vertices(faces: NDArray[np.int64], n: int) -> NDArray[np.bool_]:
    """(n,) vertices on an edge that has one face only; triangles that merely hang on an edge of two others are none."""
    edges = edge_keys(faces, n)
    key = np.sort(edges, axis=None)
    many = key[2:][key[2:] == key[:-2]]
    if len(many):
        hung = np.isin(edges, many).any(1)
        once = np.unique(np.sort(faces[hung], axis=1), axis=0)  # doubled triangles count once
        suspect = edge_keys(once, n)
        key = np.sort(np.concatenate([edges[~hung].ravel(), suspect.ravel()]))
        around = np.searchsorted(key, suspect, "right") - np.searchsorted(key, suspect, "left")
        kept = suspect[(around.max(1) < 3) | (around.min(1) > 1)]
        key = np.sort(np.concatenate([edges[~hung].ravel(), kept.ravel()]))
    new = np.ones(len(key) + 1, dtype=bool)
    np.not_equal(key[1:], key[:-1], out=new[1:-1])
    single = key[new[1:] & new[:-1]]
    out = np.zeros(n, dtype=bool)
    out[single // max(n, 1)] = True
    out[single % max(n, 1)] = True
    return out


def edge_keys(faces: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """(F, 3) one number for each edge of each triangle, the same in both directions, of ``n`` vertices."""
    i, j = faces, faces[:, [1, 2, 0]]
    return np.asarray(np.minimum(i, j) * n + np.maximum(i, j))


def find_fov(mesh: Mesh, border: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(6,) faces of the scan: as known, else where the mesh ends in flat cuts or open edges, else infinite."""
    if mesh.fov is not None:
        return mesh.fov.copy()
    fov = np.array([-np.inf, np.inf] * 3)
    n = face_normals(mesh.vertices, mesh.faces)
    area = np.linalg.norm(n, axis=1)
    center = mesh.vertices[mesh.faces].mean(1)
    for axis in range(3):
        for end, sign in ((0, -1.0), (1, 1.0)):
            extreme = (mesh.vertices[:, axis] * sign).max() * sign
            near = np.abs(center[:, axis] - extreme) < FLAT_MM
            flat = area[near & (sign * n[:, axis] > FLAT * area)].sum() / 2
            edge = (border & (np.abs(mesh.vertices[:, axis] - extreme) < EDGE_MM)).sum()
            if flat > CUT_AREA[axis] or edge > CUT_EDGES:
                fov[2 * axis + end] = extreme
    return fov


def inside(points: Points, fov: NDArray[np.float64], margin: float = 0.0) -> NDArray[np.bool_]:
    """(...,) points at least ``margin`` mm inside every face of the scan."""
    low, high = fov[0::2] + margin, fov[1::2] - margin
    return np.asarray(((points > low) & (points < high)).all(-1))


def bulged(
    vertices: Points, normals: Points, corner: NDArray[np.int64], bary: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(m, 3) points ``bary`` (m, 3) of triangles ``corner`` (m, 3), on the curved surface that their normals tell of.

    Phong tessellation (Boubekeur and Alexa 2008), with their weight of 3/4: flat triangles of 3 mm cut ridges and
    ends off by as much as there is relief.
    """
    flat = np.einsum("mk,mkd->md", bary, vertices[corner])
    above = ((flat[:, None] - vertices[corner]) * normals[corner]).sum(2)
    return np.asarray(flat - 0.75 * np.einsum("mk,mk,mkd->md", bary, above, normals[corner]))


def draw(vertices: Points, faces: NDArray[np.int64], count: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Evenly spread samples: (count,) face and (count, 3) barycentric; strata of equal area, R2 sequence within."""
    area = np.linalg.norm(face_normals(vertices, faces), axis=1)
    total = np.cumsum(area)
    face = np.searchsorted(total, (np.arange(count) + 0.5) / count * total[-1]).clip(0, len(faces) - 1)
    i = np.arange(count)
    # additive recurrence of the plastic number (Roberts 2018): even, and the same every time
    u, v = (0.5 + 0.7548776662466927 * i) % 1.0, (0.5 + 0.5698402909980532 * i) % 1.0
    r = np.sqrt(u)
    return face, np.column_stack([1 - r, r * (1 - v), r * v])


def pieces(mesh: Mesh, around: sp.csr_matrix) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(n,) number of the connected piece of its bone that each vertex is on, and whether that has less than ``CRUMB``
    of the bone's vertices."""
    _, piece = connected_components(around, directed=False)
    _, own, count = np.unique(piece * 256 + mesh.bone, return_inverse=True, return_counts=True)
    return own, count[own] < CRUMB * np.bincount(mesh.bone, minlength=256)[mesh.bone]


def sample_target(mesh: Mesh, labels: NDArray[np.int64], count: int, dense: int = 0) -> Target:
    """``count`` samples of each of these bones on a target mesh, and ``dense`` ones of ribs and sternum; labels that
    the template lacks are ignored."""
    n = len(mesh.vertices)
    border = open_vertices(mesh.faces, n)
    fov = find_fov(mesh, border)
    # where the label changes within a surface one of the two labels is wrong
    mixed = (mesh.bone[mesh.faces] != mesh.bone[mesh.faces[:, :1]]).any(1)
    border[mesh.faces[mixed]] = True
    around = neighbour_matrix(mesh.faces, n)
    rough, normals = border.astype(float), vertex_normals(mesh.vertices, mesh.faces)
    next_to = rough = np.maximum(rough, around @ rough)
    for _ in range(EDGE_RINGS - 1):
        rough = np.maximum(rough, around @ rough)
    for _ in range(NORMAL_PASSES):
        normals = 0.5 * (normals + around @ normals)
    within = inside(mesh.vertices, fov, EDGE_MM)
    solid = (rough == 0) & within
    owner = mesh.bone[mesh.faces[:, 0]]
    little = np.bincount(owner, solid[mesh.faces].all(1), 256) < LITTLE * np.bincount(owner, minlength=256)
    solid |= little[mesh.bone] & (next_to == 0) & within
    number, crumb = pieces(mesh, around)
    main = solid & ~crumb
    shape = (len(labels), count)
    p, m = np.zeros((*shape, 3)), np.zeros((*shape, 3))
    s, t, q = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool), np.zeros(shape, dtype=np.int64)
    center = np.zeros((len(labels), 3))
    present, whole = np.zeros(len(labels), dtype=bool), np.zeros(len(labels), dtype=bool)
    fine = [np.zeros((0, 3)) for _ in labels]
    for b, label in enumerate(labels):
        faces = mesh.faces[owner == label]
        if len(faces) < MIN_FACES:
            continue
        face, bary = draw(mesh.vertices, faces, count)
        corner = faces[face]
        p[b] = np.einsum("sk,skd->sd", bary, mesh.vertices[corner])
        m[b] = np.einsum("sk,skd->sd", bary, normals[corner])
        s[b] = solid[corner].all(1)
        t[b] = main[corner].all(1)
        q[b] = number[corner[:, 0]]
        present[b] = t[b].any()
        center[b] = p[b].mean(0)
        whole[b] = within[faces].all()
        if dense and label in (*RIBS, STERNUM):
            face, bary = draw(mesh.vertices, faces, dense)
            real = main[faces[face]].all(1)
            fine[b] = np.einsum("sk,skd->sd", bary[real], mesh.vertices[faces[face[real]]])
    m /= np.maximum(np.linalg.norm(m, axis=-1, keepdims=True), 1e-9)
    return Target(p, m, s, t, q, tuple(fine), present, center, whole, fov)


def elsewhere(target: Target, bones: Sequence[Points]) -> Target:
    """The target without short pieces that lie far from where their bone is predicted, by the vertices ``bones`` of
    each, while another piece of it does not, or so far that they cannot be of it; the bone is absent if none is left.

    Calcified cartilage and slices of a neighbour with a rib's label are no more than crumbs of most ribs, but as much
    as a scan shows of one that it cuts at the root: such a rib was put where the other piece lies.
    """
    count = target.points.shape[1]
    take = np.tile(np.arange(count), (len(target.present), 1))
    dense, present = list(target.dense), target.present.copy()
    for b in np.flatnonzero(target.present).tolist():
        number, own = np.unique(target.piece[b], return_inverse=True)
        size = np.array([np.linalg.norm(np.ptp(target.points[b][own == k], axis=0)) for k in range(len(number))])
        if size.min() >= SHORT_MM:
            continue
        away = cKDTree(bones[b]).query(target.points[b])[0]
        far = np.array([np.median(away[own == k]) for k in range(len(number))])
        bone = np.bincount(own) >= CRUMB * len(own)
        lost = ((size < SHORT_MM) & (far > min(far[bone].min(initial=np.inf) + ELSEWHERE_MM, ASTRAY_MM)))[own]
        if not lost.any():
            continue
        kept = np.flatnonzero(~lost)
        present[b] = target.main[b, kept].any()
        if not present[b]:
            dense[b] = dense[b][:0]
            continue
        take[b, lost] = kept[np.arange(count - len(kept)) % len(kept)]
        if len(dense[b]):
            dense[b] = dense[b][cKDTree(target.points[b, kept]).query(dense[b])[0] < NEXT_MM]
    if (present == target.present).all() and (take == np.arange(count)).all():
        return target
    row = np.arange(len(take))[:, None]
    sampled = {k: getattr(target, k)[row, take] for k in ("points", "normals", "solid", "main", "piece")}
    sampled["main"] &= present[:, None]
    return replace(target, dense=tuple(dense), present=present, **sampled)


def move(target: Target, scale: float, rotation: NDArray[np.float64], shift: NDArray[np.float64]) -> Target:
    """The samples after ``scale * x @ rotation.T + shift``. The faces of the scan stay in their own frame."""
    return replace(
        target,
        points=scale * target.points @ rotation.T + shift,
        normals=target.normals @ rotation.T,
        dense=tuple(scale * x @ rotation.T + shift for x in target.dense),
        center=scale * target.center @ rotation.T + shift,
    )
