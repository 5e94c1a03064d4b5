"""Relief of ribs, and where along each other two of them belong by it.

Two ribs of one person, or of two, are marked at the same places: the tubercle, the line at the angle, the ends of
the groove. Shafts are long and even otherwise, so a mark is found only from nearby by nearest points, and the fit
slides along the rib by some mm. Here the relief of a shaft is read as a map, length by direction around the shaft,
of template and target alike; slow changes of the section, which differ between people without saying where a place
is, are taken off; and the shift of the one against the other is found for all of the rib at once, from 24 mm to each
side, by sums over all paths (a hidden Markov chain on shifts, Rabiner 1989). Its prior is even spacing between the
ends with shifts that change slowly. Rows lie midway between the two ribs, half of a shift to each side, so that the
answer is the same, with the other sign, when template and target are exchanged. Where nothing is marked, its spread
says so.
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

BLUR_MM, BLUR_COLUMNS = 2.5, 0.8
"""A map is an average over so much of its surroundings: samples of a template are 2-3 mm apart."""

SLOW_MM = 16.0
"""Relief that is wider than this belongs to the section, not to a place."""

LINE_MM = 12.0
"""Smoothing of the line through the middle of each of the two surfaces."""

LEAST_MASS = 0.15
"""A cell with fewer samples about it than this part of an evenly sampled one shows nothing."""

SHIFTS = np.arange(-24.0, 24.5, 1.0)
"""Shifts against even spacing that are looked at, mm."""

WANDER, OWN_WANDER = 0.4, 0.2
"""mm2 a mm by which a shift changes along a rib that two ends hold, before and after the ribs around it are known: 5 mm
of standard deviation in its middle, and 4 mm."""

ANGLE, BEYOND = 0.35, 0.6
"""Behind the angle, from this part of the length on, the shaft is even: shifts change by less, this part of it."""

LOOSE_WANDER = 1.0
"""The same where one end is cut: lengths of a rib differ by 5-8 % against its neighbours', which is 12 mm or more."""

RELIEF_MM = (0.12, 0.3)
"""Least difference of relief between two surfaces of one bone; the usual one between two people's."""

USUAL = 20.0
"""Independent looks that the usual difference is worth against what is found on a rib."""

PATCH_MM, PATCH_COLUMNS = 12.0, 3.0
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


def relief(rib: NDArray[np.int64], arc: NDArray[np.float64], across: NDArray[np.float64], count: int) -> Relief:
    """Of points at ``arc`` (m,) mm after the end of the head of their ``rib`` (m,), one of ``count``, and ``across``
    (m, 2) mm off its centreline."""
    row = np.round(arc / STEP_MM).astype(np.int64) + 1
    rows = max(int(row.max(initial=0)), 1) + 2
    inside = row >= 0
    place, across = (rib * rows + row)[inside], across[inside]

    def along(values: NDArray, mm: float) -> NDArray[np.float64]:
        return np.asarray(gaussian_filter1d(values, mm / STEP_MM, axis=1, mode="constant"))

    def summed(weight: NDArray | None) -> NDArray[np.float64]:
        return np.bincount(place, weight, count * rows).astype(float).reshape(count, rows)

    here = np.maximum(along(summed(None), LINE_MM), 1e-6)
    middle = np.stack([along(summed(across[:, k]), LINE_MM) / here for k in range(2)], 2).reshape(-1, 2)
    off = across - middle[place]
    radius = np.hypot(off[:, 0], off[:, 1])
    column = np.floor(np.arctan2(off[:, 1], off[:, 0]) / (2 * np.pi) * AROUND).astype(np.int64) % AROUND
    cell = place * AROUND + column

    def blurred(weight: NDArray | None) -> NDArray[np.float64]:
        grid = np.bincount(cell, weight, count * rows * AROUND).astype(float).reshape(count, rows, AROUND)
        return np.asarray(gaussian_filter1d(along(grid, BLUR_MM), BLUR_COLUMNS, axis=2, mode="wrap"))

    mass = blurred(None)
    height = blurred(radius) / np.maximum(mass, 1e-9)
    usual = np.array([np.median(m[m > 1e-3]) if (m > 1e-3).any() else np.inf for m in mass])
    known = mass > LEAST_MASS * usual[:, None, None]
    slow = along(height * known, SLOW_MM) / np.maximum(along(known.astype(float), SLOW_MM), 1e-3)
    return Relief(np.where(known, height - slow, 0.0).astype(np.float32), known.mean(2).astype(np.float32))


