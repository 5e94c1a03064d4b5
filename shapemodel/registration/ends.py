"""Anchors along ribs: what tells a rib how far it reaches along itself, and where on it a point belongs.

Nearest points say little about sliding along a shaft; its two ends say it at once. The end of the target is
looked for along the centreline of the deformed template; ends that the scan cuts, or that do not agree with
their neighbours (a stub of calcified cartilage, a missing piece), are left out. Between two known ends a place
on the shaft starts at the same fraction of its length on everybody, the convention by which ribs are measured
(Holcombe 2017); finer marks of its shape take over where there are any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
from numpy.typing import NDArray

from shapemodel.anatomy import bone as bone_of
from shapemodel.mesh import Mesh, Points
from shapemodel.walks import edge_graph, far_ends, head_first, walk

BIN_MM = 8.0
"""Length of the pieces of a shaft whose centroids are its centreline."""

TIP = 8
"""Vertices at each end that are pulled."""

STATIONS = np.linspace(0.1, 0.9, 9)
"""Fractions of a rib's length whose place is anchored when both of its ends are known."""

LEAST_SAMPLES = 100
"""A rib with fewer samples of real surface says nothing of its length."""

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


@dataclass(frozen=True)
class Shaft:
    """One rib of the template: its index, vertices, the bin and the mm of each from head to front, the vertices of
    both tips, whether each tip is bone, not a cut; (n, TIP) vertices at stations between and their (n,) fractions of
    the length."""

    index: int
    ids: NDArray[np.int64]
    bin: NDArray[np.int64]
    along: NDArray[np.float64]
    tips: tuple[NDArray[np.int64], NDArray[np.int64]]
    whole: tuple[bool, bool]
    stations: NDArray[np.int64]
    fraction: NDArray[np.float64]


def shafts(template: Mesh, labels: NDArray[np.int64], fov: NDArray[np.float64]) -> tuple[Shaft, ...]:
    """The ribs of a template; ``fov`` tells which of their tips are cut (infinite: none)."""
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
        order = np.argsort(along, kind="stable")
        tips = order[:TIP], order[::-1][:TIP]
        low, high = fov[0::2] + CUT_MM, fov[1::2] - CUT_MM
        head, front = (bool(((v[t] > low) & (v[t] < high)).all()) for t in tips)
        bins = np.unique((along / BIN_MM).astype(np.int64), return_inverse=True)[1]
        stations = np.array(
            [np.sort(np.argsort(np.abs(along - u * along.max()), kind="stable")[:TIP]) for u in STATIONS]
        )
        shaft = Shaft(index, ids, bins, along, (ids[tips[0]], ids[tips[1]]), (head, front), ids[stations], STATIONS)
        own, _ = centreline(shaft, v).lengthwise(v)
        low, high = tails(own)
        out.append(replace(shaft, fraction=(own[stations].mean(1) - low) / (high - low)))
    return tuple(out)


@dataclass(frozen=True)
class Centreline:
    """Centroids (n, 3) of the pieces of a shaft, unit tangents (n, 3), arc length (n,) mm."""

    points: Points
    tangents: Points
    arc: NDArray[np.float64]

    def lengthwise(self, x: Points) -> tuple[NDArray[np.float64], Points]:
        """(n,) mm along the line of points (n, 3), (n, 3) its unit tangent there; ends go straight on."""
        c, t = self.points, self.tangents
        # the nearest centroid, without the part of the squared distance that is the same for all of them
        j = (np.column_stack([x, np.ones(len(x))]) @ np.vstack([2 * c.T, -(c**2).sum(1)])).argmax(1)
        px, py, pz = ((x[:, k] - c[:, k].take(j)) * t[:, k].take(j) for k in range(3))
        return self.arc.take(j) + (px + py + pz), t[j]


def centreline(shaft: Shaft, own: Points) -> Centreline:
    """That of a shaft whose vertices are now at ``own`` (n, 3)."""
    count = np.maximum(np.bincount(shaft.bin), 1).astype(float)
    c = np.stack([np.bincount(shaft.bin, own[:, k]) for k in range(3)], 1) / count[:, None]
    t = np.gradient(c, axis=0)
    t /= np.maximum(np.linalg.norm(t, axis=1, keepdims=True), 1e-9)
    return Centreline(c, t, np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(c, axis=0), axis=1))]))


@dataclass(frozen=True)
class Anchors:
    """(E,) ends and stations of ribs: bone index; (E, TIP) vertices; (E, 3) unit direction; (E,) mm to go along it;
    (E,) whether it is an end.

    ``lost`` (V,): vertices that lie beyond the place where the scan cuts their rib, by length from its head.
    """

    bone: NDArray[np.int64]
    vertex: NDArray[np.int64]
    direction: Points
    pull: NDArray[np.float64]
    end: NDArray[np.bool_]
    lost: NDArray[np.bool_]


