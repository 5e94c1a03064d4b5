"""Anchors along ribs: where their ends and the places of their shafts belong, for the joint fit to hold on to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shapemodel.mesh import Points
from shapemodel.registration.ends import (
    DISAGREE_MM,
    LEAST_SAMPLES,
    RIM_MM,
    STATIONS,
    TIP,
    Reach,
    RibSurface,
    Shaft,
    agree,
    beyond,
    reach,
    usual_stretch,
)
from shapemodel.registration.stations import Marks, doubted, stations

END_MM = 1.5
"""Standard deviation of an end that is known."""

ALONE = 99
"""Level of the sternum: far from those of ribs, none of which tells of it."""

PLATE_SHARE = 0.25
"""Part of the sternum's length by which an end of it may be off; farther away one of the two labels is in pieces."""

PLATE_DOUBT = 2.0
"""Relief of the sternum is as wide as the plate and changes with its bend: its places are off by 1.1-1.6 standard
deviations, and surfaces that agree know better (warps: off by 4 mm with 1, by 0.3 mm with 2)."""


@dataclass(frozen=True)
class Anchors:
    """Places along R ribs, and the sternum, K of each: its head, its stations, its front.

    Attributes
    ----------
    bone : (R,) bone index
    vertex : (R, K, TIP) vertices whose mean is the place
    goal, direction : (R, K, 3) where it belongs, and the unit vector along the rib in which alone that is known
    sd : (R, K) how well, standard deviation in mm; infinite where nothing is known
    lost : (V,) vertices that lie beyond the place where the scan cuts their rib, by length from its head
    """

    bone: NDArray[np.int64]
    vertex: NDArray[np.int64]
    goal: Points
    direction: Points
    sd: NDArray[np.float64]
    lost: NDArray[np.bool_]

    @property
    def free(self) -> NDArray[np.int64]:
        """(n,) bones of which one end is known, and the other not."""
        return self.bone[np.isfinite(self.sd[:, [0, -1]]).sum(1) == 1]

    @property
    def ends(self) -> tuple[NDArray[np.int64], Points]:
        """(E, TIP) vertices of the known ends, and (E, 3) where they have to go."""
        known = np.isfinite(self.sd[:, [0, -1]])
        return self.vertex[:, [0, -1]][known], self.goal[:, [0, -1]][known]


def anchors(
    parts: tuple[Shaft, ...],
    labels: NDArray[np.int64],
    y: Points,
    targets: Sequence[RibSurface],
    seen: Callable[[Points], NDArray[np.bool_]],
    marks: Marks | None = None,
    plate: tuple[Shaft, RibSurface] | None = None,
) -> Anchors:
    """Where the tips of the deformed template should go along themselves, and, by the ``marks``, the stations between.

    ``targets`` are those of the same ribs; ``seen(points (..., 3)) -> (...,)`` tells what is well inside the scan.
    The ``plate`` is the sternum, of which only the ends are held.
    """
    found = [
        reach(shaft, y, own) if len(own.real) >= LEAST_SAMPLES else None
        for shaft, own in zip(parts, targets, strict=True)
    ]
    pulls, rim = np.zeros((len(parts), 2)), np.zeros((len(parts), 2))
    places = np.zeros((2, len(parts), 2, 3))
    length = np.full(len(parts), np.nan)
    for i, r in enumerate(found):
        if r is not None:
            pulls[i], rim[i], places[:, i], length[i] = r.pull, r.rim, (r.tips, r.goal), np.ptp(r.theirs)
    near = rim <= RIM_MM
    there = np.array([s.whole for s in parts], bool).reshape(-1, 2) & np.asarray(seen(places)).all(0) & ~near
    showed = np.array([s.showed for s in parts], bool).reshape(-1, 2)
    usable = there.copy()
    right = np.array([labels[s.index] > 12 for s in parts], dtype=bool)
    levels = np.array([(labels[s.index] - 1) % 12 for s in parts], np.int64)
    for e, end in enumerate(("head", "front")):
        usable[:, e] = agree(pulls[:, e], usable[:, e], levels, right, DISAGREE_MM[end])
    there &= showed  # an end that was made up, an image of the other side's, tells of others only
    usable &= showed
    stretch, unsure = usual_stretch(parts, levels, right, length, np.asarray(usable.all(1)))
    lost = beyond(parts, length, stretch, ~near[:, 0] & near[:, 1], len(y))
    held, sound = list(zip(parts, found, usable, strict=True)), there.astype(np.int64) + usable
    if plate is not None:
        r, known = _plate_ends(*plate, y, seen)
        held.append((plate[0], r, known))
        sound = np.vstack([sound, 2 * known])
        stretch, unsure = np.append(stretch, 1.0), np.append(unsure, np.inf)
        levels, right = np.append(levels, ALONE), np.append(right, False)
    count = len(STATIONS) + 2
    vertex = np.zeros((len(held), count, TIP), np.int64)
    direction, goal = np.zeros((2, len(held), count, 3))
    sd = np.full((len(held), count), np.inf)
    for i, (shaft, r, known) in enumerate(held):
        vertex[i] = np.concatenate([shaft.tips[0][None], shaft.stations, shaft.tips[1][None]])
        if r is None:
            continue
        now = y[vertex[i]].mean(1)
        nearest = r.line.lengthwise(now)[1]
        nearest[[0, -1]] = 0, len(r.line.arc) - 1
        direction[i] = r.line.tangents[nearest]
        way = np.zeros(count)
        way[[0, -1]] = -r.pull[0], r.pull[1]
        sd[i, [0, -1]] = np.where(known, END_MM, np.inf)
        goal[i] = now + direction[i] * way[:, None]
    if marks is not None:
        shown = stations(marks, [r for _, r, _ in held], sound, (stretch, unsure), levels, right)
        for i, own in enumerate(doubted(shown, levels)):
            if own is not None:
                goal[i, 1:-1], direction[i, 1:-1], sd[i, 1:-1] = own.goals()
        sd[len(parts) :, 1:-1] *= PLATE_DOUBT  # ribs come first
    return Anchors(np.array([shaft.index for shaft, _, _ in held], np.int64), vertex, goal, direction, sd, lost)


def _plate_ends(
    plate: Shaft, target: RibSurface, y: Points, seen: Callable[[Points], NDArray[np.bool_]]
) -> tuple[Reach | None, NDArray[np.bool_]]:
    """How far the sternum reaches, None where the target shows too little of it, and which of its ends are known (2,).

    Its tip is long in one person and hardly there in another, so that nearest points of it lie on the other's side.
    """
    if len(target.real) < LEAST_SAMPLES:
        return None, np.zeros(2, bool)
    r = reach(plate, y, target)
    whole = np.array(plate.whole) & np.array(plate.showed) & np.asarray(seen(np.stack([r.tips, r.goal]))).all(0)
    return r, whole & (r.rim > RIM_MM) & (np.abs(r.pull) < PLATE_SHARE * plate.length)
