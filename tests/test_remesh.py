"""Remeshing, joint gaps, contact and repair on shapes whose answer is known."""

from __future__ import annotations

import gpytoolbox
import numpy as np
import pytest

from shapemodel.carve import CarveSettings, Solid, carve
from shapemodel.contact import separate
from shapemodel.intersections import find_intersections
from shapemodel.mesh import join, volume
from shapemodel.meshquality import SHAPE_GATE, TEMPLATE_GATE, assess, triangle_metrics
from shapemodel.reasons import StudyError
from shapemodel.remesh import RemeshSettings, edge_for_vertices, remesh, remesh_bones
from shapemodel.repair import heal, repair
from shapemodel.sliding import improve, project


def ellipsoid(axes: tuple[float, float, float], at: tuple[float, float, float] = (0, 0, 0), level: int = 4):
    v, f = gpytoolbox.icosphere(level)
    return v * axes + at, f.astype(np.int64)


def test_uniform_triangles_of_the_same_volume() -> None:
    """A long thin ellipsoid, 30 x 9 x 6 mm: edges as asked, angles of a template, volume to 0.1 per cent."""
    v, f = ellipsoid((30, 9, 6))
    u, g = remesh(v, f, settings=RemeshSettings(edge_mm=2.5, tip_edge_mm=2.5))
    m = triangle_metrics(u, g)
    assert m["edge_mean"].mean() == pytest.approx(2.5, rel=0.1)
    assert m["min_angle"].min() > TEMPLATE_GATE.min_angle_hard
    assert np.percentile(m["min_angle"], 1) > TEMPLATE_GATE.min_angle_target
    assert volume(u, g) == pytest.approx(volume(v, f), rel=1e-3)
    # a chord of 2.5 mm on the smallest radius (1.2 mm, at the tips) is off by at most a third of a millimetre
    assert np.linalg.norm(project(u, v, f) - u, axis=1).max() < 0.35
    assert assess(join({5: (u, g)}), TEMPLATE_GATE).passed


def test_thin_ends_get_shorter_edges_and_lose_less() -> None:
    v, f = ellipsoid((40, 8, 3), level=5)
    loss = []
    for tip in (3.0, 2.0):
        u, g = remesh(v, f, settings=RemeshSettings(tip_edge_mm=tip))
        loss.append(np.sqrt(gpytoolbox.squared_distance(v, u, F=g.astype(np.int32), use_cpp=True)[0]).max())
        assert triangle_metrics(u, g)["min_angle"].min() > TEMPLATE_GATE.min_angle_hard
    assert loss[1] < 0.8 * loss[0]


def test_open_surface_is_refused() -> None:
    v, f = ellipsoid((10, 10, 10), level=2)
    with pytest.raises(StudyError, match="closed manifold") as caught:
        remesh(v, f[3:])
    assert caught.value.code == "bad_surface"


def test_edge_length_for_a_number_of_vertices() -> None:
    parts = {5: ellipsoid((30, 9, 6))}
    edge = edge_for_vertices(parts, 600)
    u, _ = remesh(*parts[5], settings=RemeshSettings(edge_mm=edge, tip_edge_mm=edge))
    assert len(u) == pytest.approx(600, rel=0.1)


def test_carving_parts_two_solids_half_way() -> None:
    """Spheres of 12 mm, 20 mm apart: they overlap by 4 mm and part at the plane between them, 0.6 mm apart."""
    parts = {3: ellipsoid((12, 12, 12), level=4), 15: ellipsoid((12, 12, 12), (20, 0, 0), level=4)}
    parts[25] = ellipsoid((5, 5, 5), (0, 40, 0), level=3)
    out = carve(parts, settings=CarveSettings(grid_mm=0.8))
    assert out[25][0] is parts[25][0]  # far from the others: unchanged
    assert len(find_intersections(join(out)).pairs) == 0
    assert out[3][0][:, 0].max() == pytest.approx(9.7, abs=0.1)
    assert out[15][0][:, 0].min() == pytest.approx(10.3, abs=0.1)
    cap = np.pi * 2.3**2 * (36 - 2.3) / 3  # volume of the cap of height 12 - 9.7 mm
    assert volume(*out[3]) == pytest.approx(volume(*parts[3]) - cap, rel=0.005)


def test_remeshed_neighbours_do_not_touch() -> None:
    parts = {3: ellipsoid((20, 8, 8), level=4), 4: ellipsoid((20, 8, 8), (0, 0, 14), level=4)}
    mesh = remesh_bones(parts, settings=RemeshSettings(tip_edge_mm=3.0))
    assert assess(mesh, TEMPLATE_GATE).failures == ()
    gap = -Solid(*mesh.select(3)[:2]).inside(mesh.select(4)[0])
    assert gap.min() > 0.2  # 0.6 mm of the carving less the volume correction of both, 0.1 mm each


