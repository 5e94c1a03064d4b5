"""Surfaces: a label map becomes one closed, smooth surface a bone, of the volume that its voxels have.

A label is a staircase, most of all where slices are thick. Each bone is therefore treated as a solid field in
its own padded box: distance inside minus distance outside (shape-based interpolation, Raya and Udupa 1990),
sampled on an isotropic grid, smoothed by half a slice, and cut at the level whose volume is that of the voxels.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from shapemodel.anatomy import MODEL_LABELS, bone, names
from shapemodel.mesh import Faces, Mesh, Points, face_normals, join, vertex_normals, volume
from shapemodel.reasons import Flag, StudyError, flag_code
from shapemodel.study.geometry import scan_box
from shapemodel.topology import without_handles

if TYPE_CHECKING:
    import SimpleITK as sitk
    from scipy.sparse import csr_array

logger = logging.getLogger(__name__)

HANDLE = flag_code("surface_handle", "the surface of a bone has holes through it that its anatomy has not")
PIECES = flag_code("surface_pieces", "a bone comes in several separate pieces")

EULER_SOLID, EULER_RING = 2, 0
"""Euler number of a closed surface without a handle (ribs, sternum) and with one (a vertebra around the canal)."""

OFF_NODE_MM = 1e-3
"""Values nearer to the level than this are moved off it: a surface through a grid node pinches there."""

TAUBIN_STEP, PASS_BAND = 0.5, 0.15
"""Taubin's lambda and pass band: what slices leave on an oblique shaft goes, what is longer than 15 mm stays."""

VOLUME_ROUNDS = 3
"""Corrections of the volume after contouring; each leaves about a hundredth of the error."""

REPAIR_SHARE = 0.05
"""A handle is mended where it is: a repair that changes the volume by more has cut the bone and is not taken."""


@dataclass(frozen=True)
class SurfaceSettings:
    """How labels become surfaces.

    Attributes
    ----------
    grid_mm : edge of the isotropic grid on which the field is contoured
    smooth_mm : Gaussian sigma of the field in the plane; along the slices at least ``smooth_slices`` slices
    smooth_slices : Gaussian sigma along z as a share of the slice distance
    taubin_passes : rounds of smoothing of the contoured surface
    pad_mm : empty margin around the bone's box
    piece_share : pieces smaller than this share of the bone's largest piece are dropped as islands
    repair_handles : fill holes and cut bridges that the bone's anatomy has not
    """

    grid_mm: float = 1.25
    smooth_mm: float = 0.7
    smooth_slices: float = 0.6
    taubin_passes: int = 10
    pad_mm: float = 4.0
    piece_share: float = 0.1
    repair_handles: bool = True


def labels_to_mesh(labels: sitk.Image, *, settings: SurfaceSettings = SurfaceSettings()) -> Mesh:  # noqa: B008
    """One closed surface for each bone 1-37 of a label map; other labels are left out.

    Parameters
    ----------
    labels : integer image, identity direction (LPS), millimetres

    Returns
    -------
    Mesh with ``fov`` (the voxel-edge box of the scan; a bone that leaves the scan is closed there) and fields
    ``surface_label``, ``surface_voxel_mm3``, ``surface_euler``, ``surface_pieces``, one entry a bone.

    Raises
    ------
    StudyError ``bad_labels`` when the map holds no bone of the model, or is not axis-aligned.
    """
    import SimpleITK as sitk

    if labels.GetDimension() != 3 or not np.allclose(labels.GetDirection(), np.eye(3).ravel(), atol=1e-4):
        raise StudyError(
            "bad_labels", "expected a 3-D label map with identity direction (LPS), found another; reorient it"
        )
    array = sitk.GetArrayViewFromImage(labels)
    boxes = _boxes(array)
    if not boxes:
        raise StudyError("bad_labels", "the label map holds none of the bones 1-37; is its scheme the right one?")
    spacing, origin = np.array(labels.GetSpacing()), np.array(labels.GetOrigin())
    parts: dict[int, tuple[Points, Faces]] = {}
    rows: list[tuple[float, ...]] = []
    for label, box in sorted(boxes.items()):
        mask = _pieces(array[box] == label, settings.piece_share)
        corner = origin + spacing * np.array([box[2].start, box[1].start, box[0].start])
        v, f = _bone_surface(mask, spacing, label, settings)
        parts[label] = (v + corner, f)
        rows.append((label, mask.sum() * spacing.prod(), euler_number(len(v), f), count_pieces(len(v), f)))
    table = np.array(rows)
    mesh = join(parts, scan_box(labels))
    fields = {f"surface_{k}": table[:, i] for i, k in enumerate(("label", "voxel_mm3", "euler", "pieces"))}
    return Mesh(mesh.vertices, mesh.faces, mesh.bone, mesh.fov, {}, fields)


