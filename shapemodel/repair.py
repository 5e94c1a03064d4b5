"""Repair of a deformed mesh on fixed connectivity: better triangles by sliding vertices on the surface.

Only vertices around bad triangles move, only along the surface, and a change that makes triangles cut each
other is taken back. The energy is the inverse mean ratio with a regularised signed area, which also unfolds
(Escobar et al. 2003, simultaneous untangling and smoothing).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_array
from threadpoolctl import threadpool_limits

from shapemodel.clearing import clear
from shapemodel.contact import separate
from shapemodel.intersections import intersecting_pairs
from shapemodel.mesh import Faces, Mesh, Points, face_normals, vertex_normals
from shapemodel.meshquality import SHAPE_GATE, SHARE, Gate, Verdict, assess, triangle_metrics

POWER = 6
"""Exponent of the inverse mean ratio in the energy: the larger, the more the worst triangle counts."""

MARGIN_DEG = 2.0
"""Triangles up to this far above the target are improved too, so that 99 per cent pass with room to spare."""

ROLL_BACK_ROUNDS = 8
"""Halvings of a move that makes triangles cut each other; the last three take it back altogether."""

WIDE_ROUNDS, WIDE_ITERATIONS, WIDE_MM = 12, 60, 4.0
"""Rounds, quasi-Newton steps a round, and farthest slide in a round, mm, where a squeezed end is spread out."""

TURNS = 4
"""Turns of spreading and clearing, at most."""

PULL = 1e-3
"""Weight, per mm2, that keeps vertices where they were when their triangles do not mind."""


@dataclass(frozen=True)
class RepairSettings:
    """How hard to try.

    Attributes
    ----------
    rounds : times that vertices slide and are projected back onto the surface
    rings : rings of neighbours around a bad triangle that may move
    iterations : quasi-Newton steps a round
    most_mm : farthest a vertex may slide in one round
    wider : rings tried one after another, with as many rounds as needed, where a bone stays below the hard limit: a
        squeezed end has to be spread over much of its bone
    """

    rounds: int = 3
    rings: int = 3
    iterations: int = 25
    most_mm: float = 1.5
    wider: tuple[int, ...] = (6, 12, 25)


@dataclass(frozen=True)
class Repaired:
    """A repaired mesh and what it cost.

    Attributes
    ----------
    mesh : same connectivity, ids and arrays
    slid_mm : (V,) how far each vertex went
    off_surface_mm : (V,) how far it now is from the surface it came from
    rolled_back : vertices put back because their move made triangles cut each other
    """

    mesh: Mesh
    slid_mm: NDArray[np.float64]
    off_surface_mm: NDArray[np.float64]
    rolled_back: int


def repair(mesh: Mesh, gate: Gate = SHAPE_GATE, *, settings: RepairSettings = RepairSettings()) -> Repaired:  # noqa: B008
    """Improve the triangles of a shape towards the gate's target, bone by bone, with roll-back.

    The surface stays what it was (vertices are projected onto it); no face cuts another that did not before.
    """
    moved = mesh.vertices.copy()
    for label in mesh.labels:
        v, f, ids = mesh.select(label)
        moved[ids] = _improve_until(v, f, gate, settings)
    moved, back = _roll_back(mesh, moved)
    made = mesh.with_vertices(moved)
    return Repaired(made, np.linalg.norm(moved - mesh.vertices, axis=1), off_surface(made, mesh), back)


def heal(
    mesh: Mesh,
    gate: Gate = SHAPE_GATE,
    *,
    base: Points | None = None,
    rounds: int = 3,
    settings: RepairSettings = RepairSettings(),  # noqa: B008
) -> Repaired:
    """Everything a deformed shape may need: bones out of each other, then better triangles, until the gate passes.

    Of all states the one with the fewest failures of the gate is returned (least cutting pairs first), so the
    result is never worse than the input. ``off_surface_mm`` is what parting the bones cost.

    Parameters
    ----------
    base : (V, 3) a shape on these triangles that passes the gate; where pushing and sliding did not help, the shape
        follows it (:mod:`shapemodel.clearing`)
    """
    best, verdict = mesh, assess(mesh, gate)
    current, back = mesh, 0
    for _ in range(rounds):
        if verdict.passed:
            break
        apart = separate(current).mesh if len(verdict.intersections.pairs) else current
        done = repair(apart, gate, settings=settings)
        current, back = done.mesh, back + done.rolled_back
        now = assess(current, gate)
        if _rank(now) < _rank(verdict):
            best, verdict = current, now
    if base is not None and not verdict.passed:
        best = settle(best, base, gate, settings=settings)
    return Repaired(best, np.linalg.norm(best.vertices - mesh.vertices, axis=1), off_surface(best, mesh), back)


def settle(
    mesh: Mesh,
    base: Points,
    gate: Gate = SHAPE_GATE,
    *,
    settings: RepairSettings = RepairSettings(),  # noqa: B008
) -> Mesh:
    """The same without pushing, and faster: triangles spread along their bones, then the shape cleared, in turns.

    What is folded or cuts follows the base a little; what is merely squeezed is spread, so it stays on its surface.
    Of all states the one with the fewest failures is returned.
    """
    best, current = mesh, mesh
    verdict = now = assess(mesh, gate)
    for _ in range(TURNS):
        if verdict.passed:
            break
        current = clear(_spread(current, now, gate, settings), base, gate).mesh
        now = assess(current, gate)
        if _rank(now) < _rank(verdict):
            best, verdict = current, now
    return best


def _spread(mesh: Mesh, verdict: Verdict, gate: Gate, s: RepairSettings) -> Mesh:
    """Bones with triangles beyond the hard limits slid into better ones; all bones when too many miss the target.

    Bones that cut themselves wait for the next turn: sliding cannot unfold them.
    """
    pairs = verdict.intersections.bones
    folded = set(pairs[pairs[:, 0] == pairs[:, 1]].ravel().tolist())
    angle = triangle_metrics(mesh.vertices, mesh.faces)["min_angle"]
    all_of_them = np.percentile(angle, 100 - SHARE) < gate.min_angle_target + 1.0
    moved = mesh.vertices.copy()
    for label in set(mesh.labels) - folded:
        v, f, ids = mesh.select(label)
        if all_of_them or _worst(v, f, gate.min_angle_hard) > 0:
            moved[ids] = _improve_until(v, f, gate, s)
    return mesh.with_vertices(moved)


def off_surface(moved: Mesh, mesh: Mesh) -> NDArray[np.float64]:
    """(V,) mm, distance of each vertex that moved from its bone's surface before."""
    off = np.zeros(len(mesh.vertices))
    for label in mesh.labels:
        v, f, ids = mesh.select(label)
        gone = ids[(moved.vertices[ids] != v).any(axis=1)]
        if len(gone):
            off[gone] = np.linalg.norm(project(moved.vertices[gone], v, f) - moved.vertices[gone], axis=1)
    return off


