"""How far each bone is to be trusted: evidence gathered during the fit, turned into an expected error."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from shapemodel.anatomy import RIBS
from shapemodel.correspondence import BoneFit
from shapemodel.mesh import Points
from shapemodel.reasons import flag_code
from shapemodel.registration.fit import Field
from shapemodel.registration.match import Pairs
from shapemodel.registration.prepare import Prepared

UNSURE = flag_code("bone_unsure", "the position of this bone's vertices is not to be trusted without a look")
SWAPPED = flag_code(
    "labels_swapped", "the labels of two neighbours are exchanged; they were fitted the right way round"
)
ABSENT = flag_code("bone_absent", "the bone is not on the scan: it is extrapolated from the prior")

FLAG_MM = 1.1
"""Expected error from which a bone is flagged: at this limit 39 of 39 bones that were off by more than 3 mm in
truth (18 warped and phantom targets, each left out of its own calibration) lie above 1.0, nine of ten above 1.15."""

REVIEW_MM = 1.6
"""Expected error from which a reviewer is shown the bone: rare, where ``flagged`` is careful."""

WEIGHTS = {"constant": 1.70, "slide": 0.44, "rough": 2.02, "rib": 1.94}
"""Regression of the log of the true mean error (mm) of a bone on the evidence, on 640 bones of warps of real anatomy
and of phantom subjects against each other; large errors weigh five times. Left-out rank correlation 0.63."""


@dataclass(frozen=True)
class Evidence:
    """(B,) numbers a bone; what each says of the error to come.

    Attributes
    ----------
    cut : part of its area that is not seen
    rough : root mean square of the normal distances before the fine fit, mm: another shape than the prior's
    slide : standard deviation of the least known rigid motion, mm for 1 mm of noise
    bend : mm by which the bone had to be turned, stretched and bent against the thorax as a whole
    rib : it is a rib, which can slide along itself
    """

    cut: NDArray[np.float64]
    rough: NDArray[np.float64]
    slide: NDArray[np.float64]
    bend: NDArray[np.float64]
    rib: NDArray[np.bool_]

    def of(self, bone: int) -> dict[str, float]:
        """The numbers of one bone, by name."""
        return {f.name: float(getattr(self, f.name)[bone]) for f in fields(self)}

    def features(self) -> NDArray[np.float64]:
        """(B, 4) columns of the regression, in the order of ``WEIGHTS``."""
        columns = [np.ones_like(self.cut), np.log(self.slide + 0.5), np.log(self.rough + 0.05), self.rib.astype(float)]
        return np.column_stack(columns)


def evidence(prepared: Prepared, field: Field, smooth: Points, ahead: Pairs, seen: NDArray[np.bool_]) -> Evidence:
    """Evidence of a fit: its coefficients, its vertices ``smooth`` (V, 3) and their partners before the fine stage."""
    p = prepared
    miss = ((ahead.goal - smooth[p.nodes]) * ahead.direction).sum(-1)
    own = p.bone[p.nodes] @ field.bone
    count = p.weight.sum(1)
    own -= ((p.weight[..., None] * own).sum(1) / count[:, None])[:, None]
    return Evidence(
        cut=1.0 - np.bincount(p.index, p.areas * seen) / np.bincount(p.index, p.areas),
        rough=np.sqrt((ahead.weight * miss**2).sum(1) / np.maximum(ahead.weight.sum(1), 1e-9)),
        slide=weakest_motion(smooth[p.nodes], ahead),
        bend=(p.weight * np.linalg.norm(own, axis=2)).sum(1) / count,
        rib=np.isin(p.labels, RIBS),
    )


def weakest_motion(points: NDArray, pairs: Pairs) -> NDArray[np.float64]:
    """(B,) standard deviation (mm, for 1 mm of noise) of each bone's rigid motion that its pairs constrain least.

    Rotations are measured by the movement at the bone's radius of gyration.
    """
    w = pairs.weight[..., None]
    total = np.maximum(w.sum(1, keepdims=True), 1e-9)
    arm = points - (w * points).sum(1, keepdims=True) / total
    radius = np.sqrt((w * arm**2).sum((1, 2)) / total[:, 0, 0]).clip(1.0)
    j = np.concatenate([pairs.direction, np.cross(arm, pairs.direction) / radius[:, None, None]], axis=2)
    least = np.linalg.eigvalsh(j.transpose(0, 2, 1) @ (w * j))[:, 0]
    return 1.0 / np.sqrt(np.maximum(least, 1e-4))


def judge(prepared: Prepared, seen: NDArray[np.bool_], residual: NDArray, evidence: Evidence) -> dict[int, BoneFit]:
    """Per-bone numbers by label."""
    expected = np.exp(evidence.features() @ np.array(list(WEIGHTS.values())))
    out = {}
    for b, label in enumerate(prepared.labels):
        own = prepared.index == b
        mean = float(residual[own & seen].mean()) if (own & seen).any() else 0.0
        e = float(expected[b])
        note = ""
        if e > FLAG_MM:
            note = f"expected error {e:.1f} mm, {1 - evidence.cut[b]:.0%} of the bone on the scan"
        sure = 1.0 / (1.0 + e / 3.0)
        out[int(label)] = BoneFit(float(1 - evidence.cut[b]), mean, e, sure, bool(note), note, evidence.of(b))
    return out
