"""The sternum as a plate in the coronal projection of the front wall: middle line, edges, top and bottom."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from shapemodel.labels.depth import Surfaces, bone_map, cortex_map, find_surfaces
from shapemodel.labels.work import Work
from shapemodel.mask import Mask

BEHIND_FRONT_MM = 12.0
"""The sternum reaches this far behind the foremost lung of its height."""
BACK_MM = 7.0
"""Further room behind for the back of a thick manubrium: no bone of another kind is there."""
HALF_WIDTH_MM = (6.0, 33.0)
"""Half width of the xiphoid, and of the widest manubrium (66 mm, with its clavicular corners)."""
BODY_HALF_MM = 24.0
"""Half width of the widest sternal body (48 mm)."""
MANUBRIUM_MM = 55.0
"""Height of the manubrium and the joint below it."""
MIN_THICK_MM = 1.5
"""Bone along a ray through the plate that counts as plate: two cortices at partial volume."""
END_MM = 5.0
"""The notch and the tip are thinner than what counts as cover."""
MAX_GAP_MM = 14.0
"""A cartilage joint of the sternum (manubrium-body, xiphoid) is no thicker."""
CORE_MM = 9.0
"""The tips of the clavicles lie at the uppermost corners of the manubrium: further down what is further inside than
this is sternum."""
MIDDLE_MM = 8.0
"""The ends of the clavicles keep so far from the midline (the interclavicular notch is 2-3 cm wide)."""
SURE_HALF_MM = 25.0
"""Surfaces are looked for so far to both sides of the middle."""
BRIGHT = (0.6, 1.2)
"""Brightness of a cortex in the middle (0 soft tissue, 1 the outline of bone): 0.75 where it is too thin to reach the
outline, 1.1-1.5 otherwise; from the last on a plate is covered whatever its middle looks like."""
COVER_FROM = (0.3, 0.6)
"""Share of that brightness from which a place counts as covered a little, and wholly: cartilage has 0.3-0.45."""
BETTER = 1.05
"""The first middle is kept where its edges hold so many times more: 1.08 in a sternum that leans, 0.85-1.03 else."""
OUTSIDE_MM = 7.0
"""What lies so far beyond the edges speaks against them."""
BONE_SHARE = 0.5
"""Weight of what is bone by its HU for the edges, where the middle is bone all along."""


@dataclass(frozen=True)
class Plate:
    """Sternum in projection: per work slice the middle, left and right edge (mm of the array frame, x),
    whether the plate is there, the row (mm, y) behind which nothing is sternum, and surfaces about an axis (mm, x)."""

    middle: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    present: NDArray[np.bool_]
    behind: NDArray[np.float64]
    axis: NDArray[np.float64]
    surfaces: Surfaces

    def inside(
        self, z: NDArray[np.float64], y: NDArray[np.float64], x: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """mm behind the front and before the back (Z, Y, X) and inside the edges (Z, 1, X) of the plate (negative:
        outside) at heights ``z`` in work slices, rows and columns in mm; edges -inf where there is no plate."""
        rows = np.arange(len(self.low))
        low, high = np.interp(z, rows, self.low), np.interp(z, rows, self.high)
        beside = x[None] - np.interp(z, rows, self.axis)[:, None]
        front, back = (v.astype(np.float32) for v in self.surfaces.at(z, beside))
        edge = np.minimum(x[None] - low[:, None], high[:, None] - x[None]).astype(np.float32)
        edge[~self.present[np.clip(np.round(z).astype(int), 0, len(rows) - 1)]] = -np.inf
        at = y.astype(np.float32)[None, :, None]
        return at - front[:, None], back[:, None] - at, edge[:, None]

    def region(self, work: Work, margin: float = 0.0) -> Mask:
        """(Z, Y, X) bool: in front of ``behind`` and between the edges widened by ``margin``."""
        x = work.mm(np.stack([np.arange(work.hu.shape[2])] * 3, 1))[:, 2]
        y = work.mm(np.stack([np.arange(work.hu.shape[1])] * 3, 1))[:, 1]
        inx = (x[None] >= self.low[:, None] - margin) & (x[None] <= self.high[:, None] + margin)
        inx &= self.present[:, None]
        return inx[:, None, :] & (y[None] <= self.behind[:, None] + BACK_MM)[:, :, None]


def front_map(work: Work, threshold: float) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """(Z, X) mm of bone in the front wall, and the (Z,) row in mm behind which the wall ends."""
    lung = np.asarray(work.lung_mm <= 0)
    rows: NDArray[np.bool_] = np.any(lung, axis=2)
    has = rows.any(axis=1)
    front = np.where(has, rows.argmax(axis=1), 0).astype(float)
    idx = np.flatnonzero(has)
    z = np.arange(len(front))
    front = np.interp(z, idx, front[idx])
    top = idx[-1]
    # above the apex the wall keeps the level of the upper lungs; the hull's tip itself lies far back
    slope_from = max(idx[0], int(top - 60 / work.spacing[0]))
    front[slope_from:] = np.minimum(
        front[slope_from:], front[slope_from] + 0.45 * (z[slope_from:] - slope_from) * work.spacing[0] / work.spacing[1]
    )
    end = front + BEHIND_FRONT_MM / work.spacing[1]
    inside = np.arange(work.hu.shape[1])[None] <= end[:, None]
    bone = (work.hu > threshold) & work.body & inside[:, :, None]
    return (bone.sum(axis=1) * work.spacing[1]).astype(np.float32), end * work.spacing[1]


def _dp(score: NDArray[np.float64], reach: int, stiff: float) -> NDArray[np.int64]:
    """(Z,) column of the best path through ``score`` (Z, X), moves up to ``reach`` columns, cost ``stiff`` |move|."""
    nz, nx = score.shape
    total = score[0].copy()
    back = np.zeros((nz, nx), np.int64)
    for k in range(1, nz):
        pad = np.pad(total, reach, constant_values=-1e12)
        options = np.stack([pad[reach + d : reach + d + nx] - stiff * abs(d) for d in range(-reach, reach + 1)])
        back[k] = options.argmax(axis=0) - reach
        total = options.max(axis=0) + score[k]
    path = np.zeros(nz, np.int64)
    path[-1] = int(total.argmax())
    for k in range(nz - 1, 0, -1):
        path[k - 1] = np.clip(path[k] + back[k][path[k]], 0, nx - 1)
    return path


def find_plate(work: Work) -> Plate:
    """Middle line, edges and surfaces of the sternum; ``present`` is all False where none is in the scan.

    The middle is found twice: among what is bone in the front wall, and then, with the surfaces about it known, among
    what is bright where their cortices lie, which also tells a sternum whose cortex is too thin to reach the outline of
    bone from what lies before or behind it.
    """
    px = work.spacing[2]
    off = (work.factor[2] - 1) / 2 * px / work.factor[2]
    thick, behind = front_map(work, work.limits.low)
    axis = _middle(_covered(thick, work), work) * px + off
    surfaces = find_surfaces(work, axis, np.full(len(axis), SURE_HALF_MM), behind)
    beside = (np.arange(work.hu.shape[2]) * px + off)[None] - axis[:, None]
    middle = (np.abs(beside) < MIDDLE_MM) & (_upper(work)[:, None] > 0.9)
    bright = cortex_map(work, surfaces, beside)
    usual_bright = float(np.clip(np.median(bright[middle]), *BRIGHT)) if middle.any() else BRIGHT[1]
    bony = np.clip((bright / usual_bright - COVER_FROM[0]) / (COVER_FROM[1] - COVER_FROM[0]), 0.0, 1.0)
    sure = _covered(bone_map(work, surfaces, beside), work)
    share = BONE_SHARE * float(np.median(sure[middle])) if middle.any() else 0.0
    p = (1 - share) * bony + share * sure
    first, second = (_bounds(p, bony, mid, work) for mid in ((axis - off) / px, _middle(p, work)))
    mid, edge, present, _ = first if first[3] > BETTER * second[3] else second
    return Plate(
        mid * px + off, (mid - edge[0]) * px + off, (mid + edge[1]) * px + off, present, behind, axis, surfaces
    )


def _bounds(
    p: NDArray[np.float64], bony: NDArray[np.float64], mid: NDArray[np.float64], work: Work
) -> tuple[NDArray[np.float64], list[NDArray[np.float64]], NDArray[np.bool_], float]:
    """A middle line with its edges, ends, and how much more cover lies within the edges than just beyond (mm)."""
    px = work.spacing[2]
    present = _extent(bony, mid, work)
    widest, usual = _widest(present, work), _usual(present, work)
    edge = [np.minimum(_edge(p, mid, side, usual, work), widest / px) for side in (-1, 1)]
    x = np.arange(p.shape[1])[None]
    low, high = (mid - edge[0])[:, None], (mid + edge[1])[:, None]
    wide = OUTSIDE_MM / px
    inside = (x >= low) & (x <= high) & present[:, None]
    beyond = (x >= low - wide) & (x <= high + wide) & present[:, None] & ~inside
    return mid, edge, present, float((p[inside].sum() - p[beyond].sum()) * px * work.spacing[0])


def bone_share(work: Work, plate: Plate) -> float:
    """Share of the plate's middle in which bone is seen between its surfaces; 1 where there is no plate."""
    x = work.mm(np.stack([np.arange(work.hu.shape[2])] * 3, 1))[:, 2]
    beside = x[None] - plate.axis[:, None]
    middle = (np.abs(x[None] - plate.middle[:, None]) < MIDDLE_MM) & plate.present[:, None]
    seen = bone_map(work, plate.surfaces, beside) > MIN_THICK_MM
    return float(seen[middle].mean()) if middle.any() else 1.0


