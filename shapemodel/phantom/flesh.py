"""Everything soft: skin, fat and muscle, lungs with their vessels and fluid, and the other organs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from shapemodel.phantom import hounsfield as hu_of
from shapemodel.phantom.canvas import Canvas
from shapemodel.phantom.knobs import CTKnobs
from shapemodel.phantom.raster import Box, Grid, box_of, coverage
from shapemodel.phantom.scene import Scene
from shapemodel.phantom.texture import enlarge, from_tile, smooth_field

COARSE_MM = 3.0
"""Voxel size for maps of depth under skin and lung surface; they vary over centimetres."""

SKIN_MM = 2.0

CHEST_WALL_MM = 14.0
"""Least depth of lung under the skin."""

PLEURA_MM = 2.0
"""Least distance of lung from bone, and inwards from the hull of the cage."""

CAGE_REACH_MM = 11.0
"""Half the distance of ribs: bones as near as this to the height of a slice bound the cage there."""

FLESH_OVER_BONE_MM = 9.0
"""Least depth of bone under the skin (on the coarse grid, so a few mm are lost)."""


def paint_organ(canvas: Canvas, name: str, scene: Scene, knobs: CTKnobs, body: Body) -> None:
    """One organ over what is there; lungs keep off skin and bones and stay within the cage."""
    v, f = scene.organs[name]
    box = box_of(v, canvas.grid)
    if box is None:
        return
    share = coverage(v, f, canvas.grid, box)
    if name.startswith("lung"):
        room = enlarge(body.room, canvas.grid.shape, box)
        share = np.minimum(share, np.clip(0.5 + room / np.float32(canvas.grid.spacing[0]), 0.0, 1.0))
        canvas.blend(box, share, _lung(canvas, box, share, knobs))
    else:
        if name.startswith("disc"):
            canvas.disc[box] |= share > 0.3
        level = hu_of.organ_hu(name, knobs.contrast_hu)
        canvas.blend(box, share, level + np.float32(3.0) * from_tile(canvas.grain, box))


def _coarse(grid: Grid) -> Grid:
    """Grid of about COARSE_MM that fills the same volume."""
    span = [n * p for n, p in zip(grid.size, grid.spacing, strict=True)]
    n = [max(2, int(np.ceil(a / COARSE_MM))) for a in span]
    step = [a / b for a, b in zip(span, n, strict=True)]
    origin = [o - p / 2 + q / 2 for o, p, q in zip(grid.origin, grid.spacing, step, strict=True)]
    return Grid((origin[0], origin[1], origin[2]), (step[0], step[1], step[2]), (n[0], n[1], n[2]))


@dataclass(frozen=True)
class Body:
    """The body on the coarse grid, (z, y, x) float32 each.

    Attributes
    ----------
    depth : signed depth in mm under the skin
    room : signed mm by which a place is far enough from skin and bones, and inside the cage, to hold lung
    """

    depth: NDArray[np.float32]
    room: NDArray[np.float32]


def body_of(scene: Scene, grid: Grid) -> Body:
    """Skin with all bones under it; the ends of the scan are not skin, the body goes on there."""
    coarse = _coarse(grid)
    body, bone = np.zeros(coarse.shape, bool), np.zeros(coarse.shape, bool)
    surfaces = [(body, scene.organs[k]) for k in scene.organs if k.startswith("skin")]
    surfaces += [(bone, s) for s in scene.others.values()]
    surfaces += [(bone, scene.bones.select(k)[:2]) for k in scene.bones.labels]
    for target, (v, f) in surfaces:
        box = box_of(v, coarse)
        if box is not None:
            target[box] |= coverage(v, f, coarse, box) > 0.4
    off = _distance(~bone, coarse) if bone.any() else np.full(coarse.shape, np.inf)
    body |= off < FLESH_OVER_BONE_MM
    depth = ndimage.gaussian_filter(_signed(body, coarse), 1.2)
    inside = ndimage.gaussian_filter(_signed(_cage(scene, coarse), coarse), 1.0)
    room = np.minimum(np.minimum(depth - CHEST_WALL_MM, off - PLEURA_MM), inside - PLEURA_MM)
    return Body(depth.astype(np.float32), room.astype(np.float32))


def _distance(mask: NDArray[np.bool_], grid: Grid) -> NDArray[np.float64]:
    return np.asarray(ndimage.distance_transform_edt(mask, sampling=grid.spacing[::-1]), np.float64)


def _signed(mask: NDArray[np.bool_], grid: Grid) -> NDArray[np.float64]:
    """Distance to the border of a mask, positive inside; masks go on beyond the grid."""
    wide = np.pad(mask, 4, mode="edge")
    return (_distance(wide, grid) - _distance(~wide, grid))[4:-4, 4:-4, 4:-4]


def _cage(scene: Scene, coarse: Grid) -> NDArray[np.bool_]:
    """What the bones surround: in each slice the convex hull of those within CAGE_REACH_MM of its height."""
    from scipy.spatial import ConvexHull
    from skimage.draw import polygon

    out = np.zeros(coarse.shape, bool)
    v = scene.bones.vertices[::7]
    v = v[np.argsort(v[:, 2])]
    for k, z in enumerate(coarse.axis(2)):
        low, high = np.searchsorted(v[:, 2], [z - CAGE_REACH_MM, z + CAGE_REACH_MM])
        if high - low >= 12:
            p = v[low:high, :2][ConvexHull(v[low:high, :2]).vertices]
            e = (p - coarse.origin[:2]) / coarse.spacing[:2]
            rows, columns = polygon(e[:, 1], e[:, 0], shape=coarse.shape[1:])
            out[k, rows, columns] = True
    return out


def paint_flesh(canvas: Canvas, scene: Scene) -> Body:
    """Skin, subcutaneous fat, muscle with sheets of fat between; where the body is, for the organs in it."""
    body = body_of(scene, canvas.grid)
    depth = body.depth
    thickness = scene.fat_mm * (1 + 0.3 * _smooth(canvas, depth.shape, 10.0))
    sheets = np.minimum(np.abs(_smooth(canvas, depth.shape, 3.0)), np.abs(_smooth(canvas, depth.shape, 5.0)))
    fat = 1.0 / (1.0 + np.exp(np.clip((depth - thickness) / 1.2, -30, 30)))
    fat = np.maximum(fat, np.clip(1.25 - 9.0 * sheets, 0.0, 0.9))
    soft = hu_of.MUSCLE + (hu_of.FAT - hu_of.MUSCLE) * fat
    soft = np.where(depth < SKIN_MM, hu_of.SKIN, soft)
    everywhere = (slice(0, canvas.grid.size[2]), slice(0, canvas.grid.size[1]), slice(0, canvas.grid.size[0]))
    share = np.clip(0.5 + enlarge(depth, canvas.grid.shape) / np.float32(canvas.grid.spacing[0]), 0.0, 1.0)
    level = enlarge(np.asarray(soft, np.float32), canvas.grid.shape)
    level += np.float32(4.0) * from_tile(canvas.grain, everywhere)
    canvas.blend(everywhere, share, level)
    return body


def _smooth(canvas: Canvas, shape: tuple[int, ...], sigma: float) -> NDArray[np.float32]:
    """Unit-variance field on the coarse grid, smooth over sigma voxels."""
    white = canvas.rng.standard_normal(shape, dtype=np.float32)
    field = ndimage.gaussian_filter(white, sigma, mode="nearest", truncate=2.5)
    return np.asarray(field / max(float(field.std()), 1e-6), np.float32)


def _lung(canvas: Canvas, box: Box, share: NDArray[np.float32], knobs: CTKnobs) -> NDArray[np.float32]:
    """Air-filled lung, denser at the back, with branching vessels; fluid and pressed lung behind with an effusion."""
    shape = share.shape
    y = np.linspace(-1.0, 1.0, shape[1], dtype=np.float32)[None, :, None]
    hu = hu_of.LUNG + 28.0 * y + 14.0 * from_tile(canvas.grain, box)
    cells = tuple(int(max(2, round(14.0 / p))) for p in canvas.grid.spacing[::-1])
    a, b = (smooth_field(canvas.rng, shape, (cells[0], cells[1], cells[2])) for _ in range(2))
    width = 0.085 * (1.0 + 0.5 * y)
    vessel = np.clip(1.6 - (a * a + b * b) / (width * width), 0.0, 1.0)
    level = hu_of.organ_hu("vessel", knobs.contrast_hu)
    hu = hu + vessel * (level - hu)
    if knobs.effusion > 0:
        _fill(hu, share, canvas, knobs.effusion)
    return np.asarray(hu, np.float32)


def _fill(hu: NDArray[np.float32], share: NDArray[np.float32], canvas: Canvas, amount: float) -> None:
    """Fluid at the back of the lung up to a level, deeper towards the base, and pressed lung above it."""
    ys = np.flatnonzero(share.any(axis=(0, 2)))
    zs = np.flatnonzero(share.any(axis=(1, 2)))
    if not len(ys):
        return
    depth = (ys[-1] - np.arange(share.shape[1])) / max(ys[-1] - ys[0], 1)
    height = np.clip((np.arange(share.shape[0]) - zs[0]) / max(zs[-1] - zs[0], 1), 0, 1)
    surface = amount * (1.15 - 0.55 * height)
    wavy = smooth_field(canvas.rng, share.shape, (20, 20, 20))
    above = (depth[None, :] - surface[:, None])[:, :, None] + np.float32(0.02) * wavy
    pressed = 1.0 / (1.0 + np.exp(np.clip((above - 0.05) / 0.012, -30, 30)))
    fluid = 1.0 / (1.0 + np.exp(np.clip(above / 0.006, -30, 30)))
    hu += pressed * (hu_of.ATELECTASIS - hu)
    hu += fluid * (hu_of.FLUID - hu)
