"""What no thorax can be: bones too large, vertebrae out of order, ribs on the wrong side. Such labels are refused."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from shapemodel.anatomy import RIBS, STERNUM, VERTEBRAE, bone
from shapemodel.mask import Spacing
from shapemodel.reasons import StudyError

MOST_ML = {RIBS[0]: 125.0, STERNUM: 280.0, VERTEBRAE[0]: 155.0}
"""By kind: three times the largest of 24 phantoms and four people (42, 93, 51 mL)."""
MOST_MM = {RIBS[0]: 350.0, STERNUM: 330.0, VERTEBRAE[0]: 200.0}
"""Longest edge of its box, by kind: ribs of a big chest span 200-230 mm, sterna 230 mm, processes of T1 100 mm."""
ORDER_MM = 5.0
"""By so much a vertebra's middle must lie above the next one's, if the scan cuts neither: less than half of the lowest
body, with a strong kyphosis."""
SIDE_ML = 2.0
"""Less bone than this does not show on which side it is: the stump of a rib beside the spine."""


def refuse_absurd(labels: NDArray[np.uint8], spacing: Spacing) -> None:
    """StudyError absurd_labels where a label map (z, y, x) of a person shows what no person has.

    The limits are wide: they catch faults of the method, not unusual people.
    """
    ml = np.bincount(labels.ravel(), minlength=64) * float(np.prod(spacing)) / 1000.0
    boxes = ndi.find_objects(labels, max_label=max(VERTEBRAE))
    middle: dict[int, NDArray[np.float64]] = {}
    for kind in (RIBS, (STERNUM,), VERTEBRAE):
        for k in kind:
            box = boxes[k - 1]
            if box is None:
                continue
            longest = max((b.stop - b.start) * s for b, s in zip(box, spacing, strict=True))
            if ml[k] > MOST_ML[kind[0]] or longest > MOST_MM[kind[0]]:
                _refuse(
                    k,
                    f"at most {MOST_ML[kind[0]]:.0f} mL and {MOST_MM[kind[0]]:.0f} mm",
                    f"{ml[k]:.0f} mL, {longest:.0f} mm",
                )
            within = np.array(ndi.center_of_mass(labels[box] == k)) + [b.start for b in box]
            middle[k] = within * np.array(spacing)
    spine = [k for k in VERTEBRAE if k in middle and 0 < boxes[k - 1][0].start and boxes[k - 1][0].stop < len(labels)]
    for upper, lower in zip(spine[:-1], spine[1:], strict=True):
        if middle[upper][0] < middle[lower][0] + ORDER_MM:
            _refuse(upper, f"its middle above that of {bone(lower).name}", "it beside or below")
    if not spine:
        return
    x = float(np.mean([middle[k][2] for k in spine]))
    for k in RIBS:
        if k in middle and ml[k] > SIDE_ML and (middle[k][2] > x) != (bone(k).side == "left"):
            _refuse(k, f"the rib on the {bone(k).side} of the spine", "it on the other side")


def _refuse(label: int, expected: str, found: str) -> None:
    raise StudyError(
        "absurd_labels",
        f"{bone(label).name}: expected {expected}, found {found}: look at the scan and the labels "
        "of this study, shift its threshold or crop it (overrides.toml)",
    )
