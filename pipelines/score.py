"""How right a run on phantoms is, since their truth is known to the point.

A template vertex has no material identity of its own: which point of a rib it stands for is decided by where
the registrations put it. Its identity is therefore the consensus of the cohort: each subject's vertex is taken
to its material point, all are carried to the mean phantom and averaged there. The error of a subject is the
distance of its vertex from that point's true place on it; what all subjects share is no error. The error from
subject to subject, which has no such freedom but holds two errors at once, is given beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shapemodel.anatomy import RIBS, bone
from shapemodel.mesh import Mesh, Points

SAME_BONE_DICE = 0.6
"""A rib is numbered right when its overlap with the true rib of that number is more than this."""

LEAST_RIB_MM = 10.0
"""Ribs of which less than this lies in the scan do not count."""


@dataclass(frozen=True)
class StudyScore:
    """One study against its truth; NaN where it was left out.

    Attributes
    ----------
    ribs_right, ribs_visible : ribs whose number is right, of those that the scan shows
    wrong : names of the others
    error_mm, error_p95_mm : true correspondence error on truly visible vertices
    visible_agreement : share of vertices whose ``visible`` agrees with the truth
    """

    subject: str
    ribs_right: int
    ribs_visible: int
    wrong: tuple[str, ...] = ()
    error_mm: float = float("nan")
    error_p95_mm: float = float("nan")
    visible_agreement: float = float("nan")


@dataclass(frozen=True)
class CohortScore:
    """A cohort against its truth.

    Attributes
    ----------
    studies : one score a study
    pair_error_mm : mean error from subject to subject
    mean_error_mm : group -> distance of the model's mean from the mean of the true shapes, mean over vertices
    """

    studies: tuple[StudyScore, ...]
    pair_error_mm: float
    mean_error_mm: Mapping[str, float]

    def lines(self) -> list[str]:
        """The score as lines of text."""
        right, all_ = sum(s.ribs_right for s in self.studies), sum(s.ribs_visible for s in self.studies)
        wrong = [f"{s.subject}: {', '.join(s.wrong)}" for s in self.studies if s.wrong]
        errors = [s.error_mm for s in self.studies]
        seen = [s.visible_agreement for s in self.studies]
        lines = [
            f"ribs numbered right: {right} of {all_}" + (f" (wrong: {'; '.join(wrong)})" if wrong else ""),
            f"true correspondence error: mean {np.nanmean(errors):.2f} mm, worst study {np.nanmax(errors):.2f} mm, "
            f"from subject to subject {self.pair_error_mm:.2f} mm",
            f"visible agrees with the truth in {100 * np.nanmean(seen):.1f} % of vertices",
        ]
        return lines + [f"{g} mean: {e:.2f} mm from the mean of the true shapes" for g, e in self.mean_error_mm.items()]


def rib_overlap(found: NDArray[np.uint8], true: NDArray[np.uint8], spacing_z: float) -> tuple[list[int], list[int]]:
    """(right, visible) ribs of a label map against the true one on the same grid, arrays z, y, x."""
    both = np.bincount(found[found == true].ravel(), minlength=256)
    a, b = np.bincount(found.ravel(), minlength=256), np.bincount(true.ravel(), minlength=256)
    visible, right = [], []
    for k in RIBS:
        if not b[k]:
            continue
        rows = np.flatnonzero((true == k).any(axis=(1, 2)))
        if (rows[-1] - rows[0] + 1) * spacing_z < LEAST_RIB_MM:
            continue
        visible.append(k)
        if 2 * both[k] / (a[k] + b[k]) > SAME_BONE_DICE:
            right.append(k)
    return right, visible


def study_labels(subject: str, found: Path | None, true: Path) -> StudyScore:
    """How many ribs of a study carry the right number; a study that was left out has none."""
    import SimpleITK as sitk

    truth = sitk.ReadImage(str(true))
    array = sitk.GetArrayFromImage(truth)
    own = np.zeros_like(array)
    if found is not None and found.is_file():
        image = sitk.Resample(sitk.ReadImage(str(found)), truth, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
        own = sitk.GetArrayFromImage(image).astype(np.uint8)
    right, visible = rib_overlap(own, array.astype(np.uint8), truth.GetSpacing()[2])
    wrong = tuple(bone(k).name for k in visible if k not in right)
    return StudyScore(subject, len(right), len(visible), wrong)


@dataclass(frozen=True)
class Correspondence:
    """True places of template vertices.

    Attributes
    ----------
    own : (S, V, 3) mm, in each subject's own frame
    scanned : (S, V, 3) mm, LPS of each scan
    seen : (S, V) inside the scan
    pairs : (S, S) mean error in mm from subject (row) to subject (column), diagonal NaN
    """

    own: NDArray[np.float64]
    scanned: NDArray[np.float64]
    seen: NDArray[np.bool_]
    pairs: NDArray[np.float64]


def true_places(registered: Sequence[Mesh], truths: Sequence[Any]) -> Correspondence:
    """True places of the consensus of registered meshes (see the module's text).

    Parameters
    ----------
    registered : one mesh a subject, in template order, LPS of its scan, with ``visible``
    truths : :class:`shapemodel.phantom.cohort.StudyTruth` of the same subjects
    """
    from shapemodel.phantom.subject import mean_subject
    from shapemodel.phantom.truth import locate, material

    middle, label = mean_subject(), registered[0].bone
    points = [
        material(t.subject, _own_frame(m.vertices, t.pose), label) for m, t in zip(registered, truths, strict=True)
    ]
    places = np.stack([locate(middle, p) for p in points])
    shown = np.stack([np.asarray(m.arrays["visible"], bool) for m in registered])
    weight = np.where(shown.any(axis=0), shown, True).astype(float)
    consensus = np.einsum("sv,svi->vi", weight, places) / weight.sum(axis=0)[:, None]
    identity = material(middle, consensus, label)
    own = np.stack([locate(t.subject, identity) for t in truths])
    scanned = np.stack([_scan_frame(x, t.pose) for x, t in zip(own, truths, strict=True)])
    seen = np.stack([_inside(x, t.bones.fov) for x, t in zip(scanned, truths, strict=True)])
    pairs = np.full((len(truths), len(truths)), np.nan)
    for j, (m, t) in enumerate(zip(registered, truths, strict=True)):  # a person's shape is made once for all pairs
        for i, p in enumerate(points):
            if i != j:
                both = seen[i] & seen[j]
                gap = _scan_frame(locate(t.subject, p), t.pose)[both] - m.vertices[both]
                pairs[i, j] = float(np.linalg.norm(gap, axis=1).mean())
    return Correspondence(own, scanned, seen, pairs)


def _own_frame(points: Points, pose: NDArray[np.float64]) -> Points:
    return np.asarray((points - pose[:3, 3]) @ pose[:3, :3], np.float64)


def _scan_frame(points: Points, pose: NDArray[np.float64]) -> Points:
    return np.asarray(points @ pose[:3, :3].T + pose[:3, 3], np.float64)


def _inside(points: Points, fov: NDArray[np.float64] | None) -> NDArray[np.bool_]:
    if fov is None:
        return np.ones(len(points), bool)
    return np.asarray(((points >= fov[0::2]) & (points <= fov[1::2])).all(axis=1))


def mean_errors(
    models: Mapping[str, Any], truth: Correspondence, subjects: Sequence[str], faces: NDArray[np.int64]
) -> dict[str, float]:
    """Group -> mean distance of a model's mean from the mean of the same subjects' complete true shapes.

    The true shapes are aligned with each other as the models are (rigid, area weighted, together); each true
    mean is then laid rigidly on the model's.
    """
    from shapemodel.population import Population, align, area_weights, rigid_fit

    n, v = truth.own.shape[:2]
    bones = next(iter(models.values())).reference.bone
    population = Population(
        truth.own, np.ones((n, v), bool), tuple(subjects), (None,) * n, faces, bones, np.zeros(v, bool), {}
    )
    aligned = np.asarray(align(population).vertices)
    errors = {}
    for group, fitted in models.items():
        own = aligned[[subjects.index(s) for s in fitted.subjects]].mean(axis=0)
        weights = area_weights(fitted.mean, faces)
        rotation, shift = rigid_fit(own, fitted.mean, weights)
        errors[group] = float(np.linalg.norm(own @ rotation.T + shift - fitted.mean, axis=1).mean())
    return errors
