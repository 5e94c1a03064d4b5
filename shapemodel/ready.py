"""Ready for use: any shape of a model, made to pass the gate of exported shapes, and what that cost.

The work is done once, on the mean and on both sides of the first modes: :func:`healed` does it, and the model carries
the result. A vertex that had to slide on the mean takes the same place between the same neighbours on every other
shape, and one that gave way at a joint gives way by as much; along a mode, what the shapes at one and two standard
deviations needed beyond that is given in proportion. What a shape brings of its own is cleared with the healed mean as
its base.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from shapemodel.mesh import Mesh, Points
from shapemodel.meshquality import SHAPE_GATE, Gate, Verdict, assess
from shapemodel.model import ShapeModel
from shapemodel.reasons import InputError
from shapemodel.repair import heal, off_surface, settle

HEALED_MODES = 5
"""Modes that are healed beforehand: those that people ask for percentiles of."""

HEALED_SD = (1.0, 2.0)
"""Standard deviations at which they are; between them, and from the mean on, what was moved is taken in proportion."""

MOST_SD = 3.0
"""Beyond this a shape is given no more than here: nothing was seen of what it needs."""

UNMOVED_MM = 1e-6
"""A vertex that healing moved by less is where it was: below what a deck's decimals tell."""


@dataclass(frozen=True)
class Ready:
    """A shape as it is exported.

    Attributes
    ----------
    mesh : ids, triangles and arrays as asked for, and ``healed_mm`` (V,), distance from the surface asked for
    verdict : of the gate
    off_mm : (V,) the same distance; slid_mm : (V,) the whole way of each vertex, along the surface too
    """

    mesh: Mesh
    verdict: Verdict
    off_mm: NDArray[np.float64]
    slid_mm: NDArray[np.float64]

    @property
    def cost(self) -> str:
        """One sentence: what the repair changed."""
        n = int((self.slid_mm > UNMOVED_MM).sum())
        if not n:
            return "no vertex was moved"
        return (
            f"{n} of {len(self.slid_mm)} vertices were moved so that the mesh passes the gate: the surface by "
            f"{self.off_mm.mean():.3f} mm on average, {self.off_mm.max():.2f} mm at most"
        )


def clean_base(model: ShapeModel, template: Points | None = None, *, gate: Gate = SHAPE_GATE) -> Points:
    """(V, 3) the model's mean, healed.

    Parameters
    ----------
    template : (V, 3) the template, which passes the gate: the mean follows it where nothing else helps
    """
    return heal(model.mesh(model.mean), gate, base=template).mesh.vertices


def healed(model: ShapeModel, template: Points | None = None, *, gate: Gate = SHAPE_GATE) -> ShapeModel:
    """The model with its healed mean, and with what its first modes need to pass the gate (``base``, ``healing``)."""
    bare = replace(model, base=clean_base(model, template, gate=gate), healing=None)
    finish = Finisher(bare, gate=gate)
    count = min(HEALED_MODES, model.n_modes)
    healing = np.zeros((count, 2, len(HEALED_SD), model.n_vertices, 3), np.float32)
    for k in range(count):
        for i, sign in enumerate((-1.0, 1.0)):
            for j, sd in enumerate(HEALED_SD):
                scores = np.zeros(k + 1)
                scores[k] = sign * sd
                asked = model.mesh(model.instance(scores))
                healing[k, i, j] = finish(asked).mesh.vertices - finish.placed(asked.vertices)
    return replace(bare, healing=healing)


class Finisher:
    """Makes shapes of one model ready; what they share is worked out once."""

    def __init__(self, model: ShapeModel, *, gate: Gate = SHAPE_GATE):
        self.gate, self.model = gate, model
        self.base = clean_base(model, gate=gate) if model.base is None else model.base
        self.moved = np.flatnonzero(np.linalg.norm(self.base - model.mean, axis=1) > UNMOVED_MM)
        self.share = _places(model, self.base, self.moved)
        self.offset = self.base[self.moved] - self.share @ model.mean

    def placed(self, vertices: Points) -> Points:
        """(V, 3) a shape of the model whose vertices lie as healing left them on the mean."""
        out = vertices.copy()
        out[self.moved] = self.share @ vertices + self.offset
        return out

    def __call__(self, mesh: Mesh) -> Ready:
        """The shape, ready; its verdict says whether the gate is passed."""
        made = mesh.with_vertices(self.placed(mesh.vertices) + self._along_modes(mesh.vertices))
        verdict = assess(made, self.gate)
        if not verdict.passed:
            made, verdict = settle(made, self.base, verdict)
        off = off_surface(made, mesh)
        slid = np.linalg.norm(made.vertices - mesh.vertices, axis=1)
        return Ready(made.with_arrays(healed_mm=off), verdict, off, slid)

    def _along_modes(self, vertices: Points) -> NDArray[np.float32]:
        """(V, 3) mm that the shapes beside this one along the first modes needed, in proportion to its scores."""
        total = np.zeros(vertices.shape, np.float32)
        healing = self.model.healing
        if healing is None:
            return total
        scores = self.model.truncate(len(healing)).scores_of(vertices).tolist()
        for score, sides in zip(scores, healing, strict=True):
            for weight, moved in zip(_shares(abs(score)), sides[int(score > 0)], strict=True):
                if weight:
                    total += np.float32(weight) * moved
        return total


def _shares(score: float) -> NDArray[np.float64]:
    """Weights of the shapes at ``HEALED_SD`` for one at ``score``, by straight lines from 0 through them and beyond."""
    knots = np.array([0.0, *HEALED_SD])
    x = min(score, MOST_SD)
    i = int(np.clip(np.searchsorted(knots, x) - 1, 0, len(knots) - 2))
    t = (x - knots[i]) / (knots[i + 1] - knots[i])
    out = np.zeros(len(knots))
    out[i], out[i + 1] = 1.0 - t, t
    return out[1:]


def _places(model: ShapeModel, base: Points, moved: NDArray[np.int64]) -> csr_array:
    """(n, V) where, between which vertices of the mean's surface, the moved vertices of the base lie."""
    import gpytoolbox

    rows, columns, values = [], [], []
    bone = model.reference.bone
    for label in np.unique(bone[moved]):
        own = np.flatnonzero(bone[moved] == label)
        v, f, ids = model.reference.with_vertices(model.mean).select(int(label))
        _, face, weight = gpytoolbox.squared_distance(base[moved[own]], v, F=f.astype(np.int32), use_cpp=True)
        rows.append(np.repeat(own, 3))
        columns.append(ids[f[face]].ravel())
        values.append(np.asarray(weight).ravel())
    shape = (len(moved), model.n_vertices)
    if not rows:
        return csr_array(shape)
    return csr_array((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=shape)


def insist(found: Ready | Verdict, what: str) -> None:
    """Refuse what does not pass the gate, with the place.

    Raises
    ------
    InputError
        with the criteria that failed and where
    """
    verdict = found.verdict if isinstance(found, Ready) else found
    if not verdict.passed:
        raise InputError(f"{what} does not pass the {verdict.gate.name} gate: {'; '.join(verdict.failures[:4])}")