def tails(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(2,) quantiles that are the ends, as of ``np.quantile``, which takes longer to find out what is asked of it."""
    at = (len(values) - 1) * np.array([TIP_QUANTILE, 1 - TIP_QUANTILE])
    below = at.astype(np.int64)
    part = np.partition(values, np.concatenate([below, below + 1]))
    low, high, t = part[below], part[below + 1], at - below
    return np.where(t < 0.5, low + (high - low) * t, high - (high - low) * (1 - t))


@dataclass(frozen=True)
class RibSurface:
    """The target's samples on a rib: (n, 3) of real surface, and (m, 3) untrusted ones, as about cuts and holes."""

    real: Points
    rim: Points


def rib_surfaces(parts: Sequence[Shaft], samples: NDArray, solid: NDArray) -> tuple[RibSurface, ...]:
    """Those of the ribs, from ``samples`` (B, S, 3) of the target's bones and whether they are ``solid`` (B, S)."""
    return tuple(RibSurface(samples[k][solid[k]], samples[k][~solid[k]]) for k in (s.index for s in parts))


@dataclass(frozen=True)
class Reach:
    """One rib against its target, all along the template's centreline.

    ``pull`` (2,) mm outwards at head and front; ``outward`` (2, 3) directions; ``tips``, ``goal`` (2, 3) where template
    and target end; ``rim`` (2,) mm from where the target ends to its nearest untrusted sample; ``length`` mm of the
    target; (n,) ``even`` mm that the stations have to go to their fraction of that length, ``way`` (n, 3) directions.
    """

    pull: NDArray[np.float64]
    outward: Points
    tips: Points
    goal: Points
    rim: NDArray[np.float64]
    length: float
    even: NDArray[np.float64]
    way: Points


def reach(shaft: Shaft, y: Points, target: RibSurface) -> Reach:
    """Where the target of a rib ends and how far the deformed template ``y`` (V, 3) is from that."""
    own = y[shaft.ids]
    line = centreline(shaft, own)
    theirs = line.lengthwise(target.real)[0]
    (own_low, own_high), (low, high) = tails(line.lengthwise(own)[0]), tails(theirs)
    last = theirs <= low + TIP_MM, theirs >= high - TIP_MM
    goal = np.stack([target.real[np.flatnonzero(k)].mean(0) for k in last])
    # a cut or a hole leaves a rim of untrusted samples about its place
    rim = np.linalg.norm(target.rim[None] - goal[:, None], axis=2).min(axis=1, initial=np.inf)
    now, way = line.lengthwise(y[shaft.stations].mean(1))
    even = low + shaft.fraction * (high - low) - now
    pull = np.array([own_low - low, high - own_high])
    outward = np.stack([-line.tangents[0], line.tangents[-1]])
    return Reach(pull, outward, line.points[[0, -1]], goal, rim, float(high - low), even, way)


def agree(pull: NDArray[np.float64], usable: NDArray[np.bool_], limit: float) -> NDArray[np.bool_]:
    """(n,) which usable pulls of one side and kind of end, in order of level, agree with up to two on each side."""
    good, known = usable.copy(), {int(i): float(pull[i]) for i in np.flatnonzero(usable)}
    for i, own in known.items():
        around = [known[j] for j in range(i - 2, i + 3) if j != i and j in known]
        good[i] = len(around) > 0 and abs(own - median(around)) < limit
    return good


def beyond(
    parts: tuple[Shaft, ...], length: NDArray, whole: NDArray[np.bool_], cut: NDArray[np.bool_], n: int
) -> NDArray[np.bool_]:
    """(n,) vertices beyond the cut of their rib; its length is measured from a sound head and scaled as whole ribs are.

    Without this a rib that the scan cuts is squeezed into what is seen of it.
    """
    rest = np.array([s.along.max() for s in parts])
    scale = float(np.median(length[whole] / rest[whole])) if whole.sum() >= 3 else 1.0
    lost = np.zeros(n, dtype=bool)
    for i in np.flatnonzero(cut):
        lost[parts[i].ids] = parts[i].along * scale > length[i] + SLACK_MM
    return lost


def anchors(
    parts: tuple[Shaft, ...],
    labels: NDArray[np.int64],
    y: Points,
    targets: Sequence[RibSurface],
    seen: Callable[[Points], NDArray[np.bool_]],
) -> Anchors:
    """Where the tips of the deformed template should go along themselves.

    ``targets`` are those of the same ribs; ``seen(points (..., 3)) -> (...,)`` tells what is well inside the scan.
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
            pulls[i], rim[i], places[:, i], length[i] = r.pull, r.rim, (r.tips, r.goal), r.length
    near = rim <= RIM_MM
    usable = np.array([s.whole for s in parts], bool).reshape(-1, 2) & np.asarray(seen(places)).all(0) & ~near
    sides = np.array([labels[s.index] > 12 for s in parts], dtype=bool)
    for e, end in enumerate(("head", "front")):
        for side in (False, True):
            rows = np.flatnonzero(sides == side)
            usable[rows, e] = agree(pulls[rows, e], usable[rows, e], DISAGREE_MM[end])
    lost = beyond(parts, length, np.asarray(usable.all(1)), ~near[:, 0] & near[:, 1], len(y))
    return Anchors(*_collect(parts, found, usable), lost)


def _collect(
    parts: tuple[Shaft, ...], found: list[Reach | None], usable: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64], Points, NDArray[np.float64], NDArray[np.bool_]]:
    """Bone, vertices, direction, pull, end or not, of the usable ends and of the stations of ribs with two of them."""
    bone: list[int] = []
    end: list[bool] = []
    vertex, direction, pull = [np.zeros((0, TIP), np.int64)], [np.zeros((0, 3))], [np.zeros(0)]
    for shaft, r, ok in zip(parts, found, usable, strict=True):
        if r is None or not ok.any():
            continue
        vertex.append(np.stack(shaft.tips)[ok])
        direction.append(r.outward[ok])
        pull.append(r.pull[ok])
        if ok.all():
            vertex.append(shaft.stations)
            direction.append(r.way)
            pull.append(r.even)
        between = len(shaft.stations) if ok.all() else 0
        bone += [shaft.index] * (int(ok.sum()) + between)
        end += [True] * int(ok.sum()) + [False] * between
    return (
        np.array(bone, np.int64),
        np.concatenate(vertex),
        np.concatenate(direction),
        np.concatenate(pull),
        np.array(end, bool),
    )
