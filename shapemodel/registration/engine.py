"""The registration, stage by stage. All of it works in the template's frame; the result goes back to the target's."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from shapemodel.anatomy import names
from shapemodel.contact import separate
from shapemodel.correspondence import BoneFit, Registration
from shapemodel.mesh import Mesh, Points, vertex_normals
from shapemodel.reasons import Flag
from shapemodel.registration.anchors import Anchors, anchors
from shapemodel.registration.confidence import ABSENT, REVIEW_MM, SWAPPED, UNSURE, Evidence, evidence, judge
from shapemodel.registration.ends import CUT_MM, RibSurface, Shaft, rib_surfaces
from shapemodel.registration.fit import Field, Rows, displacement, rows, solve, solve_bones, solve_held
from shapemodel.registration.match import Pairs, backward, both, forward, trees
from shapemodel.registration.numbers import check_numbers
from shapemodel.registration.prepare import Prepared, prepare, sound
from shapemodel.registration.prior import Basis
from shapemodel.registration.settings import RegistrationSettings
from shapemodel.registration.soft import Cloud, soft_assign, thin
from shapemodel.registration.start import Similarity, check_target, exchange, place, swapped
from shapemodel.registration.stations import Marks, marks
from shapemodel.registration.target import EDGE_MM, Target, elsewhere, inside, move, sample_target
from shapemodel.registration.visible import visibility

logger = logging.getLogger(__name__)

CONVERGED_MM = 0.1
"""Mean movement of the visible vertices in the last joint step below which the fit has converged."""

AGREED = 4
"""Power of the share of weight that pairs of a bone earn, with which they outdo its places: the share is .8 for two
surfaces of one person, .65 for phantoms of two, .3 for two real ones."""

SURE_MM = 0.3
"""No place of a shaft is known better."""

FAR_MM = 3.0
"""Robust width of partners in the bone-wise fits. With half of it tips of processes that are longer in one person
stayed beyond the other's, in the next vertebra."""

PATCH_MM = 8.0
"""Nodes nearer than this err alike where one person's surface has what the other's has not."""


@dataclass(frozen=True)
class Scene:
    """One target moved onto the template, with what every stage asks of it."""

    prepared: Prepared
    target: Target
    start: Similarity
    forest: list
    members: list[NDArray[np.int64]]
    ribs: tuple[RibSurface, ...]
    plate: tuple[Shaft, RibSurface] | None

    def seen(self, points: Points, margin: float = EDGE_MM) -> NDArray[np.bool_]:
        """(...,) points of the template's frame that lie at least ``margin`` mm inside the scan."""
        flat = self.start.inverse(points.reshape(-1, 3))
        return inside(flat, self.target.fov, margin).reshape(points.shape[:-1])


def scene(prepared: Prepared, target: Target, start: Similarity) -> Scene:
    """``target`` is already in the template's frame, except for the faces of its scan."""
    members = [np.flatnonzero(prepared.index == b) for b in range(len(prepared.labels))]
    ribs = rib_surfaces(prepared.shafts, target)
    plate = prepared.plate
    sternum = None if plate is None else (plate, rib_surfaces((plate,), target)[0])
    return Scene(prepared, target, start, trees(target), members, ribs, sternum)


def cleared(s: Scene, y: Points) -> Scene:
    """The scene without pieces that cannot be of the bone whose label they have, whose vertices are at ``y`` (V, 3)."""
    target = elsewhere(s.target, [y[ids] for ids in s.members])
    return s if target is s.target else scene(s.prepared, target, s.start)


def shown(s: Scene) -> tuple[list[Shaft], list[RibSurface]]:
    """All that has places along itself, ribs and then the sternum: the template's and the target's."""
    more = [] if s.plate is None else [s.plate]
    return [*s.prepared.shafts, *(x for x, _ in more)], [*s.ribs, *(x for _, x in more)]


def rib_ends(s: Scene, y: Points, m: Marks | None = None) -> Anchors:
    """Anchors of ribs and sternum at the present fit; those between the ends of ribs are of their marks."""
    p = s.prepared
    return anchors(p.shafts, p.labels, y, s.ribs, lambda x: s.seen(x, CUT_MM), m, s.plate)


