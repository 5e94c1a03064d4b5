"""Shoulder girdle and arms, split off the ribs that they touch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from shapemodel.labels.flood import NEIGHBOURS, flood, step_cost
from shapemodel.labels.morphology import dilate, grow
from shapemodel.labels.work import Work
from shapemodel.mask import Mask

RIB_MM = 9.0
"""Ribs lie within this distance of the hull of the lungs: pleura, endothoracic fascia and the rib itself."""
GIRDLE_MM = 16.5
"""Beyond this there are at least a rib and a muscle between a bone and the lungs."""
MIN_SEED_ML = 1.0
DEEP_MM = 28.0
"""Scapula, clavicle and humerus all reach so far from the lungs; the bulge of a rib in a big chest does not."""
CUT_DEEP_MM = 27.0
"""The same where the top of the scan cuts them: lower ends of clavicles reach 29 mm, cut second ribs 25 mm."""
BELOW_APEX_MM = 130.0
"""Every girdle bone reaches up to here at least, measured from the apex of the lungs: the scapula, the lowest, begins
at the second rib. Front ends of the lower ribs lie as far from the lungs, but all below."""
USUAL_PERCENT = 95.0
"""Percentile of a rib's distances from the lungs that none of its own pieces exceeds in the middle."""
MAX_DEPTH_MM = 6.0
"""Depth at which watershed basins are cut off: half the thickness of the thickest rib."""
CONTACT_MM, RIM_MM = 12.0, 2.5
"""So far around its contacts with ribs the girdle is looked at again, and the rim of that in which nothing changes."""
ON_RIB_MM = 7.0
"""Nothing but ribs lies so near to the lungs."""


def split_girdle(work: Work, bone: Mask, keep_out: Mask, core: Mask) -> Mask:
    """The part of ``bone`` (work grid) that belongs to scapulae, clavicles, humeri.

    ``keep_out`` is the spine, where nothing is girdle, ``core`` the middle of the sternum, which is not. A two-class
    watershed on the depth inside bone,
    from seeds near to and far from the lungs, cuts at the narrow bridges between scapula and rib.
    """
    from skimage.segmentation import watershed

    mask = bone & ~keep_out
    far = mask & (work.lung_mm > GIRDLE_MM) & ~core
    lab, n = ndi.label(far, np.ones((3, 3, 3)))
    ml = np.bincount(lab.ravel(), minlength=n + 1) * work.voxel_ml
    deep = np.zeros(n + 1, np.float32)
    np.maximum.at(deep, lab[far], work.lung_mm[far])
    enough = np.full(n + 1, DEEP_MM)
    enough[np.unique(lab[-1])] = CUT_DEEP_MM
    highest = np.full(n + 1, -1)
    np.maximum.at(highest, lab[far], np.nonzero(far)[0])
    high = highest > work.apex - BELOW_APEX_MM / work.spacing[0]
    real = (ml > MIN_SEED_ML) & (deep > enough) & high
    real[0] = False
    seed = real[lab]
    if not seed.any():
        return np.zeros_like(bone)
    box = _box(seed, margin=[int(40 / s) for s in work.spacing])
    part = mask[box]
    depth = np.minimum(ndi.distance_transform_edt(part, sampling=work.spacing), MAX_DEPTH_MM)
    markers = np.zeros(part.shape, np.int32)
    markers[part & (work.lung_mm[box] < RIB_MM)] = 1
    markers[seed[box]] = 2
    markers[part & core[box]] = 1
    ws = watershed(-depth, markers, mask=part)
    out = np.zeros_like(bone)
    out[box] = ws == 2
    return out | _beyond_contacts(work, mask, out)


def _beyond_contacts(work: Work, bone: Mask, girdle: Mask) -> Mask:
    """What of the other ``bone`` around its contacts with the girdle is girdle as well.

    The tip of a shoulder blade may lie as near to the lungs as ribs do, on the rib's side of the narrowest place. But
    it is one dense piece with the blade, and held to the rib through the partial volume of a contact: around contacts
    both grow from what is surely theirs, dear through what is dark.
    """
    rest = bone & ~girdle
    box = _box(girdle, [int(2 * CONTACT_MM / s) for s in work.spacing])
    touch = dilate(girdle[box], NEIGHBOURS) & rest[box]
    if not touch.any():
        return np.zeros_like(bone)
    zone, inner = (grow(touch, r, work.spacing) for r in (CONTACT_MM, CONTACT_MM - RIM_MM))
    zone &= bone[box]
    markers = np.zeros(zone.shape, np.uint8)
    markers[zone & rest[box] & (~inner | (work.lung_mm[box] < ON_RIB_MM))] = 1
    markers[zone & girdle[box] & (~inner | (work.lung_mm[box] > GIRDLE_MM))] = 2
    out = np.zeros_like(bone)
    out[box] = flood(step_cost(work.hu[box], work.limits.working), zone, markers, work.spacing) == 2
    return out & rest


def drop_outliers(labels: NDArray[np.uint8], work: Work, keys: Sequence[int]) -> NDArray[np.uint8]:
    """Take loose pieces that lie further from the lungs than the rest of their rib does (tips of a shoulder blade)
    from the ribs ``keys`` of a fine label map (z, y, x); changes ``labels``.

    A piece of the rib itself, beyond a gap in its cortex, is as near to the lungs as the rib is.
    """
    for key, box in enumerate(ndi.find_objects(labels, max_label=max(keys)), start=1):
        if box is None or key not in keys:
            continue
        pieces, n = ndi.label(labels[box] == key)
        if n < 2:
            continue
        idx = np.nonzero(pieces)
        at = tuple(
            np.minimum((i + b.start) // f, m - 1)
            for i, b, f, m in zip(idx, box, work.factor, work.lung_mm.shape, strict=True)
        )
        far, number = work.lung_mm[at], pieces[idx]
        main = int(np.bincount(number).argmax())
        limit = np.percentile(far[number == main], USUAL_PERCENT)
        middle = ndi.median(far, number, np.arange(n + 1))
        out = np.flatnonzero(middle > limit)
        labels[box][np.isin(pieces, out[out > 0])] = 0
    return labels


def _box(mask: Mask, margin: list[int]) -> tuple[slice, ...]:
    out = []
    for k in range(3):
        i = np.flatnonzero(mask.any(axis=tuple(j for j in range(3) if j != k)))
        out.append(slice(max(0, int(i[0]) - margin[k]), min(mask.shape[k], int(i[-1]) + 1 + margin[k])))
    return tuple(out)
