"""Nastran bulk data: GRID in the 16-character format, CTRIA3 shells, PSHELL, MAT1, SET1."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shapemodel.export.deck import Deck
from shapemodel.export.rows import formatted

CONTROL = ("SOL 103", "CEND")
"""Executive control of a free modal analysis, without which readers do not take the file for a whole deck."""


def deck_text(deck: Deck, include: str | None = None) -> str:
    """The least executive control and the bulk data; with ``include`` the nodes are left to that file."""
    lines = [*_comments(deck), *CONTROL, "BEGIN BULK"]
    lines += _grid(deck) if include is None else [f"INCLUDE '{include}'"]
    lines.append(_shells(deck))
    return "\n".join([*lines, *_properties(deck), *_sets(deck), "ENDDATA", ""])


def nodes_text(deck: Deck) -> str:
    """The GRID cards alone: what changes from one percentile to the next."""
    return "\n".join([*_comments(deck), *_grid(deck), ""])


def real(value: float) -> str:
    """A real number in eight characters, always with its decimal point (Nastran refuses reals without)."""
    if value == 0.0:
        return "0.0".rjust(8)
    if 1e-3 <= abs(value) < 1e5:
        for digits in range(6, -1, -1):
            text = f"{value:.{digits}f}"
            text = text if "." in text else text + "."
            if len(text) <= 8:
                return text.rjust(8)
    for digits in range(4, -1, -1):
        mantissa, exponent = f"{value:.{digits}e}".split("e")
        text = f"{mantissa}{'' if '.' in mantissa else '.'}{int(exponent):+d}"
        if len(text) <= 8:
            return text.rjust(8)
    raise ValueError(f"{value!r} does not fit into eight characters")


def _shells(deck: Deck) -> str:
    """CTRIA3 cards: the shell's middle lies half a thickness below the nodes."""
    numbers = np.column_stack([deck.element_ids, deck.element_pid, deck.elements])
    row = f"CTRIA3  %8d%8d%8d%8d%8d{'':8s}%s"
    if deck.thickness_mm is None:
        offset = {p.pid: real(-p.thickness_mm / 2) for p in deck.parts}
        return formatted(row, numbers, np.array([offset[p] for p in deck.element_pid.tolist()]))
    middle = np.array([real(t) for t in (-deck.thickness_mm.sum(axis=1) / 6).tolist()])
    corners = np.array([[real(t) for t in three] for three in deck.thickness_mm.tolist()])
    return formatted(f"{row}\n{'':24s}%s%s%s", numbers, middle, corners)


def _grid(deck: Deck) -> list[str]:
    return [node_rows(deck.node_ids, deck.nodes)]


def node_rows(ids: NDArray[np.int64], nodes: NDArray[np.float64]) -> str:
    """GRID cards."""
    return formatted(f"GRID*   %16d{'':16s}%16.8f%16.8f\n*       %16.8f", ids, nodes)


def _properties(deck: Deck) -> list[str]:
    m, units = deck.info.material, deck.info.units
    young, density = real(m.stress(m.young_pa, units)), real(m.density(units))
    lines = [f"MAT1    {1:8d}{young}{'':8s}{real(m.poisson)}{density}"]
    for p in deck.parts:
        lines += [f"$ {p.name}", f"PSHELL  {p.pid:8d}{1:8d}{real(p.thickness_mm)}{1:8d}{'':8s}{1:8d}"]
    return lines


def _sets(deck: Deck) -> list[str]:
    lines = []
    for sid, (name, ids) in enumerate(deck.node_sets.items(), start=1):
        numbers = ids.tolist()
        lines += [f"$ node set {name}", f"SET1    {sid:8d}" + "".join(f"{k:8d}" for k in numbers[:7])]
        lines += ["        " + "".join(f"{k:8d}" for k in numbers[i : i + 8]) for i in range(7, len(numbers), 8)]
    return lines


def _comments(deck: Deck) -> list[str]:
    return [f"$ {line}" for line in deck.header()]
