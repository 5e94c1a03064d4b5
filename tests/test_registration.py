"""Registration against a known warp: true positions of vertices, not surface distance, decide."""

from __future__ import annotations

import pickle
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import trimesh
from cage import SMALL, cage, warp

from shapemodel.anatomy import STERNUM
from shapemodel.correspondence import Registration
from shapemodel.mesh import Mesh, face_normals, join
from shapemodel.phantom.shape import surface
from shapemodel.phantom.subject import mean_subject
from shapemodel.reasons import InputError, StudyError
from shapemodel.registration import Prepared, engine, prepare
from shapemodel.registration import register as register_fully
from shapemodel.registration.ends import usual_stretch
from shapemodel.registration.engine import Scene, deformed, doubts, rib_ends, scene, shown, stage_a
from shapemodel.registration.fit import Rows, solve
from shapemodel.registration.match import Pairs, symmetric_normal
from shapemodel.registration.prior import kernel, nystrom, spread
from shapemodel.registration.settings import RegistrationSettings
from shapemodel.registration.start import Similarity, place, robust_similarity
from shapemodel.registration.stations import between_sides, marks, of_neighbours
from shapemodel.registration.target import draw, elsewhere, find_fov, move, open_vertices, sample_target


def register(template: Prepared, target: Mesh) -> Registration:
    return register_fully(template, target, settings=SMALL)


@pytest.fixture(scope="module")
def template() -> Mesh:
    return cage()


def cut(mesh: Mesh, z: float) -> Mesh:
    """What a scan that ends at z shows of it: an open mesh, the faces of the scan known."""
    keep = (mesh.vertices[mesh.faces][:, :, 2] > z).all(1)
    return replace(mesh, faces=mesh.faces[keep], fov=np.array([-np.inf, np.inf, -np.inf, np.inf, z, np.inf]))


Surface = tuple[np.ndarray, np.ndarray]


def lump_of(axes: tuple[float, float, float], at: tuple[float, float, float]) -> Surface:
    """A closed lump with these half axes, about this place."""
    ball = trimesh.creation.icosphere(subdivisions=3)
    return np.asarray(ball.vertices) * axes + at, np.asarray(ball.faces, np.int64)


def joined(one: Surface, other: Surface) -> Surface:
    return np.vstack([one[0], other[0]]), np.vstack([one[1], other[1] + len(one[0])])


def without(mesh: Mesh, label: int) -> Mesh:
    return join({k: mesh.select(k)[:2] for k in mesh.labels if k != label})


def placed(p: Prepared, target: Mesh) -> tuple[Scene, Similarity]:
    """A target on a template after the start alone."""
    samples = sample_target(target, p.labels, SMALL.samples, SMALL.rib_samples)
    start = place(p, samples)
    return scene(p, move(samples, start.scale, start.rotation, start.shift), start), start


def error(fitted: np.ndarray, template: Mesh) -> np.ndarray:
    return np.linalg.norm(fitted - warp(template.vertices), axis=1)


def test_nystrom_reproduces_the_kernel() -> None:
    points = np.random.default_rng(0).uniform(0, 100, (80, 3))
    basis = nystrom(points, points, ((60.0, 2.0),), 80)
    assert np.abs(basis @ basis.T - kernel(points, points, ((60.0, 2.0),))).max() < 0.01


def test_spread_is_far_apart_and_repeatable() -> None:
    points = np.random.default_rng(1).uniform(0, 1, (500, 3))
    chosen = spread(points, 20)
    d = np.linalg.norm(points[chosen][:, None] - points[chosen][None], axis=2) + np.eye(20)
    assert d.min() > 0.25
    assert (chosen == spread(points, 20)).all()


def test_draw_is_even() -> None:
    v = np.array([[0, 0, 0], [10, 0, 0], [10, 1, 0], [0, 1.0, 0]])
    face, bary = draw(v, np.array([[0, 1, 2], [0, 2, 3]]), 400)
    x = np.einsum("sk,skd->sd", bary, v[np.array([[0, 1, 2], [0, 2, 3]])[face]])
    assert x.mean(0) == pytest.approx([5, 0.5, 0], abs=0.05)


