"""Front ends of the ribs: calcified cartilage that is fused with a rib is cut off near where ribs end.

Where cartilage is not calcified the rib ends by itself in the mask and nothing is done. Otherwise the cut goes
through the thinnest place near the expected costochondral joint, whose distance from the middle of the sternum
is the half width of the manubrium plus an amount that grows from rib to rib.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from shapemodel.anatomy import rib
from shapemodel.labels.sternum import Plate
from shapemodel.labels.work import Work
from shapemodel.mask import Mask

BEYOND_MM = {1: 21.0, 2: 23.0, 3: 40.0, 4: 46.0, 5: 52.0, 6: 63.0}
"""Joint of rib and cartilage, mm beside the edge of the manubrium, mean of adults."""
SPREAD_MM = {1: 4.5, 2: 6.5, 3: 8.0, 4: 9.0, 5: 10.0, 6: 11.0}
"""Its standard deviation between people, mm."""
SIDES: tuple[Literal["left", "right"], ...] = ("left", "right")
PRIOR = 3.0
"""Weight of the expected place against thinness: one SD aside costs nearly as much as a whole section."""
FRONT_MM = 30.0
"""Only what is so far in front of the canal is a front end."""
BIN_MM = 2.0


def manubrium_half(work: Work, plate: Plate) -> float:
    """Half width of the manubrium in mm (28 where no sternum is seen: the mean of adults)."""
    z = np.flatnonzero(plate.present)
    if len(z) * work.spacing[0] < 40.0:
        return 28.0
    upper = z[z > z[-1] - 35.0 / work.spacing[0]]
    return float(np.clip(np.percentile((plate.high - plate.low)[upper] / 2, 75), 22.0, 33.0))


def trim_fronts(work: Work, plate: Plate, ribs: NDArray[np.uint8]) -> tuple[Mask, dict[int, float]]:
    """Take calcified cartilage off the front ends of ribs 1-6 (``ribs`` on the work grid is changed).

    Returns what was taken, and mL by rib.
    """
    taken = np.zeros(ribs.shape, bool)
    amount: dict[int, float] = {}
    half = manubrium_half(work, plate)
    off = (work.factor[2] - 1) / 2 * work.spacing[2] / work.factor[2]
    centre = 0.5 * (plate.low + plate.high)  # between its edges: the line of best cover lies some mm to a side
    for level, beyond in BEYOND_MM.items():
        for side in SIDES:
            label = rib(side, level)
            z, y, x = np.nonzero((ribs == label) & (work.ant > FRONT_MM))
            if not len(z):
                continue
            d = (x * work.spacing[2] + off - centre[z]) * (1 if side == "left" else -1)
            cut = _cut(d, half + beyond, SPREAD_MM[level], tolerance=0.4 if level == 1 else 2.0)
            gone = d < cut
            if gone.any():
                taken[z[gone], y[gone], x[gone]] = True
                amount[label] = float(gone.sum()) * work.voxel_ml
    ribs[taken] = 0
    return taken, amount


def _cut(d: NDArray[np.float64], expected: float, sd: float, *, tolerance: float) -> float:
    """Distance at which to cut: the thinnest place within 2 SD of ``expected``.

    -inf, no cut, where the rib reaches no further inwards than ``tolerance`` SD.
    """
    if np.percentile(d, 1) > expected - tolerance * sd:
        return -np.inf
    spread = 2.0 * sd
    edges = np.arange(expected - spread, expected + spread + 30.0, BIN_MM)
    area = np.histogram(d, edges)[0].astype(float)
    area = np.convolve(np.pad(area, 1, mode="edge"), [0.25, 0.5, 0.25], mode="valid")
    mid = edges[:-1] + BIN_MM / 2
    usual = max(float(np.median(area[area > 0])) if (area > 0).any() else 1.0, 1.0)
    near = mid < expected + spread
    cost = area[near] / usual + PRIOR * ((mid[near] - expected) / spread) ** 2
    return float(mid[near][int(cost.argmin())])
