"""Mesh: the labelled surface of a thorax, and its exact storage as VTP.

Vertices are millimetres in LPS; faces are wound so that normals point out of the bone. STL loses the order
of vertices, so it only leaves (see :mod:`shapemodel.export`); between stages a mesh is stored as .vtp.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shapemodel.reasons import InputError

Points = NDArray[np.float64]
Faces = NDArray[np.int64]


@dataclass(frozen=True)
class Mesh:
    """Triangles of one or many bones.

    Attributes
    ----------
    vertices : (V, 3) float64, mm, LPS
    faces : (F, 3) int64, outward normals; no face joins two bones
    bone : (V,) uint8, label number of each vertex (:mod:`shapemodel.anatomy`)
    fov : (6,) xmin, xmax, ymin, ymax, zmin, zmax of the scanned volume, mm LPS; None when unknown
    arrays : further per-vertex arrays by name, each with V rows (``visible``, ``residual_mm``, ``prior`` ...)
    fields : small arrays or strings about the whole mesh by name
    """

    vertices: Points
    faces: Faces
    bone: NDArray[np.uint8]
    fov: NDArray[np.float64] | None = None
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        v = np.ascontiguousarray(self.vertices, dtype=np.float64)
        f = np.ascontiguousarray(self.faces, dtype=np.int64)
        b = np.ascontiguousarray(self.bone, dtype=np.uint8)
        if v.ndim != 2 or v.shape[1] != 3 or f.ndim != 2 or f.shape[1] != 3 or b.shape != (len(v),):
            raise ValueError(f"expected (V, 3), (F, 3), (V,), got {v.shape}, {f.shape}, {b.shape}")
        if len(f) and (f.min() < 0 or f.max() >= len(v)):
            raise ValueError(f"faces name vertices {f.min()}..{f.max()}, but there are {len(v)}")
        for name, a in self.arrays.items():
            if len(a) != len(v):
                raise ValueError(f"array {name!r} has {len(a)} rows for {len(v)} vertices")
        object.__setattr__(self, "vertices", v)
        object.__setattr__(self, "faces", f)
        object.__setattr__(self, "bone", b)
        if self.fov is not None:
            object.__setattr__(self, "fov", np.asarray(self.fov, dtype=np.float64).reshape(6))

    def with_vertices(self, vertices: Points) -> Mesh:
        """The same connectivity, bones and arrays at other positions."""
        return replace(self, vertices=vertices)

    def with_arrays(self, **arrays: NDArray[Any]) -> Mesh:
        """The same mesh with these per-vertex arrays added or replaced."""
        return replace(self, arrays={**self.arrays, **arrays})

    @property
    def labels(self) -> list[int]:
        """Label numbers present, ascending."""
        return [int(k) for k in np.unique(self.bone)]

    def select(self, label: int) -> tuple[Points, Faces, NDArray[np.int64]]:
        """Vertices (n, 3), faces (m, 3) of one bone and the (n,) indices of its vertices in the mesh."""
        ids = np.flatnonzero(self.bone == label)
        new = np.full(len(self.vertices), -1, dtype=np.int64)
        new[ids] = np.arange(len(ids))
        own = self.faces[self.bone[self.faces[:, 0]] == label] if len(self.faces) else self.faces
        return self.vertices[ids], new[own], ids


def join(parts: Mapping[int, tuple[Points, Faces]], fov: NDArray[np.float64] | None = None) -> Mesh:
    """One mesh of these bones, ``{label: (vertices, faces)}``, in ascending label order."""
    vertices, faces, bone, offset = [np.zeros((0, 3))], [np.zeros((0, 3), np.int64)], [np.zeros(0, np.uint8)], 0
    for label in sorted(parts):
        v, f = parts[label]
        vertices.append(np.asarray(v, dtype=np.float64))
        faces.append(np.asarray(f, dtype=np.int64) + offset)
        bone.append(np.full(len(v), label, dtype=np.uint8))
        offset += len(v)
    return Mesh(np.vstack(vertices), np.vstack(faces), np.concatenate(bone), fov)


def face_normals(vertices: Points, faces: Faces) -> Points:
    """(F, 3) normals times twice the area of each triangle."""
    return _rows(_face_normals(_columns(vertices), _columns(faces)))


def vertex_normals(vertices: Points, faces: Faces) -> Points:
    """(V, 3) unit normals, area weighted; zero where no face touches the vertex."""
    corners = _columns(faces)
    total = np.zeros((3, len(vertices)), vertices.dtype)
    for own, n in zip(total, _face_normals(_columns(vertices), corners), strict=True):
        for corner in corners:
            own += np.bincount(corner, n, minlength=len(vertices))
    total /= np.maximum(np.sqrt(total[0] ** 2 + total[1] ** 2 + total[2] ** 2), 1e-12)
    return _rows(total)


def _face_normals(vertices: Points, faces: Faces) -> Points:
    """The same of vertices (3, V) and faces (3, F) as (3, F): numpy is several times faster along whole columns."""
    edges = np.empty((2, 3, faces.shape[1]), vertices.dtype)
    for k, x in enumerate(vertices):
        first = x.take(faces[0])
        np.subtract(x.take(faces[1]), first, out=edges[0, k])
        np.subtract(x.take(faces[2]), first, out=edges[1, k])
    a, b = edges
    out = np.empty_like(a)
    for k, i, j in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        np.multiply(a[i], b[j], out=out[k])
        out[k] -= a[j] * b[i]
    return out


def _columns(rows: NDArray[Any]) -> NDArray[Any]:
    """(3, n) copy of (n, 3); column by column, since a copy of the transpose runs along rows of three."""
    out = np.empty((3, len(rows)), rows.dtype)
    for k in range(3):
        out[k] = rows[:, k]
    return out


def _rows(columns: NDArray[Any]) -> NDArray[Any]:
    """(n, 3) copy of (3, n)."""
    out = np.empty((columns.shape[1], 3), columns.dtype)
    for k in range(3):
        out[:, k] = columns[k]
    return out


def vertex_areas(vertices: Points, faces: Faces) -> NDArray[np.float64]:
    """(V,) mm2: a third of the area of the triangles around each vertex."""
    a = np.linalg.norm(face_normals(vertices, faces), axis=1) / 6.0
    return np.asarray(np.bincount(faces.ravel(), np.repeat(a, 3), minlength=len(vertices)), np.float64)


def volume(vertices: Points, faces: Faces) -> float:
    """mm3 enclosed by a closed surface; positive when normals point outwards."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6.0)


