"""Pictures of a thorax without a screen.

Views are named by what the reader sees: in ``front`` the patient faces the reader, so the patient's left is
on the reader's right. Rendering needs an OpenGL driver; :func:`missing` asks for it once, in a process of
its own, since a driver that is not there ends the process that asks.
"""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from shapemodel.anatomy import BONES, RESIDUE
from shapemodel.mesh import Mesh
from shapemodel.reasons import InputError

log = logging.getLogger(__name__)

View = Literal["front", "back", "left", "right"]
VIEWS: tuple[View, ...] = ("front", "left", "back", "right")

TOWARDS: dict[str, tuple[float, float, float]] = {
    "front": (0.0, -1.0, 0.0),
    "back": (0.0, 1.0, 0.0),
    "left": (1.0, 0.0, 0.0),
    "right": (-1.0, 0.0, 0.0),
}
"""LPS direction from the thorax to the eye; the head is up in all."""

PACKAGES = "libegl1 libgl1-mesa-dri"
"""Debian packages that bring an off-screen OpenGL."""

WINDOWS = ("vtkEGLRenderWindow", "vtkOSOpenGLRenderWindow")
"""Off-screen windows of VTK, the preferred first."""

PROBE = (
    "import vtk\n"
    "w = vtk.vtkRenderWindow()\n"
    "w.SetOffScreenRendering(1)\n"
    "w.SetSize(8, 8)\n"
    "r = vtk.vtkRenderer()\n"
    "w.AddRenderer(r)\n"
    "w.Render()\n"
    "raise SystemExit(0 if w.SupportsOpenGL() else 3)\n"
)
PROBE_SECONDS = 60.0
MARGIN = 1.06
"""Free space around the shape, as a factor of its size."""

UNSEEN_OPACITY = 0.22


@dataclass(frozen=True)
class Look:
    """How a picture is drawn.

    Attributes
    ----------
    scalars : name of a per-vertex array to colour by; None: one colour a bone
    limits : values at the ends of the colour scale; None: those of the array
    colormap : a matplotlib colour map
    label : words under the colour scale, with the unit; empty: no scale
    seen : name of a boolean per-vertex array; where it is false the surface is drawn see-through
    color : red, green, blue 0-255 for the whole shape, instead of a colour a bone
    """

    scalars: str | None = None
    limits: tuple[float, float] | None = None
    colormap: str = "viridis"
    label: str = ""
    seen: str | None = None
    color: tuple[int, int, int] | None = None


