"""Pictures show the patient as said: sides, heads, colours, see-through parts."""

from __future__ import annotations

import numpy as np
import pytest

from shapemodel import render
from shapemodel.anatomy import LABEL
from shapemodel.mesh import Mesh, join
from shapemodel.reasons import InputError


def _box(low: tuple[float, float, float], high: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    grid = np.array([[x, y, z] for z in (0, 1) for y in (0, 1) for x in (0, 1)], dtype=float)
    faces = [[0, 2, 3], [0, 3, 1], [4, 5, 7], [4, 7, 6], [0, 1, 5], [0, 5, 4]]
    faces += [[2, 6, 7], [2, 7, 3], [0, 4, 6], [0, 6, 2], [1, 3, 7], [1, 7, 5]]
    return np.array(low) + grid * (np.array(high) - np.array(low)), np.array(faces)


@pytest.fixture(scope="module")
def cage() -> Mesh:
    """A sternum in front, a left rib box at +x, a right one at -x and lower."""
    parts = {
        LABEL["sternum"]: _box((-10, -60, -50), (10, -50, 50)),
        LABEL["rib_left_05"]: _box((80, -20, 20), (120, 20, 60)),
        LABEL["rib_right_05"]: _box((-120, -20, -60), (-80, 20, -20)),
    }
    return join(parts)


@pytest.fixture(autouse=True)
def _opengl() -> None:
    if problem := render.missing():
        pytest.skip(problem)


def _where(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.nonzero((image < 245).any(axis=2))
    return rows, columns


def test_front_has_the_left_on_the_right_and_the_head_up(cage: Mesh) -> None:
    image = render.picture(cage, "front", height=120)
    rows, columns = _where(image)
    middle = image.shape[1] / 2
    left_rows, right_rows = rows[columns > middle * 1.5], rows[columns < middle * 0.5]
    assert left_rows.mean() < image.shape[0] / 2 < right_rows.mean()


def test_back_is_the_mirror_of_the_front(cage: Mesh) -> None:
    rows, columns = _where(render.picture(cage, "back", height=120))
    middle = columns.mean()
    assert rows[columns > middle + 20].mean() > rows[columns < middle - 20].mean()


def test_left_view_has_the_sternum_on_the_left(cage: Mesh) -> None:
    image = render.picture(cage, "left", height=120)
    red, green, blue = (image[..., i].astype(int) for i in range(3))
    own = (green > red + 15) & (green > blue + 15)  # the sternum is the one green bone
    assert own.sum() > 100
    assert np.nonzero(own)[1].mean() < image.shape[1] * 0.35


def test_unseen_parts_are_fainter(cage: Mesh) -> None:
    marked = cage.with_arrays(visible=cage.bone != LABEL["rib_left_05"])
    solid = render.picture(cage, "front", height=120)
    faint = render.picture(marked, "front", height=120, look=render.Look(seen="visible"))
    half = solid.shape[1] * 3 // 4
    assert solid[:, half:].min() + 40 < faint[:, half:].min()


def test_scalars_and_shared_box(cage: Mesh) -> None:
    shaded = cage.with_arrays(d=cage.vertices[:, 2])
    box = np.array([[-200.0, -100, -100], [200, 100, 100]])
    image = render.picture(shaded, "front", height=100, look=render.Look(scalars="d", limits=(-60, 60)), box=box)
    assert image.shape == (100, 200, 3)
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 20


def test_same_mesh_same_bytes(cage: Mesh) -> None:
    first, second = (render.encode(render.picture(cage, height=80)) for _ in range(2))
    assert first == second


def test_wrong_asks_are_said(cage: Mesh) -> None:
    with pytest.raises(InputError, match="view must be one of"):
        render.picture(cage, "top")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no array 'residual'"):
        render.picture(cage, look=render.Look(scalars="residual"))
    with pytest.raises(InputError, match="no faces"):
        render.picture(Mesh(np.zeros((3, 3)), np.zeros((0, 3), int), np.ones(3, np.uint8)))


def test_without_opengl_a_sentence_names_the_packages(cage: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "_window", lambda: None)
    assert "libegl1" in render.missing()
    with pytest.raises(InputError, match="apt-get install"):
        render.picture(cage)


def test_pictures_beside_each_other() -> None:
    tall, low = np.zeros((30, 10, 3), np.uint8), np.zeros((20, 5, 3), np.uint8)
    assert render.beside([tall, low], gap=4).shape == (30, 19, 3)