def held(s: Scene, a: Anchors, base: Points, thorax: Basis, doubt: NDArray[np.float64]) -> Rows:
    """Anchors as rows of the joint step.

    ``base`` (V, 3) are the vertices without coefficients, ``thorax`` (V, r) the basis of the field they share;
    standard deviations of stations are taken ``doubt`` (B,) times (:func:`doubts`).
    """
    p = s.prepared
    count = a.vertex.shape[1]
    jg, jb = (np.zeros((len(p.labels), count, 3 * b.shape[1]), np.float32) for b in (thorax, p.bone))
    e = np.zeros((len(p.labels), count), np.float32)
    sd = a.sd.copy()
    sd[:, 1:-1] = np.maximum(sd[:, 1:-1] * doubt[a.bone, None], SURE_MM)
    firm = 1.0 / sd
    for out, basis in ((jg, thorax), (jb, p.bone)):
        out[a.bone] = rows(basis[a.vertex].mean(2), a.direction * firm[..., None])
    e[a.bone] = firm * ((a.goal - base[a.vertex].mean(2)) * a.direction).sum(-1)
    return Rows(jg, jb, e)


def trust(s: Scene, y: Points, pairs: Pairs, floor: float) -> NDArray[np.float64]:
    """(B,) share of their weight that the pairs of a bone earn, from the nodes at their head.

    What a fit leaves of one person's surface on another's is not noise of nodes: ridges and hollows that the other
    does not have are as wide as several nodes. Their sum over neighbours, against the same of independent errors, is
    how many nodes err as one (the design effect of clustered samples, Kish 1965); ``floor`` mm is what sampling leaves.
    """
    n = s.prepared.nodes.shape[1]
    x, weight = y[pairs.vertex[:, :n]].astype(np.float32), pairs.weight[:, :n]
    miss = ((pairs.goal[:, :n] - x) * pairs.direction[:, :n]).sum(-1) * weight
    x2 = (x**2).sum(-1)
    near = x2[:, :, None] + x2[:, None] - 2.0 * x @ x.transpose(0, 2, 1) < PATCH_MM**2
    together = (miss * (near @ miss[..., None])[..., 0]).sum(1)
    variance = np.maximum(together, (miss**2).sum(1)) / np.maximum((weight**2).sum(1), 1.0)
    return floor**2 / (floor**2 + variance)


def doubts(share: NDArray[np.float64], settings: RegistrationSettings) -> NDArray[np.float64]:
    """(B,) what standard deviations of places of shafts are taken times, by the ``share`` (B,) that pairs earn.

    Where two surfaces agree, hundreds of nodes say more of a place than its relief does; where they do not, what these
    say of it is chance, and moves a rib by more than the place may be off.
    """
    return np.maximum(settings.doubt[1] * share**AGREED, settings.doubt[0])


def believed(pairs: Pairs, share: NDArray[np.float64]) -> Pairs:
    """Pairs of each bone with this (B,) share of their weight."""
    return replace(pairs, weight=pairs.weight * share[:, None])


def stage_a(s: Scene, settings: RegistrationSettings) -> Field:
    """Soft assignment: the thorax-wide field to within some mm."""
    p = s.prepared
    nodes = p.nodes[:, : settings.soft_template]
    points, believed = thin(s.target, settings.soft_target)
    weight = p.weight[:, : settings.soft_template] * s.target.present[:, None]
    thorax = np.ascontiguousarray(p.thorax[:, : settings.coarse_rank])
    basis = thorax[nodes].reshape(-1, thorax.shape[1]).astype(np.float64)
    cloud = Cloud(p.mesh.vertices[nodes], basis, weight, points, believed)

    def pulled(coefficients: NDArray) -> tuple[NDArray, NDArray, NDArray, NDArray]:
        a = rib_ends(s, p.mesh.vertices + thorax @ coefficients.astype(np.float32))
        # ends only: what holds an anchor here holds it in all directions, and stations would hold whole ribs back
        vertex, goal = a.ends
        return p.mesh.vertices[vertex].mean(1), goal, thorax[vertex].mean(1).astype(np.float64), ~a.lost[nodes]

    c = soft_assign(cloud, settings.soft_sigma, settings.soft_steps, settings.soft_outlier, s.seen, pulled)
    return Field(whole(c, p.thorax.shape[1]), np.zeros((len(p.labels), p.bone.shape[1], 3)))


