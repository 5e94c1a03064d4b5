"""The volume that is being painted, with the textures that all tissues draw from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shapemodel.phantom import hounsfield as hu_of
from shapemodel.phantom.raster import Box, Grid
from shapemodel.phantom.texture import tile

Image = NDArray[np.float32]

TEXTURE_MM = {"fine": 0.7, "grain": 2.2, "lumps": 3.6}
"""Smoothing of the textures: trabeculae, patches of cortex, patches of calcification."""


@dataclass
class Canvas:
    """What is being painted.

    Attributes
    ----------
    grid : where
    hu, labels : (nz, ny, nx) float32 HU and uint8 label numbers
    best : (nz, ny, nx) float32, share of the voxel that the bone in ``labels`` fills
    near, joint : (nz, ny, nx) uint8, how near the nearest and the second nearest bone is (255: inside)
    disc : (nz, ny, nx) bool, in the column of bodies and discs, where no joint is painted
    rng : of smooth fields
    fine, grain, lumps : periodic textures
    """

    grid: Grid
    hu: Image
    labels: NDArray[np.uint8]
    best: Image
    near: NDArray[np.uint8]
    joint: NDArray[np.uint8]
    disc: NDArray[np.bool_]
    rng: np.random.Generator
    fine: Image
    grain: Image
    lumps: Image

    def blend(self, box: Box, share: Image, hu: Image | float) -> None:
        """Replace this share of each voxel of the box."""
        part = self.hu[box]
        part += share * (hu - part)


def blank(grid: Grid, seed: int) -> Canvas:
    """A canvas full of air."""
    rng = np.random.default_rng([seed, 11])
    made = {}
    for name, mm in TEXTURE_MM.items():
        sigma = [mm / p for p in grid.spacing[::-1]]
        made[name] = tile(rng, (sigma[0], sigma[1], sigma[2]))
    hu = np.full(grid.shape, hu_of.AIR, np.float32)
    labels, near, joint = (np.zeros(grid.shape, np.uint8) for _ in range(3))
    disc = np.zeros(grid.shape, bool)
    return Canvas(grid, hu, labels, np.zeros(grid.shape, np.float32), near, joint, disc, rng, **made)
