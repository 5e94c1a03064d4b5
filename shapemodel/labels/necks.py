"""Rib necks, the piece of a rib between its start beside the spine and its head on the body, and what lies behind.

A neck runs in front of the transverse process to the upper edge of its body, and touches both. Bone there is
given to the rib before vertebrae and ribs meet in the flood; otherwise the flood through a joint that the scan
does not show as dark takes the head and the neck for the vertebra. What lies far enough behind a neck is the
transverse process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from shapemodel.anatomy import RIBS, VERTEBRAE
from shapemodel.labels.canal import Canal
from shapemodel.labels.ribs import Start
from shapemodel.labels.spine import Discs
from shapemodel.labels.vertebrae import COLUMN_SIDE_MM, SpineFrame, disc_height, level_bounds
from shapemodel.mask import Mask, Spacing

HEAD_SIDE_MM = 18.0
"""Sideways place of a head's outer end; the head itself is left to the flood, whose joint with the body it is."""
NECK_SIDE_MM = (19.5, 36.0)
"""Where a neck is looked for, mm sideways: from outside the end of its head, which lies 10-18 mm beside the middle of
the canal, to the tubercle."""
HEAD_DEPTH_MM = (11.0, 5.0, 2.0)
"""mm of the heads of ribs 1-3 in front of the middle of the canal; lower ones lie level with it."""
HEAD_ABOVE_MM = {1: -5.0, 11: -8.0, 12: -13.0}
"""Height of a head against the disc above its body; ribs 2-10 lie at :data:`HEAD_LEVEL_MM`."""
HEAD_LEVEL_MM = -2.0
HEAD_HALF_MM = 12.0
"""No head reaches so far before its middle (11 mm in phantoms, which carry the largest ones)."""
NECK_MM = ((1.5, 3.0), (2.0, 3.5))
"""A neck's middle before and above the line from start to head, and its spread: behind and below is the process."""
CORRIDOR_MM = 8.0
"""No neck strays farther from its expected place."""
WINDOW_MM = 50.0
"""Necks climb or fall by less between head and start: what lies further above or below need not be looked at."""
GAP_COST = 30.0
"""A mm outside bone, in mm of the middle of a neck: a hole in a thin cortex is passed, a missing neck is not made."""
MOST_GAP = 0.25
"""Larger part of a path outside bone: no neck is seen there."""
CORE_MM = 1.5
"""Bone so near to the path is the neck's: less than half its thickness."""
STUMP_PITCH_MM = (15.0, 50.0)
"""Between neighbouring ribs at the lower end of the chest."""
STUMP_SIDE_MM = 22.0
"""A neck that the scan cuts off is followed from as near to the spine as this."""
PROCESS_SIDE_MM = (16.0, 25.0)
PROCESS_BEHIND_MM = (12.0, 22.0)
"""Behind the line from a rib's head to its start: up to 11 mm there is rib, tubercle included, in the smallest
phantoms, up to 8 mm in large people; from 12 mm on there is none in any."""
PROCESS_HEIGHT = (0.40, 1.0)
"""Share of the level: transverse processes reach sideways and back from the pedicle's height."""
PROCESS_TOP_T1 = 0.75
"""The same for T1, over which the pillars of C7 hang down."""
BARE_SIDE_MM = (17.0, 25.0)
BARE_DEPTH_MM = (-25.0, -16.0)
"""Where processes are looked for that carry no rib, mm sideways of the canal and before it."""
TURN_SMOOTH_MM = 30.0
"""Neighbouring levels turn alike: one and a half levels."""
MOST_TURN_DEG = 30.0


def axial_turn(canal: Canal, owners: Sequence[tuple[int, Start]]) -> NDArray[np.float64]:
    """(Z,) radians by which the vertebrae are turned about the canal, left side forwards, at each slice.

    The ribs of a pair leave the spine equally far in front of it; in a turned patient, or where the spine is
    twisted, they do not, and everything beside the canal is to be looked for in the turned frame.
    """
    level = {label: start for label, start in owners}
    place, angle = [], []
    for label in RIBS[:12]:
        if label in level and label + 12 in level:
            a, b = level[label], level[label + 12]
            span = _side(canal, a) - _side(canal, b)
            place.append(0.5 * (a.s + b.s))
            angle.append(np.arctan2(a.ant - b.ant, span))
    if not place:
        return np.zeros(len(canal.points))
    s, turn = np.array(place), np.clip(angle, *np.radians([-MOST_TURN_DEG, MOST_TURN_DEG]))
    weight = np.exp(-0.5 * ((canal.s[:, None] - np.clip(s, canal.s[0], canal.s[-1])[None]) / TURN_SMOOTH_MM) ** 2)
    weight += 1e-6 * np.exp(-np.abs(canal.s[:, None] - s[None]) / TURN_SMOOTH_MM)  # beyond the ribs: the nearest
    return np.asarray(weight @ turn / weight.sum(axis=1))


def _side(canal: Canal, start: Start) -> float:
    """mm to the patient's left of the canal."""
    return float(start.point[2] - canal.at_z(np.array([start.point[0]]))[0, 1])


