"""Any shape of a model passes the gate of exported shapes, at a stated cost, with the same ids."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import gpytoolbox
import numpy as np
import pytest

from shapemodel import repair
from shapemodel.clearing import Cleared, clear
from shapemodel.interchange import load_model, save_model
from shapemodel.intersections import find_again, find_intersections
from shapemodel.mesh import Mesh, join
from shapemodel.meshquality import SHAPE_GATE, assess
from shapemodel.model import ShapeModel
from shapemodel.ready import HEALED_SD, Finisher, clean_base, healed, insist
from shapemodel.reasons import InputError
from shapemodel.remesh import RemeshSettings, remesh

GAP_MM = 0.6


def test_cuts_after_a_move_are_found_near_it() -> None:
    """Where nothing moved the cuts known before still hold; elsewhere they are looked for: together, all there are."""
    mesh = pair()
    before = mesh.with_vertices(mesh.vertices + closing(mesh))
    moved = before.vertices.copy()
    left = moved[:, 0] < -5
    moved[left & (mesh.bone == 4), 2] += 1.0  # parts the bones on one side
    moved[np.argmax(moved[:, 0])] -= [9.0, 0.0, 0.0]  # folds one end
    after = before.with_vertices(moved)
    every, known = find_intersections(after), find_intersections(before)
    assert set(known.faces) - set(every.faces)
    assert set(every.faces) - set(known.faces)
    again = find_again(after, before, known)
    np.testing.assert_array_equal(again.pairs, every.pairs)
    np.testing.assert_array_equal(again.bones, every.bones)
    np.testing.assert_array_equal(again.places, every.places)


@lru_cache(maxsize=1)
def pair() -> Mesh:
    """Two long ellipsoids on top of each other, 0.6 mm apart: two neighbours of a template."""
    v, f = gpytoolbox.icosphere(4)
    u, g = remesh(v * [24, 9, 9], f.astype(np.int64), settings=RemeshSettings(tip_edge_mm=3.0))
    height = np.ptp(u[:, 2])
    return join({3: (u, g), 4: (u + [0, 0, height + GAP_MM], g)})


def closing(mesh: Mesh) -> np.ndarray:
    """The upper one comes 1 mm nearer."""
    return np.where((mesh.bone == 4)[:, None], [0.0, 0.0, -1.0], 0.0)


def squeezed_end(mesh: Mesh) -> np.ndarray:
    """8 mm of the lower one are pressed to 2 mm along it: triangles become four times as short."""
    x = np.where(mesh.bone == 3, mesh.vertices[:, 0], 0.0)
    return np.column_stack([-0.75 * np.clip(x - 4, 0, 8), 0 * x, 0 * x])


def model() -> ShapeModel:
    """Mode 1 brings the bones together, mode 2 squeezes an end, mode 3 bends both; the mean cuts itself."""
    mesh = pair()
    bend = np.column_stack([np.zeros(len(mesh.vertices)), 0.02 * mesh.vertices[:, 0] ** 2 / 5, 0 * mesh.bone])
    fields = np.stack([closing(mesh), squeezed_end(mesh), bend]).reshape(3, -1)
    orthonormal = np.linalg.qr(fields.T)[0].T
    sd = np.abs(np.einsum("kv,kv->k", orthonormal, fields)) * [0.5, 0.4, 0.5]
    mean = mesh.vertices + closing(mesh)
    n = len(mean)
    return ShapeModel(
        mesh.with_vertices(mean), mean, orthonormal.reshape(3, n, 3).astype(np.float32), sd**2, 0.0,
        float((sd**2).sum()), np.zeros((5, 3)), tuple("abcde"), ("F",) * 5, {}, np.full(n, 5), np.zeros(n, np.uint8),
        np.zeros(n),
    )  # fmt: skip


def test_what_cuts_gives_way_and_the_rest_stays() -> None:
    """1 mm nearer where 0.6 mm were left: a cut of 0.4 mm; each bone gives way by no more than the way it came."""
    base = pair()
    shape = base.with_vertices(base.vertices + closing(base))
    assert len(find_intersections(shape).pairs) > 5
    done = clear(shape, base.vertices)
    assert done.left == 0
    assert assess(done.mesh, SHAPE_GATE).passed
    assert done.moved_mm.max() < 1.0
    assert (done.moved_mm > 0).mean() < 0.3
    far = np.abs(shape.vertices[:, 0]) > 18
    assert (done.mesh.vertices[far] == shape.vertices[far]).all()
    assert (done.mesh.faces == shape.faces).all()


def test_bones_that_clearing_leaves_cutting_are_pushed_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the base itself has hardly a gap: here clearing is made to do nothing."""
    base = pair()
    shape = base.with_vertices(base.vertices + closing(base))
    monkeypatch.setattr(repair, "clear", lambda mesh, *_, **__: Cleared(mesh, np.zeros(len(mesh.vertices)), 0, 1))
    done, verdict = repair.settle(shape, base.vertices, assess(shape))
    assert verdict.passed
    assert assess(done).passed
    assert np.linalg.norm(done.vertices - shape.vertices, axis=1).max() < 1.0  # 0.4 mm overlap, both bones give way


