"""Relief of ribs, and where along each other two of them belong by it.

Two ribs of one person, or of two, are marked at the same places: the tubercle, the line at the angle, the ends of
the groove. Shafts are long and even otherwise, so a mark is found only from nearby by nearest points, and the fit
slides along the rib by some mm. Here the relief of a shaft is read as a map, length by direction around the shaft,
of template and target alike; slow changes of the section, which differ between people without saying where a place
is, are taken off; and the shift of the one against the other is found for all of the rib at once, from 24 mm to each
side, by sums over all paths (a hidden Markov chain on shifts and on how fast they change, Rabiner 1989). Its prior is
even spacing between the ends with shifts that change smoothly: at the angle people differ by 20 mm and more. Only what
stands out of a rib's own roughness is compared, so that rough does not find rough. Rows lie midway between the two
ribs, half of a shift to each side, so that the answer is the same, with the other sign, when template and target are
exchanged. Where nothing is marked, its spread says so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

STEP_MM = 2.0
"""Rows of a map."""

ROWS = 128
"""Places along a rib at which a shift is looked for: every 2.5 mm of the longest."""

AROUND = 16
"""Columns of a map: directions around the shaft."""

FINE = 48
"""Columns of the map of slow changes: a shaft is twice as wide as thick, so radius changes much within one of 16."""

BLUR_MM, BLUR_COLUMNS = 2.0, 0.8
"""A map is an average over so much of its surroundings."""

SLOW_MM = 16.0
"""Relief that is wider than this belongs to the section, not to a place."""

LINE_MM = 12.0
"""Smoothing of the line through the middle of each of the two surfaces."""

LEAST_MASS = 0.15
"""A cell with fewer samples about it than this part of an evenly sampled one shows nothing."""

ROUGH, SHAFT = 1.0, (0.3, 0.9)
"""Relief below so many standard deviations of what the shaft, this part of the length, usually has marks nothing."""

TIPS_MM, TIP_FADE_MM = (6.0, 24.0), 4.0
"""Nearer to the end of head and front than this nothing is compared: how wide their flare is differs between people,
and the ends have anchors of their own."""

SHIFTS = np.arange(-24.0, 24.5, 1.0)
"""Shifts against the usual ones that are looked at, mm."""

ALL_SHIFTS = np.arange(-40.0, 40.5, 1.0)
"""Those against even spacing, wherever the usual ones lie."""

SLOPES = np.arange(-0.25, 0.26, 0.05)
"""mm a mm by which shifts may change along a rib."""

SLOPE_SD, SLOPE_MM = 0.08, 40.0
"""Usual slope of a shift, and the length over which it stays what it is (an Ornstein-Uhlenbeck process). A free end
then strays by 11 mm over a rib of 250 mm: lengths of a rib differ by 5-8 % against its neighbours'."""

RELIEF_MM = (0.08, 0.3)
"""Difference of marks between two surfaces of one bone at the least (0.04-0.07 is measured), and of two people's before
anything is known of them: .13-.28."""

CHOSEN, AS_ANYWHERE = (1.0, 3.0), (0.7, 1.1)
"""By how much the mean squared difference at the shifts that were chosen for it is too small: not at all where it is
this part of that at any shift, as on two surfaces of one bone (.4-.8); three times where it is no less, so that these
shifts may be chosen by chance, as on two people (1.0-1.9: it is a mean over rows nearby, some with heads)."""

USUAL, LOCAL_ROWS, LEAST_FOUND = 6.0, 14.0, 0.5
"""Independent looks that the usual difference is worth against what is found there, within so many rows about it: heads
differ more than shafts. With fewer looks than the last a row says nothing of what is usual."""

PATCH_MM, PATCH_COLUMNS = 16.0, 3.0
"""Relief is alike over so much of the map: differences there count once."""

OUTLIER = 9.0
"""A squared difference, in usual ones, that says no more than any larger: a hole, a label of the neighbour."""