def write_vtp(mesh: Mesh, path: str | Path) -> Path:
    """Store a mesh exactly (vertex order, float64); written to a temporary name, then renamed."""
    import pyvista as pv

    path = Path(path)
    cells = np.column_stack([np.full(len(mesh.faces), 3, dtype=np.int64), mesh.faces]).ravel()
    poly = pv.PolyData(mesh.vertices, cells) if len(mesh.faces) else pv.PolyData(mesh.vertices)
    poly.point_data["bone"] = mesh.bone
    for name, a in mesh.arrays.items():
        poly.point_data[name] = np.asarray(a).astype(np.uint8) if np.asarray(a).dtype == bool else np.asarray(a)
    if mesh.fov is not None:
        poly.field_data["fov"] = mesh.fov
    for name, value in mesh.fields.items():
        poly.field_data[name] = [value] if isinstance(value, str) else np.atleast_1d(value)
    part = path.with_name(f".{path.stem}.{os.getpid()}.part.vtp")
    try:
        part.write_bytes(_vtp_bytes(poly))
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _vtp_bytes(poly: Any) -> bytes:
    """The file in memory: VTK itself crashes when the disk is full, Python says so."""
    from vtkmodules.vtkIOXML import vtkXMLPolyDataWriter

    writer = vtkXMLPolyDataWriter()
    writer.SetInputData(poly)
    writer.SetDataModeToBinary()
    writer.WriteToOutputStringOn()
    if not writer.Write():
        raise RuntimeError("VTK could not write the mesh")
    return str(writer.GetOutputString()).encode("ascii")


def read_vtp(path: str | Path) -> Mesh:
    """Read a mesh written by :func:`write_vtp`, or any .vtp with a point array ``bone``."""
    import pyvista as pv

    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.suffix.lower() != ".vtp":
        raise InputError(f"{path}: expected a .vtp (STL and decks lose the vertex order and never return)")
    poly = pv.read(path)
    if "bone" not in poly.point_data:
        raise InputError(f"{path}: expected a point array 'bone' with label numbers, found {list(poly.point_data)}")
    faces = np.asarray(poly.faces).reshape(-1, 4)[:, 1:] if poly.n_cells and poly.faces.size else np.zeros((0, 3))
    arrays = {k: np.asarray(poly.point_data[k]) for k in poly.point_data if k != "bone"}
    for name in BOOLEAN_ARRAYS & arrays.keys():
        arrays[name] = arrays[name].astype(bool)
    fields: dict[str, Any] = {}
    for k in poly.field_data:
        if k != "fov":
            a = np.asarray(poly.field_data[k])
            fields[k] = str(a[0]) if a.dtype.kind in "US" and a.size == 1 else a
    fov = np.asarray(poly.field_data["fov"]) if "fov" in poly.field_data else None
    return Mesh(
        np.asarray(poly.points, np.float64), faces.astype(np.int64), np.asarray(poly["bone"]), fov, arrays, fields
    )


BOOLEAN_ARRAYS = frozenset({"visible", "prior", "open"})
"""Per-vertex arrays that are yes or no; VTK stores them as bytes."""