def _rank(verdict: Verdict) -> tuple[int, int, float]:
    return len(verdict.intersections.pairs), len(verdict.failures), -verdict.whole.min_angle


def improve(
    vertices: Points,
    faces: Faces,
    target_deg: float,
    *,
    surface: tuple[Points, Faces] | None = None,
    settings: RepairSettings = RepairSettings(),  # noqa: B008
) -> Points:
    """Slide the vertices of one bone around triangles below ``target_deg`` (smallest angle); (V, 3) mm.

    ``surface`` is what vertices are projected onto, by default the mesh as given. The best round is returned,
    judged by the worst angle, so the result is never worse than the input.
    """
    onto = surface or (vertices, faces)
    best, current = vertices, vertices
    for _ in range(settings.rounds):
        bad = _bad_faces(current, faces, target_deg + MARGIN_DEG)
        if not bad.any():
            break
        current = _slide(current, faces, _grow(faces, bad, len(vertices), settings.rings), onto, settings)
        if _score(current, faces, target_deg) > _score(best, faces, target_deg):
            best = current
    return best


def _improve_until(vertices: Points, faces: Faces, gate: Gate, s: RepairSettings) -> Points:
    """Slide around bad triangles; over wider surroundings while any angle stays below the hard limit."""
    best = improve(vertices, faces, gate.min_angle_target, settings=s)
    for rings in s.wider:
        if _worst(best, faces, gate.min_angle_hard) <= 0:
            break
        wide = replace(s, rings=rings, rounds=WIDE_ROUNDS, iterations=WIDE_ITERATIONS, most_mm=WIDE_MM)
        trial = improve(vertices, faces, gate.min_angle_target, settings=wide)
        if _worst(trial, faces, gate.min_angle_hard) < _worst(best, faces, gate.min_angle_hard):
            best = trial
    return best


