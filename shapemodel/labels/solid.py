"""Solid bones: marrow filled, canal and discs left empty, crumbs removed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from shapemodel.labels.morphology import close_mm, fill_planes, shut
from shapemodel.mask import Mask, Spacing

RIB_CLOSE_MM = 2.0
"""Half of the widest gap that partial volume leaves in a rib's cortex."""
BODY_CLOSE_MM = 2.5
"""Half of the widest hole in a body's cortex that the axial filling cannot close; more fills the waist of bodies."""
CUP_MM = 22.0
"""Depth of the open cups of thin cortex in which the fronts of ribs end."""
CUP_CLOSE_MM = 4.0
"""Half of their narrower width."""
FRONT_MM = 25.0
"""A front end lies so far in front of the canal at least; ribs that end further back are cut or float."""
RIB_HOLE_MM2 = 250.0
"""A rib's oblique section in a slice; larger rings are not marrow."""


def bounding_box(mask: Mask, margin_mm: float, spacing: Spacing) -> tuple[slice, slice, slice]:
    """Slices around the True voxels with a margin in mm."""
    out = []
    for k in range(3):
        i = np.flatnonzero(mask.any(axis=tuple(j for j in range(3) if j != k)))
        m = int(np.ceil(margin_mm / spacing[k]))
        out.append(slice(max(0, int(i[0]) - m), min(mask.shape[k], int(i[-1]) + 1 + m)))
    return out[0], out[1], out[2]


def keep_largest(mask: Mask) -> Mask:
    """The largest 6-connected piece."""
    lab, n = ndi.label(mask)
    if n < 2:
        return mask
    size = np.bincount(lab.ravel())
    size[0] = 0
    return lab == int(size.argmax())


def fill_cavities(mask: Mask) -> Mask:
    """The mask and what it shuts in on all sides."""
    number, _ = ndi.label(~np.pad(mask, 1))
    return mask | (number != number[0, 0, 0])[1:-1, 1:-1, 1:-1]


def solid_ribs(labels: NDArray[np.uint8], ribs: list[int], spacing: Spacing) -> NDArray[np.uint8]:
    """The ribs of a label map (z, y, x), each closed, its marrow filled in three planes, one piece.

    Ribs of even and odd number are treated together: they lie 15 mm apart, more than any closing reaches.
    """
    out = np.zeros_like(labels)
    for parity in (0, 1):
        group = np.zeros(256, np.uint8)
        group[[k for k in ribs if k % 2 == parity]] = 1
        mask = group[labels] > 0
        if not mask.any():
            continue
        box = bounding_box(mask, 2 * RIB_CLOSE_MM, spacing)
        part = mask[box]
        closed = shut(part, RIB_CLOSE_MM, spacing) | part
        filled = fill_planes(closed, spacing, RIB_HOLE_MM2)
        lab, n = ndi.label(filled)
        own = np.where(part, labels[box], 0)
        out_part = out[box]
        for i, where in enumerate(ndi.find_objects(lab), start=1):
            piece = lab[where] == i
            count = np.bincount(own[where][piece], minlength=1)
            count[0] = 0
            free = piece & (out_part[where] == 0)
            present = np.flatnonzero(count)
            if len(present) == 1:
                out_part[where][free] = present[0]
            elif len(present):
                near = ndi.distance_transform_edt(own[where] == 0, return_distances=False, return_indices=True)
                out_part[where][free] = own[where][tuple(near)][free]
    return drop_crumbs(out, ribs)


def fill_cups(labels: NDArray[np.uint8], ribs: list[int], canal_yx: NDArray[np.float64], spacing: Spacing) -> None:
    """Fill the front ends of the ribs of a label map (z, y, x), which else are cups of cortex one voxel thin, around
    a plug of cartilage: thin walls tear when a surface is drawn. ``canal_yx`` (Z, 2) mm; changes ``labels``.
    """
    for key, found in enumerate(ndi.find_objects(labels, max_label=max(ribs)), start=1):
        if found is None or key not in ribs:
            continue
        own = labels[found] == key
        middle = canal_yx[found[0]]
        y, x = (np.arange(labels.shape[k])[found[k]] * spacing[k] for k in (1, 2))
        front = own & (middle[:, :1] - y[None] > FRONT_MM)[:, :, None]
        if not front.any():
            continue
        beside = np.abs(x[None] - middle[:, 1:])[:, None, :]
        inner = float(np.where(front, beside, np.inf).min())
        end = front & (beside < inner + CUP_MM)
        box = bounding_box(end, 0.0, spacing)
        pad = [int(CUP_CLOSE_MM / s) + 1 for s in spacing]
        wide = np.pad(end[box], [(p, p) for p in pad])
        closed = shut(wide, CUP_CLOSE_MM, spacing)
        view = labels[found][box]
        view[closed[tuple(slice(p, -p) for p in pad)] & (view == 0)] = key


def drop_crumbs(labels: NDArray[np.uint8], keys: list[int]) -> NDArray[np.uint8]:
    """Keep the largest piece of each of these labels; the rest becomes 0."""
    for k, box in enumerate(ndi.find_objects(labels), start=1):
        if box is None or k not in keys:
            continue
        own = labels[box] == k
        labels[box][own & ~keep_largest(own)] = 0
    return labels


def solid_vertebra(mask: Mask, body: Mask, empty: Mask, disc: Mask, dark: Mask, spacing: Spacing) -> Mask:
    """One vertebra in its box.

    ``body`` is the part of the box in front of the canal, ``empty`` what must stay so (canal, gaps of joints), ``disc``
    where only what is bone already may be, ``dark`` what holds less than half as much bone as the outline does: it may
    be marrow, but no outside of a bone.
    """
    out = mask.copy()
    front = close_mm(mask & body, BODY_CLOSE_MM, spacing) & body & ~disc
    out |= front
    arch = close_mm(mask & ~body, 2.0, spacing)
    out |= arch & ~body
    out = fill_planes(out | empty, spacing, 900.0, (0,)) & ~empty
    out &= ~disc | mask
    out &= mask | ~dark | ndi.binary_erosion(out)
    out = keep_largest(fill_planes(out, spacing, 60.0, (0, 1, 2)) & ~empty)
    return out | (fill_cavities(out) & ~dark)  # gaps that end within the bone; a foramen may be shut in as well
