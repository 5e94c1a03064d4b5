"""Quality criteria against hand-computed triangles, and the detector against an independent test."""

from __future__ import annotations

import gpytoolbox
import numpy as np
import pytest

from shapemodel import intersections
from shapemodel.intersections import find_intersections, intersecting_pairs
from shapemodel.mesh import Mesh, join
from shapemodel.meshquality import SHAPE_GATE, TEMPLATE_GATE, Material, assess, open_edges, table_text, triangle_metrics


def sphere(centre: tuple[float, float, float], radius: float, level: int = 3) -> tuple[np.ndarray, np.ndarray]:
    import gpytoolbox

    v, f = gpytoolbox.icosphere(level)
    return v * radius + centre, f.astype(np.int64)


def test_equilateral_and_right_triangle() -> None:
    v = np.array([[0, 0, 0], [3, 0, 0], [1.5, 1.5 * 3**0.5, 0], [0, 4, 0]], float)
    m = triangle_metrics(v, np.array([[0, 1, 2], [0, 1, 3]]))
    assert m["min_angle"][0] == pytest.approx(60)
    assert m["aspect_ratio"][0] == pytest.approx(1)
    assert m["scaled_jacobian"][0] == pytest.approx(1)
    # 3-4-5: angles 36.87, 53.13, 90; aspect 5 * 12 / (4 sqrt(3) * 6); scaled Jacobian 2/sqrt(3) * sin(36.87 deg)
    assert m["min_angle"][1] == pytest.approx(36.8699, abs=1e-3)
    assert m["max_angle"][1] == pytest.approx(90)
    assert m["edge_ratio"][1] == pytest.approx(5 / 3)
    assert m["aspect_ratio"][1] == pytest.approx(60 / (24 * 3**0.5))
    assert m["scaled_jacobian"][1] == pytest.approx(2 / 3**0.5 * 0.6)
    assert m["height_min"][1] == pytest.approx(2.4)


def test_time_step_of_the_declared_material() -> None:
    """Cortical bone of VIVA+: 2842 m/s; an equilateral triangle of 3 mm has a height of 2.598 mm: 0.823 us."""
    assert Material().wave_speed == pytest.approx(2842, abs=1)
    v = np.array([[0, 0, 0], [3, 0, 0], [1.5, 1.5 * 3**0.5, 0]])
    mesh = Mesh(v, np.array([[0, 1, 2], [0, 2, 1]]), np.ones(3, np.uint8))
    assert assess(mesh, SHAPE_GATE).whole.time_step_us == pytest.approx(0.9 * 2.598 / 2842 * 1e3, rel=1e-3)


def test_gate_names_part_criterion_and_place() -> None:
    good = join({3: sphere((0, 0, 0), 12), 15: sphere((40, 0, 0), 12)})
    assert assess(good, TEMPLATE_GATE).passed
    flat = good.with_vertices(np.where((good.bone == 15)[:, None], good.vertices * [1, 1, 0.2], good.vertices))
    failures = assess(flat, TEMPLATE_GATE).failures
    assert any("rib_right_03" in f and "min angle" in f for f in failures)
    assert not any("rib_left_03" in f for f in failures)
    cut = join({3: sphere((0, 0, 0), 12), 15: sphere((20, 0, 0), 12)})
    verdict = assess(cut, TEMPLATE_GATE)
    assert verdict.intersections.between == len(verdict.intersections.pairs) > 20
    assert "rib_left_03 / rib_right_03 at (" in verdict.failures[-1]
    assert "FAILED" in table_text(verdict)
    assert table_text(assess(good, TEMPLATE_GATE)).endswith("passed")
    assert np.abs(verdict.intersections.places[:, 0] - 10).max() < 3  # the circle where the spheres meet


def test_open_and_doubly_used_edges() -> None:
    _, f = sphere((0, 0, 0), 10, 1)
    assert open_edges(f) == 0
    assert open_edges(f[1:]) == 3
    assert open_edges(np.vstack([f, f[:1]])) > 0


def test_wrong_topology_fails_a_template() -> None:
    import gpytoolbox

    v, f = gpytoolbox.torus(48, 24, R=1.0, r=0.4)
    mesh = Mesh(v * 20, f.astype(np.int64), np.full(len(v), 5, np.uint8))
    assert any("Euler number 0, expected 2" in x for x in assess(mesh, TEMPLATE_GATE).failures)