def test_contact_pushes_small_penetrations_out() -> None:
    parts = {3: ellipsoid((12, 12, 12), level=4), 15: ellipsoid((12, 12, 12), (23, 0, 0), level=4)}
    done = separate(join(parts))
    assert len(done.before.pairs) > 20
    assert len(done.after.pairs) == 0
    assert done.moved_mm.max() < 1.5  # each gives way by half of the 1 mm, and a little for the clearance
    far = np.abs(done.mesh.vertices[:, 0] - 11.5) > 8
    assert done.moved_mm[far].max() == 0


def test_repair_improves_angles_and_stays_on_the_surface() -> None:
    """A mesh stretched and roughened until triangles fail is brought back above the limits of a shape."""
    u, g = remesh(*ellipsoid((30, 9, 9), level=4), settings=RemeshSettings(tip_edge_mm=3.0))
    mesh = join({5: (u * [1.25, 1, 0.8] + np.random.default_rng(1).normal(0, 0.35, u.shape), g)})
    before = assess(mesh, SHAPE_GATE)
    done = repair(mesh, SHAPE_GATE)
    after = assess(done.mesh, SHAPE_GATE)
    assert before.whole.min_angle < SHAPE_GATE.min_angle_hard
    assert after.passed, after.failures
    assert after.whole.min_angle > before.whole.min_angle + 3
    onto = project(done.mesh.vertices, mesh.vertices, mesh.faces)
    assert np.linalg.norm(onto - done.mesh.vertices, axis=1).max() < 1e-6
    assert done.off_surface_mm.max() < 1.05  # peaks of the roughness (3 SD of 0.35 mm) lose the vertex on them
    assert (done.mesh.faces == mesh.faces).all()


def test_repair_unfolds_a_flipped_triangle() -> None:
    u, g = remesh(*ellipsoid((20, 12, 12), level=4), settings=RemeshSettings(tip_edge_mm=3.0))
    i = int(np.argmin(np.linalg.norm(u - [0, 12, 0], axis=1)))
    ring = np.unique(g[(g == i).any(axis=1)])
    folded = u.copy()
    folded[i] += 1.3 * (u[ring[ring != i][0]] - u[i])  # beyond a neighbour: triangles around it turn over
    mesh = join({5: (folded, g)})
    assert len(find_intersections(mesh).pairs) or triangle_metrics(folded, g)["min_angle"].min() < 15
    better = improve(folded, g, 27.0, surface=(u, g))
    assert triangle_metrics(better, g)["min_angle"].min() > 27
    assert len(find_intersections(mesh.with_vertices(better)).pairs) == 0


def test_repair_takes_back_what_would_cut() -> None:
    """Two surfaces a hair apart: sliding on the chords must not push one through the other."""
    u, g = remesh(*ellipsoid((20, 10, 10), level=4), settings=RemeshSettings(tip_edge_mm=3.0))
    stretch = [1.3, 1.0, 0.8]
    low, high = u * stretch, u * stretch + [1.1, 0.7, 2 * 10 * 0.8 + 0.02]
    mesh = join({3: (low, g), 4: (high, g)})
    assert len(find_intersections(mesh).pairs) == 0
    assert len(find_intersections(repair(mesh, TEMPLATE_GATE).mesh).pairs) == 0


def test_nothing_bad_nothing_moves() -> None:
    mesh = join({5: ellipsoid((10, 10, 10), level=3)})
    assert repair(mesh, SHAPE_GATE).slid_mm.max() == 0


def test_heal_brings_a_shape_through_the_gate() -> None:
    """Neighbours squeezed into each other by half a millimetre and stretched: apart again, angles within limits."""
    u, g = remesh(*ellipsoid((20, 10, 10)), settings=RemeshSettings(tip_edge_mm=3.0))
    stretch = np.array([1.25, 1.0, 0.8])
    mesh = join({3: (u * stretch, g), 4: (u * stretch + [1.1, 0.7, 2 * 10 * 0.8 - 0.5], g)})
    assert len(assess(mesh, SHAPE_GATE).intersections.pairs) > 0
    done = heal(mesh, SHAPE_GATE)
    assert assess(done.mesh, SHAPE_GATE).failures == ()
    assert done.off_surface_mm.max() < 1.5
    assert np.median(done.slid_mm) < 0.05  # far from the contact nothing moves
