"""Places of shafts between their ends, by the relief of each shaft."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from shapemodel.mesh import Points
from shapemodel.registration.ends import (
    BIN_MM,
    LEAST_SAMPLES,
    Centreline,
    Reach,
    RibSurface,
    Shaft,
    centreline,
    smoothed,
    tails,
    through,
)
from shapemodel.registration.profile import ROWS, Relief, relief, shift, unlike

LOOSE_MM = np.array([12.0, 8.0, 1.5])
"""That of the prior of an end in the search for places of the shaft: of one that is cut, of one that is there but does
not agree with its neighbours, of one that does."""

LEAST_MM = 4 * BIN_MM
"""A shorter piece of a rib has no line of its own, and no place to find on it."""

PASSES = 2
"""Times that the shifts of the ribs around are taken for the usual ones, and looked about."""

ALIKE_LEVELS, ALIKE_MM, USUAL_MM = 3.0, 3.0, 12.0
"""Ribs within so many levels are alike; by how much they differ all the same; and how far shifts are from even."""

TOGETHER = 3.0
"""Stations of a rib that no second end holds err as one: nine of them say as much as one does, each a third."""

LEVELS = 2
"""Ribs so many levels apart are alike in where their marks lie."""


@dataclass(frozen=True)
class Course:
    """One surface of a rib along its own middle: the ``line``, mm at which it begins and ``ends`` on it (2,), and of
    each of its points the mm ``arc`` (m,) on it and ``across`` (m, 2) off it."""

    line: Centreline
    ends: NDArray[np.float64]
    arc: NDArray[np.float64]
    across: NDArray[np.float64]

    @property
    def length(self) -> float:
        """mm from end to end."""
        return float(self.ends[1] - self.ends[0])


def course(points: Points, arc: NDArray[np.float64]) -> Course:
    """That of evenly spread points (m, 3), roughly in the order of ``arc`` (m,) mm."""
    for _ in range(2):
        line = smoothed(through(points, ((arc - arc.min()) / BIN_MM).astype(np.int64)))
        arc, nearest = line.lengthwise(points)
    return Course(line, tails(arc), arc, line.across(points, nearest))


@dataclass(frozen=True)
class Marks:
    """What the shafts of template and target show of where their places are.

    Attributes
    ----------
    rib : (R,) those of the template's shafts of which the target shows enough
    ours, theirs : R courses each; ``relief`` their two maps
    at : (R, n) mm of the stations from the end of the template's head
    """

    rib: NDArray[np.int64]
    ours: tuple[Course, ...]
    theirs: tuple[Course, ...]
    relief: tuple[Relief, Relief]
    at: NDArray[np.float64]


def marks(template: Points, parts: tuple[Shaft, ...], y: Points, targets: Sequence[RibSurface]) -> Marks:
    """Those of a ``template`` (V, 3) whose vertices are now at ``y`` (V, 3), near the target.

    The template's own relief and lengths are those before it was deformed: even the smoothest field stretches one
    part of a rib and another not, and squeezes its sections by as much as there is relief.
    """
    rib, ours, theirs, at = [], [], [], []
    for i, (shaft, target) in enumerate(zip(parts, targets, strict=True)):
        if len(target.real) < LEAST_SAMPLES:
            continue
        arc = centreline(shaft, y[shaft.ids]).lengthwise(target.real)[0]
        if np.ptp(arc) < LEAST_MM:
            continue
        own = template[shaft.ids]
        points = shaft.even(own)
        rib.append(i)
        ours.append(course(points, centreline(shaft, own).lengthwise(points)[0]))
        theirs.append(course(target.real, arc))
        place = ours[-1].line.lengthwise(template[shaft.stations].reshape(-1, 3))[0]
        at.append(place.reshape(shaft.stations.shape).mean(1) - ours[-1].ends[0])
    maps = tuple(
        relief(
            np.repeat(np.arange(len(rib)), [len(c.arc) for c in side]),
            np.concatenate([c.arc - c.ends[0] for c in side]) if side else np.zeros(0),
            np.concatenate([c.across for c in side]) if side else np.zeros((0, 2)),
            np.array([c.length for c in side]),
        )
        for side in (ours, theirs)
    )
    return Marks(np.array(rib, np.int64), tuple(ours), tuple(theirs), (maps[0], maps[1]), np.array(at))


@dataclass(frozen=True)
class Places:
    """The n stations of a rib on its target.

    Attributes
    ----------
    course : the target's
    even : (n,) mm along it by even spacing
    shift, sd : (n,) mm by which the relief says otherwise, and its standard deviation
    pinned : both ends are there
    """

    course: Course
    even: NDArray[np.float64]
    shift: NDArray[np.float64]
    sd: NDArray[np.float64]
    pinned: bool

    def goals(self) -> tuple[Points, Points, NDArray[np.float64]]:
        """(n, 3) where they belong, (n, 3) the direction along the rib, (n,) standard deviations."""
        place, line = self.even + self.shift, self.course.line
        sd = self.sd * (1.0 if self.pinned else TOGETHER)
        found = (place >= self.course.ends[0]) & (place <= self.course.ends[1])  # beyond a cut nothing is known
        return line.point(place), line.tangents[line.piece(place)], np.where(found, sd, np.inf)


def of_neighbours(
    shift: NDArray[np.float64], sd: NDArray[np.float64], pinned: NDArray[np.bool_], levels: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(R, n) mean shift of the other ribs of both sides near the level (R,) of each, from those that are ``pinned``."""
    apart = np.abs(levels[:, None] - levels)
    near = (apart <= ALIKE_LEVELS) & pinned & ~np.eye(len(levels), dtype=bool)
    firm = near[..., None] / (sd**2 + (ALIKE_MM + apart[..., None]) ** 2)
    return np.asarray(np.einsum("ijn,jn->in", firm, shift) / (firm.sum(1) + 1.0 / USUAL_MM**2))


