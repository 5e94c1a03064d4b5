"""Groupwise rounds: the template becomes the mean of its cohort, so that it favours no subject.

A round registers the template to every subject, lays the results on each other (similarity), takes the mean over
those that show a vertex, and repairs the mesh; rounds end when the template hardly moves. The mean size of the
cohort is restored in every round (Davies, Twining and Taylor 2008, on unbiased references).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from shapemodel.mesh import Mesh, Points, vertex_areas, vertex_normals
from shapemodel.meshquality import TEMPLATE_GATE, assess
from shapemodel.reasons import InputError, StudyError
from shapemodel.remesh import Progress, RemeshSettings, remesh_bones
from shapemodel.repair import heal
from shapemodel.surfaces import vertex_adjacency
from shapemodel.template import Placement, Template, apply, similarity_fit

logger = logging.getLogger(__name__)


class Registered(Protocol):
    """What a registration must offer: template vertices on the subject, and which of them the scan shows."""

    @property
    def vertices(self) -> Points: ...  # noqa: D102

    @property
    def visible(self) -> NDArray[np.bool_]: ...  # noqa: D102


Register = Callable[[Any, Mesh], Registered]


@dataclass(frozen=True)
class GroupwiseSettings:
    """When to stop, and how hidden parts count.

    Attributes
    ----------
    rounds, tol_mm : most rounds; the mean change along the normals that ends them earlier
    burn_in : rounds until the template is near its mean; from then on each subject's shape is the mean of what its
        registrations gave. A rib slides along itself by a millimetre or two from round to round, and one that a
        scan cuts may jump, so that single results would keep the mean moving for ever
    hidden_weight : weight of an extrapolated vertex against a seen one, so that nothing is undefined
    fade_rings : rings over which a subject's weight fades in from the border of what it shows; without this
        the mean would have a step where a subject with another posture drops out
    frame_hidden : weight of extrapolated vertices when subjects are laid on each other: cut chests must not tilt
    remesh : used when the repaired mean does not pass the gate of a template; None keeps its connectivity
    """

    rounds: int = 8
    tol_mm: float = 0.1
    burn_in: int = 1
    hidden_weight: float = 0.05
    fade_rings: int = 10
    frame_hidden: float = 0.3
    remesh: RemeshSettings | None = field(default_factory=RemeshSettings)


@dataclass(frozen=True)
class Groupwise:
    """An unbiased template and how it came about.

    Attributes
    ----------
    template : its ``prior`` marks the vertices that no subject showed
    moved_mm : mean movement of the vertices in each round, sliding on the surface included
    surface_mm : the part of it along the normals, in which the shape itself changed
    converged : whether the shape last changed by less than the tolerance
    n_seen : (V,) subjects that show each vertex
    refused : indices of subjects whose registration was refused in the last round
    failures : what the gate of a template finds wrong with the result; empty when it passes
    """

    template: Template
    moved_mm: tuple[float, ...]
    surface_mm: tuple[float, ...]
    converged: bool
    n_seen: NDArray[np.int64]
    refused: tuple[int, ...]
    failures: tuple[str, ...]


def groupwise(
    template: Template,
    subjects: Sequence[Mesh],
    register: Register,
    *,
    prepare: Callable[[Mesh], Any] | None = None,
    mapper: Callable[..., Iterable[Registered | None]] = map,
    settings: GroupwiseSettings = GroupwiseSettings(),  # noqa: B008
    progress: Progress | None = None,
) -> Groupwise:
    """Replace a template by the mean of its registrations until it moves less than the tolerance.

    Parameters
    ----------
    register : ``register(reference, subject)``; a :class:`StudyError` leaves that subject out of the round
    prepare : makes the reference out of the template mesh once a round, by default the mesh itself
    mapper : like ``map``, for parallel registration

    Raises
    ------
    StudyError ``registration_failed`` when not one subject could be registered.
    """
    if not subjects:
        raise InputError("groupwise rounds need at least one subject, found none")
    moved: list[tuple[float, float]] = []
    n_seen = np.zeros(len(template.mesh.vertices), np.int64)
    refused: tuple[int, ...] = ()
    held: list[Registered | None] = [None] * len(subjects)
    for k in range(settings.rounds):
        if progress:
            progress(f"template, round {k + 1}", k / settings.rounds)
        reference = prepare(template.mesh) if prepare else template.mesh
        results = list(mapper(_Attempt(register, reference), subjects))
        refused = tuple(i for i, r in enumerate(results) if r is None)
        held = _averaged(held, results, max(k + 1 - settings.burn_in, 1))
        mesh, n_seen = _round(template.mesh, [h for h, r in zip(held, results, strict=True) if h and r], settings)
        moved.append(_movement(template.mesh, mesh))
        template = Template(mesh.with_arrays(prior=n_seen == 0), n_seen == 0)
        logger.info("template round %d: moved %.3f mm, %.3f along normals", k + 1, *moved[-1])
        if moved[-1][1] < settings.tol_mm:
            break
    template, n_seen, failures = _fit_for_elements(template, n_seen, settings)
    vertices, surface = (tuple(m[i] for m in moved) for i in (0, 1))
    converged = bool(moved) and surface[-1] < settings.tol_mm
    return Groupwise(template, vertices, surface, converged, n_seen, refused, failures)


@dataclass(frozen=True)
class _Attempt:
    """Picklable: one registration, None where the study is refused."""

    register: Register
    reference: Any

    def __call__(self, subject: Mesh) -> Registered | None:
        try:
            return self.register(self.reference, subject)
        except StudyError as error:
            logger.warning("a subject is left out of the template: %s", error)
            return None


@dataclass(frozen=True)
class _Held:
    """What is held of a subject: its shape over the rounds, what its last registration saw."""

    vertices: Points
    visible: NDArray[np.bool_]


def _averaged(
    held: Sequence[Registered | None], results: Sequence[Registered | None], count: int
) -> list[Registered | None]:
    """Mean of each subject's shapes, of which this round's is number ``count`` since the burn-in.

    The step of Robbins and Monro 1951: noise of the registrations averages out, a drift of the mean does not.
    """
    out: list[Registered | None] = []
    for old, new in zip(held, results, strict=True):
        if old is None or new is None or count == 1:
            out.append(new or old)
        else:
            out.append(_Held(old.vertices + (new.vertices - old.vertices) / count, new.visible))
    return out


def _round(mesh: Mesh, found: Sequence[Registered], s: GroupwiseSettings) -> tuple[Mesh, NDArray[np.int64]]:
    """The repaired mean of one round, in the template's frame, of the cohort's mean size."""
    if not found:
        raise StudyError("registration_failed", "no subject could be registered to the template; see the log")
    shapes = np.array([r.vertices for r in found], np.float64)
    seen = np.array([r.visible for r in found], bool)
    mean = mean_shape(mesh, shapes, seen, settings=s)
    mesh = heal(mesh.with_vertices(mean), TEMPLATE_GATE, rounds=1).mesh
    return mesh, seen.sum(axis=0)


def mean_shape(
    mesh: Mesh,
    shapes: NDArray[np.float64],
    seen: NDArray[np.bool_],
    *,
    settings: GroupwiseSettings = GroupwiseSettings(),  # noqa: B008
    rounds: int = 10,
) -> Points:
    """Mean of corresponding shapes (S, V, 3) over those that show a vertex (S, V), after similarity alignment.

    The frame is the template's; the size is the geometric mean of the subjects' sizes.
    """
    area = vertex_areas(mesh.vertices, mesh.faces)
    weights = np.array([_faded(x, mesh, settings) for x in seen])
    frame = area * np.where(seen, 1.0, settings.frame_hidden)
    mean = mesh.vertices
    scales = np.ones(len(shapes))
    for _ in range(rounds):
        fits: list[Placement] = [size_fit(x, mean, w) for x, w in zip(shapes, frame, strict=True)]
        scales = np.array([f[0] for f in fits])
        laid = np.array([apply(f, x) for f, x in zip(fits, shapes, strict=True)])
        new = np.einsum("sv,svk->vk", weights, laid) / weights.sum(axis=0)[:, None]
        new = apply(size_fit(new, mesh.vertices, area), new)
        change, mean = float(np.abs(new - mean).mean()), new
        if change < settings.tol_mm / 100:
            break
    centre = np.average(mean, axis=0, weights=area)
    return np.asarray((mean - centre) * float(np.exp(-np.log(scales).mean())) + centre)


def size_fit(source: Points, target: Points, weights: NDArray[np.float64]) -> Placement:
    """Similarity whose scale is the ratio of the weighted sizes.

    The least-squares scale is smaller by as much as the shapes differ, so that a template would shrink or grow
    from round to round; this one is the same forth and back.
    """
    w = weights / weights.sum()
    _, rotation, _ = similarity_fit(source, target, w)
    a, b = w @ source, w @ target
    size = [np.sqrt(w @ ((x - c) ** 2).sum(axis=1)) for x, c in ((source, a), (target, b))]
    scale = float(size[1] / size[0])
    return scale, rotation, b - scale * a @ rotation.T


def _faded(seen: NDArray[np.bool_], mesh: Mesh, s: GroupwiseSettings) -> NDArray[np.float64]:
    """Weight (V,) of a subject's vertices: 1 well inside what it shows, fading to the border."""
    adjacency = vertex_adjacency(len(seen), mesh.faces)
    depth = np.where(seen, 1.0, 0.0)
    reach = depth.copy()
    for _ in range(s.fade_rings - 1):
        depth = np.where(seen & (adjacency @ (depth < 1) == 0), 1.0, 0.0) * depth
        reach += depth
    return np.asarray(s.hidden_weight + (1 - s.hidden_weight) * reach / s.fade_rings)


