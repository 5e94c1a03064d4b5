"""Ribs: pieces of bone beside the spine, ordered by where they start along the canal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from shapemodel.labels.flood import flood, step_cost
from shapemodel.labels.morphology import fill_planes
from shapemodel.labels.solid import RIB_HOLE_MM2
from shapemodel.labels.work import Work
from shapemodel.mask import Mask

PARASPINAL_MM = 33.0
"""Half width of the box around the canal in which ribs, transverse processes and bodies touch."""
FRONT_OF_CANAL_MM = 55.0
"""The box reaches to the front of the largest body."""
START_MM = (37.0, 46.0)
"""Sideways range in which a rib is past its tubercle and alone."""
START_FRONT_MM, START_BEHIND_MM = 40.0, 52.0
"""Rib necks pass 0-30 mm behind the middle of the canal, 40 mm on one side of a patient turned by 12 degrees; the first
rib of a flat chest starts beside it."""
THICK = 1.35
"""Times the usual volume of a section: the first rib alone has up to 1.3."""
DOUBLE = 1.8
"""Times the usual volume: two ribs whatever the length."""
SECTION_MM = 20.0
"""Longer than the section of any rib."""
RETURN_MM = 8.0
"""A section so far in front of another of the same piece, at its height, is the first rib coming back."""
RETURN_S_MM = 30.0
REACH_MM = 48.0
"""A rib goes on sideways at least so far; the longest transverse process does not."""
MIN_START_ML = 0.10
SAME_START_MM = 11.0
"""Two pieces of a start slab nearer than this are parts of one rib's section; the first two ribs are 14 mm apart."""


@dataclass(frozen=True)
class Start:
    """Where a rib leaves the spine: ``s`` mm along the canal, ``ant`` mm in front of it, its component, its side,
    the centre (z, y, x mm of the array), and whether a scan edge cuts it there."""

    s: float
    side: str
    component: int
    point: tuple[float, float, float]
    ml: float
    edge: bool
    ant: float


def paraspinal(work: Work) -> Mask:
    """(Z, Y, X) bool: the box around the spine."""
    return (np.abs(work.lat) < PARASPINAL_MM) & (work.ant < FRONT_OF_CANAL_MM) & (work.ant > -95.0)


def find_starts(work: Work, comps: NDArray[np.int32]) -> list[Start]:
    """Starts of ribs among the components ``comps`` (labels on the work grid, 0 outside), both sides."""
    slab = (np.abs(work.lat) >= START_MM[0]) & (np.abs(work.lat) < START_MM[1])
    slab = slab & (work.ant < START_FRONT_MM) & (work.ant > -START_BEHIND_MM) & (comps > 0)
    solid = fill_planes(slab & (work.hu > work.limits.working), work.spacing, RIB_HOLE_MM2, (2,))
    lab, n = ndi.label(solid)
    if n == 0:
        return []
    reach = _reach(work, comps)
    lab = _part_thick(lab, n, work)
    out: list[Start] = []
    for k, box in enumerate(ndi.find_objects(lab), start=1):
        if box is None:
            continue
        idx = np.argwhere(lab[box] == k) + [b.start for b in box]
        ml = len(idx) * work.voxel_ml
        z0, z1 = int(idx[:, 0].min()), int(idx[:, 0].max())
        edge = z0 == 0 or z1 == len(work.hu) - 1
        if ml < MIN_START_ML:
            continue
        count = np.bincount(comps[tuple(idx.T)])
        count[0] = 0
        component = int(count.argmax())
        low, high, touches = reach[component]
        centre = work.mm(idx).mean(axis=0)
        mid = idx.mean(axis=0)
        left = work.lat[int(mid[0]), 0, int(mid[2])] > 0
        far = high if left else -low
        if far < REACH_MM and not touches:
            continue
        s = float(work.canal.arclength(centre[None])[0])
        ant = float(work.ant[int(mid[0]), int(mid[1]), 0])
        out.append(Start(s, "left" if left else "right", component, tuple(centre), ml, edge, ant))
    return _merge(work, comps, out, reach)


