"""Soft tissue as closed surfaces: skin, lungs, heart, great vessels, liver, spinal canal, airway.

Nothing here is truth of the model; it surrounds the bones with what a scan shows, and fits inside the chest wall of
the same subject.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from shapemodel.mesh import Faces, Points
from shapemodel.phantom import tables
from shapemodel.phantom.shape import Anatomy, anatomy
from shapemodel.phantom.solids import Array, ellipsoid, join, mesh_of
from shapemodel.phantom.subject import Subject, by_sex
from shapemodel.phantom.tube import bezier, tube
from shapemodel.phantom.vertebrae import CANAL_HALF_DEPTH_MM
from shapemodel.phantom.wall import Wall, wall

Part = tuple[Points, Faces]
GRID_MM, SKIN_GRID_MM = 3.5, 6.0
PLEURA_MM = 7.5
"""From the middle of the chest wall to the lung: half a rib and the inner muscle."""
APEX_MM = 16.0
"""The lung reaches this far above the front half of the first rib's level, at most to its neck."""


def tissue(subject: Subject, arms: str = "up") -> dict[str, Part]:
    """Closed surfaces by name, (V, 3) mm LPS and (F, 3), outward normals; they may overlap, later ones win.

    ``skin``, ``lung_left``, ``lung_right``, ``liver``, ``spleen``, ``heart``, ``aorta``, ``vena_cava``, ``canal``,
    ``trachea``. Lungs keep off the ribs and the spine; the skin covers every bone of the trunk and, with arms down,
    the humeri. The trunk ends flat about 60 mm below the last rib and above C6.
    """
    a, hull = anatomy(subject), wall(subject)
    out: dict[str, Part] = {"skin": skin(a, hull, arms)}
    for side, name in ((0, "left"), (1, "right")):
        out[f"lung_{name}"] = lung(a, hull, side)
    out["liver"], out["spleen"] = liver(a, hull), spleen(a, hull)
    out |= vessels(a, hull)
    return out


def _depth(hull: Wall, p: Array) -> Array:
    """Distance-like field of what lies within the middle of the chest wall: negative inside, mm."""
    angle, radius = hull.polar(p)
    return radius - hull.radius(angle, p[..., 2])


def _box(hull: Wall, low: float, high: float, out: float) -> tuple[Array, Array]:
    reach = float(hull.sample.values.max()) + out
    corner = np.array([hull.axis[0], hull.axis[1], 0.0])
    return corner + [-reach, -reach, low], corner + [reach, reach, high]


def dome_height(a: Anatomy, hull: Wall, side: int) -> Callable[[Array], Array]:
    """z of the diaphragm above points (..., 3): highest a little inside, falling to the angles, lowest behind."""
    level = a.bend(a.column.centre[[9, 10]])
    top = level[0, 2] + (8.0 if side else -6.0)
    sign = -1.0 if side else 1.0

    def height(p: Array) -> Array:
        angle, radius = hull.polar(p)
        edge = np.maximum(hull.radius(angle, np.full_like(radius, level[1, 2])), 40.0)
        x = (p[..., 0] - sign * 0.30 * edge) / (0.62 * edge)
        y = (p[..., 1] - hull.axis[1] + 8.0) / (0.80 * edge)
        fall = np.minimum(x**2 + y**2, 2.2)
        behind = 62.0 + 26.0 * np.clip((p[..., 1] - hull.axis[1]) / 80.0, -1.0, 1.0)
        return np.asarray(top - behind * fall)

    return height


def lung(a: Anatomy, hull: Wall, side: int) -> Part:
    """One lung, breathed in."""
    sign = -1.0 if side else 1.0
    dome = dome_height(a, hull, side)
    spine_z = a.bend(a.column.centre)[::-1]
    heart_centre, heart_half = heart_place(a, hull)
    first = a.bend(a.curves[side, 1].points * np.array([sign, 1.0, 1.0]))
    apex = float(first[:, 2].max()) + 0.2 * APEX_MM

    def field(p: Array) -> Array:
        inside = _depth(hull, p) + PLEURA_MM
        middle = np.interp(p[..., 2], spine_z[:, 2], spine_z[:, 1])
        bodies = ((p[..., 0] / 25.0) ** 2 + ((p[..., 1] - middle) / 23.0) ** 2) ** 0.5
        spine_keep = (1.0 - bodies) * 22.0
        arch = np.where(p[..., 1] > middle, 27.0 - sign * p[..., 0], -50.0)
        middle_half = 20.0 + 6.0 * np.clip((p[..., 1] - hull.axis[1]) / 60.0, -1.0, 0.6)
        keep = np.maximum(np.maximum(middle_half - sign * p[..., 0], spine_keep), arch)
        keep = np.maximum(keep, -ellipsoid(p, heart_centre, heart_half + 3.0))
        out = -join(-inside, -keep, 8.0)
        out = -join(-out, -(dome(p) - p[..., 2]), 6.0)
        return -join(-out, -(p[..., 2] - apex), 18.0)

    low, high = _box(hull, hull.low, apex + 12.0, -2.0)
    return mesh_of(field, low, high, GRID_MM)


