"""Ribs that are numbered one off: they do not meet the vertebrae of their number.

A registration cannot see it: the ribs lie on ribs, only of another level. The head of rib k meets vertebrae k - 1 and
k; a rib that is truly the next one lies nearer to vertebra k + 1 than to k - 1, one that is truly the one before
nearer to k - 2 than to k.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from shapemodel.anatomy import bone, rib, vertebra
from shapemodel.mesh import Mesh
from shapemodel.reasons import StudyError
from shapemodel.registration.target import Target

ASKED = range(3, 11)
"""Levels that are asked: they have the vertebrae to compare, and ribs 11 and 12 meet one alone."""

LEAST_RIBS = 4
"""Ribs of a side with all four vertebrae that are needed; fewer prove nothing."""

SHARE = 0.75
"""Part of them that must be off in the same way before their numbers are held to be wrong."""

HEAD = 0.05
"""Part of a rib's samples that is its head: those nearest to any of the vertebrae."""

CLEAR_MM = 20.0
"""A rib that is off comes nearer to the wrong vertebra, and leaves the right one, by about two vertebrae together
(30-40 mm); people differ by a few mm, with faults of the labels by up to 15."""

STRIDE, THIN = 8, 3
"""Every so many samples, and vertices of a template, are enough to tell centimetres apart."""

Leanings = dict[int, tuple[float, float]]
"""By label of a rib, the two distances of :func:`leaning`."""


def leaning(points: NDArray[np.float64], spine: dict[int, cKDTree], level: int) -> tuple[float, float] | None:
    """mm by which a rib lies nearer to vertebra k + 1 than to k - 1, and to k - 2 than to k; None: not all there."""
    around = [level - 2, level - 1, level, level + 1]
    if not all(k in spine for k in around):
        return None
    away = np.stack([spine[k].query(points)[0] for k in around])
    head = np.argsort(away.min(0), kind="stable")[: max(int(HEAD * len(points)), 1)]
    two_above, above, own, below = away[:, head].mean(1).tolist()
    return above - below, own - two_above


def leanings(points: dict[int, NDArray[np.float64]]) -> Leanings:
    """The same of every rib that can be asked, by label, from points on each bone."""
    spine = {k: cKDTree(points[vertebra(k)]) for k in range(1, 13) if vertebra(k) in points}
    asked = [rib(side, k) for side in ("left", "right") for k in ASKED]
    found = {k: leaning(points[k], spine, bone(k).level) for k in asked if k in points}
    return {k: v for k, v in found.items() if v is not None}


def usual_leanings(template: Mesh) -> Leanings:
    """Those of a template, with which a target's are compared."""
    return leanings({k: template.vertices[template.bone == k][::THIN] for k in template.labels})


def check_numbers(target: Target, labels: NDArray[np.int64], usual: Leanings) -> None:
    """``StudyError('bad_labels')`` when ribs of a side meet other vertebrae than the template's, by one level.

    ``labels`` (B,) of the target's bones; ``usual`` leanings are the template's.
    """
    found = leanings({int(k): target.points[i, ::STRIDE] for i, k in enumerate(labels) if target.present[i]})
    off = {k: np.array(found[k]) - usual[k] > CLEAR_MM for k in found.keys() & usual.keys()}
    for side, own in (("left", range(1, 13)), ("right", range(13, 25))):
        here = np.array([off[k] for k in own if k in off], dtype=bool).reshape(-1, 2)
        for wrong, true in zip(here.sum(0).tolist(), ("next", "previous"), strict=True):
            if len(here) >= LEAST_RIBS and wrong >= SHARE * len(here):
                raise StudyError(
                    "bad_labels",
                    f"surfaces: expected the {side} ribs to meet the vertebrae of their number, found {wrong} of "
                    f"{len(here)} that are truly the {true} rib; renumber ribs or spine",
                )
