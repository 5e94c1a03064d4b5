"""Surfaces of label maps against analytic solids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from shapemodel.anatomy import STERNUM, vertebra
from shapemodel.mesh import vertex_normals, volume
from shapemodel.meshquality import open_edges
from shapemodel.reasons import StudyError
from shapemodel.study import scan_box
from shapemodel.surfaces import euler_number, labels_to_mesh, surface_flags

RIB = np.array([35.0, 6.0, 3.5])
"""Half axes, mm, of the test rib: as thin as a real one, where slices cut it obliquely."""


def image_of(array: np.ndarray, spacing: tuple[float, float, float], origin: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)).astype(np.uint8))
    image.SetSpacing(spacing)
    image.SetOrigin(origin.tolist())
    return image


def grid(spacing: tuple[float, float, float], low: float, high: float) -> np.ndarray:
    """(nx, ny, nz, 3) voxel centres, off the middle so that nothing is symmetric by luck."""
    return np.stack(np.meshgrid(*[np.arange(low + 0.37, high, h) for h in spacing], indexing="ij"), -1)


def tilted(points: np.ndarray, degrees: float = 35.0) -> np.ndarray:
    t = np.deg2rad(degrees)
    turn = np.array([[np.cos(t), 0, np.sin(t)], [0, 1, 0], [-np.sin(t), 0, np.cos(t)]])
    return points @ turn.T


def shaft(points: np.ndarray) -> np.ndarray:
    """Negative inside a tilted elliptic shaft with rounded ends."""
    p = tilted(points)
    along = p[..., 0] - np.clip(p[..., 0], -RIB[0], RIB[0])
    return np.sqrt((along / 5.0) ** 2 + (p[..., 2] / RIB[1]) ** 2 + (p[..., 1] / RIB[2]) ** 2) - 1


def slope(points: np.ndarray) -> np.ndarray:
    h = 1e-4
    return np.stack([(shaft(points + h * e) - shaft(points - h * e)) / (2 * h) for e in np.eye(3)], -1)


@pytest.mark.parametrize(("slices", "distance", "angle"), [(1.0, 0.10, 4.5), (2.0, 0.12, 4.5), (5.0, 0.22, 6.5)])
def test_oblique_shaft_is_smooth_at_any_slice_distance(slices: float, distance: float, angle: float) -> None:
    """Mean distance to the true surface is a fraction of a voxel, and normals do not show the slices.

    A staircase of 5 mm slices on this shaft has normals that are off by 35 degrees.
    """
    points = grid((0.7, 0.7, slices), -45, 45)
    mesh = labels_to_mesh(image_of((shaft(points) < 0) * 5, (0.7, 0.7, slices), points[0, 0, 0]))
    g = slope(mesh.vertices)
    steep = np.linalg.norm(g, axis=1)
    assert np.abs(shaft(mesh.vertices) / steep).mean() < distance
    middle = np.abs(tilted(mesh.vertices)[:, 0]) < RIB[0] - 5
    cos = np.einsum("ij,ij->i", vertex_normals(mesh.vertices, mesh.faces), g) / steep
    assert np.degrees(np.arccos(np.clip(cos[middle], -1, 1))).mean() < angle


def test_volume_topology_and_closure() -> None:
    spacing = (0.7, 0.7, 2.0)
    points = grid(spacing, -45, 45)
    ring = (np.hypot(np.hypot(points[..., 0], points[..., 1]) - 15, points[..., 2]) < 6) & (shaft(points) > 0.5)
    labels = np.where(ring, vertebra(5), np.where(shaft(points + [0, 30, 0]) < 0, 3, 0))
    mesh = labels_to_mesh(image_of(labels, spacing, points[0, 0, 0]))
    assert mesh.labels == [3, vertebra(5)]
    for label in mesh.labels:
        v, f, _ = mesh.select(label)
        assert volume(v, f) == pytest.approx((labels == label).sum() * np.prod(spacing), rel=0.01)
        assert open_edges(f) == 0
    ring_v, ring_f, _ = mesh.select(vertebra(5))
    assert mesh.select(3)[1].size
    assert euler_number(len(mesh.select(3)[0]), mesh.select(3)[1]) == 2
    assert euler_number(len(ring_v), ring_f) in (0, 2)


def test_ring_keeps_its_hole() -> None:
    spacing = (0.7, 0.7, 2.0)
    points = grid(spacing, -25, 25)
    ring = np.hypot(np.hypot(points[..., 0], points[..., 1]) - 15, points[..., 2]) < 6
    mesh = labels_to_mesh(image_of(ring * vertebra(5), spacing, points[0, 0, 0]))
    assert euler_number(len(mesh.vertices), mesh.faces) == 0
    assert surface_flags(mesh) == ()


def test_spurious_hole_is_filled_and_cavity_too() -> None:
    """A lamina with a gap of 3 mm through it, and a marrow cavity: neither belongs to a sternum's surface."""
    spacing = (0.7, 0.7, 2.0)
    points = grid(spacing, -25, 25)
    plate = (np.abs(points) < [20, 4, 20]).all(axis=-1)
    hole = np.hypot(points[..., 0] - 8, points[..., 2]) < 2.1
    cavity = np.linalg.norm(points + [9, 0, 0], axis=-1) < 2.5
    mesh = labels_to_mesh(image_of((plate & ~hole & ~cavity) * STERNUM, spacing, points[0, 0, 0]))
    assert euler_number(len(mesh.vertices), mesh.faces) == 2
    assert volume(mesh.vertices, mesh.faces) == pytest.approx((plate & ~hole).sum() * np.prod(spacing), rel=0.01)


