"""Anchors along ribs: what tells a rib how far it reaches along itself, and where on it a point belongs.

Nearest points say little about sliding along a shaft; its two ends say it at once. The end of the target is
looked for along the centreline of the deformed template; ends that the scan cuts, or that do not agree with
their neighbours (a stub of calcified cartilage, a missing piece), are left out. Between two known ends a place
on the shaft starts at the same fraction of its length on everybody, the convention by which ribs are measured
(Holcombe 2017); the relief of its shaft takes over where there is any (``profile.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from shapemodel.anatomy import STERNUM
from shapemodel.anatomy import bone as bone_of
from shapemodel.mesh import Mesh, Points
from shapemodel.registration.target import Target
from shapemodel.walks import edge_graph, far_ends, head_first, walk

BIN_MM = 8.0
"""Length of the pieces of a shaft whose centroids are its centreline."""

TIP = 8
"""Vertices at each end that are pulled."""

STATIONS = np.linspace(0.05, 0.95, 19)
"""Fractions of a rib's length whose place is looked for."""

SMOOTHINGS = 4
"""Passes that take ridges out of a centreline: about 11 mm."""

LEAST_SAMPLES = 100
"""A rib with fewer samples of real surface says nothing of its length."""

LIKE_LEVELS, STRETCH_SD = 8.0, 0.075
"""Logarithms of how much longer one person's ribs are than another's change slowly from level to level: a Gaussian
process (Matern 3/2) of this length in levels and standard deviation. From ribs 1-8, ribs 9-11 of phantoms are told to
1.1, 2.1 and 3.5 % (the mean of ribs nearby: 3.5, 4.6, 6.6)."""

SIDES_SD, SINGLE_SD = (0.01, 0.03, 0.06), (0.01, 0.02, 0.04)
"""By how much the two sides may differ from what they share, and a single rib from those around it. Which of these it
is, the whole ribs of the person say: two sides of one are alike to a percent, of the other only to ten."""

SIZE_SD = 0.3
"""Standard deviation of the logarithm of the size of one thorax against another's."""

SLACK_MM = 3.0
"""A vertex this far beyond the cut may still be seen: lengths are known no better."""

TIP_MM = 3.0
"""Samples this near to the end of the target tell where it is."""

TIP_QUANTILE = 0.003
"""Part of the samples beyond what counts as the end, against single stray points."""

CUT_MM = 6.0
"""An end this near to a face of the scan, in template or target, is the scan's and not the rib's."""

RIM_MM = (8.0, 16.0)
"""An end of the target this near to untrusted samples is a cut or a hole: at the head, at the front."""

DISAGREE_MM = {"head": 8.0, "front": 14.0}
"""An end whose pull differs by more from the median of its neighbours' is not believed."""


UP, LEFT = np.array([0.0, 0.0, 1.0]), np.array([1.0, 0.0, 0.0])
"""Across ribs and across the sternum: from there directions around them are counted, on everybody."""


@dataclass(frozen=True)
class Shaft:
    """One rib of the template: its index, vertices, the bin and the mm of each from head to front, the vertices of
    both tips, whether each tip is bone, not a cut, and whether a study ``showed`` it; (n, TIP) vertices at stations
    between; (n,) fraction of the length of each vertex, as measured along the centreline, and that ``length`` in mm;
    whether it is a plate, which is ``straight``, and not a curved rod."""

    index: int
    ids: NDArray[np.int64]
    bin: NDArray[np.int64]
    along: NDArray[np.float64]
    tips: tuple[NDArray[np.int64], NDArray[np.int64]]
    whole: tuple[bool, bool]
    showed: tuple[bool, bool]
    stations: NDArray[np.int64]
    fraction: NDArray[np.float64]
    length: float
    straight: bool = False


