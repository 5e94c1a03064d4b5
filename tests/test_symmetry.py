"""Symmetry: a known symmetric shape, made asymmetric in a known way on unlike meshes, comes back."""

from __future__ import annotations

import numpy as np
import pytest

from shapemodel.mesh import Mesh, join
from shapemodel.reasons import InputError
from shapemodel.symmetry import asymmetry, closest, mirror_map, symmetric
from tests.synthetic import onto


def tube(centre: np.ndarray, radius: float, around: int) -> tuple[np.ndarray, np.ndarray]:
    """A closed tube about a centreline (n, 3), ``around`` vertices a ring, poles at both ends."""
    tangent = np.gradient(centre, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    side = np.cross(tangent, [0.31, 0.2, 0.93])
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    up = np.cross(side, tangent)
    angle = np.linspace(0, 2 * np.pi, around, endpoint=False)
    ring = np.cos(angle)[:, None, None] * side + np.sin(angle)[:, None, None] * up
    points = (centre + radius * ring).transpose(1, 0, 2).reshape(-1, 3)
    n = len(centre)
    faces = []
    for i in range(n - 1):
        for j in range(around):
            a, b = i * around + j, i * around + (j + 1) % around
            faces += [[a, a + around, b], [b, a + around, b + around]]
    for j in range(around):
        faces.append([n * around, j, (j + 1) % around])
        faces.append([n * around + 1, (n - 1) * around + (j + 1) % around, (n - 1) * around + j])
    return np.vstack([points, centre[0], centre[-1]]), np.array(faces)


def rib(level: int, side: int, sections: int, around: int) -> tuple[np.ndarray, np.ndarray]:
    t = 0.1 + 2.5 * np.linspace(0, 1, sections) ** (1.0 if side > 0 else 1.1)  # sections do not match either
    centre = np.c_[side * 120 * np.sin(t), 90 * np.cos(t), -25.0 * level - 30 * t]
    return tube(centre, 6.0, around)


@pytest.fixture(scope="module")
def thorax() -> Mesh:
    """Symmetric surfaces whose left and right meshes have nothing in common."""
    parts = {}
    for level in (3, 4, 5):
        parts[level] = rib(level, 1, 90, 16)
        parts[level + 12] = rib(level, -1, 71, 21)
        line = np.c_[np.zeros(12), np.linspace(80, 110, 12), -25.0 * level + np.linspace(-3, 3, 12)]
        parts[25 + level] = tube(line, 9.0, 15)
    parts[25] = tube(np.c_[np.zeros(40), np.full(40, -88.0), np.linspace(-70, -210, 40) + 0.01], 10.0, 13)
    return join(parts)


def lopsided(p: np.ndarray) -> np.ndarray:
    """A displacement that mirroring turns into its negative: d(Sx) = -S d(x)."""
    x, y, z = p.T
    return np.c_[5 * np.cos(x / 90) + 2 * np.sin(z / 80), 6 * np.sin(x / 70), 8 * np.sin(x / 100) * np.cos(y / 120)]


def test_lopsided_field_is_odd() -> None:
    p, s = np.random.default_rng(1).normal(size=(50, 3)) * 90, np.array([-1, 1, 1])
    np.testing.assert_allclose(lopsided(p * s) * s, -lopsided(p), atol=1e-12)


def test_symmetric_form_of_a_lopsided_thorax_is_the_symmetric_one(thorax) -> None:
    matrix = mirror_map(thorax)
    crooked = thorax.vertices + lopsided(thorax.vertices)
    assert asymmetry(crooked, matrix, thorax.faces).mean() > 5.0
    straight = symmetric(crooked, matrix, thorax.faces)
    error = off_surface(onto(straight, thorax.vertices), thorax)  # the odd field turns the frame a little
    assert error.mean() < 0.25  # chords of the coarser side lie up to 0.1 mm inside
    assert np.quantile(error, 0.99) < 1.0


def off_surface(vertices: np.ndarray, mesh: Mesh) -> np.ndarray:
    """Distance of each vertex from the surface of its own bone in a mesh, mm."""
    errors = np.empty(len(vertices))
    for k in mesh.labels:
        own, faces, ids = mesh.select(k)
        errors[ids] = np.linalg.norm(closest(vertices[ids], own, faces)[0] - vertices[ids], axis=1)
    return errors


def test_a_symmetric_shape_stays(thorax) -> None:
    matrix = mirror_map(thorax)
    np.testing.assert_allclose(np.asarray(matrix.sum(axis=1)).ravel(), 1.0, atol=1e-12)
    assert off_surface(symmetric(thorax.vertices, matrix, thorax.faces), thorax).mean() < 0.1
    image = matrix @ thorax.vertices[:, 0]
    left, right = thorax.bone == 4, thorax.bone == 16
    assert image[left].max() < 0 < image[right].min()  # left vertices are mirrored by right ones


def test_a_bone_without_partner_is_refused(thorax) -> None:
    half = join({k: thorax.select(k)[:2] for k in (3, 4, 16, 25)})
    with pytest.raises(InputError, match="rib_left_03 has no partner"):
        mirror_map(half)
