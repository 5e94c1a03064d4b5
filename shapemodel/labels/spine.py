"""Discs and levels of the thoracic spine, along the canal.

The body column in front of the canal is straightened; a disc is a dark gap with a bright endplate on either
side, these brighter than the inside of bodies, and dynamic programming over pairs of neighbouring discs keeps
their spacing even and near to the pitch of the ribs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from shapemodel.labels.canal import Canal
from shapemodel.mask import Spacing

STEP_MM = 1.0
DEPTH_MM = (11.0, 23.0)
"""In front of the canal's middle: behind these is the canal's wall (9 mm), beyond them the front of a small T1."""
SIDE_MM = 8.0
TILTS_DEG = (-18.0, -12.0, -6.0, 0.0, 6.0, 12.0, 18.0)
"""Wedge and tilt of a disc against the canal's cross-section."""
REACH_MM = 5.0
"""Half of the thickest disc (8 mm) and the endplate beside it; more would reach the endplates from a mid-body."""
SEEN = 0.3
"""Darkness of a gap that is really one."""
NEAR_MM = 3.0
RING_MM, BODY_MM = (2, 5), (8, 11)
"""Distance from a disc's middle to its endplates, and to the inside of the bodies beyond."""
RING_HU = 60.0
"""By so much endplates are brighter than the inside of bodies, at the least where slices are thin."""
RING = 0.55
"""Weight of that: in slices of 5 mm a thin disc is drowned by its endplates, and the middle of a body looks like a
disc; with 0.5 to 0.65 the chain is right in scans of 1 to 5 mm, with less or more it slips in those of 5 mm."""
SPACING_MM = (13, 38)
"""Disc to disc: T1 of a small woman, T12 of a tall man with a margin."""


LEVEL_MM = (17.8, 19.2, 19.4, 19.9, 20.3, 21.3, 22.2, 22.9, 23.8, 25.0, 26.5, 28.3, 30.5, 33.0)
"""Height of body and disc, T1 to L2 (Panjabi 1991 and disc heights of Fletcher, rounded)."""


@dataclass(frozen=True)
class Discs:
    """Disc positions ``s`` (n,) mm along the canal, ascending (headwards), each with a ``score`` 0-1, a
    ``tilt`` in degrees (positive: the front is higher), and ``contrast``: how much more it looks like a disc than the
    middles of the bodies beside it do."""

    s: NDArray[np.float64]
    score: NDArray[np.float64]
    tilt: NDArray[np.float64]
    contrast: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))


def straighten(hu: NDArray[np.int16], spacing: Spacing, canal: Canal) -> tuple[NDArray, NDArray, NDArray]:
    """Sagittal image (S, V) of the bodies: mean HU over +-8 mm to the sides; with the s and v axes in mm."""
    s = np.arange(canal.s[0] - 8, canal.s[-1] + 8, STEP_MM)
    v = np.arange(6.0, 34.0, 1.0)
    u = np.arange(-SIDE_MM, SIDE_MM + 0.1, 2.0)
    point = np.stack([_extend(s, canal.s, canal.points[:, k]) for k in range(3)], axis=1)
    t = np.stack([np.interp(s, canal.s, canal.tangent[:, k]) for k in range(3)], axis=1)
    side = np.cross(t, np.cross([0.0, 0.0, 1.0], t))
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    front = np.cross(t, side)
    front *= np.sign(-front[:, 1:2])  # towards smaller y
    pos = (
        point[:, None, None, :]
        + v[None, :, None, None] * front[:, None, None, :]
        + u[None, None, :, None] * side[:, None, None, :]
    )
    idx = [pos[..., k] / spacing[k] for k in range(3)]
    img = ndi.map_coordinates(hu, idx, order=1, mode="nearest", output=np.float32).mean(axis=2)
    outside = (idx[0] < -0.5) | (idx[0] > hu.shape[0] - 0.5)
    img[outside.all(axis=2)] = np.nan
    return img, s, v


def _extend(q: NDArray, s: NDArray, values: NDArray) -> NDArray:
    """Linear interpolation that goes on straight beyond both ends."""
    out = np.interp(q, s, values)
    n = min(10, len(s) - 1)
    lo, hi = q < s[0], q > s[-1]
    out[lo] += (q[lo] - s[0]) * (values[n] - values[0]) / (s[n] - s[0])
    out[hi] += (q[hi] - s[-1]) * (values[-1] - values[-1 - n]) / (s[-1] - s[-1 - n])
    return out