def _worst(vertices: Points, faces: Faces, limit: float) -> float:
    """How far, degrees, the smallest angle is below a limit and its margin; 0 or less where it is not."""
    return limit + MARGIN_DEG - float(triangle_metrics(vertices, faces)["min_angle"].min())


def project(points: Points, vertices: Points, faces: Faces) -> Points:
    """Nearest points (n, 3) on a triangle surface."""
    import gpytoolbox

    f = faces.astype(np.int32)
    _, face, weight = gpytoolbox.squared_distance(points, vertices, F=f, use_cpp=True)
    return np.asarray(np.einsum("ij,ijk->ik", weight, vertices[faces[face]]))


def _bad_faces(vertices: Points, faces: Faces, angle: float) -> NDArray[np.bool_]:
    """Triangles with a small angle, or folded against their surroundings."""
    normal = face_normals(vertices, faces)
    around = vertex_normals(vertices, faces)[faces].sum(axis=1)
    folded = np.einsum("ij,ij->i", normal, around) <= 0
    return np.asarray((triangle_metrics(vertices, faces)["min_angle"] < angle) | folded)


def _score(vertices: Points, faces: Faces, target: float) -> float:
    """Worst angle first (folded triangles count as negative), then the share below the target."""
    angle = triangle_metrics(vertices, faces)["min_angle"]
    normal = face_normals(vertices, faces)
    folded = np.einsum("ij,ij->i", normal, vertex_normals(vertices, faces)[faces].sum(axis=1)) <= 0
    worst = min(float(angle.min()), target)
    return worst - 100.0 * float(folded.mean()) * len(faces) - 10.0 * float((angle < target).mean())


def _grow(faces: Faces, bad: NDArray[np.bool_], n: int, rings: int) -> NDArray[np.int64]:
    """Vertices of the bad faces and of ``rings`` rings around them."""
    inside = np.zeros(n, dtype=bool)
    inside[faces[bad]] = True
    for _ in range(rings - 1):
        inside[faces[inside[faces].any(axis=1)]] = True
    return np.flatnonzero(inside)


def _slide(
    vertices: Points, faces: Faces, free: NDArray[np.int64], onto: tuple[Points, Faces], s: RepairSettings
) -> Points:
    """One round: minimise the energy over tangential moves of the free vertices, then project."""
    normal = vertex_normals(vertices, faces)
    first, second = _tangents(normal[free])
    number = np.full(len(vertices), -1, dtype=np.int64)
    number[free] = np.arange(len(free))
    own = faces[(number[faces] >= 0).any(axis=1)]
    up = normal[own].sum(axis=1)
    up /= np.maximum(np.linalg.norm(up, axis=1, keepdims=True), 1e-12)
    gather = csr_array((np.ones(own.size), (own.ravel(), np.arange(own.size))), shape=(len(vertices), own.size))[free]

    def cost(x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        uv = x.reshape(-1, 2)
        moved = vertices.copy()
        moved[free] += uv[:, :1] * first + uv[:, 1:] * second
        value, gradient = _energy(moved[own], up)
        g = gather @ gradient.reshape(-1, 3)
        uv_gradient = np.column_stack([np.einsum("ij,ij->i", g, t) for t in (first, second)])
        return value + PULL * float(x @ x), (uv_gradient + 2 * PULL * uv).ravel()

    options = {"maxiter": s.iterations, "maxcor": 12}
    with threadpool_limits(limits=1):  # threads make these short vectors slower, many times on a busy machine
        x = minimize(cost, np.zeros(2 * len(free)), jac=True, method="L-BFGS-B", options=options).x.reshape(-1, 2)
    x *= np.minimum(1.0, s.most_mm / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12))
    out = vertices.copy()
    out[free] = project(vertices[free] + x[:, :1] * first + x[:, 1:] * second, *onto)
    return out