def stations(
    m: Marks,
    found: Sequence[Reach | None],
    sound: NDArray[np.int64],
    stretch: NDArray[np.float64],
    levels: NDArray[np.int64],
) -> list[Places | None]:
    """Those of all n shafts, of these ``levels`` (n,), at what is ``found`` of each at the present fit.

    ``sound`` (n, 2) says how much the ends of each are believed (an index of ``LOOSE_MM``); a rib with an end that is
    cut has ``stretch`` (n,) times its length. A shift is looked for about even spacing first, then about what the ribs
    around have: people's ribs are long before or behind the angle on neighbouring levels and on both sides alike.
    """
    out: list[Places | None] = [None] * len(found)
    if not len(m.rib):
        return out
    lengths, start = np.zeros((2, len(m.rib))), np.zeros(len(m.rib))
    for k, (i, own, their) in enumerate(zip(m.rib, m.ours, m.theirs, strict=True)):
        lengths[:, k] = own.length, their.length
        r = found[i]
        if r is not None and not sound[i].all():
            lengths[1, k] = max(own.length * stretch[i], their.length)
            # the head, else the front, else the place where the fit has the rib
            offset = float(np.median(their.arc - r.arc)) - their.ends[0]
            start[k] = 0.0 if sound[i, 0] else (their.length - lengths[1, k] if sound[i, 1] else r.own[0] + offset)
    pinned: NDArray[np.bool_] = np.asarray(sound[m.rib].all(axis=1))
    loose = LOOSE_MM[sound[m.rib]]
    length, rib_levels = lengths.mean(0), levels[m.rib]
    mean, sd, variance = shift(*unlike(*m.relief, lengths, start, np.zeros((len(m.rib), ROWS))), length, loose)
    for _ in range(PASSES):
        about = of_neighbours(mean, sd, pinned, rib_levels)
        change, sd, variance = shift(*unlike(*m.relief, lengths, start, about), length, loose, variance)
        mean = about + change
    u = np.linspace(0.0, 1.0, ROWS)
    for k, i in enumerate(m.rib):
        half = 0.5 * mean[k] / lengths[:, k].mean()
        share = m.at[k] / lengths[0, k]
        place, doubt = (np.interp(share, u - half, x) for x in (u + half, sd[k]))
        even = m.theirs[k].ends[0] + start[k] + lengths[1, k] * share
        out[i] = Places(m.theirs[k], even, lengths[1, k] * (place - share), doubt, bool(pinned[k]))
    return out


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