def whole(coefficients: NDArray[np.float64], rank: int) -> NDArray[np.float64]:
    """(rank, 3) coefficients of all modes, from those (r, 3) of the first."""
    return np.vstack([coefficients, np.zeros((rank - len(coefficients), 3))])


def deformed(s: Scene, field: Field) -> Points:
    """(V, 3) template vertices under a field."""
    p = s.prepared
    return p.mesh.vertices + displacement(field, p.thorax, p.bone, p.index)


def pair_up(s: Scene, y: Points, n_nodes: int, n_back: int, share: float, scale: float) -> Pairs:
    """Partners of the first ``n_nodes`` nodes a bone and of ``n_back`` target samples a bone, at the present fit."""
    p = s.prepared
    normals = vertex_normals(y, p.mesh.faces)
    nodes = p.nodes[:, :n_nodes]
    ahead = forward(s.target, s.forest, nodes, y, normals, scale)
    ahead.weight[:] *= p.weight[:, :n_nodes] * s.seen(y[nodes])
    back = backward(s.target, s.members, n_back, y, normals, scale)
    return both(ahead, back, share)


def blend(ends: tuple[float, float], t: float) -> float:
    """Geometric interpolation."""
    return float(ends[0] ** (1 - t) * ends[1] ** t)


def stage_b(s: Scene, field: Field, m: Marks, settings: RegistrationSettings) -> Field:
    """Joint Gauss-Newton with symmetric normals, coarse to fine: few nodes first, then all."""
    p = s.prepared
    y = deformed(s, field)
    wide = np.ascontiguousarray(p.thorax[:, : settings.coarse_rank])
    total = settings.coarse_steps + settings.joint_steps
    share = np.ones(len(p.labels))
    for k in range(total):
        t = k / max(settings.coarse_steps - 1, 1)
        sigma = blend(settings.sigma_normal, min(t, 1.0)), blend(settings.sigma_tangent, min(t, 1.0))
        coarse = k < settings.coarse_steps
        n_nodes = settings.coarse_nodes if coarse else p.nodes.shape[1]
        n_back = settings.backward_samples // 2 if coarse else settings.backward_samples
        pairs = pair_up(s, y, n_nodes, n_back, settings.backward, max(3.0 * sigma[0], 1.5))
        if not coarse:
            share = trust(s, y, pairs, sigma[0])
            pairs = believed(pairs, share)
        if k in settings.anchor_steps:
            ends = rib_ends(s, y, m)
        if k < settings.cut_steps:
            pairs.weight[ends.lost[pairs.vertex]] = 0.0
        if coarse:
            share[ends.free] = 0.0 if k < settings.free_steps else 1.0
        thorax = wide if coarse else p.thorax
        more = held(s, ends, p.mesh.vertices, thorax, doubts(share, settings))
        gap = pairs.goal - p.mesh.vertices[pairs.vertex]
        field = solve(thorax[pairs.vertex], p.bone[pairs.vertex], pairs, gap, sigma, more)
        field = Field(whole(field.thorax, p.thorax.shape[1]), field.bone)
        y = deformed(s, field)
    return field


def stage_bones(
    s: Scene, field: Field, m: Marks, settings: RegistrationSettings
) -> tuple[Field, float, NDArray[np.float64]]:
    """Every bone on its own, free to slide, under the thorax-wide field; the mean last movement, mm; and (B,) the share
    of their weight that pairs earned."""
    p = s.prepared
    y = deformed(s, field)
    base = p.mesh.vertices + p.thorax @ field.thorax.astype(np.float32)
    sigma = settings.sigma_normal[1], settings.sigma_tangent[1]
    ends = rib_ends(s, y, m)
    change = np.inf
    for k in range(settings.bone_steps):
        pairs = pair_up(s, y, p.nodes.shape[1], settings.backward_samples, settings.backward, FAR_MM)
        if k == 0:
            share = trust(s, y, pairs, sigma[0])
        pairs = believed(pairs, share)
        more = held(s, ends, base, p.thorax, doubts(share, settings))
        c = solve_bones(p.bone[pairs.vertex], pairs, pairs.goal - base[pairs.vertex], sigma, more)
        field = Field(field.thorax, c)
        before, y = y, deformed(s, field)
        change = float(np.linalg.norm(y - before, axis=1)[s.seen(y)].mean())
    return field, change, share


