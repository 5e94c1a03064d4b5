"""Numbers: ribs of both sides aligned with each other, the first rib checked at the sternum, vertebrae by vote."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shapemodel.anatomy import N_PAIRS, OTHER_BONE, rib, vertebra
from shapemodel.labels.records import ORPHAN, PAIRS, PITCH, TOP, VARIANT, LabelSettings
from shapemodel.labels.ribs import Start, attach_orphans, find_starts, name_components
from shapemodel.labels.spine import Discs, find_discs
from shapemodel.labels.sternum import Plate
from shapemodel.labels.vertebrae import vote_levels
from shapemodel.labels.work import Work
from shapemodel.mask import Spacing
from shapemodel.reasons import Flag, StudyError

UNPAIRED_MM = 15.0
"""Cost of a rib without partner at the top or bottom of the other side, where the scan may have cut it: half a rib
pitch, so asymmetry alone never unpairs ribs."""
UNPAIRED_WITHIN_MM = 30.0
"""The same between two ribs of the other side: one that was overlooked there leaves a gap of a whole pitch."""
TIP_BELOW_NOTCH_MM = (8.0, 38.0, 66.0, 93.0, 125.0)
"""Front ends of ribs 1-5 below the upper edge of the manubrium, adults breathed in."""
FIRST_RATIO = 0.815
"""Sideways reach of the uppermost rib to the next, both sides together: 0.70-0.78 for ribs 1 and 2, 0.85 below."""
SECOND_RATIO = 0.895
"""The same of the second pair to the third: 0.84-0.87 for ribs 2 and 3, 0.90-0.96 below."""
REACH_RATIOS = (0.74, 0.86, 0.92, 0.96)
"""Sideways reach of ribs 1-4 to that of the next."""
LUMBAR_MM = 45.0
"""So much spine without ribs below the last rib means that it is the twelfth."""
GAP_RATIO = 2.3
"""A missing rib doubles the pitch; starts scatter by a third of it."""
LAST, TOO_FAR = 3, 1.7
"""Pitches of the last ribs of a side, and how many times their usual one what comes below lies too far for a rib."""
LOST_ML = 1.0
ON_LUNG_MM = 4.0
"""Cut first ribs lie 0-3 mm from the hull of the lungs, ends of clavicles 5-9 mm."""
FRONT_HALF_MM = 40.0
CARTILAGE_SIDE_MM = 110.0
"""In front and within this of the midline loose bright pieces are cartilage or clavicle, not rib."""


@dataclass(frozen=True)
class Numbering:
    """Ribs on the working grid (uint8 labels), label by interval between discs, discs, share and number of
    the votes for the level, starts of ribs, those of ribs 1-12 with their labels, level of the uppermost one, and what
    is doubtful."""

    ribs: NDArray[np.uint8]
    levels: dict[int, int]
    discs: Discs
    share: float
    votes: int
    starts: tuple[Start, ...]
    owners: tuple[tuple[int, Start], ...]
    first: int
    flags: tuple[Flag, ...]


def number_bones(
    work: Work, plate: Plate, comps: NDArray[np.int32], hu: NDArray[np.int16], spacing: Spacing, settings: LabelSettings
) -> Numbering:
    """Number ribs (components ``comps`` of the working grid) and the intervals between discs.

    Raises StudyError not_thorax, too_few_ribs, or numbering_unsure where neither end of the cage tells the level.
    """
    starts = without_processes(find_starts(work, comps))
    if not starts:
        raise StudyError(
            "not_thorax",
            "expected ribs to leave the spine beside the lungs, found none: is this a chest CT of a person?",
        )
    if len(starts) < settings.min_rib_starts:
        raise StudyError(
            "too_few_ribs",
            f"expected at least {settings.min_rib_starts} ribs to leave the spine, found {len(starts)}: "
            "is this a chest CT with the spine in the field?",
        )
    pairs = align_sides([q for q in starts if q.side == "left"], [q for q in starts if q.side == "right"])
    flags: list[Flag] = []
    first = _first_level(work, plate, comps, pairs, flags)
    names: dict[int, list[tuple[int, Start]]] = {}
    votes: list[tuple[int, float]] = []
    for i, (left, right) in enumerate(pairs):
        level = first + i
        for side, start in (("left", left), ("right", right)):
            if start is not None and 1 <= level <= N_PAIRS:
                names.setdefault(start.component, []).append((rib("left" if side == "left" else "right", level), start))
                votes.append((level, start.s))
    flags += _pair_flags(pairs, first)
    last = first + len(pairs) - 1
    if last < N_PAIRS and min(q.s for q in starts) - work.canal.s[0] > LUMBAR_MM:
        flags.append(Flag(VARIANT, 0, f"{last} ribs above {LUMBAR_MM:.0f} mm of spine without ribs"))
    pitch = _pitch(pairs)
    flags += _pitch_flags(pitch)
    discs = find_discs(hu, spacing, work.canal, np.array(votes, dtype=float).reshape(-1, 2))
    top, share, count = vote_levels(discs, votes)
    table = {}
    for k in range(len(discs.s) + 1):
        level = top - k + 1
        table[k] = vertebra(level) if 1 <= level <= N_PAIRS else OTHER_BONE
    ribs = name_components(work, comps, names)
    if first == 2:
        _first_cut_off(work, comps, ribs)
    lost = _lost_pieces(work, comps, attach_orphans(work, comps, ribs))
    if lost:
        flags.append(Flag(ORPHAN, 0, f"{len(lost)} pieces, {sum(lost):.1f} mL, belong to no rib"))
    owners = tuple(sorted((q for own in names.values() for q in own), key=lambda q: q[0]))
    return Numbering(ribs, table, discs, share, count, tuple(starts), owners, first, tuple(flags))


def without_processes(starts: list[Start]) -> list[Start]:
    """The starts of ribs without what the lowest slice cuts too far below the last of them: processes of lumbar
    vertebrae."""
    whole = {side: sorted(q.s for q in starts if q.side == side and not q.edge) for side in ("left", "right")}
    pitch = [d for s in whole.values() for d in np.diff(s)[:LAST]]
    if len(pitch) < LAST:
        return starts
    lowest = min(s[0] for s in whole.values() if s)
    return [q for q in starts if not (q.edge and lowest - q.s > TOO_FAR * float(np.median(pitch)))]


def _lost_pieces(work: Work, comps: NDArray[np.int32], pieces: list[tuple[int, float, int]]) -> list[float]:
    """mL of the pieces that belong to no rib, without cartilage at the front and the inner ends of clavicles."""
    out = []
    for component, ml, label in pieces:
        if label or ml < LOST_ML:
            continue
        z, y, x = np.nonzero(comps == component)
        ahead = float(np.median(work.ant[z, y, 0]))
        side = float(np.median(np.abs(work.lat[z, 0, x])))
        if ahead > FRONT_HALF_MM and side < CARTILAGE_SIDE_MM:
            continue
        out.append(ml)
    return out


def _first_cut_off(work: Work, comps: NDArray[np.int32], ribs: NDArray[np.uint8]) -> None:
    """Name what the scan shows of first ribs whose backs lie above it; changes ``ribs``.

    Such a piece is cut by the top and lies on the lungs, as clavicles never do.
    """
    for component in np.unique(comps[-1]):
        if not component:
            continue
        place = np.nonzero(comps == component)
        if len(place[0]) * work.voxel_ml < LOST_ML or ribs[place].any():
            continue
        if np.median(work.lung_mm[place]) < ON_LUNG_MM:
            side = float(np.median(work.lat[place[0], 0, place[2]]))
            ribs[place] = rib("left" if side > 0 else "right", 1)


def align_sides(left: list[Start], right: list[Start]) -> list[tuple[Start | None, Start | None]]:
    """Pairs of ribs from the top, by the cheapest alignment of both sides' arclengths; None where one is alone."""
    n, m = len(left), len(right)
    cost = np.full((n + 1, m + 1), np.inf)
    cost[0, 0] = 0.0
    move = np.zeros((n + 1, m + 1), int)
    for i in range(n + 1):
        for j in range(m + 1):
            options = []
            if i and j:
                options.append((cost[i - 1, j - 1] + min(abs(left[i - 1].s - right[j - 1].s), 3 * UNPAIRED_MM), 0))
            if i:
                options.append((cost[i - 1, j] + (UNPAIRED_WITHIN_MM if 0 < j < m else UNPAIRED_MM), 1))
            if j:
                options.append((cost[i, j - 1] + (UNPAIRED_WITHIN_MM if 0 < i < n else UNPAIRED_MM), 2))
            if options:
                cost[i, j], move[i, j] = min(options)
    pairs: list[tuple[Start | None, Start | None]] = []
    i, j = n, m
    while i or j:
        step = move[i, j]
        a = left[i - 1] if step in (0, 1) else None
        b = right[j - 1] if step in (0, 2) else None
        pairs.append((a, b))
        i, j = i - (a is not None), j - (b is not None)
    return pairs[::-1]


