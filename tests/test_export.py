"""Every format is read back by a parser written here from the public description, number by number."""

import locale
import re
import struct

import numpy as np
import pytest
import trimesh

from shapemodel.export import FORMATS, DeckInfo, make_deck, part_name, write_shape
from shapemodel.export.nastran import real
from shapemodel.mesh import Mesh, join
from shapemodel.reasons import InputError

COORDINATE_MM = 1e-8 / 2 + 1e-12  # decks keep eight decimals


def thorax() -> Mesh:
    """Two ribs, a sternum and a vertebra as small solids far from the origin, with origins of the vertices."""
    solid = trimesh.creation.icosphere(1, 7.0)
    v, f = np.asarray(solid.vertices), np.asarray(solid.faces)
    m = join({k: (v + [30.0 * i - 250.123456789, 4 * i, -900 - i], f) for i, k in enumerate((6, 18, 25, 32))})
    return m.with_arrays(origin=(np.arange(len(m.vertices)) % 3).astype(np.uint8))


# ------------------------------------------------------------------ independent readers
def fixed(line: str, *widths: int) -> list[str]:
    at = np.cumsum([0, *widths])
    return [line[a:b].strip() for a, b in zip(at[:-1], at[1:], strict=True)]


def cards(text: str, mark: str) -> list[tuple[str, list[str]]]:
    """Keyword blocks of a deck with their data lines, comments dropped."""
    blocks: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith("$" if mark == "k" else "**"):
            continue
        if line.startswith("*"):
            blocks.append((line, []))
        else:
            blocks[-1][1].append(line)
    return blocks


def read_k(text: str) -> tuple[dict, dict, dict]:
    nodes, shells, parts = {}, {}, {}
    assert text.splitlines()[0] == "*KEYWORD"
    assert text.splitlines()[-1] == "*END"
    for key, lines in cards(text, "k"):
        if key == "*NODE":
            for n in lines:
                assert len(n) == 72
                i, x, y, z, _, _ = fixed(n, 8, 16, 16, 16, 8, 16)
                nodes[int(i)] = (float(x), float(y), float(z))
        elif key.startswith("*ELEMENT_SHELL"):
            step = 2 if key.endswith("THICKNESS") else 1
            for n in lines[::step]:
                e, p, a, b, c, d = map(int, fixed(n, *[8] * 6))
                assert c == d
                shells[e] = (p, (a, b, c))
        elif key == "*PART":
            parts[int(fixed(lines[1], *[10] * 8)[0])] = lines[0]
    return nodes, shells, parts


def read_inp(text: str) -> tuple[dict, dict]:
    nodes, shells = {}, {}
    for key, lines in cards(text, "inp"):
        if key == "*NODE":
            nodes = {int(a): tuple(map(float, b)) for a, *b in (n.split(",") for n in lines)}
        elif key.startswith("*ELEMENT,"):
            name = re.search("ELSET=(.*)", key).group(1)
            shells |= {int(e): (name, tuple(map(int, c))) for e, *c in (n.split(",") for n in lines)}
    return nodes, shells


def read_bdf(text: str) -> tuple[dict, dict]:
    nodes, shells = {}, {}
    lines = [n for n in text.splitlines() if not n.startswith("$")]
    assert lines[:3] == ["SOL 103", "CEND", "BEGIN BULK"]
    assert lines[-1] == "ENDDATA"
    for n, after in zip(lines, [*lines[1:], ""], strict=True):
        if n.startswith("GRID*"):
            _, i, _, x, y = fixed(n, 8, 16, 16, 16, 16)
            assert after.startswith("*       ")
            nodes[int(i)] = (float(x), float(y), float(after[8:24]))
        elif n.startswith("CTRIA3"):
            _, e, p, a, b, c, _, z = fixed(n, *[8] * 8)
            assert "." in z
            shells[int(e)] = (int(p), (int(a), int(b), int(c)))
    return nodes, shells


def assert_same(nodes: dict, shells: dict, m: Mesh) -> None:
    deck = make_deck(m)
    assert list(nodes) == deck.node_ids.tolist()
    np.testing.assert_allclose(list(nodes.values()), m.vertices, atol=COORDINATE_MM, rtol=0)
    assert sorted(shells) == deck.element_ids.tolist()
    order = np.searchsorted(deck.node_ids, [shells[e][1] for e in deck.element_ids.tolist()])
    np.testing.assert_array_equal(order, m.faces)


# ------------------------------------------------------------------ tests
@pytest.mark.parametrize("thick", [False, True])
def test_lsdyna_deck_reads_back(tmp_path, thick):
    m = thorax()
    if thick:
        m = m.with_arrays(thickness_mm=np.linspace(0.5, 1.5, len(m.vertices)))
    write_shape(m, tmp_path / "x.k", DeckInfo(title="female mean", notes=("n = 6",)))
    text = (tmp_path / "x.k").read_text()
    nodes, shells, parts = read_k(text)
    assert_same(nodes, shells, m)
    assert parts == {k * 100 + 1: part_name(k) for k in (6, 18, 25, 32)}
    assert {p for p, _ in shells.values()} == set(parts)
    assert "$ shapemodel: female mean" in text
    assert "$ n = 6" in text


def test_part_names_follow_viva():
    assert [part_name(k) for k in (6, 18, 25, 32)] == [
        "TX-Ribcage-R6-Cortical-L",
        "TX-Ribcage-R6-Cortical-R",
        "TX-Ribcage-Sternum--Cortical-M",
        "TX-Spine-T07-Cortical-M",
    ]