def _part_thick(lab: NDArray[np.int32], n: int, work: Work) -> NDArray[np.int32]:
    """Part sections that are two touching ribs: thick and longer than any rib is high, cut at half their length."""
    ml = np.bincount(lab.ravel(), minlength=n + 1)[1:] * work.voxel_ml
    usual = float(np.median(ml[ml > MIN_START_ML])) if (ml > MIN_START_ML).any() else 1.0
    boxes = ndi.find_objects(lab)
    new = n
    for k in np.flatnonzero(ml > THICK * usual) + 1:
        view = lab[boxes[k - 1]]
        idx = np.argwhere(view == k)
        flat = idx[:, :2] * np.array(work.spacing[:2])  # z, y: the sagittal section
        flat = flat - flat.mean(axis=0)
        along = flat @ np.linalg.svd(flat, full_matrices=False)[2][0]
        long = np.percentile(along, 97) - np.percentile(along, 3) > SECTION_MM
        if not long and ml[k - 1] < DOUBLE * usual:
            continue
        new += 1
        view[tuple(idx[along > 0].T)] = new
    return lab


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


def _merge(
    work: Work, comps: NDArray[np.int32], starts: list[Start], reach: dict[int, tuple[float, float, bool]]
) -> list[Start]:
    """Join pieces of one start that a hole in the mask parted; top first."""
    out: list[Start] = []
    for one in sorted(starts, key=lambda q: -q.ml):
        place = np.array(one.point)
        near = [q for q in out if q.component == one.component and q.side == one.side]
        if not any(np.linalg.norm(place - q.point) < SAME_START_MM for q in near):
            out.append(one)
    out += _stumps(work, comps, {q.component for q in out}, reach)
    back = [q for q in out if not any(_returns(q, other) for other in out)]
    return sorted(back, key=lambda q: (q.side, -q.s))


def _stumps(
    work: Work, comps: NDArray[np.int32], used: set[int], reach: dict[int, tuple[float, float, bool]]
) -> list[Start]:
    """Starts of ribs that the first or last slice cuts so near to the spine that they miss the slab."""
    out = []
    boxes = ndi.find_objects(comps)
    for component, (low, high, touches) in reach.items():
        if not component or component in used or not touches or boxes[component - 1] is None:
            continue
        side = "left" if high > -low else "right"
        if not START_MM[0] <= max(high, -low) <= REACH_MM + 12.0 or min(abs(low), abs(high)) > START_MM[0]:
            continue
        box = boxes[component - 1]
        idx = np.argwhere(comps[box] == component) + [b.start for b in box]
        ml = len(idx) * work.voxel_ml
        mid = np.round(idx.mean(axis=0)).astype(int)
        ant = float(work.ant[mid[0], mid[1], 0])
        if MIN_START_ML < ml < 4.0 and -40.0 < ant < 10.0:
            centre = work.mm(idx).mean(axis=0)
            s = float(work.canal.arclength(centre[None])[0])
            out.append(Start(s, side, component, tuple(centre), ml, True, ant))
    return out


def _returns(one: Start, other: Start) -> bool:
    """Whether ``one`` is where the rib of ``other`` passes the slab again, on its way to the sternum."""
    same = one.component == other.component and one.side == other.side and one is not other
    ahead = other.point[1] - one.point[1]  # y grows to the back
    return same and one.ant > 8.0 and ahead > RETURN_MM and abs(one.s - other.s) < RETURN_S_MM


ORPHAN_ML = 0.15
ORPHAN_LUNG_MM = 16.0
RISE_MM = 6.0
"""In front of the canal ribs sink towards their ends; what rises by more from where it would be tied on is a clavicle
or the cartilage of another rib."""
AHEAD_MM = 20.0
"""So far in front of the canal that is sure, also behind the bulge of a rib in a kyphosis."""
BRIDGE_MM = 30.0
"""Longest gap in a rib that is bridged: a fracture, or cortex too thin to be seen over an intercostal width."""


