"""A scene to Hounsfield units before the scanner's blur and noise, and its true label map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from shapemodel import anatomy
from shapemodel.mesh import Faces, Points, vertex_normals
from shapemodel.phantom import hounsfield as hu_of
from shapemodel.phantom.knobs import CTKnobs
from shapemodel.phantom.raster import Box, Grid, box_of, coverage
from shapemodel.phantom.scene import Scene, Surface, paint_rank
from shapemodel.phantom.texture import enlarge, from_tile, smooth_field, tile

COARSE_MM = 3.0
"""Voxel size for maps of depth under skin and lung surface; they vary over centimetres."""

SKIN_MM = 2.0

FLESH_OVER_BONE_MM = 9.0
"""Least depth of bone under the skin (on the coarse grid, so a few mm are lost)."""


@dataclass
class Canvas:
    """What is being painted: HU (z, y, x) float32, labels uint8, and the seeded textures."""

    grid: Grid
    hu: NDArray[np.float32]
    labels: NDArray[np.uint8]
    rng: np.random.Generator
    fine: NDArray[np.float32]
    grain: NDArray[np.float32]


def paint(scene: Scene, grid: Grid, knobs: CTKnobs, seed: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """HU and true labels of a scene on a grid.

    Returns
    -------
    hu : (nz, ny, nx) float32, before blur and noise
    labels : (nz, ny, nx) uint8, the bone that fills at least half of the voxel and more than any other; 41 where
        cartilage is calcified
    """
    rng = np.random.default_rng([seed, 11])
    mm = grid.spacing[::-1]
    canvas = Canvas(
        grid,
        np.full(grid.shape, hu_of.AIR, np.float32),
        np.zeros(grid.shape, np.uint8),
        rng,
        fine=tile(rng, (0.7 / mm[0], 0.7 / mm[1], 0.7 / mm[2])),
        grain=tile(rng, (2.2 / mm[0], 2.2 / mm[1], 2.2 / mm[2])),
    )
    _paint_flesh(canvas, scene)
    for name in sorted((k for k in scene.organs if not k.startswith("skin")), key=lambda k: (paint_rank(k), k)):
        _paint_organ(canvas, name, scene, knobs)
    for name in sorted(scene.cartilage):
        _paint_cartilage(canvas, name, scene, knobs)
    best = np.zeros(grid.shape, np.float32)
    for name in sorted(scene.others):
        _paint_bone(canvas, best, anatomy.OTHER_BONE, scene.others[name], scene, knobs)
    for label in scene.bones.labels:
        v, f, _ = scene.bones.select(label)
        _paint_bone(canvas, best, label, (v, f), scene, knobs)
    return canvas.hu, canvas.labels


def _blend(canvas: Canvas, box: Box, share: NDArray[np.float32], hu: NDArray[np.float32] | float) -> None:
    part = canvas.hu[box]
    part += share * (hu - part)


def _paint_organ(canvas: Canvas, name: str, scene: Scene, knobs: CTKnobs) -> None:
    v, f = scene.organs[name]
    box = box_of(v, canvas.grid)
    if box is None:
        return
    share = coverage(v, f, canvas.grid, box)
    if name.startswith("lung"):
        _blend(canvas, box, share, _lung(canvas, box, share, knobs))
    else:
        level = hu_of.organ_hu(name, knobs.contrast_hu)
        _blend(canvas, box, share, level + np.float32(3.0) * from_tile(canvas.grain, box))


def _coarse(grid: Grid) -> Grid:
    """Grid of about COARSE_MM that fills the same volume."""
    span = [n * p for n, p in zip(grid.size, grid.spacing, strict=True)]
    n = [max(2, int(np.ceil(a / COARSE_MM))) for a in span]
    step = [a / b for a, b in zip(span, n, strict=True)]
    origin = [o - p / 2 + q / 2 for o, p, q in zip(grid.origin, grid.spacing, step, strict=True)]
    return Grid((origin[0], origin[1], origin[2]), (step[0], step[1], step[2]), (n[0], n[1], n[2]))


def _depth(scene: Scene, grid: Grid) -> NDArray[np.float32]:
    """Signed depth in mm under the skin on the coarse grid; bones never stick out of the flesh.

    The ends of the scan are not skin: the body goes on there.
    """
    coarse = _coarse(grid)
    body, bone = np.zeros(coarse.shape, bool), np.zeros(coarse.shape, bool)
    surfaces = [(body, scene.organs[k]) for k in scene.organs if k.startswith("skin")]
    surfaces += [(bone, s) for s in scene.others.values()]
    surfaces += [(bone, scene.bones.select(k)[:2]) for k in scene.bones.labels]
    for target, (v, f) in surfaces:
        box = box_of(v, coarse)
        if box is not None:
            target[box] |= coverage(v, f, coarse, box) > 0.4
    sampling = coarse.spacing[::-1]
    if bone.any():
        body |= ndimage.distance_transform_edt(~bone, sampling=sampling) < FLESH_OVER_BONE_MM
    wide = np.pad(body, ((4, 4), (4, 4), (4, 4)), mode="edge")
    depth = ndimage.distance_transform_edt(wide, sampling=sampling)
    depth -= ndimage.distance_transform_edt(~wide, sampling=sampling)
    return np.asarray(ndimage.gaussian_filter(depth, 1.2)[4:-4, 4:-4, 4:-4], np.float32)


def _paint_flesh(canvas: Canvas, scene: Scene) -> None:
    """Skin, subcutaneous fat, muscle with sheets of fat between."""
    depth = _depth(scene, canvas.grid)
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
    _blend(canvas, everywhere, share, level)


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


def _paint_cartilage(canvas: Canvas, name: str, scene: Scene, knobs: CTKnobs) -> None:
    """Cartilage with calcified rim (men) or core (women) in patches; label 41 where it passes the threshold."""
    v, f = scene.cartilage[name]
    box = box_of(v, canvas.grid, margin=1)
    if box is None:
        return
    share = coverage(v, f, canvas.grid, box)
    core = coverage(v - vertex_normals(v, f) * 1.6, f, canvas.grid, box)
    amount = hu_of.calcified_share(scene.age_years) if knobs.calcified is None else knobs.calcified
    if "01" in name:
        amount = min(1.0, 1.6 * amount + (0.15 if amount > 0 else 0.0))
    rim = np.clip(share - core, 0.0, 1.0) / np.maximum(share, 1e-3)
    if scene.sex == "F":
        rim = 0.35 * rim + 0.65 * core
    patches = 0.75 * from_tile(canvas.grain, box) + 0.35 * from_tile(canvas.fine, box)
    level = _upper_quantile(amount)
    lime = np.clip((patches - level) / 0.5, 0.0, 1.0) * np.clip(0.3 + rim, 0.0, 1.0)
    if knobs.fused:
        lime = np.maximum(lime, 0.55 * rim + 0.15)
    hu = hu_of.CARTILAGE + lime * (hu_of.CALCIFIED - hu_of.CARTILAGE)
    _blend(canvas, box, share, hu.astype(np.float32))
    labels = canvas.labels[box]
    labels[(share >= 0.5) & (hu >= hu_of.CALCIFICATION_THRESHOLD)] = anatomy.COSTAL_CARTILAGE


def _upper_quantile(share: float) -> float:
    """Level that a unit normal field passes in this share of its places."""
    from scipy.special import ndtri

    return float(-ndtri(np.clip(share, 1e-6, 1 - 1e-6))) * 0.83


def inner_surface(v: Points, f: Faces, thickness: NDArray[np.float64]) -> Points:
    """The vertices moved inwards by (n,) mm; where the bone is thinner than that it turns inside out and vanishes."""
    return np.asarray(v - vertex_normals(v, f) * thickness[:, None])


def cortex_thickness(label: int, v: Points, scene: Scene, knobs: CTKnobs) -> NDArray[np.float64]:
    """(n,) mm: the mean of the bone, thicker in the arch of a vertebra and in mid-rib, with slow variation."""
    mean = hu_of.cortex_mm(label, scene.age_years, scene.sex) * knobs.cortex_scale
    kind = anatomy.bone(label).kind
    factor = np.ones(len(v))
    if kind == "vertebra":
        y = (v[:, 1] - v[:, 1].min()) / max(np.ptp(v[:, 1]), 1.0)
        factor += 1.6 * np.clip((y - 0.42) / 0.12, 0, 1)
    elif kind == "rib":
        y = np.abs((v[:, 1] - v[:, 1].mean()) / max(np.ptp(v[:, 1]), 1.0))
        factor += 0.3 - 0.9 * y
    wave = np.sin(v @ np.array([0.31, 0.23, 0.41]) + label) * np.sin(v @ np.array([-0.17, 0.35, 0.21]) + 2.0 * label)
    return mean * factor * (1.0 + 0.35 * wave)


def _paint_bone(
    canvas: Canvas, best: NDArray[np.float32], label: int, surface: Surface, scene: Scene, knobs: CTKnobs
) -> None:
    """One bone: rim, cortex, and spongiosa that is denser near the cortex; its label where it has the majority."""
    v, f = surface
    box = box_of(v, canvas.grid, margin=1)
    if box is None:
        return
    share = coverage(v, f, canvas.grid, box)
    rim = np.full(len(v), hu_of.RIM_MM)
    dense = np.minimum(coverage(inner_surface(v, f, rim), f, canvas.grid, box), share)
    depth = rim + cortex_thickness(label, v, scene, knobs)
    core = np.minimum(coverage(inner_surface(v, f, depth), f, canvas.grid, box), dense)
    grain, fine = from_tile(canvas.grain, box), from_tile(canvas.fine, box)
    cortex = hu_of.CORTEX * (1.0 + hu_of.CORTEX_SPREAD * np.clip(grain, -2.0, 2.0))
    spongiosa = _spongiosa(core, grain, fine, _spongiosa_level(label, scene, knobs), canvas.grid)
    part = canvas.hu[box]
    part += (share - dense) * hu_of.RIM + (dense - core) * cortex + core * spongiosa - share * part
    won = (share >= 0.5) & (share > best[box])
    canvas.labels[box][won] = label
    best[box][won] = share[won]


def _spongiosa_level(label: int, scene: Scene, knobs: CTKnobs) -> float:
    base = hu_of.spongiosa_hu(scene.age_years, scene.sex) if knobs.spongiosa_hu is None else knobs.spongiosa_hu
    return base * hu_of.SPONGIOSA_SHARE[anatomy.bone(label).kind]


def _spongiosa(
    core: NDArray[np.float32], grain: NDArray[np.float32], fine: NDArray[np.float32], base: float, grid: Grid
) -> NDArray[np.float32]:
    """HU of trabecular bone: mean, denser near the cortex, trabeculae and marrow spaces."""
    size = [max(1, 2 * round(2.0 / p) + 1) for p in grid.spacing[::-1]]
    deep = ndimage.uniform_filter(core, size, mode="constant")
    level = base * (1.0 + hu_of.SUBCORTICAL * np.clip(1.7 - 1.7 * deep, 0.0, 1.0))
    return np.asarray(level * (1.0 + 0.2 * grain) + (25.0 + 0.3 * base) * fine, np.float32)
