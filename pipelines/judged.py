"""How good the models are, as the report shows it: curves, learning curve, error budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shapemodel.report import Chart, Table

HEADS = {
    "compactness": ("Compactness", "share of the variance"),
    "generalization": ("Generalization, corresponding vertices", "mm"),
    "generalization_surface": ("Generalization, surface distance", "mm"),
    "specificity": ("Specificity", "mm"),
}
CAGE = "whole thorax"
MOST_POINTS = 30
"""Modes shown in the compactness chart."""


def charts(numbers: Mapping[str, Any]) -> tuple[Chart, ...]:
    """Curves for the thorax and each bone, and how the means settle with the number of subjects."""
    made = []
    for name, (title, unit) in HEADS.items():
        curve = numbers["curves"].get(name)
        if curve and len(curve["at"]) > 1:
            lines = {CAGE: curve["value"], **curve["bones"]}
            cut = {k: v[:MOST_POINTS] for k, v in lines.items()}
            note = curve["definition"] + (_how(curve) if name.startswith("generalization") else "")
            made.append(Chart(title, "modes", unit, curve["at"][:MOST_POINTS], cut, note + " Thin: each bone."))
    made += [_learning(group, own) for group, own in numbers["learning"].items() if own]
    return tuple(made)


def _how(curve: Mapping[str, Any]) -> str:
    n, folds = curve["subjects"], curve["folds"]
    return f" Here: {'leave-one-out' if folds >= n else f'{folds}-fold'} over {n} subjects, on nodes of the template."


def _learning(group: str, own: Mapping[str, Any]) -> Chart:
    needed = ", ".join(f"{goal} mm: {n}" for goal, n in own["needed"].items())
    note = (
        f"{own['definition']} By it a mean of m subjects lies {own['scale_mm']:.1f} mm / sqrt(m) from its "
        f"population's: {own['now_mm']:.2f} mm with the {own['subjects']} at hand; subjects needed for {needed}."
    )
    return Chart(f"Learning curve of the {group} mean", "subjects m", "mm", own["at"], {group: own["value"]}, note)


def tables(numbers: Mapping[str, Any]) -> tuple[Table, ...]:
    """The metrics at each number of modes, the worst bones, and the error budget by bone."""
    made = []
    curves = {k: c for k, c in numbers["curves"].items() if k in HEADS and k != "compactness"}
    if curves:
        first = next(iter(curves.values()))
        compact = numbers["curves"]["compactness"]["value"]
        rows: list[Sequence[Any]] = []
        for i, m in enumerate(first["at"]):
            cells = [f"{c['value'][i]:.2f} ± {c['error'][i]:.2f}" for c in curves.values()]
            rows.append([m, f"{100 * compact[m - 1]:.1f} %", *cells])
        heads = ("modes", "compactness", *(f"{HEADS[k][0].lower()}, mm" for k in curves))
        made.append(Table("Quality of the pooled model", heads, rows, "± standard error over subjects or samples"))
    budget = {g: b for g, b in numbers["budget"].items() if b and g != "pooled"} or numbers["budget"]
    if any(budget.values()):
        made.append(_budget(budget))
    return tuple(made)


def _budget(budget: Mapping[str, Mapping[str, Sequence[float]]]) -> Table:
    groups = list(budget)
    names = list(next(iter(budget.values())))
    rows = []
    for name in names:
        boundary, correspondence = budget[groups[0]][name][:2]
        own = [x for g in groups for x in budget[g].get(name, [None] * 4)[2:]]
        rows.append([name, boundary, correspondence, *own])
    heads = ("bone", "label boundary", "correspondence", *(h for g in groups for h in (f"sampling {g}", f"total {g}")))
    note = (
        "mm, root mean square. Label boundary: automatic labels against true bones, measured by kind of bone on "
        "phantom CTs, not on this cohort. Correspondence: what the registrations of this cohort expect of themselves, "
        "sliding along the bone included. Sampling: standard error of the mean. Total: root of the sum of squares; the "
        "first two are not divided by the number of subjects, since what is systematic in them does not average out."
    )
    return Table("Error budget of the means, by bone", heads, rows, note)
