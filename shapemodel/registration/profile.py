"""Where along a rib a place belongs, from the relief of its shaft: tubercle, the line at the angle, all that is local.

Nearest points find a mark only when they are already on it. Here relief is laid out as a map, length by direction
around the shaft, of template and target along the same centreline; slow changes of the section, which differ between
people without saying where a place is, are taken off; and the shift of the one against the other is found for all of
the rib at once, from 24 mm to each side, by sums over all paths (a hidden Markov chain on shifts, Rabiner 1989). Its
prior is even spacing between the ends with shifts that change slowly. Where nothing is marked, its spread says so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

STEP_MM = 2.0
"""Rows of a map."""

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

WANDER = 0.25
"""mm2 a mm by which a shift changes along a rib that two ends hold: 4 mm of standard deviation in its middle."""

LOOSE_WANDER = 1.0
"""The same where one end is cut: lengths of a rib differ by 5-8 % against its neighbours', which is 12 mm or more."""

RELIEF_MM = (0.12, 0.3)
"""Least difference of relief between two surfaces of one bone; the usual one between two people's."""

USUAL = 20.0
"""Independent looks that the usual difference is worth against what is found on a rib."""

PATCH_MM, PATCH_COLUMNS = 10.0, 3.0
"""Relief is alike over so much of the map: differences there count once."""

OUTLIER = 9.0
"""A squared difference, in usual ones, that says no more than any larger: a hole, a label of the neighbour."""


@dataclass(frozen=True)
class Relief:
    """Map of the relief of a shaft: (n, AROUND) mm and (n,) 0..1, how much of each row is there."""

    height: NDArray[np.float64]
    there: NDArray[np.float64]


def relief(arc: NDArray[np.float64], across: NDArray[np.float64], rows: int) -> Relief:
    """Of points at ``arc`` (m,) mm after the first row, ``across`` (m, 2) mm off the centreline."""
    row = np.round(arc / STEP_MM).astype(np.int64)
    inside = (row >= 0) & (row < rows)
    row, across = row[inside], across[inside]
    count = gaussian_filter1d(np.bincount(row, minlength=rows).astype(float), LINE_MM / STEP_MM, mode="constant")
    middle = (
        np.stack(
            [
                gaussian_filter1d(np.bincount(row, across[:, k], rows), LINE_MM / STEP_MM, mode="constant")
                for k in range(2)
            ],
            1,
        )
        / np.maximum(count, 1e-6)[:, None]
    )
    off = across - middle[row]
    radius = np.hypot(off[:, 0], off[:, 1])
    column = np.floor(np.arctan2(off[:, 1], off[:, 0]) / (2 * np.pi) * AROUND).astype(np.int64) % AROUND
    cell = row * AROUND + column

    def blurred(values: NDArray) -> NDArray[np.float64]:
        grid = values.reshape(rows, AROUND)
        grid = gaussian_filter1d(grid, BLUR_MM / STEP_MM, axis=0, mode="constant")
        return np.asarray(gaussian_filter1d(grid, BLUR_COLUMNS, axis=1, mode="wrap"))

    mass = blurred(np.bincount(cell, np.ones(len(cell)), rows * AROUND))
    height = blurred(np.bincount(cell, radius, rows * AROUND)) / np.maximum(mass, 1e-9)
    known = (mass > LEAST_MASS * np.median(mass[mass > 1e-3])) if (mass > 1e-3).any() else mass > 1.0
    width = SLOW_MM / STEP_MM
    slow = gaussian_filter1d(height * known, width, axis=0, mode="constant") / np.maximum(
        gaussian_filter1d(known.astype(float), width, axis=0, mode="constant"), 1e-3
    )
    return Relief(np.where(known, height - slow, 0.0), known.mean(1))


def unlike(template: Relief, target: Relief, even: NDArray[np.float64]) -> tuple[NDArray, NDArray]:
    """(n, s) mean squared difference of relief, mm2, and (n, s) how much of it could be compared, of the rows of the
    template with the target's at ``even`` (n,) rows plus each shift."""
    at = even[:, None] + SHIFTS / STEP_MM
    low = np.clip(np.floor(at).astype(np.int64), 0, len(target.there) - 2)
    t = np.clip(at - low, 0.0, 1.0)
    there = np.minimum(target.there[low], target.there[low + 1]) * template.there[:, None]
    there *= (at >= 0) & (at <= len(target.there) - 1)
    height = target.height[low] * (1 - t)[..., None] + target.height[low + 1] * t[..., None]
    return ((height - template.height[:, None]) ** 2).mean(2), there


def shift(
    d2: NDArray[np.float64], there: NDArray[np.float64], ends: tuple[float, float], wander: float = WANDER
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(n,) mean and (n,) standard deviation of the shift of each row, mm, with the (head, front) standard deviations
    of the first and the last one, and the variance by which shifts change, mm2 a mm."""
    usual = RELIEF_MM[1] ** 2
    looks = STEP_MM / PATCH_MM * AROUND / PATCH_COLUMNS
    move = np.exp(-0.5 * (SHIFTS[:, None] - SHIFTS) ** 2 / (wander * STEP_MM))
    move /= move.sum(1, keepdims=True)
    first, last = (np.exp(-0.5 * (SHIFTS / sd) ** 2) for sd in ends)
    variance = usual
    for _ in range(2):
        # what cannot be compared counts as what is expected, so that no shift is liked for leading off the map
        cost = np.minimum(d2 / variance, OUTLIER) * there + (1.0 - there)
        like = np.exp(-0.5 * looks * (cost - cost.min(1, keepdims=True)))
        ahead, back = np.empty_like(like), np.empty_like(like)
        f, b = first, last
        for i in range(len(like)):
            f = (f @ move if i else f) * like[i]
            f = f / f.sum()
            ahead[i] = f
        for i in range(len(like) - 1, -1, -1):
            back[i] = b
            b = move @ (b * like[i])
            b = b / b.sum()
        p = ahead * back
        p /= p.sum(1, keepdims=True)
        n = looks * (p * there).sum()
        left = looks * (p * there * np.minimum(d2, OUTLIER * usual)).sum()
        variance = max((USUAL * usual + left) / (USUAL + n), RELIEF_MM[0] ** 2)
    mean = p @ SHIFTS
    return mean, np.sqrt(np.maximum(p @ SHIFTS**2 - mean**2, 0.0))
