"""Solid bones: 10-node tetrahedra inside a template's surfaces, made once and moved with any of its shapes.

The mesher is gmsh, which is GPL and therefore an extra (``pip install shapemodel[solids]``) that is imported only
where tetrahedra are made; carrying them to another shape needs SciPy alone. Surface nodes are the template's vertices,
in their order; interior nodes follow the surface by a harmonic map; nodes on the middles of edges are set last, so
edges are straight and an element is valid when its four corners are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shapemodel.anatomy import bone
from shapemodel.files import replacing
from shapemodel.mesh import Faces, Mesh, Points
from shapemodel.reasons import InputError

EDGES = ((0, 1), (1, 2), (0, 2), (0, 3), (1, 3), (2, 3))
"""Corners between which nodes 5 to 10 lie: the order of LS-DYNA, Abaqus and Nastran alike."""

LEAST_JACOBIAN = 0.05
"""Scaled Jacobian that every element of a shape must exceed; 0 is a flat element, 1 a regular one."""

FORMAT = "shapemodel-solids 1"


@dataclass(frozen=True)
class Solids:
    """Tetrahedra of a template.

    Attributes
    ----------
    surface : (V, 3) mm, the template's vertices, which are the first V corner nodes
    bone : (N,) label of each corner node, surface ones first
    inside : (N - V, 3) mm, interior nodes
    tets : (T, 4) corner nodes, positively oriented
    """

    surface: Points
    bone: NDArray[np.uint8]
    inside: Points
    tets: NDArray[np.int64]


@dataclass(frozen=True)
class SolidShape:
    """Solid bones of one shape: ``nodes`` (M, 3) mm, ``bone`` (M,), ``elements`` (T, 10), ``quality`` (T,)."""

    nodes: Points
    bone: NDArray[np.uint8]
    elements: NDArray[np.int64]
    quality: NDArray[np.float64]

    @property
    def summary(self) -> str:
        """One sentence."""
        q = self.quality
        return (
            f"{len(self.elements)} 10-node tetrahedra, scaled Jacobian {q.min():.2f} at least, "
            f"{np.percentile(q, 1):.2f} for 99 %"
        )


def fill(template: Mesh) -> Solids:
    """Tetrahedra inside each closed surface of a template.

    Raises
    ------
    InputError
        without gmsh, or for a bone whose surface cannot be filled with its nodes kept
    """
    try:
        import gmsh
    except (ImportError, OSError) as error:
        raise InputError(
            "tetrahedra are made with gmsh, which is not here (it is GPL, so it is an extra): pip install "
            f"'shapemodel[solids]', and libglu1-mesa where OpenGL is missing ({error})"
        ) from error
    inside, labels, tets = [], [], []
    count = len(template.vertices)
    gmsh.initialize(interruptible=False)
    try:
        for name, value in (("General.Terminal", 0), ("General.NumThreads", 1), ("Mesh.Algorithm3D", 1)):
            gmsh.option.setNumber(name, value)
        for label in template.labels:
            v, f, ids = template.select(label)
            new, own = _fill_bone(gmsh, v, f, bone(label).name)
            index = np.concatenate([ids, np.arange(count, count + len(new))])
            tets.append(index[own])
            inside.append(new)
            labels.append(np.full(len(new), label, np.uint8))
            count += len(new)
    finally:
        gmsh.finalize()
    whole = np.concatenate([template.bone, *labels])
    return Solids(template.vertices.copy(), whole, np.vstack(inside), np.vstack(tets))


def _fill_bone(gmsh: Any, vertices: Points, faces: Faces, name: str) -> tuple[Points, NDArray[np.int64]]:
    """New interior nodes (n, 3) and tetrahedra (T, 4) over surface nodes followed by these."""
    gmsh.model.add(name)
    surface = gmsh.model.addDiscreteEntity(2)
    gmsh.model.mesh.addNodes(2, surface, np.arange(1, len(vertices) + 1), vertices.ravel())
    gmsh.model.mesh.addElementsByType(surface, 2, np.arange(1, len(faces) + 1), (faces + 1).ravel())
    gmsh.model.geo.addVolume([gmsh.model.geo.addSurfaceLoop([surface])])
    gmsh.model.geo.synchronize()
    try:
        gmsh.model.mesh.generate(3)
        gmsh.model.mesh.optimize("Netgen")  # least scaled Jacobian .18 instead of .14, without touching the surface
    except Exception as error:  # gmsh raises a bare Exception
        raise InputError(f"{name}: its surface cannot be filled with tetrahedra: {error}") from error
    tags, places, _ = gmsh.model.mesh.getNodes()
    places = places.reshape(-1, 3)[np.argsort(tags)]
    tags = np.sort(tags)
    kinds, _, nodes = gmsh.model.mesh.getElements(3)
    gmsh.model.remove()
    kept = len(places) >= len(vertices) and np.array_equal(places[: len(vertices)], vertices)
    if list(kinds) != [4] or not kept:
        raise InputError(f"{name}: the mesher did not keep the nodes of the surface")
    index = np.full(int(tags[-1]) + 1, -1)
    index[tags] = np.arange(len(tags))
    tets = index[nodes[0].reshape(-1, 4).astype(np.int64)]
    corner = places[tets]
    wrong = np.linalg.det(corner[:, 1:] - corner[:, :1]) < 0
    tets[wrong] = tets[wrong][:, [0, 2, 1, 3]]
    return places[len(vertices) :], tets


def carry(solids: Solids, mesh: Mesh) -> SolidShape:
    """The solid bones of a shape of the same template.

    Raises
    ------
    InputError
        for another template's shape, or when an element would be inverted or flat, naming the bone
    """
    n = len(solids.surface)
    if mesh.vertices.shape != (n, 3) or not np.array_equal(mesh.bone, solids.bone[:n]):
        raise InputError(f"the tetrahedra are of a template of {n} vertices, not of this shape's: make them anew")
    corners = np.vstack([mesh.vertices, np.zeros_like(solids.inside)])
    rest = np.vstack([solids.surface, solids.inside])
    of_tet = solids.bone[solids.tets[:, 0]]
    for label in np.unique(solids.bone):
        own = solids.tets[of_tet == label]
        inner = np.flatnonzero((solids.bone == label) & (np.arange(len(rest)) >= n))
        outer = np.flatnonzero(solids.bone[:n] == label)
        if len(inner):
            moved = mesh.vertices[outer] - solids.surface[outer]
            corners[inner] = rest[inner] + _harmonic(rest, own, inner, outer, moved)
    quality = scaled_jacobian(corners[solids.tets])
    if len(quality) and quality.min() <= LEAST_JACOBIAN:
        worst = int(np.argmin(quality))
        bad, name = int((quality <= LEAST_JACOBIAN).sum()), bone(int(of_tet[worst])).name
        raise InputError(
            f"{bad} tetrahedra have a scaled Jacobian of {LEAST_JACOBIAN} or less, "
            f"the worst {quality[worst]:.3f} in {name}"
        )
    return _with_middles(corners, solids.bone, solids.tets, quality)


def _harmonic(
    rest: Points, tets: NDArray[np.int64], inner: NDArray[np.int64], outer: NDArray[np.int64], moved: Points
) -> Points:
    """(i, 3) displacement of interior nodes that is harmonic on the template's tetrahedra."""
    from scipy.sparse import coo_array
    from scipy.sparse.linalg import splu

    local = np.full(len(rest), -1)
    local[np.concatenate([inner, outer])] = np.arange(len(inner) + len(outer))
    own = local[tets]
    corner = rest[tets]
    edges = corner[:, 1:] - corner[:, :1]
    volume = np.linalg.det(edges) / 6
    gradient = np.linalg.inv(edges).transpose(0, 2, 1)
    gradient = np.concatenate([-gradient.sum(axis=1, keepdims=True), gradient], axis=1)
    stiff = np.einsum("tai,tbi,t->tab", gradient, gradient, volume)
    rows, columns = np.repeat(own, 4, axis=1).ravel(), np.tile(own, (1, 4)).ravel()
    size = len(inner) + len(outer)
    matrix = coo_array((stiff.ravel(), (rows, columns)), shape=(size, size)).tocsc()
    k = len(inner)
    return np.asarray(splu(matrix[:k, :k].tocsc()).solve(-(matrix[:k, k:] @ moved)), np.float64)


