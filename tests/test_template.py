"""Template from made-up thoraxes: what is composed from where, and that groupwise rounds find the mean."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gpytoolbox
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from shapemodel.anatomy import BONES, MODEL_LABELS, STERNUM, names, rib, vertebra
from shapemodel.carve import CarveSettings
from shapemodel.groupwise import GroupwiseSettings, Held, groupwise, mean_shape, next_round
from shapemodel.mesh import Mesh, join, vertex_areas, volume, write_vtp
from shapemodel.meshquality import TEMPLATE_GATE, assess
from shapemodel.overlay import size_fit
from shapemodel.reasons import InputError, StudyError
from shapemodel.remesh import RemeshSettings
from shapemodel.template import (
    Template,
    TemplateSettings,
    apply,
    compose_template,
    read_template,
    robust_fit,
    similarity_fit,
    template_from_mesh,
    whole_bones,
    write_template,
)

COARSE = TemplateSettings(remesh=RemeshSettings(edge_mm=7.0, tip_edge_mm=7.0, carve=CarveSettings(grid_mm=2.0)))
"""Triangles so large that 37 bones take seconds."""


def thorax(size: float = 1.0) -> Mesh:
    """37 separate bones: rings for vertebrae, curved shafts for ribs, an ellipsoid for the sternum."""
    parts = {}
    ring_v, ring_f = gpytoolbox.torus(24, 12, R=12.0, r=5.0)
    ball_v, ball_f = gpytoolbox.icosphere(3)
    for b in BONES:
        top = 150.0 - 26.0 * (b.level - 1)
        if b.kind == "vertebra":
            v, f = ring_v + [0, 0, top], ring_f
        elif b.kind == "sternum":
            v, f = ball_v * [18, 6, 70] + [0, -170, 60], ball_f
        else:
            reach = 0.85 * np.pi * (1 - 0.05 * abs(b.level - 6))
            t = (ball_v[:, 2] + 1) / 2 * reach
            x, y = 35 + 90 * np.sin(t), -80 + 75 * np.cos(t)
            shaft = np.column_stack([x, y, np.full(len(t), top) - 25 * t])
            v = shaft + 7.0 * np.column_stack([np.sin(t) * ball_v[:, 0], np.cos(t) * ball_v[:, 0], ball_v[:, 1]])
            f = ball_f
            if b.side == "right":
                v = v * [-1, 1, 1]
        f = f.astype(np.int64)
        parts[b.label] = (v * size, f if volume(v, f) > 0 else np.ascontiguousarray(f[:, ::-1]))
    return join(parts)


def study(mesh: Mesh, *, drop: tuple[int, ...] = (), cut: tuple[int, ...] = (), turn: float = 0.0) -> Mesh:
    """A subject: some bones missing, some cut by the lower or upper face of the scan, lying a little turned."""
    parts = {k: mesh.select(k)[:2] for k in mesh.labels if k not in drop}
    spun = Rotation.from_euler("xyz", [turn, -turn, turn / 2], degrees=True)
    moved = {k: (spun.apply(v) + [30, -10, 5], f) for k, (v, f) in parts.items()}
    every = np.vstack([v for v, _ in moved.values()])
    low, high = every.min(axis=0) - 5, every.max(axis=0) + 5
    for k in cut:  # a face of the scan just at the bone
        face = moved[k][0]
        low[2] = max(low[2], face[:, 2].min()) if face[:, 2].mean() < 0 else low[2]
        high[2] = min(high[2], face[:, 2].max()) if face[:, 2].mean() >= 0 else high[2]
    return join(moved, np.column_stack([low, high]).ravel())


def centre(mesh: Mesh, label: int) -> np.ndarray:
    v, f, _ = mesh.select(label)
    return np.average(v, axis=0, weights=vertex_areas(v, f))


def test_whole_bones_are_those_no_face_cuts() -> None:
    mesh = study(thorax(), cut=(vertebra(12),))
    whole = whole_bones(mesh)
    assert vertebra(12) not in whole
    assert vertebra(11) in whole
    assert STERNUM in whole


def test_similarity_is_recovered_without_reflection() -> None:
    rng = np.random.default_rng(3)
    a = rng.normal(size=(30, 3)) * 50
    spin = Rotation.from_euler("xyz", [20, -35, 50], degrees=True)
    b = 1.13 * spin.apply(a) + [5, -7, 11]
    scale, rotation, shift = similarity_fit(a, b)
    assert scale == pytest.approx(1.13)
    np.testing.assert_allclose(rotation, spin.as_matrix(), atol=1e-12)
    np.testing.assert_allclose(apply((scale, rotation, shift), a), b, atol=1e-9)
    _, mirror, _ = similarity_fit(a, b * [-1, 1, 1])
    assert np.linalg.det(mirror) == pytest.approx(1)
    b[:4] += 60  # strange bones do not tilt the robust fit
    assert np.linalg.norm(apply(robust_fit(a, b), a) - b, axis=1)[4:].max() < 0.5


@pytest.fixture(scope="module")
def composed() -> tuple[Template, Mesh]:
    """From two subjects: rib 12 left is on neither, right on the second; rib 11 on neither side of any."""
    truth = thorax()
    gone = (rib("left", 11), rib("right", 11), rib("left", 12))
    first = study(truth, drop=(*gone, rib("right", 12)), turn=4)
    second = study(truth, drop=(*gone, STERNUM), turn=-6)
    return compose_template([first, second], fallback=study(truth, turn=20), settings=COARSE), truth


def test_bones_come_from_subjects_mirror_and_fallback(composed: tuple[Template, Mesh]) -> None:
    template, truth = composed
    assert template.mesh.labels == list(MODEL_LABELS)
    prior = np.unique(template.mesh.bone[template.prior]).tolist()
    assert names(prior) == ["rib_left_11", "rib_left_12", "rib_right_11"]  # the second is the right one's image
    own, true = (np.array([centre(m, k) for k in MODEL_LABELS]) for m in (template.mesh, truth))
    fit = similarity_fit(own, true)
    assert fit[0] == pytest.approx(1, abs=0.01)  # the size of the subjects
    # triangles of 7 mm on bones 10-14 mm thick, and bones placed by their neighbours
    assert np.linalg.norm(apply(fit, own) - true, axis=1).max() < 2.5


def test_composed_template_passes_the_gate(composed: tuple[Template, Mesh]) -> None:
    assert assess(composed[0].mesh, TEMPLATE_GATE).failures == ()


def test_round_trip(composed: tuple[Template, Mesh], tmp_path: Path) -> None:
    back = read_template(write_template(composed[0], tmp_path / "template.vtp"))
    np.testing.assert_array_equal(back.mesh.vertices, composed[0].mesh.vertices)
    np.testing.assert_array_equal(back.prior, composed[0].prior)
    np.testing.assert_array_equal(back.mesh.bone, composed[0].mesh.bone)


def test_nothing_to_complete_from() -> None:
    short = study(thorax(), drop=(rib("left", 12), rib("right", 12)))
    with pytest.raises(StudyError, match="rib_left_12, rib_right_12") as caught:
        compose_template([short], settings=COARSE)
    assert caught.value.code == "too_few_bones"
    with pytest.raises(InputError):
        compose_template([], settings=COARSE)


def test_mesh_of_the_user_is_taken_or_refused_with_the_reason(tmp_path: Path) -> None:
    mesh = thorax()
    assert not template_from_mesh(mesh).prior.any()
    assert read_template(write_vtp(mesh, tmp_path / "mine.vtp")).mesh.labels == list(MODEL_LABELS)
    with pytest.raises(InputError, match="millimetres"):
        template_from_mesh(mesh.with_vertices(mesh.vertices / 1000))
    with pytest.raises(InputError, match="closed manifold"):
        template_from_mesh(Mesh(mesh.vertices, mesh.faces[5:], mesh.bone))
    with pytest.raises(InputError, match="1-37"):
        template_from_mesh(Mesh(mesh.vertices, mesh.faces, np.where(mesh.bone == 5, 90, mesh.bone)))


@dataclass(frozen=True)
class Fitted:
    vertices: np.ndarray
    visible: np.ndarray


def bumps(mesh: Mesh, strength: float) -> np.ndarray:
    """A smooth change of shape: wider, flatter, more curved."""
    v = mesh.vertices
    return v + strength * np.column_stack([v[:, 0] * 0.1, v[:, 1] * -0.05, 10 * np.sin(v[:, 1] / 60)])


def test_groupwise_rounds_find_the_mean_of_the_cohort(composed: tuple[Template, Mesh]) -> None:
    """Known registrations: from a template off to one side the rounds end at the cohort's mean, of its mean size."""
    base = composed[0].mesh
    strengths, sizes = np.array([-1.0, 0.2, 1.1]), np.array([0.9, 1.0, 1.15])
    targets = [base.with_vertices(bumps(base, s) * k) for s, k in zip(strengths, sizes, strict=True)]
    start = Template(base.with_vertices(bumps(base, 1.5) * 1.2), np.ones(len(base.vertices), bool))

    def register(_reference: Mesh, target: Mesh) -> Fitted:
        return Fitted(target.vertices, target.bone != rib("left", 12))

    done = groupwise(start, targets, register, settings=GroupwiseSettings(rounds=4))
    assert done.converged
    assert done.moved_mm[0] > 3
    assert done.moved_mm[-1] < 0.1
    assert set(np.unique(done.template.mesh.bone[done.template.prior])) == {rib("left", 12)}
    want = bumps(base, strengths.mean()) * np.exp(np.log(sizes).mean())
    scale, rotation, shift = similarity_fit(done.template.mesh.vertices, want)
    assert scale == pytest.approx(1, abs=0.005)
    error = np.linalg.norm(done.template.mesh.vertices @ rotation.T + shift - want, axis=1)
    # subjects differ by 20 mm and by a quarter in size; laying them on each other is not quite linear in that
    assert np.median(error) < 0.8


