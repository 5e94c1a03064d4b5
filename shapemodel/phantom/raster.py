"""Closed surfaces to voxels: how much of each voxel lies inside, exactly in the plane.

Every slice is cut by a few planes; each cut is a set of directed segments, and the area that they enclose in
every pixel follows from two sums (cover and area, as in scan conversion of outlines). The result is linear in
the winding number, so a surface turned inside out counts negative and is clipped away.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shapemodel.mesh import Faces, Points

PLANE_STEP_MM = 0.5
"""Largest distance of the cutting planes: half the thickness of a rib cortex, so that it is not stepped over."""

MAX_BUFFER = 1 << 24
"""Voxels rastered at once; bounds the memory of large surfaces such as the skin (128 MB)."""


@dataclass(frozen=True)
class Grid:
    """Voxel grid in LPS whose axes are the world axes (direction = identity).

    Attributes
    ----------
    origin : (x, y, z) mm, centre of the first voxel
    spacing : (x, y, z) mm
    size : (nx, ny, nz) voxels; arrays are indexed (z, y, x)
    """

    origin: tuple[float, float, float]
    spacing: tuple[float, float, float]
    size: tuple[int, int, int]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of arrays on this grid, (nz, ny, nx)."""
        return self.size[2], self.size[1], self.size[0]

    @property
    def bounds(self) -> NDArray[np.float64]:
        """(6,) xmin, xmax, ymin, ymax, zmin, zmax in mm, to the outer faces of the voxels."""
        rows = zip(self.origin, self.spacing, self.size, strict=True)
        return np.array([side for o, s, n in rows for side in (o - s / 2, o + (n - 0.5) * s)], dtype=np.float64)

    def axis(self, i: int) -> NDArray[np.float64]:
        """World coordinate in mm of the voxel centres along axis 0 (x), 1 (y) or 2 (z)."""
        return np.asarray(self.origin[i] + self.spacing[i] * np.arange(self.size[i]), np.float64)

    def edges(self, points: Points) -> Points:
        """(n, 3) voxel coordinates in which voxel i spans [i, i + 1]."""
        return (np.asarray(points) - self.origin) / self.spacing + 0.5


Box = tuple[slice, slice, slice]


def box_of(points: Points, grid: Grid, margin: int = 0) -> Box | None:
    """Slices (z, y, x) of the voxels that these points may touch, or None when all lie outside."""
    e = grid.edges(points)
    lo = np.maximum(np.floor(e.min(axis=0)).astype(int) - margin, 0)
    hi = np.minimum(np.ceil(e.max(axis=0)).astype(int) + margin, grid.size)
    if np.any(hi <= lo):
        return None
    return slice(lo[2], hi[2]), slice(lo[1], hi[1]), slice(lo[0], hi[0])