def _pitch(pairs: list[tuple[Start | None, Start | None]]) -> NDArray[np.float64]:
    """(n, 2) place and distance of neighbouring ribs of a side, mm along the canal."""
    out = []
    for side in (0, 1):
        s = [p[side].s if p[side] is not None else np.nan for p in pairs]  # type: ignore[union-attr]
        out += [(0.5 * (a + b), a - b) for a, b in zip(s[:-1], s[1:], strict=True) if np.isfinite(a + b)]
    return np.array(out).reshape(-1, 2)


def _pitch_flags(pitch: NDArray[np.float64]) -> list[Flag]:
    """Gaps of more than :data:`GAP_RATIO` times the pitch expected there (mean of both sides, linear trend)."""
    if len(pitch) < 6:
        return []
    fit = np.polyfit(pitch[:, 0], pitch[:, 1], 1)
    ratio = pitch[:, 1] / np.maximum(np.polyval(fit, pitch[:, 0]), 10.0)
    return [
        Flag(PITCH, 0, f"rib pitch {r:.1f} times the usual at {s:.0f} mm")
        for s, r in zip(pitch[:, 0], ratio, strict=True)
        if r > GAP_RATIO
    ]


def _pair_flags(pairs: list[tuple[Start | None, Start | None]], first: int) -> list[Flag]:
    out = []
    alone = [i for i, (a, b) in enumerate(pairs[: N_PAIRS + 1 - first]) if a is None or b is None]
    if alone:  # also at the bottom: a stump may hide behind the edge of the scan on one side
        levels = ", ".join(str(first + i) for i in alone)
        out.append(Flag(PAIRS, 0, f"no partner on the other side for rib {levels}"))
    beyond = [q for p in pairs[N_PAIRS + 1 - first :] for q in p if q is not None and not q.edge]
    if beyond:
        out.append(Flag(VARIANT, 0, f"{first + len(pairs) - 1} ribs counted: a thirteenth, or a cervical one"))
    return out