def stump_starts(owners: Sequence[tuple[int, Start]], levels: dict[int, int]) -> list[tuple[int, Start]]:
    """(label, start) of ribs whose start the lowest slice cuts off while their vertebra is in the scan.

    What the scan shows of such a rib is its head and neck alone. Its start lies a pitch below that of the rib above.
    """
    known = dict(owners)
    out = []
    for first in (RIBS[0], RIBS[12]):
        side = [known.get(first + k) for k in range(12)]
        lowest = max((k for k, start in enumerate(side) if start is not None), default=11)
        last, before = side[lowest], side[lowest - 1]
        if lowest == 11 or last is None or before is None or VERTEBRAE[lowest + 1] not in levels.values():
            continue
        pitch = before.s - last.s
        if STUMP_PITCH_MM[0] < pitch < STUMP_PITCH_MM[1]:
            down = np.array(last.point) - np.array(before.point)
            point = tuple(np.array(last.point) + [down[0], down[1], 0.0])
            out.append((first + lowest + 1, replace(last, s=last.s - pitch, point=point, edge=True)))
    return out


def neck_markers(
    frame: SpineFrame,
    bone: Mask,
    discs: Discs,
    levels: dict[int, int],
    owners: Sequence[tuple[int, Start]],
    canal: Canal,
    spacing: Spacing,
) -> NDArray[np.uint8]:
    """Labels of the ribs whose necks these voxels of ``bone`` (Z, Y, X, in the frame's box) are; 0 elsewhere."""
    out = np.zeros(frame.s.shape, np.uint8)
    interval = {label: k for k, label in levels.items() if label in VERTEBRAE}
    stumps = stump_starts(owners, levels)
    for label, start in (*owners, *stumps):
        k = interval.get(VERTEBRAE[(label - 1) % 12])
        if k is None or k >= len(discs.s):
            continue
        cost, box, lat = _cost(frame, discs, k, (label - 1) % 12 + 1, start, canal)
        if not cost.size:
            continue
        cost = np.where(np.isfinite(cost) & ~bone[box], GAP_COST, cost)
        cut = start.edge and box[0].start == 0
        if (label, start) in stumps and not cut:
            continue  # the scan goes on below: a rib that is not there
        path = _path(cost, lat, spacing, cut)
        if path is None or (~bone[box][tuple(path.T)]).mean() > MOST_GAP:
            continue
        core = np.ones(cost.shape, bool)
        core[tuple(path.T)] = False
        near = ndi.distance_transform_edt(core, sampling=spacing) <= CORE_MM
        out[box][near & bone[box] & (lat > NECK_SIDE_MM[0]) & (lat < NECK_SIDE_MM[1])] = label
    return out


def _cost(
    frame: SpineFrame, discs: Discs, k: int, level: int, start: Start, canal: Canal
) -> tuple[NDArray[np.float64], tuple[slice, ...], NDArray[np.float32]]:
    """Cost per mm (inf outside the corridor) in a box of the frame around the line from start to head, and mm
    sideways there; empty where the start is too near to the spine."""
    sign, side, depth, head_depth = _line(frame, level, start, canal)
    if side < NECK_SIDE_MM[1]:
        return np.zeros((0, 0, 0)), (slice(0),) * 3, np.zeros((0, 0, 0), np.float32)
    head, far = HEAD_ABOVE_MM.get(level, HEAD_LEVEL_MM), start.s - float(discs.s[k])
    part = _beside(frame, start, canal)
    lat, ant = sign * frame.lat[part], frame.ant[part]
    t = (lat - HEAD_SIDE_MM) / (side - HEAD_SIDE_MM)
    ahead = ant - (head_depth + (depth - head_depth) * t)
    above = frame.s[part] - disc_height(discs, k, ant) - (head + (far - head) * t)
    near = (lat > NECK_SIDE_MM[0] - 1.0) & (lat < side) & (np.abs(ahead) < CORRIDOR_MM) & (np.abs(above) < CORRIDOR_MM)
    if not near.any():
        return np.zeros((0, 0, 0)), (slice(0),) * 3, np.zeros((0, 0, 0), np.float32)
    box = tuple(slice(int(i.min()), int(i.max()) + 1) for i in np.nonzero(near))
    whole = tuple(slice(p.start + b.start, p.start + b.stop) for p, b in zip(part, box, strict=True))
    cost = 1.0 + sum(((x[box] - m) / sd) ** 2 for x, (m, sd) in zip((ahead, above), NECK_MM, strict=True))
    return np.where(near[box], np.minimum(cost, GAP_COST), np.inf), whole, lat[box]


def _line(frame: SpineFrame, level: int, start: Start, canal: Canal) -> tuple[float, float, float, float]:
    """The line from a rib's head to its start: 1 (left) or -1, mm sideways and before the canal of the start, as
    the vertebra is turned, and mm before the canal of the head."""
    sign = 1.0 if start.side == "left" else -1.0
    row = int(np.abs(canal.points[:, 0] - start.point[0]).argmin())
    c, s = np.cos(frame.turn[row]), np.sin(frame.turn[row])
    across = _side(canal, start)
    head_depth = HEAD_DEPTH_MM[level - 1] if level <= len(HEAD_DEPTH_MM) else 0.0
    return sign, sign * (c * across + s * start.ant), c * start.ant - s * across, head_depth