def test_a_clean_shape_is_not_touched() -> None:
    base = pair()
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    shape = base.with_vertices((base.vertices * [1.1, 1.0, 1.05]) @ turn.T + [300, 0, 0])
    assert (clear(shape, base.vertices).mesh.vertices == shape.vertices).all()


def test_a_folded_end_follows_the_base() -> None:
    """A tip whose two sides changed places, so that the surface passes through itself, is unfolded."""
    base = pair()
    x = base.vertices
    inside = (base.bone == 3) & (x[:, 0] > 18)
    shape = base.with_vertices(np.where(inside[:, None], x * [1, 1, -1], x))
    assert find_intersections(shape).within > 0
    done = clear(shape, base.vertices)
    assert done.left == 0
    assert find_intersections(done.mesh).within == 0


def test_every_shape_of_a_model_passes() -> None:
    m = model()
    m = replace(m, base=clean_base(m, pair().vertices))
    finish = Finisher(m)
    scores = [np.zeros(3), *(s * np.eye(3)[k] for k in range(3) for s in (-2, 2)), *np.random.default_rng(1).normal(
        size=(6, 3)
    )]  # fmt: skip
    raw_failures = 0
    for b in scores:
        mesh = m.mesh(m.instance(b))
        raw_failures += not assess(mesh).passed
        done = finish(mesh)
        assert done.verdict.passed, (b, done.verdict.failures)
        assert assess(done.mesh).passed
        assert (done.mesh.faces == mesh.faces).all()
        assert (done.mesh.bone == mesh.bone).all()
        assert done.off_mm.max() < 2.0  # the cut is 0.4 mm in the mean and 1.4 mm at 2 SD, shared by two bones
        assert (done.mesh.arrays["healed_mm"] == done.off_mm).all()
        assert (finish(mesh).mesh.vertices == done.mesh.vertices).all()
    assert raw_failures >= 4


def test_a_squeezed_end_is_spread_on_its_surface() -> None:
    base = pair()
    m = replace(model(), mean=base.vertices + squeezed_end(base), base=None)
    assert assess(m.mesh(m.mean)).whole.min_angle < SHAPE_GATE.min_angle_hard
    done = Finisher(m)(m.mesh(m.mean))
    assert done.verdict.passed
    assert done.off_mm.max() < 0.4  # chords of 3 mm on the ellipsoid's ends
    for label in (3, 4):  # no end became shorter
        was, now = (x.vertices[x.bone == label][:, 0] for x in (m.mesh(m.mean), done.mesh))
        assert now.min() < was.min() + 0.1
        assert now.max() > was.max() - 0.1
    assert "vertices were moved" in done.cost


def test_what_cannot_be_had_is_refused_with_the_place() -> None:
    base = pair()
    shape = base.with_vertices(base.vertices + closing(base))
    with pytest.raises(InputError, match=r"rib_left_03 / rib_left_04 at \("):
        insist(assess(shape), "x.vtp")
    insist(assess(base), "base")


def test_the_healed_mean_travels_with_the_model(tmp_path) -> None:
    m = model()
    m = replace(m, base=clean_base(m, pair().vertices))
    back = load_model(save_model(m, tmp_path / "m.h5"))
    assert back.base is not None
    assert (back.base == m.base).all()
    assert back.healing is None
    assert load_model(save_model(replace(m, base=None), tmp_path / "n.h5")).base is None


def test_what_modes_need_is_found_once_and_given_in_proportion(tmp_path) -> None:
    """At the distances healed beforehand a shape comes out as if it were healed now; between them little is left."""
    template = pair().vertices
    bare = replace(model(), base=clean_base(model(), template))
    back = load_model(save_model(healed(model(), template), tmp_path / "m.h5"))
    assert back.healing is not None
    assert back.healing.shape == (3, 2, len(HEALED_SD), len(template), 3)
    assert back.truncate(1).healing.shape[0] == 1
    alone = load_model(save_model(back.truncate(0), tmp_path / "mean.h5"))  # a model that only has its mean
    assert alone.n_modes == 0
    assert Finisher(alone)(alone.mesh(alone.mean)).verdict.passed
    quick, slow = Finisher(back), Finisher(bare)
    for sd in HEALED_SD:
        asked = back.mesh(back.instance([-sd]))
        np.testing.assert_allclose(quick(asked).mesh.vertices, slow(asked).mesh.vertices, atol=1e-4)
    between = back.mesh(back.instance([-1.5]))
    start = quick.placed(between.vertices) + quick._along_modes(between.vertices)
    rest = [len(find_intersections(between.with_vertices(x)).pairs) for x in (quick.placed(between.vertices), start)]
    assert rest[1] <= 0.5 * rest[0]
    done, was = quick(between), slow(between)
    assert done.verdict.passed
    assert done.off_mm.mean() < was.off_mm.mean() + 0.05  # mm: what is given in proportion may be more than was needed
    assert (quick._along_modes(back.mean) == 0).all()
