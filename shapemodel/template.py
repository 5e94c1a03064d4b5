"""Template: the reference thorax whose vertices every subject is brought to.

No study need show a whole thorax. The first template is composed bone by bone from complete instances of the
most central subjects, then from mirror images, then from a fallback shape, brought together in one frame; its
vertices that no study showed are marked ``prior``. Groupwise rounds (:mod:`shapemodel.groupwise`) make it the
mean of its cohort.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shapemodel.anatomy import MODEL_LABELS, RIBS, VERTEBRAE, bone, names
from shapemodel.mesh import Faces, Mesh, Points, read_vtp, vertex_areas, volume, write_vtp
from shapemodel.meshquality import open_edges
from shapemodel.prongs import forked
from shapemodel.reasons import InputError, StudyError
from shapemodel.remesh import Progress, RemeshSettings, edge_for_vertices, remesh_bones
from shapemodel.surfaces import euler_number, expected_euler

logger = logging.getLogger(__name__)

Part = tuple[Points, Faces]
Placement = tuple[float, NDArray[np.float64], Points]

LEAST_BONES = 4
"""Bones that two subjects must share to be brought into one frame (three fix it, one more for robustness)."""

MOST_COMPARED = 30
"""Subjects, about, that each one is compared with to see how central it is; every n-th of a larger cohort."""

THORAX_HEIGHT_MM = (120.0, 700.0)
"""Height of a template in z: less or more means metres, centimetres, or another part of the body."""


@dataclass(frozen=True)
class Template:
    """The reference mesh; ``prior`` (V,) marks vertices that no study of its cohort showed."""

    mesh: Mesh
    prior: NDArray[np.bool_]

    def __post_init__(self) -> None:
        if self.prior.shape != (len(self.mesh.vertices),):
            raise ValueError(f"expected prior ({len(self.mesh.vertices)},), got {self.prior.shape}")


@dataclass(frozen=True)
class TemplateSettings:
    """How a template is composed.

    Attributes
    ----------
    edge_margin_mm : a bone is whole when it stays this far from the faces of the scanned volume
    neighbours : nearest bones by whose centroids a bone of another subject is placed
    volume_ratio : a bone is an outlier when its volume over the median of its kind is outside 1/r to r
    target_vertices : vertices wanted in all (the edge length follows); None takes ``remesh.edge_mm``
    remesh : triangles and joint gaps
    """

    edge_margin_mm: float = 2.5
    neighbours: int = 8
    volume_ratio: float = 1.7
    target_vertices: int | None = None
    remesh: RemeshSettings = field(default_factory=RemeshSettings)


def whole_bones(mesh: Mesh, *, margin_mm: float = 2.5) -> set[int]:
    """Labels of the bones that no face of the scanned volume cuts and whose Euler number is their anatomy's."""
    out = set()
    for label in mesh.labels:
        v, f, _ = mesh.select(label)
        if mesh.fov is not None:
            low, high = mesh.fov[0::2] + margin_mm, mesh.fov[1::2] - margin_mm
            if (v < low).any() or (v > high).any():
                continue
        if label in MODEL_LABELS and euler_number(len(v), f) == expected_euler(label) and not open_edges(f):
            out.add(label)
    return out


def compose_template(
    subjects: Sequence[Mesh],
    *,
    fallback: Mesh | None = None,
    settings: TemplateSettings = TemplateSettings(),  # noqa: B008
    progress: Progress | None = None,
) -> Template:
    """The first template: each bone from the most central subject that shows it whole.

    Parameters
    ----------
    subjects : surfaces of studies (:func:`shapemodel.surfaces.labels_to_mesh`), with ``fov``
    fallback : whole thorax for bones that no subject shows whole, on either side; these, and those that are the mirror
        image of the other side's, are marked ``prior``
    progress : called with a sentence and the share done

    Raises
    ------
    StudyError ``too_few_bones`` when subjects share too few whole bones or a bone is nowhere to be had.
    """
    if not subjects:
        raise InputError("a template needs at least one subject, found none")
    volumes = [{k: volume(*m.select(k)[:2]) for k in m.labels} for m in subjects]
    whole = [_usable(m, v, volumes, settings) for m, v in zip(subjects, volumes, strict=True)]
    centroids = [_centroids(m, w) for m, w in zip(subjects, whole, strict=True)]
    spurred = [_spurred(m, w) for m, w in zip(subjects, whole, strict=True)]
    order = _central_first(centroids)
    placed = {k: subjects[order[0]].select(k)[:2] for k in sorted(whole[order[0]] - spurred[order[0]])}
    for s in order[1:]:
        for label in sorted(whole[s] - spurred[s] - placed.keys()):
            placed[label] = _brought(subjects[s], label, centroids[s], placed, settings)
    for s in order:  # ends with spurs only where neither side has a sound one
        for label in sorted(spurred[s]):
            if not {label, bone(label).mirror} & placed.keys():
                placed[label] = _brought(subjects[s], label, centroids[s], placed, settings)
    missing = [k for k in MODEL_LABELS if k not in placed]
    prior = _complete(placed, missing, fallback, settings)
    size = _mean_size(centroids, {k: _centre(p) for k, p in placed.items()})
    parts = {k: (v * size, f) for k, (v, f) in placed.items()}
    mesh = remesh_bones(parts, settings=remesh_for(parts, settings), progress=progress)
    return _with_prior(mesh, np.isin(mesh.bone, list(prior)))


