"""Meshes keep their vertices, order and arrays exactly through storage."""

import numpy as np
import pytest

from shapemodel import mesh
from shapemodel.reasons import InputError

TETRA = (
    np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]]),
    np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]),
)


def two_bones() -> mesh.Mesh:
    v, f = TETRA
    return mesh.join({7: (v, f), 25: (v + 5, f)}, fov=np.arange(6.0))


def test_join_and_select_are_inverse():
    m = two_bones()
    v, f, ids = m.select(25)
    assert m.labels == [7, 25]
    np.testing.assert_array_equal(v, TETRA[0] + 5)
    np.testing.assert_array_equal(f, TETRA[1])
    np.testing.assert_array_equal(ids, np.arange(4, 8))


def test_vtp_round_trip_is_exact(tmp_path):
    rng = np.random.default_rng(0)
    m = two_bones().with_vertices(rng.normal(size=(8, 3)))
    m = m.with_arrays(visible=rng.random(8) > 0.5, residual_mm=rng.random(8))
    back = mesh.read_vtp(mesh.write_vtp(m, tmp_path / "m.vtp"))
    np.testing.assert_array_equal(back.vertices, m.vertices)
    np.testing.assert_array_equal(back.faces, m.faces)
    np.testing.assert_array_equal(back.bone, m.bone)
    np.testing.assert_array_equal(back.fov, m.fov)
    assert back.arrays["visible"].dtype == bool
    np.testing.assert_array_equal(back.arrays["visible"], m.arrays["visible"])
    np.testing.assert_array_equal(back.arrays["residual_mm"], m.arrays["residual_mm"])
    assert [p.name for p in tmp_path.iterdir()] == ["m.vtp"]


def test_volume_area_and_normals_of_a_known_solid():
    v, f = TETRA
    assert mesh.volume(v, f) == pytest.approx(1 / 6)
    assert mesh.vertex_areas(v, f).sum() == pytest.approx(1.5 + np.sqrt(3) / 2)
    assert (np.einsum("ij,ij->i", mesh.vertex_normals(v, f), v - v.mean(0)) > 0).all()


def test_stl_never_returns(tmp_path):
    (tmp_path / "x.stl").write_text("solid")
    with pytest.raises(InputError, match="never return"):
        mesh.read_vtp(tmp_path / "x.stl")


def test_faces_outside_the_vertices_are_refused():
    with pytest.raises(ValueError, match="there are 3"):
        mesh.Mesh(np.zeros((3, 3)), np.array([[0, 1, 3]]), np.zeros(3))
