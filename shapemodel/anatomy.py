"""The one vocabulary: every bone of the skeletal thorax with its name, label number, side and colour.

Label numbers are those of the project's label maps; names are used in files, tables, messages and
decks. Ribs are numbered from the top, sides are the patient's own. The world frame everywhere is LPS
(x to the patient's left, y to the back, z to the head) in millimetres.

>>> LABEL["rib_left_07"], bone(31).name, bone(31).level
(7, 'vertebra_T06', 6)
>>> bone("rib_left_07").mirror
19
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Side = Literal["left", "right", "middle"]
Kind = Literal["rib", "sternum", "vertebra", "other"]

N_PAIRS = 12
"""Rib pairs, and thoracic vertebrae, of the model."""

STERNUM = 25
OTHER_BONE = 40
COSTAL_CARTILAGE = 41


@dataclass(frozen=True)
class Bone:
    """One named part.

    Attributes
    ----------
    label : number in label maps and in the point array ``bone`` of meshes
    name : the name used everywhere, e.g. ``rib_left_07``
    kind, side : what it is, and on which side of the patient
    level : 1-12 for ribs and vertebrae, 0 otherwise
    mirror : label of the same bone of the other side (itself in the middle)
    totalsegmentator : the name that TotalSegmentator v2 gives it, if it has one
    color : red, green, blue, 0-255
    """

    label: int
    name: str
    kind: Kind
    side: Side
    level: int
    mirror: int
    totalsegmentator: str | None
    color: tuple[int, int, int]


def _rib_color(level: int, side: Side) -> tuple[int, int, int]:
    """Ivory to ochre down the cage; odd and even levels alternate so that neighbours differ, sides by tint."""
    t = (level - 1) / (N_PAIRS - 1)
    dark = 0 if level % 2 else 38
    if side == "left":
        return (235 - dark - int(40 * t), 205 - dark - int(70 * t), 120 - dark // 2 + int(20 * t))
    return (140 - dark + int(30 * t), 195 - dark - int(50 * t), 230 - dark)


def _vertebra_color(level: int) -> tuple[int, int, int]:
    return (209 - 3 * level, 134, 100 + 3 * level) if level % 2 else (166 - 3 * level, 90, 70 + 3 * level)


def _table() -> tuple[Bone, ...]:
    bones = []
    sides: tuple[tuple[Side, int], ...] = (("left", 0), ("right", N_PAIRS))
    for side, base in sides:
        for i in range(1, N_PAIRS + 1):
            mirror = i + (N_PAIRS - base)
            bones.append(
                Bone(base + i, f"rib_{side}_{i:02d}", "rib", side, i, mirror, f"rib_{side}_{i}", _rib_color(i, side))
            )
    bones.append(Bone(STERNUM, "sternum", "sternum", "middle", 0, STERNUM, "sternum", (120, 190, 130)))
    for i in range(1, N_PAIRS + 1):
        k = STERNUM + i
        bones.append(Bone(k, f"vertebra_T{i:02d}", "vertebra", "middle", i, k, f"vertebrae_T{i}", _vertebra_color(i)))
    return tuple(bones)


BONES: tuple[Bone, ...] = _table()
"""The 37 bones of the model, by label number."""

RESIDUE: tuple[Bone, ...] = (
    Bone(OTHER_BONE, "other_bone", "other", "middle", 0, OTHER_BONE, None, (150, 150, 150)),
    Bone(
        COSTAL_CARTILAGE,
        "costal_cartilage",
        "other",
        "middle",
        0,
        COSTAL_CARTILAGE,
        "costal_cartilages",
        (230, 230, 180),
    ),
)
"""Labels that keep what is bright but not part of the model."""

LABEL: dict[str, int] = {b.name: b.label for b in (*BONES, *RESIDUE)}
"""Label number by name."""

_BY_LABEL: dict[int, Bone] = {b.label: b for b in (*BONES, *RESIDUE)}

RIBS: tuple[int, ...] = tuple(b.label for b in BONES if b.kind == "rib")
VERTEBRAE: tuple[int, ...] = tuple(b.label for b in BONES if b.kind == "vertebra")
MODEL_LABELS: tuple[int, ...] = tuple(b.label for b in BONES)


def bone(key: int | str) -> Bone:
    """The bone with this label number or name; KeyError names what was asked for."""
    label = LABEL.get(key) if isinstance(key, str) else int(key)
    if label is None or label not in _BY_LABEL:
        raise KeyError(f"no bone {key!r}: expected a label 1-37, 40, 41 or a name such as rib_left_07")
    return _BY_LABEL[label]


def rib(side: Side, level: int) -> int:
    """Label of a rib; ``side`` is left or right, ``level`` 1-12."""
    if side not in ("left", "right") or not 1 <= level <= N_PAIRS:
        raise KeyError(f"no rib {side} {level}: expected left or right and a level 1-12")
    return level if side == "left" else level + N_PAIRS


def vertebra(level: int) -> int:
    """Label of a thoracic vertebra, ``level`` 1-12."""
    if not 1 <= level <= N_PAIRS:
        raise KeyError(f"no thoracic vertebra {level}: expected 1-12")
    return STERNUM + level


def names(labels: Iterable[int]) -> list[str]:
    """Names of these label numbers, in their order."""
    return [bone(int(k)).name for k in labels]
