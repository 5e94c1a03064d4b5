"""Nastran bulk data: GRID in the 16-character format, CTRIA3 shells, PSHELL, MAT1, SET1."""

from __future__ import annotations

from shapemodel.export.deck import Deck

CONTROL = ("SOL 103", "CEND")
"""Executive control of a free modal analysis, without which readers do not take the file for a whole deck."""


def deck_text(deck: Deck, include: str | None = None) -> str:
    """The least executive control and the bulk data; with ``include`` the nodes are left to that file."""
    lines = [*_comments(deck), *CONTROL, "BEGIN BULK"]
    lines += _grid(deck) if include is None else [f"INCLUDE '{include}'"]
    offset = {p.pid: real(-p.thickness_mm / 2) for p in deck.parts}
    rows = zip(deck.element_ids.tolist(), deck.element_pid.tolist(), deck.elements.tolist(), strict=True)
    corners = None if deck.thickness_mm is None else deck.thickness_mm.tolist()
    for i, (e, p, (a, b, c)) in enumerate(rows):
        if corners is None:
            lines.append(f"CTRIA3  {e:8d}{p:8d}{a:8d}{b:8d}{c:8d}{'':8s}{offset[p]}")
        else:
            t = corners[i]
            lines.append(f"CTRIA3  {e:8d}{p:8d}{a:8d}{b:8d}{c:8d}{'':8s}{real(-sum(t) / 6)}")
            lines.append(f"{'':24s}{real(t[0])}{real(t[1])}{real(t[2])}")
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


def _grid(deck: Deck) -> list[str]:
    lines = []
    for i, (x, y, z) in zip(deck.node_ids.tolist(), deck.nodes.tolist(), strict=True):
        lines += [f"GRID*   {i:16d}{'':16s}{x:16.8f}{y:16.8f}", f"*       {z:16.8f}"]
    return lines


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
