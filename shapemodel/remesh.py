"""Remeshing: a closed surface becomes uniform triangles of a set edge length, fit for finite elements.

Botsch and Kobbelt 2004 (isotropic remeshing by split, collapse, flip and tangential smoothing; gpytoolbox's
``remesh_botsch``), then tangential repair of what stayed bad, then an offset that restores the volume. Thin
ends get shorter edges: space is magnified around them while the remesher works.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from shapemodel.anatomy import bone, names
from shapemodel.carve import CarveSettings, carve
from shapemodel.intersections import intersecting_pairs
from shapemodel.mesh import Faces, Mesh, Points, join, volume
from shapemodel.meshquality import TEMPLATE_GATE, assess, open_edges, triangle_metrics
from shapemodel.reasons import StudyError
from shapemodel.repair import heal
from shapemodel.sliding import improve
from shapemodel.surfaces import euler_number, keep_pieces, to_volume

logger = logging.getLogger(__name__)

Progress = Callable[[str, float], None]
Part = tuple[Points, Faces]

FIRST_ITERATIONS = 4
"""Rounds of the remesher that suffice to see which ends it cuts off."""

EDGE_FACTORS = (1.0, 0.96, 1.04, 0.92)
"""Edge lengths tried one after another, as shares of the one wanted: the remesher now and then pinches a thin place."""

MEAN_TRIANGLE = np.sqrt(3) / 2
"""Area per vertex of a uniform mesh, in squares of its edge length."""


MOST_LOST = 0.05
"""Share of a bone that new triangles may leave behind: joints are carved back by more than an edge in few places."""


@dataclass(frozen=True)
class RemeshSettings:
    """How surfaces become FE meshes.

    Attributes
    ----------
    edge_mm : edge length
    tip_edge_mm : edge length at thin ends, where ``edge_mm`` would cut off more than ``tip_loss_mm``
    tip_loss_mm : distance from the surface to the mesh that makes a place a thin end
    tip_reach_mm : size of the region with shorter edges
    most_tips : thin ends treated, at most, on a bone
    iterations : rounds of the remesher
    carve : gap between neighbouring bones
    """

    edge_mm: float = 3.0
    tip_edge_mm: float = 2.0
    tip_loss_mm: float = 0.8
    tip_reach_mm: float = 6.0
    most_tips: int = 8
    iterations: int = 10
    carve: CarveSettings = field(default_factory=CarveSettings)


def remesh(vertices: Points, faces: Faces, *, settings: RemeshSettings = RemeshSettings()) -> Part:  # noqa: B008
    """Uniform triangles on one closed surface, of the same volume.

    Raises
    ------
    StudyError ``bad_surface`` when the surface is not closed and manifold.
    """
    if open_edges(faces):
        raise StudyError(
            "bad_surface", f"expected a closed manifold surface, found {open_edges(faces)} edges that are not"
        )
    coarse = _botsch(vertices, faces, settings.edge_mm, FIRST_ITERATIONS)
    tips = _thin_ends(vertices, *coarse, settings)
    warped = _magnified(vertices, tips, settings)
    best: Part | None = None
    for factor in EDGE_FACTORS:
        u, g = _botsch(warped, faces, settings.edge_mm * factor, settings.iterations)
        u, g = keep_pieces(_carry_back(u, warped, vertices, faces), g, 0.5)
        u = improve(u, g, TEMPLATE_GATE.min_angle_target, surface=(vertices, faces))
        u = to_volume(u, g, volume(vertices, faces))
        if _is_fit(u, g, euler_number(len(vertices), faces)):
            return u, g
        best = best or (u, g)
    assert best is not None
    logger.warning("a bone could not be remeshed within the limits of a template; its best mesh is kept")
    return best


def _is_fit(u: Points, g: Faces, euler: int) -> bool:
    """Whether a remeshed bone has its topology, good triangles, and none that cut each other."""
    angle = triangle_metrics(u, g)["min_angle"].min()
    return bool(euler_number(len(u), g) == euler and angle >= TEMPLATE_GATE.min_angle_hard) and not len(
        intersecting_pairs(u, g)
    )


def remesh_bones(
    parts: Mapping[int, Part],
    *,
    settings: RemeshSettings = RemeshSettings(),  # noqa: B008
    progress: Progress | None = None,
) -> Mesh:
    """The FE mesh of many bones: neighbours carved apart, each remeshed, what still touches pushed apart."""
    carved = carve(parts, settings=settings.carve)
    out: dict[int, Part] = {}
    for i, (label, (v, f)) in enumerate(sorted(carved.items())):
        if progress:
            progress(f"remesh {bone(label).name}", i / len(carved))
        out[label] = remesh(v, f, settings=settings)
    return heal(join(out), TEMPLATE_GATE).mesh


def remesh_again(mesh: Mesh, settings: RemeshSettings) -> tuple[Mesh, tuple[str, ...]]:
    """A mesh on new, even triangles, its bones apart, and what the gate of a template still finds wrong.

    It stays as it is where that makes it worse, and a bone where new triangles would lose part of it.
    """
    failures = assess(mesh, TEMPLATE_GATE).failures
    try:
        fresh = remesh_bones({k: mesh.select(k)[:2] for k in mesh.labels}, settings=settings)
    except StudyError as error:
        logger.warning("a mesh keeps its triangles, since new ones failed: %s", error)
        return mesh, failures
    if lost := [k for k in mesh.labels if lost_part(mesh, fresh, k, settings.edge_mm) > MOST_LOST]:
        logger.warning("new triangles lose part of %s, which keep theirs", ", ".join(names(lost)))
        fresh = heal(join({k: (mesh if k in lost else fresh).select(k)[:2] for k in mesh.labels}), TEMPLATE_GATE).mesh
    now = assess(fresh, TEMPLATE_GATE).failures
    return (fresh, now) if len(now) <= len(failures) else (mesh, failures)


def lost_part(mesh: Mesh, fresh: Mesh, label: int, reach_mm: float) -> float:
    """Share of a bone's vertices that lie farther than ``reach_mm`` from its new surface.

    The remesher may pinch a thin rib off in the middle, after which only its larger piece is kept.
    """
    import gpytoolbox

    v, f, _ = fresh.select(label)
    if not len(f):
        return 1.0
    square = gpytoolbox.squared_distance(mesh.select(label)[0], v, F=f.astype(np.int32), use_cpp=True)[0]
    return float(np.mean(square > reach_mm**2))


def edge_for_vertices(parts: Mapping[int, Part], target_vertices: int) -> float:
    """Edge length (mm) at which these surfaces have about so many vertices."""
    from shapemodel.mesh import face_normals

    area = sum(float(np.linalg.norm(face_normals(v, f), axis=1).sum()) / 2 for v, f in parts.values())
    return float(np.sqrt(area / target_vertices / MEAN_TRIANGLE))


def _botsch(vertices: Points, faces: Faces, edge_mm: float, iterations: int) -> Part:
    import gpytoolbox

    u, g = gpytoolbox.remesh_botsch(vertices.copy(), faces.astype(np.int32), iterations, edge_mm, True)
    return np.asarray(u, np.float64), np.asarray(g, np.int64)


def _thin_ends(vertices: Points, u: Points, g: Faces, s: RemeshSettings) -> Points:
    """(n, 3) places where the uniform mesh cuts off too much of the surface, worst first."""
    import gpytoolbox

    if s.tip_edge_mm >= s.edge_mm:
        return np.zeros((0, 3))
    square = gpytoolbox.squared_distance(vertices, u, F=g.astype(np.int32), use_cpp=True)[0]
    loss = np.sqrt(square)
    tips: list[Points] = []
    while len(tips) < s.most_tips and loss.max() > s.tip_loss_mm:
        tips.append(vertices[loss.argmax()])
        loss[np.linalg.norm(vertices - tips[-1], axis=1) < 2 * s.tip_reach_mm] = 0.0
    return np.array(tips).reshape(-1, 3)


def _magnified(vertices: Points, tips: Points, s: RemeshSettings) -> Points:
    """Space blown up around the thin ends by the ratio of the edge lengths, fading as a Gaussian."""
    out = vertices.copy()
    for tip in tips:
        away = vertices - tip
        fade = np.exp(-np.einsum("ij,ij->i", away, away) / (2 * s.tip_reach_mm**2))
        out += (s.edge_mm / s.tip_edge_mm - 1) * away * fade[:, None]
    return out


def _carry_back(points: Points, warped: Points, vertices: Points, faces: Faces) -> NDArray[np.float64]:
    """Points on the warped surface, to the same places of the true one."""
    import gpytoolbox

    _, face, weight = gpytoolbox.squared_distance(points, warped, F=faces.astype(np.int32), use_cpp=True)
    return np.asarray(np.einsum("ij,ijk->ik", weight, vertices[faces[face]]))