def test_similarity_survives_wrong_pairs_and_never_reflects() -> None:
    rng = np.random.default_rng(2)
    a = rng.normal(size=(30, 3)) * 100
    turn = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]])
    b = 1.1 * a @ turn.T + [5, 6, 7]
    b[:3] += 80
    fit, _ = robust_similarity(a, b)
    assert fit.scale == pytest.approx(1.1, abs=0.01)
    assert fit.inverse(b[3:]) == pytest.approx(a[3:], abs=1.5)
    mirrored, _ = robust_similarity(a, a * [-1, 1, 1])
    assert np.linalg.det(mirrored.rotation) == pytest.approx(1.0)


def test_symmetric_normal_has_a_floor() -> None:
    n = np.array([[0.0, 0, 1]])
    assert symmetric_normal(n, n) == pytest.approx(n)
    assert np.linalg.norm(symmetric_normal(n, -n + [[0.05, 0, 0]])) < 0.2


def test_solve_is_the_minimum_of_its_cost() -> None:
    rng = np.random.default_rng(3)
    g, b = rng.normal(size=(2, 9, 4)).astype(np.float32), rng.normal(size=(2, 9, 3)).astype(np.float32)
    d = rng.normal(size=(2, 9, 3))
    d /= np.linalg.norm(d, axis=2, keepdims=True)
    gap, w = rng.normal(size=(2, 9, 3)), rng.uniform(size=(2, 9))
    more = Rows(*(rng.normal(size=(2, 3, 3 * n)).astype(np.float32) for n in (4, 3)), rng.normal(size=(2, 3)))
    field = solve(g, b, Pairs(np.zeros((2, 9), int), gap, d, w), gap, (0.5, 3.0), more)

    def cost(t: np.ndarray, u: np.ndarray) -> float:
        e = gap - g @ t - np.einsum("brq,bqd->brd", b, u)
        along = (e * d).sum(-1)
        off = (e**2).sum(-1) - along**2
        rest = more.e - more.thorax @ t.ravel() - np.einsum("bkq,bq->bk", more.bone, u.reshape(2, -1))
        return float((w * (along**2 / 0.25 + off / 9.0)).sum() + (rest**2).sum() + (t**2).sum() + (u**2).sum())

    least = cost(field.thorax, field.bone)
    for _ in range(20):
        step = 0.01 * rng.normal(size=field.thorax.shape), 0.01 * rng.normal(size=field.bone.shape)
        assert cost(field.thorax + step[0], field.bone + step[1]) > least - 1e-3 * least


def test_open_edges_and_flat_cuts_tell_the_field_of_view(template: Mesh) -> None:
    assert not open_vertices(template.faces, len(template.vertices)).any()
    assert not np.isfinite(find_fov(template, np.zeros(len(template.vertices), bool))[4:]).any()
    dense = cage(1.7)
    keep = (dense.vertices[dense.faces][:, :, 2] > -250).all(1)
    used, new = np.unique(dense.faces[keep], return_inverse=True)
    part = Mesh(dense.vertices[used], new.reshape(-1, 3), dense.bone[used])
    fov = find_fov(part, open_vertices(part.faces, len(part.vertices)))
    assert fov[4] == pytest.approx(-250, abs=3)
    assert not np.isfinite(fov[5])


def test_flat_sides_of_ribs_are_no_cut() -> None:
    """Voxelised ribs are flat for some tens of mm2 at the sides of a chest; the scan did not end there."""
    template = surface(mean_subject())
    flattened = template.vertices.copy()
    side = flattened[:, 0].max() - 0.1  # 0.1 mm of the outermost rib planed off: 70 mm2 of flat side
    flattened[:, 0] = np.minimum(flattened[:, 0], side)
    mesh = template.with_vertices(flattened)
    assert not np.isfinite(find_fov(mesh, np.zeros(len(flattened), bool))).any()


