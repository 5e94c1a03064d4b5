"""One picture of a study for the eye: the CT as a volume, its labelled bones from four sides, three slices.

The volume is drawn with the transfer function that 3D Slicer calls CT-AAA (bone ivory, enhanced vessels
reddish) and moved along the HU axis with ``shift``, as Slicer's slider does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from shapemodel.anatomy import BONES, RESIDUE
from shapemodel.mask import find_body
from shapemodel.mesh import Mesh
from shapemodel.reasons import InputError
from shapemodel.render import VIEWS, beside, missing, picture, use_window

CT_AAA_OPACITY = ((-3024.0, 0.0), (143.556, 0.0), (166.222, 0.686), (214.389, 0.696), (419.736, 0.833), (3071.0, 0.804))
"""(HU, opacity) of 3D Slicer's preset CT-AAA (its public presets.xml, rounded)."""

CT_AAA_COLOR = (
    (-3024.0, (0.0, 0.0, 0.0)),
    (143.556, (0.616, 0.357, 0.184)),
    (166.222, (0.882, 0.604, 0.290)),
    (214.389, (1.0, 1.0, 1.0)),
    (419.736, (1.0, 0.937, 0.955)),
    (3071.0, (0.827, 0.659, 1.0)),
)
"""(HU, RGB) of the same preset."""

VOXEL_MM = 1.5
"""Grid of the volume rendering: half a rib's thickness is enough for a preview and keeps it to seconds."""

WINDOW_HU = (-160.0, 640.0)
"""Bone window of the slices, shown black to white."""

OUTSIDE_HU = -1024
OUTLINE = 1

Box = tuple[float, float, float, float, float, float]
RGB = NDArray[np.uint8]


