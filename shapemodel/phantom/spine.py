"""The column of vertebral bodies: where each level sits and how it is turned, C7 to L1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shapemodel.phantom import tables
from shapemodel.phantom.subject import Array, Subject, by_sex, level_noise, stream

LEVEL_COUNT = 14
"""C7, T1 ... T12, L1."""
MEAN_HEIGHT_CM = 171.25
SIZE_PER_HEIGHT = 0.85
"""Relative growth of vertebrae with relative stature, within a sex."""
REFERENCE_KYPHOSIS_DEG = 31.0
"""T12 minus T1 of :data:`tables.TILT_DEG`."""


@dataclass(frozen=True)
class Spine:
    """The vertebral column of one subject; rows are C7, T1 ... T12, L1.

    Attributes
    ----------
    centre : (14, 3) mm, LPS, middle of each body; the mean of T1-T12 is the origin
    axes : (14, 3, 3) columns are the level's own left, back and up
    width, depth, height : (14,) mm of the body
    disc : (13,) mm between each level and the next
    tilt : (14,) degrees, negative leans forward
    turned : (14,) degrees by which the level differs from the mean posture
    """

    centre: Array
    axes: Array
    width: Array
    depth: Array
    height: Array
    disc: Array
    tilt: Array
    turned: Array

    def to_world(self, level: int, local: Array) -> Array:
        """Points given to the left, behind and above the middle of this level's body, in LPS."""
        return self.centre[level] + local @ self.axes[level].T

    def to_local(self, level: int, world: Array) -> Array:
        """The inverse of :meth:`to_world`."""
        return (world - self.centre[level]) @ self.axes[level]


def stature_factor(subject: Subject) -> float:
    """Relative size from stature: one at the subject's sex mean (women's smaller bones are a separate factor)."""
    centre = by_sex(subject, 164.5, 178.0)
    return 1.0 + SIZE_PER_HEIGHT * (subject.height_cm - centre) / centre


def _rotation(sagittal_deg: float, coronal_deg: float) -> Array:
    a, b = np.radians([sagittal_deg, coronal_deg])
    lean = np.array([[1, 0, 0], [0, np.cos(a), np.sin(a)], [0, -np.sin(a), np.cos(a)]])
    side = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    return np.asarray(lean @ side)


def spine(subject: Subject) -> Spine:
    """Stack the vertebrae of this subject, back walls in line."""
    rng = stream(subject, "spine")
    scale = subject.residual
    size = by_sex(subject, tables.FEMALE_SPINE, 1.0) * stature_factor(subject)
    noise = {k: scale * level_noise(rng, LEVEL_COUNT, 5.0)[0] for k in ("width", "depth", "height", "disc")}
    lean = scale * level_noise(rng, LEVEL_COUNT, 2.5)[0]
    lean = lean - np.linspace(lean[1], lean[12], LEVEL_COUNT)
    side = scale * 1.2 * level_noise(rng, LEVEL_COUNT, 3.0)[0]
    side += subject.scoliosis_deg * np.sin(np.linspace(-0.4, 2 * np.pi - 0.4, LEVEL_COUNT))
    width = tables.BODY_WIDTH_MM * size * (1 + 0.045 * noise["width"])
    depth = tables.BODY_DEPTH_MM * size * (1 + 0.045 * noise["depth"])
    age = 1 - 0.0006 * (subject.age_years - 55.0)
    height = tables.BODY_HEIGHT_MM * size * age * (1 + 0.035 * noise["height"])
    disc = np.maximum(tables.DISC_MM * size * (1 + 0.12 * noise["disc"][1:]), 2.9)
    middle = tables.TILT_DEG[6]
    stretch = subject.kyphosis_deg / REFERENCE_KYPHOSIS_DEG
    tilt = middle + (tables.TILT_DEG - middle) * stretch + 1.5 * lean
    axes = np.stack([_rotation(t, s) for t, s in zip(tilt, side, strict=True)])
    centre = np.zeros((LEVEL_COUNT, 3))
    for i in range(1, LEVEL_COUNT):
        between = axes[i - 1, :, 2] + axes[i, :, 2]
        step = 0.5 * height[i - 1] * axes[i - 1, :, 2] + 0.5 * height[i] * axes[i, :, 2]
        back = 0.5 * depth[i - 1] * axes[i - 1, :, 1] - 0.5 * depth[i] * axes[i, :, 1]
        centre[i] = centre[i - 1] - step - disc[i - 1] * between / np.linalg.norm(between) + back
    centre -= centre[1:13].mean(axis=0)
    return Spine(centre, axes, width, depth, height, disc, tilt, tilt - tables.TILT_DEG)