def remesh_for(parts: Mapping[int, Part], settings: TemplateSettings) -> RemeshSettings:
    """How bones are remeshed: with the edge length of the settings, or the one that gives the vertices they want."""
    remesh = settings.remesh
    if settings.target_vertices is None:
        return remesh
    edge = edge_for_vertices(parts, settings.target_vertices)
    return replace(remesh, edge_mm=edge, tip_edge_mm=edge * remesh.tip_edge_mm / remesh.edge_mm)


def template_from_mesh(mesh: Mesh) -> Template:
    """A template out of a mesh that the user gives; point array ``prior`` is taken along where there is one.

    Raises
    ------
    InputError when a bone number is unknown, a bone is not a closed manifold, or the size is not a thorax in mm.
    """
    strange = sorted(set(mesh.labels) - set(MODEL_LABELS))
    if strange or not mesh.labels:
        raise InputError(f"expected bone numbers 1-37 in the point array 'bone', found {strange or 'none'}")
    for label in mesh.labels:
        _, f, ids = mesh.select(label)
        if open_edges(f) or len(np.unique(f)) != len(ids):
            raise InputError(f"{bone(label).name}: expected a closed manifold surface, found open or stray parts")
    height = float(np.ptp(mesh.vertices[:, 2]))
    if not THORAX_HEIGHT_MM[0] <= height <= THORAX_HEIGHT_MM[1]:
        raise InputError(
            f"expected a thorax of {THORAX_HEIGHT_MM} mm height, found {height:.1f}; is it in millimetres?"
        )
    prior = np.asarray(mesh.arrays.get("prior", np.zeros(len(mesh.vertices))), dtype=bool)
    return _with_prior(mesh, prior)


def write_template(template: Template, path: str | Path) -> Path:
    """Store as .vtp with point arrays ``bone`` and ``prior``."""
    return write_vtp(template.mesh.with_arrays(prior=template.prior), path)


def read_template(path: str | Path) -> Template:
    """Read a template, or any .vtp with bone numbers that can serve as one."""
    return template_from_mesh(read_vtp(path))


def similarity_fit(source: Points, target: Points, weights: NDArray[np.float64] | None = None) -> Placement:
    """Scale, proper rotation (3, 3), shift with ``target ~ scale * source @ rotation.T + shift`` (Umeyama 1991)."""
    w = np.ones(len(source)) if weights is None else weights
    w = w / w.sum()
    a, b = source - w @ source, target - w @ target
    u, d, vt = np.linalg.svd((b * w[:, None]).T @ a)
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * sign) @ vt
    scale = float((d * sign).sum() / max(float(w @ (a * a).sum(axis=1)), 1e-30))
    return scale, rotation, w @ target - scale * (w @ source) @ rotation.T


def robust_fit(source: Points, target: Points, *, rounds: int = 8) -> Placement:
    """Similarity with Cauchy weights at the median residual, so that a few strange bones do not tilt it."""
    w = np.ones(len(source))
    for _ in range(rounds):
        fit = similarity_fit(source, target, w)
        r = np.linalg.norm(apply(fit, source) - target, axis=1)
        w = 1.0 / (1.0 + (r / max(float(np.median(r)), 1e-3) / 1.5) ** 2)
    return fit


def apply(fit: Placement, points: Points) -> Points:
    """Points (n, 3) moved by a similarity."""
    scale, rotation, shift = fit
    return np.asarray(scale * points @ rotation.T + shift)


def _with_prior(mesh: Mesh, prior: NDArray[np.bool_]) -> Template:
    return Template(mesh.with_arrays(prior=prior), prior)


def _centre(part: Part) -> Points:
    """Centroid of the surface, whatever the density of its vertices."""
    return np.asarray(np.average(part[0], axis=0, weights=vertex_areas(*part)))


def _centroids(mesh: Mesh, labels: set[int]) -> dict[int, Points]:
    return {k: _centre(mesh.select(k)[:2]) for k in sorted(labels)}


def _usable(mesh: Mesh, own: dict[int, float], volumes: Sequence[dict[int, float]], s: TemplateSettings) -> set[int]:
    """Whole bones whose volume is not an outlier among the subjects' bones, both sides taken together."""
    out = set()
    for label in whole_bones(mesh, margin_mm=s.edge_margin_mm):
        typical = np.median([v[k] for v in volumes for k in {label, bone(label).mirror} & v.keys()])
        if typical / s.volume_ratio <= own[label] <= typical * s.volume_ratio:
            out.add(label)
    return out


