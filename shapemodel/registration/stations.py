"""Places of shafts between their ends, by the relief of each shaft."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from shapemodel.mesh import Mesh, Points
from shapemodel.registration.ends import (
    BIN_MM,
    LEAST_SAMPLES,
    LEFT,
    STATIONS,
    UP,
    Centreline,
    Reach,
    RibSurface,
    Shaft,
    along_axis,
    centreline,
    smoothed,
    tails,
    through,
)
from shapemodel.registration.profile import ROWS, Relief, about, relief, shift, unlike
from shapemodel.registration.target import bulged, draw

LOOSE_MM = np.array([12.0, 8.0, 1.5])
"""That of the prior of an end in the search for places of the shaft: of one that is cut, of one that is there but does
not agree with its neighbours, of one that does. One that is cut off a rib of known head is known better by what other
ribs say of its length."""

LEAST_MM = 4 * BIN_MM
"""A shorter piece of a rib has no line of its own, and no place to find on it."""

PASSES = 4
"""Times that the shifts of the ribs around are taken for the usual ones, and looked about."""

SURFACE_POINTS = 12000
"""Points on a rib of the template from which its relief is read. With 3000 of them, and 4000 on the target, their noise
was four tenths of the relief of a shaft, and moved places by 2 mm."""

ALIKE_LEVELS, ALIKE_MM, USUAL_MM = 3.0, 5.0, 12.0
"""Ribs within so many levels are alike; by how much they differ all the same; and how far shifts are from even."""

TOGETHER = len(STATIONS) ** 0.5
"""Stations of a rib that no second end holds err as one: all of them together say as much as one does. Held more firmly
(1.5) ribs of other people are better and those of one person worse (0.62 mm for 0.42 on one warp)."""

LEVELS = 2
"""Ribs so many levels apart are alike in where their marks lie."""


@dataclass(frozen=True)
class Course:
    """One surface of a rib along its own middle: the ``line``, and mm at which it begins and ``ends`` on it (2,)."""

    line: Centreline
    ends: NDArray[np.float64]

    @property
    def length(self) -> float:
        """mm from end to end."""
        return float(self.ends[1] - self.ends[0])


@dataclass(frozen=True)
class Markings:
    """R ribs of one person in mm of their own: their ``courses``, their ``relief``, and (R, n) mm ``at`` which the
    stations of a template lie, from the end of the head; n is 0 for a target."""

    courses: tuple[Course, ...]
    relief: Relief
    at: NDArray[np.float64]


def read(parts: Sequence[Shaft], ribs: Sequence[Points], arcs: Sequence[NDArray[np.float64]]) -> Markings:
    """Of evenly spread points (m, 3) on each shaft, roughly in the order of ``arcs`` (m,) mm."""
    courses, arc, across = [], [], []
    for shaft, points, mm in zip(parts, ribs, arcs, strict=True):
        for _ in range(2):
            pieces = ((mm - mm.min()) / BIN_MM).astype(np.int64)
            line = along_axis(points, mm) if shaft.straight else smoothed(through(points, pieces))
            mm, nearest = line.lengthwise(points)
        courses.append(Course(line, tails(mm)))
        arc.append(mm - courses[-1].ends[0])
        across.append(line.across(points, nearest, LEFT if shaft.straight else UP))
    rib = np.repeat(np.arange(len(ribs)), [len(x) for x in arc])
    length = np.array([c.length for c in courses])
    empty = np.zeros((0, 2))
    one, two = np.concatenate([np.zeros(0), *arc]), np.concatenate([empty, *across])
    return Markings(tuple(courses), relief(rib, one, two, length), np.zeros((len(ribs), 0)))


def own_markings(template: Mesh, normals: NDArray[np.float64], parts: Sequence[Shaft]) -> Markings:
    """Those of a template with these vertex ``normals`` (V, 3), from its shape before any deformation.

    Even the smoothest field stretches one part of a rib and another not, and squeezes its sections by as much as
    there is relief.
    """
    points, arcs = [], []
    own = [template.vertices[s.ids] for s in parts]
    for s, v in zip(parts, own, strict=True):
        faces = template.select(int(template.bone[s.ids[0]]))[1]
        face, bary = draw(v, faces, SURFACE_POINTS)
        points.append(bulged(v, normals[s.ids], faces[face], bary))
        arcs.append(centreline(s, v).lengthwise(points[-1])[0])
    found = read(parts, points, arcs)
    at = [
        c.line.lengthwise(template.vertices[s.stations].reshape(-1, 3))[0].reshape(s.stations.shape).mean(1) - c.ends[0]
        for s, c in zip(parts, found.courses, strict=True)
    ]
    return replace(found, at=np.array(at).reshape(len(parts), -1))


@dataclass(frozen=True)
class Marks:
    """What the shafts of template and target show of where their places are, each in mm of its own.

    Both are read in the same way and the same units whichever is the template, so that the answer is the same, the
    other way round, when they are exchanged.

    Attributes
    ----------
    rib : (R,) those of the template's shafts of which the target shows enough
    ours, theirs : their markings
    size : mm of the template's frame that a mm of the target is
    """

    rib: NDArray[np.int64]
    ours: Markings
    theirs: Markings
    size: float


def marks(own: Markings, parts: Sequence[Shaft], targets: Sequence[RibSurface], y: Points, size: float) -> Marks:
    """Those of a template whose vertices are now at ``y`` (V, 3), near the ``targets`` that were made ``size`` times
    as large as they are."""
    rib, points, arcs = [], [], []
    for i, (shaft, target) in enumerate(zip(parts, targets, strict=True)):
        if min(len(target.real), len(target.dense)) < LEAST_SAMPLES:
            continue
        arc = centreline(shaft, y[shaft.ids]).lengthwise(target.dense)[0] / size
        if np.ptp(arc) >= LEAST_MM:
            rib.append(i)
            points.append(target.dense / size)
            arcs.append(arc)
    r = np.array(rib, np.int64)
    ours = Markings(tuple(own.courses[i] for i in rib), Relief(own.relief.height[r], own.relief.there[r]), own.at[r])
    return Marks(r, ours, read([parts[i] for i in rib], points, arcs), size)


@dataclass(frozen=True)
class Places:
    """The n stations of a rib on its target.

    Attributes
    ----------
    course : the target's, in its own mm, of which each is ``size`` mm of the template's frame
    even : (n,) mm along it by even spacing
    shift, sd : (n,) mm by which the relief says otherwise, and its standard deviation
    pinned : both ends are there
    """

    course: Course
    size: float
    even: NDArray[np.float64]
    shift: NDArray[np.float64]
    sd: NDArray[np.float64]
    pinned: bool

    def goals(self) -> tuple[Points, Points, NDArray[np.float64]]:
        """(n, 3) where they belong, (n, 3) the direction along the rib, (n,) standard deviations."""
        place, line = self.even + self.shift, self.course.line
        sd = self.sd * (1.0 if self.pinned else TOGETHER)
        found = (place >= self.course.ends[0]) & (place <= self.course.ends[1])  # beyond a cut nothing is known
        return self.size * line.point(place), line.tangents[line.piece(place)], np.where(found, self.size * sd, np.inf)


def between_sides(
    shift: NDArray[np.float64], sd: NDArray[np.float64], levels: NDArray[np.int64], pinned: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """(n,) mean squared difference, mm2, of the shifts of two ribs of a level, beyond what their doubt explains."""
    one, two = np.nonzero(np.triu((levels[:, None] == levels) & np.outer(pinned, pinned), 1))
    if not len(one):
        return np.zeros(shift.shape[1])
    left = (shift[one] - shift[two]) ** 2 - sd[one] ** 2 - sd[two] ** 2
    return np.asarray(np.maximum(left.mean(0), 0.0))


def of_neighbours(
    shift: NDArray[np.float64],
    sd: NDArray[np.float64],
    pinned: NDArray[np.bool_],
    levels: NDArray[np.int64],
    right: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """(R, n) mean shift of the other ribs near the level (R,) of each, from those that are ``pinned``.

    Those of the other side tell as much as the two sides of this person are alike.
    """
    apart = np.abs(levels[:, None] - levels)
    near = (apart <= ALIKE_LEVELS) & pinned & ~np.eye(len(levels), dtype=bool)
    across = (right[:, None] != right)[..., None] * between_sides(shift, sd, levels, pinned)
    firm = near[..., None] / (sd**2 + (ALIKE_MM + apart[..., None]) ** 2 + across)
    return np.asarray(np.einsum("ijn,jn->in", firm, shift) / (firm.sum(1) + 1.0 / USUAL_MM**2))


def stations(
    m: Marks,
    found: Sequence[Reach | None],
    sound: NDArray[np.int64],
    stretch: tuple[NDArray[np.float64], NDArray[np.float64]],
    levels: NDArray[np.int64],
    right: NDArray[np.bool_],
) -> list[Places | None]:
    """Those of all n shafts, of these ``levels`` (n,) and sides (n,), at what is ``found`` of each at the present fit.

    ``sound`` (n, 2) says how much the ends of each are believed (an index of ``LOOSE_MM``); a rib with an end that is
    cut has ``stretch`` times its length, give or take (both (n,)). A shift is looked for about even spacing first,
    then about what the ribs around have: people's ribs are long before or behind the angle on neighbouring levels and
    on both sides alike.
    """
    out: list[Places | None] = [None] * len(found)
    if not len(m.rib):
        return out
    lengths, start = np.zeros((2, len(m.rib))), np.zeros(len(m.rib))
    for k, (i, own, their) in enumerate(zip(m.rib, m.ours.courses, m.theirs.courses, strict=True)):
        lengths[:, k] = own.length, their.length
        r = found[i]
        if r is not None and not sound[i].all():
            lengths[1, k] = max(own.length * stretch[0][i] / m.size, their.length)
            # the head, else the front, else the place where the fit has the rib
            offset = float(np.median(their.line.lengthwise(r.line.points / m.size)[0] - r.line.arc / m.size))
            begin = r.own[0] / m.size + offset - their.ends[0]
            start[k] = 0.0 if sound[i, 0] else (their.length - lengths[1, k] if sound[i, 1] else begin)
    pinned: NDArray[np.bool_] = np.asarray(sound[m.rib].all(axis=1))
    loose = LOOSE_MM[sound[m.rib]]
    length, rib_levels = lengths.mean(0), levels[m.rib]
    half_known = (sound[m.rib] == 0) & (sound[m.rib, ::-1] == 2)
    loose = np.where(half_known, np.minimum(loose, np.hypot(LOOSE_MM[2], stretch[1][m.rib] * length)[:, None]), loose)
    table = unlike(m.ours.relief, m.theirs.relief, lengths, start)
    mean, sd, variance = shift(*about(table, np.zeros((len(m.rib), ROWS))), length, loose)
    for _ in range(PASSES):
        usual = of_neighbours(mean, sd, pinned, rib_levels, right[m.rib])
        change, sd, variance = shift(*about(table, usual), length, loose, variance)
        mean = usual + change
    u = np.linspace(0.0, 1.0, ROWS)
    for k, i in enumerate(m.rib):
        half = 0.5 * mean[k] / lengths[:, k].mean()
        share = m.ours.at[k] / lengths[0, k]
        place, doubt = (np.interp(share, u - half, x) for x in (u + half, sd[k]))
        even = m.theirs.courses[k].ends[0] + start[k] + lengths[1, k] * share
        shifted = lengths[1, k] * (place - share)
        out[i] = Places(m.theirs.courses[k], m.size, even, shifted, doubt, bool(pinned[k]))
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