def _covered(thick: NDArray, work: Work) -> NDArray[np.float64]:
    """(Z, X) 0-1: whether there is bone enough along a ray for a plate, smoothed down the body."""
    return np.asarray(ndi.gaussian_filter((thick > MIN_THICK_MM).astype(float), (3.0 / work.spacing[0], 0)))


def _middle(p: NDArray[np.float64], work: Work) -> NDArray[np.float64]:
    """(Z,) column of the sternum's middle: the straight line with most cover inside and least beside it.

    A straight line, since the sternum is one in this projection while costal cartilages run away from it.
    """
    px, sz = work.spacing[2], work.spacing[0]
    c = np.concatenate([np.zeros((len(p), 1)), np.cumsum(p, axis=1)], axis=1)
    x = np.arange(p.shape[1])

    def mean(lo: float, hi: float) -> NDArray[np.float64]:
        i0 = np.clip(x + round(lo / px), 0, len(x))
        i1 = np.clip(x + round(hi / px), 0, len(x))
        return (c[:, i1] - c[:, i0]) / np.maximum(i1 - i0, 1)

    score = np.minimum(mean(-12, 0), mean(0, 12)) - 0.4 * (mean(-34, -20) + mean(20, 34))
    score = np.where(mean(-6, 6) > 0.5, score + 0.3, np.minimum(score, 0.0))
    z = np.arange(len(p))
    weight = _upper(work)[:, None]
    weighted = weight * score
    best, line = -np.inf, (0.0, 0.0)
    centre = float(np.median(np.abs(work.lat[:, 0, :]).argmin(axis=1)))
    for slope in np.linspace(-0.15, 0.15, 13):
        for at in np.arange(centre - 50 / px, centre + 50 / px):
            cols = np.round(at + slope * sz / px * (z - len(z) / 2)).astype(int)
            ok = (cols >= 0) & (cols < p.shape[1])
            value = weighted[z[ok], cols[ok]].sum() * sz - 150.0 * abs(slope)
            if value > best:
                best, line = value, (float(at), float(slope))
    at, slope = line
    base = at + slope * sz / px * (z - len(z) / 2)
    k = int(8 / px)  # mm: a sternum bends by less from the straight line
    cols = np.round(base).astype(int)[:, None] + np.arange(-k, k + 1)[None]
    local = np.take_along_axis(score, np.clip(cols, 0, p.shape[1] - 1), axis=1)
    narrow = mean(-5, 5) - 0.5 * (mean(-14, -9) + mean(9, 14))
    local = local + np.take_along_axis(narrow, np.clip(cols, 0, p.shape[1] - 1), axis=1)
    shift = _dp(local - 0.02 * np.abs(np.arange(-k, k + 1)), 1, 0.45) - k
    return ndi.gaussian_filter1d(np.round(base) + shift, 10.0 / sz)


