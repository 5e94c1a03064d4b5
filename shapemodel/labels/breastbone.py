"""The sternum at full resolution: bone between the edges and surfaces of its plate, solid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shapemodel.labels.morphology import close_mm, fill_planes, grow
from shapemodel.labels.solid import bounding_box, keep_largest
from shapemodel.labels.sternum import Plate
from shapemodel.labels.work import Work, upsample
from shapemodel.mask import Mask, Spacing

OUTSIDE_MM = 2.0
"""Bone so far before or behind the surfaces, which are smooth, is still the sternum's; further behind lie vessels."""
DENSE_BEHIND_MM, RIM_MM = 5.0, 1.5
"""The same behind of dense bone, with a rim around it: the back of a manubrium curves more than the surface does, and
vessels so bright are known."""
CORE_MM, CORE_SIDE_MM = 1.0, 2.5
"""So far within surfaces and edges it is sternum whatever it looks like."""
CORE_END_MM = (40.0, 12.0)
"""But for its lower end, which may be cartilage, and the notch."""
CLOSE_MM = (7.0, 4.0)
"""Along the body half of the widest joint of a sternum (manubrium and body, body and xiphoid); within slices half of
the widest hole in its cortex."""
HOLLOW = 0.6
"""A slice of sternum that fills less of its convex hull is a broken shell."""
COVER = 0.4
"""One that fills less of what is surely sternum has a cortex too thin to be seen: the plate stands for it."""
METAL_HU, METAL_MM = 1800.0, 4.0
"""Sternal wires, and how far they and their streaks make their surroundings as bright as bone."""
ROOM_MM = 6.0


def solid_sternum(hu: NDArray[np.int16], bone: Mask, work: Work, plate: Plate, others: Mask, spacing: Spacing) -> Mask:
    """(Z, Y, X) bool: the solid sternum.

    ``hu`` and ``bone``, what of it is above the outline, at full resolution; ``others``, girdle, vessels and ends of
    clavicles, as well.
    """
    out = np.zeros(bone.shape, bool)
    region = upsample(plate.region(work), work.factor, bone.shape)
    if not region.any():
        return out
    present = np.flatnonzero(plate.present)
    box = bounding_box(region, ROOM_MM, spacing)
    first = int((plate.surfaces.front[present].min() - ROOM_MM) / spacing[1])
    box = box[0], slice(max(box[1].start, first), box[1].stop), box[2]  # without the air before it
    z = (np.arange(bone.shape[0])[box[0]] - (work.factor[0] - 1) / 2) / work.factor[0]
    y, x = (np.arange(bone.shape[k], dtype=np.float64)[box[k]] * spacing[k] for k in (1, 2))
    front, back, edge = plate.inside(z, y, x)
    beside = (front > -OUTSIDE_MM) & (edge >= 0) & ~others[box]
    dense = beside & (back > -DENSE_BEHIND_MM) & (hu[box] > work.limits.working)
    room = beside & ((back > -OUTSIDE_MM) | grow(dense, RIM_MM, spacing))
    metal = hu[box] > METAL_HU
    if metal.any():
        room &= ~grow(metal, METAL_MM, spacing) | ((front > 0) & (back > 0))
    core = (front > CORE_MM) & (back > CORE_MM) & (edge > CORE_SIDE_MM) & room
    low, high = present[0] + CORE_END_MM[0] / work.spacing[0], present[-1] - CORE_END_MM[1] / work.spacing[0]
    core[(z < low) | (z > high)] = False
    out[box] = solid_plate(room & bone[box], room, core, spacing)
    return out


def solid_plate(bone: Mask, room: Mask, core: Mask, spacing: Spacing) -> Mask:
    """The sternum in its box: ``bone`` closed and its marrow filled within ``room``; a slice that stays hollow becomes
    its convex hull, one in which hardly anything is seen its ``core``.

    Axial sections of the sternum are nearly convex; the cortex of an old one is too thin to be seen all round,
    so that there closing alone would leave a shell.
    """
    from skimage.morphology import convex_hull_image

    closed = keep_largest(_filled(bone, room, spacing))
    for k, m in enumerate(closed):
        if m.sum() > 10 and not _notched(m):
            hull = convex_hull_image(m) & room[k]
            if m.sum() < HOLLOW * hull.sum():
                closed[k] |= hull
    unseen = (closed & core).sum(axis=(1, 2)) < COVER * core.sum(axis=(1, 2))
    if unseen.any():
        closed = _filled(closed | (core & unseen[:, None, None]), room, spacing)
    return keep_largest(closed)


def _filled(mask: Mask, room: Mask, spacing: Spacing) -> Mask:
    flat = (spacing[0] * CLOSE_MM[1] / CLOSE_MM[0], spacing[1], spacing[2])
    return fill_planes(close_mm(mask, CLOSE_MM[1], flat), spacing, 1500.0) & room


def _notched(m: Mask) -> bool:
    """Whether a section (y, x) leaves its middle free: the two corners beside the notch."""
    x = np.flatnonzero(m.any(axis=0))
    third = (x[-1] - x[0]) // 3
    return not m[:, x[0] + third : x[-1] + 1 - third].any(axis=0).all()
