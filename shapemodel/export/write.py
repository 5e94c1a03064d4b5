"""One call for every format: the ending of the file name decides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np

from shapemodel.anatomy import bone
from shapemodel.export import abaqus, lsdyna, nastran
from shapemodel.export.deck import DeckInfo, make_deck
from shapemodel.files import replacing
from shapemodel.mesh import Mesh, write_vtp
from shapemodel.reasons import InputError

DECKS: dict[str, ModuleType] = {".k": lsdyna, ".inp": abaqus, ".bdf": nastran}
"""Endings of finite-element decks, and what writes them."""


def write_shape(mesh: Mesh, path: str | Path, info: DeckInfo | None = None, *, split: bool = False) -> list[Path]:
    """Write a shape in the format of the file's ending (:data:`FORMATS`).

    Parameters
    ----------
    mesh : the shape, mm, LPS
    path : where to; decks are ``.k`` (LS-DYNA), ``.inp`` (Abaqus, CalculiX), ``.bdf`` (Nastran)
    info : what a deck's header says
    split : decks only: put the nodes into ``<name>_nodes<ending>``, which the deck includes, so that one file
        swaps one percentile for another

    Returns
    -------
    the files written

    Raises
    ------
    InputError
        for an ending that is not known, or a shape that cannot be numbered
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending not in FORMATS:
        raise InputError(f"{path}: expected a file name ending in one of {', '.join(FORMATS)}")
    if ending not in DECKS:
        if split:
            raise InputError(f"{path}: only decks ({', '.join(DECKS)}) can leave their nodes to an include")
        with replacing(path) as part:
            _SURFACES[ending](mesh, part)
        return [path]
    writer, deck = DECKS[ending], make_deck(mesh, info)
    nodes = path.with_name(f"{path.stem}_nodes{ending}")
    if split:
        _write_text(nodes, writer.nodes_text(deck))
    _write_text(path, writer.deck_text(deck, include=nodes.name if split else None))
    return [path, nodes] if split else [path]


def _write_text(path: Path, text: str) -> None:
    with replacing(path) as part:
        part.write_text(text, encoding="ascii", newline="\n")


def _write_stl(mesh: Mesh, path: Path) -> None:
    """Binary STL of all bones; the format knows triangles only."""
    corner = mesh.vertices[mesh.faces]
    normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-30)
    record = np.zeros(len(corner), dtype=[("normal", "<f4", 3), ("corner", "<f4", (3, 3)), ("pad", "<u2")])
    record["normal"], record["corner"] = normal, corner
    head = b"shapemodel thorax, mm, LPS".ljust(80)
    path.write_bytes(head + np.uint32(len(record)).astype("<u4").tobytes() + record.tobytes())


def _write_ply(mesh: Mesh, path: Path) -> None:
    """Binary PLY with the colour and the label number of each vertex."""
    vertex = np.zeros(
        len(mesh.vertices),
        dtype=[("xyz", "<f8", 3), ("rgb", "u1", 3), ("bone", "u1")],
    )
    vertex["xyz"], vertex["bone"] = mesh.vertices, mesh.bone
    for k in mesh.labels:
        vertex["rgb"][mesh.bone == k] = bone(k).color
    face = np.zeros(len(mesh.faces), dtype=[("n", "u1"), ("ids", "<i4", 3)])
    face["n"], face["ids"] = 3, mesh.faces
    head = (
        "ply\nformat binary_little_endian 1.0\ncomment shapemodel thorax, mm, LPS\n"
        f"element vertex {len(vertex)}\nproperty double x\nproperty double y\nproperty double z\n"
        "property uchar red\nproperty uchar green\nproperty uchar blue\nproperty uchar bone\n"
        f"element face {len(face)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    path.write_bytes(head.encode("ascii") + vertex.tobytes() + face.tobytes())


def _write_obj(mesh: Mesh, path: Path) -> None:
    """Wavefront OBJ, one group a bone."""
    lines = ["# shapemodel thorax, mm, LPS", *(f"v {x:.8f} {y:.8f} {z:.8f}" for x, y, z in mesh.vertices.tolist())]
    face_bone = mesh.bone[mesh.faces[:, 0]] if len(mesh.faces) else np.zeros(0, np.uint8)
    for k in mesh.labels:
        lines.append(f"g {bone(k).name}")
        lines += [f"f {a} {b} {c}" for a, b, c in (mesh.faces[face_bone == k] + 1).tolist()]
    path.write_text("\n".join([*lines, ""]), encoding="ascii", newline="\n")


def _write_vtu(mesh: Mesh, path: Path) -> None:
    """VTK unstructured grid of triangles with all point arrays."""
    import pyvista as pv

    grid = pv.UnstructuredGrid({int(pv.CellType.TRIANGLE): mesh.faces}, mesh.vertices)
    grid.point_data["bone"] = mesh.bone
    for name, a in mesh.arrays.items():
        grid.point_data[name] = a.astype(np.uint8) if a.dtype == bool else a
    grid.save(path)


def _write_vtp(mesh: Mesh, path: Path) -> None:
    write_vtp(mesh, path)


_SURFACES: dict[str, Callable[[Mesh, Path], None]] = {
    ".stl": _write_stl,
    ".ply": _write_ply,
    ".obj": _write_obj,
    ".vtp": _write_vtp,
    ".vtu": _write_vtu,
}

FORMATS: tuple[str, ...] = (*_SURFACES, *DECKS)
"""Endings that :func:`write_shape` knows."""