def heart_place(a: Anatomy, hull: Wall) -> tuple[Array, Array]:
    """Middle and half sizes of the heart, mm."""
    z = float(a.bend(a.column.centre[8][None])[0, 2]) + 6.0
    size = by_sex(a.subject, 0.90, 1.0)
    front = hull.axis[1] - float(hull.radius(np.array(-0.5 * np.pi), np.array(z)))
    half = size * np.array([54.0, 42.0, 50.0])
    return np.array([20.0, front + half[1] + 9.0, z]), half


def liver(a: Anatomy, hull: Wall) -> Part:
    """Under the right dome, over to the left."""
    right, left = dome_height(a, hull, 1), dome_height(a, hull, 0)
    z = a.bend(a.column.centre[[9, 13]])[:, 2]

    def field(p: Array) -> Array:
        inside = _depth(hull, p) + PLEURA_MM + 4.0
        roof = np.where(p[..., 0] < 0, right(p), left(p)) - 4.0
        floor = z[1] + 10.0 + 0.75 * (p[..., 0] + 60.0).clip(-40.0, 200.0)
        back = p[..., 1] - hull.axis[1] - 38.0 + 0.3 * (p[..., 0] + 60.0).clip(0.0, 200.0)
        out = -join(-inside, -(p[..., 2] - roof), 10.0)
        out = -join(-out, -(floor - p[..., 2]), 14.0)
        return -join(-out, -back, 12.0)

    low, high = _box(hull, float(z[1]) - 60.0, float(z[0]) + 30.0, 0.0)
    return mesh_of(field, low, high, GRID_MM)


def spleen(a: Anatomy, hull: Wall) -> Part:
    """An ellipsoid under the left dome, behind."""
    z = float(a.bend(a.column.centre[11][None])[0, 2])
    r = float(hull.radius(np.array(0.55), np.array(z)))
    centre = np.array([hull.axis[0] + (r - 44.0) * np.cos(0.55), hull.axis[1] + (r - 44.0) * np.sin(0.55), z - 6.0])
    return mesh_of(lambda p: ellipsoid(p, centre, np.array([24.0, 32.0, 45.0])), centre - 50.0, centre + 50.0, GRID_MM)


def vessels(a: Anatomy, hull: Wall) -> dict[str, Part]:
    """Heart, aorta, vena cava, spinal canal and trachea."""
    centre, half = heart_place(a, hull)
    bodies, size = a.column, by_sex(a.subject, 0.88, 1.0)
    front = bodies.centre - bodies.axes[:, :, 1] * (0.5 * bodies.depth[:, None] + 16.0)
    descending = a.bend(front[6:] + bodies.axes[6:, :, 0] * (20.0 - 1.6 * np.arange(8.0))[:, None])
    arch = np.array([centre + [-8, 6, 30], centre + [-22, 0, 105], descending[0] + [2, -10, 62], descending[0]])
    line = np.vstack([bezier(arch, 40), descending[1:]])
    line = _even(line, 4.0)
    aorta = tube(line, np.full((len(line), 2), 14.0 * size), np.array([0.3, 1.0, 0.2]))
    cava = _even(np.array([centre + [-42, 10, 95], centre + [-40, 12, 40], centre + [-34, 20, -20]]), 4.0)
    canal = bodies.centre + bodies.axes[:, :, 1] * (0.5 * bodies.depth + CANAL_HALF_DEPTH_MM)[:, None]
    canal = np.vstack([canal[0] + 60 * bodies.axes[0, :, 2], canal, canal[-1] - 60 * bodies.axes[-1, :, 2]])
    cord = _even(a.bend(canal), 4.0)
    wide = np.column_stack([np.full(len(cord), 0.86 * tables.CANAL_HALF_WIDTH_MM.min() * size)] * 2)
    windpipe = a.bend(front[[0, 2, 4]] + np.array([0.0, -4.0, 0.0]))
    windpipe = _even(np.vstack([windpipe[0] + [0, -14, 60], windpipe]), 3.0)
    back = np.array([0.0, 1.0, 0.0])
    return {
        "heart": mesh_of(lambda p: ellipsoid(p, centre, half), centre - half - 8, centre + half + 8, GRID_MM),
        "aorta": aorta,
        "vena_cava": tube(cava, np.full((len(cava), 2), 10.0 * size), back),
        "canal": tube(cord, wide, back),
        "trachea": tube(windpipe, np.full((len(windpipe), 2), 8.5 * size), back),
    }