@dataclass(frozen=True)
class Relief:
    """Maps of R ribs, from ``STEP_MM`` before the end of the head: (R, n, AROUND) mm and (R, n) 0..1, how much of
    each row is there."""

    height: NDArray[np.float32]
    there: NDArray[np.float32]

    def at(self, arc: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(R, n, s, AROUND) heights and (R, n, s) presence at these mm (R, n, s) from the end of the head."""
        count = self.there.shape[1]
        row = arc / STEP_MM + 1.0
        low = np.clip(np.floor(row).astype(np.int64), 0, count - 2)
        t = np.clip(row - low, 0.0, 1.0).astype(np.float32)[..., None]
        rib = np.arange(len(arc))[:, None, None]
        height = self.height[rib, low] * (1 - t) + self.height[rib, low + 1] * t
        there = np.minimum(self.there[rib, low], self.there[rib, low + 1])
        return height, np.where((row >= 0) & (row <= count - 1), there, np.float32(0))


def relief(
    rib: NDArray[np.int64], arc: NDArray[np.float64], across: NDArray[np.float64], length: NDArray[np.float64]
) -> Relief:
    """Of points at ``arc`` (m,) mm after the end of the head of their ``rib`` (m,), of R ribs of this ``length`` (R,)
    mm, and ``across`` (m, 2) mm off its centreline."""
    count, rows = len(length), max(round(float(arc.max(initial=0.0)) / STEP_MM) + 1, 1) + 2
    at = arc / STEP_MM + 1.0
    inside = at >= 0
    rib, at, across = rib[inside], np.minimum(at[inside], rows - 1.0), across[inside]
    low = np.minimum(at.astype(np.int64), rows - 2)
    t = at - low

    def along(values: NDArray, mm: float) -> NDArray[np.float64]:
        return np.asarray(gaussian_filter1d(values, mm / STEP_MM, axis=1, mode="constant"))

    def summed(cell: NDArray[np.int64], weight: NDArray | None, *shape: int) -> NDArray[np.float64]:
        return np.bincount(cell, weight, count * rows * int(np.prod(shape))).astype(float).reshape(count, rows, *shape)

    place = rib * rows + np.round(at).astype(np.int64)
    here = np.maximum(along(summed(place, None), LINE_MM), 1e-6)
    middle = np.stack([along(summed(place, across[:, k]), LINE_MM) / here for k in range(2)], 2)
    off = across - (middle[rib, low] * (1 - t)[:, None] + middle[rib, low + 1] * t[:, None])
    radius, turn = np.hypot(off[:, 0], off[:, 1]), np.arctan2(off[:, 1], off[:, 0]) / (2 * np.pi) % 1.0

    def cells(columns: int) -> NDArray[np.int64]:
        return place * columns + np.floor(turn * columns).astype(np.int64) % columns

    # the slow part is taken off where each point is: in a mean over a cell it would hang on where its points fall
    fine = cells(FINE)
    slow, mass = (
        gaussian_filter1d(along(summed(fine, w, FINE), SLOW_MM), 1.0, axis=2, mode="wrap") for w in (radius, None)
    )
    slow /= np.maximum(mass, 1e-9)
    column = turn * FINE - 0.5
    first = np.floor(column).astype(np.int64)
    w = column - first
    first, second = first % FINE, (first + 1) % FINE
    ahead, behind = (slow[rib, k, first] * (1 - w) + slow[rib, k, second] * w for k in (low, low + 1))
    height = radius - ahead * (1 - t) - behind * t

    own = cells(AROUND)
    total, mass = (
        gaussian_filter1d(along(summed(own, v, AROUND), BLUR_MM), BLUR_COLUMNS, axis=2, mode="wrap")
        for v in (height, None)
    )
    usual = np.array([np.median(m[m > 1e-3]) if (m > 1e-3).any() else np.inf for m in mass])
    known = mass > LEAST_MASS * usual[:, None, None]
    mm = (np.arange(rows) - 1.0) * STEP_MM
    marks = _standing_out(np.where(known, total / np.maximum(mass, 1e-9), 0.0), known, mm / length[:, None])
    inner = np.minimum(mm - TIPS_MM[0], length[:, None] - TIPS_MM[1] - mm) / TIP_FADE_MM + 1.0
    return Relief(marks.astype(np.float32), (known.mean(2) * np.clip(inner, 0.0, 1.0)).astype(np.float32))


def _standing_out(height: NDArray[np.float64], known: NDArray[np.bool_], u: NDArray[np.float64]) -> NDArray[np.float64]:
    """Heights (R, n, AROUND) without what each rib's shaft has everywhere; ``u`` (R, n) are fractions of its length."""
    shaft = known & ((u > SHAFT[0]) & (u < SHAFT[1]))[..., None]
    usual = np.array([1.4826 * np.median(np.abs(h[k])) if k.any() else 0.0 for h, k in zip(height, shaft, strict=True)])
    ratio = ROUGH * usual[:, None, None] / np.maximum(np.abs(height), 1e-9)
    return np.asarray(height * np.clip(1.0 - ratio**2, 0.0, 1.0))


def unlike(
    template: Relief, target: Relief, lengths: NDArray[np.float64], start: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(R, ROWS, s) mean squared difference of relief, mm2, and (R, ROWS, s) how much of it could be compared, at
    each of ``ALL_SHIFTS``.

    ``lengths`` (2, R) mm of the ribs of template and target between their ends; ``start`` (R,) mm at which the
    target's map has the end of the head.
    """
    u = np.linspace(0.0, 1.0, ROWS)[:, None]
    half = 0.5 * ALL_SHIFTS / lengths.mean(0)[:, None, None]
    ours, here = template.at(lengths[0][:, None, None] * (u - half))
    theirs, there = target.at(start[:, None, None] + lengths[1][:, None, None] * (u + half))
    ours -= theirs
    return np.einsum("rnsk,rnsk->rns", ours, ours) / AROUND, here * there


def about(
    table: tuple[NDArray[np.float32], NDArray[np.float32]], usual: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What :func:`unlike` found, at ``SHIFTS`` from the ``usual`` shift (R, ROWS) mm of each row."""
    step = ALL_SHIFTS[1] - ALL_SHIFTS[0]
    first = np.clip((usual + SHIFTS[0] - ALL_SHIFTS[0]) / step, 0.0, len(ALL_SHIFTS) - len(SHIFTS) - 1e-6)
    low = first.astype(np.int64)
    t = (first - low)[..., None].astype(np.float32)
    column = low[..., None] + np.arange(len(SHIFTS))
    one, two = (np.take_along_axis(x, column, 2) * (1 - t) + np.take_along_axis(x, column + 1, 2) * t for x in table)
    return one, two


def shift(
    d2: NDArray,
    there: NDArray,
    length: NDArray[np.float64],
    ends: NDArray[np.float64],
    variance: NDArray | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """(R, n) mean and (R, n) standard deviation of the shift of each row, mm, of R ribs of this ``length`` (R,), and
    (R, n) the variance of relief about it, mm2, for a next and better look.

    ``ends`` (R, 2) are the standard deviations of the shift at head and front beforehand.
    """
    step = length / (d2.shape[1] - 1)
    looks = (step / PATCH_MM * AROUND / PATCH_COLUMNS)[:, None, None]
    tips = np.exp(-0.5 * (SHIFTS / ends[..., None]) ** 2)
    usual = RELIEF_MM[1] ** 2
    about = np.full(d2.shape[:2], usual) if variance is None else variance
    cost = np.minimum(d2 / about[..., None], OUTLIER)
    # what cannot be compared costs what the row costs at best: no shift is liked or disliked for leading off the map
    least = np.minimum(np.where(there > 0.5, cost, OUTLIER).min(2, keepdims=True), 1.0)
    cost = cost * there + least * (1.0 - there)
    like = np.exp(-0.5 * looks * (cost - cost.min(2, keepdims=True)))
    like[:, 0] *= tips[:, 0]
    like[:, -1] *= tips[:, 1]
    p = _paths(like, step)
    sums = [(looks * p * there * x).sum(2) for x in (np.minimum(d2, OUTLIER * about[..., None]), 1.0)]
    left, found = (gaussian_filter1d(x, LOCAL_ROWS, axis=1, mode="constant") * 2.5 * LOCAL_ROWS for x in sums)
    anywhere = (d2 * there).sum(2) / np.maximum(there.sum(2), 1e-6)
    mean = p @ SHIFTS
    doubt = np.sqrt(np.maximum(p @ SHIFTS**2 - mean**2, 0.0))
    return mean, doubt, _differing(left, found, anywhere)


def _differing(
    left: NDArray[np.float64], found: NDArray[np.float64], anywhere: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(R, n) variance of relief, mm2, from (R, n) sums of squares ``left`` by the shifts of as many looks ``found``,
    and (R, n) the mean square of all shifts.

    Nowhere less than is usual on these two people's ribs: where they seem more alike, it is by chance.
    """
    shown = found > LEAST_FOUND
    usual = RELIEF_MM[1] ** 2
    if shown.any():
        middle = np.median(left[shown] / found[shown])
        chosen = np.interp(middle / max(np.median(anywhere[shown]), 1e-9), AS_ANYWHERE, CHOSEN)
        usual = np.clip(chosen * middle, *np.square(RELIEF_MM))
    return np.maximum((USUAL * usual + left) / (USUAL + found), usual)


def _paths(like: NDArray[np.float64], step: NDArray[np.float64]) -> NDArray[np.float64]:
    """(R, n, s) share of all smooth paths that have each shift at each row, by how much rows ``like`` it (R, n, s).

    Single precision: every row is normalised, and six digits of a share are more than a path is worth.
    """
    count, n, width = like.shape
    stay = np.exp(-step / SLOPE_MM)[:, None, None]  # what is left of a slope after a step
    turn = np.exp(-0.5 * (stay * SLOPES[:, None] - SLOPES) ** 2 / (SLOPE_SD**2 * (1 - stay**2)))
    turn = (turn / turn.sum(2, keepdims=True)).astype(np.float32)
    back_turn = np.ascontiguousarray(turn.transpose(0, 2, 1))
    move = np.clip(step[:, None] * SLOPES, -1.0, 1.0)[..., None] / (SHIFTS[1] - SHIFTS[0])
    up, down = (np.maximum(x, 0.0).astype(np.float32) for x in (move, -move))
    rest = 1 - up - down

    def moved(p: NDArray[np.float32], above: NDArray[np.float32], below: NDArray[np.float32]) -> NDArray[np.float32]:
        out = p * rest
        out[..., 1:] += p[..., :-1] * above
        out[..., :-1] += p[..., 1:] * below
        out[..., -1:] += p[..., -1:] * up  # what would leave the range stays at its end
        out[..., :1] += p[..., :1] * down
        return out

    rows = np.ascontiguousarray(like.transpose(1, 0, 2), dtype=np.float32)[:, :, None]
    first = np.exp(-0.5 * (SLOPES / SLOPE_SD) ** 2).astype(np.float32)[:, None]
    ahead = np.empty((n, count, len(SLOPES), width), np.float32)
    f = np.broadcast_to(first, ahead.shape[1:])
    for i in range(n):
        f = (moved(back_turn @ f, up, down) if i else f) * rows[i]
        f /= f.sum((1, 2), keepdims=True)
        ahead[i] = f
    out = np.empty((n, count, width), np.float32)
    b = np.ones(ahead.shape[1:], np.float32)
    for i in range(n - 1, -1, -1):
        out[i] = np.einsum("rks,rks->rs", ahead[i], b)
        b = turn @ moved(b * rows[i], down, up)
        b /= b.sum((1, 2), keepdims=True)
    out /= out.sum(2, keepdims=True)
    return out.transpose(1, 0, 2).astype(np.float64)