def test_a_rib_with_one_known_end_goes_by_its_places_first(
    prepared: Prepared, target: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nearest points of a rib say is not believed before it is near to its place, if its front is cut and its head
    is not; ribs with both ends, and a piece with neither, have no such places."""
    told: list[np.ndarray] = []
    monkeypatch.setattr(engine, "doubts", lambda share, s: told.append(share.copy()) or doubts(share, s))
    register(prepared, cut(target, -240.0))
    steps = SMALL.free_steps
    assert prepared.labels[told[0] == 0.0].tolist() == [9, 10, 21, 22], "the ribs of which -240 mm cuts the front"
    assert all((share == told[0]).all() for share in told[:steps])
    assert (told[steps] == 1.0).all()


def test_places_of_the_sternum_are_held_half_as_firmly(
    prepared: Prepared, target: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    s, start = placed(prepared, target)
    y = deformed(s, stage_a(s, SMALL))
    m = marks(prepared.markings, *shown(s), y, start.scale)
    held = rib_ends(s, y, m)
    monkeypatch.setattr("shapemodel.registration.anchors.PLATE_DOUBT", 1.0)
    alike = rib_ends(s, y, m)
    assert prepared.labels[held.bone[-1]] == STERNUM
    assert np.isfinite(held.sd[-1, 1:-1]).any()
    np.testing.assert_allclose(held.sd[-1, 1:-1], 2.0 * alike.sd[-1, 1:-1])
    np.testing.assert_array_equal(held.sd[:-1], alike.sd[:-1])
    np.testing.assert_array_equal(held.sd[:, [0, -1]], alike.sd[:, [0, -1]])


def test_a_piece_far_from_its_bone_is_not_of_it() -> None:
    """A scan shows 15 mm of a rib, and a lump of cartilage with its label 60 mm in front that is larger; a rib in two
    long halves, one of them far from where it was predicted, keeps both."""
    stub, lump = lump_of((7.5, 5.0, 5.0), (0.0, 0.0, 0.0)), lump_of((6.0, 8.0, 8.0), (0.0, -60.0, 0.0))
    half, other = lump_of((30.0, 5.0, 5.0), (0.0, 200.0, 0.0)), lump_of((30.0, 5.0, 5.0), (70.0, 230.0, 0.0))
    mesh = join({5: joined(half, other), 11: joined(stub, lump)})
    target = sample_target(mesh, np.array([5, 11]), 400, 800)
    predicted = [half[0], stub[0] + [3.0, 2.0, -2.0]]
    left = elsewhere(target, predicted)
    assert np.abs(left.points[1][:, 1]).max() < 10.0, "only the stub, none of the lump"
    assert np.abs(left.dense[1][:, 1]).max() < 10.0
    np.testing.assert_array_equal(left.points[0], target.points[0])
    assert elsewhere(left, predicted) is left
    astray = elsewhere(target, [half[0], stub[0] + [3.0, 60.0, -2.0]])
    assert astray.present.tolist() == [True, False], "neither piece can be of that rib"
    assert not astray.main[1].any()
    assert not len(astray.dense[1])


def test_a_bone_in_crumbs_is_kept_where_it_belongs() -> None:
    """A rib in eight pieces none of which has 15 % of it: seven where it was predicted, one 60 mm in front."""
    crumbs = lump_of((4.0, 4.0, 4.0), (0.0, -60.0, 0.0))
    for k in range(7):
        crumbs = joined(crumbs, lump_of((4.0, 4.0, 4.0), (12.0 * k, 0.0, 0.0)))
    target = sample_target(join({5: crumbs}), np.array([5]), 400)
    target = replace(target, present=np.ones(1, bool), main=target.solid)  # crumbs alone show no bone
    left = elsewhere(target, [crumbs[0][len(crumbs[0]) // 8 :]])
    assert left.present.all()
    assert np.abs(left.points[0][:, 1]).max() < 10.0


def test_what_a_scan_shows_of_a_rib_cut_at_its_root_is_trusted() -> None:
    """Of the last 6 mm of a rib nearly every vertex lies within three rings of the cut edge, and next to nothing of it
    was trusted. A longer piece keeps its distance from the edge."""
    v, faces = lump_of((10.0, 5.0, 5.0), (0.0, 0.0, 0.0))
    parts = {}
    for label, length in ((12, 6.0), (11, 10.0)):
        keep = (v[faces][:, :, 0] > 10.0 - length).all(1)
        parts[label] = (v + [0.0, 30.0 * label, 0.0], faces[keep])
    target = sample_target(join(parts), np.array([11, 12]), 400)
    near_cut = target.points[0][:, 0] < 1.0
    assert not target.solid[0][near_cut].any()
    assert 0.4 < target.solid[1].mean() < 0.6  # 0.17 by three rings
    assert target.present.all()


def test_the_other_side_tells_as_much_as_the_sides_are_alike() -> None:
    """Left ribs lie 8 mm on, right ones 8 mm back: neighbours of the own side count. Where both sides are 8 mm on, both
    do; taken as one, each side was told 0-2 mm."""
    levels, right = np.tile(np.arange(8), 2), np.arange(16) > 7
    sd, pinned = np.full((16, 5), 2.0), np.ones(16, bool)
    unlike = np.where(right, -8.0, 8.0)[:, None] * np.ones(5)
    assert (of_neighbours(unlike, sd, pinned, levels, right) * np.sign(unlike)).min() > 4.0
    assert of_neighbours(np.abs(unlike), sd, pinned, levels, right).min() > 6.0
    assert between_sides(np.abs(unlike), sd, levels, pinned).max() == 0.0


def test_ribs_go_on_lengthening_from_level_to_level() -> None:
    """Ribs 1-8 that are longer by 2 % more at every level: ninths to elevenths are taken to go on so, if not quite; the
    mean of those nearby would be 2.7, 4.4 and 6 % too short."""
    levels = np.tile(np.arange(12), 2)
    rest = 300.0 - 6.0 * (levels - 6.0) ** 2
    parts = tuple(SimpleNamespace(length=x) for x in rest)
    true = 1.0 + 0.02 * levels
    whole, right = levels < 8, np.arange(24) > 11
    found, sd = usual_stretch(parts, levels, right, np.where(whole, rest * true, np.nan), whole)
    assert np.abs(found / true - 1)[levels < 8].max() < 0.01
    for level, limit in ((8, 0.015), (9, 0.03), (10, 0.05)):
        assert np.abs(found / true - 1)[levels == level].max() < limit
    assert (np.diff(sd[7:12]) > 0).all(), "farther from known ribs less is known"
    assert (np.abs(np.log(found / true)) < 2 * sd).all()
    nothing = usual_stretch(parts, levels, right, rest, levels < 0)
    assert (nothing[0] == 1.0).all()
    assert np.isinf(nothing[1]).all()


def test_a_side_that_is_longer_is_so_below_too() -> None:
    """Left ribs 1-7 are 8 % longer against the template than right ones: so are the left ones that the scan cuts. What
    both sides share says nothing of it: it put them 4 % too short and too long."""
    levels, right = np.tile(np.arange(12), 2), np.arange(24) > 11
    parts = tuple(SimpleNamespace(length=200.0) for _ in levels)
    true, whole = np.where(right, 0.96, 1.04), levels < 7
    found, sd = usual_stretch(parts, levels, right, np.where(whole, 200.0 * true, np.nan), whole)
    for level, limit in ((7, 0.012), (8, 0.018), (9, 0.025)):
        assert np.abs(found / true - 1)[levels == level].max() < limit
    assert (np.abs(np.log(found / true)) < 2 * sd).all()


def test_known_warp_is_found(prepared: Prepared, template: Mesh, target: Mesh) -> None:
    fitted = register(prepared, target)
    off = error(fitted.vertices, template)
    assert off.mean() < 1.6  # smooth tubes slide; 12 mm and more before
    assert np.percentile(off, 95) < 4.0
    assert fitted.visible.mean() > 0.97
    assert fitted.residual_mm[fitted.visible].mean() < 0.3
    turned = (
        face_normals(fitted.vertices, template.faces) * face_normals(warp(template.vertices), template.faces)
    ).sum(1)
    assert (turned <= 0).mean() < 0.001
    assert np.isfinite(fitted.vertices).all()


def test_cut_scan_does_not_pull_hidden_bones_in(prepared: Prepared, template: Mesh, target: Mesh) -> None:
    z = float(np.quantile(target.vertices[:, 2], 0.2))
    fitted = register(prepared, cut(target, z))
    truth = warp(template.vertices)
    hidden = truth[:, 2] < z
    off = error(fitted.vertices, template)
    assert off[~hidden].mean() < 1.5
    assert off[hidden].mean() < 12.0  # extrapolated: they must go on below the cut, not collapse onto it
    assert (fitted.visible == ~hidden).mean() > 0.96


def test_the_tip_of_a_longer_sternum_is_reached(prepared: Prepared, template: Mesh, target: Mesh) -> None:
    def lowest(points: np.ndarray) -> float:
        return float(np.sort(points[template.bone == STERNUM, 2])[:8].mean())

    long = target.vertices.copy()
    below = (target.bone == STERNUM) & (long[:, 2] < np.median(long[target.bone == STERNUM, 2]))
    middle = long[below, 2].max()
    long[below, 2] -= 0.4 * (middle - long[below, 2])  # its lower half is 1.4 times as long
    fitted = register(prepared, target.with_vertices(long))
    goal, before = np.sort(long[target.bone == STERNUM, 2])[:8].mean(), lowest(warp(template.vertices))
    assert before - goal > 10.0
    assert abs(lowest(fitted.vertices) - goal) < 2.5


def test_an_end_that_the_template_made_up_is_no_anchor(template: Mesh, target: Mesh) -> None:
    """It tells of the other side's, whose image it may be, and nothing of how far the bone itself reaches."""
    own = np.flatnonzero(template.bone == 5)
    made_up = np.zeros(len(template.vertices), bool)
    made_up[own[np.argsort(template.vertices[own, 1])[:40]]] = True  # ribs of the cage end in front
    known = []
    for mesh in (template, template.with_arrays(prior=made_up)):
        p = prepare(mesh, prior=SMALL.prior)
        s, _ = placed(p, target)
        a = rib_ends(s, deformed(s, stage_a(s, SMALL)))
        known.append({int(p.labels[b]): np.isfinite(sd[[0, -1]]).tolist() for b, sd in zip(a.bone, a.sd, strict=True)})
    assert known[0][5] == [True, True]
    assert known[1][5] == [True, False]
    assert {k: v for k, v in known[1].items() if k != 5} == {k: v for k, v in known[0].items() if k != 5}


def test_same_input_same_bytes_also_from_a_pickle(prepared: Prepared, target: Mesh) -> None:
    first = register(prepared, target)
    again = register(pickle.loads(pickle.dumps(prepared)), target)
    assert first.vertices.tobytes() == again.vertices.tobytes()


def test_absent_bone_is_extrapolated_and_marked(prepared: Prepared, template: Mesh, target: Mesh) -> None:
    fitted = register(prepared, without(target, 6))
    own = template.bone == 6
    assert fitted.bones[6].visible_fraction < 0.05
    assert error(fitted.vertices, template)[own].mean() < 8.0
    assert error(fitted.vertices, template)[~own].mean() < 1.2


def test_swapped_ribs_are_survived_and_flagged(prepared: Prepared, template: Mesh, target: Mesh) -> None:
    swapped = target.bone.copy()
    swapped[target.bone == 5], swapped[target.bone == 6] = 6, 5
    fitted = register(prepared, replace(target, bone=swapped))
    others = ~np.isin(template.bone, (5, 6))
    assert error(fitted.vertices, template)[others].mean() < 2.5
    for label in (5, 6):
        own = template.bone == label
        assert error(fitted.vertices, template)[own].mean() < 3.0
    assert {f.bone for f in fitted.flags if f.code == "labels_swapped"} == {5, 6}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda m: m.with_vertices(m.vertices / 1000.0), "bad_surface"),
        (lambda m: m.with_vertices(m.vertices * [-1.0, 1.0, 1.0]), "mirrored"),
        (lambda m: m.with_vertices(np.full_like(m.vertices, np.nan)), "bad_surface"),
        (lambda m: join({k: m.select(k)[:2] for k in (2, 3, 4)}), "too_few_bones"),
        (lambda m: replace(m, faces=m.faces[:0]), "bad_surface"),
    ],
    ids=["metres", "mirrored", "nan", "three bones", "no faces"],
)
def test_unfit_surfaces_are_refused(prepared: Prepared, target: Mesh, change, code: str) -> None:
    with pytest.raises(StudyError) as refusal:
        register(prepared, change(target))
    assert refusal.value.code == code


