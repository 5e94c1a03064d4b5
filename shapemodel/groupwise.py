"""Groupwise rounds: the template becomes the mean of its cohort, so that it favours no subject.

A round registers the template to every subject, lays the results on each other (similarity), takes the mean over
those that show a vertex, and meshes it anew; rounds end when the template hardly moves. The mean size of the cohort is
restored in every round (Davies, Twining and Taylor 2008, on unbiased references). Without new triangles the few at thin
ends are drawn out from round to round until tips are spikes.

:func:`groupwise` does all of it in memory; its steps (:func:`averaged`, :func:`next_round`) are there for those who
keep what is between them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from shapemodel.carrying import Carry, carry
from shapemodel.mesh import Mesh, Points, vertex_areas
from shapemodel.meshquality import TEMPLATE_GATE, assess
from shapemodel.overlay import movement, size_fit
from shapemodel.reasons import InputError, StudyError
from shapemodel.remesh import Progress, RemeshSettings, remesh_again
from shapemodel.repair import heal
from shapemodel.surfaces import vertex_adjacency
from shapemodel.template import Placement, Template, apply

logger = logging.getLogger(__name__)


class Registered(Protocol):
    """What a registration must offer: template vertices on the subject, and which of them the scan shows."""

    @property
    def vertices(self) -> Points: ...  # noqa: D102

    @property
    def visible(self) -> NDArray[np.bool_]: ...  # noqa: D102


Register = Callable[[Any, Mesh], Registered]

SPECK_RINGS = 2
"""Hidden patches less deep than this are no part that a scan cuts off: on whole phantoms 1 to 3 % of the vertices."""


@dataclass(frozen=True)
class GroupwiseSettings:
    """When to stop, and how hidden parts count.

    Attributes
    ----------
    rounds, tol_mm : most rounds, 0: none; the mean change along the normals that ends them earlier
    burn_in : rounds until the template is near its mean; from then on each subject's shape is the mean of what its
        registrations gave. A rib slides along itself by a millimetre or two from round to round, and one that a
        scan cuts may jump, so that single results would keep the mean moving for ever
    hidden_weight : weight of an extrapolated vertex against a seen one, so that nothing is undefined
    fade_rings : rings over which a subject's weight fades in from the border of what it shows; without this
        the mean would have a step where a subject with another posture drops out
    frame_hidden : weight of extrapolated vertices when subjects are laid on each other: cut chests must not tilt
    """

    rounds: int = 4
    tol_mm: float = 0.1
    burn_in: int = 1
    hidden_weight: float = 0.05
    fade_rings: int = 10
    frame_hidden: float = 0.3


@dataclass(frozen=True)
class Held:
    """What is held of a subject from round to round.

    Attributes
    ----------
    vertices : (V, 3) mm, mean of what its registrations gave
    shown : (V,) share of them that saw the vertex
    count : registrations in the mean
    """

    vertices: Points
    shown: NDArray[np.float64]
    count: int = 1

    @property
    def visible(self) -> NDArray[np.bool_]:
        """Whether most registrations saw the vertex."""
        return np.asarray(self.shown >= 0.5)

    def carried(self, carry: Carry) -> Held:
        """The same on other triangles."""
        return Held(carry.blended(self.vertices), carry.picked(self.shown), self.count)


@dataclass(frozen=True)
class Round:
    """What a round made of the template.

    Attributes
    ----------
    template : the mean, repaired and meshed anew; ``prior`` marks vertices that no subject showed
    moved_mm : how far the mean moved from the one before (or the first template), mean over vertices, sliding included
    surface_mm : the part of it along the normals, in which the shape itself changed
    n_seen : (V,) subjects that show each vertex
    mean : (V, 3) mm, where its vertices lie on the mean as the subjects gave it, unrepaired
    carry : on which triangles of that mean
    failures : what the gate of a template finds wrong with it; empty when it passes
    """

    template: Template
    moved_mm: float
    surface_mm: float
    n_seen: NDArray[np.int64]
    mean: Points
    carry: Carry
    failures: tuple[str, ...]


@dataclass(frozen=True)
class Groupwise:
    """An unbiased template and how it came about.

    Attributes
    ----------
    template : its ``prior`` marks the vertices that no subject showed
    moved_mm, surface_mm : of each :class:`Round`
    converged : whether the shape last changed by less than the tolerance
    n_seen : (V,) subjects that show each vertex
    refused : indices of subjects whose registration was refused in some round
    failures : what the gate of a template finds wrong with the last mean; empty when it passes
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
    remesh: RemeshSettings | None = None,
    progress: Progress | None = None,
) -> Groupwise:
    """Replace a template by the mean of its registrations until it moves less than the tolerance.

    A mean that is meshed anew and still misses the gate of a template is not used: rounds end with the one before.

    Parameters
    ----------
    register : ``register(reference, subject)``; a :class:`StudyError` leaves that subject out from there on
    prepare : makes the reference out of the template mesh once a round, by default the mesh itself
    mapper : like ``map``, for parallel registration
    remesh : triangles of the means; None: those of the template

    Raises
    ------
    StudyError ``registration_failed`` when not one subject could be registered.
    """
    if not subjects:
        raise InputError("groupwise rounds need at least one subject, found none")
    moved: list[tuple[float, float]] = []
    n_seen = np.zeros(len(template.mesh.vertices), np.int64)
    failures: tuple[str, ...] = ()
    held: dict[int, Held | None] = dict.fromkeys(range(len(subjects)))
    mean: Points | None = None
    for number in range(1, settings.rounds + 1):
        if progress:
            progress(f"template, round {number}", (number - 1) / settings.rounds)
        reference = prepare(template.mesh) if prepare else template.mesh
        results = zip(list(held), mapper(_Attempt(register, reference), [subjects[i] for i in held]), strict=True)
        now = {i: averaged(held[i], found, number, settings=settings) for i, found in results if found}
        done = next_round(template, list(now.values()), before=mean, settings=settings, remesh=remesh)
        if done.failures and remesh is not None:
            logger.warning("template round %d is dropped, the one before stays: %s", number, "; ".join(done.failures))
            break
        held = {i: h.carried(done.carry) for i, h in now.items()}
        template, mean, n_seen, failures = done.template, done.mean, done.n_seen, done.failures
        moved.append((done.moved_mm, done.surface_mm))
        logger.info("template round %d: moved %.3f mm, %.3f along normals", number, *moved[-1])
        if done.surface_mm < settings.tol_mm:
            break
    vertices, surface = (tuple(m[i] for m in moved) for i in (0, 1))
    converged = bool(moved) and surface[-1] < settings.tol_mm
    refused = tuple(i for i in range(len(subjects)) if i not in held)
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


