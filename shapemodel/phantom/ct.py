"""Phantom CT: a subject of the phantom population in the scanner, as an image with its truth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from shapemodel import anatomy
from shapemodel.mesh import Mesh, Points
from shapemodel.phantom import scanner
from shapemodel.phantom.cartilage import cartilage
from shapemodel.phantom.distractors import distractors
from shapemodel.phantom.knobs import CTKnobs
from shapemodel.phantom.raster import Grid
from shapemodel.phantom.scene import Scene, bone_bounds, moved, pose, with_spine
from shapemodel.phantom.shape import surface
from shapemodel.phantom.subject import Subject
from shapemodel.phantom.tissue import tissue
from shapemodel.phantom.voxels import paint

if TYPE_CHECKING:
    import SimpleITK as sitk

CACHED_SCENES = 2
"""Subjects whose surfaces are remembered (15 MB each), so that scans of one subject with other knobs are quick."""

VISIBLE_MARGIN_MM = 0.0
"""A vertex counts as seen when it lies inside the scanned volume."""


@dataclass(frozen=True)
class PhantomCT:
    """One phantom scan and its truth.

    Attributes
    ----------
    image : sitk.Image int16, HU, axial LPS, direction = identity
    labels : sitk.Image uint8 on the same grid: solid bones by majority, 40 other bone, 41 calcified cartilage
    surface : true closed surfaces of bones 1-37 where the patient lay (vertex order of the phantom), with ``fov``
        and the array ``visible``
    fov : (6,) bounds of the scanned volume, mm LPS
    pose : (4, 4) rigid map from the subject's frame to the scanner's
    """

    image: sitk.Image
    labels: sitk.Image
    surface: Mesh
    fov: NDArray[np.float64]
    pose: Points


def render_ct(subject: Subject, knobs: CTKnobs | None = None, seed: int = 0) -> PhantomCT:
    """Scan a subject of the phantom population.

    Parameters
    ----------
    subject : who lies in the scanner
    knobs : scanner and difficulty; the defaults are an easy scan
    seed : of textures, calcification and noise; the same arguments give the same image
    """
    knobs = knobs or CTKnobs()
    return render_scene(scene_of(subject, knobs), knobs, seed=seed)


def scene_of(subject: Subject, knobs: CTKnobs) -> Scene:
    """All surfaces of a subject with its arms as the knobs want them."""
    changes: dict[str, float | int] = {}
    if knobs.n_pairs is not None:
        changes["n_pairs"] = knobs.n_pairs
    if knobs.kyphosis_deg is not None:
        changes["kyphosis_deg"] = knobs.kyphosis_deg
    subject = replace(subject, **changes) if changes else subject  # type: ignore[arg-type]
    return _scene(subject, knobs.arms)


@lru_cache(maxsize=CACHED_SCENES)
def _scene(subject: Subject, arms: str) -> Scene:
    return Scene(
        surface(subject),
        others=distractors(subject, arms=arms),
        cartilage=cartilage(subject),
        organs=tissue(subject, arms=arms),
        age_years=subject.age_years,
        sex=subject.sex,
        fat_mm=fat_layer(subject),
    )


def fat_layer(subject: Subject) -> float:
    """Fat under the skin of the chest, mm: grows with the body mass index; women have more at the same one."""
    bmi = subject.weight_kg / (subject.height_cm / 100.0) ** 2
    return (5.0 + 0.8 * max(bmi - 18.0, 0.0)) * (1.35 if subject.sex == "F" else 1.0)


def scan_grid(scene: Scene, knobs: CTKnobs) -> Grid:
    """Grid of a scan: centred on the bones (before the patient is shifted), as long as the cuts leave."""
    bounds = bone_bounds(scene.bones)
    v, bone = scene.bones.vertices, scene.bones.bone
    upper = np.isin(bone, [anatomy.rib("left", 1), anatomy.rib("right", 1), anatomy.vertebra(1)])
    top = (v[upper, 2].max() if upper.any() else bounds[5]) - knobs.cut_above_mm
    bottom = bounds[4] + knobs.cut_below_mm
    nz = max(2, int(round((top - bottom) / knobs.slice_mm)))
    n, half = knobs.matrix, (knobs.matrix - 1) / 2 * knobs.pixel_mm
    centre = [(bounds[0] + bounds[1]) / 2, (bounds[2] + bounds[3]) / 2]
    origin = np.round([centre[0] - half, centre[1] - half, bottom + knobs.slice_mm / 2], 4)
    return Grid(
        (float(origin[0]), float(origin[1]), float(origin[2])),
        (knobs.pixel_mm, knobs.pixel_mm, knobs.slice_mm),
        (n, n, nz),
    )


def render_scene(scene: Scene, knobs: CTKnobs | None = None, *, seed: int = 0) -> PhantomCT:
    """CT of any scene of closed surfaces; see :func:`render_ct` for subjects of the phantom population."""
    import SimpleITK as sitk

    knobs = knobs or CTKnobs()
    grid = scan_grid(scene, knobs)
    bounds = bone_bounds(scene.bones)
    matrix = pose(knobs.rotate_deg, knobs.shift_mm, bounds.reshape(3, 2).mean(axis=1))
    placed = moved(with_spine(scene), matrix)
    hu, labels = paint(placed, grid, knobs, seed)
    if knobs.wires:
        scanner.add_wires(hu, grid, wire_loops(placed, knobs.wires))
    if knobs.couch:
        skin = next((v for k, (v, _) in sorted(placed.organs.items()) if k.startswith("skin")), placed.bones.vertices)
        inside = (skin[:, 2] > grid.bounds[4]) & (skin[:, 2] < grid.bounds[5])
        scanner.add_couch(hu, grid, float(skin[inside if inside.any() else slice(None), 1].max()), 0.0)
    hu = scanner.blur(hu, grid, knobs)
    scanner.add_noise(hu, grid, knobs, seed)
    image = sitk.GetImageFromArray(scanner.finish(hu, grid, knobs))
    truth = sitk.GetImageFromArray(labels)
    for im in (image, truth):
        im.SetOrigin(grid.origin)
        im.SetSpacing(grid.spacing)
    fov = grid.bounds
    surface = placed.bones.with_arrays(visible=visible(placed.bones.vertices, fov))
    return PhantomCT(
        image, truth, Mesh(surface.vertices, surface.faces, surface.bone, fov, surface.arrays), fov, matrix
    )


def visible(points: Points, fov: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(n,) whether each point lies in the scanned volume."""
    low, high = fov[0::2] + VISIBLE_MARGIN_MM, fov[1::2] - VISIBLE_MARGIN_MM
    return np.asarray(np.all((points >= low) & (points <= high), axis=1))


def wire_loops(scene: Scene, count: int) -> list[Points]:
    """Closed wire paths around the sternum, ``count`` of them from top to bottom, (n, 3) mm each."""
    v = scene.bones.vertices[scene.bones.bone == anatomy.STERNUM]
    loops = []
    for level in np.linspace(0.08, 0.72, count) if len(v) else []:
        z = v[:, 2].max() - level * np.ptp(v[:, 2])
        near = v[np.abs(v[:, 2] - z) < 6.0]
        if not len(near):
            continue
        centre, half = near.mean(axis=0), np.ptp(near, axis=0) / 2
        t = np.linspace(0, 2 * np.pi, 400)
        x, y = centre[0] + 0.75 * half[0] * np.cos(t), centre[1] + (half[1] + 1.5) * np.sin(t)
        loops.append(np.column_stack([x, y, z + 2.0 * np.cos(t)]))
    return loops
