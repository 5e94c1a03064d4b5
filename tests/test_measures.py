"""Measures: shapes of known length, angle and volume are measured right, on everybody by the same vertices."""

from __future__ import annotations

import numpy as np
import pytest

from shapemodel.measures import landmarks_of, measure, measure_group
from shapemodel.mesh import Mesh, join
from tests.test_symmetry import tube

RADIUS = 6.0


def block(centre: np.ndarray, tilt_deg: float) -> tuple[np.ndarray, np.ndarray]:
    """A vertebra: a finely meshed box 30 x 60 x 20 mm, tilted about the x axis; end plates are flat."""
    import pyvista as pv

    box = pv.Box((-15, 15, -30, 30, -10, 10), level=8).triangulate().clean()
    angle = np.radians(tilt_deg)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    faces = np.asarray(box.faces).reshape(-1, 4)[:, 1:]
    return np.asarray(box.points, float) @ turn.T + centre, faces


@pytest.fixture(scope="module")
def thorax() -> Mesh:
    """A rib that is a half circle of radius 100 inclined by 30 degrees, and a column of tilted blocks."""
    t = np.linspace(0, np.pi, 120)
    down = np.tan(np.radians(30)) * (100 - 100 * np.cos(t))
    rib = tube(np.c_[100 * np.sin(t), 100 * np.cos(t), -down], RADIUS, 16)
    parts = {6: rib}
    for level in range(1, 13):
        parts[25 + level] = block(np.array([0, 130.0, 100 - 26.0 * level]), 30 - 4.0 * level)
    parts[25] = tube(np.c_[np.zeros(60), np.full(60, -110.0), np.linspace(50, -130, 60)], 9.0, 12)
    return join(parts)


def test_known_lengths_angles_volumes(thorax) -> None:
    got = measure(thorax, landmarks_of(thorax))
    t = np.linspace(0, np.pi, 5000)
    arc = np.c_[100 * np.sin(t), 100 * np.cos(t), -np.tan(np.radians(30)) * (100 - 100 * np.cos(t))]
    known = np.linalg.norm(np.diff(arc, axis=0), axis=1).sum()
    assert got["rib_left_06_length_mm"] == pytest.approx(known, rel=0.02)  # end rings hold the caps
    assert got["rib_left_06_inclination_deg"] == pytest.approx(30, abs=1.5)
    assert got["rib_left_06_volume_ml"] == pytest.approx(np.pi * RADIUS**2 * known / 1000, rel=0.05)
    assert got["sternum_length_mm"] == pytest.approx(180, rel=0.01)
    assert got["vertebra_T06_volume_ml"] == pytest.approx(36, rel=1e-6)
    assert got["kyphosis_T05_T12_deg"] == pytest.approx(4.0 * 7, abs=0.5)
    assert got["kyphosis_T01_T12_deg"] == pytest.approx(4.0 * 11, abs=0.5)
    assert got["cage_width_mm"] == pytest.approx(100 + RADIUS, abs=1.5)


def test_measures_move_with_the_shape_and_not_with_its_frame(thorax) -> None:
    marks = landmarks_of(thorax)
    base, grown = measure(thorax, marks), measure(thorax.with_vertices(thorax.vertices * 1.1), marks)
    moved = measure(thorax.with_vertices(thorax.vertices + [30, -20, 500.0]), marks)
    for name, value in base.items():
        power = {"mm": 1, "deg": 0, "ml": 3}[name.rsplit("_", 1)[1]]
        assert grown[name] == pytest.approx(value * 1.1**power, rel=1e-6)
        assert moved[name] == pytest.approx(value, abs=1e-6)


def test_group_spread_counts_only_what_was_seen(thorax) -> None:
    shapes = np.stack([thorax.vertices * s for s in (0.9, 1.0, 1.1)])
    visible = np.ones((3, len(thorax.vertices)), bool)
    visible[0, thorax.bone == 6] = False
    table = {s.name: s for s in measure_group(shapes, thorax, landmarks_of(thorax), visible)}
    assert (table["rib_left_06_length_mm"].n, table["sternum_length_mm"].n, table["cage_width_mm"].n) == (2, 3, 2)
    assert table["sternum_length_mm"].sd == pytest.approx(0.1 * table["sternum_length_mm"].mean, rel=1e-6)
