"""Abaqus input deck; CalculiX reads the same file."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shapemodel.export.deck import Deck
from shapemodel.export.rows import formatted, listed

OUTER_SURFACE = 0.5
"""OFFSET of *SHELL SECTION, as a fraction of the thickness: the nodes are the top (outer) surface."""


def deck_text(deck: Deck, include: str | None = None) -> str:
    """Nodes, S3 shells, sections, material and sets; with ``include`` the nodes are left to that file."""
    lines = _nodes(deck) if include is None else [*_comments(deck), f"*INCLUDE, INPUT={include}"]
    for p in deck.parts:
        own = deck.element_pid == p.pid
        lines.append(f"*ELEMENT, TYPE=S3, ELSET={p.name}")
        lines.append(formatted("%d, %d, %d, %d", deck.element_ids[own], deck.elements[own]))
    for name, ids in deck.node_sets.items():
        lines += [f"*NSET, NSET={name}", listed(ids, "%d", 12, ", ")]
    for name, parts in deck.groups().items():
        lines += [f"*ELSET, ELSET={name}_parts", *(p.name for p in parts)]
    return "\n".join([*lines, *_sections(deck), ""])


def nodes_text(deck: Deck) -> str:
    """The ``*NODE`` block alone: what changes from one percentile to the next."""
    return "\n".join([*_nodes(deck), ""])


def _nodes(deck: Deck) -> list[str]:
    return [*_comments(deck), "*NODE", node_rows(deck.node_ids, deck.nodes)]


def node_rows(ids: NDArray[np.int64], nodes: NDArray[np.float64]) -> str:
    """Lines of a ``*NODE`` block."""
    return formatted("%d, %.8f, %.8f, %.8f", ids, nodes)


def _sections(deck: Deck) -> list[str]:
    m, units = deck.info.material, deck.info.units
    lines = [
        "*MATERIAL, NAME=CORTICAL",
        "*ELASTIC",
        f"{m.stress(m.young_pa, units):.8g}, {m.poisson:.4g}",
        "*DENSITY",
        f"{m.density(units):.8g}",
    ]
    if deck.thickness_mm is not None:
        nodes, first = np.unique(deck.elements, return_index=True)
        lines += ["*NODAL THICKNESS", formatted("%d, %.6f", nodes, deck.thickness_mm.ravel()[first])]
    nodal = ", NODAL THICKNESS" if deck.thickness_mm is not None else ""
    for p in deck.parts:
        lines += [
            f"*SHELL SECTION, ELSET={p.name}, MATERIAL=CORTICAL, OFFSET={OUTER_SURFACE}{nodal}",
            f"{p.thickness_mm:.6f}",
        ]
    return lines


def _comments(deck: Deck) -> list[str]:
    return [f"** {line}" for line in deck.header()]
