"""A scene to Hounsfield units before the scanner's blur and noise, and its true label map."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from shapemodel import anatomy
from shapemodel.mesh import Faces, Points, vertex_normals
from shapemodel.phantom import hounsfield as hu_of
from shapemodel.phantom.canvas import Canvas, Image, blank
from shapemodel.phantom.flesh import paint_flesh, paint_organ
from shapemodel.phantom.joints import joint_distance
from shapemodel.phantom.knobs import CTKnobs
from shapemodel.phantom.raster import Box, Grid, box_of, coverage
from shapemodel.phantom.scene import Scene, Surface, paint_rank
from shapemodel.phantom.texture import from_tile

JOINT_REACH_MM = 1.6
"""Tissue as near as this to two bones belongs to their joint."""

JOINT_RIM = 0.2
"""Share of the usual rim that is left where bones are within 2 mm of each other."""

HALO_LEAST, HALO_SOFT_HU = 4, 150.0
"""Nearness to bone, of 255, from which soft tissue is darker; what is neither fat, muscle nor fluid stays as it is."""

JOINT_LEAST = 8
"""Nearness to the second bone, of 255, below which there is no joint."""

CALCIFICATION_SPREAD = 0.5
"""Standard deviation of the logarithm of the calcified share between people of one age."""

CARTILAGE_RIM_MM = 1.6
"""Depth under the surface of a costal cartilage to which men's calcification keeps."""


def paint(scene: Scene, grid: Grid, knobs: CTKnobs, seed: int) -> tuple[Image, NDArray[np.uint8]]:
    """HU and true labels of a scene on a grid.

    Returns
    -------
    hu : (nz, ny, nx) float32, before blur and noise
    labels : (nz, ny, nx) uint8, the bone that fills at least half of the voxel and more than any other; 41 where
        cartilage is calcified
    """
    canvas = blank(grid, seed)
    body = paint_flesh(canvas, scene)
    for name in sorted((k for k in scene.organs if not k.startswith("skin")), key=lambda k: (paint_rank(k), k)):
        paint_organ(canvas, name, scene, knobs, body)
    person = np.random.default_rng([seed, 12])  # its own stream: the same person whatever the grid
    amount = hu_of.calcified_share(scene.age_years) * float(np.exp(CALCIFICATION_SPREAD * person.normal()))
    amount = min(amount, 0.8) if knobs.calcified is None else knobs.calcified
    for name in sorted(scene.cartilage):
        _paint_cartilage(canvas, name, scene, (amount, knobs.fused))
    apart = joint_distance(scene)
    for name in sorted(scene.others):
        _paint_bone(canvas, anatomy.OTHER_BONE, scene.others[name], (scene, knobs, None))
    for label in scene.bones.labels:
        v, f, _ = scene.bones.select(label)
        _paint_bone(canvas, label, (v, f), (scene, knobs, apart[label]))
    _paint_halo(canvas, min(max(hu_of.HALO_PER_FAT * scene.fat_mm, 25.0), 90.0))
    _paint_joints(canvas)
    return canvas.hu, canvas.labels


def _paint_cartilage(canvas: Canvas, name: str, scene: Scene, lime_of: tuple[float, bool]) -> None:
    """Cartilage with calcified rim (men) or core (women) in patches; label 41 where it passes the threshold."""
    amount, fused = lime_of
    v, f = scene.cartilage[name]
    box = box_of(v, canvas.grid, margin=1)
    if box is None:
        return
    share = coverage(v, f, canvas.grid, box)
    core = coverage(v - vertex_normals(v, f) * CARTILAGE_RIM_MM, f, canvas.grid, box)
    if name.endswith("01"):  # the first cartilage calcifies earlier and more
        amount = min(1.0, 1.6 * amount + (0.15 if amount > 0 else 0.0))
    place = np.clip(share - core, 0.0, 1.0) / np.maximum(share, 1e-3)
    if scene.sex == "F":
        place = 0.35 * place + 0.65 * core
    patches = 0.93 * from_tile(canvas.lumps, box) + 0.36 * from_tile(canvas.grain, box)
    lime = np.clip((patches - _upper_quantile(amount)) / 0.6, 0.0, 1.0) * np.clip(0.35 + place, 0.0, 1.0)
    if fused:
        lime = np.maximum(lime, 0.55 * place + 0.15)
    dense = hu_of.CALCIFIED * (1.0 + 0.3 * from_tile(canvas.grain, box))
    hu = np.asarray(hu_of.CARTILAGE + lime * (dense - hu_of.CARTILAGE), np.float32)
    canvas.blend(box, share, hu)
    canvas.labels[box][(share >= 0.5) & (hu >= hu_of.CALCIFICATION_THRESHOLD)] = anatomy.COSTAL_CARTILAGE


def _upper_quantile(share: float) -> float:
    """Level that a unit normal field passes in this share of its places."""
    from scipy.special import ndtri

    return float(-ndtri(np.clip(share, 1e-6, 1 - 1e-6)))