def stage_fine(s: Scene, y: Points, settings: RegistrationSettings) -> Points:
    """Bone by bone, small and mostly along the normal."""
    p = s.prepared
    base = y.copy()
    for _ in range(settings.fine_steps):
        pairs = pair_up(s, y, p.nodes.shape[1], settings.backward_samples, settings.backward, FAR_MM)
        gap = pairs.goal - base[pairs.vertex]
        c = solve_held(p.fine[pairs.vertex], pairs, gap, (settings.fine_sigma, settings.fine_tangent))
        y = base.copy()
        for b, ids in enumerate(s.members):
            y[ids] += p.fine[ids] @ c[b]
    return y


def gather(s: Scene, field: Field, smooth: Points, seen: NDArray[np.bool_], share: NDArray[np.float64]) -> Evidence:
    """What the fit before the fine stage, with its vertices ``smooth`` (V, 3), says of its own error."""
    p = s.prepared
    ahead = forward(s.target, s.forest, p.nodes, smooth, vertex_normals(smooth, p.mesh.faces), 3.0)
    return evidence(p, field.bone, smooth, ahead, p.weight * s.seen(smooth[p.nodes]), seen, share)


def flags(bones: dict[int, BoneFit]) -> tuple[Flag, ...]:
    """What a reviewer should look at."""
    unsure = [Flag(UNSURE, k, b.note) for k, b in bones.items() if b.expected_mm > REVIEW_MM and b.visible_fraction > 0]
    return (*unsure, *(Flag(ABSENT, k, "not on the scan") for k, b in bones.items() if b.visible_fraction == 0))


def swap_flags(prepared: Prepared, pairs: list[tuple[int, int]]) -> list[Flag]:
    """One flag for each bone whose label was exchanged with its neighbour's."""
    out = []
    for i, j in pairs:
        a, b = int(prepared.labels[i]), int(prepared.labels[j])
        out += [Flag(SWAPPED, k, f"labels of {' and '.join(names([a, b]))} exchanged for the fit") for k in (a, b)]
    return out


def register(template: Mesh | Prepared, target: Mesh, *, settings: RegistrationSettings | None = None) -> Registration:
    """Fit a template to a subject's labelled surfaces.

    Parameters
    ----------
    template : the template mesh, or, for many subjects, what :func:`prepare` made of it
    target : closed or cut surfaces with labels 1-37 (others are ignored), mm, LPS; ``fov`` if known

    Raises
    ------
    StudyError : the surfaces are not a thorax in millimetres (``bad_surface``), are ``mirrored``, hold
        ``too_few_bones``, or ribs that are numbered one off (``bad_labels``)
    """
    settings = settings or RegistrationSettings()
    with threadpool_limits(limits=1):
        prepared = template if isinstance(template, Prepared) else prepare(template, prior=settings.prior)
        check_target(target)
        target = sound(target)
        samples = sample_target(target, prepared.labels, settings.samples, settings.rib_samples)
        check_numbers(samples, prepared.labels, prepared.leanings)
        start = place(prepared, samples)
        placed = move(samples, start.scale, start.rotation, start.shift)
        pairs = swapped(prepared, placed)
        s = scene(prepared, exchange(placed, pairs), start)
        soft = stage_a(s, settings)
        y = deformed(s, soft)
        s = cleared(s, y)
        m = marks(prepared.markings, *shown(s), y, start.scale)
        field, change, share = stage_bones(s, stage_b(s, soft, m, settings), m, settings)
        smooth = deformed(s, field)
        y = start.inverse(stage_fine(s, smooth, settings))
        if prepared.clean:
            y = separate(prepared.mesh.with_vertices(y), rounds=settings.contact_rounds).mesh.vertices
        normals = vertex_normals(y, prepared.mesh.faces)
        seen, residual = visibility(y, normals, prepared.mesh.bone, target, samples.fov)
        bones = judge(prepared, seen, residual, gather(s, field, smooth, seen, share))
    return Registration(
        vertices=y,
        visible=seen,
        residual_mm=residual,
        bones=bones,
        iterations=settings.coarse_steps + settings.joint_steps + settings.bone_steps + settings.fine_steps,
        converged=change < CONVERGED_MM,
        scale=1.0 / start.scale,
        fov=samples.fov,
        flags=(*flags(bones), *swap_flags(prepared, pairs)),
    )
