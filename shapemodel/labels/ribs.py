"""Ribs: pieces of bone beside the spine, ordered by where they start along the canal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from shapemodel.labels.work import Work
from shapemodel.mask import Mask

PARASPINAL_MM = 33.0
"""Half width of the box around the canal in which ribs, transverse processes and bodies touch."""
FRONT_OF_CANAL_MM = 55.0
"""The box reaches to the front of the largest body."""
START_MM = (33.0, 40.0)
"""Sideways range in which a rib is past its tubercle and alone."""
START_FRONT_MM = 45.0
REACH_MM = 48.0
"""A rib goes on sideways at least so far; the longest transverse process does not."""
MIN_START_ML = 0.10
SAME_START_MM = 8.0
"""Two pieces of a start slab nearer than this along the canal are one rib: ribs are 15 mm apart or more."""


@dataclass(frozen=True)
class Start:
    """Where a rib leaves the spine: ``s`` mm along the canal, its component, side, and whether a scan edge cuts."""

    s: float
    side: str
    component: int
    point: tuple[float, float, float]
    ml: float
    edge: bool


def paraspinal(work: Work) -> Mask:
    """(Z, Y, X) bool: the box around the spine."""
    return (np.abs(work.lat) < PARASPINAL_MM) & (work.ant < FRONT_OF_CANAL_MM) & (work.ant > -95.0)


def find_starts(work: Work, comps: NDArray[np.int32]) -> list[Start]:
    """Starts of ribs among the components ``comps`` (labels on the work grid, 0 outside), both sides."""
    slab = (np.abs(work.lat) >= START_MM[0]) & (np.abs(work.lat) < START_MM[1])
    slab = slab & (work.ant < START_FRONT_MM) & (work.ant > -40.0) & (comps > 0)
    lab, n = ndi.label(slab, np.ones((3, 3, 3)))
    if n == 0:
        return []
    reach = _reach(work, comps)
    out: list[Start] = []
    for k, box in enumerate(ndi.find_objects(lab), start=1):
        idx = np.argwhere(lab[box] == k) + [b.start for b in box]
        ml = len(idx) * work.voxel_ml
        z0, z1 = int(idx[:, 0].min()), int(idx[:, 0].max())
        edge = z0 == 0 or z1 == len(work.hu) - 1
        if ml < MIN_START_ML:
            continue
        component = int(np.bincount(comps[tuple(idx.T)]).argmax())
        low, high, touches = reach[component]
        centre = work.mm(idx).mean(axis=0)
        mid = idx.mean(axis=0)
        left = work.lat[int(mid[0]), 0, int(mid[2])] > 0
        far = high if left else -low
        if far < REACH_MM and not touches:
            continue
        s = float(work.canal.arclength(centre[None])[0])
        out.append(Start(s, "left" if left else "right", component, tuple(centre), ml, edge))
    return _merge(out)


def _reach(work: Work, comps: NDArray[np.int32]) -> dict[int, tuple[float, float, bool]]:
    """Per component: least and greatest ``lat`` in mm, and whether it touches the first or last slice."""
    ids = np.flatnonzero(comps)
    z, y, x = np.unravel_index(ids, comps.shape)
    c = comps.ravel()[ids]
    lat = work.lat[z, 0, x]
    n = int(c.max(initial=0)) + 1
    low, high = np.full(n, np.inf), np.full(n, -np.inf)
    np.minimum.at(low, c, lat)
    np.maximum.at(high, c, lat)
    touch = np.zeros(n, bool)
    touch[c[(z == 0) | (z == len(comps) - 1)]] = True
    return {k: (float(low[k]), float(high[k]), bool(touch[k])) for k in range(n)}


def _merge(starts: list[Start]) -> list[Start]:
    """Join pieces of one start that a hole in the mask parted; top first."""
    out: list[Start] = []
    for one in sorted(starts, key=lambda q: (q.side, -q.s)):
        last = out[-1] if out and out[-1].side == one.side else None
        if last is not None and last.s - one.s < SAME_START_MM and last.component == one.component:
            out[-1] = max(last, one, key=lambda q: q.ml)
        else:
            out.append(one)
    return out
