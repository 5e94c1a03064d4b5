"""Places of shafts between their ends, by the relief of each shaft."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from shapemodel.mesh import Points
from shapemodel.registration.ends import BIN_MM, Centreline, Reach, RibSurface, Shaft, smoothed, tails, through
from shapemodel.registration.profile import LOOSE_WANDER, SHIFTS, STEP_MM, WANDER, relief, shift, unlike

LOOSE_MM = np.array([12.0, 8.0, 1.5])
"""That of the prior of an end in the search for places of the shaft: of one that is cut, of one that is there but does
not agree with its neighbours, of one that does."""

TOGETHER = 3.0
"""Stations of a rib that no second end holds err as one: nine of them say as much as one does, each a third."""

LEVELS = 2
"""Ribs so many levels apart are alike in where their marks lie."""


@dataclass(frozen=True)
class Places:
    """The n stations of a rib on its target.

    Attributes
    ----------
    line : the target's centreline; ``reach`` (2,) where its surface begins and ends on it, mm
    even : (n,) mm along it by even spacing
    shift, sd : (n,) mm by which the relief says otherwise, and its standard deviation
    pinned : both ends are there
    """

    line: Centreline
    reach: tuple[float, float]
    even: NDArray[np.float64]
    shift: NDArray[np.float64]
    sd: NDArray[np.float64]
    pinned: bool

    def goals(self) -> tuple[Points, Points, NDArray[np.float64]]:
        """(n, 3) where they belong, (n, 3) the direction along the rib, (n,) standard deviations."""
        place = self.even + self.shift
        sd = self.sd * (1.0 if self.pinned else TOGETHER)
        found = (place >= self.reach[0]) & (place <= self.reach[1])  # beyond a cut nothing is known
        return self.line.point(place), self.line.tangents[self.line.piece(place)], np.where(found, sd, np.inf)


def stations(shaft: Shaft, y: Points, target: RibSurface, r: Reach, sound: NDArray[np.int64], stretch: float) -> Places:
    """Those of a rib of the deformed template ``y`` (V, 3).

    ``sound`` (2,) says how much its ends are believed (an index of ``LOOSE_MM``); a rib with an end that is cut has
    ``stretch`` times its length.
    """
    # the target along its own line: the template's is still beside it
    arc = r.arc
    for _ in range(2):
        line = smoothed(through(target.real, ((arc - arc.min()) / BIN_MM).astype(np.int64)))
        arc, nearest = line.lengthwise(target.real)
    low, high = tails(arc)
    if sound.all():
        start, length = low, high - low
    else:
        length = max(shaft.length * stretch, high - low)
        offset = float(np.median(r.arc - arc))
        start = low if sound[0] else (high - length if sound[1] else r.own[0] - offset)
    own = shaft.even(y[shaft.ids])
    rows = int(np.ceil(shaft.length / STEP_MM)) + 1
    share = np.arange(rows) * STEP_MM / shaft.length
    first = min(low, start) + SHIFTS[0] - STEP_MM
    wide = int(np.ceil((max(high, start + length) + SHIFTS[-1] - first) / STEP_MM)) + 2
    middle = smoothed(r.line)
    ours = relief(shaft.even(shaft.fraction) * shaft.length, middle.across(own, middle.lengthwise(own)[1]), rows)
    theirs = relief(arc - first, line.across(target.real, nearest), wide)
    d2, there = unlike(ours, theirs, (start + share * length - first) / STEP_MM)
    loose = float(LOOSE_MM[sound[0]]), float(LOOSE_MM[sound[1]])
    mean, sd = shift(d2, there, loose, WANDER if sound.all() else LOOSE_WANDER)
    at = shaft.fraction[np.searchsorted(shaft.ids, shaft.stations)].mean(1)
    now, doubt = np.interp(at, share, mean), np.interp(at, share, sd)
    return Places(line, (float(low), float(high)), start + at * length, now, doubt, bool(sound.all()))


def doubted(found: list[Places | None], levels: NDArray[np.int64]) -> list[Places | None]:
    """Places whose doubt grows by what their shift differs from the median of ribs near their level (R,), both sides.

    People's ribs are long before or behind the angle on neighbouring levels alike; a rib that stands out has rather
    found a mark of another kind than grown otherwise.
    """
    known = [i for i, p in enumerate(found) if p is not None and p.pinned]
    out = list(found)
    for i, p in enumerate(found):
        near = [q.shift for j in known if j != i and abs(levels[j] - levels[i]) <= LEVELS and (q := found[j])]
        if p is not None and near:
            out[i] = replace(p, sd=np.hypot(p.sd, p.shift - np.median(near, axis=0)))
    return out