def preview(
    ct: sitk.Image, labels: sitk.Image, mesh: Mesh, *, shift: float = 0.0, roi: Box | None = None, height: int = 900
) -> RGB:
    """The picture of a study.

    Parameters
    ----------
    ct : HU, axial LPS
    labels : its label map, on the same grid
    mesh : the surfaces of the labels, mm LPS
    shift : HU by which the transfer function is moved up
    roi : xmin, xmax, ymin, ymax, zmin, zmax, mm LPS, that limits the volume rendering; None: the body
    height : pixels

    Returns
    -------
    (height, width, 3) uint8: volume from the front | surfaces front, left, back, right | three slices

    Raises
    ------
    InputError : the grids differ, the ROI holds nothing, or there is no OpenGL (the message names the packages)
    """
    if ct.GetSize() != labels.GetSize():
        raise InputError(f"preview: expected labels on the CT's grid {ct.GetSize()}, found {labels.GetSize()}")
    if problem := missing():
        raise InputError(problem)
    volume = volume_picture(ct, shift=shift, roi=roi, height=height)
    half = height // 2 - 6
    sides = [picture(mesh, view, height=half) for view in VIEWS]
    surfaces = _stack([beside(sides[:2]), beside(sides[2:])])
    return beside([volume, surfaces, _stack(slice_pictures(ct, labels, height=height // 3 - 8))])


def volume_picture(ct: sitk.Image, *, shift: float = 0.0, roi: Box | None = None, height: int = 900) -> RGB:
    """Volume rendering from the front, without the couch, on white; (height, width, 3) uint8."""
    grid = _volume(ct, roi)
    use_window()
    import pyvista as pv
    import vtk

    color, opacity = vtk.vtkColorTransferFunction(), vtk.vtkPiecewiseFunction()
    for hu, rgb in CT_AAA_COLOR:
        color.AddRGBPoint(hu + shift, *rgb)
    for hu, alpha in CT_AAA_OPACITY:
        opacity.AddPoint(hu + shift, alpha)
    look = vtk.vtkVolumeProperty()
    look.SetColor(color)
    look.SetScalarOpacity(opacity)
    look.SetInterpolationTypeToLinear()
    look.ShadeOn()
    look.SetAmbient(0.25)
    look.SetDiffuse(0.8)
    look.SetSpecular(0.2)
    mapper = vtk.vtkFixedPointVolumeRayCastMapper()  # on the processor: the same picture with any driver
    mapper.SetInputData(grid)
    actor = vtk.vtkVolume()
    actor.SetMapper(mapper)
    actor.SetProperty(look)
    bounds = np.array(grid.bounds).reshape(3, 2)
    size = bounds[:, 1] - bounds[:, 0]
    plotter: Any = pv.Plotter(off_screen=True, window_size=[max(int(height * size[0] / size[2]), 64), height])
    try:
        plotter.set_background("white")
        plotter.renderer.AddVolume(actor)
        centre = bounds.mean(1)
        plotter.enable_parallel_projection()
        plotter.camera.focal_point = centre
        plotter.camera.position = centre - [0.0, 4 * float(np.linalg.norm(size)), 0.0]
        plotter.camera.up = (0.0, 0.0, 1.0)
        plotter.camera.parallel_scale = size[2] / 2
        plotter.reset_camera_clipping_range()
        return np.ascontiguousarray(plotter.screenshot(return_img=True)[..., :3])
    finally:
        plotter.close()


def _volume(ct: sitk.Image, roi: Box | None) -> Any:
    """The body within the ROI on a coarse grid, air elsewhere, as a VTK image in LPS."""
    import pyvista as pv

    factor = [max(int(round(VOXEL_MM / s)), 1) for s in ct.GetSpacing()]
    coarse = sitk.BinShrink(ct, factor)
    spacing, origin = np.array(coarse.GetSpacing()), np.array(coarse.GetOrigin())
    hu = sitk.GetArrayFromImage(coarse).astype(np.int16)
    body = find_body(hu, (float(spacing[2]), float(spacing[1]), float(spacing[0])))
    axes = [origin[i] + spacing[i] * np.arange(hu.shape[2 - i]) for i in range(3)]
    if roi is not None:
        inside = [(a >= lo) & (a <= hi) for a, lo, hi in zip(axes, roi[0::2], roi[1::2], strict=True)]
        body &= inside[2][:, None, None] & inside[1][None, :, None] & inside[0][None, None, :]
    if not body.any():
        raise InputError(f"preview: the region {roi} holds nothing of the body; expected mm, LPS, within the scan")
    hu[~body] = OUTSIDE_HU
    box = [slice(int(i.min()), int(i.max()) + 1) for i in np.nonzero(body)]
    cut = hu[tuple(box)]
    start = origin + spacing * [b.start for b in box[::-1]]
    grid = pv.ImageData(dimensions=cut.shape[::-1], spacing=spacing, origin=start)
    grid.point_data["hu"] = cut.ravel()
    return grid


def slice_pictures(ct: sitk.Image, labels: sitk.Image, *, height: int = 300) -> list[RGB]:
    """Axial, coronal and sagittal slice through the middle of the labelled bones, with their outlines.

    The axial slice is seen from the feet and the coronal one from the front, as radiologists read them: the
    patient's left is on the right of the picture.
    """
    hu, label = sitk.GetArrayViewFromImage(ct), sitk.GetArrayViewFromImage(labels)
    sx, sy, sz = ct.GetSpacing()
    model = (label > 0) & (label < 38)
    where = [np.flatnonzero(model.any(axis=tuple({0, 1, 2} - {i}))) for i in range(3)]
    z, y, x = (int(w[len(w) // 2]) if len(w) else n // 2 for w, n in zip(where, hu.shape, strict=True))
    cuts = (
        (hu[z], label[z], (sy, sx)),
        (hu[::-1, y], label[::-1, y], (sz, sx)),
        (hu[::-1, :, x], label[::-1, :, x], (sz, sy)),
    )
    return [_outlined(np.asarray(a), np.asarray(b), mm, height) for a, b, mm in cuts]


def _outlined(hu: NDArray[Any], label: NDArray[Any], mm: tuple[float, float], height: int) -> RGB:
    low, high = WINDOW_HU
    width = max(int(round(height * hu.shape[1] * mm[1] / (hu.shape[0] * mm[0]))), 1)
    rows = np.minimum((np.arange(height) + 0.5) * hu.shape[0] / height, hu.shape[0] - 1).astype(int)
    columns = np.minimum((np.arange(width) + 0.5) * hu.shape[1] / width, hu.shape[1] - 1).astype(int)
    gray = np.clip((hu[np.ix_(rows, columns)] - low) / (high - low), 0, 1)
    seen = label[np.ix_(rows, columns)]
    rgb = np.repeat((255 * gray).astype(np.uint8)[..., None], 3, axis=2)
    edge = np.zeros(seen.shape, dtype=bool)
    edge[:-OUTLINE] |= seen[:-OUTLINE] != seen[OUTLINE:]
    edge[:, :-OUTLINE] |= seen[:, :-OUTLINE] != seen[:, OUTLINE:]
    table = np.full((256, 3), 255, dtype=np.uint8)
    for b in (*BONES, *RESIDUE):
        table[b.label] = b.color
    owner = np.maximum(seen, np.maximum(np.roll(seen, -1, 0), np.roll(seen, -1, 1)))
    rgb[edge] = table[owner[edge]]
    return rgb


def _stack(pictures: list[RGB], gap: int = 12) -> RGB:
    """Pictures below each other on white."""
    turned = beside([p.transpose(1, 0, 2) for p in pictures], gap=gap)
    return np.ascontiguousarray(turned.transpose(1, 0, 2))