def name_components(
    work: Work, comps: NDArray[np.int32], names: dict[int, list[tuple[int, Start]]]
) -> NDArray[np.uint8]:
    """Rib labels on the work grid: components of one start by name, those of several split, lost pieces attached.

    ``names`` maps a component to its (label, start) pairs.
    """
    out = np.zeros(comps.shape, np.uint8)
    table = np.zeros(int(comps.max()) + 1, np.uint8)
    for component, owners in names.items():
        if len(owners) == 1:
            table[component] = owners[0][0]
    out = table[comps]
    boxes = ndi.find_objects(comps)
    for component, owners in names.items():
        if len(owners) > 1:
            box = boxes[component - 1]
            _split(work, comps[box] == component, box, owners, out[box])
    return out


def _split(
    work: Work, mask: Mask, box: tuple[slice, ...], owners: list[tuple[int, Start]], out: NDArray[np.uint8]
) -> None:
    """Part a component among its starts by a geodesic flood from each; writes into ``out``."""
    idx = np.argwhere(mask)
    mm = work.mm(idx + [b.start for b in box])
    markers = np.zeros(mask.shape, np.uint8)
    for label, start in owners:
        near = np.linalg.norm(mm - np.array(start.point), axis=1) < 7.0
        markers[tuple(idx[near].T)] = label
    cost = step_cost(work.hu[box], work.limits.low)
    parts = flood(cost, mask, markers, work.spacing)
    out[mask] = parts[mask]


def attach_orphans(work: Work, comps: NDArray[np.int32], ribs: NDArray[np.uint8]) -> list[tuple[int, float, int]]:
    """Give pieces of rib without a start to the rib they continue; changes ``ribs``.

    A piece lies at the cage and is long; its axis points at the rib and the gap is shorter than
    :data:`BRIDGE_MM`. Returns (component, mL, label) of the pieces looked at, label 0 where none fits.
    """
    ml = np.bincount(comps.ravel()) * work.voxel_ml
    boxes = ndi.find_objects(comps)
    own = enumerate(ndi.find_objects(ribs), start=1)
    ends = {k: _points(work, ribs[where] == k, where)[::7] for k, where in own if where is not None}
    seen = []
    for component in np.flatnonzero(ml > ORPHAN_ML)[::-1]:
        if component == 0 or not len(ends):
            continue
        box = boxes[component - 1]
        mask = comps[box] == component
        if (ribs[box][mask] > 0).any() or np.median(work.lung_mm[box][mask]) > ORPHAN_LUNG_MM:
            continue
        pts = _points(work, mask, box)
        label = _continues(pts, {k: q for k, q in ends.items() if not _rises(work, pts, q)})
        seen.append((int(component), float(ml[component]), label))
        if label:
            ribs[box][mask] = label
    return seen


def _rises(work: Work, pts: NDArray[np.float64], rib: NDArray[np.float64]) -> bool:
    """Whether a piece at the front lies above the nearest place of a rib, headwards (points z, y, x in mm)."""
    centre = pts.mean(axis=0)
    near = rib[int(np.linalg.norm(rib - centre, axis=1).argmin())]
    middle = float(work.canal.at_z(centre[:1])[0, 0])
    return bool(middle - centre[1] > AHEAD_MM and centre[0] - near[0] > RISE_MM)


def _points(work: Work, mask: Mask, box: tuple[slice, ...]) -> NDArray[np.float64]:
    return work.mm(np.argwhere(mask) + [b.start or 0 for b in box])


def _continues(pts: NDArray[np.float64], ends: dict[int, NDArray[np.float64]]) -> int:
    """The rib whose nearest point lies along the axis of the piece ``pts``, or 0."""
    from scipy.spatial import cKDTree

    centre = pts.mean(axis=0)
    _, sv, axes = np.linalg.svd(pts[:: max(1, len(pts) // 2000)] - centre, full_matrices=False)
    long = sv[0] > 2.0 * sv[1]
    best, label = np.inf, 0
    for k, rib_pts in ends.items():
        d, i = cKDTree(rib_pts).query(pts)
        j = int(d.argmin())
        length = float(d[j])
        if length > BRIDGE_MM:
            continue
        to = rib_pts[i[j]] - centre
        along = abs(float(to @ axes[0])) / (float(np.linalg.norm(to)) + 1e-9)
        if length > 4.0 and not (long and along > 0.85):
            continue
        cost = length * (2.0 - along)
        if cost < best:
            best, label = cost, k
    return label