def process_markers(
    frame: SpineFrame,
    bone: Mask,
    discs: Discs,
    levels: dict[int, int],
    owners: Sequence[tuple[int, Start]],
    canal: Canal,
) -> NDArray[np.uint8]:
    """Labels of the vertebrae whose transverse processes these voxels of ``bone`` (Z, Y, X, in the frame's box) are;
    0 elsewhere."""
    out = np.zeros(frame.s.shape, np.uint8)
    lines = {}
    for rib, start in owners:
        level = (rib - 1) % 12
        sign, side, depth, head_depth = _line(frame, level + 1, start, canal)
        if side > NECK_SIDE_MM[1]:
            lines[VERTEBRAE[level], sign] = (depth - head_depth) / (side - HEAD_SIDE_MM), head_depth
    for k, label in levels.items():
        rows, low, high = level_bounds(frame, discs, k)
        ant, share = frame.ant[rows], (frame.s[rows] - low) / (high - low)
        top = PROCESS_TOP_T1 if label == VERTEBRAE[0] else PROCESS_HEIGHT[1]
        level_bone = bone[rows] & (share > PROCESS_HEIGHT[0]) & (share < top)
        for sign in (-1.0, 1.0):
            lat = sign * frame.lat[rows]
            (near, far), behind, (least, most) = BARE_SIDE_MM, -ant, (-BARE_DEPTH_MM[1], -BARE_DEPTH_MM[0])
            if (label, sign) in lines:
                slope, head = lines[label, sign]
                (near, far), (least, most) = PROCESS_SIDE_MM, PROCESS_BEHIND_MM
                behind = (head + slope * (lat - HEAD_SIDE_MM) - ant) / np.hypot(1.0, slope)
            part = level_bone & (lat > near) & (lat < far) & (behind > least) & (behind < most)
            out[rows][part] = label
    return out


def hold_heads(labels: NDArray[np.uint8], frame: SpineFrame, discs: Discs, levels: dict[int, int]) -> NDArray[np.uint8]:
    """Give bone that a flood took for a rib, along the cortex of a body before its head, to the body; changes
    ``labels`` (Z, Y, X, in the frame's box)."""
    ahead = (labels >= RIBS[0]) & (labels <= RIBS[-1]) & (frame.ant > HEAD_HALF_MM)
    at = np.nonzero(ahead)
    near = np.abs(frame.lat[at]) < COLUMN_SIDE_MM
    at = (at[0][near], at[1][near], at[2][near])
    rib, ant, s = labels[at], frame.ant[at], frame.s[at]
    for k, label in levels.items():
        if label not in VERTEBRAE:
            continue
        level = VERTEBRAE.index(label)
        head = HEAD_DEPTH_MM[level] if level < len(HEAD_DEPTH_MM) else 0.0
        strip = np.isin(rib, (RIBS[level], RIBS[level + 12])) & (ant > head + HEAD_HALF_MM)
        body = np.full(int(strip.sum()), label, np.uint8)
        if k < len(discs.s) and k + 1 in levels:
            body[s[strip] > disc_height(discs, k, ant[strip])] = levels[k + 1]
        labels[tuple(i[strip] for i in at)] = body
    return labels


def _beside(frame: SpineFrame, start: Start, canal: Canal) -> tuple[slice, slice, slice]:
    """Part of the frame's box on the side of a rib and within :data:`WINDOW_MM` of its start's height."""
    rows = np.flatnonzero(np.abs(canal.points[:, 0] - start.point[0]) < WINDOW_MM)
    right = frame.lat[rows].max(axis=(0, 1)) < 0
    left = frame.lat[rows].min(axis=(0, 1)) > 0
    cols = np.flatnonzero(~right if start.side == "left" else ~left)
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(0, frame.s.shape[1]), slice(int(cols[0]), int(cols[-1]) + 1)


def _path(cost: NDArray[np.float64], lat: NDArray[np.float32], spacing: Spacing, cut: bool) -> NDArray[np.int64] | None:
    """(n, 3) voxels of the cheapest way from the outer end of a neck to its head; None where there is none.

    Where the lowest slice may have ``cut`` the neck it begins there.
    """
    from skimage.graph import MCP_Geometric

    open_ = np.isfinite(cost)
    outer = open_ & (lat > NECK_SIDE_MM[1] - 1.0)
    if cut:
        outer[0] |= open_[0] & (lat[0] > STUMP_SIDE_MM)
    starts = np.argwhere(outer)
    ends = np.argwhere(open_ & (lat < NECK_SIDE_MM[0] + 1.0))
    if not len(starts) or not len(ends):
        return None
    mcp = MCP_Geometric(np.where(open_, cost, -1.0), fully_connected=True, sampling=spacing)
    total, _ = mcp.find_costs(starts, ends)
    reached = total[tuple(ends.T)]
    if not np.isfinite(reached).any():
        return None
    return np.array(mcp.traceback(tuple(ends[int(reached.argmin())])), np.int64)
