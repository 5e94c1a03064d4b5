"""Front ends of the ribs: calcified cartilage that is fused with a rib is cut off where the rib ends.

Along a rib towards the front three things tell bone from calcified cartilage: the section of cartilage is smaller
or broken, its dense spots are denser than anything in the front of a rib, and where it is not calcified there is
nothing. Each place is a possible joint with a likelihood; how far joints lie from the sternum varies by a centimetre
between people, but little between neighbouring ribs of one person, so that all joints of a person are found together
(the most likely set under a normal prior): a rib that ends by itself in the mask says where its fused neighbour does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from shapemodel.anatomy import rib
from shapemodel.labels.sternum import Plate
from shapemodel.labels.work import Work
from shapemodel.mask import Mask

BEYOND_MM = {1: 22.0, 2: 26.0, 3: 41.0, 4: 48.0, 5: 55.0, 6: 66.0, 7: 85.0, 8: 96.0, 9: 109.0}
"""Joint of rib and cartilage, mm beside the edge of the manubrium, mean of adults."""
BREADTH_MM = {2: 103.0, 3: 121.0, 4: 130.0, 5: 135.0, 6: 138.0, 7: 143.0, 8: 147.0, 9: 150.0}
"""Half of the breadth of the chest from rib to rib, mean of the same."""
BROADER = {2: 0.5, 3: 0.5, 4: 0.5, 5: 0.5, 6: 0.55, 7: 0.7, 8: 0.75, 9: 0.6}
"""mm further out that a joint lies for each mm that half a chest is broader: what is left of the differences between
people is 8 mm at ribs 3-5, 5 mm at ribs 7-9 (11 mm without)."""
TENTH_AHEAD_MM = 80.0
"""The same of the tenth rib, which ends where the wall turns forwards, mm in front of the canal: 24-78 in people, 76-89
in phantoms."""
SPREAD_MM = {1: 4.5, 2: 6.0, 3: 7.5, 4: 8.0, 5: 8.5, 6: 9.0, 7: 9.0, 8: 11.0, 9: 14.0, 10: 12.0}
"""Standard deviation of a joint's place about that, mm."""
ALIKE_LEVEL, ALIKE_SIDE = 0.75, 0.55
"""Correlation of that between neighbouring ribs, and between the two sides (0.74 and 0.51 in eight people; 0.87 and
0.75 where the breadth of the chest is not known)."""
TENTH = 10
"""Level of the lowest rib with a joint of its own."""
SIDES: tuple[Literal["left", "right"], ...] = ("left", "right")
FRONT_MM = 30.0
"""Only what is so far in front of the canal is a front end."""
AXIS_MM = 40.0
"""The front wall is measured along its curve, about an axis so far in front of the canal."""
LEAST_VOXELS = 20
BIN_MM = 2.0
WINDOW_MM = (45.0, 60.0)
"""Joints are looked for so far inwards and outwards of the expected place."""
SURE_SD = 3.0
"""So many SD outwards of the expected place it is rib whatever it looks like."""
INDEPENDENT, FIRST_INDEPENDENT = 0.3, 0.08
"""Share of the bins that count as independent: what is seen changes over 8 mm rather than over a bin. The first
cartilage is as wide as its rib and calcifies early and wholly, so that its looks say less."""
NARROW = 0.7
"""Logarithm by which a place as wide as the shaft is less likely the joint than one where nothing is."""
MISLED = 8.0
"""No place is less likely than this (logarithm) by its looks alone: cartilage may look like a rib all along."""
SHELL_PERCENTILE = 85.0
"""Percentile of the HU of a bin that stands for its cortex or its calcified spots."""
SHAVE_MM = 3.0
"""A rib that ends within this of the joint ended by itself and is left alone."""

SECTION_MEAN, SECTION_SD, SECTION_MOST = 0.85, 0.2, 1.2
"""Section of the front of a rib against that of the shaft behind it (people's ribs narrow to 0.92 +- 0.23 at 15 mm
from their end, 0.84 +- 0.19 at 9 mm, 0.71 +- 0.27 at 3 mm); more than the last counts as the last."""
FIRST_SECTION = 0.95, 0.2
"""The same of the first rib, which broadens towards its joint."""
SPARSE, SPARSE_SHARE = 0.35, 0.3
"""Section of cartilage: for this share of it falls off so fast from nothing, otherwise anything goes."""
DENSE_SD, DENSER, DENSER_SD = (0.25, 0.15), 0.2, 0.33
"""Logarithm of the HU of a rib's front against its shaft (spread), of calcified cartilage (mean, spread)."""
ODD = 0.03
"""Share of bins that look like neither."""


def manubrium_half(work: Work, plate: Plate) -> float:
    """Half width of the manubrium in mm (28 where no sternum is seen: the mean of adults)."""
    z = np.flatnonzero(plate.present)
    if len(z) * work.spacing[0] < 40.0:
        return 28.0
    upper = z[z > z[-1] - 35.0 / work.spacing[0]]
    return float(np.clip(np.percentile((plate.high - plate.low)[upper] / 2, 75), 22.0, 33.0))