def surface_flags(mesh: Mesh) -> tuple[Flag, ...]:
    """What a reviewer should see of the surfaces of :func:`labels_to_mesh`: handles and separate pieces."""
    flags = []
    table = zip(*(mesh.fields[f"surface_{k}"] for k in ("label", "euler", "pieces")), strict=True)
    for label, euler, pieces in ((int(a), int(b), int(c)) for a, b, c in table):
        expected = expected_euler(label) + EULER_SOLID * (pieces - 1)
        cut_arch = bone(label).kind == "vertebra" and euler == EULER_SOLID * pieces
        if euler != expected and not cut_arch:
            flags.append(Flag(HANDLE, label, f"{names([label])[0]}: Euler number {euler}, expected {expected}"))
        if pieces > 1:
            flags.append(Flag(PIECES, label, f"{names([label])[0]}: {pieces} pieces"))
    return tuple(flags)


def expected_euler(label: int) -> int:
    """Euler number of the whole bone's surface."""
    return EULER_RING if bone(label).kind == "vertebra" else EULER_SOLID


def euler_number(n_vertices: int, faces: Faces) -> int:
    """V - E + F of a closed triangle surface (E = 3 F / 2)."""
    return int(n_vertices - len(faces) // 2)


def count_pieces(n_vertices: int, faces: Faces) -> int:
    """Number of connected components of a surface."""
    return int(face_components(n_vertices, faces).max(initial=-1)) + 1


def face_components(n_vertices: int, faces: Faces) -> NDArray[np.int64]:
    """(F,) number of the connected component of each face."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    i, j = faces[:, [0, 1]].ravel(), faces[:, [1, 2]].ravel()
    graph = coo_array((np.ones(len(i), np.int8), (i, j)), shape=(n_vertices, n_vertices))
    _, of_vertex = connected_components(graph, directed=False)
    _, of_face = np.unique(of_vertex[faces[:, 0]], return_inverse=True)
    return of_face.astype(np.int64)


def vertex_adjacency(n: int, faces: Faces) -> csr_array:
    """(n, n) sparse average over the neighbours of each vertex."""
    from scipy.sparse import csr_array

    i, j = faces[:, [0, 1, 2]].ravel(), faces[:, [1, 2, 0]].ravel()
    links = csr_array((np.ones(2 * len(i)), (np.concatenate([i, j]), np.concatenate([j, i]))), shape=(n, n))
    links.data[:] = 1.0
    degree = np.maximum(np.asarray(links.sum(axis=1)).ravel(), 1)
    return csr_array(links.multiply(1 / degree[:, None]))


def taubin(vertices: Points, faces: Faces, passes: int) -> Points:
    """Smooth ripples of a few edge lengths without shrinking (Taubin 1995)."""
    average = vertex_adjacency(len(vertices), faces)
    for _ in range(passes):
        for step in (TAUBIN_STEP, 1 / (PASS_BAND - 1 / TAUBIN_STEP)):
            vertices = vertices + step * (average @ vertices - vertices)
    return vertices


def _boxes(array: NDArray[np.integer]) -> dict[int, tuple[slice, ...]]:
    """Index box of every label of the model that is present."""
    from scipy import ndimage

    clipped = np.where(array <= max(MODEL_LABELS), array, 0).astype(np.uint8)
    found = ndimage.find_objects(clipped, max_label=max(MODEL_LABELS))
    return {k + 1: box for k, box in enumerate(found) if box is not None}


def _pieces(mask: NDArray[np.bool_], share: float) -> NDArray[np.bool_]:
    """The solid pieces of a bone: cavities filled, islands dropped."""
    from scipy import ndimage

    mask = ndimage.binary_fill_holes(mask)
    number, n = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    if n == 1:
        return np.asarray(mask)
    size = np.bincount(number.ravel(), minlength=n + 1)
    size[0] = 0
    return np.asarray((size >= share * size.max())[number])


def _bone_surface(mask: NDArray[np.bool_], spacing: Points, label: int, s: SurfaceSettings) -> tuple[Points, Faces]:
    """Surface of one bone in mm from the centre of the first voxel of its box; spurious handles are removed."""
    want = expected_euler(label) + EULER_SOLID * (_mask_pieces(mask) - 1)
    target = float(mask.sum() * spacing.prod())
    field, start = _field(mask, spacing, s)
    field -= _level(field, target / s.grid_mm**3)
    v, f = _contour(field, start, target, s)
    if s.repair_handles and euler_number(len(v), f) < want:
        whole = without_handles(field, want)
        kept = np.count_nonzero(whole > 0) / np.count_nonzero(field > 0)
        if abs(kept - 1.0) <= REPAIR_SHARE:
            mended = _contour(whole, start, target, s)
            if abs(euler_number(len(mended[0]), mended[1]) - want) < abs(euler_number(len(v), f) - want):
                v, f = mended
    if euler_number(len(v), f) != want:
        logger.info("%s: Euler number %d, expected %d", bone(label).name, euler_number(len(v), f), want)
    return v, f


def _mask_pieces(mask: NDArray[np.bool_]) -> int:
    from scipy import ndimage

    return int(ndimage.label(mask, structure=np.ones((3, 3, 3)))[1])


def _contour(field: NDArray[np.float32], start: Points, target: float, s: SurfaceSettings) -> tuple[Points, Faces]:
    """Closed surface where a field is zero, moved along its normals to enclose ``target`` mm3."""
    from skimage.measure import marching_cubes

    field = np.where(np.abs(field) < OFF_NODE_MM, np.float32(-OFF_NODE_MM), field)
    v, f, _, _ = marching_cubes(field, 0.0, gradient_direction="ascent")
    v, f = keep_pieces(v[:, ::-1] * s.grid_mm + start, f[:, ::-1].astype(np.int64), s.piece_share)
    if volume(v, f) < 0:
        f = np.ascontiguousarray(f[:, ::-1])
    return to_volume(taubin(v, f, s.taubin_passes), f, target), f


def _field(mask: NDArray[np.bool_], spacing: Points, s: SurfaceSettings) -> tuple[NDArray[np.float32], Points]:
    """Smoothed signed distance (mm, positive inside) on an isotropic grid, array order z, y, x; its start in mm."""
    from scipy import ndimage

    pad = np.ceil(s.pad_mm / spacing).astype(int)
    padded = np.pad(mask, [(p, p) for p in pad[::-1]])
    sampling = spacing[::-1]
    outside = ndimage.distance_transform_edt(~padded, sampling=sampling)
    signed = (ndimage.distance_transform_edt(padded, sampling=sampling) - outside).astype(np.float32)
    extent = (np.array(signed.shape) - 1) * sampling
    shape = np.floor(extent / s.grid_mm).astype(int) + 1
    sigma = np.array([max(s.smooth_mm, s.smooth_slices * spacing[2]), s.smooth_mm, s.smooth_mm])
    fine = ndimage.affine_transform(signed, s.grid_mm / sampling, output_shape=tuple(shape), order=1, mode="nearest")
    fine = ndimage.gaussian_filter(fine, sigma / s.grid_mm, truncate=3.0, mode="nearest")
    return fine, -pad * spacing


def _level(field: NDArray[np.float32], n_voxels: float) -> float:
    """Level above which the field holds this many voxels, partial voxels counted."""
    flat = field.ravel()
    n = int(np.clip(round(n_voxels), 1, flat.size - 1))
    level = float(np.partition(flat, flat.size - n)[flat.size - n])
    return min(level, float(flat.max()) - 1e-3)


def keep_pieces(vertices: Points, faces: Faces, share: float) -> tuple[Points, Faces]:
    """Drop the surfaces of islands and of cavities (whose volume is negative)."""
    of_face = face_components(len(vertices), faces)
    if of_face.max() == 0:
        return vertices, faces
    sizes = np.array([volume(vertices, faces[of_face == k]) for k in range(of_face.max() + 1)])
    sizes *= np.sign(sizes[np.argmax(np.abs(sizes))])
    faces = faces[(sizes >= share * sizes.max())[of_face]]
    used, new = np.unique(faces, return_inverse=True)
    return vertices[used], new.reshape(-1, 3)


def to_volume(vertices: Points, faces: Faces, target: float) -> Points:
    """Move a closed surface along its normals until it encloses ``target`` mm3.

    On a sliver (the last slice of a bone, a handful of triangles) steps along the normals are as long as the body and
    run away; one that leaves the volume no nearer to its target is a scaling about the middle instead.
    """
    for _ in range(VOLUME_ROUNDS):
        area, now = float(np.linalg.norm(face_normals(vertices, faces), axis=1).sum()) / 2, volume(vertices, faces)
        moved = vertices + vertex_normals(vertices, faces) * ((target - now) / area)
        if now > 0 and abs(volume(moved, faces) - target) >= abs(now - target):
            middle = vertices.mean(axis=0)
            moved = middle + (vertices - middle) * np.cbrt(target / now)
        vertices = moved
    return vertices
