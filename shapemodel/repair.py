"""Repair of a deformed mesh on fixed connectivity: bones out of each other, better triangles, what cuts cleared.

Vertices slide along the surface (:mod:`shapemodel.sliding`); a slide that makes triangles cut each other is taken
back. Bones that penetrate are pushed apart (:mod:`shapemodel.contact`), or follow a clean shape where they do
(:mod:`shapemodel.clearing`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shapemodel.clearing import clear
from shapemodel.contact import separate
from shapemodel.intersections import find_again, intersecting_pairs
from shapemodel.mesh import Faces, Mesh, Points
from shapemodel.meshquality import SHAPE_GATE, Gate, Verdict, assess
from shapemodel.sliding import MARGIN_DEG, RepairSettings, improve_until, project, score
from shapemodel.walks import grow

ROLL_BACK_ROUNDS = 8
"""Halvings of a move that makes triangles cut each other; the last three take it back altogether."""

TURNS = 4
"""Turns of spreading and clearing, at most."""


@dataclass(frozen=True)
class Repaired:
    """A repaired mesh and what it cost.

    Attributes
    ----------
    mesh : same connectivity, ids and arrays
    slid_mm : (V,) how far each vertex went
    off_surface_mm : (V,) how far the surface went there (:func:`off_surface`)
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
        moved[ids] = improve_until(v, f, gate, settings)
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
        best, _ = settle(best, base, verdict, settings=settings)
    return Repaired(best, np.linalg.norm(best.vertices - mesh.vertices, axis=1), off_surface(best, mesh), back)


def _rank(verdict: Verdict) -> tuple[int, int, float]:
    return len(verdict.intersections.pairs), len(verdict.failures), -verdict.whole.min_angle


def settle(
    mesh: Mesh,
    base: Points,
    verdict: Verdict,
    *,
    settings: RepairSettings = RepairSettings(),  # noqa: B008
) -> tuple[Mesh, Verdict]:
    """The same, faster: triangles spread along their bones, then the shape cleared, in turns.

    What is folded or cuts follows the base a little; what is merely squeezed is spread, so it stays on its surface.
    Bones that still cut each other when turns no longer help, as where the base itself has hardly a gap, are pushed
    apart. Of all states the one with the fewest failures is returned, with what its gate says.

    Parameters
    ----------
    verdict : what the gate says of the mesh
    """
    gate, best, current, now = verdict.gate, mesh, mesh, verdict
    for _ in range(TURNS):
        if verdict.passed:
            break
        spread = _spread(current, now, gate, settings)
        cuts = find_again(spread, current, now.intersections)
        current = clear(spread, base, gate, cutting=cuts.faces).mesh
        now = assess(current, gate, cuts=find_again(current, spread, cuts))
        if _rank(now) >= _rank(verdict):
            break
        best, verdict = current, now
    if verdict.intersections.between:
        pushed = separate(best).mesh
        now = assess(pushed, gate)
        if _rank(now) < _rank(verdict):
            best, verdict = pushed, now
    return best, verdict


def _spread(mesh: Mesh, verdict: Verdict, gate: Gate, s: RepairSettings) -> Mesh:
    """Bones with triangles beyond the hard limits slid into better ones; all bones when too many miss the target.

    ``verdict`` is what the gate says of this mesh.

    Bones that cut themselves wait for the next turn: sliding cannot unfold them.
    """
    pairs = verdict.intersections.bones
    folded = set(pairs[pairs[:, 0] == pairs[:, 1]].ravel().tolist())
    all_of_them = verdict.whole.min_angle_99 < gate.min_angle_target + 1.0
    moved = mesh.vertices.copy()
    for part in verdict.parts:
        bad = all_of_them or part.min_angle < gate.min_angle_hard + MARGIN_DEG
        if bad and part.label not in folded:
            v, f, ids = mesh.select(part.label)
            moved[ids] = improve_until(v, f, gate, s)
    return mesh.with_vertices(moved) if (moved != mesh.vertices).any() else mesh


def off_surface(moved: Mesh, mesh: Mesh) -> NDArray[np.float64]:
    """(V,) mm, how far the surface went at each vertex that moved: from the bone's surface before, or that from it.

    Both ways count: a tip whose vertices slid back leaves its old place bare.
    """
    off = np.zeros(len(mesh.vertices))
    for label in mesh.labels:
        v, f, ids = mesh.select(label)
        u = moved.vertices[ids]
        gone = np.flatnonzero((u != v).any(axis=1))
        if len(gone):
            there, back = project(u[gone], v, f) - u[gone], project(v[gone], u, f) - v[gone]
            off[ids[gone]] = np.maximum(np.linalg.norm(there, axis=1), np.linalg.norm(back, axis=1))
    return off


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
        around = grow(mesh.faces, cutting, len(moved), 1 + k // 2)
        weight[around] *= 0.5 if k < ROLL_BACK_ROUNDS - 3 else 0.0
    target = SHAPE_GATE.min_angle_target
    for label in mesh.labels:
        v, f, ids = mesh.select(label)
        if (weight[ids] < 1).any() and score(trial[ids], f, target) < score(v, f, target):
            weight[ids] = 0.0
    trial = mesh.vertices + weight[:, None] * (moved - mesh.vertices)
    return trial, int((weight < 1).sum())


def _pair_keys(vertices: Points, faces: Faces) -> NDArray[np.int64]:
    pairs = intersecting_pairs(vertices, faces)
    return np.asarray(pairs[:, 0] * len(faces) + pairs[:, 1])