@dataclass(frozen=True)
class Front:
    """The front of one rib in the mask: its voxels (n, 3), (n,) mm along the front wall from the midline, where the
    joint is expected there, and (places,) mm with the (places,) log-likelihood of a joint."""

    label: int
    level: int
    voxels: NDArray[np.int64]
    along: NDArray[np.float64]
    expected: float
    places: NDArray[np.float64]
    likelihood: NDArray[np.float64]

    @property
    def score(self) -> NDArray[np.float64]:
        """(places,) standard deviations of the places from the expected one."""
        return (self.places - self.expected) / SPREAD_MM[self.level]


def trim_fronts(work: Work, plate: Plate, ribs: NDArray[np.uint8]) -> tuple[Mask, dict[int, float]]:
    """Take calcified cartilage off the front ends of ribs 1-10 (``ribs`` on the work grid is changed).

    Returns what was taken, and mL by rib.
    """
    taken = np.zeros(ribs.shape, bool)
    amount: dict[int, float] = {}
    fronts = find_fronts(work, plate, ribs)
    for front, joint in zip(fronts, find_joints(fronts), strict=True):
        if np.percentile(front.along, 1) > joint - SHAVE_MM:
            continue
        gone = front.voxels[front.along < joint]
        taken[tuple(gone.T)] = True
        amount[front.label] = len(gone) * work.voxel_ml
    ribs[taken] = 0
    return taken, amount


def broader(work: Work, ribs: NDArray[np.uint8]) -> dict[int, float]:
    """mm by which half of the chest is broader than the usual at each level of which both ribs are there.

    A rib that the lowest slice cuts may be cut before its widest place: there the level above stands for it.
    """
    boxes = dict(enumerate(ndi.find_objects(ribs), start=1))
    out: dict[int, float] = {}
    for level, usual in BREADTH_MM.items():
        left, right = (boxes.get(rib(side, level)) for side in SIDES)
        if left is None or right is None:
            continue
        if left[0].start > 0 and right[0].start > 0:
            out[level] = 0.5 * (left[2].stop - right[2].start) * work.spacing[2] - usual
        elif level - 1 in out:
            out[level] = out[level - 1]
    return out


def joint_beside(level: int, half: float, more: dict[int, float]) -> float:
    """mm beside the midline where the joint of ribs 1-9 is expected: ``half`` width of the manubrium, ``more`` breadth
    of the chest by level (:func:`broader`)."""
    return half + BEYOND_MM[level] + BROADER.get(level, 0.0) * more.get(level, 0.0)


def find_fronts(work: Work, plate: Plate, ribs: NDArray[np.uint8]) -> list[Front]:
    """The front ends that the scan shows, left ones first, from the top down."""
    half, more = manubrium_half(work, plate), broader(work, ribs)
    off = (work.factor[2] - 1) / 2 * work.spacing[2] / work.factor[2]
    centre = 0.5 * (plate.low + plate.high)  # between its edges: the line of best cover lies some mm to a side
    boxes = dict(enumerate(ndi.find_objects(ribs), start=1))
    out = []
    for side in SIDES:
        for level in SPREAD_MM:
            where = boxes.get(rib(side, level))
            if where is None:
                continue
            ahead_of = (ribs[where] == rib(side, level)) & (work.ant[where[0], where[1]] > FRONT_MM)
            voxels = np.argwhere(ahead_of) + [b.start for b in where]
            if len(voxels) < LEAST_VOXELS:
                continue
            z, y, x = voxels.T
            lateral = (x * work.spacing[2] + off - centre[z]) * (1 if side == "left" else -1)
            ahead = work.ant[z, y, 0] - AXIS_MM
            # the end of the first rib faces the sternum, others lie across the wall
            round_ = np.arctan2(lateral, ahead) * float(np.median(np.hypot(lateral, ahead)))
            along = lateral if level == 1 else round_
            if level in BEYOND_MM:
                expected = _where(lateral, along, joint_beside(level, half, more))
            else:
                expected = _where(-ahead, along, AXIS_MM - TENTH_AHEAD_MM)
            places, likelihood = _likelihood(along, work.hu[z, y, x], expected, level)
            out.append(Front(rib(side, level), level, voxels, along, expected, places, likelihood))
    return out


def _where(lateral: NDArray[np.float64], along: NDArray[np.float64], at: float) -> float:
    """mm along the wall at which a rib is ``at`` mm beside the midline; further in than its end, straight on."""
    bins, index = np.unique(np.floor(along / BIN_MM), return_inverse=True)
    beside = np.array([np.median(lateral[index == i]) for i in range(len(bins))])
    inner = np.maximum.accumulate(beside[: int(beside.argmax()) + 1])
    place = (bins[: len(inner)] + 0.5) * BIN_MM
    return float(np.interp(at, inner, place) - max(inner[0] - at, 0.0))