def unlike(
    template: Relief,
    target: Relief,
    lengths: NDArray[np.float64],
    start: NDArray[np.float64],
    about: NDArray[np.float64],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(R, ROWS, s) mean squared difference of relief, mm2, and (R, ROWS, s) how much of it could be compared.

    ``lengths`` (2, R) mm of the ribs of template and target between their ends; ``start`` (R,) mm at which the
    target's map has the end of the head; ``about`` (R, ROWS) the shift, mm, to which ``SHIFTS`` are added.
    """
    u = np.linspace(0.0, 1.0, ROWS)[:, None]
    half = 0.5 * (about[..., None] + SHIFTS) / lengths.mean(0)[:, None, None]
    ours, here = template.at(lengths[0][:, None, None] * (u - half))
    theirs, there = target.at(start[:, None, None] + lengths[1][:, None, None] * (u + half))
    ours -= theirs
    return np.einsum("rnsk,rnsk->rns", ours, ours) / AROUND, here * there


def shift(
    d2: NDArray, there: NDArray, length: NDArray[np.float64], ends: NDArray[np.float64], wander: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(R, n) mean and (R, n) standard deviation of the shift of each row, mm, of R ribs of this ``length`` (R,).

    ``ends`` (R, 2) are the standard deviations of the shift at head and front beforehand, ``wander`` (R,) the variance
    by which it changes, mm2 a mm.
    """
    n_ribs, n, _ = d2.shape
    usual = RELIEF_MM[1] ** 2
    step = length / (n - 1)
    looks = (step / PATCH_MM * AROUND / PATCH_COLUMNS)[:, None, None]
    away = (SHIFTS[:, None] - SHIFTS) ** 2
    move = [np.exp(-0.5 * away / (w * step)[:, None, None]) for w in (wander, BEYOND * wander)]
    move = [m / m.sum(2, keepdims=True) for m in move]
    shaft = np.arange(n) > ANGLE * n
    first, last = (np.exp(-0.5 * (SHIFTS / sd[:, None]) ** 2)[:, None] for sd in ends.T)
    variance = np.full((n_ribs, 1, 1), usual)
    for _ in range(2):
        # what cannot be compared counts as what is expected, so that no shift is liked for leading off the map
        cost = np.minimum(d2 / variance, OUTLIER) * there + (1.0 - there)
        like = np.exp(-0.5 * looks * (cost - cost.min(2, keepdims=True)))
        ahead, back = np.empty_like(like), np.empty_like(like)
        f, b = first, last
        for i in range(n):
            f = (f @ move[int(shaft[i])] if i else f) * like[:, i : i + 1]
            f = f / f.sum(2, keepdims=True)
            ahead[:, i] = f[:, 0]
        for i in range(n - 1, -1, -1):
            back[:, i] = b[:, 0]
            b = (b * like[:, i : i + 1]) @ move[int(shaft[i])].transpose(0, 2, 1)
            b = b / b.sum(2, keepdims=True)
        p = ahead * back
        p /= p.sum(2, keepdims=True)
        found = looks[:, 0, 0] * (p * there).sum((1, 2))
        left = looks[:, 0, 0] * (p * there * np.minimum(d2, OUTLIER * usual)).sum((1, 2))
        variance = np.maximum((USUAL * usual + left) / (USUAL + found), RELIEF_MM[0] ** 2)[:, None, None]
    mean = p @ SHIFTS
    return mean, np.sqrt(np.maximum(p @ SHIFTS**2 - mean**2, 0.0))
