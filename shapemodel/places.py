"""Where points and boxes in mm LPS lie in an image, and the connected pieces of a mask.

Images are SimpleITK ones in axial LPS (direction = identity), arrays of them (z, y, x).
"""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from shapemodel.overrides import Box, Point
from shapemodel.reasons import InputError

Voxel = tuple[int, int, int]
Block = tuple[slice, slice, slice]
"""Indices and slices of an array, (z, y, x)."""

_ALL_ROUND = np.ones((3, 3, 3), bool)


def spacing_zyx(image: sitk.Image) -> tuple[float, float, float]:
    """Size of a voxel, mm, in the order of arrays."""
    x, y, z = image.GetSpacing()
    return (z, y, x)


def like(image: sitk.Image, array: NDArray[np.generic], dtype: type | np.dtype = np.uint8) -> sitk.Image:
    """An array as an image that lies where another one does."""
    result = sitk.GetImageFromArray(np.ascontiguousarray(array, dtype=dtype))
    result.CopyInformation(image)
    return result


def pieces_of(mask: NDArray[np.bool_], image: sitk.Image) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Numbers of connected pieces (0: none) and the volume of each, mm3."""
    pieces: NDArray[np.int32]
    pieces, count = ndimage.label(mask, _ALL_ROUND)
    voxel = float(np.prod(image.GetSpacing()))
    volumes = np.bincount(pieces.ravel(), minlength=count + 1)[1:].astype(np.float64) * voxel
    return pieces, volumes


def voxel_of(image: sitk.Image, at: Point) -> Voxel:
    """The voxel that holds a point; InputError when it lies outside the scan."""
    index = np.rint((np.array(at) - image.GetOrigin()) / image.GetSpacing()).astype(int)
    if (index < 0).any() or (index >= image.GetSize()).any():
        raise InputError(f"expected a point inside the scan, found {at} mm LPS")
    return (int(index[2]), int(index[1]), int(index[0]))


def voxels_in(image: sitk.Image, box: Box) -> Block:
    """The voxels whose centres lie in a box."""
    origin, spacing, size = np.array(image.GetOrigin()), np.array(image.GetSpacing()), np.array(image.GetSize())
    low = np.clip(np.ceil((np.array(box[::2]) - origin) / spacing - 1e-9), 0, size).astype(int)
    high = np.clip(np.floor((np.array(box[1::2]) - origin) / spacing + 1e-9) + 1, low, size).astype(int)
    z, y, x = (slice(int(low[k]), int(high[k])) for k in (2, 1, 0))
    return (z, y, x)


def voxels_about(image: sitk.Image, at: Point, radius: float) -> Block:
    """The voxels around a ball, whose centre must lie inside the scan."""
    voxel_of(image, at)
    half = radius + max(image.GetSpacing())
    x, y, z = at
    return voxels_in(image, (x - half, x + half, y - half, y + half, z - half, z + half))


def distance_mm(image: sitk.Image, at: Point, block: Block) -> NDArray[np.float64]:
    """mm from a point for the voxels of a block."""
    origin, spacing = image.GetOrigin(), image.GetSpacing()
    axes = [np.arange(b.start, b.stop) * spacing[k] + origin[k] - at[k] for k, b in zip((2, 1, 0), block, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    return np.sqrt(z**2 + y**2 + x**2)


def voxel_in(image: sitk.Image, at: Point, block: Block) -> Voxel:
    """The voxel that holds a point, counted from a block's corner."""
    z, y, x = (i - b.start for i, b in zip(voxel_of(image, at), block, strict=True))
    return (z, y, x)


def piece_at(mask: NDArray[np.bool_], seed: Voxel) -> NDArray[np.bool_]:
    """The connected piece that holds a voxel; empty when the voxel is not in the mask."""
    pieces, _ = ndimage.label(mask, _ALL_ROUND)
    return (pieces == pieces[seed]) & mask if mask[seed] else np.zeros_like(mask)


def block_of(mask: NDArray[np.bool_]) -> Block | None:
    """The smallest block that holds a mask; None for an empty one."""
    found = ndimage.find_objects(mask.astype(np.uint8))
    return found[0] if found else None