def inner_surface(v: Points, f: Faces, thickness: NDArray[np.float64]) -> Points:
    """The vertices moved inwards by (n,) mm; where the bone is thinner than that it turns inside out and vanishes."""
    return np.asarray(v - vertex_normals(v, f) * thickness[:, None])


def rim_depth(label: int, apart: NDArray[np.float64] | None, n: int) -> NDArray[np.float64]:
    """(n,) mm between outline and dense cortex; little where another bone is near, so that joints stay narrow."""
    rim = hu_of.RIM_MM[anatomy.bone(label).kind]
    if apart is None:
        return np.full(n, rim)
    return rim * (JOINT_RIM + (1.0 - JOINT_RIM) * np.clip((apart - 2.0) / 2.0, 0.0, 1.0))


def cortex_thickness(label: int, v: Points, scene: Scene, knobs: CTKnobs) -> NDArray[np.float64]:
    """(n,) mm: the mean of the bone, thicker in the arch of a vertebra, thin at the front of ribs; it varies slowly."""
    mean = hu_of.cortex_mm(label, scene.age_years, scene.sex) * knobs.cortex_scale
    kind = anatomy.bone(label).kind
    factor = np.ones(len(v))
    if kind == "vertebra":
        y = (v[:, 1] - v[:, 1].min()) / max(np.ptp(v[:, 1]), 1.0)
        factor += 1.6 * np.clip((y - 0.42) / 0.12, 0, 1)
    elif kind == "rib":
        y = (v[:, 1] - v[:, 1].min()) / max(np.ptp(v[:, 1]), 1.0)
        factor += 0.3 - 0.75 * np.clip(1.0 - y / 0.45, 0, 1) - 0.35 * np.clip((y - 0.85) / 0.15, 0, 1)
    phase = np.array([1.0, 2.0]) * label
    wave = np.sin(v @ np.array([0.13, 0.10, 0.17]) + phase[0]) * np.sin(v @ np.array([-0.07, 0.15, 0.09]) + phase[1])
    return mean * factor * (1.0 + 0.5 * wave)


def _paint_bone(
    canvas: Canvas, label: int, surface: Surface, how: tuple[Scene, CTKnobs, NDArray[np.float64] | None]
) -> None:
    """One bone: rim, cortex, and spongiosa that is denser near the cortex; its label where it has the majority."""
    (v, f), (scene, knobs, apart) = surface, how
    box = box_of(v, canvas.grid, margin=3)
    if box is None:
        return
    share = coverage(v, f, canvas.grid, box)
    rim = rim_depth(label, apart, len(v))
    dense = np.minimum(coverage(inner_surface(v, f, rim), f, canvas.grid, box), share)
    depth = rim + cortex_thickness(label, v, scene, knobs)
    core = np.minimum(coverage(inner_surface(v, f, depth), f, canvas.grid, box), dense)
    grain, fine = from_tile(canvas.grain, box), from_tile(canvas.fine, box)
    cortex = hu_of.CORTEX * (1.0 + hu_of.CORTEX_SPREAD * np.clip(grain, -2.0, 2.0))
    spongiosa = _spongiosa(core, grain, fine, _spongiosa_level(label, scene, knobs), canvas.grid)
    part = canvas.hu[box]
    part += (share - dense) * hu_of.RIM + (dense - core) * cortex + core * spongiosa - share * part
    won = (share >= 0.5) & (share > canvas.best[box])
    canvas.labels[box][won] = label
    canvas.best[box][won] = share[won]
    _remember(canvas, box, share)


def _remember(canvas: Canvas, box: Box, share: Image) -> None:
    """Note how near each voxel is to this bone, for the joints."""
    size = [2 * round(JOINT_REACH_MM / p) + 1 for p in canvas.grid.spacing[::-1]]
    close = (255.0 * ndimage.uniform_filter(share, size, mode="constant")).astype(np.uint8)
    near, joint = canvas.near[box], canvas.joint[box]
    np.maximum(joint, np.minimum(near, close), out=joint)
    np.maximum(near, close, out=near)


def _paint_halo(canvas: Canvas, drop: float) -> None:
    """Soft tissue next to bone made darker by up to ``drop`` HU."""
    soft = (canvas.near > HALO_LEAST) & (canvas.best == 0) & ~canvas.disc & (np.abs(canvas.hu) < HALO_SOFT_HU)
    weight = np.clip(canvas.near[soft].astype(np.float32) / 64.0, 0.0, 1.0)
    canvas.hu[soft] -= np.float32(drop) * weight


def _paint_joints(canvas: Canvas) -> None:
    """Cartilage and capsule between two bones: brighter than muscle, so that joints are not simply dark."""
    where = np.nonzero((canvas.joint > JOINT_LEAST) & ~canvas.disc)
    hu = canvas.hu[where]
    weight = np.clip(canvas.joint[where].astype(np.float32) / 64.0, 0.0, 1.0)
    canvas.hu[where] = hu + weight * np.clip(hu_of.JOINT - hu, 0.0, None)


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