def scaled_jacobian(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """(T,) of tetrahedra (T, 4, 3): sqrt(2) times the least corner Jacobian over its edges' lengths (Verdict)."""

    def length(a: int, b: int) -> NDArray[np.float64]:
        return np.asarray(np.linalg.norm(corners[:, a] - corners[:, b], axis=1))

    most = np.max([np.prod([length(a, b) for b in range(4) if b != a], axis=0) for a in range(4)], axis=0)
    det = np.linalg.det(corners[:, 1:] - corners[:, :1])
    return np.asarray(np.sqrt(2) * det / np.maximum(most, 1e-30), np.float64)


def _with_middles(
    corners: Points, labels: NDArray[np.uint8], tets: NDArray[np.int64], quality: NDArray[np.float64]
) -> SolidShape:
    """The 10-node elements: middles of edges follow the corners, numbered by their ends, which the template fixes."""
    ends = np.sort(np.stack([tets[:, e] for e in EDGES], axis=1), axis=2)
    unique, inverse = np.unique(ends.reshape(-1, 2), axis=0, return_inverse=True)
    nodes = np.vstack([corners, corners[unique].mean(axis=1)])
    elements = np.hstack([tets, len(corners) + inverse.reshape(len(tets), len(EDGES))])
    return SolidShape(nodes, np.concatenate([labels, labels[unique[:, 0]]]), elements, quality)


def write_solids(solids: Solids, path: str | Path) -> Path:
    """Store as .npz."""
    path = Path(path)
    with replacing(path) as part, part.open("wb") as stream:
        arrays = {name: getattr(solids, name) for name in ("surface", "bone", "inside", "tets")}
        np.savez(stream, format=np.frombuffer(FORMAT.encode(), np.uint8), **arrays)
    return path


def read_solids(path: str | Path) -> Solids:
    """Read what :func:`write_solids` wrote."""
    try:
        with np.load(path, allow_pickle=False) as z:
            if bytes(z["format"]).decode() != FORMAT:
                raise ValueError(f"format {bytes(z['format'])!r}")
            return Solids(z["surface"], z["bone"], z["inside"], z["tets"])
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{path}: expected tetrahedra as the verb solids writes them (.npz): {error}") from error