def _first_level(
    work: Work,
    plate: Plate,
    comps: NDArray[np.int32],
    pairs: list[tuple[Start | None, Start | None]],
    flags: list[Flag],
) -> int:
    """Level of the uppermost rib.

    The first rib is known by how much shorter than the second it is, unless the top of the scan cuts it and the second
    pair is none that comes below a first. Otherwise the front ends below the notch tell, or the last rib above the
    loins, or (weakest) how much less far it reaches sideways than the next.
    """
    votes = _tip_votes(work, plate, comps, pairs)
    tips = max(1, int(np.median(votes))) if len(votes) >= 2 else None
    loins = _by_loins(work, pairs)
    ratio = _reach_ratio(work, comps, pairs)
    cut = all(q is not None and q.edge for q in pairs[0])
    if cut and SECOND_RATIO < _reach_ratio(work, comps, pairs[1:]) < 1.2:
        known = [max(2, n) for n in (loins, tips) if n is not None]
        if known:
            if len(set(known)) > 1 or len(known) < 2:
                flags.append(Flag(TOP, 0, f"the top of the scan cuts the uppermost rib, taken as number {known[0]}"))
            return known[0]
    whole = sum(1 for p in pairs if not any(q is not None and q.edge for q in p)) >= N_PAIRS
    if ratio < FIRST_RATIO or whole:
        if tips is not None and tips > 2:
            flags.append(Flag(TOP, 0, f"front ends speak for rib {tips} at the top, its short reach for rib 1"))
        return 1
    if tips is not None:
        if tips > 1:
            flags.append(Flag(TOP, 0, f"uppermost rib taken as number {tips} by front ends below the notch"))
        return tips
    if loins is not None:
        flags.append(Flag(TOP, 0, f"uppermost rib taken as number {loins} by the last rib above the loins"))
        return loins
    if ratio > REACH_RATIOS[-1] + 0.03:
        raise StudyError(
            "numbering_unsure",
            "expected a first rib, the front ends of upper ribs beside the manubrium, or the loins, to know which rib "
            "is which; found none of them in the scan: give a scan that shows more of the chest",
        )
    level = int(np.abs(np.array(REACH_RATIOS) - ratio).argmin()) + 1
    flags.append(Flag(TOP, 0, f"uppermost rib taken as number {level} by its sideways reach alone"))
    return level


