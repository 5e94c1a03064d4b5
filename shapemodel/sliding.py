"""Sliding: better triangles on fixed connectivity, by moving vertices along the surface.

Only vertices around bad triangles move. The energy is the inverse mean ratio with a regularised signed area, which
also unfolds (Escobar et al. 2003, simultaneous untangling and smoothing).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_array
from threadpoolctl import threadpool_limits

from shapemodel.mesh import Faces, Points, face_normals, vertex_normals
from shapemodel.meshquality import Gate, triangle_metrics
from shapemodel.walks import grow

POWER = 6
"""Exponent of the inverse mean ratio in the energy: the larger, the more the worst triangle counts."""

MARGIN_DEG = 2.0
"""Triangles up to this far above the target are improved too, so that 99 per cent pass with room to spare."""

WIDE_ROUNDS, WIDE_ITERATIONS, WIDE_MM = 12, 60, 4.0
"""Rounds, quasi-Newton steps a round, and farthest slide in a round, mm, where a squeezed end is spread out."""

END_RINGS = 4
"""A tip is farther out than everything within so many rings: about 12 mm on a mesh of 3 mm."""

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


def improve(
    vertices: Points,
    faces: Faces,
    target_deg: float,
    *,
    surface: tuple[Points, Faces] | None = None,
    held: NDArray[np.bool_] | None = None,
    settings: RepairSettings = RepairSettings(),  # noqa: B008
) -> Points:
    """Slide the vertices of one bone around triangles below ``target_deg`` (smallest angle); (V, 3) mm.

    ``surface`` is what vertices are projected onto, by default the mesh as given; ``held`` (V,) vertices stay. The
    best round is returned, judged by the worst angle, so the result is never worse than the input.
    """
    onto = surface or (vertices, faces)
    best, current = vertices, vertices
    for _ in range(settings.rounds):
        bad = _bad_faces(current, faces, target_deg + MARGIN_DEG)
        if not bad.any():
            break
        free = grow(faces, bad, len(vertices), settings.rings)
        free = free if held is None else free[~held[free]]
        if not len(free):
            break
        current = _slide(current, faces, free, onto, settings)
        if score(current, faces, target_deg) > score(best, faces, target_deg):
            best = current
    return best


def improve_until(vertices: Points, faces: Faces, gate: Gate, s: RepairSettings) -> Points:
    """Slide around bad triangles; over wider surroundings while any angle stays below the hard limit.

    Ends of the bone stay, so that it does not become shorter: good triangles do not mind their size.
    """
    held = ends(vertices, faces)
    best = improve(vertices, faces, gate.min_angle_target, held=held, settings=s)
    for rings in s.wider:
        if below(best, faces, gate.min_angle_hard) <= 0:
            break
        wide = replace(s, rings=rings, rounds=WIDE_ROUNDS, iterations=WIDE_ITERATIONS, most_mm=WIDE_MM)
        trial = improve(vertices, faces, gate.min_angle_target, held=held, settings=wide)
        if below(trial, faces, gate.min_angle_hard) < below(best, faces, gate.min_angle_hard):
            best = trial
    return best


def ends(vertices: Points, faces: Faces) -> NDArray[np.bool_]:
    """(V,) whether a vertex is farther from the bone's centre than all within some rings of it: tips of any kind."""
    away = np.linalg.norm(vertices - vertices.mean(axis=0), axis=1)
    around = away.copy()
    for _ in range(END_RINGS):
        np.maximum.at(around, faces.ravel(), np.repeat(around[faces].max(axis=1), 3))
    return np.asarray(away >= around)


def below(vertices: Points, faces: Faces, limit: float) -> float:
    """How far, degrees, the smallest angle is below a limit and its margin; 0 or less where it is not."""
    return limit + MARGIN_DEG - float(triangle_metrics(vertices, faces)["min_angle"].min())


def project(points: Points, vertices: Points, faces: Faces) -> Points:
    """Nearest points (n, 3) on a triangle surface."""
    import gpytoolbox

    f = faces.astype(np.int32)
    _, face, weight = gpytoolbox.squared_distance(points, vertices, F=f, use_cpp=True)
    return np.asarray(np.einsum("ij,ijk->ik", weight, vertices[faces[face]]))


def _folded(vertices: Points, faces: Faces) -> NDArray[np.bool_]:
    """(F,) triangles folded against their surroundings."""
    around = vertex_normals(vertices, faces)[faces].sum(axis=1)
    return np.asarray(np.einsum("ij,ij->i", face_normals(vertices, faces), around) <= 0)


def _bad_faces(vertices: Points, faces: Faces, angle: float) -> NDArray[np.bool_]:
    """Triangles with a small angle, or folded against their surroundings."""
    return np.asarray((triangle_metrics(vertices, faces)["min_angle"] < angle) | _folded(vertices, faces))


def score(vertices: Points, faces: Faces, target: float) -> float:
    """Worst angle first (folded triangles count as negative), then the share below the target."""
    angle = triangle_metrics(vertices, faces)["min_angle"]
    worst = min(float(angle.min()), target)
    return worst - 100.0 * float(_folded(vertices, faces).mean()) * len(faces) - 10.0 * float((angle < target).mean())


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
    positive = np.where(area < 0, 2 * delta**2 / (root + np.abs(area)), 0.5 * (area + root))  # no cancellation
    ratio = squares / (4 * np.sqrt(3) * positive)
    d_ratio = POWER * ratio ** (POWER - 1)
    by_squares = (d_ratio / (4 * np.sqrt(3) * positive))[:, None]
    by_area = (-d_ratio * ratio / positive * 0.5 * (1 + area / root))[:, None]
    gradient = np.stack([2 * (e1 - e2), 2 * (e2 - e0), 2 * (e0 - e1)], axis=1) * by_squares[:, None]
    for k, e in enumerate((e0, e1, e2)):
        gradient[:, k] += by_area * 0.5 * np.cross(up, e)
    return float((ratio**POWER).sum()), gradient
