"""What a template needs to be registered with, computed once for a cohort."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from threadpoolctl import threadpool_limits

from shapemodel.anatomy import MODEL_LABELS
from shapemodel.intersections import find_intersections
from shapemodel.mesh import Faces, Mesh, Points, face_normals, vertex_areas, vertex_normals
from shapemodel.reasons import InputError
from shapemodel.registration.ends import Shaft, plate, shafts
from shapemodel.registration.numbers import Leanings, usual_leanings
from shapemodel.registration.prior import Basis, linear, nystrom, spread
from shapemodel.registration.settings import PriorSettings
from shapemodel.registration.stations import Markings, own_markings
from shapemodel.registration.target import find_fov, open_vertices

CLEAN = 0.002
"""Part of the triangles that may cut others in a template that counts as clean."""

MIN_VERTICES = 12
"""A bone of a template with fewer vertices cannot carry a basis."""


SOUP = 1.5
"""More vertices a triangle than this: triangles do not share them (a closed surface has 0.5, a soup 3)."""

SAME_MM = 1e-3
"""Vertices of a bone nearer than about this are one, where triangles do not share vertices."""


@dataclass(frozen=True)
class Prepared:
    """A template with its bases; plain arrays, so it can be pickled to workers.

    Attributes
    ----------
    mesh : the template (V vertices, B bones)
    prior : the settings it was prepared with
    labels : (B,) label numbers, ascending; ``index`` (V,) which of them each vertex has
    normals, areas : (V, 3) unit normals, (V,) mm2
    nodes : (B, N) vertices that carry the fit, far-apart ones first; ``weight`` (B, N) is 0 for padding
    thorax, bone, fine : (V, r) bases of the thorax-wide, the bone-wise and the fine bone-wise field
    shafts : the ribs, for anchors at their ends; ``markings`` what tells the places between;
        ``plate`` the sternum, for those at its own
    leanings : by rib, how it lies to the vertebrae, mm: tells ribs that are numbered one off
    clean : its bones do not cut each other, so registered ones must not either
    """

    mesh: Mesh
    prior: PriorSettings
    labels: NDArray[np.int64]
    index: NDArray[np.int64]
    normals: NDArray[np.float64]
    areas: NDArray[np.float64]
    nodes: NDArray[np.int64]
    weight: NDArray[np.float64]
    thorax: Basis
    bone: Basis
    fine: Basis
    shafts: tuple[Shaft, ...]
    markings: Markings
    plate: Shaft | None
    leanings: Leanings
    clean: bool


def sound(target: Mesh) -> Mesh:
    """A target's surface without triangles that are edges or vertices of none, triangles joined, normals outwards.

    Such a triangle has an edge of its own and reads as the rim of a cut; a soup of triangles is nothing but rims;
    a bone turned inside out finds no partner. Doubled triangles do no harm.
    """
    v, f, bone = target.vertices, target.faces, target.bone
    if len(v) > SOUP * len(f):
        _, first, number = np.unique(
            np.column_stack([np.round(v / SAME_MM), bone]), axis=0, return_index=True, return_inverse=True
        )
        v, bone, f = v[first], bone[first], number.reshape(-1)[f]
    flat = (f[:, 0] == f[:, 1]) | (f[:, 1] == f[:, 2]) | (f[:, 2] == f[:, 0])
    f = f[~flat]
    used = np.zeros(len(v), dtype=bool)
    used[f] = True
    inward = turned_in(v, f, bone)
    if used.all() and not flat.any() and not inward.any() and v is target.vertices:
        return target
    f = np.where(inward[:, None], f[:, ::-1], f)
    return Mesh(v[used], (np.cumsum(used) - 1)[f], bone[used], target.fov)


def turned_in(v: Points, f: Faces, bone: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(F,) triangles of pieces whose volume, measured from their own middle, is negative; cut surfaces may be open.

    Pieces and not bones: from far away, as from between a rib's root and a lump of cartilage at its front, an open
    surface has any volume. A piece within another of its bone is a cavity, and right as it is.
    """
    edges = np.concatenate([f[:, :2], f[:, 1:]])
    edges = edges[bone[edges[:, 0]] == bone[edges[:, 1]]]
    linked = sp.coo_matrix((np.ones(len(edges), dtype=bool), edges.T), (len(v), len(v)))
    piece = connected_components(linked, directed=False)[1]
    order = np.argsort(piece, kind="stable")
    first = np.flatnonzero(np.diff(piece[order], prepend=-1))
    low, high, mean = (r(v[order], first) for r in (np.minimum.reduceat, np.maximum.reduceat, np.add.reduceat))
    mean /= np.diff(first, append=len(v))[:, None]
    own, owner = piece[f[:, 0]], bone[order[first]]
    volume = np.bincount(own, ((v[f[:, 0]] - mean[own]) * face_normals(v, f)).sum(1), minlength=len(first))
    inward = volume < 0
    for k in np.flatnonzero(inward):
        inward[k] = not ((owner == owner[k]) & (low < low[k]).all(1) & (high > high[k]).all(1)).any()
    return np.asarray(inward[own])


