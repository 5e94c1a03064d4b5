"""Abaqus input deck; CalculiX reads the same file."""

from __future__ import annotations

from collections.abc import Iterable

from shapemodel.export.deck import Deck

OUTER_SURFACE = 0.5
"""OFFSET of *SHELL SECTION, as a fraction of the thickness: the nodes are the top (outer) surface."""


def deck_text(deck: Deck, include: str | None = None) -> str:
    """Nodes, S3 shells, sections, material and sets; with ``include`` the nodes are left to that file."""
    nodes = nodes_text(deck).splitlines() if include is None else [*_comments(deck), f"*INCLUDE, INPUT={include}"]
    lines = list(nodes)
    rows = list(zip(deck.element_ids.tolist(), deck.elements.tolist(), strict=True))
    for p in deck.parts:
        own = (deck.element_pid == p.pid).nonzero()[0].tolist()
        lines.append(f"*ELEMENT, TYPE=S3, ELSET={p.name}")
        lines += [f"{rows[i][0]}, {rows[i][1][0]}, {rows[i][1][1]}, {rows[i][1][2]}" for i in own]
    for name, ids in deck.node_sets.items():
        lines += [f"*NSET, NSET={name}", *_rows(ids.tolist())]
    for name, parts in deck.groups().items():
        lines += [f"*ELSET, ELSET={name}_parts", *(p.name for p in parts)]
    return "\n".join([*lines, *_sections(deck), ""])


def nodes_text(deck: Deck) -> str:
    """The ``*NODE`` block alone: what changes from one percentile to the next."""
    rows = zip(deck.node_ids.tolist(), deck.nodes.tolist(), strict=True)
    return "\n".join([*_comments(deck), "*NODE", *(f"{i}, {x:.8f}, {y:.8f}, {z:.8f}" for i, (x, y, z) in rows), ""])


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
        thickness = dict(zip(deck.elements.ravel().tolist(), deck.thickness_mm.ravel().tolist(), strict=True))
        lines += ["*NODAL THICKNESS", *(f"{i}, {t:.6f}" for i, t in sorted(thickness.items()))]
    nodal = ", NODAL THICKNESS" if deck.thickness_mm is not None else ""
    for p in deck.parts:
        lines += [
            f"*SHELL SECTION, ELSET={p.name}, MATERIAL=CORTICAL, OFFSET={OUTER_SURFACE}{nodal}",
            f"{p.thickness_mm:.6f}",
        ]
    return lines


def _comments(deck: Deck) -> list[str]:
    return [f"** {line}" for line in deck.header()]


def _rows(ids: Iterable[int], per_line: int = 12) -> list[str]:
    ids = list(ids)
    return [", ".join(map(str, ids[i : i + per_line])) for i in range(0, len(ids), per_line)]
