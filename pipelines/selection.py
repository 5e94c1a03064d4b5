"""Whom the gates drop: those left out beside those used, so that a reader sees whether the cohort was skewed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from shapemodel.report import StudyEntry, Table

FEW_LEFT_OUT = 3
"""Fewer left out say nothing about who is left out; the note says so."""

ROWS: tuple[tuple[str, Callable[[StudyEntry], float | None]], ...] = (
    ("women, %", lambda e: {"F": 100.0, "M": 0.0}.get(e.sex or "")),
    ("age, years", lambda e: e.age_years),
    ("height, cm", lambda e: e.height_cm),
    ("weight, kg", lambda e: e.weight_kg),
    ("lung volume, mL", lambda e: e.numbers.get("lung_volume_ml")),
    ("bones shown whole", lambda e: float(sum(s == "complete" for s in e.bones.values())) if e.bones else None),
)
"""What the two groups are compared by."""


def selection_table(entries: Sequence[StudyEntry]) -> Table | None:
    """Mean, standard deviation and number known, of the used and of those left out; None when nobody was left out."""
    used, out = [e for e in entries if e.used], [e for e in entries if not e.used]
    if not out:
        return None
    rows: list[list[Any]] = []
    for name, value in ROWS:
        cells: list[Any] = [name]
        means, errors = [], []
        for group in (used, out):
            known = np.array([v for e in group if (v := value(e)) is not None], float)
            spread = float(known.std(ddof=1)) if len(known) > 1 else None
            cells += [float(known.mean()) if len(known) else None, spread, len(known)]
            means.append(known.mean() if len(known) else np.nan)
            errors.append((spread or np.nan) / np.sqrt(max(len(known), 1)))
        cells.append(_standing(float(means[1] - means[0]), float(np.hypot(*errors))))
        rows.append(cells)
    note = f"{len(out)} of {len(entries)} studies left out; z: difference over its standard error, beyond 2 is notable"
    if len(out) < FEW_LEFT_OUT:
        note += "; so few say nothing about who is left out"
    heads = ("", "used: mean", "SD", "known", "left out: mean", "SD", "known", "z")
    return Table("Who was left out, beside who was used", heads, rows, note)


def _standing(difference: float, error: float) -> float | None:
    """Difference over its standard error; None where it cannot be had."""
    return difference / error if np.isfinite(difference) and np.isfinite(error) and error > 0 else None
