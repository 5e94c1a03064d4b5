"""Clearing: a shape that cuts itself gives way, where it does, to the smooth map of space that a clean shape obeys.

A *base* is a shape on the same triangles that passes the gate (the template, or a mean that was healed once).
Every other shape is the base displaced. Bones cut each other, ends fold and triangles collapse where that
displacement is not smooth in space: two sides of a joint go different ways, or neighbours on a thin end do. There,
and only there, it is replaced by its own local affine fit over a few millimetres, taken over all bones together.
A smooth map of space cannot make bones cut each other that the base keeps apart, and it bends triangles little.
The width of the fit grows from round to round, spot by spot, until the gate is passed; the rest of the shape stays
what it was to the last bit. Ids and triangles never change.

Reference: moving least squares, Levin 1998, Math. Comp. 67:1517.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.spatial import cKDTree

from shapemodel.intersections import intersecting_pairs, within_reach
from shapemodel.mesh import Mesh, Points, vertex_areas
from shapemodel.meshquality import SHAPE_GATE, Gate, triangle_metrics
from shapemodel.population import rigid_fit

Array = NDArray[np.float64]

KERNEL_REACH = 2.5
"""Standard deviations of the Gaussian weight within which vertices count (its weight there is 4 per cent)."""

FULL_WIDTH_MM = 5.0
"""Up to this width every vertex takes part in a fit; beyond it every n-th, as many in a width as here."""

RIDGE = 0.03
"""Added to the covariance of the points around, in squares of the width, so that flat surroundings stay solvable."""

CORE, RIM = 1.0, 3.0
"""In widths, around a bad place: full replacement up to the first, none from the second on."""

ANGLE_MARGIN_DEG = 0.5
"""Triangles this little above the hard limits are bettered too, so that rounding on export changes no verdict."""


@dataclass(frozen=True)
class ClearSettings:
    """How far to go.

    Attributes
    ----------
    widths_mm : Gaussian widths of the local fit, tried one after another at a spot until it is clean
    rounds : looks for bad places, at most
    """

    widths_mm: tuple[float, ...] = (2.0, 3.0, 4.5, 6.5, 9.0, 13.0, 18.0, 26.0)
    rounds: int = 10


@dataclass(frozen=True)
class Cleared:
    """A shape that gave way where it had to.

    Attributes
    ----------
    mesh : same connectivity, ids and arrays
    moved_mm : (V,) how far each vertex went
    rounds : looks for bad places that found some
    left : faces that are still bad (0: none)
    """

    mesh: Mesh
    moved_mm: Array
    rounds: int
    left: int


def clear(
    mesh: Mesh,
    base: Points,
    gate: Gate = SHAPE_GATE,
    *,
    cutting: NDArray[np.int64] | None = None,
    settings: ClearSettings = ClearSettings(),  # noqa: B008
) -> Cleared:
    """Let a shape give way where its triangles cut each other or break the gate's hard limits.

    Parameters
    ----------
    base : (V, 3) mm, a shape on these triangles that passes the gate; any rigid frame
    cutting : faces of the shape that cut another, when they are known; the result is then judged only around what
        changed, and ``left`` says no more than that
    """
    rotation, shift = rigid_fit(base, mesh.vertices, vertex_areas(mesh.vertices, mesh.faces))
    field = _Field(base @ rotation.T + shift, mesh, settings.widths_mm)
    level = np.zeros(len(base))
    current, done = mesh.vertices, 0
    everything = np.arange(len(mesh.faces))
    bad = _bad_faces(current, mesh, gate, everything, cutting)
    while len(bad) and done < settings.rounds:
        done += 1
        level = _raised(level, np.unique(mesh.faces[bad]), field)
        current = field.at(level)
        near = within_reach(current, mesh.faces, np.asarray((level > 0)[mesh.faces].any(axis=1)))
        bad = _bad_faces(current, mesh, gate, near)
        if not len(bad) and cutting is None:
            bad = _bad_faces(current, mesh, gate, everything)
    moved = np.linalg.norm(current - mesh.vertices, axis=1)
    return Cleared(mesh.with_vertices(current), moved, done, len(bad))


class _Field:
    """The displacement of a shape from its base, as it is (level 0) and fitted over ever wider surroundings."""

    def __init__(self, base: Points, mesh: Mesh, widths: tuple[float, ...]):
        self.base, self.widths, self.shape = base, widths, mesh.vertices
        self.weight = vertex_areas(base, mesh.faces)
        self.known = [np.zeros(len(base), bool) for _ in widths]
        self.fitted = [np.zeros_like(base) for _ in widths]

    def at(self, level: Array) -> Points:
        """(V, 3) vertices when each follows the field of its (fractional) level."""
        out = self.shape.copy()
        for i in range(len(self.widths)):
            rows = np.flatnonzero(level > i)
            if not len(rows):
                break
            self._fit(i, rows[~self.known[i][rows]])
            share = np.clip(level[rows] - i, 0.0, 1.0)[:, None]
            out[rows] += share * (self.base[rows] + self.fitted[i][rows] - out[rows])
        return out

    def _fit(self, i: int, rows: NDArray[np.int64]) -> None:
        """Local affine fits of the displacement at these vertices."""
        if not len(rows):
            return
        width = self.widths[i]
        nodes = np.arange(0, len(self.base), max(1, int((width / FULL_WIDTH_MM) ** 2)))
        near = cKDTree(self.base[rows]).sparse_distance_matrix(
            cKDTree(self.base[nodes]), KERNEL_REACH * width, output_type="ndarray"
        )
        weight = np.exp(-(near["v"] ** 2) / (2 * width**2)) * self.weight[nodes[near["j"]]]
        kernel = csr_array((weight, (near["i"], near["j"])), shape=(len(rows), len(nodes)))
        centre = self.base[rows].mean(axis=0)
        p, d = self.base[nodes] - centre, (self.shape - self.base)[nodes]
        products = np.hstack([np.einsum("vi,vj->vij", a, p).reshape(-1, 9) for a in (p, d)])
        sums = kernel @ np.hstack([np.ones((len(p), 1)), p, d, products])
        sums /= sums[:, :1]
        m, mean_d = sums[:, 1:4], sums[:, 4:7]
        cov = sums[:, 7:16].reshape(-1, 3, 3) - m[:, :, None] * m[:, None, :]
        cross = sums[:, 16:25].reshape(-1, 3, 3) - mean_d[:, :, None] * m[:, None, :]
        cov += RIDGE * width**2 * np.eye(3)
        slope = np.linalg.solve(cov, cross.transpose(0, 2, 1))
        self.fitted[i][rows] = mean_d + np.einsum("vi,vij->vj", self.base[rows] - centre - m, slope)
        self.known[i][rows] = True


def _raised(level: Array, bad: NDArray[np.int64], field: _Field) -> Array:
    """Levels one step up around these vertices, fading out at the rim of their new widths."""
    out = level.copy()
    steps = np.minimum(np.floor(level[bad] + 1e-9) + 1, len(field.widths)).astype(int)
    for step in np.unique(steps):
        width = field.widths[step - 1]
        seeds = cKDTree(field.base[bad[steps == step]])
        away = seeds.query(field.base, distance_upper_bound=RIM * width)[0]
        fade = np.clip((RIM - np.minimum(away / width, RIM)) / (RIM - CORE), 0.0, 1.0)
        out = np.maximum(out, step * fade * fade * (3 - 2 * fade))
    return out


def _bad_faces(
    vertices: Points, mesh: Mesh, gate: Gate, among: NDArray[np.int64], cutting: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Faces that cut another one (found, unless they are known), or break a hard limit."""
    faces = mesh.faces[among]
    m = triangle_metrics(vertices, faces)
    bad = m["min_angle"] < gate.min_angle_hard + ANGLE_MARGIN_DEG
    bad |= (m["max_angle"] > gate.max_angle_hard - ANGLE_MARGIN_DEG) | (m["aspect_ratio"] > 0.98 * gate.aspect_hard)
    bad |= m["edge_min"] < 1.02 * gate.edge_hard
    bad[intersecting_pairs(vertices, faces) if cutting is None else cutting] = True
    return among[bad]