def _tangents(normal: Points) -> tuple[Points, Points]:
    helper = np.where(np.abs(normal[:, :1]) < 0.7, [[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]])
    first = np.cross(normal, helper)
    first /= np.maximum(np.linalg.norm(first, axis=1, keepdims=True), 1e-12)
    return first, np.cross(normal, first)


def _energy(corner: NDArray[np.float64], up: Points) -> tuple[float, NDArray[np.float64]]:
    """Sum over triangles (n, 3, 3) of the inverse mean ratio to the power, and its gradient (n, 3, 3).

    The area is signed by the direction ``up`` and kept positive by ``(s + sqrt(s^2 + 4 d^2)) / 2``.
    """
    a, b, c = corner[:, 0], corner[:, 1], corner[:, 2]
    e0, e1, e2 = c - b, a - c, b - a
    squares = sum(np.einsum("ij,ij->i", e, e) for e in (e0, e1, e2))
    area = 0.5 * np.einsum("ij,ij->i", np.cross(e2, -e1), up)
    delta = 0.02 * float(np.median(squares)) / (4 * np.sqrt(3))
    root = np.sqrt(area**2 + 4 * delta**2)
    positive = 0.5 * (area + root)
    ratio = squares / (4 * np.sqrt(3) * positive)
    d_ratio = POWER * ratio ** (POWER - 1)
    by_squares = (d_ratio / (4 * np.sqrt(3) * positive))[:, None]
    by_area = (-d_ratio * ratio / positive * 0.5 * (1 + area / root))[:, None]
    gradient = np.stack([2 * (e1 - e2), 2 * (e2 - e0), 2 * (e0 - e1)], axis=1) * by_squares[:, None]
    for k, e in enumerate((e0, e1, e2)):
        gradient[:, k] += by_area * 0.5 * np.cross(up, e)
    return float((ratio**POWER).sum()), gradient


def _roll_back(mesh: Mesh, moved: Points) -> tuple[Points, int]:
    """Take back, by halves, moves that made faces cut each other; whole bones that ended worse than they began."""
    if not (moved != mesh.vertices).any():
        return moved, 0
    before = _pair_keys(mesh.vertices, mesh.faces)
    weight = np.ones(len(moved))
    for k in range(ROLL_BACK_ROUNDS):
        trial = mesh.vertices + weight[:, None] * (moved - mesh.vertices)
        new = np.setdiff1d(_pair_keys(trial, mesh.faces), before)
        if not len(new):
            break
        cutting = np.isin(np.arange(len(mesh.faces)), np.concatenate([new // len(mesh.faces), new % len(mesh.faces)]))
        around = _grow(mesh.faces, cutting, len(moved), 1 + k // 2)
        weight[around] *= 0.5 if k < ROLL_BACK_ROUNDS - 3 else 0.0
    target = SHAPE_GATE.min_angle_target
    for label in mesh.labels:
        v, f, ids = mesh.select(label)
        if (weight[ids] < 1).any() and _score(trial[ids], f, target) < _score(v, f, target):
            weight[ids] = 0.0
    trial = mesh.vertices + weight[:, None] * (moved - mesh.vertices)
    return trial, int((weight < 1).sum())


def _pair_keys(vertices: Points, faces: Faces) -> NDArray[np.int64]:
    pairs = intersecting_pairs(vertices, faces)
    return np.asarray(pairs[:, 0] * len(faces) + pairs[:, 1])
