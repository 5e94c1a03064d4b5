"""Whose numbers and names a label map uses, and what they are in ours.

Nothing is guessed: a value or a name that the scheme does not know is refused. Bones that are no part of the
model (lumbar and cervical vertebrae, the shoulder girdle, the pelvis) become ``other_bone``; organs become
background.

TotalSegmentator's numbers: class lists "total_v1" (104 classes) and "total" (117 classes, v2) of its
``map_to_binary.py``, https://github.com/wasserth/TotalSegmentator; bones only are listed here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from shapemodel.anatomy import BONES, COSTAL_CARTILAGE, LABEL, OTHER_BONE, RESIDUE, RIBS, bone, vertebra
from shapemodel.reasons import StudyError

SCHEMES = ("shapemodel", "totalsegmentator-v1", "totalsegmentator-v2", "slicer", "dicom-seg")

LAST_BONE = max(b.label for b in BONES)
OUR_LABELS = tuple(b.label for b in (*BONES, *RESIDUE))

_OTHER_PAIRS = ("humerus", "scapula", "clavicula", "femur", "hip")


def _numbered(first: int, names: Iterable[str]) -> dict[str, int]:
    return {name: first + i for i, name in enumerate(names)}


def _vertebrae(*spans: tuple[str, int, int]) -> list[str]:
    return [f"vertebrae_{letter}{i}" for letter, low, high in spans for i in range(low, high - 1, -1)]


def _ribs() -> list[str]:
    return [f"rib_{side}_{i}" for side in ("left", "right") for i in range(1, 13)]


def _both(names: Iterable[str]) -> list[str]:
    return [f"{name}_{side}" for name in names for side in ("left", "right")]


TOTALSEGMENTATOR_V1: dict[str, int] = {
    **_numbered(18, _vertebrae(("L", 5, 1), ("T", 12, 1), ("C", 7, 1))),
    **_numbered(58, _ribs()),
    **_numbered(82, _both(_OTHER_PAIRS)),
    "sacrum": 92,
}
"""Bones of TotalSegmentator v1 by name (it has no sternum and no cartilage)."""

TOTALSEGMENTATOR_V2: dict[str, int] = {
    "sacrum": 25,
    "vertebrae_S1": 26,
    **_numbered(27, _vertebrae(("L", 5, 1), ("T", 12, 1), ("C", 7, 1))),
    **_numbered(69, _both(_OTHER_PAIRS)),
    "skull": 91,
    **_numbered(92, _ribs()),
    "sternum": 116,
    "costal_cartilages": 117,
}
"""Bones of TotalSegmentator v2 by name."""

_TABLES = {"totalsegmentator-v1": (TOTALSEGMENTATOR_V1, 104), "totalsegmentator-v2": (TOTALSEGMENTATOR_V2, 117)}

_OUR_NUMBER: dict[str, int] = {
    **{b.totalsegmentator: b.label for b in BONES if b.totalsegmentator},
    "costal_cartilages": COSTAL_CARTILAGE,
}

_ORGANS = frozenset(
    "spleen gallbladder liver stomach pancreas esophagus trachea thyroid_gland small_bowel duodenum colon "
    "urinary_bladder prostate heart aorta pulmonary_vein pulmonary_artery brachiocephalic_trunk superior_vena_cava "
    "inferior_vena_cava portal_vein_and_splenic_vein spinal_cord brain heart_myocardium face lung body".split()
)
_PAIRED_ORGANS = re.compile(
    r"(kidney|adrenal_gland|lung|lung_(upper|middle|lower)_lobe|kidney_cyst|subclavian_artery|common_carotid_artery|"
    r"brachiocephalic_vein|atrial_appendage|iliac_artery|iliac_vena|gluteus_(maximus|medius|minimus)|autochthon|"
    r"iliopsoas|heart_(atrium|ventricle))_(left|right)"
)


def table_of(scheme: str) -> NDArray[np.int16]:
    """(256,) our number for each number of a scheme's multi-label map; -1 where the scheme has no such number."""
    table = np.full(256, -1, np.int16)
    if scheme == "shapemodel":
        table[[0, *OUR_LABELS]] = [0, *OUR_LABELS]
        return table
    names, highest = _TABLES[scheme]
    table[: highest + 1] = 0
    for name, number in names.items():
        table[number] = _OUR_NUMBER.get(name, OTHER_BONE)
    return table