def shafts(template: Mesh, labels: NDArray[np.int64], fov: NDArray[np.float64]) -> tuple[Shaft, ...]:
    """The ribs of a template; ``fov`` tells which of their tips are cut (infinite: none), the point array ``prior``
    which nobody showed."""
    shown = _shown(template)
    spine = template.vertices[np.isin(template.bone, range(26, 38))]
    back = (
        spine.mean(0)[:2] if len(spine) else np.array([template.vertices[:, 0].mean(), template.vertices[:, 1].max()])
    )
    out = []
    for index, label in enumerate(labels):
        if bone_of(int(label)).kind != "rib":
            continue
        v, f, ids = template.select(int(label))
        edges = edge_graph(v, f)
        along = walk(edges, head_first(far_ends(edges), v, back[None])[0])
        out.append(_shaft(index, ids, v, along, fov, shown[ids]))
    return tuple(out)


def plate(template: Mesh, labels: NDArray[np.int64], fov: NDArray[np.float64]) -> Shaft | None:
    """The sternum of a template as a shaft from its notch down, whose ends can be looked for in the same way."""
    index = np.flatnonzero(labels == STERNUM)
    if not len(index):
        return None
    v, _, ids = template.select(STERNUM)
    along = along_axis(v, -v[:, 2]).lengthwise(v)[0]
    return replace(_shaft(int(index[0]), ids, v, along, fov, _shown(template)[ids]), straight=True)


def _shown(template: Mesh) -> NDArray[np.bool_]:
    """(V,) vertices that some study of the template's cohort showed; all where it says nothing of that."""
    return ~np.asarray(template.arrays.get("prior", np.zeros(len(template.vertices))), dtype=bool)


def _shaft(
    index: int,
    ids: NDArray[np.int64],
    v: Points,
    along: NDArray[np.float64],
    fov: NDArray[np.float64],
    shown: NDArray[np.bool_],
) -> Shaft:
    """Of a bone with these vertices, ``shown`` (n,) or not, which lie at ``along`` (n,) mm."""
    order = np.argsort(along, kind="stable")
    tips = order[:TIP], order[::-1][:TIP]
    low, high = fov[0::2] + CUT_MM, fov[1::2] - CUT_MM
    first_whole, last_whole = (bool(((v[t] > low) & (v[t] < high)).all()) for t in tips)
    bins = np.unique((along / BIN_MM).astype(np.int64), return_inverse=True)[1]
    stations = np.array([np.sort(np.argsort(np.abs(along - u * along.max()), kind="stable")[:TIP]) for u in STATIONS])
    own = through(v, bins).lengthwise(v)[0]
    first, last = tails(own)
    return Shaft(
        index,
        ids,
        bins,
        along,
        (ids[tips[0]], ids[tips[1]]),
        (first_whole, last_whole),
        (bool(shown[tips[0]].all()), bool(shown[tips[1]].all())),
        ids[stations],
        fraction=(own - first) / (last - first),
        length=float(last - first),
    )


@dataclass(frozen=True)
class Centreline:
    """Centroids (n, 3) of the pieces of a shaft, unit tangents (n, 3), arc length (n,) mm."""

    points: Points
    tangents: Points
    arc: NDArray[np.float64]

    def lengthwise(self, x: Points) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """(n,) mm along the line of points (n, 3), and (n,) which of its points is nearest; ends go straight on."""
        c, t = self.points, self.tangents
        # the nearest centroid, without the part of the squared distance that is the same for all of them
        j = (np.column_stack([x, np.ones(len(x))]) @ np.vstack([2 * c.T, -(c**2).sum(1)])).argmax(1)
        px, py, pz = ((x[:, k] - c[:, k].take(j)) * t[:, k].take(j) for k in range(3))
        return self.arc.take(j) + (px + py + pz), j

    def piece(self, arc: NDArray[np.float64]) -> NDArray[np.int64]:
        """(n,) point of the line nearest to these lengths (n,)."""
        return np.abs(arc[:, None] - self.arc).argmin(1)

    def point(self, arc: NDArray[np.float64]) -> Points:
        """(n, 3) places at these lengths (n,); beyond the ends the line goes straight on."""
        j = self.piece(arc)
        return self.points[j] + (arc - self.arc[j])[:, None] * self.tangents[j]

    def across(self, x: Points, nearest: NDArray[np.int64], aside: Points = UP) -> NDArray[np.float64]:
        """(n, 2) mm of points off the line, towards ``aside`` (3,) and square to it, with the points of the line
        ``nearest`` to them."""
        t = self.tangents
        one = aside - t * (t @ aside)[:, None]
        one /= np.maximum(np.linalg.norm(one, axis=1, keepdims=True), 1e-3)
        away = x - self.points[nearest]
        return np.column_stack([(away * way[nearest]).sum(1) for way in (one, np.cross(one, t))])


