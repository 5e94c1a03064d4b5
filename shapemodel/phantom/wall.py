"""The chest wall as one smooth surface around the body's axis, from the ribs, the sternum and the cartilages."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.interpolate import RegularGridInterpolator

from shapemodel.phantom.cartilage import courses
from shapemodel.phantom.shape import MIRROR, Anatomy, anatomy
from shapemodel.phantom.sternum import BODY, MANUBRIUM, map_points
from shapemodel.phantom.subject import Array, Subject

ANGLES, HEIGHTS = 73, 60
SMOOTH_ANGLE_RAD, SMOOTH_MM = 0.13, 15.0
"""Kernel of the smoothing around and along the body: a little less than the spacing of ribs."""
BELLY_MM = 190.0
"""From the sternum down: how far the front of the belly is made up."""
BELOW_MM, ABOVE_MM = 60.0, 40.0
"""The surface continues this far below the lowest and above the highest rib."""


@dataclass(frozen=True)
class Wall:
    """Radius of the middle of the chest wall.

    Attributes
    ----------
    axis : (2,) x and y of the vertical axis that it is seen from, mm LPS
    low, high : heights that it covers
    sample : interpolator of (angle, z) -> radius; angle 0 is the patient's left, pi/2 the back
    """

    axis: Array
    low: float
    high: float
    sample: RegularGridInterpolator

    def polar(self, points: Array) -> tuple[Array, Array]:
        """Angle and radius of points (..., 3) about the axis."""
        x, y = points[..., 0] - self.axis[0], points[..., 1] - self.axis[1]
        return np.arctan2(y, x), np.hypot(x, y)

    def radius(self, angle: Array, z: Array) -> Array:
        """Radius of the wall's middle; constant beyond its ends."""
        at = np.stack(np.broadcast_arrays(angle, np.clip(z, self.low, self.high)), axis=-1)
        return np.asarray(self.sample(at)).reshape(at.shape[:-1])


def wall_points(a: Anatomy) -> Array:
    """(n, 3) points in the middle of the wall, LPS, of one subject."""
    out = []
    for side in (0, 1):
        flip = MIRROR if side else np.ones(3)
        out += [c.points[14::10] * flip for c in (a.curves[side, k] for k in range(1, 13))]
        out += [c[::4] * flip for c in courses(a, side).values()]
    z = np.linspace(-BODY, MANUBRIUM, 25)
    plate = map_points(np.column_stack([np.zeros_like(z), np.zeros_like(z), z]), a.breastbone)
    out.append(plate)
    down = np.arange(8.0, BELLY_MM, 8.0)  # the front of the belly goes straight down where no rib is
    for x in (-60.0, -30.0, 0.0, 30.0, 60.0):
        drop = down[:, None] * np.array([0.0, 0.12, -1.0]) + np.array([x, 0.12 * abs(x), 0.0])
        out.append(plate[0] + drop)
    return a.bend(np.vstack(out))


@lru_cache(maxsize=4)
def wall(subject: Subject) -> Wall:
    """The chest wall of this subject."""
    p = wall_points(anatomy(subject))
    axis = np.array([0.0, 0.5 * (np.percentile(p[:, 1], 3) + np.percentile(p[:, 1], 97))])
    angle, radius = np.arctan2(p[:, 1] - axis[1], p[:, 0]), np.hypot(p[:, 0], p[:, 1] - axis[1])
    low, high = p[:, 2].min() - 0.5 * BELOW_MM, p[:, 2].max() + ABOVE_MM
    angles, heights = np.linspace(-np.pi, np.pi, ANGLES), np.linspace(low, high, HEIGHTS)
    turn = np.angle(np.exp(1j * (angles[:, None] - angle[None])))
    around = np.exp(-0.5 * (turn / SMOOTH_ANGLE_RAD) ** 2) + 1e-4 * np.exp(-0.5 * (turn / 0.5) ** 2)
    along = np.exp(-0.5 * ((heights[:, None] - p[None, :, 2]) / SMOOTH_MM) ** 2)
    along += 1e-5 * np.exp(-0.5 * ((heights[:, None] - p[None, :, 2]) / 60.0) ** 2)
    weight = around @ along.T
    value = (around * radius) @ along.T / np.maximum(weight, 1e-300)
    return Wall(axis, float(low), float(high), RegularGridInterpolator((angles, heights), value))