def our_number(name: str) -> int | None:
    """Our number of a segment or mask called ``name``: a bone's, 0 for an organ, None when it is not known.

    Our own names and TotalSegmentator's are known, in any case, with spaces or underscores.
    """
    plain = re.sub(r"[\s_\-]+", "_", name.strip().lower())
    for key in (plain, re.sub(r"_0+(\d)", r"_\1", plain), re.sub(r"_t(\d+)$", r"_T\1", plain)):
        if key in LABEL:
            return LABEL[key]
        if key in _OUR_NUMBER:
            return _OUR_NUMBER[key]
    level = re.fullmatch(r"vertebrae?_t0?(\d+)", plain)
    if level and 1 <= int(level[1]) <= 12:
        return vertebra(int(level[1]))
    others = {n.lower() for n in (*TOTALSEGMENTATOR_V1, *TOTALSEGMENTATOR_V2)}
    if plain in others or re.fullmatch(r"(vertebra_(c[1-7]|l[1-5]|s1)|clavicle_(left|right))", plain):
        return OTHER_BONE
    return 0 if plain in _ORGANS or _PAIRED_ORGANS.fullmatch(plain) else None


def present(labels: NDArray[np.uint8]) -> list[int]:
    """Label numbers of a (Z, Y, X) map, ascending, 0 left out; much faster than sorting it."""
    found = np.zeros(256, bool)
    for plane in labels:
        found[plane] = True
    return [int(k) for k in np.flatnonzero(found) if k]


def to_ours(values: NDArray[np.integer], table: NDArray[np.int16], what: str) -> NDArray[np.uint8]:
    """Numbers of another scheme as ours; StudyError ``bad_labels`` names the numbers that it does not know."""
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 255:
        raise StudyError("bad_labels", f"{what}: expected label numbers 0-255, found {low} to {high}")
    mapped = table[values]
    if (mapped < 0).any():
        unknown = np.unique(values[mapped < 0]).tolist()
        raise StudyError("bad_labels", f"{what}: expected the numbers of its scheme, found {unknown} too")
    return mapped.astype(np.uint8)


def check_order(labels: NDArray[np.uint8], spacing_z: float, what: str) -> None:
    """Refuse a map without ribs, whose vertebrae do not descend, or whose left ribs lie on the right.

    These are the signs of another scheme's numbers. ``labels`` is (z, y, x) in axial LPS; the boxes of the bones
    are compared, so that it takes no time.
    """
    from scipy import ndimage

    boxes = ndimage.find_objects(labels, max_label=vertebra(12))
    centre = {k + 1: [(s.start + s.stop) / 2 for s in b] for k, b in enumerate(boxes) if b is not None}
    if not set(centre) & set(RIBS):
        raise StudyError("bad_labels", f"{what}: expected ribs, found none: are these the numbers of its scheme?")
    heights = [centre[vertebra(i)][0] * spacing_z for i in range(1, 13) if vertebra(i) in centre]
    if any(b >= a for a, b in zip(heights, heights[1:], strict=False)):
        raise StudyError("bad_labels", f"{what}: T1 to T12 do not descend: are these the numbers of its scheme?")
    sides = [centre[k][2] - centre[bone(k).mirror][2] for k in RIBS[:12] if k in centre and bone(k).mirror in centre]
    if sides and np.median(sides) <= 0:
        raise StudyError("mirrored", f"{what}: left ribs lie on the patient's right: check scheme and orientation")
