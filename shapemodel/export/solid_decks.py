"""Decks of solid bones: 10-node tetrahedra for LS-DYNA, Abaqus (CalculiX) and Nastran.

One part a bone, named ``TX-Ribcage-R6-Solid-L``; corner nodes on the surface have the numbers of the shell decks. The
material is the deck's cortical bone and stands for the whole: replace it, solids have no cortex of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shapemodel.export import abaqus as abaqus_file
from shapemodel.export import lsdyna as lsdyna_file
from shapemodel.export import nastran as nastran_file
from shapemodel.export.deck import DeckInfo, numbers, part_name
from shapemodel.export.nastran import CONTROL, real
from shapemodel.export.rows import formatted
from shapemodel.files import replacing
from shapemodel.mesh import Points
from shapemodel.reasons import InputError
from shapemodel.solids import SolidShape

ELFORM = 16
"""LS-DYNA: 10-node tetrahedron."""


@dataclass(frozen=True)
class SolidDeck:
    """Numbered solids: like :class:`shapemodel.export.deck.Deck`, ``parts`` are (label, number, name)."""

    info: DeckInfo
    parts: tuple[tuple[int, int, str], ...]
    node_ids: NDArray[np.int64]
    nodes: Points
    element_ids: NDArray[np.int64]
    elements: NDArray[np.int64]
    element_pid: NDArray[np.int64]

    def header(self) -> list[str]:
        """Lines for the comment at the top."""
        return self.info.header("10-node tetrahedra with straight edges; one material, replace it")


def make_solid_deck(shape: SolidShape, info: DeckInfo | None = None) -> SolidDeck:
    """Number the solids of a shape; numbers depend on the template alone."""
    of_element = shape.bone[shape.elements[:, 0]]
    node_ids, element_ids = numbers(shape.bone), numbers(of_element)
    labels = sorted(int(k) for k in np.unique(of_element))
    parts = tuple((k, k * 100 + 2, part_name(k).replace("Cortical", "Solid")) for k in labels)
    return SolidDeck(
        info or DeckInfo(), parts, node_ids, shape.nodes, element_ids, node_ids[shape.elements],
        of_element.astype(np.int64) * 100 + 2,
    )  # fmt: skip


def write_solid_deck(shape: SolidShape, path: str | Path, info: DeckInfo | None = None) -> Path:
    """Write ``.k``, ``.inp`` or ``.bdf``."""
    path = Path(path)
    if path.suffix.lower() not in WRITERS:
        raise InputError(f"{path}: solids go into decks: expected a name ending in {', '.join(WRITERS)}")
    text = WRITERS[path.suffix.lower()](make_solid_deck(shape, info))
    with replacing(path) as part:
        part.write_text(text, encoding="ascii", newline="\n")
    return path


def abaqus(deck: SolidDeck) -> str:
    """Abaqus: C3D10."""
    m, units = deck.info.material, deck.info.units
    lines = [*(f"** {t}" for t in deck.header()), "*NODE", abaqus_file.node_rows(deck.node_ids, deck.nodes)]
    for _, pid, name in deck.parts:
        lines += [f"*ELEMENT, TYPE=C3D10, ELSET={name}", formatted(", ".join(["%d"] * 11), *_of(deck, pid))]
    lines += ["*MATERIAL, NAME=BONE", "*ELASTIC", f"{m.stress(m.young_pa, units):.8g}, {m.poisson:.4g}"]
    lines += ["*DENSITY", f"{m.density(units):.8g}"]
    lines += [f"*SOLID SECTION, ELSET={name}, MATERIAL=BONE" for _, _, name in deck.parts]
    return "\n".join([*lines, ""])


def lsdyna(deck: SolidDeck) -> str:
    """LS-DYNA: *ELEMENT_SOLID in two cards (number and part, then ten nodes), *SECTION_SOLID, elastic material."""
    m, units = deck.info.material, deck.info.units
    lines = ["*KEYWORD", *(f"$ {t}" for t in deck.header()), "*NODE"]
    lines += [lsdyna_file.node_rows(deck.node_ids, deck.nodes), "*ELEMENT_SOLID"]
    lines += [formatted(f"%8d{pid:8d}\n{'%8d' * 10}", *_of(deck, pid)) for _, pid, _name in deck.parts]
    lines += ["*MAT_ELASTIC_TITLE", "bone", f"{1:10d}{m.density(units):10.3E}{m.stress(m.young_pa, units):10.4f}"]
    lines[-1] += f"{m.poisson:10.4f}"
    for _, pid, name in deck.parts:
        lines += ["*SECTION_SOLID_TITLE", name, f"{pid:10d}{ELFORM:10d}"]
        lines += ["*PART", name, f"{pid:10d}{pid:10d}{1:10d}" + f"{0:10d}" * 5]
    return "\n".join([*lines, "*END", ""])


def nastran(deck: SolidDeck) -> str:
    """Nastran: CTETRA with ten nodes, PSOLID, MAT1."""
    m, units = deck.info.material, deck.info.units
    lines = [*(f"$ {t}" for t in deck.header()), *CONTROL, "BEGIN BULK"]
    lines.append(nastran_file.node_rows(deck.node_ids, deck.nodes))
    for _, pid, _name in deck.parts:
        lines.append(formatted(f"CTETRA  %8d{pid:8d}{'%8d' * 6}\n{'':8s}{'%8d' * 4}", *_of(deck, pid)))
    young, density = real(m.stress(m.young_pa, units)), real(m.density(units))
    lines.append(f"MAT1    {1:8d}{young}{'':8s}{real(m.poisson)}{density}")
    for _, pid, name in deck.parts:
        lines += [f"$ {name}", f"PSOLID  {pid:8d}{1:8d}"]
    return "\n".join([*lines, "ENDDATA", ""])


def _of(deck: SolidDeck, pid: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers (n,) and nodes (n, 10) of the elements of a part."""
    own = deck.element_pid == pid
    return deck.element_ids[own], deck.elements[own]


WRITERS: dict[str, Callable[[SolidDeck], str]] = {".k": lsdyna, ".inp": abaqus, ".bdf": nastran}
"""Endings of decks, and what writes their solids."""
