"""Anatomical measures by sex beside published ones: for the report, and as a CSV that others can read."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from shapemodel.report import Table

FIRST = ("cage_width_mm", "cage_depth_mm", "cage_height_mm", "sternum_length_mm", "thoracic_spine_length_mm")
"""Measures shown first; kyphosis, lengths and angles of the ribs, and volumes follow."""

FOLLOWING = (("kyphosis", ""), ("rib_", "_length_mm"), ("rib_", "_inclination_deg"), ("", "_volume_ml"))
"""Beginnings and ends of names, in the order in which they are shown."""

TOLERANCE = 0.05
"""Published means of two large cohorts differ by up to 4 % for ribs 2 to 10: less than this says nothing."""

STANDARD_ERRORS = 2.0

Measures = Mapping[str, Mapping[str, Any]]


def ordered(measured: Measures) -> list[str]:
    """Names of the measures in the order in which they are shown."""
    every = list(dict.fromkeys(n for own in measured.values() for n in own))
    names = [n for n in FIRST if n in every]
    for start, end in FOLLOWING:
        names += sorted(n for n in every if n.startswith(start) and n.endswith(end) and n not in names)
    return names


def deviation(own: Any, published: float | None) -> str:
    """How a mean deviates from a published one, when by more than the tolerance and than chance; else empty."""
    if not own or own[0] is None or published is None:
        return ""
    mean, sd, n = own
    gap = mean - published
    error = sd / np.sqrt(n) if sd and n > 1 else np.inf
    if abs(gap) <= TOLERANCE * abs(published) or abs(gap) <= STANDARD_ERRORS * error:
        return ""
    return f"{100 * gap / published:+.0f} %"


def table(measured: Measures) -> Table:
    """Measures by sex, beside published ones, and what deviates."""
    from shapemodel.measures import PUBLISHED

    rows, off = [], 0
    for name in ordered(measured):
        cells: list[Any] = [name.replace("_", " ")]
        published = PUBLISHED.get(name, (None, None, ""))
        said = []
        for group, theirs in (("female", published[0]), ("male", published[1])):
            mean, sd, n = measured[group].get(name) or (None, None, 0)
            cells += [mean, sd, int(n)]
            said.append(deviation(measured[group].get(name), theirs))
        off += any(said)
        told = ", ".join(f"{who} {what}" for who, what in zip("FM", said, strict=True) if what)
        rows.append([*cells, published[0], published[1], told, published[2]])
    heads = ("measure", "F mean", "F SD", "F n", "M mean", "M SD", "M n", "published F", "published M", "deviates")
    compared = sum(1 for r in rows if r[7] is not None)
    note = (
        f"n: studies that show at least 95 % of the bones that the measure needs. {off} of {compared} measures with "
        f"published values deviate from them by more than {100 * TOLERANCE:.0f} % and two standard errors. Angles are "
        "those of the rib's chord below the horizontal, seen from the side."
    )
    return Table("Measures", (*heads, "source"), rows, note)


def write_csv(measured: Measures, path: Path) -> Path:
    """Every measure of every group: ``measure, group, mean, sd, n``."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        out = csv.writer(stream, lineterminator="\n")
        out.writerow(["measure", "group", "mean", "sd", "n"])
        for name in ordered(measured):
            for group, own in measured.items():
                mean, sd, n = own.get(name) or (None, None, 0)
                out.writerow([name, group, *("" if x is None else f"{x:g}" for x in (mean, sd)), int(n)])
    return path