def coverage(vertices: Points, faces: Faces, grid: Grid, box: Box) -> NDArray[np.float32]:
    """Share of each voxel of the box inside a closed surface, in [0, 1].

    Parameters
    ----------
    vertices, faces : closed surface, mm LPS, outward normals; it may reach beyond the box, and is cut there
    grid, box : the voxel grid and the part of it wanted, slices (z, y, x)

    Returns
    -------
    (nz, ny, nx) float32 of the box
    """
    nz, ny, nx = (s.stop - s.start for s in box)
    planes = max(2, int(np.ceil(grid.spacing[2] / PLANE_STEP_MM)))
    e = grid.edges(vertices) - [box[2].start, box[1].start, box[0].start]
    e[:, 2] = e[:, 2] * planes - 0.5
    out = np.empty((nz, ny, nx), np.float32)
    step = max(1, MAX_BUFFER // ((nx + 2) * ny))
    for first in range(0, nz, step):
        n = min(step, nz - first)
        segments, plane = _cut(e - [0.0, 0.0, first * planes], faces, n * planes)
        buffer = _accumulate(segments, plane // planes, (n, ny, nx)) / planes
        np.clip(np.cumsum(buffer, axis=2)[:, :, :nx], 0.0, 1.0, out=out[first : first + n], casting="same_kind")
    return out


def _cut(e: Points, faces: Faces, n_planes: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Directed segments (n, 4: x0, y0, x1, y1) where the triangles meet the planes z = 0, 1, ..., and their plane."""
    z = e[faces, 2]
    low = np.maximum(np.ceil(z.min(axis=1)), 0).astype(np.int64)
    high = np.minimum(np.ceil(z.max(axis=1)), n_planes).astype(np.int64)  # planes low .. high - 1
    count = np.maximum(high - low, 0)
    tri = np.repeat(np.arange(len(faces)), count)
    plane = np.arange(len(tri)) - np.repeat(np.cumsum(count) - count, count) + low[tri]
    above = z[tri] > plane[:, None]
    single_above = above.sum(axis=1) == 1
    a = np.where(single_above, above.argmax(axis=1), above.argmin(axis=1))
    corners = [faces[tri, (a + k) % 3] for k in range(3)]
    pa, pb, pc = (e[c] for c in corners)
    p = []
    for other in (pb, pc):
        t = (plane - pa[:, 2]) / (other[:, 2] - pa[:, 2])
        p.append(pa[:, :2] + t[:, None] * (other[:, :2] - pa[:, :2]))
    start = np.where(single_above[:, None], p[1], p[0])
    end = np.where(single_above[:, None], p[0], p[1])
    return np.column_stack([start, end]), plane


def _accumulate(
    segments: NDArray[np.float64], layer: NDArray[np.int64], shape: tuple[int, int, int]
) -> NDArray[np.float64]:
    """Buffer whose running sum along x is the enclosed area of every pixel, (n, ny, nx + 2)."""
    n, ny, nx = shape
    level = segments[:, 1] == segments[:, 3]
    (x0, y0, x1, y1), layer = segments[~level].T, layer[~level]
    sign = np.where(y1 > y0, 1.0, -1.0)
    flip = sign < 0
    xa, ya, xb, yb = np.where(flip, x1, x0), np.where(flip, y1, y0), np.where(flip, x0, x1), np.where(flip, y0, y1)
    first = np.maximum(np.floor(ya), 0).astype(np.int64)
    count = np.maximum(np.minimum(np.ceil(yb), ny).astype(np.int64) - first, 0)
    i = np.repeat(np.arange(len(ya)), count)
    row = np.arange(len(i)) - np.repeat(np.cumsum(count) - count, count) + first[i]
    bottom, top = np.maximum(ya[i], row), np.minimum(yb[i], row + 1.0)
    slope = (xb[i] - xa[i]) / (yb[i] - ya[i])
    xs = np.clip(xa[i] + (bottom - ya[i]) * slope, 0.0, nx)
    xe = np.clip(xa[i] + (top - ya[i]) * slope, 0.0, nx)
    height, base = sign[i] * (top - bottom), (layer[i] * ny + row) * (nx + 2)
    left, right = np.minimum(xs, xe), np.maximum(xs, xe)
    col = np.floor(left).astype(np.int64)
    count = np.maximum(np.ceil(right).astype(np.int64) - col, 1)
    j = np.repeat(np.arange(len(left)), count)
    c = np.arange(len(j)) - np.repeat(np.cumsum(count) - count, count) + col[j]
    from_x, to_x = np.maximum(left[j], c), np.minimum(right[j], c + 1.0)
    width = (right - left)[j]
    part = height[j] * np.where(width > 0, (to_x - from_x) / np.where(width > 0, width, 1.0), 1.0)
    share = (from_x + to_x) / 2 - c
    index = base[j] + c
    flat = np.bincount(index, part * (1 - share), minlength=n * ny * (nx + 2) + 1)
    flat += np.bincount(index + 1, part * share, minlength=len(flat))
    return np.asarray(flat[: n * ny * (nx + 2)].reshape(n, ny, nx + 2), np.float64)
