"""Front and back of the sternum: where its two cortices lie along rays from front to back, strip by strip."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from shapemodel.labels.work import Work

STRIP_MM = 5.0
"""Width of the strips, which the two surfaces are found in from the middle outwards."""
THICK_MM = (6.0, 21.0)
"""Thinnest xiphoid, thickest manubrium."""
USUAL_MM, USUAL_SD = 11.5, 4.0
BAND_MM, BESIDE_MM = 3.0, 4.5
"""Depth of a cortex with its partial volume, and of what is compared with it outside."""
REACH_MM = (30.0, 25.0)
"""The front of the sternum lies up to so far in front of, and behind, the row where the wall is expected to end."""
BRIGHTEST = 1.6
"""Nothing counts as brighter than this (0 soft tissue, 1 the outline of bone): neither wires nor contrast agent."""
AHEAD = 0.04
"""Cost of a mm of bone in front of the sternum, where there is none: what comes first from the front is it."""
STEP_COST, STRIP_COST = 0.35, 0.02
"""Cost of a row of change from slice to slice, and of a row squared from strip to strip."""
STEP_SLICE_MM = 2.0
"""In thicker slices, of which there are fewer to speak for a slope, a step is so much cheaper."""

OUTSIDE_MM = 1.5
"""Bone lies up to so far outside the surfaces, which are read from a grid of 1.5 mm."""
WALL_MM = (-0.75, 0.75, 2.25)
"""Where the cortex is looked for, inwards of its surface."""


@dataclass(frozen=True)
class Surfaces:
    """(Z, S) rows in mm of the front and back of the plate, in strips whose middles lie (S,) mm beside its middle."""

    offset: NDArray[np.float64]
    front: NDArray[np.float64]
    back: NDArray[np.float64]

    def at(
        self, z: NDArray[np.float64], beside: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(Z, X) front and back at heights ``z`` (work slices), (Z, X) mm ``beside`` the middle line; beyond the
        outermost strips as there."""
        place = (beside - self.offset[0]) / (self.offset[1] - self.offset[0])
        at = [np.repeat(z[:, None], beside.shape[1], axis=1), np.clip(place, 0.0, len(self.offset) - 1.0)]
        front, back = (ndi.map_coordinates(v, at, order=1, mode="nearest") for v in (self.front, self.back))
        return np.asarray(front), np.asarray(back)


def find_surfaces(
    work: Work, middle: NDArray[np.float64], half: NDArray[np.float64], behind: NDArray[np.float64]
) -> Surfaces:
    """Surfaces of the plate from its (Z,) ``middle`` (mm, x) and ``half`` width, and the row ``behind`` which the front
    wall ends (mm, y).

    In every strip the rows are a path down the slices, so chosen that both cortices stand out from what is beside
    them; strips further out keep near to those within.
    """
    n = max(1, int(np.ceil(float(np.percentile(half, 90)) / STRIP_MM)))
    offset = np.arange(-n, n + 1) * STRIP_MM
    rows = _rows(work, behind)
    reach = max(1, round(work.spacing[0] / work.spacing[1]))
    cost = STEP_COST * min(1.0, STEP_SLICE_MM / work.spacing[0])
    found: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
    for i in [0, *[s * k for k in range(1, n + 1) for s in (-1, 1)]]:
        score = _score(_profile(work, middle + i * STRIP_MM, rows), work)
        within = np.abs(i) * STRIP_MM <= half + 0.5 * STRIP_MM
        inner = found.get(i - int(np.sign(i))) if i else None
        if inner is not None:
            score = np.where(within[:, None, None], score, 0.0)
            apart = np.arange(score.shape[1])[None] - inner[0][:, None]
            score = score - STRIP_COST * (apart**2)[:, :, None]
            thinner = np.arange(score.shape[2])[None] - inner[1][:, None]
            score = score - STRIP_COST * (thinner**2)[:, None, :]
        found[i] = _path(score, reach, cost)
    px = work.spacing[1]
    order = range(-n, n + 1)
    front = np.stack([found[i][0] for i in order], axis=1) * px
    thick = np.stack([found[i][1] for i in order], axis=1) * px + THICK_MM[0]
    start = (rows[:, :1] + 0.5) * px - 0.5 * px  # edge in front of the first row
    front = ndi.gaussian_filter(front + start, (2.0 / work.spacing[0], 0.6), mode="nearest")
    thick = ndi.gaussian_filter(thick, (2.0 / work.spacing[0], 0.6), mode="nearest")
    off = (work.factor[1] - 1) / 2 * px / work.factor[1] - 0.5 * px
    return Surfaces(offset.astype(np.float64), front + off, front + thick + off)


def _rows(work: Work, behind: NDArray[np.float64]) -> NDArray[np.int64]:
    """(Z, Y) rows that are looked at, from the front, a window about where the wall ends."""
    px = work.spacing[1]
    first = np.round((behind - REACH_MM[0]) / px).astype(np.int64)
    n = int((REACH_MM[0] + REACH_MM[1] + THICK_MM[1] + BESIDE_MM) / px)
    return first[:, None] + np.arange(n)[None]