def _likelihood(
    along: NDArray[np.float64], hu: NDArray[np.int16], expected: float, level: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Places (n,) mm and the logarithm of how likely the joint is there: cartilage inwards of it, rib outwards."""
    sd = SPREAD_MM[level]
    edges = np.arange(expected - WINDOW_MM[0], expected + WINDOW_MM[1] + BIN_MM, BIN_MM)
    mid = edges[:-1] + BIN_MM / 2
    index = np.digitize(along, edges) - 1
    within = (index >= 0) & (index < len(mid))
    count = np.bincount(index[within], minlength=len(mid)).astype(float)
    count = np.convolve(np.pad(count, 1, mode="edge"), [0.25, 0.5, 0.25], mode="valid")
    shell = np.full(len(mid), np.nan)
    for i in np.unique(index[within]):
        shell[i] = np.percentile(hu[index == i], SHELL_PERCENTILE)
    shaft = (mid > expected + 0.5 * sd) & (mid < expected + 1.5 * sd + 25.0) & np.isfinite(shell)
    if not shaft.any():
        return edges, np.zeros(len(edges))
    section = count / max(float(np.median(count[shaft])), 1.0)
    dense = np.log(np.maximum(shell, 1.0) / max(float(np.median(shell[shaft])), 1.0))
    seen = np.isfinite(shell) & (section > 0.1)
    dense = np.where(seen, dense, 0.0)
    usual = FIRST_SECTION if level == 1 else (SECTION_MEAN, SECTION_SD)
    bone = _mixed(_normal(np.minimum(section, SECTION_MOST), *usual), 0.3)
    lime = SPARSE_SHARE * np.exp(-section / SPARSE) / SPARSE + (1 - SPARSE_SHARE) / SECTION_MOST
    for_lime = np.log(lime) - np.log(bone)
    density = _mixed(_normal(dense, DENSER, DENSER_SD), 0.3), _mixed(_skewed(dense, DENSE_SD), 0.3)
    for_lime += np.where(seen, np.log(density[0]) - np.log(density[1]), 0.0)
    for_lime[mid > expected + SURE_SD * sd] = -1.0
    total = np.concatenate([[0.0], np.cumsum(for_lime)]) * (FIRST_INDEPENDENT if level == 1 else INDEPENDENT)
    total -= NARROW * np.minimum(np.interp(edges, mid, section), 1.5)
    return edges, np.logaddexp(total - total.max(), -MISLED)


def _normal(x: NDArray[np.float64], mean: float, sd: float) -> NDArray[np.float64]:
    return np.asarray(np.exp(-0.5 * ((x - mean) / sd) ** 2) / (sd * np.sqrt(2 * np.pi)))


def _skewed(x: NDArray[np.float64], sd: tuple[float, float]) -> NDArray[np.float64]:
    """Normal about 0 with its own spread below and above."""
    own = np.where(x < 0, sd[0], sd[1])
    return np.asarray(np.exp(-0.5 * (x / own) ** 2) / (0.5 * (sd[0] + sd[1]) * np.sqrt(2 * np.pi)))


def _mixed(density: NDArray[np.float64], odd: float) -> NDArray[np.float64]:
    """A density of which a share is spread evenly (``odd`` high): nothing is impossible."""
    return (1 - ODD) * density + ODD * odd


def find_joints(fronts: list[Front]) -> list[float]:
    """mm along the wall of the joint of each front: the most likely set, found one by one until nothing moves.

    The tenth ribs, whose place is measured in another way, follow those above and do not move them.
    """
    level = np.array([f.level for f in fronts])
    right = np.array([f.label > 12 for f in fronts])
    alike = ALIKE_LEVEL ** np.abs(level[:, None] - level[None])
    alike = alike * np.where(right[:, None] == right[None], 1.0, ALIKE_SIDE)
    z = np.array([f.score[int((f.likelihood - 0.5 * f.score**2).argmax())] for f in fronts])
    upper, tenth = np.flatnonzero(level < TENTH), np.flatnonzero(level == TENTH)
    for known, free in ((upper, upper), (np.arange(len(fronts)), tenth)):
        q = np.linalg.inv(alike[np.ix_(known, known)])
        for _ in range(30 if len(free) else 0):
            before = z.copy()
            for i in free:
                j = int(np.searchsorted(known, i))
                f, others = fronts[i], -(q[j] @ z[known] - q[j, j] * z[i]) / q[j, j]
                z[i] = f.score[int((f.likelihood - 0.5 * q[j, j] * (f.score - others) ** 2).argmax())]
            if np.array_equal(z, before):
                break
    return [f.expected + SPREAD_MM[f.level] * float(v) for f, v in zip(fronts, z, strict=True)]
