"""Solid bones: made with the surface's nodes kept, moved with shapes, refused when an element would turn inside out."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from shapemodel.export import DeckInfo, make_deck
from shapemodel.export.solid_decks import make_solid_deck, write_solid_deck
from shapemodel.mesh import Mesh, join, volume
from shapemodel.reasons import InputError
from shapemodel.solids import EDGES, Solids, carry, fill, read_solids, scaled_jacobian, write_solids


def cube() -> tuple[Mesh, Solids]:
    """A cube of 10 mm of 12 triangles, filled with 12 tetrahedra around its middle: no mesher needed."""
    v = np.array([[x, y, z] for x in (0, 10) for y in (0, 10) for z in (0, 10)], float)
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    f = np.array([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))])
    tets = np.column_stack([f[:, [0, 2, 1]], np.full(12, 8)])
    corner = np.vstack([v, [[5.0, 5, 5]]])[tets]
    wrong = np.linalg.det(corner[:, 1:] - corner[:, :1]) < 0
    tets[wrong] = tets[wrong][:, [0, 2, 1, 3]]
    mesh = join({6: (v, f)})
    return mesh, Solids(mesh.vertices, np.full(9, 6, np.uint8), np.array([[5.0, 5, 5]]), tets)


def test_a_regular_tetrahedron_has_quality_one() -> None:
    regular = np.array([[[1, 1, 1], [-1, 1, -1], [1, -1, -1], [-1, -1, 1]]], float)
    quality = scaled_jacobian(regular)
    assert abs(quality[0]) == pytest.approx(1)
    assert scaled_jacobian(regular[:, [0, 2, 1, 3]])[0] == pytest.approx(-quality[0])


def test_interior_nodes_follow_an_affine_map_exactly() -> None:
    """A harmonic map of an affine motion is that motion; volumes scale by its determinant."""
    mesh, solids = cube()
    matrix, shift = np.array([[1.2, 0.1, 0], [0, 0.9, 0.2], [0.1, 0, 1.1]]), np.array([3.0, -2, 50])
    shape = carry(solids, mesh.with_vertices(mesh.vertices @ matrix.T + shift))
    np.testing.assert_allclose(shape.nodes[8], matrix @ [5, 5, 5] + shift, atol=1e-9)
    corner = shape.nodes[shape.elements[:, :4]]
    whole = np.linalg.det(corner[:, 1:] - corner[:, :1]).sum() / 6
    assert whole == pytest.approx(1000 * np.linalg.det(matrix))


def test_middles_lie_between_their_corners_and_are_shared() -> None:
    mesh, solids = cube()
    shape = carry(solids, mesh)
    for k, (a, b) in enumerate(EDGES):
        middle = (shape.nodes[shape.elements[:, a]] + shape.nodes[shape.elements[:, b]]) / 2
        np.testing.assert_allclose(shape.nodes[shape.elements[:, 4 + k]], middle)
    assert len(shape.nodes) == 9 + 18 + 8  # corners, edges of the surface, edges to the middle


def test_an_inverted_element_is_refused_with_its_bone() -> None:
    mesh, solids = cube()
    with pytest.raises(InputError, match="rib_left_06"):
        carry(solids, mesh.with_vertices(mesh.vertices * [-1, 1, 1]))
    with pytest.raises(InputError, match="not of this shape"):
        carry(solids, Mesh(mesh.vertices[:-1], mesh.faces[:1], mesh.bone[:-1]))


def test_stored_and_read_again(tmp_path: Path) -> None:
    solids = cube()[1]
    again = read_solids(write_solids(solids, tmp_path / "s.npz"))
    np.testing.assert_array_equal(again.tets, solids.tets)
    (tmp_path / "x.npz").write_bytes(b"no")
    with pytest.raises(InputError, match="expected tetrahedra"):
        read_solids(tmp_path / "x.npz")


def test_numbers_are_those_of_the_shells_and_of_the_template_alone() -> None:
    mesh, solids = cube()
    a, b = (make_solid_deck(carry(solids, mesh.with_vertices(mesh.vertices * k))) for k in (1.0, 1.3))
    np.testing.assert_array_equal(a.node_ids[:8], make_deck(mesh).node_ids)
    for name in ("node_ids", "element_ids", "elements", "element_pid"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert a.parts == ((6, 602, "TX-Ribcage-R6-Solid-L"),)


def test_the_decks_by_the_public_card_descriptions(tmp_path: Path) -> None:
    """Fixed fields are read back by their columns; the ten nodes of an element are the same in all three."""
    mesh, solids = cube()
    shape = carry(solids, mesh)
    deck = make_solid_deck(shape)
    k, inp, bdf = (write_solid_deck(shape, tmp_path / f"x{e}").read_text().splitlines() for e in (".k", ".inp", ".bdf"))
    first = deck.elements[0].tolist()
    at = k.index("*ELEMENT_SOLID")
    assert [int(k[at + 1][i : i + 8]) for i in (0, 8)] == [deck.element_ids[0], 602]
    assert [int(k[at + 2][i : i + 8]) for i in range(0, 80, 8)] == first
    row = inp[next(i for i, t in enumerate(inp) if t.startswith("*ELEMENT, TYPE=C3D10")) + 1]
    assert list(map(int, row.split(",")))[1:] == first
    at = next(i for i, t in enumerate(bdf) if t.startswith("CTETRA"))
    both = [bdf[at][i : i + 8] for i in range(24, 72, 8)] + [bdf[at + 1][i : i + 8] for i in range(8, 40, 8)]
    assert list(map(int, both)) == first
    with pytest.raises(InputError, match="decks"):
        write_solid_deck(shape, tmp_path / "x.stl")


def test_without_the_mesher_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gmsh", None)
    with pytest.raises(InputError, match=r"shapemodel\[solids\]"):
        fill(cube()[0])


def rib() -> Mesh:
    """The left sixth rib of the mean phantom, meshed as a template is."""
    from shapemodel.phantom.shape import surface
    from shapemodel.phantom.subject import mean_subject
    from shapemodel.remesh import remesh

    v, f, _ = surface(mean_subject()).select(6)
    return join({6: remesh(v, f)})


def test_a_rib_is_filled_with_its_surface_kept_and_solved(tmp_path: Path) -> None:
    """Volume of the tetrahedra is the surface's; bent by 40 mm it stays valid; free it has six zero modes."""
    pytest.importorskip("gmsh", reason="no gmsh (GPL, an extra)")
    mesh = rib()
    solids = fill(mesh)
    shape = carry(solids, mesh)
    corner = shape.nodes[shape.elements[:, :4]]
    whole = np.linalg.det(corner[:, 1:] - corner[:, :1]).sum() / 6
    assert whole == pytest.approx(volume(mesh.vertices, mesh.faces), rel=1e-6)
    assert shape.quality.min() > 0.1
    bent = mesh.vertices.copy()
    bent[:, 2] += 40 * ((bent[:, 1] - bent[:, 1].min()) / np.ptp(bent[:, 1])) ** 2
    bent *= [1.08, 1.0, 0.95]
    assert carry(solids, mesh.with_vertices(bent)).quality.min() > 0.05
    if shutil.which("ccx") is None:
        pytest.skip("no CalculiX (Debian: calculix-ccx): filled and moved, not solved")
    path = write_solid_deck(shape, tmp_path / "x.inp", DeckInfo(units="mm-t-s"))
    with path.open("a") as f:
        f.write("*STEP\n*FREQUENCY\n9\n*END STEP\n")
    run = subprocess.run(["ccx", "-i", "x"], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stdout[-2000:]
    text = (tmp_path / "x.dat").read_text().split("P A R T I C")[0]
    hz = [float(r[2]) for r in re.findall(r"^ +\d+ +(\S+) +(\S+) +(\S+) +(\S+)$", text, re.M)]
    assert max(hz[:6]) < 1.0
    assert hz[6] > 20.0