def _spurred(mesh: Mesh, labels: set[int]) -> set[int]:
    """Ribs among ``labels`` whose front ends carry spurs of calcified cartilage."""
    spine = mesh.vertices[np.isin(mesh.bone, VERTEBRAE)]
    if not len(spine):
        return set()
    return {k for k in labels if k in RIBS and forked(*mesh.select(k)[:2], spine.mean(axis=0))}


def _central_first(centroids: Sequence[dict[int, Points]]) -> list[int]:
    """Subjects in the order in which they give bones: many whole bones and close to the others come first."""
    n = len(centroids)
    distance = np.full((n, n), np.nan)
    for i in range(n):
        for j in range(i % max(1, n // MOST_COMPARED), n, max(1, n // MOST_COMPARED)):
            shared = sorted(centroids[i].keys() & centroids[j].keys())
            if i != j and len(shared) >= LEAST_BONES:
                a, b = (np.array([c[k] for k in shared]) for c in (centroids[i], centroids[j]))
                distance[i, j] = np.linalg.norm(apply(robust_fit(a, b), a) - b, axis=1).mean()
    if n > 1 and np.isnan(distance).all():
        raise StudyError("too_few_bones", f"no two subjects share {LEAST_BONES} whole bones; add complete studies")
    centrality = np.array([np.nanmean(row) if np.isfinite(row).any() else np.inf for row in distance])
    count = np.array([len(c) for c in centroids])
    if n == 1:
        return [0]
    typical = float(np.median(centrality[np.isfinite(centrality)]))
    score = count - 4.0 * np.minimum(centrality / max(typical, 1e-6), 10.0)
    return [int(i) for i in np.argsort(-score, kind="stable")]


def _near_labels(label: int, here: dict[int, Points], there: dict[int, Points], count: int) -> list[int]:
    """Bones known in both frames that lie nearest to a bone of the first."""
    shared = sorted((here.keys() & there.keys()) - {label})
    away = [float(np.linalg.norm(here[k] - here[label])) for k in shared]
    return [shared[i] for i in np.argsort(away, kind="stable")[:count]]


def _fit_near(label: int, here: dict[int, Points], there: dict[int, Points], count: int) -> Placement:
    near = _near_labels(label, here, there, count)
    if len(near) < LEAST_BONES:
        raise StudyError(
            "too_few_bones",
            f"{names([label])[0]}: only {len(near)} bones around it to place it by, expected {LEAST_BONES} at least",
        )
    return robust_fit(np.array([here[k] for k in near]), np.array([there[k] for k in near]))


def _brought(mesh: Mesh, label: int, here: dict[int, Points], placed: dict[int, Part], s: TemplateSettings) -> Part:
    """A bone of another subject, placed by the bones around it."""
    fit = _fit_near(label, here, {k: _centre(p) for k, p in placed.items()}, s.neighbours)
    v, f, _ = mesh.select(label)
    return apply(fit, v), f


def _complete(placed: dict[int, Part], missing: list[int], fallback: Mesh | None, s: TemplateSettings) -> set[int]:
    """Add the missing bones in place: mirror images first, then the fallback; returns their labels."""
    there = {k: _centre(p) for k, p in placed.items()}
    mirrored = {bone(k).mirror: p for k, p in placed.items()}
    here = {k: _centre(p) * [-1.0, 1.0, 1.0] for k, p in mirrored.items()}
    for label in [k for k in missing if k in mirrored]:
        v, f = mirrored[label]
        fit = _fit_near(label, here, there, s.neighbours)
        placed[label] = (apply(fit, v * [-1.0, 1.0, 1.0]), np.ascontiguousarray(f[:, ::-1]))
        logger.info("%s: completed by its mirror image", bone(label).name)
    rest = [k for k in missing if k not in placed]
    if not rest:
        return set(missing)
    if fallback is None or set(rest) - set(fallback.labels):
        raise StudyError(
            "too_few_bones", f"no subject shows {', '.join(names(rest))} whole; add studies or give a fallback shape"
        )
    shape = _centroids(fallback, set(fallback.labels))
    there = {k: _centre(p) for k, p in placed.items()}
    for label in rest:
        placed[label] = (
            apply(_fit_near(label, shape, there, s.neighbours), fallback.select(label)[0]),
            fallback.select(label)[1],
        )
        logger.info("%s: completed by the fallback shape", bone(label).name)
    return set(missing)


def _mean_size(centroids: Sequence[dict[int, Points]], frame: dict[int, Points]) -> float:
    """Factor that gives the composed thorax the geometric mean size of the subjects."""
    logs = []
    for c in centroids:
        shared = sorted(c.keys() & frame.keys())
        if len(shared) >= LEAST_BONES:
            a, b = (np.array([d[k] for k in shared]) for d in (frame, c))
            logs.append(np.log(robust_fit(a, b)[0]))
    return float(np.exp(np.mean(logs))) if logs else 1.0