def _even(line: Array, step: float) -> Array:
    """The same curve, smooth, with points ``step`` mm apart."""
    from scipy.interpolate import PchipInterpolator

    s = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    keep = np.concatenate([[True], np.diff(s) > 1e-6])
    return np.asarray(PchipInterpolator(s[keep], line[keep])(np.linspace(0.0, s[-1], max(3, round(s[-1] / step)))))


def skin(a: Anatomy, hull: Wall, arms: str) -> Part:
    """The outline of the trunk: chest wall, muscle and fat by body mass index, shoulders, neck; arms with it."""
    from shapemodel.phantom.distractors import distractors

    bmi = a.subject.weight_kg / (a.subject.height_cm / 100.0) ** 2
    fat = 13.0 + 1.15 * max(bmi - 18.0, 0.0)
    levels = a.bend(a.column.centre)
    low, high = levels[13, 2] - 80.0, levels[0, 2] + 70.0
    cover = _cover(hull, distractors(a.subject, arms), high)
    belly = levels[11, 2]

    def field(p: Array) -> Array:
        angle, radius = hull.polar(p)
        z = p[..., 2]
        front = np.clip(-np.sin(angle), 0.0, 1.0)
        back = np.clip(np.sin(angle), 0.0, 1.0)
        waist = np.clip((belly + 40.0 - z) / 120.0, 0.0, 1.0)
        trunk = hull.radius(angle, np.maximum(z, belly - 30.0)) + 0.75 * fat + 8.0
        trunk = trunk + 20.0 * back**2 + waist * front * (0.9 * fat - 8.0)
        neck = np.hypot(p[..., 0], p[..., 1] - levels[0, 1] + 12.0) - 62.0
        shoulders = radius - cover(angle, z)
        top = (z - levels[2, 2]) * 1.2
        body = -join(-(radius - trunk), -top, 40.0)
        out = join(join(body, shoulders, 25.0), neck, 30.0)
        return np.maximum(out, np.maximum(z - high + 8.0, low + 8.0 - z))

    corner_low, corner_high = _box(hull, float(low), float(high), 140.0 if arms == "down" else 120.0)
    return mesh_of(field, corner_low, corner_high, SKIN_GRID_MM)


def _cover(hull: Wall, bones: dict[str, Part], high: float) -> Callable[[Array, Array], Array]:
    """Radius that covers the shoulder bones by 14 mm, as a smooth function of angle and height."""
    from scipy.interpolate import RegularGridInterpolator
    from scipy.ndimage import gaussian_filter, grey_dilation

    keep = [v for k, (v, _) in bones.items() if not k.startswith(("vertebra", "rib"))]
    p = np.vstack(keep)
    p = p[p[:, 2] < high]
    angles, heights = np.linspace(-np.pi, np.pi, 121), np.arange(hull.low - 120.0, high + 12.0, 6.0)
    angle, radius = hull.polar(p)
    grid = np.zeros((len(angles), len(heights)))
    i = np.clip(np.searchsorted(angles, angle), 0, len(angles) - 1)
    j = np.clip(np.searchsorted(heights, p[:, 2]), 0, len(heights) - 1)
    np.maximum.at(grid, (i, j), radius + 14.0)
    grid = gaussian_filter(grey_dilation(grid, size=(9, 5), mode="nearest"), (2.5, 1.5), mode="nearest")
    sample = RegularGridInterpolator((angles, heights), grid, bounds_error=False, fill_value=0.0)
    return lambda t, z: np.asarray(sample(np.stack([t, z], axis=-1)))