def averaged(
    before: Held | None,
    found: Registered,
    number: int,
    *,
    settings: GroupwiseSettings = GroupwiseSettings(),  # noqa: B008
) -> Held:
    """A subject's shape after round ``number`` (from 1): the mean of its registrations since the burn-in.

    The step of Robbins and Monro 1951: noise of the registrations averages out, a drift of the mean does not.
    """
    shown = np.asarray(found.visible, np.float64)
    if before is None or number <= settings.burn_in + 1:
        return Held(found.vertices, shown)
    count = before.count + 1
    vertices = before.vertices + (found.vertices - before.vertices) / count
    return Held(vertices, before.shown + (shown - before.shown) / count, count)


def next_round(
    template: Template,
    found: Sequence[Registered],
    *,
    before: Points | None = None,
    settings: GroupwiseSettings = GroupwiseSettings(),  # noqa: B008
    remesh: RemeshSettings | None = None,
) -> Round:
    """The mean of what a round found of its subjects, in the template's frame, of the cohort's mean size.

    Parameters
    ----------
    before : ``mean`` of the round before, from which the movement counts: what repair and new triangles do to a mean
        they do to each, so the distance from the template never falls below that; None: from the template

    Raises
    ------
    StudyError ``registration_failed`` when nothing was found.
    """
    if not found:
        raise StudyError("registration_failed", "no subject could be registered to the template; see the log")
    shapes = np.array([r.vertices for r in found], np.float64)
    seen = np.array([r.visible for r in found], bool)
    mean = mean_shape(template.mesh, shapes, seen, settings=settings)
    raw = template.mesh.with_vertices(mean)
    mesh = heal(raw, TEMPLATE_GATE, rounds=1).mesh
    fresh, failures = remesh_again(mesh, remesh) if remesh else (mesh, assess(mesh, TEMPLATE_GATE).failures)
    onto = carry(fresh, raw)  # not on the repaired one, whose vertices are no longer where the subjects' are
    n_seen = onto.picked(seen.sum(axis=0))
    made = Template(replace(fresh, arrays={"prior": n_seen == 0}), n_seen == 0)
    moved = movement(template.mesh if before is None else template.mesh.with_vertices(before), raw)
    return Round(made, *moved, n_seen, onto.blended(raw.vertices), onto, failures)


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


def _faded(seen: NDArray[np.bool_], mesh: Mesh, s: GroupwiseSettings) -> NDArray[np.float64]:
    """Weight (V,) of a subject's vertices: 1 well inside what it shows, fading to the border.

    Only what a scan cuts off makes a border. Specks, where a tip was missed or a crest lies beside the surface, are
    others in every registration; were they to fade, the mean would move by that for ever.
    """
    adjacency = vertex_adjacency(len(seen), mesh.faces)
    hidden = _without_specks(~seen, adjacency)
    depth = np.where(hidden, 0.0, 1.0)
    reach = depth.copy()
    for _ in range(s.fade_rings - 1):
        depth = np.where(adjacency @ (depth < 1) == 0, 1.0, 0.0) * depth
        reach += depth
    return np.asarray(s.hidden_weight + (1 - s.hidden_weight) * reach / s.fade_rings)


def _without_specks(marked: NDArray[np.bool_], adjacency: csr_array) -> NDArray[np.bool_]:
    """Marked vertices (V,) without patches, and fringes of patches, that are not ``SPECK_RINGS`` deep (an opening)."""
    core = marked
    for _ in range(SPECK_RINGS):
        core = core & (adjacency @ ~core == 0)
    for _ in range(SPECK_RINGS):
        core = core | (adjacency @ core > 0)
    return np.asarray(core & marked)
