"""Everything that lies in the scanner, as closed surfaces in one frame: bones, cartilage, organs, skin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from shapemodel import anatomy
from shapemodel.mesh import Faces, Mesh, Points
from shapemodel.phantom.raster import Grid, box_of, coverage

Surface = tuple[Points, Faces]


@dataclass(frozen=True)
class Scene:
    """A patient made of closed surfaces, mm LPS, outward normals.

    Attributes
    ----------
    bones : the bones of the model (labels 1-37)
    others : neighbouring bones by name (clavicles, scapulae, humeri, C7, L1): label 40
    cartilage : costal cartilages by name
    organs : skin, lungs, heart, vessels ... by name; painted in the order of :data:`PAINT_ORDER`
    age_years, sex : set spongiosa, cortex and calcification
    fat_mm : thickness of fat under the skin of the chest
    """

    bones: Mesh
    others: Mapping[str, Surface] = field(default_factory=dict)
    cartilage: Mapping[str, Surface] = field(default_factory=dict)
    organs: Mapping[str, Surface] = field(default_factory=dict)
    age_years: float = 50.0
    sex: str | None = None
    fat_mm: float = 11.0


PAINT_ORDER = (
    "breast",
    "mediastin",
    "lung",
    "liver",
    "spleen",
    "stomach",
    "kidney",
    "heart",
    "pulmonary",
    "vena",
    "aorta",
    "vessel",
    "oesophagus",
    "esophagus",
    "trachea",
    "bronch",
    "gas",
    "disc",
    "canal",
    "cord",
)
"""Later organs replace earlier ones; organs of other names come just before ``disc``."""


def paint_rank(name: str) -> int:
    """Place of an organ in the order of painting."""
    for i, start in enumerate(PAINT_ORDER):
        if name.startswith(start):
            return i
    return PAINT_ORDER.index("disc") - 1


def bone_bounds(bones: Mesh) -> NDArray[np.float64]:
    """(6,) bounds in mm of the bones of the model."""
    return np.column_stack([bones.vertices.min(axis=0), bones.vertices.max(axis=0)]).ravel()


def pose(rotate_deg: tuple[float, float, float], shift_mm: tuple[float, float, float], centre: Points) -> Points:
    """(4, 4) rigid map: turns about x, then y, then z through ``centre``, then a shift."""
    ax, ay, az = np.deg2rad(rotate_deg)
    rx = np.array([[1, 0, 0], [0, np.cos(ax), -np.sin(ax)], [0, np.sin(ax), np.cos(ax)]])
    ry = np.array([[np.cos(ay), 0, np.sin(ay)], [0, 1, 0], [-np.sin(ay), 0, np.cos(ay)]])
    rz = np.array([[np.cos(az), -np.sin(az), 0], [np.sin(az), np.cos(az), 0], [0, 0, 1]])
    matrix = np.eye(4)
    matrix[:3, :3] = rz @ ry @ rx
    matrix[:3, 3] = centre - matrix[:3, :3] @ centre + np.asarray(shift_mm)
    return matrix


def moved(scene: Scene, matrix: Points) -> Scene:
    """The same scene after a rigid map."""

    def move(v: Points) -> Points:
        return np.asarray(v @ matrix[:3, :3].T + matrix[:3, 3])

    return replace(
        scene,
        bones=scene.bones.with_vertices(move(scene.bones.vertices)),
        others={k: (move(v), f) for k, (v, f) in scene.others.items()},
        cartilage={k: (move(v), f) for k, (v, f) in scene.cartilage.items()},
        organs={k: (move(v), f) for k, (v, f) in scene.organs.items()},
    )


SPINE_STEP_MM = 1.0
"""Voxel size at which the canal and the bodies are found in the vertebrae."""


@dataclass(frozen=True)
class SpinePath:
    """Middle of the canal and of the body of each vertebra, from the top, (n, 3) mm; (n,) half widths of the bodies."""

    canal: Points
    body: Points
    half_width: NDArray[np.float64]
    half_depth: NDArray[np.float64]


def spine_path(scene: Scene) -> SpinePath:
    """Where canal and bodies run, found in the vertebrae themselves: the hole of the arch, and what lies before it."""
    surfaces = [scene.bones.select(k)[:2] for k in anatomy.VERTEBRAE]
    surfaces += [s for name, s in scene.others.items() if name.startswith("vertebra")]
    found = [r for r in (_vertebra_path(v, f) for v, f in surfaces if len(f)) if r is not None]
    found.sort(key=lambda r: -r[0][2])
    return SpinePath(
        np.array([r[0] for r in found]).reshape(-1, 3),
        np.array([r[1] for r in found]).reshape(-1, 3),
        np.array([r[2] for r in found]),
        np.array([r[3] for r in found]),
    )


def _vertebra_path(v: Points, f: Faces) -> tuple[Points, Points, float, float] | None:
    low, high = v.min(axis=0) - 2, v.max(axis=0) + 2
    size = np.ceil((high - low) / SPINE_STEP_MM).astype(int)
    grid = Grid(tuple(low), (SPINE_STEP_MM,) * 3, tuple(int(n) for n in size))  # type: ignore[arg-type]
    box = box_of(v, grid)
    if box is None:
        return None
    solid = coverage(v, f, grid, box) > 0.5
    offset = [s.start for s in box]
    holes = np.stack([ndimage.binary_fill_holes(s) for s in solid]) & ~solid
    holes = ndimage.binary_opening(holes, np.ones((1, 3, 3)))
    if not holes.any():
        return None

    def world(index: NDArray[np.float64]) -> Points:
        return np.asarray(low + (index[::-1] + np.array(offset)[::-1]) * SPINE_STEP_MM)

    canal = np.argwhere(holes).mean(axis=0)
    front = np.argwhere(holes)[:, 1].min()
    z, y, x = np.nonzero(solid[:, : max(front - 1, 1)])
    middle = np.abs(x - canal[2]) < 12 / SPINE_STEP_MM
    if not middle.any():
        return None
    body = np.array([z[middle].mean(), y[middle].mean(), canal[2]])
    width = (np.percentile(x, 95) - np.percentile(x, 5)) / 2 * SPINE_STEP_MM
    depth = (np.percentile(y[middle], 98) - np.percentile(y[middle], 2)) / 2 * SPINE_STEP_MM
    return world(canal), world(body), float(width), float(depth)


def tube(path: Points, radius: NDArray[np.float64], sides: int = 20, flat: float = 1.0) -> Surface:
    """Closed tube around a path from above, (n, 3) mm, elliptical in the axial plane.

    Parameters
    ----------
    radius : (n,) half width in x; half depth in y is ``flat`` times it
    """
    order = np.argsort(path[:, 2])
    p, r = path[order], radius[order]
    angle = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    ring = np.column_stack([np.cos(angle), flat * np.sin(angle), np.zeros(sides)])
    v = (p[:, None, :] + r[:, None, None] * ring[None]).reshape(-1, 3)
    n = len(p)
    faces = []
    for i in range(n - 1):
        a = i * sides + np.arange(sides)
        b = i * sides + (np.arange(sides) + 1) % sides
        faces += [np.column_stack([a, b, b + sides]), np.column_stack([a, b + sides, a + sides])]
    k = np.arange(1, sides - 1)
    faces.append(np.column_stack([np.zeros_like(k), k + 1, k]))
    faces.append((n - 1) * sides + np.column_stack([np.zeros_like(k), k, k + 1]))
    return v, np.vstack(faces).astype(np.int64)


def with_spine(scene: Scene) -> Scene:
    """The scene with discs (a column through the bodies), canal and cord, unless it has them already."""
    path = spine_path(scene)
    if len(path.canal) < 2:
        return scene
    organs = dict(scene.organs)
    if not any(k.startswith("disc") for k in organs):
        width = _extended(path.half_width[:, None])[:, 0] * 0.92
        flat = float(np.median(path.half_depth / path.half_width))
        organs["disc"] = tube(_extended(path.body), width, flat=flat)
    canal = _extended(path.canal)
    if not any(k.startswith("canal") for k in organs):
        organs["canal"] = tube(canal, np.full(len(canal), 8.0))
    if not any(k.startswith("cord") for k in organs):
        organs["cord"] = tube(canal, np.full(len(canal), 4.2), flat=0.8)
    return replace(scene, organs=organs)


def _extended(a: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sequence with one more element at both ends, continued linearly by two thirds of a step."""
    return np.vstack([a[:1] + (a[:1] - a[1:2]) * 0.67, a, a[-1:] + (a[-1:] - a[-2:-1]) * 0.67])