@lru_cache(maxsize=1)
def _window() -> str | None:
    """The off-screen window that works here, or None."""
    asked = os.environ.get("VTK_DEFAULT_OPENGL_WINDOW")
    for name in (asked,) if asked else WINDOWS:
        env = {**os.environ, "VTK_DEFAULT_OPENGL_WINDOW": name}
        env.pop("DISPLAY", None)
        try:
            done = subprocess.run(
                [sys.executable, "-c", PROBE], env=env, capture_output=True, timeout=PROBE_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            log.info("%s: %s", name, error)
            continue
        if done.returncode == 0:
            return name
        log.info("%s does not render here (exit %d)", name, done.returncode)
    return None


def missing() -> str:
    """Empty when pictures can be made here; else a sentence that names the packages that bring them."""
    if _window() is not None:
        return ""
    return f"no pictures: there is no off-screen OpenGL here; on Debian or Ubuntu: apt-get install {PACKAGES}"


def use_window() -> None:
    """Have VTK open the off-screen window that works here; before the first picture of a process."""
    os.environ["VTK_DEFAULT_OPENGL_WINDOW"] = _window() or WINDOWS[0]


def picture(
    mesh: Mesh, view: View = "front", *, height: int = 400, look: Look | None = None, box: NDArray[Any] | None = None
) -> NDArray[np.uint8]:
    """One view of a mesh.

    Parameters
    ----------
    mesh : what to draw, mm LPS
    view : from where
    height : pixels; the width follows from the shape
    look : colours and transparency
    box : (2, 3) mm LPS, lowest and highest corner of what is in the picture, so that several pictures share a
        scale; None: the mesh's own

    Returns
    -------
    (height, width, 3) uint8 RGB

    Raises
    ------
    InputError : an unknown view or array, an empty mesh, or no OpenGL (see :func:`missing`)
    """
    if view not in TOWARDS:
        raise InputError(f"view must be one of {', '.join(TOWARDS)}, found {view!r}")
    if not len(mesh.faces):
        raise InputError("there is no surface to draw: the mesh has no faces")
    look = look or Look()
    for name in (look.scalars, look.seen):
        if name is not None and name not in mesh.arrays:
            raise InputError(f"the mesh has no array {name!r}; it has: {', '.join(mesh.arrays) or 'none'}")
    if problem := missing():
        raise InputError(problem)
    corners = np.array([mesh.vertices.min(0), mesh.vertices.max(0)]) if box is None else np.asarray(box, float)
    return _render(_layers(mesh, look), view, height, corners, look)


def _colors(mesh: Mesh) -> NDArray[np.uint8]:
    table = np.full((256, 3), 150, dtype=np.uint8)
    for bone in (*BONES, *RESIDUE):
        table[bone.label] = bone.color
    return table[mesh.bone]


def _layers(mesh: Mesh, look: Look) -> list[tuple[Any, float]]:
    """The surfaces to draw with their opacity: the seen part, and what is see-through."""
    import pyvista as pv

    def surface(faces: NDArray[np.int64]) -> Any:
        used = np.unique(faces)
        index = np.full(len(mesh.vertices), -1, dtype=np.int64)
        index[used] = np.arange(len(used))
        poly = pv.PolyData(mesh.vertices[used], np.column_stack([np.full(len(faces), 3), index[faces]]).ravel())
        if look.scalars is not None:
            poly.point_data["shade"] = np.asarray(mesh.arrays[look.scalars], dtype=float)[used]
        elif look.color is not None:
            poly.point_data["shade"] = np.tile(np.array(look.color, dtype=np.uint8), (len(used), 1))
        else:
            poly.point_data["shade"] = _colors(mesh)[used]
        return poly.compute_normals(split_vertices=False, consistent_normals=False, auto_orient_normals=False)

    if look.seen is None:
        return [(surface(mesh.faces), 1.0)]
    seen = np.asarray(mesh.arrays[look.seen], dtype=bool)[mesh.faces].all(axis=1)
    parts = [(mesh.faces[seen], 1.0), (mesh.faces[~seen], UNSEEN_OPACITY)]
    return [(surface(faces), opacity) for faces, opacity in parts if len(faces)]


def _render(
    layers: Sequence[tuple[Any, float]], view: View, height: int, corners: NDArray[Any], look: Look
) -> NDArray[np.uint8]:
    use_window()
    import pyvista as pv

    towards = np.array(TOWARDS[view])
    centre, size = corners.mean(axis=0), np.maximum(corners[1] - corners[0], 1.0)
    across = size[1] if view in ("left", "right") else size[0]
    width = max(int(round(height * across / size[2])), 32)
    plotter: Any = pv.Plotter(off_screen=True, window_size=[width, height], lighting="light kit")
    try:
        plotter.set_background("white")
        for poly, opacity in layers:
            plotter.add_mesh(poly, opacity=opacity, **_style(look))
        if len(layers) > 1:
            plotter.enable_depth_peeling(8)
        plotter.enable_parallel_projection()
        plotter.camera.focal_point = centre
        plotter.camera.position = centre + towards * 4 * float(np.linalg.norm(size))
        plotter.camera.up = (0.0, 0.0, 1.0)
        plotter.camera.parallel_scale = MARGIN * size[2] / 2
        plotter.reset_camera_clipping_range()
        plotter.enable_anti_aliasing("ssaa")
        return np.ascontiguousarray(plotter.screenshot(return_img=True)[..., :3])
    finally:
        plotter.close()


def _style(look: Look) -> dict[str, Any]:
    style: dict[str, Any] = {"scalars": "shade", "smooth_shading": True, "show_scalar_bar": False, "specular": 0.15}
    if look.scalars is None:
        return {**style, "rgb": True}
    return {**style, "cmap": look.colormap, "clim": look.limits}


def beside(pictures: Sequence[NDArray[np.uint8]], *, gap: int = 12) -> NDArray[np.uint8]:
    """Pictures of one height next to each other on white."""
    height = max(p.shape[0] for p in pictures)
    columns: list[NDArray[np.uint8]] = []
    for p in pictures:
        pad = np.full((height - p.shape[0], p.shape[1], 3), 255, dtype=np.uint8)
        columns += [np.vstack([p, pad]), np.full((height, gap, 3), 255, dtype=np.uint8)]
    return np.hstack(columns[:-1])


def encode(image: NDArray[np.uint8], kind: Literal["webp", "png"] = "webp") -> bytes:
    """The bytes of a picture file; the same picture gives the same bytes."""
    from PIL import Image

    out = io.BytesIO()
    options: Mapping[str, Any] = {"quality": 82, "method": 4} if kind == "webp" else {"optimize": True}
    Image.fromarray(image).save(out, kind.upper(), **options)
    return out.getvalue()