def disc_score(img: NDArray, s: NDArray, v: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """(S,) how much each s looks like the middle of a disc, the dark gap alone (from 0), and the tilt that gives it.

    A disc is dark between bright endplates, or, where slices are too thick for that, a bright band between the dark
    insides of two bodies.
    """
    inside = (v >= DEPTH_MM[0]) & (v <= DEPTH_MM[1])
    centre = 0.5 * sum(DEPTH_MM)
    near = range(2, int(REACH_MM / STEP_MM) + 1)
    dark, bright = [], []
    for angle in TILTS_DEG:
        shift = np.tan(np.deg2rad(angle)) * (v - centre)
        cols = [np.interp(s + shift[k], s, img[:, k], left=np.nan, right=np.nan) for k in np.flatnonzero(inside)]
        gap = ndi.uniform_filter1d(np.nan_to_num(np.mean(cols, axis=0), nan=0.0), 3)
        up = np.max([_moved(gap, i, "constant") for i in near], axis=0)
        down = np.max([_moved(gap, -i, "constant") for i in near], axis=0)
        dark.append(np.minimum(up, down) - gap)
        bright.append(_around(gap, RING_MM) - _around(gap, BODY_MM))
    gaps = np.array(dark)
    gaps = np.maximum(gaps / max(60.0, float(np.percentile(gaps.max(axis=0), 90))), 0.0)
    score = np.minimum(gaps, 1.2) + RING * np.clip(np.array(bright) / RING_HU, -1.0, 1.0)
    # the gap, where there is one, shows its tilt better than its blurred surroundings do
    tilted = np.where(gaps.max(axis=0) > SEEN, gaps.argmax(axis=0), score.argmax(axis=0))
    return score.max(axis=0), gaps.max(axis=0), np.array(TILTS_DEG)[tilted]


def _moved(values: NDArray, steps: int, mode: Literal["constant", "edge"]) -> NDArray:
    """``values`` read so many steps further on; zero or the last value beyond the ends."""
    n = abs(steps)
    return np.pad(values, n, mode=mode)[n + steps : n + steps + len(values)]


def _around(values: NDArray, mm: tuple[int, int]) -> NDArray:
    """Mean of ``values`` between two distances on both sides."""
    steps = np.arange(mm[0] / STEP_MM, mm[1] / STEP_MM + 1).astype(int)
    return np.asarray(np.mean([_moved(values, k, "edge") for k in (*steps, *-steps)], axis=0))


def find_discs(hu: NDArray[np.int16], spacing: Spacing, canal: Canal, starts: NDArray[np.float64]) -> Discs:
    """Discs along the whole canal. ``starts`` (n, 2): level and arclength (mm) of ribs (may be empty)."""
    img, s, v = straighten(hu, spacing, canal)
    score, gap, tilt = disc_score(img, s, v)
    score = np.where(np.isnan(img).all(axis=1), 0.0, score)
    expect = expected_spacing(s, starts)
    chosen = _even_path(score, expect)
    chosen = np.array([k for k in chosen if canal.s[0] + 1 <= s[k] <= canal.s[-1] - 1], int)
    place = np.array([_darkest(gap, k) for k in chosen], int)
    at = s[place]
    middles = np.interp(0.5 * (at[1:] + at[:-1]), s, score)
    beside = 0.5 * (np.append(middles, middles[-1:]) + np.append(middles[:1], middles)) if len(middles) else 0.0
    return Discs(at, np.clip(gap[place], 0, 1), tilt[place], score[chosen] - beside)


def _darkest(gap: NDArray, k: int) -> int:
    """Index of the darkest place within :data:`NEAR_MM` of ``k``, itself where nothing dark is near: endplates tell
    which of two gaps is a disc, but not to the millimetre where it lies."""
    n = int(NEAR_MM / STEP_MM)
    first = max(0, k - n)
    best = first + int(gap[first : k + n + 1].argmax())
    return best if gap[best] > SEEN else k


def expected_spacing(s: NDArray[np.float64], starts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Expected disc-to-disc distance at each ``s`` (mm): the usual one of each level, scaled by the ribs' pitch.

    ``starts`` (n, 2): level and arclength of ribs. The first rib is left out, its start lies beside the second's.
    """
    use = starts[starts[:, 0] > 1] if len(starts) else starts
    if len(np.unique(use[:, 0] if len(use) else [])) < 4:
        return np.interp(s, [s[0], s[-1]], [27.0, 18.0])
    levels = np.unique(use[:, 0])
    at = np.array([use[use[:, 0] == k, 1].mean() for k in levels])
    usual = np.cumsum(np.concatenate([[0.0], LEVEL_MM]))
    middle = 0.5 * (usual[:-1] + usual[1:])  # depth of each level's body below the top of T1
    depth = np.interp(levels, np.arange(1, len(LEVEL_MM) + 1), middle)
    scale, top = np.polyfit(depth, -at, 1)
    scale = float(np.clip(scale, 0.75, 1.35))
    top = float(np.mean(-at - scale * depth))
    return np.interp((-s - top) / scale, middle, LEVEL_MM) * scale


def _even_path(score: NDArray, expect: NDArray) -> NDArray[np.int64]:
    """Indices of the disc chain with the best sum of scores and even, expected spacings (second-order DP)."""
    lo, hi = SPACING_MM
    d = np.arange(lo, hi + 1)
    n = len(score)
    change = np.log(d[:, None] / d[None, :]) ** 2 / 0.20**2 * 0.25  # from spacing d[j] to d[i]
    total = np.full((n, len(d)), -np.inf)
    back = np.full((n, len(d)), -1, np.int64)
    for k in range(n):
        prior = np.log(d / expect[k]) ** 2 / 0.18**2 * 0.25
        for i, step in enumerate(d):
            j = k - step
            gain = score[k] - prior[i]
            if j < 0:
                total[k, i] = gain  # the first disc of the chain
                continue
            before = total[j] - change[i]
            b = int(before.argmax())
            total[k, i] = before[b] + gain
            back[k, i] = b
    tail = range(max(0, n - int(expect[-1])), n)
    k = max(tail, key=lambda m: total[m].max())
    i = int(total[k].argmax())
    chain = []
    while k >= 0:
        chain.append(k)
        b = back[k, i]
        if b < 0:
            break
        k, i = k - int(d[i]), int(b)
    return np.array(chain[::-1])