def _by_loins(work: Work, pairs: list[tuple[Start | None, Start | None]]) -> int | None:
    """Level of the uppermost rib if the lowest is the twelfth; None where too little spine is seen below it.

    What the lowest slice cuts on one side only is the process of a lumbar vertebra.
    """
    ribs = [p for p in pairs if not (None in p and any(q is not None and q.edge for q in p))]
    if not ribs or min(q.s for p in ribs for q in p if q is not None) - work.canal.s[0] <= LUMBAR_MM:
        return None
    return max(1, N_PAIRS - len(ribs) + 1)


def _tip_votes(
    work: Work, plate: Plate, comps: NDArray[np.int32], pairs: list[tuple[Start | None, Start | None]]
) -> list[int]:
    """Level of the uppermost rib by the front ends of the first three on both sides; empty without a notch."""
    present = np.flatnonzero(plate.present)
    if not len(present) or present[-1] >= len(work.hu) - 2 or len(present) * work.spacing[0] < 50.0:
        return []
    notch = present[-1] * work.spacing[0]
    votes = []
    for i, pair in enumerate(pairs[:3]):
        for start in pair:
            if start is None:
                continue
            z, y, x = np.nonzero(comps == start.component)
            ahead = work.ant[z, y, 0]
            if ahead.max() < 45.0:
                continue
            front = ahead > ahead.max() - 8.0
            below = notch - float(z[front].mean()) * work.spacing[0]
            votes.append(int(np.abs(np.array(TIP_BELOW_NOTCH_MM) - below).argmin()) + 1 - i)
    return votes


def _reach_ratio(work: Work, comps: NDArray[np.int32], pairs: list[tuple[Start | None, Start | None]]) -> float:
    """Sideways reach of the uppermost pair to that of the second, over the sides where both are single pieces."""
    reach = []
    for pair in pairs[:2]:
        row = []
        for start in pair:
            if start is None:
                row.append(np.nan)
                continue
            z, _, x = np.nonzero(comps == start.component)
            side = 1.0 if start.side == "left" else -1.0
            row.append(float((side * work.lat[z, 0, x]).max()))
        reach.append(row)
    if len(reach) < 2:
        return np.inf
    a, b = np.array(reach[0]), np.array(reach[1])
    ok = np.isfinite(a + b)
    one = [p is not None and q is not None and p.component != q.component for p, q in zip(*pairs[:2], strict=True)]
    ok &= np.array(one)
    return float(a[ok].sum() / b[ok].sum()) if ok.any() else np.inf