def _upper(work: Work) -> NDArray[np.float64]:
    """(Z,) weight 1 where manubrium and upper body must be, 30-130 mm below the top of the lungs.

    Above it the clavicles converge, further down calcified cartilages of the costal arch are as wide as the sternum.
    """
    depth = (work.apex - np.arange(len(work.hu))) * work.spacing[0]
    return np.interp(depth, [26.0, 34.0, 126.0, 156.0], [0.1, 1.0, 1.0, 0.25])


def _widest(present: NDArray[np.bool_], work: Work) -> NDArray[np.float64]:
    """(Z,) largest half width in mm: manubrium, then body, with a taper between and towards the xiphoid's tip."""
    z = np.flatnonzero(present)
    if not len(z):
        return np.full(len(present), HALF_WIDTH_MM[1])
    depth = (z[-1] - np.arange(len(present))) * work.spacing[0]
    knots = [0.0, 8.0, MANUBRIUM_MM - 15.0, MANUBRIUM_MM, 2.2 * MANUBRIUM_MM, 3.4 * MANUBRIUM_MM]
    widths = [24.0, HALF_WIDTH_MM[1], HALF_WIDTH_MM[1] - 5.0, BODY_HALF_MM, BODY_HALF_MM, 14.0]
    return np.interp(depth, knots, widths)