def test_a_mean_is_meshed_anew_and_what_is_held_of_subjects_comes_along(composed: tuple[Template, Mesh]) -> None:
    base = composed[0].mesh
    seen = base.bone != rib("left", 12)
    held = [Held(bumps(base, s), seen.astype(float)) for s in (-0.4, 0.0, 0.4)]
    start = Template(base.with_vertices(bumps(base, 0.4)), np.zeros(len(base.vertices), bool))
    done = next_round(start, held, remesh=COARSE.remesh)
    mesh = done.template.mesh
    assert done.failures == ()
    assert len(mesh.vertices) != len(base.vertices)
    assert np.array_equal(done.template.prior, mesh.bone == rib("left", 12))
    assert set(np.unique(done.n_seen)) == {0, 3}
    carried = [h.carried(done.carry) for h in held]
    assert np.array_equal(carried[0].visible, ~done.template.prior)
    mean = np.mean([c.vertices for c in carried], axis=0)
    off = np.linalg.norm(apply(similarity_fit(mean, mesh.vertices), mean) - mesh.vertices, axis=1)
    # old and new triangles, of 7 mm, cut each other's corners on bones 10-14 mm thick, and joints were carved
    assert off.mean() < 0.5


def test_a_bone_that_new_triangles_pinch_off_keeps_its_own(
    composed: tuple[Template, Mesh], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rib of which the remesher leaves half, blown up to the old volume, would be all that any study is given."""
    base, cut = composed[0].mesh, rib("right", 7)

    def pinched(parts: dict, **_: object) -> Mesh:
        v, f = gpytoolbox.icosphere(2)
        stub = parts[cut][0][:1] + 9.0 * v
        return join({**parts, cut: (stub, f.astype(np.int64))})

    monkeypatch.setattr("shapemodel.remesh.remesh_bones", pinched)
    held = [Held(base.vertices, np.ones(len(base.vertices)))] * 2
    made = next_round(Template(base, np.zeros(len(base.vertices), bool)), held, remesh=COARSE.remesh)
    assert made.failures == ()
    assert (made.template.mesh.bone == cut).sum() == (base.bone == cut).sum()


def test_hidden_vertices_do_not_pull_the_mean(composed: tuple[Template, Mesh]) -> None:
    base = composed[0].mesh
    shapes = np.array([base.vertices, base.vertices, base.vertices])
    low = base.vertices[:, 2] < -80
    shapes[2, low] += [0, 0, 40.0]
    seen = np.ones(shapes.shape[:2], bool)
    seen[2, low] = False
    off = np.linalg.norm(mean_shape(base, shapes, seen) - base.vertices, axis=1)
    assert off[low].mean() < 4.0  # 40 mm with the weight of what is extrapolated: 0.05 of 2.05, and the frame
    seen[2, low] = True
    wrong = np.linalg.norm(mean_shape(base, shapes, seen) - base.vertices, axis=1)
    assert wrong[low].mean() > 2 * off[low].mean()


def test_specks_that_a_registration_missed_do_not_move_the_mean(composed: tuple[Template, Mesh]) -> None:
    """One vertex in fifty unseen, others in every round: a fade of ten rings around each would be the whole mesh."""
    base = composed[0].mesh
    shapes = np.array([bumps(base, s) for s in (-0.4, 0.0, 0.4)])
    seen = np.ones(shapes.shape[:2], bool)
    want = mean_shape(base, shapes, seen)
    seen[0] = np.random.default_rng(3).random(len(base.vertices)) > 0.02
    moved = np.linalg.norm(mean_shape(base, shapes, seen) - want, axis=1)
    assert np.linalg.norm(shapes[0] - shapes[2], axis=1).mean() > 5.0
    assert moved.max() < 0.05


def test_refused_subjects_are_left_out_and_none_left_is_an_error(composed: tuple[Template, Mesh]) -> None:
    base = composed[0].mesh
    start = Template(base, np.zeros(len(base.vertices), bool))

    def register(_reference: Mesh, target: Mesh) -> Fitted:
        if target.fov is not None:
            raise StudyError("registration_failed", "too far off")
        return Fitted(target.vertices, np.ones(len(target.vertices), bool))

    bad = study(base)
    done = groupwise(start, [base, bad], register, settings=GroupwiseSettings(rounds=1))
    assert done.refused == (1,)
    with pytest.raises(StudyError, match="no subject"):
        groupwise(start, [bad], register)


def test_sizes_are_the_same_forth_and_back() -> None:
    rng = np.random.default_rng(2)
    a = rng.normal(size=(40, 3)) * 50
    b = 1.1 * a + rng.normal(size=a.shape) * 15
    w = rng.uniform(0.5, 1, 40)
    assert size_fit(a, b, w)[0] * size_fit(b, a, w)[0] == pytest.approx(1)
    assert similarity_fit(a, b, w)[0] * similarity_fit(b, a, w)[0] < 0.97
