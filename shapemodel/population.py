"""Population: corresponding vertices of many subjects, who they are, and their common rigid frame.

Vertex ``i`` is the same material point of everyone. ``visible`` says which vertices a study really showed;
the others were extrapolated by the registration and carry no information about the subject.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shapemodel.mesh import Faces, Mesh, Points, vertex_areas
from shapemodel.reasons import InputError

FORMAT = "shapemodel-population"
FORMAT_VERSION = 1

COVARIATES = ("age_years", "height_cm", "weight_kg", "lung_volume_ml")
"""Covariates that the pipeline collects when it has them; others may be added by name."""

GPA_TOLERANCE_MM = 1e-4
"""Root-mean-square change of the mean below which Procrustes has converged: that of float32 storage."""

COARSE_VERTICES = 3000
"""Vertices that settle the frames of a large population before all are used."""

Group = str | Sequence[bool] | NDArray[Any] | None
"""``None`` or ``pooled``: everyone; ``female``, ``male``; a boolean mask; or subject indices."""


@dataclass(frozen=True)
class Population:
    """Subjects in correspondence.

    Attributes
    ----------
    vertices : (S, V, 3) float32 or float64, mm, LPS
    visible : (S, V) bool, seen in the study (False: extrapolated by the registration)
    subjects : S pseudonyms
    sex : S of ``F``, ``M`` or None
    faces, bone : (F, 3) and (V,), those of the template
    prior : (V,) bool, vertices of the template that no study of the template's cohort showed
    covariates : name -> (S,) float64, NaN where unknown
    """

    vertices: NDArray[Any]
    visible: NDArray[np.bool_]
    subjects: tuple[str, ...]
    sex: tuple[str | None, ...]
    faces: Faces
    bone: NDArray[np.uint8]
    prior: NDArray[np.bool_]
    covariates: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        s, v = self.vertices.shape[:2]
        if self.vertices.shape != (s, v, 3) or self.visible.shape != (s, v):
            raise ValueError(f"expected (S, V, 3) and (S, V), got {self.vertices.shape} and {self.visible.shape}")
        if not len(self.subjects) == len(self.sex) == s:
            raise ValueError(f"{s} shapes, {len(self.subjects)} subjects, {len(self.sex)} sexes")
        if len(set(self.subjects)) != s:
            raise InputError("a subject stands twice in the population: every pseudonym must be unique")
        if len(self.bone) != v or len(self.prior) != v:
            raise ValueError(f"{v} vertices, but bone has {len(self.bone)} and prior {len(self.prior)}")
        bad = set(self.sex) - {"F", "M", None}
        if bad:
            raise InputError(f"sex must be F, M or unknown, found {sorted(map(str, bad))}")

    @property
    def n_subjects(self) -> int:
        """S."""
        return len(self.subjects)

    @property
    def n_vertices(self) -> int:
        """V."""
        return int(self.vertices.shape[1])

    @property
    def n_seen(self) -> NDArray[np.int64]:
        """(V,) how many subjects showed each vertex."""
        return np.asarray(self.visible.sum(axis=0), np.int64)

    def mesh(self, index: int) -> Mesh:
        """One subject as a mesh with the array ``visible``."""
        return Mesh(
            np.asarray(self.vertices[index], np.float64), self.faces, self.bone, None, {"visible": self.visible[index]}
        )

    def select(self, group: Group) -> Population:
        """The subjects of a group, in the same frame."""
        return self.take(group_index(self, group))

    def take(self, index: NDArray[np.int64]) -> Population:
        """These subjects, by index."""
        return replace(
            self,
            vertices=self.vertices[index],
            visible=self.visible[index],
            subjects=tuple(self.subjects[i] for i in index),
            sex=tuple(self.sex[i] for i in index),
            covariates={k: np.asarray(c)[index] for k, c in self.covariates.items()},
        )


def group_index(population: Population, group: Group) -> NDArray[np.int64]:
    """(n,) indices of the subjects of a group.

    Raises
    ------
    InputError
        for an unknown group name, a mask of another length, or a group without subjects
    """
    n = population.n_subjects
    if group is None or (isinstance(group, str) and group == "pooled"):
        index = np.arange(n)
    elif isinstance(group, str):
        letter = {"female": "F", "male": "M"}.get(group)
        if letter is None:
            raise InputError(f"unknown group {group!r}: expected pooled, female, male, a mask or indices")
        index = np.array([i for i, s in enumerate(population.sex) if s == letter], dtype=np.int64)
    else:
        chosen = np.asarray(group)
        if chosen.dtype == bool and len(chosen) != n:
            raise InputError(f"the group mask has {len(chosen)} entries for {n} subjects")
        index = np.flatnonzero(chosen) if chosen.dtype == bool else chosen.astype(np.int64)
    if not len(index):
        raise InputError(f"the group {group if isinstance(group, str) else 'given'!r} has no subjects")
    return np.asarray(index, np.int64)


def gather(
    meshes: Sequence[Mesh],
    *,
    subjects: Sequence[str],
    sex: Sequence[str | None] | None = None,
    covariates: Mapping[str, Sequence[float | None]] | None = None,
    prior: NDArray[np.bool_] | None = None,
) -> Population:
    """A population of registered meshes (same template, arrays ``visible``; all visible where absent)."""
    if not meshes:
        raise InputError("a population needs at least one registered mesh")
    first = meshes[0]
    for name, m in zip(subjects, meshes, strict=True):
        same = len(m.vertices) == len(first.vertices) and np.array_equal(m.bone, first.bone)
        if not same or not np.array_equal(m.faces, first.faces):
            raise InputError(
                f"{name}: {len(m.vertices)} vertices, {len(m.faces)} faces do not belong to the template of "
                f"{subjects[0]} ({len(first.vertices)}, {len(first.faces)}): register all with one template"
            )
    n = len(first.vertices)
    if prior is None:
        prior = np.asarray(first.arrays.get("prior", np.zeros(n, bool)), dtype=bool)
    return Population(
        np.stack([m.vertices for m in meshes]),
        np.stack([np.asarray(m.arrays.get("visible", np.ones(n, bool)), dtype=bool) for m in meshes]),
        tuple(subjects),
        tuple(sex) if sex is not None else (None,) * len(meshes),
        first.faces,
        first.bone,
        prior,
        {k: np.array([np.nan if x is None else x for x in c], float) for k, c in (covariates or {}).items()},
    )


def rigid_fit(source: Points, target: Points, weights: NDArray[Any]) -> tuple[Points, Points]:
    """Proper rotation (3, 3) and translation (3,) with ``source @ R.T + t`` nearest to target (Kabsch 1976).

    Weighted least squares; never a reflection, whatever the data.
    """
    w = np.asarray(weights, np.float64)
    total = w.sum()
    if total <= 0:
        raise ValueError("rigid fit without any weight")
    a, b = (w @ source) / total, (w @ target) / total
    rotation = nearest_rotation(((source - a) * w[:, None]).T @ (target - b)).T
    return rotation, b - rotation @ a


def nearest_rotation(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3, 3) the proper rotation nearest to a matrix, never a reflection."""
    u, _, vt = np.linalg.svd(matrix)
    flip = np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    return np.asarray(u @ flip @ vt)


