"""LS-DYNA keyword deck (fixed format, from the public card descriptions of the keyword manual)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shapemodel.export.deck import Deck
from shapemodel.export.rows import formatted, listed

OUTER_SURFACE = 1.0
"""NLOC of *SECTION_SHELL: the nodes are the top surface (outward normal), the thickness lies below it."""

ELFORM = 16
"""Fully integrated shell, as in VIVA+; degenerate quadrilaterals are sorted to triangles by the solver."""


def nodes_text(deck: Deck) -> str:
    """The ``*NODE`` block alone: what changes from one percentile to the next."""
    return "\n".join([*_nodes(deck), "*END", ""])


def deck_text(deck: Deck, include: str | None = None) -> str:
    """The whole deck; with ``include`` the nodes are left to that file, so that sizes swap by one file."""
    start = _nodes(deck) if include is None else ["*KEYWORD", *_comments(deck), "*INCLUDE", include]
    return "\n".join([*start, *_elements(deck), *_parts(deck), *_sets(deck), "*END", ""])


def _nodes(deck: Deck) -> list[str]:
    head = "$#   nid               x               y               z      tc      rc"
    return ["*KEYWORD", *_comments(deck), "*NODE", head, node_rows(deck.node_ids, deck.nodes)]


def node_rows(ids: NDArray[np.int64], nodes: NDArray[np.float64]) -> str:
    """Lines of a ``*NODE`` block."""
    return formatted("%8d%16.8f%16.8f%16.8f       0       0", ids, nodes)


def _comments(deck: Deck) -> list[str]:
    return [f"$ {line}" for line in deck.header()]


def _elements(deck: Deck) -> list[str]:
    shell = "%8d%8d%8d%8d%8d%8d"  # a triangle is a quadrilateral whose last corner comes twice
    numbers = np.column_stack([deck.element_ids, deck.element_pid, deck.elements, deck.elements[:, 2]])
    if deck.thickness_mm is None:
        head = "$#   eid     pid      n1      n2      n3      n4"
        return ["*ELEMENT_SHELL", head, formatted(shell, numbers)]
    row = f"{shell}\n{'%16.8f' * 4}{0.0:16.8f}"
    return ["*ELEMENT_SHELL_THICKNESS", formatted(row, numbers, deck.thickness_mm, deck.thickness_mm[:, 2])]


def _parts(deck: Deck) -> list[str]:
    m, units = deck.info.material, deck.info.units
    lines = [
        "*MAT_PIECEWISE_LINEAR_PLASTICITY_TITLE",
        "cortical bone",
        f"{1:10d}{m.density(units):10.3E}{m.stress(m.young_pa, units):10.4f}{m.poisson:10.4f}"
        f"{m.stress(m.yield_pa, units):10.6f}{m.stress(m.tangent_pa, units):10.5f}{0.0:10.1f}{0.0:10.1f}",
        *["".join(f"{0.0:10.1f}" for _ in range(8))] * 3,
    ]
    for p in deck.parts:
        lines += [
            "*SECTION_SHELL_TITLE",
            p.name,
            f"{p.pid:10d}{ELFORM:10d}{0.8333:10.4f}{3:10d}{0.0:10.1f}{0.0:10.1f}{0:10d}{1:10d}",
            f"{p.thickness_mm:10.4f}" * 4 + f"{OUTER_SURFACE:10.1f}{0.0:10.1f}{0.0:10.1f}{0:10d}",
            "*PART",
            p.name,
            f"{p.pid:10d}{p.pid:10d}{1:10d}{0:10d}{0:10d}{0:10d}{0:10d}{0:10d}",
        ]
    return lines


def _sets(deck: Deck) -> list[str]:
    """Node and shell sets of each bone (set number = part number), node sets by origin, part sets by region."""
    lines: list[str] = []
    own = {p.name: p for p in deck.parts}
    by_label = {p.label: p for p in deck.parts}
    for p in deck.parts:
        lines += _set("SHELL", p.pid, p.name, deck.element_ids[deck.element_pid == p.pid])
    for i, (name, ids) in enumerate(deck.node_sets.items()):
        label = int(ids[0]) // 100_000
        is_bone = not name.startswith("origin_")
        sid, title = (by_label[label].pid, own[by_label[label].name].name) if is_bone else (9000 + i, name)
        lines += _set("NODE", sid, title, ids)
    for i, (name, parts) in enumerate(deck.groups().items()):
        lines += _set("PART", 9900 + i, name, np.array([p.pid for p in parts]))
    return lines


def _set(kind: str, sid: int, title: str, ids: NDArray[np.int64]) -> list[str]:
    head = [f"*SET_{kind}_LIST_TITLE", title, f"{sid:10d}{0.0:10.1f}{0.0:10.1f}{0.0:10.1f}{0.0:10.1f}"]
    return [*head, "\n".join(line.ljust(80) for line in listed(ids, "%10d", 8).split("\n"))]