def along_axis(points: Points, mm: NDArray[np.float64]) -> Centreline:
    """The straight line along the points' longest axis, in the direction in which ``mm`` (n,) grow.

    A plate is so wide that the line through its pieces depends on how they are cut.
    """
    middle = points.mean(0)
    axis = np.linalg.svd(points - middle, full_matrices=False)[2][0]
    axis *= np.sign(((points - middle) @ axis) @ (mm - mm.mean()) or 1.0)
    along = (points - middle) @ axis
    ticks = np.arange(along.min(), along.max() + BIN_MM, BIN_MM)
    return join(middle + ticks[:, None] * axis)


def centreline(shaft: Shaft, own: Points) -> Centreline:
    """That of a shaft whose vertices are now at ``own`` (n, 3)."""
    return through(own, shaft.bin)


def through(points: Points, piece: NDArray[np.int64]) -> Centreline:
    """The line through the centroids of the pieces (n,) of points (n, 3), in order; pieces without points are none."""
    count = np.bincount(piece)
    return join(np.stack([np.bincount(piece, points[:, k]) for k in range(3)], 1)[count > 0] / count[count > 0, None])


def join(c: Points) -> Centreline:
    """The line through points (n, 3) in order."""
    t = np.gradient(c, axis=0)
    t /= np.maximum(np.linalg.norm(t, axis=1, keepdims=True), 1e-9)
    return Centreline(c, t, np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(c, axis=0), axis=1))]))


def smoothed(line: Centreline) -> Centreline:
    """Without the steps that ridges make in it: relief is measured from a line that does not follow it."""
    c = line.points.copy()
    for _ in range(SMOOTHINGS):
        c[1:-1] = 0.25 * c[:-2] + 0.5 * c[1:-1] + 0.25 * c[2:]
    return join(c)


