"""How far each bone is to be trusted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shapemodel.correspondence import BoneFit
from shapemodel.reasons import flag_code
from shapemodel.registration.prepare import Prepared

UNSURE = flag_code("bone_unsure", "the position of this bone's vertices is not to be trusted without a look")

FLAG_MM = 3.0
"""Expected error from which a bone is flagged."""


def judge(prepared: Prepared, seen: NDArray[np.bool_], residual: NDArray[np.float64]) -> dict[int, BoneFit]:
    """Per-bone numbers by label."""
    out = {}
    for b, label in enumerate(prepared.labels):
        own = prepared.index == b
        area = prepared.areas * own
        fraction = float((area * seen).sum() / area.sum())
        mean = float(residual[own & seen].mean()) if (own & seen).any() else 0.0
        expected = 0.4 + 2.0 * mean + 4.0 * (1.0 - fraction)
        flagged = expected > FLAG_MM
        note = f"expected error {expected:.1f} mm, {fraction:.0%} of the bone on the scan" if flagged else ""
        out[int(label)] = BoneFit(fraction, mean, expected, 1.0 / (1.0 + expected / FLAG_MM), flagged, note)
    return out