def area_weights(vertices: Points, faces: Faces) -> NDArray[np.float64]:
    """(V,) share of the surface of each vertex, mean 1; uniform where there are no faces."""
    if not len(faces):
        return np.ones(len(vertices))
    area = vertex_areas(vertices, faces)
    return np.asarray(np.maximum(area / area.mean(), 1e-3), np.float64)


def align(population: Population, *, reference: Points | None = None, iterations: int = 100) -> Population:
    """Rigid generalised Procrustes on seen vertices: no reflection, size kept, weighted by area (Gower 1975).

    Each subject is laid on the mean of what the others show. Cut chests may still tilt, because what is cut
    does not pull: :func:`shapemodel.completion.complete` starts here and estimates frames and missing parts
    together. The frame is that of ``reference`` (V, 3), else that in which the subjects lie in their scans on average:
    one who lies askew does not turn all means. Large populations are aligned on every n-th vertex first, so that few
    passes over all vertices remain.
    """
    population = finite(population)
    visible = population.visible
    if reference is None:
        reference = _as_they_lie(population)
    weights = area_weights(np.asarray(reference, np.float64), population.faces)
    vertices = np.array(population.vertices, np.float64)
    stride = max(1, population.n_vertices // COARSE_VERTICES)
    if stride > 1:
        coarse = vertices[:, ::stride].copy()
        _procrustes(coarse, visible[:, ::stride], reference[::stride], weights[::stride], iterations)
        ones = np.ones(coarse.shape[1])
        for i in range(len(vertices)):
            rotation, shift = rigid_fit(vertices[i, ::stride], coarse[i], ones)
            vertices[i] = vertices[i] @ rotation.T + shift
    _procrustes(vertices, visible, reference, weights, iterations)
    return replace(population, vertices=vertices.astype(population.vertices.dtype))


def _as_they_lie(population: Population) -> Points:
    """(V, 3) the subject that shows most, turned about its centre so that the others lie on it unturned on average.

    The average of rotations is the proper rotation nearest to their sum (Moakher 2002).
    """
    most = int(np.argmax(population.visible.sum(axis=1)))
    shape = np.asarray(population.vertices[most], np.float64)
    weights = area_weights(shape, population.faces) * population.visible[most]
    turns = np.zeros((3, 3))
    for x, seen in zip(population.vertices, population.visible, strict=True):
        both = weights * seen
        turns += rigid_fit(np.asarray(x, np.float64), shape, both)[0] if both.any() else np.eye(3)
    centre = shape.mean(axis=0)
    return np.asarray((shape - centre) @ nearest_rotation(turns) + centre, np.float64)


def finite(population: Population) -> Population:
    """The population with zeros where hidden vertices are not numbers; a visible one that is not is refused."""
    bad = ~np.isfinite(population.vertices).all(axis=2)
    if not bad.any():
        return population
    if (bad & population.visible).any():
        i, j = np.argwhere(bad & population.visible)[0]
        raise InputError(f"{population.subjects[i]}: vertex {j} is visible but its position is not a number")
    return replace(population, vertices=np.where(bad[..., None], 0.0, population.vertices))


def _procrustes(
    vertices: NDArray[np.float64],
    visible: NDArray[np.bool_],
    reference: Points,
    weights: NDArray[np.float64],
    iterations: int,
) -> None:
    """Align in place; the mean keeps the reference's frame."""
    mean = np.array(reference, np.float64)
    for _ in range(iterations):
        for i in range(len(vertices)):
            rotation, shift = rigid_fit(vertices[i], mean, weights * visible[i])
            vertices[i] = vertices[i] @ rotation.T + shift
        new = seen_mean(vertices, visible)
        rotation, shift = rigid_fit(new, reference, weights)
        new = new @ rotation.T + shift
        change = float(np.sqrt(np.mean((new - mean) ** 2)))
        mean = new
        if change < GPA_TOLERANCE_MM:
            break


def seen_mean(vertices: NDArray[Any], visible: NDArray[np.bool_]) -> Points:
    """(V, 3) mean of the visible vertices; of the extrapolated ones where nobody saw the vertex."""
    count = visible.sum(axis=0)
    total = np.zeros(vertices.shape[1:])
    for x, seen in zip(vertices, visible, strict=True):
        total += np.where((seen | (count == 0))[:, None], x, 0.0)
    return np.asarray(total / np.where(count == 0, len(vertices), count)[:, None], np.float64)


def write_population(population: Population, path: str | Path) -> Path:
    """Store as HDF5 (contiguous (S, V, 3), so that it can be streamed); the same bytes for the same values."""
    import h5py

    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    meta = {"format": FORMAT, "version": FORMAT_VERSION, "subjects": population.subjects, "sex": population.sex}
    try:
        with h5py.File(part, "w") as f:
            f.attrs["metadata"] = json.dumps(meta, sort_keys=True)
            for name in ("vertices", "visible", "faces", "bone", "prior"):
                f.create_dataset(name, data=getattr(population, name), track_times=False)
            for name in sorted(population.covariates):
                f.create_dataset(f"covariates/{name}", data=population.covariates[name], track_times=False)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def read_population(path: str | Path) -> Population:
    """Read what :func:`write_population` wrote."""
    import h5py

    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    with h5py.File(path, "r") as f:
        meta = json.loads(f.attrs.get("metadata", "{}"))
        if meta.get("format") != FORMAT or meta.get("version") != FORMAT_VERSION:
            raise InputError(f"{path}: expected {FORMAT} version {FORMAT_VERSION}, found {meta.get('format')}")
        arrays = {name: f[name][()] for name in ("vertices", "visible", "faces", "bone", "prior")}
        covariates = {k: f["covariates"][k][()] for k in f["covariates"]} if "covariates" in f else {}
    return Population(subjects=tuple(meta["subjects"]), sex=tuple(meta["sex"]), covariates=covariates, **arrays)
