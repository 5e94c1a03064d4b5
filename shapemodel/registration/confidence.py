"""How far each bone is to be trusted: evidence gathered during the fit, turned into an expected error."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from shapemodel.anatomy import RIBS
from shapemodel.correspondence import BoneFit
from shapemodel.mesh import Points
from shapemodel.reasons import flag_code
from shapemodel.registration.match import Pairs
from shapemodel.registration.prepare import Prepared

UNSURE = flag_code("bone_unsure", "the position of this bone's vertices is not to be trusted without a look")
SWAPPED = flag_code(
    "labels_swapped", "the labels of two neighbours are exchanged; they were fitted the right way round"
)
ABSENT = flag_code("bone_absent", "the bone is not on the scan: it is extrapolated from the prior")

FLAG_MM = 1.25
"""Expected error from which a bone is flagged: of every source of truth 93 % or more of the bones that are off by more
than 3 mm lie above it, and a third of those off by less than 1.5 mm (``benchmarks/registration.py confidence``)."""

REVIEW_MM = 3.0
"""Expected error from which a reviewer is shown the bone: rare, where ``flagged`` is careful."""

WEIGHTS = {"constant": -0.34, "rib": 1.22, "low": 0.68, "bend": 0.64, "rough": 0.4, "alike": 0.72}
"""Regression of the log of the true mean error (mm) of a bone on the evidence, over warps of real anatomy, phantom
people against each other, with and without faults of the labels, and reshaped real bones; every source counts alike,
bones that are off by more than 3 mm five times (``benchmarks/registration.py confidence --fit``)."""

BEND_MM = 0.5
"""Added to ``bend``: less is no news."""

ROUGH_MM = (0.1, 0.6)
"""``rough`` is taken between these: what the calibration has seen."""

ALIKE_ROOM = 0.02
"""Added to the part in which surfaces are not ``alike``, of which the logarithm is taken."""

LOW_LEVELS = (9, 10, 11)
"""Ribs whose fronts reach no sternum, or hang free, and whose angle and length differ most between people: 2.3-3.1 mm
off on phantom people, others 1.1-1.9 mm."""

ABSENT_MM = 10.0
"""Said of a bone that the scan does not show at all: hidden parts are 4-9 mm off on average, whole bones more."""

LEAST_SHOWN = 0.05
"""A bone of which less than this part of its area is seen is held to be absent: no number of the fit speaks of it."""

LOST_PART, LOST_MM = 0.3, 15.0
"""A bone of which more than this part is not found where it was put was put in a wrong place: up to so many mm are
added. Ends of processes that are shorter in another person reach 0.25."""


@dataclass(frozen=True)
class Evidence:
    """(B,) numbers a bone; what each says of the error to come.

    Attributes
    ----------
    cut : part of its area that is not seen
    lost : part of what should be inside the scan that is not seen: there is nothing of the bone where it was put
    rough : root mean square of the normal distances before the fine fit, mm: another shape than the prior's
    bend : mm by which the bone had to be turned, stretched and bent against the thorax as a whole
    alike : 0..1, share of their weight that pairs earned in the bone-wise fits: .8 for two surfaces of one person
    rib : it is a rib, which can slide along itself
    low : it is one of ribs 9-11
    """

    cut: NDArray[np.float64]
    lost: NDArray[np.float64]
    rough: NDArray[np.float64]
    bend: NDArray[np.float64]
    alike: NDArray[np.float64]
    rib: NDArray[np.bool_]
    low: NDArray[np.bool_]

    def of(self, bone: int) -> dict[str, float]:
        """The numbers of one bone, by name."""
        return {f.name: float(getattr(self, f.name)[bone]) for f in fields(self)}

    def features(self) -> NDArray[np.float64]:
        """(B, 6) columns of the regression, in the order of ``WEIGHTS``."""
        rough = np.log(np.clip(self.rough, *ROUGH_MM))
        bend, other = np.log(self.bend + BEND_MM), np.log(1.0 + ALIKE_ROOM - np.clip(self.alike, 0.0, 1.0))
        return np.column_stack([np.ones_like(rough), self.rib.astype(float), self.low, bend, rough, other])


def evidence(
    prepared: Prepared,
    own: NDArray,
    smooth: Points,
    ahead: Pairs,
    shown: NDArray,
    seen: NDArray[np.bool_],
    alike: NDArray[np.float64],
) -> Evidence:
    """Evidence of a fit before its fine stage.

    Parameters
    ----------
    own : (B, q, 3) bone-wise coefficients; ``smooth`` (V, 3) the vertices of the fit
    ahead : partners of the nodes (B, N); ``shown`` (B, N) weight of a node, 0 where it lies outside the scan
    seen : (V,) vertices found on the scan in the end
    alike : (B,) share of their weight that pairs earned
    """
    p = prepared
    weight = ahead.weight * shown
    miss = ((ahead.goal - smooth[p.nodes]) * ahead.direction).sum(-1)
    moved, count = p.bone[p.nodes] @ own, p.weight.sum(1)
    moved -= ((p.weight[..., None] * moved).sum(1) / count[:, None])[:, None]
    return Evidence(
        cut=1.0 - np.bincount(p.index, p.areas * seen) / np.bincount(p.index, p.areas),
        lost=(shown * ~seen[p.nodes]).sum(1) / np.maximum(shown.sum(1), 1.0),
        rough=np.sqrt((weight * miss**2).sum(1) / np.maximum(weight.sum(1), 1e-9)),
        bend=(p.weight * np.linalg.norm(moved, axis=2)).sum(1) / count,
        alike=alike,
        rib=np.isin(p.labels, RIBS),
        low=np.isin(p.labels, [k for k in RIBS if (k - 1) % 12 + 1 in LOW_LEVELS]),
    )


def expected_error(evidence: Evidence, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """(B,) mm."""
    misplaced = np.clip((evidence.lost - LOST_PART) / (1.0 - LOST_PART), 0.0, 1.0)
    found = np.exp(evidence.features() @ weights) + LOST_MM * misplaced
    return np.asarray(np.where(evidence.cut < 1.0 - LEAST_SHOWN, found, ABSENT_MM))


def judge(prepared: Prepared, seen: NDArray[np.bool_], residual: NDArray, evidence: Evidence) -> dict[int, BoneFit]:
    """Per-bone numbers by label."""
    expected = expected_error(evidence, np.array(list(WEIGHTS.values())))
    out = {}
    for b, label in enumerate(prepared.labels):
        own, e, shown = prepared.index == b, float(expected[b]), float(1.0 - evidence.cut[b])
        mean = float(residual[own & seen].mean()) if (own & seen).any() else 0.0
        note = f"expected error {e:.1f} mm, {shown:.0%} of the bone on the scan" if e > FLAG_MM else ""
        out[int(label)] = BoneFit(shown, mean, e, 1.0 / (1.0 + e / 3.0), bool(note), note, evidence.of(b))
    return out