def _movement(before: Mesh, after: Mesh) -> tuple[float, float]:
    """Mean movement of vertices after the best rigid overlay, and its mean part along the normals; mm."""
    area = vertex_areas(before.vertices, before.faces)
    _, rotation, _ = similarity_fit(after.vertices, before.vertices, area)
    a = after.vertices - np.average(after.vertices, axis=0, weights=area)
    b = before.vertices - np.average(before.vertices, axis=0, weights=area)
    way = a @ rotation.T - b
    along = np.einsum("ij,ij->i", way, vertex_normals(before.vertices, before.faces))
    return float(np.linalg.norm(way, axis=1).mean()), float(np.abs(along).mean())


def _fit_for_elements(
    template: Template, n_seen: NDArray[np.int64], s: GroupwiseSettings
) -> tuple[Template, NDArray[np.int64], tuple[str, ...]]:
    """Remesh the mean where it does not pass the gate and remeshing helps; marks follow the nearest vertex."""
    old = template.mesh
    failures = assess(old, TEMPLATE_GATE).failures
    if s.remesh is None or not failures:
        return template, n_seen, failures
    try:
        mesh = remesh_bones({k: old.select(k)[:2] for k in old.labels}, settings=s.remesh)
    except StudyError as error:
        logger.warning("the mean could not be remeshed and keeps its triangles: %s", error)
        return template, n_seen, (*failures, str(error))
    now = assess(mesh, TEMPLATE_GATE).failures
    if len(now) >= len(failures):
        return template, n_seen, failures
    carried = np.zeros(len(mesh.vertices), np.int64)
    for label in mesh.labels:
        ids = np.flatnonzero(old.bone == label)
        mine = mesh.bone == label
        carried[mine] = n_seen[ids[cKDTree(old.vertices[ids]).query(mesh.vertices[mine])[1]]]
    return Template(mesh.with_arrays(prior=carried == 0), carried == 0), carried, now