def test_lsdyna_reference_surface_is_the_outer_one(tmp_path):
    write_shape(thorax(), tmp_path / "x.k")
    for key, lines in cards((tmp_path / "x.k").read_text(), "k"):
        if key == "*SECTION_SHELL_TITLE":
            t1, _, _, _, nloc, *_ = map(float, fixed(lines[2], *[10] * 8))
            assert nloc == 1.0
            assert t1 in (0.75, 0.53)


def test_abaqus_deck_reads_back(tmp_path):
    m = thorax()
    write_shape(m, tmp_path / "x.inp")
    nodes, shells = read_inp((tmp_path / "x.inp").read_text())
    assert_same(nodes, shells, m)
    assert {name for name, _ in shells.values()} == {part_name(k) for k in m.labels}


@pytest.mark.parametrize("thick", [False, True])
def test_nastran_deck_reads_back(tmp_path, thick):
    m = thorax()
    if thick:
        m = m.with_arrays(thickness_mm=np.linspace(0.5, 1.5, len(m.vertices)))
    write_shape(m, tmp_path / "x.bdf")
    nodes, shells = read_bdf((tmp_path / "x.bdf").read_text())
    assert_same(nodes, shells, m)


@pytest.mark.parametrize("value", [0.0, 1.0, -0.375, 14.7, 2e-9, -2.000001e-6, 14700.0, 99999.9, 1e-3, 123456789.0])
def test_nastran_reals_fit_and_keep_their_point(value):
    text = real(value)
    assert len(text) == 8
    assert "." in text
    number = re.sub(r"(?<=[\d.])([+-]\d+)$", r"e\1", text.strip())
    assert float(number) == pytest.approx(value, rel=1e-3)


def test_numbers_depend_on_the_template_alone(tmp_path):
    m = thorax()
    moved = m.with_vertices(m.vertices * 1.07 + 3)
    first, second = write_shape(m, tmp_path / "a.k", split=True), write_shape(moved, tmp_path / "b.k", split=True)
    a, b = (p[0].read_text().replace("a_nodes.k", "").replace("b_nodes.k", "") for p in (first, second))
    assert a == b
    assert list(read_k(first[1].read_text())[0]) == list(read_k(second[1].read_text())[0])
    assert "*INCLUDE\na_nodes.k" in first[0].read_text()
    alone = make_deck(join({25: m.select(25)[:2]}))
    np.testing.assert_array_equal(alone.node_ids, make_deck(m).node_ids[m.bone == 25])


@pytest.mark.parametrize("ending", [".k", ".inp", ".bdf"])
def test_sets_name_each_bone_and_origin(tmp_path, ending):
    m = thorax()
    write_shape(m, tmp_path / f"x{ending}")
    text = (tmp_path / f"x{ending}").read_text()
    for name in ("origin_observed", "origin_extrapolated", "origin_prior"):
        assert name in text
    assert (part_name(25) if ending == ".k" else "sternum") in text


def test_locale_never_changes_a_decimal_point(tmp_path):
    before = locale.setlocale(locale.LC_NUMERIC)
    available = [n for n in ("de_DE.UTF-8", "fr_FR.UTF-8", "de_DE") if _has_locale(n)]
    write_shape(thorax(), tmp_path / "plain.k")
    try:
        for name in available:
            locale.setlocale(locale.LC_NUMERIC, name)
            write_shape(thorax(), tmp_path / "other.k")
            assert (tmp_path / "other.k").read_bytes() == (tmp_path / "plain.k").read_bytes()
    finally:
        locale.setlocale(locale.LC_NUMERIC, before)
    assert "," not in "".join(x for k, n in cards((tmp_path / "plain.k").read_text(), "k") if k == "*NODE" for x in n)


def _has_locale(name: str) -> bool:
    try:
        locale.setlocale(locale.LC_NUMERIC, name)
    except locale.Error:
        return False
    locale.setlocale(locale.LC_NUMERIC, "C")
    return True


def test_stl_ply_obj_hold_the_same_triangles(tmp_path):
    m = thorax()
    corners = m.vertices[m.faces]
    for ending in (".stl", ".ply", ".obj"):
        write_shape(m, tmp_path / f"x{ending}")
    stl = (tmp_path / "x.stl").read_bytes()
    assert struct.unpack("<I", stl[80:84])[0] == len(m.faces)
    for ending, tolerance in ((".stl", 1e-4), (".ply", 0), (".obj", COORDINATE_MM)):
        back = trimesh.load(tmp_path / f"x{ending}", process=False, force="mesh")
        np.testing.assert_allclose(np.asarray(back.vertices)[np.asarray(back.faces)], corners, atol=tolerance, rtol=0)


def test_vtu_keeps_points_and_arrays(tmp_path):
    import pyvista as pv

    m = thorax()
    write_shape(m, tmp_path / "x.vtu")
    grid = pv.read(tmp_path / "x.vtu")
    np.testing.assert_array_equal(grid.points, m.vertices)
    np.testing.assert_array_equal(grid["bone"], m.bone)
    np.testing.assert_array_equal(grid["origin"], m.arrays["origin"])


def test_what_cannot_leave_is_refused_and_nothing_is_left(tmp_path):
    m = thorax()
    with pytest.raises(InputError, match="one of"):
        write_shape(m, tmp_path / "x.step")
    with pytest.raises(InputError, match="finite"):
        write_shape(m.with_vertices(m.vertices * np.nan), tmp_path / "x.k")
    with pytest.raises(InputError, match="include"):
        write_shape(m, tmp_path / "x.stl", split=True)
    assert set(FORMATS) == {".stl", ".ply", ".obj", ".vtp", ".vtu", ".k", ".inp", ".bdf"}
    assert not list(tmp_path.iterdir())
