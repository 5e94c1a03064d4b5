"""Coded anatomy: SNOMED CT codes of the bones, as DICOM (CID 7150, 7151) and 3D Slicer use them.

Codes of vertebrae and sternum are in DICOM's own tables (PS3.16); those of the single ribs are the ones that
TotalSegmentator publishes with its classes (``totalsegmentator_snomed_mapping.csv``).
"""

from __future__ import annotations

from dataclasses import dataclass

from shapemodel.anatomy import COSTAL_CARTILAGE, STERNUM, bone

SCHEME = "SCT"
CATEGORY = ("91723000", "Anatomical Structure")
SIDES = {"left": ("7771000", "Left"), "right": ("24028007", "Right")}

_RIB = (
    ("48535007", "First rib"),
    ("78247007", "Second rib"),
    ("25888004", "Third rib"),
    ("25523003", "Fourth rib"),
    ("15339008", "Fifth rib"),
    ("59558009", "Sixth rib"),
    ("24915002", "Seventh rib"),
    ("5953002", "Eighth rib"),
    ("22565002", "Ninth rib"),
    ("77644006", "Tenth rib"),
    ("58830002", "Eleventh rib"),
    ("43993008", "Twelfth rib"),
)
_VERTEBRA = (
    "64864005",
    "53733008",
    "1626008",
    "73071006",
    "56401006",
    "45296009",
    "62487009",
    "11068009",
    "82687006",
    "7610001",
    "12989004",
    "23215003",
)


@dataclass(frozen=True)
class Coded:
    """SNOMED CT code and meaning of a structure, and of its side (None in the middle)."""

    code: str
    meaning: str
    side: tuple[str, str] | None


def coded(label: int) -> Coded:
    """The code of one of our labels."""
    b = bone(label)
    if b.kind == "rib":
        return Coded(*_RIB[b.level - 1], SIDES[b.side])
    if b.kind == "vertebra":
        return Coded(_VERTEBRA[b.level - 1], f"T{b.level} vertebra", None)
    if label == STERNUM:
        return Coded("56873002", "Sternum", None)
    if label == COSTAL_CARTILAGE:
        return Coded("50016007", "Costal Cartilage", None)
    return Coded("272673000", "Bone", None)


def terminology_entry(label: int) -> str:
    """The same for the ``TerminologyEntry`` tag of a Slicer segment."""
    c = coded(label)
    side = f"{SCHEME}^{c.side[0]}^{c.side[1]}" if c.side else "^^"
    return (
        f"Segmentation category and type - DICOM master list~{SCHEME}^{CATEGORY[0]}^{CATEGORY[1]}"
        f"~{SCHEME}^{c.code}^{c.meaning}~{side}~Anatomic codes - DICOM master list~^^~^^"
    )