def test_non_manifold_surface_is_survived(prepared: Prepared, template: Mesh, target: Mesh) -> None:
    extra = target.faces[::50]
    fitted = register(prepared, replace(target, faces=np.vstack([target.faces, extra])))
    assert error(fitted.vertices, template).mean() < 1.2


def test_template_with_other_labels_is_refused(template: Mesh) -> None:
    with pytest.raises(InputError, match="labels 1-37"):
        prepare(replace(template, bone=np.full_like(template.bone, 40)))


def test_joint_step_is_right_where_bones_explain_what_the_thorax_does():
    """The prior, 1, decides between the two fields against data terms of 1e8: no rounding may hide it."""
    rng = np.random.default_rng(0)
    n_bones, n, r = 3, 400, 6
    smooth = rng.normal(size=(n_bones, n, r))
    thorax = (30.0 * smooth).astype(np.float32)
    bone = (3.0 * smooth[..., :4] + 1e-3 * rng.normal(size=(n_bones, n, 4))).astype(np.float32)
    way = rng.normal(size=(n_bones, n, 3))
    way /= np.linalg.norm(way, axis=-1, keepdims=True)
    gap = thorax @ rng.normal(size=(r, 3)) + 0.3 * rng.normal(size=(n_bones, n, 3))
    weight, sigma = np.ones((n_bones, n)), (0.25, 20.0)
    nothing = Rows(*(np.zeros((n_bones, 0, 3 * k), np.float32) for k in (r, 4)), np.zeros((n_bones, 0), np.float32))
    field = solve(thorax, bone, Pairs(np.zeros((n_bones, n), int), gap, way, weight), gap, sigma, nothing)
    rows, right = [], []
    for b in range(n_bones):
        for i in range(n):
            own = np.zeros((n_bones, 4))
            own[b] = bone[b, i]
            j = np.kron(np.concatenate([thorax[b, i].astype(float), own.ravel()]), np.eye(3))
            along = np.outer(way[b, i], way[b, i])
            for part, sd in ((along, sigma[0]), (np.eye(3) - along, sigma[1])):
                rows.append(part @ j / sd)
                right.append(part @ gap[b, i] / sd)
    size = rows[0].shape[1]
    matrix, goal = np.vstack([*rows, np.eye(size)]), np.concatenate([*right, np.zeros(size)])
    found = np.concatenate([field.thorax.ravel(), field.bone.ravel()])
    exact = np.linalg.lstsq(matrix, goal)[0]
    assert ((matrix @ (found - exact)) ** 2).sum() < 0.05  # dearer by this much; as a difference of matrices 0.13


def test_places_are_firm_where_surfaces_differ_and_loose_where_they_agree() -> None:
    """Between surfaces that have nothing of each other nodes move a rib by 2 mm at random, places are known to 1 mm."""
    loose = doubts(np.array([0.0, 0.3, 0.65, 0.8]), RegistrationSettings())
    assert (np.diff(loose) >= 0).all()
    assert loose[1] <= 0.15
    assert loose[3] >= 1.0