def prepare(template: Mesh, *, prior: PriorSettings | None = None) -> Prepared:
    """Bases and fit nodes of a template. Labels outside 1-37 are an error: a template holds bones only."""
    with threadpool_limits(limits=1):
        return _prepare(template, prior or PriorSettings())


def _prepare(template: Mesh, prior: PriorSettings) -> Prepared:
    labels = np.array(template.labels, dtype=np.int64)
    strange = sorted(set(labels.tolist()) - set(MODEL_LABELS))
    if len(labels) == 0 or strange:
        raise InputError(f"template: expected bones with labels 1-37, found {strange or 'none'}")
    index = np.searchsorted(labels, template.bone)
    v = template.vertices
    nodes = np.zeros((len(labels), prior.nodes), dtype=np.int64)
    weight = np.zeros((len(labels), prior.nodes))
    bone = np.zeros((len(v), 4 + prior.bone_rank), dtype=np.float32)
    fine = np.zeros((len(v), prior.fine_rank), dtype=np.float32)
    for b, label in enumerate(labels):
        ids = np.flatnonzero(template.bone == label)
        if len(ids) < MIN_VERTICES:
            raise InputError(f"template: bone {label} has {len(ids)} vertices, expected {MIN_VERTICES} or more")
        far = ids[spread(v[ids], prior.nodes)]
        nodes[b] = far[np.arange(prior.nodes) % len(far)]
        weight[b, : len(far)] = 1.0
        own = v[ids]
        bone[ids, :4] = linear(own, own.mean(0), prior.bone_shift, prior.bone_linear)
        bone[ids, 4:] = nystrom(own, v[far[:120]], prior.bone, prior.bone_rank)
        fine[ids] = nystrom(own, v[far], prior.fine, prior.fine_rank)
    # the same number of landmarks from every bone: small bones matter as much as long ones
    per = max(prior.landmarks // len(labels), 4)
    marks = v[nodes[:, :per].ravel()]
    thorax = np.hstack(
        [
            linear(v, v.mean(0), prior.thorax_shift, prior.thorax_linear),
            nystrom(v, np.unique(marks, axis=0), prior.thorax, prior.rank),
        ]
    )
    fov = find_fov(template, open_vertices(template.faces, len(v)))
    parts, sternum = shafts(template, labels, fov), plate(template, labels, fov)
    normals = vertex_normals(v, template.faces)
    return Prepared(
        mesh=template,
        prior=prior,
        labels=labels,
        index=index,
        normals=normals,
        areas=vertex_areas(v, template.faces),
        nodes=nodes,
        weight=weight,
        thorax=thorax,
        bone=bone,
        fine=fine,
        shafts=parts,
        markings=own_markings(template, normals, parts if sternum is None else (*parts, sternum)),
        plate=sternum,
        leanings=usual_leanings(template),
        clean=len(find_intersections(template).faces) <= CLEAN * len(template.faces),
    )