def _usual(present: NDArray[np.bool_], work: Work) -> NDArray[np.float64]:
    """(Z,) usual half width in mm by depth below the notch: manubrium 50-60 mm wide, body 30-38, xiphoid narrow."""
    z = np.flatnonzero(present)
    top = z[-1] if len(z) else len(present) - 1
    depth = (top - np.arange(len(present))) * work.spacing[0]
    return np.interp(depth, [0.0, 8.0, 25.0, 50.0, 120.0, 160.0, 190.0], [22.0, 28.0, 28.0, 16.5, 18.0, 14.0, 8.0])


def _edge(
    p: NDArray[np.float64], mid: NDArray[np.float64], side: int, usual: NDArray[np.float64], work: Work
) -> NDArray[np.float64]:
    """(Z,) distance in voxels from the middle to the edge on one side: cover inside minus cover outside."""
    px = work.spacing[2]
    n = int((HALF_WIDTH_MM[1] + 12) / px)
    cols = mid[:, None] + side * np.arange(n)[None]
    z = np.repeat(np.arange(len(p))[:, None], n, axis=1)
    strip = ndi.map_coordinates(p, [z, cols], order=1, mode="constant")
    c = np.concatenate([np.zeros((len(p), 1)), np.cumsum(strip, axis=1)], axis=1)
    w_in, w_out = int(round(8 / px)), int(round(7 / px))
    lo, hi = int(HALF_WIDTH_MM[0] / px), int(HALF_WIDTH_MM[1] / px)
    e = np.arange(lo, hi + 1)
    inside = (c[:, e] - c[:, np.maximum(e - w_in, 0)]) / np.minimum(e, w_in)
    outside = (c[:, np.minimum(e + w_out, n)] - c[:, e]) / w_out
    score = inside - outside - 0.25 * ((e[None] * px - usual[:, None]) / 8.0) ** 2
    reach = max(1, int(np.ceil(1.0 * work.spacing[0] / px)))
    path = _dp(score, reach, 0.10)
    return ndi.gaussian_filter1d((path + lo).astype(float), 5.0 / work.spacing[0])


def _extent(p: NDArray[np.float64], mid: NDArray[np.float64], work: Work) -> NDArray[np.bool_]:
    """(Z,) slices of the plate: the longest run of cover around the middle, small gaps allowed."""
    px = work.spacing[2]
    h = max(1, int(8 / px))
    cols = np.clip(mid.round().astype(int)[:, None] + np.arange(-h, h + 1)[None], 0, p.shape[1] - 1)
    strip = np.take_along_axis(p, cols, axis=1)
    xiphoid = ndi.uniform_filter1d(strip, h, axis=1).max(axis=1) > 0.6  # may bend aside
    notch = strip[:, h // 2 : -(h // 2)].mean(axis=1) > 0.6  # between the clavicles, which reach nearer
    cover = np.where(np.arange(len(p)) > len(p) // 2, notch, xiphoid)
    gap = int(MAX_GAP_MM / work.spacing[0])
    closed = ndi.binary_closing(np.pad(cover, gap + 1), np.ones(gap + 1))[gap + 1 : -gap - 1]
    lab, n = ndi.label(closed)
    if n == 0:
        return np.zeros(len(p), bool)
    size = np.bincount(lab)
    size[0] = 0
    z = np.flatnonzero(lab == int(size.argmax()))
    out = np.zeros(len(p), bool)
    out[max(0, z[0] - int(END_MM / work.spacing[0])) : z[-1] + 1 + int(END_MM / work.spacing[0])] = True
    return out
