"""The start: a robust proper similarity from the centroids of the bones (Umeyama 1991, reweighted)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from shapemodel.anatomy import MODEL_LABELS
from shapemodel.anatomy import bone as bone_of
from shapemodel.mesh import Mesh, Points
from shapemodel.reasons import StudyError
from shapemodel.registration.prepare import Prepared
from shapemodel.registration.target import Target

ROUNDS = 20
"""Reweighting rounds; the weights settle in fewer than ten."""

MIN_BONES = 5
"""A similarity from fewer bones is not believed."""

EXTENT_MM = (80.0, 1500.0)
"""Largest side of the box of a thorax' bones, of an infant's part to the tallest: tells metres and voxels apart."""

MIRROR_RATIO = 1.5
"""A reflection that fits this much better is the truth: proper fits of mirrored bones are several times worse."""

SWAP_MM, SWAP_RATIO = 25.0, 0.5
"""Two neighbours that are together farther off than this, and half as far or less with labels exchanged, are."""

SPREAD_MM = 8.0
"""Least scale of the robust weights: centroids of the same bone differ by this much between people."""


@dataclass(frozen=True)
class Similarity:
    """``x -> scale * x @ rotation.T + shift``; ``residual`` is the robust mean distance of the centroids, mm."""

    scale: float
    rotation: NDArray[np.float64]
    shift: NDArray[np.float64]
    residual: float

    def __call__(self, points: Points) -> Points:
        return self.scale * points @ self.rotation.T + self.shift

    def inverse(self, points: Points) -> Points:
        """Back from the image to where it came from."""
        return (points - self.shift) @ self.rotation / self.scale


def similarity(source: Points, goal: Points, weight: NDArray[np.float64], *, proper: bool = True) -> Similarity:
    """Least-squares similarity of weighted pairs (n, 3); ``proper`` forbids a reflection."""
    w = weight / weight.sum()
    a, b = w @ source, w @ goal
    u, d, vt = np.linalg.svd((goal - b).T @ (w[:, None] * (source - a)))
    s = np.ones(3)
    if proper and np.linalg.det(u @ vt) < 0:
        s[2] = -1.0
    rotation = (u * s) @ vt
    scale = float((d * s).sum() / (w @ ((source - a) ** 2).sum(1)))
    shift = b - scale * rotation @ a
    residual = float(w @ np.linalg.norm(scale * source @ rotation.T + shift - goal, axis=1))
    return Similarity(scale, rotation, shift, residual)


def robust_similarity(source: Points, goal: Points, *, proper: bool = True) -> tuple[Similarity, NDArray[np.float64]]:
    """Similarity that survives wrong pairs, and each pair's distance after it (n,) mm."""
    weight = np.ones(len(source))
    for _ in range(ROUNDS):
        fit = similarity(source, goal, weight, proper=proper)
        distance = np.linalg.norm(fit(source) - goal, axis=1)
        scale = max(float(np.median(distance)), SPREAD_MM)
        weight = 1.0 / (1.0 + (distance / (2.0 * scale)) ** 2) ** 2
    return fit, distance


def check_target(mesh: Mesh) -> None:
    """``StudyError('bad_surface')`` for surfaces that cannot be a thorax in millimetres."""
    own = np.isin(mesh.bone, MODEL_LABELS)
    if not len(mesh.faces) or not own.any():
        raise StudyError("bad_surface", "surfaces: expected bones with labels 1-37, found none; label the scan first")
    if not np.isfinite(mesh.vertices).all():
        raise StudyError("bad_surface", "surfaces: expected finite coordinates, found NaN or infinity")
    extent = float(np.ptp(mesh.vertices[own], axis=0).max())
    if not EXTENT_MM[0] < extent < EXTENT_MM[1]:
        raise StudyError(
            "bad_surface",
            f"surfaces: expected a thorax of {EXTENT_MM[0]:.0f}-{EXTENT_MM[1]:.0f} mm, found {extent:.4g}; "
            "coordinates must be millimetres",
        )


def centroids(prepared: Prepared) -> NDArray[np.float64]:
    """(B, 3) area centroids of the template's bones."""
    v, a = prepared.mesh.vertices, prepared.areas
    moment = np.stack([np.bincount(prepared.index, a * v[:, k]) for k in range(3)], 1).astype(np.float64)
    return moment / np.bincount(prepared.index, a)[:, None]


def swapped(prepared: Prepared, target: Target) -> list[tuple[int, int]]:
    """Pairs of bone indices, neighbours of one side, whose labels are exchanged; ``target`` is already placed."""
    goal, here, labels = centroids(prepared), target.center, prepared.labels
    found: list[tuple[int, int]] = []
    for i in range(len(labels) - 1):
        j = i + 1
        if bone_of(int(labels[i])).side != bone_of(int(labels[j])).side or not (
            target.present[i] and target.present[j]
        ):
            continue
        straight = np.linalg.norm(here[[i, j]] - goal[[i, j]], axis=1).sum()
        crossed = np.linalg.norm(here[[j, i]] - goal[[i, j]], axis=1).sum()
        if straight > SWAP_MM and crossed < SWAP_RATIO * straight and (not found or found[-1][1] != i):
            found.append((i, j))
    return found


def exchange(target: Target, pairs: list[tuple[int, int]]) -> Target:
    """The target with the samples of these bones exchanged."""
    order = np.arange(len(target.present))
    for i, j in pairs:
        order[[i, j]] = j, i
    names = ("points", "normals", "solid", "main", "present", "center", "whole")
    dense = tuple(target.dense[i] for i in order)
    return replace(target, dense=dense, **{name: getattr(target, name)[order] for name in names})


def place(prepared: Prepared, target: Target) -> Similarity:
    """The similarity that brings a target to the template, from the centroids of the bones seen whole.

    Raises
    ------
    StudyError : ``too_few_bones``, or ``mirrored`` when only a reflection fits
    """
    both = target.present
    if both.sum() < MIN_BONES:
        raise StudyError(
            "too_few_bones", f"surfaces: expected {MIN_BONES} bones of the template or more, found {both.sum()}"
        )
    use = both & target.whole if (both & target.whole).sum() >= 2 * MIN_BONES else both
    centers = centroids(prepared)
    fit, _ = robust_similarity(target.center[use], centers[use])
    turned, _ = robust_similarity(target.center[use], centers[use], proper=False)
    if np.linalg.det(turned.rotation) < 0 and fit.residual > MIRROR_RATIO * turned.residual:
        raise StudyError(
            "mirrored",
            f"surfaces: bones fit the template within {turned.residual:.0f} mm only when left and right are "
            f"exchanged ({fit.residual:.0f} mm otherwise); check the orientation of the image",
        )
    return fit
