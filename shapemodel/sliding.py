"""Sliding: better triangles on fixed connectivity, by moving vertices along the surface.

Only vertices around bad triangles move. The energy is the inverse mean ratio with a regularised signed area, which
also unfolds (Escobar et al. 2003, simultaneous untangling and smoothing).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_array
from threadpoolctl import ThreadpoolController

from shapemodel.mesh import Faces, Points, face_normals, vertex_normals
from shapemodel.meshquality import Gate, triangle_metrics
from shapemodel.walks import grow

POWER = 6
"""Exponent of the inverse mean ratio in the energy: the larger, the more the worst triangle counts."""

MARGIN_DEG = 2.0
"""Triangles up to this far above the target are improved too, so that 99 per cent pass with room to spare."""

SAFE_DEG = 0.5
"""A bone this far above the hard limit passes: the much longer search over wider surroundings is not worth more."""

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
        if below(best, faces, gate.min_angle_hard) < MARGIN_DEG - SAFE_DEG:
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
    first, second = (np.ascontiguousarray(t.T) for t in _tangents(normal[free]))
    is_free = np.zeros(len(vertices), dtype=bool)
    is_free[free] = True
    own = np.ascontiguousarray(faces[is_free[faces].any(axis=1)].T)
    up = np.ascontiguousarray((normal[own[0]] + normal[own[1]] + normal[own[2]]).T)
    up /= np.maximum(np.sqrt((up * up).sum(axis=0)), 1e-12)
    gather = csr_array((np.ones(own.size), (own.ravel(), np.arange(own.size))), shape=(len(vertices), own.size))[free]
    start = np.ascontiguousarray(vertices.T)

    def cost(x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        u, v = x.reshape(2, -1)
        moved = start.copy()
        moved[:, free] += u * first + v * second
        value, gradient = _energy(moved.take(own, axis=1), up)
        g = [gather @ own_axis.ravel() for own_axis in gradient]
        slope = [t[0] * g[0] + t[1] * g[1] + t[2] * g[2] for t in (first, second)]
        return value + PULL * float(x @ x), np.concatenate(slope) + 2 * PULL * x

    options = {"maxiter": s.iterations, "maxcor": 12}
    with _threads().limit(limits=1):  # threads make these short vectors slower, many times on a busy machine
        found = minimize(cost, np.zeros(2 * len(free)), jac=True, method="L-BFGS-B", options=options)
    u, v = found.x.reshape(2, -1)
    share = np.minimum(1.0, s.most_mm / np.maximum(np.hypot(u, v), 1e-12))
    out = vertices.copy()
    out[free] = project(vertices[free] + (share * (u * first + v * second)).T, *onto)
    return out


@cache
def _threads() -> ThreadpoolController:
    """What sets the threads of linear algebra; to find the libraries takes longer than a round of sliding."""
    return ThreadpoolController()


def _tangents(normal: Points) -> tuple[Points, Points]:
    helper = np.where(np.abs(normal[:, :1]) < 0.7, [[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]])
    first = np.cross(normal, helper)
    first /= np.maximum(np.linalg.norm(first, axis=1, keepdims=True), 1e-12)
    return first, np.cross(normal, first)


def _energy(corner: NDArray[np.float64], up: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """Sum over triangles (axis, corner, n) of the inverse mean ratio to the power, and its gradient (axis, corner, n).

    The area is signed by the direction ``up`` (axis, n) and kept positive by ``(s + sqrt(s^2 + 4 d^2)) / 2``. Axes
    come first since numpy is several times faster along whole columns than on rows of three.
    """
    a, b, c = corner[:, 0], corner[:, 1], corner[:, 2]
    edges = (c - b, a - c, b - a)
    squares = sum((e * e).sum(axis=0) for e in edges)
    turned = [_cross(up, e) for e in edges]
    area = -0.5 * (turned[2] * edges[1]).sum(axis=0)  # up . (e2 x -e1), as a triple product
    delta = 0.02 * float(np.median(squares)) / (4 * np.sqrt(3))
    root = np.sqrt(area * area + 4 * delta**2)
    positive = np.where(area < 0, 2 * delta**2 / (root + np.abs(area)), 0.5 * (area + root))  # no cancellation
    ratio = squares / (4 * np.sqrt(3) * positive)
    power = ratio ** (POWER - 1)
    d_ratio = POWER * power
    by_squares = d_ratio / (2 * np.sqrt(3) * positive)
    by_area = d_ratio * ratio / positive * -0.25 * (1 + area / root)
    gradient = np.empty_like(corner)
    for k in range(3):
        gradient[:, k] = by_squares * (edges[(k + 1) % 3] - edges[(k + 2) % 3]) + by_area * turned[k]
    return float((power * ratio).sum()), gradient


def _cross(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cross products of columns (3, n)."""
    out = np.empty_like(b)
    for k, i, j in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        out[k] = a[i] * b[j] - a[j] * b[i]
    return out