def _profile(work: Work, x: NDArray[np.float64], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """(Z, Y) mean brightness over a strip about ``x`` (Z,) mm: 0 soft tissue, 1 the outline of bone."""
    px = work.spacing[2]
    k = max(1, round(STRIP_MM / px / 2))
    cols = np.clip(np.round(x / px).astype(np.int64)[:, None] + np.arange(-k, k + 1)[None], 0, work.hu.shape[2] - 1)
    z = np.arange(len(rows))[:, None, None]
    values = work.hu[z, np.clip(rows, 0, work.hu.shape[1] - 1)[:, :, None], cols[:, None, :]].astype(np.float64)
    lit = (values - work.limits.tissue) / (work.limits.low - work.limits.tissue)
    mean = np.clip(lit, -0.5, BRIGHTEST).mean(axis=2)
    return ndi.gaussian_filter1d(mean, 2.0 / work.spacing[0], axis=0)


def _score(lit: NDArray[np.float64], work: Work) -> NDArray[np.float64]:
    """(Z, front row, thickness) how well both cortices stand out there."""
    px = work.spacing[1]
    c = np.concatenate([np.zeros((len(lit), 1)), np.cumsum(lit, axis=1)], axis=1)
    band, beside = max(1, round(BAND_MM / px)), max(1, round(BESIDE_MM / px))
    n = lit.shape[1]
    edge = np.arange(n + 1)
    ahead = (c[:, edge] - c[:, np.maximum(edge - beside, 0)]) / np.maximum(edge - np.maximum(edge - beside, 0), 1)
    after = (c[:, np.minimum(edge + beside, n)] - c[:, edge]) / np.maximum(np.minimum(edge + beside, n) - edge, 1)
    first = (c[:, np.minimum(edge + band, n)] - c[:, edge]) / band
    last = (c[:, edge] - c[:, np.maximum(edge - band, 0)]) / band
    passed = np.concatenate([np.zeros((len(lit), 1)), np.cumsum(lit > 0.6, axis=1)], axis=1) * px
    thick = np.arange(round(THICK_MM[0] / px), round(THICK_MM[1] / px) + 1)
    k = n + 1 - int(thick[-1])
    front = np.arange(k)
    face = np.minimum(first - ahead, 1.0)[:, front] - AHEAD * passed[:, front]
    back = np.minimum(last - after, 1.0)[:, front[:, None] + thick[None]]
    usual = 0.25 * ((thick * px - USUAL_MM) / USUAL_SD) ** 2
    return np.asarray(face[:, :, None] + back - usual[None, None])


def _path(score: NDArray[np.float64], reach: int, cost: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(Z,) row and thickness of the best path through ``score`` (Z, Y, T): up to ``reach`` rows and one of thickness
    from slice to slice, each row of either surface at this ``cost``."""
    nz, ny, nt = score.shape
    moves = [(a, b) for a in range(-reach, reach + 1) for b in (-1, 0, 1)]
    total = score[0]
    came = np.zeros(score.shape, np.int8)
    for k in range(1, nz):
        wide = np.pad(total, reach, constant_values=-1e9)
        options = np.stack(
            [
                wide[reach + a : reach + a + ny, reach + b : reach + b + nt] - cost * (abs(a) + abs(a + b))
                for a, b in moves
            ]
        )
        came[k] = options.argmax(axis=0)
        total = options.max(axis=0) + score[k]
    y, t = np.zeros(nz, np.int64), np.zeros(nz, np.int64)
    y[-1], t[-1] = np.unravel_index(int(total.argmax()), total.shape)
    for k in range(nz - 1, 0, -1):
        a, b = moves[came[k, y[k], t[k]]]
        y[k - 1], t[k - 1] = y[k] + a, t[k] + b
    return y, t


def bone_map(work: Work, surfaces: Surfaces, beside: NDArray[np.float64]) -> NDArray[np.float64]:
    """(Z, X) mm of bone between the surfaces at columns ``beside`` (Z, X) mm their middle line."""
    first = max(0, int((surfaces.front.min() - REACH_MM[1]) / work.spacing[1]))
    bone = (work.hu[:, first:] > work.limits.low) & work.body[:, first:]
    passed = np.cumsum(np.pad(bone, ((0, 0), (1, 0), (0, 0))), axis=1, dtype=np.int16)
    z, x = (np.arange(n) for n in beside.shape)
    rows = []
    for surface, outwards in zip(surfaces.at(z.astype(float), beside), (-1.0, 1.0), strict=True):
        row = np.round((surface + outwards * OUTSIDE_MM) / work.spacing[1]).astype(np.int64) - first
        rows.append(passed[z[:, None], np.clip(row, 0, passed.shape[1] - 1), x[None]])
    return np.asarray((rows[1] - rows[0]) * work.spacing[1], dtype=np.float64)


def cortex_map(work: Work, surfaces: Surfaces, beside: NDArray[np.float64]) -> NDArray[np.float64]:
    """(Z, X) mean brightness of the front and back cortex (0 soft tissue, 1 the outline of bone) at columns ``beside``
    (Z, X) mm the middle line of the surfaces."""
    nz, nx = beside.shape
    z, x = np.repeat(np.arange(nz)[:, None], nx, axis=1), np.repeat(np.arange(nx)[None], nz, axis=0)
    off = (work.factor[1] - 1) / 2 * work.spacing[1] / work.factor[1]
    span = work.limits.low - work.limits.tissue
    found = []
    for surface, inwards in zip(surfaces.at(np.arange(nz, dtype=float), beside), (1.0, -1.0), strict=True):
        rows = [(surface + inwards * d - off) / work.spacing[1] for d in WALL_MM]
        values = [ndi.map_coordinates(work.hu, [z, r, x], order=1, output=np.float32) for r in rows]
        lit = (np.max(values, axis=0) - work.limits.tissue) / span
        found.append(np.clip(lit, -0.5, BRIGHTEST))
    return np.asarray(ndi.gaussian_filter(0.5 * (found[0] + found[1]), (2.0 / work.spacing[0], 0.5)))