def tails(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(2,) quantiles that are the ends, as of ``np.quantile``, which takes longer to find out what is asked of it."""
    at = (len(values) - 1) * np.array([TIP_QUANTILE, 1 - TIP_QUANTILE])
    below = at.astype(np.int64)
    part = np.partition(values, np.concatenate([below, below + 1]))
    low, high, t = part[below], part[below + 1], at - below
    return np.where(t < 0.5, low + (high - low) * t, high - (high - low) * (1 - t))


@dataclass(frozen=True)
class RibSurface:
    """The target's samples on a rib: (n, 3) of real surface, (m, 3) untrusted ones, as about cuts and holes, and
    (k, 3) of real surface again, dense enough to read its relief from."""

    real: Points
    rim: Points
    dense: Points


def rib_surfaces(parts: Sequence[Shaft], target: Target) -> tuple[RibSurface, ...]:
    """Those of the ribs of a target."""
    x, solid = target.points, target.main
    return tuple(RibSurface(x[k][solid[k]], x[k][~solid[k]], target.dense[k]) for k in (s.index for s in parts))


@dataclass(frozen=True)
class Reach:
    """One rib against its target, all along the template's centreline.

    ``pull`` (2,) mm outwards at head and front; ``tips``, ``goal`` (2, 3) where template and target end; ``rim`` (2,)
    mm from where the target ends to its nearest untrusted sample; ``own``, ``theirs`` (2,) first and last mm of
    template and target; (m,) ``arc`` of the target's samples on the ``line``.
    """

    pull: NDArray[np.float64]
    tips: Points
    goal: Points
    rim: NDArray[np.float64]
    own: NDArray[np.float64]
    theirs: NDArray[np.float64]
    line: Centreline
    arc: NDArray[np.float64]


def reach(shaft: Shaft, y: Points, target: RibSurface) -> Reach:
    """Where the target of a rib ends and how far the deformed template ``y`` (V, 3) is from that."""
    own = y[shaft.ids]
    line = centreline(shaft, own)
    arc = line.lengthwise(target.real)[0]
    ours, theirs = tails(line.lengthwise(own)[0]), tails(arc)
    last = arc <= theirs[0] + TIP_MM, arc >= theirs[1] - TIP_MM
    goal = np.stack([target.real[np.flatnonzero(k)].mean(0) for k in last])
    # a cut or a hole leaves a rim of untrusted samples about its place; of a short piece it is near to both ends
    away = np.linalg.norm(target.rim[None] - goal[:, None], axis=2)
    rim = np.where(away <= away[::-1], away, np.inf).min(axis=1, initial=np.inf)
    pull = np.array([ours[0] - theirs[0], theirs[1] - ours[1]])
    return Reach(pull, line.points[[0, -1]], goal, rim, ours, theirs, line, arc)


def agree(
    pull: NDArray[np.float64],
    usable: NDArray[np.bool_],
    levels: NDArray[np.int64],
    right: NDArray[np.bool_],
    limit: float,
) -> NDArray[np.bool_]:
    """(R,) which usable pulls of one kind of end, of ribs of these levels and sides, agree with the median of those up
    to two levels away, or with that of the same level on the other side: ribs of a pair are long or short together."""
    good, apart, same = usable.copy(), np.abs(levels[:, None] - levels), right[:, None] == right
    for i in np.flatnonzero(usable):
        near = pull[usable & same[i] & (apart[i] > 0) & (apart[i] <= 2)]
        twin = pull[usable & ~same[i] & (apart[i] == 0)]
        good[i] = any(len(x) and abs(pull[i] - np.median(x)) < limit for x in (near, twin))
    return good


def usual_stretch(
    parts: tuple[Shaft, ...],
    levels: NDArray[np.int64],
    right: NDArray[np.bool_],
    length: NDArray,
    whole: NDArray[np.bool_],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(R,) by how much ribs are longer than the template's, and (R,) the standard deviation of the logarithm of that.

    By the ``whole`` ones (R,), whose ``length`` (R,) is known, and all levels and sides; 1 and infinite where there
    are too few to tell (Rasmussen and Williams 2006, eq. 2.23, 2.24). How alike sides and neighbours are is averaged
    over by what each way of it makes of the whole ribs (eq. 2.30).
    """
    if whole.sum() < 3:
        return np.ones(len(parts)), np.full(len(parts), np.inf)
    rest = np.array([s.length for s in parts])
    log = np.log(length[whole] / rest[whole])
    apart = np.sqrt(3.0) * np.abs(levels[:, None] - levels[None, whole]) / LIKE_LEVELS
    smooth, same = (1.0 + apart) * np.exp(-apart), right[:, None] == right[None, whole]
    evidence, means, lefts = [], [], []
    for sides, single in product(SIDES_SD, SINGLE_SD):
        alike = (STRETCH_SD**2 - sides**2 * ~same) * smooth + SIZE_SD**2
        between = alike[whole] + single**2 * np.eye(len(log))
        known = np.linalg.inv(between)
        evidence.append(-0.5 * (log @ known @ log + np.linalg.slogdet(between)[1]))
        means.append(alike @ known @ log)
        lefts.append(STRETCH_SD**2 + SIZE_SD**2 + single**2 - ((alike @ known) * alike).sum(1))
    weight = np.exp(np.array(evidence) - max(evidence))
    weight /= weight.sum()
    mean = weight @ means
    return np.exp(mean), np.sqrt(np.maximum(weight @ (np.array(lefts) + (np.array(means) - mean) ** 2), 0.0))


def beyond(
    parts: tuple[Shaft, ...], length: NDArray, stretch: NDArray[np.float64], cut: NDArray[np.bool_], n: int
) -> NDArray[np.bool_]:
    """(n,) vertices beyond the cut of their rib; its length is measured from a sound head and stretched as
    whole ribs are.

    Without this a rib that the scan cuts is squeezed into what is seen of it.
    """
    lost = np.zeros(n, dtype=bool)
    for i in np.flatnonzero(cut):
        lost[parts[i].ids] = parts[i].fraction * parts[i].length * stretch[i] > length[i] + SLACK_MM
    return lost