def separated(a: np.ndarray, b: np.ndarray) -> bool:
    """Separating axis theorem for two triangles (3, 3), in general position."""
    na, nb = np.cross(a[1] - a[0], a[2] - a[0]), np.cross(b[1] - b[0], b[2] - b[0])
    ea, eb = a[[1, 2, 0]] - a, b[[1, 2, 0]] - b
    axes = [na, nb, *(np.cross(x, y) for x in ea for y in eb)]
    return any((a @ x).max() < (b @ x).min() or (b @ x).max() < (a @ x).min() for x in axes)


def test_detector_agrees_with_the_separating_axis_theorem() -> None:
    rng = np.random.default_rng(7)
    size = np.where(rng.random(60) < 0.2, 4.0, 0.8)
    soup = rng.uniform(0, 5, (60, 1, 3)) + size[:, None, None] * rng.normal(size=(60, 3, 3))
    faces = np.arange(180).reshape(60, 3)
    truth = [(i, j) for i in range(60) for j in range(i + 1, 60) if not separated(soup[i], soup[j])]
    assert len(truth) > 40
    assert intersecting_pairs(soup.reshape(-1, 3), faces).tolist() == [list(p) for p in truth]


def test_detector_at_shared_vertices_and_edges() -> None:
    v = np.array([[0, 0, 0], [2, 0, 0], [0, 2, 0], [1, 1, -1], [1, 1, 1], [-1, -1, 1], [0.6, 0.6, 0]], float)
    assert len(intersecting_pairs(v, np.array([[0, 1, 2], [0, 4, 5]]))) == 0
    assert len(intersecting_pairs(v, np.array([[0, 1, 2], [0, 3, 4]]))) == 1
    assert len(intersecting_pairs(v, np.array([[0, 1, 2], [1, 0, 4]]))) == 0
    folded = np.array([[0, 1, 2], [1, 0, 6]])
    assert len(intersecting_pairs(v, folded)) == 1
    flat = np.array([[0, 0, 0], [2, 0, 0], [0, 2, 0], [0.3, 0.3, 0], [2.3, 0.3, 0], [0.3, 2.3, 0]], float)
    assert len(intersecting_pairs(flat, np.array([[0, 1, 2], [3, 4, 5]]))) == 1
    assert (
        len(intersecting_pairs(flat + np.repeat([[0, 0, 0], [5, 0, 0]], 3, axis=0), np.array([[0, 1, 2], [3, 4, 5]])))
        == 0
    )


def test_the_quick_look_at_planes_leaves_out_no_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neighbours that share a vertex are first asked on which side of each other's plane they lie."""
    v, f = sphere((0, 0, 0), 20)
    v = v + np.random.default_rng(3).normal(0, 1.5, v.shape)  # edges are 3 mm: many neighbours cut
    quick = intersecting_pairs(v, f)
    monkeypatch.setattr(intersections, "_may_cross", lambda _v, _f, pairs: np.ones(len(pairs), bool))
    slow = intersecting_pairs(v, f)
    assert len(slow) > 50
    np.testing.assert_array_equal(quick, slow)


def test_clean_surface_has_none() -> None:
    mesh = join({3: sphere((0, 0, 0), 12, 4)})
    found = find_intersections(mesh)
    assert len(found.pairs) == 0
    assert found.describe().startswith("no intersecting")


def test_leaving_out_triangles_that_lie_beside_each_other_leaves_out_no_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """On smooth, rough, folded and open surfaces the same pairs are found as when every pair is tested."""
    v, f = gpytoolbox.icosphere(3)
    rng = np.random.default_rng(4)
    tip = v[:, 2] > 0.8
    shapes = [v, v + 0.08 * rng.normal(size=v.shape), np.where(tip[:, None], v * [1, 1, 0.2], v), v * [1, 1, -1]]
    shapes.append(np.where(tip[:, None], v[:, [1, 0, 2]], v))
    parts = [f.astype(np.int64), np.sort(rng.choice(len(f), 700, replace=False))]
    parts[1] = parts[0][parts[1]]
    quick = [intersections.intersecting_pairs(x, own) for x in shapes for own in parts]
    beside = [intersections._side_by_side(x, parts[0]).mean() for x in shapes]
    monkeypatch.setattr(intersections, "_side_by_side", lambda _, faces: np.zeros(len(faces), bool))
    for found, x_own in zip(quick, [(x, own) for x in shapes for own in parts], strict=True):
        np.testing.assert_array_equal(found, intersections.intersecting_pairs(*x_own))
    assert beside[0] == 1.0
    assert max(len(found) for found in quick) > 100
    assert min(beside[1:]) < 0.9