def test_bone_that_leaves_the_scan_is_closed_there() -> None:
    spacing = (0.7, 0.7, 2.0)
    points = grid(spacing, -25, 25)
    image = image_of((np.hypot(points[..., 0], points[..., 1]) < 6) * 4, spacing, points[0, 0, 0])
    mesh = labels_to_mesh(image)
    assert open_edges(mesh.faces) == 0
    size = np.array(spacing) * image.GetSize()
    first = points[0, 0, 0] - np.array(spacing) / 2
    np.testing.assert_allclose(mesh.fov, np.column_stack([first, first + size]).ravel())
    np.testing.assert_allclose(scan_box(image), mesh.fov)
    assert abs(mesh.vertices[:, 2].max() - mesh.fov[5]) < 1.0  # half a slice
    assert abs(mesh.vertices[:, 2].min() - mesh.fov[4]) < 1.0


def test_islands_go_and_real_pieces_stay() -> None:
    spacing = (1.0, 1.0, 1.0)
    points = grid(spacing, -30, 30)
    blobs = [((-15, 0, 0), 8), ((10, 0, 0), 7), ((0, 20, 0), 2)]
    solid = np.any([np.linalg.norm(points - c, axis=-1) < r for c, r in blobs], axis=0)
    mesh = labels_to_mesh(image_of(solid * 7, spacing, points[0, 0, 0]))
    assert mesh.fields["surface_pieces"][0] == 2
    assert [f.code for f in surface_flags(mesh)] == ["surface_pieces"]
    assert mesh.vertices[:, 1].max() < 12  # the island at y = 20 is gone


def test_only_bones_of_the_model() -> None:
    array = np.zeros((20, 20, 20))
    array[5:12, 5:12, 5:12], array[14:18, 14:18, 14:18] = 40, 41
    with pytest.raises(StudyError, match="none of the bones") as caught:
        labels_to_mesh(image_of(array, (1, 1, 1), np.zeros(3)))
    assert caught.value.code == "bad_labels"
    array[5:12, 14:18, 5:12] = 2
    assert labels_to_mesh(image_of(array, (1, 1, 1), np.zeros(3))).labels == [2]


def test_turned_image_is_refused() -> None:
    image = image_of(np.ones((5, 5, 5)), (1, 1, 1), np.zeros(3))
    image.SetDirection([-1, 0, 0, 0, -1, 0, 0, 0, 1])
    with pytest.raises(StudyError, match="identity direction"):
        labels_to_mesh(image)


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("study", ["P001", "cap002", "normal001", "normal002"])
def test_real_label_maps(real: Path, study: str) -> None:
    """Every bone of the reference label maps: closed, Euler number of its anatomy, volume within 1 per cent."""
    image = sitk.ReadImage(str(real / "labels" / f"{study}.nii.gz"))
    array, voxel = sitk.GetArrayFromImage(image), np.prod(image.GetSpacing())
    mesh = labels_to_mesh(image)
    assert surface_flags(mesh) == ()
    for label in mesh.labels:
        v, f, _ = mesh.select(label)
        assert open_edges(f) == 0
        assert volume(v, f) == pytest.approx((array == label).sum() * voxel, rel=0.01)


@pytest.mark.parametrize("voxels", [1, 2, 3])
def test_a_sliver_at_the_edge_of_the_scan_stays_where_it_is(voxels: int) -> None:
    """A few voxels of a bone in the last slice: a small closed surface, not a thing of kilometres."""
    array = np.zeros((20, 40, 40), np.uint8)
    array[4:, 10:30, 10:30] = 36
    array[0, 18, 18 : 18 + voxels] = 37
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.7, 0.7, 2.0))
    v, f, _ = labels_to_mesh(image).select(37)
    assert np.abs(v - [18 * 0.7, 18 * 0.7, 0]).max() < 6
    assert 0 < volume(v, f) < 4 * voxels * 0.98
