"""Where voxels lie: stacking slices, bringing any stored orientation to axial LPS, the box that was scanned.

World coordinates are LPS millimetres. Volumes leave this module with direction = identity, so that voxel
``(i, j, k)`` lies at ``origin + (i, j, k) * spacing``, x to the patient's left, y to the back, z to the head.
Axis order and flips never touch a voxel's value. What is tilted beyond :data:`SNAP_MM` is resampled, which is
logged and written into the image's metadata under :data:`RESAMPLED`, or refused.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from shapemodel.reasons import StudyError

log = logging.getLogger(__name__)

SNAP_MM = 0.5
"""A direction that moves no corner of the volume by more than this, about its centre, counts as axis-aligned:
it is well below a voxel, and headers round their cosines."""

MAX_TILT_DEG = 30.0
"""A volume turned by at most this is resampled onto the axes; beyond it the slices are not near any axis."""

SHEAR_MM = 1.0
"""Slices may wander sideways by this much over the whole stack (rounded positions); more is a tilted gantry."""

GAP_RATIO = 1.5
"""A step this many times the usual one hides at least one slice."""

STEP_MM = 0.5
"""No slice may lie further than this (or a quarter of a step) from an evenly spaced stack."""

SAME_PLACE_MM = 0.01
"""Two slices nearer than this lie at the same position."""

RESAMPLED = "shapemodel.resampled"
"""Metadata key of an image that had to be interpolated; its value says by how much it was turned."""

AIR_HU = -1024
"""Value of what was not reconstructed."""


@dataclass(frozen=True)
class Stack:
    """Slices in order along their normal.

    Attributes
    ----------
    order : indices into the slices that were given, from the first position along the normal to the last
    origin : (3,) mm, LPS: centre of the first voxel of the first slice
    spacing : (3,) mm between columns, rows, slices
    direction : (3, 3), columns are the unit vectors along columns, rows and slices; a proper rotation
    """

    order: tuple[int, ...]
    origin: NDArray[np.float64]
    spacing: NDArray[np.float64]
    direction: NDArray[np.float64]


def stack_slices(
    positions: NDArray[np.float64], orientation: NDArray[np.float64], pixel_spacing: tuple[float, float]
) -> Stack:
    """Sort slices by position along their normal and check that they fill a box.

    Parameters
    ----------
    positions : (N, 3) mm, LPS: centre of the first pixel of each slice, N >= 2
    orientation : (6,) cosines along a row, then along a column (ImageOrientationPatient)
    pixel_spacing : mm between rows, between columns (PixelSpacing)

    Raises
    ------
    StudyError
        ``missing_slice``, ``sheared``, or ``mixed_geometry`` for uneven steps or two slices in one place
    """
    row, column = _orthonormal(orientation)
    normal = np.cross(row, column)
    along = positions @ normal
    order = np.argsort(along, kind="stable")
    along, sorted_positions = along[order], positions[order]
    _check_steps(along)
    sideways = sorted_positions - sorted_positions[0]
    sideways = sideways - np.outer(sideways @ normal, normal)
    worst = float(np.linalg.norm(sideways, axis=1).max())
    if worst > SHEAR_MM:
        raise StudyError(
            "sheared",
            f"expected slices stacked along their normal within {SHEAR_MM} mm, found a sideways shift of "
            f"{worst:.1f} mm: reconstruct the scan without gantry tilt",
        )
    step = (along[-1] - along[0]) / (len(along) - 1)
    spacing = np.array([pixel_spacing[1], pixel_spacing[0], step])
    direction = np.column_stack([row, column, normal])
    return Stack(tuple(int(i) for i in order), sorted_positions[0].copy(), spacing, direction)


def _orthonormal(orientation: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    row, column = np.asarray(orientation, float).reshape(2, 3)
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if min(lengths) < 0.9 or max(lengths) > 1.1 or abs(row @ column) > 0.01:
        raise StudyError(
            "mixed_geometry", f"expected two perpendicular unit cosines, found {np.round(orientation, 4).tolist()}"
        )
    row = row / lengths[0]
    column = column - (column @ row) * row
    return row, column / np.linalg.norm(column)


def _check_steps(along: NDArray[np.float64]) -> None:
    steps = np.diff(along)
    usual = float(np.median(steps))
    if steps.min() < SAME_PLACE_MM:
        place = along[int(np.argmin(steps))]
        raise StudyError("mixed_geometry", f"expected one slice a position, found two different ones at {place:.2f} mm")
    gaps = np.flatnonzero(steps > GAP_RATIO * usual)
    if len(gaps):
        places = ", ".join(f"{along[i]:.2f} -> {along[i + 1]:.2f}" for i in gaps[:5])
        more = f" and {len(gaps) - 5} more" if len(gaps) > 5 else ""
        raise StudyError(
            "missing_slice",
            f"expected a slice every {usual:.2f} mm, found {len(gaps)} gap(s) at {places} mm{more} along the "
            "normal: fetch the whole series again",
        )
    even = np.linspace(along[0], along[-1], len(along))
    off = float(np.abs(along - even).max())
    if off > min(STEP_MM, usual / 4):
        raise StudyError(
            "mixed_geometry",
            f"expected evenly spaced slices, found steps of {steps.min():.2f} to {steps.max():.2f} mm",
        )


def axis_order(direction: NDArray[np.float64]) -> tuple[tuple[int, int, int], tuple[bool, bool, bool], float]:
    """Which stored axis runs along x, y, z, which of them run backwards, and the largest angle off, degrees."""
    best = max(permutations(range(3)), key=lambda p: sum(abs(direction[w, p[w]]) for w in range(3)))
    values = np.array([direction[w, best[w]] for w in range(3)])
    angle = float(np.degrees(np.arccos(np.clip(np.abs(values), 0, 1)).max()))
    return (best[0], best[1], best[2]), (bool(values[0] < 0), bool(values[1] < 0), bool(values[2] < 0)), angle


def to_axial(image: sitk.Image, *, outside: float = AIR_HU, labels: bool = False) -> sitk.Image:
    """The same voxels with axes in the order x, y, z of LPS and direction = identity.

    Only axes are exchanged and turned round; values stay. A volume tilted by more than :data:`SNAP_MM` at its
    corners is resampled (linear; nearest neighbour with ``labels``) at its own spacing, up to
    :data:`MAX_TILT_DEG`, which is logged and noted in its metadata; ``outside`` fills what it does not cover.
    Handedness is kept by construction: LPS positions of voxels do not change.

    Raises
    ------
    StudyError
        ``not_axial`` when it is turned further, ``not_volume`` when it is not 3D
    """
    if image.GetDimension() != 3 or min(image.GetSize()) < 2:
        raise StudyError("not_volume", f"expected a 3D volume, found an image of size {image.GetSize()}")
    order, flips, angle = axis_order(np.array(image.GetDirection()).reshape(3, 3))
    if order != (0, 1, 2):
        image = sitk.PermuteAxes(image, order)
    if any(flips):
        image = sitk.Flip(image, flips)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    half = (np.array(image.GetSize()) - 1) * np.array(image.GetSpacing()) / 2
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * half
    moved = float(np.linalg.norm(corners @ direction.T - corners, axis=1).max())
    if moved > SNAP_MM:
        return _resample(image, angle, moved, outside=outside, labels=labels)
    if moved > 0:
        centre = np.array(image.GetOrigin()) + direction @ half
        image.SetOrigin((centre - half).tolist())
    image.SetDirection(np.eye(3).ravel().tolist())
    return image


def _resample(image: sitk.Image, angle: float, moved: float, *, outside: float, labels: bool) -> sitk.Image:
    if angle > MAX_TILT_DEG:
        raise StudyError(
            "not_axial", f"expected axes within {MAX_TILT_DEG:.0f} degrees of the patient's, found {angle:.1f}"
        )
    size, spacing = np.array(image.GetSize()), np.array(image.GetSpacing())
    direction = np.array(image.GetDirection()).reshape(3, 3)
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)]) * (size - 1) * spacing
    world = np.array(image.GetOrigin()) + corners @ direction.T
    low, high = world.min(axis=0), world.max(axis=0)
    new_size = np.ceil((high - low) / spacing - 1e-6).astype(int) + 1
    resample = sitk.ResampleImageFilter()
    resample.SetSize(new_size.tolist())
    resample.SetOutputSpacing(spacing.tolist())
    resample.SetOutputOrigin(low.tolist())
    resample.SetOutputDirection(np.eye(3).ravel().tolist())
    resample.SetInterpolator(sitk.sitkNearestNeighbor if labels else sitk.sitkLinear)
    resample.SetDefaultPixelValue(float(outside))
    note = f"turned by {angle:.2f} degrees ({moved:.1f} mm at the corners)"
    log.warning("volume is not along the patient's axes: resampled, %s", note)
    result = resample.Execute(image)
    result.SetMetaData(RESAMPLED, note)
    return result


def scan_box(image: sitk.Image) -> NDArray[np.float64]:
    """(6,) xmin, xmax, ymin, ymax, zmin, zmax, mm LPS: the box of the voxels, outer edges included.

    ``image`` must have direction = identity, as everything that :func:`to_axial` returns.
    """
    require_axial(image)
    origin, spacing, size = (np.array(v, float) for v in (image.GetOrigin(), image.GetSpacing(), image.GetSize()))
    low = origin - spacing / 2
    return np.column_stack([low, low + size * spacing]).ravel()


def require_axial(image: sitk.Image) -> None:
    """Raise ValueError unless the image is 3D with direction = identity."""
    if image.GetDimension() != 3 or not np.allclose(image.GetDirection(), np.eye(3).ravel(), atol=1e-9):
        raise ValueError("expected a 3D image with direction = identity: bring it there with to_axial")


def geometry_text(image: sitk.Image) -> str:
    """Size, spacing, origin to a micrometre: what two volumes of the same place share."""
    parts = [image.GetSize(), *(np.round(v, 3) + 0.0 for v in (image.GetSpacing(), image.GetOrigin()))]
    return ";".join(",".join(f"{x:.3f}" for x in part) for part in parts)
