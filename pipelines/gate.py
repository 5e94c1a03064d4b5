"""Which shapes of a run are put to the gate of exported shapes, and the tables that say how they did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shapemodel.report import Table

if TYPE_CHECKING:
    from pipelines.settings import ReportSettings
    from shapemodel.mesh import Mesh
    from shapemodel.meshquality import PartQuality, Verdict
    from shapemodel.ready import Ready

TEMPLATE = "template"
"""Name of the template among the shapes; it has a stricter gate of its own."""

SAMPLE_SEED = 1
"""Seed of the random shapes that are checked; ``shapemodel query MODEL --sample 20 --seed 1`` gives the same ones."""


def trial_shapes(fitted: Any, settings: ReportSettings) -> Iterator[tuple[str, Mesh]]:
    """Both ends of the first modes of a model, and random shapes of it, by name."""
    for k in range(min(settings.checked_modes, fitted.n_modes)):
        for name, sign in (("minus", -1.0), ("plus", 1.0)):
            scores = np.zeros(k + 1)
            scores[k] = sign * settings.sigma
            yield f"{fitted.group} mode {k + 1} {name} {settings.sigma:g} SD", fitted.mesh(fitted.instance(scores))
    for i, vertices in enumerate(fitted.sample(settings.checked_samples, seed=SAMPLE_SEED), 1):
        yield f"{fitted.group} sample {i:02d}", fitted.mesh(vertices)


def row(verdict: Verdict, faces: int, found: Ready | None = None) -> dict[str, Any]:
    """How good a shape's triangles are, and how far it was moved to make them so."""
    whole = verdict.whole
    return {
        "passed": verdict.passed,
        "faces": faces,
        "min_angle_deg": round(float(whole.min_angle), 2),
        "min_angle_1st_percentile_deg": round(float(whole.min_angle_99), 2),
        "max_aspect_ratio": round(float(whole.aspect_ratio), 3),
        "intersecting_pairs": len(verdict.intersections.pairs),
        "moved_mean_mm": round(float(found.off_mm.mean()), 4) if found else None,
        "moved_max_mm": round(float(found.off_mm.max()), 2) if found else None,
        "failures": list(verdict.failures[:5]),
    }


def ids_of(mesh: Mesh) -> str:
    """Hash of the node and element numbers that a deck of this shape has."""
    import hashlib

    from shapemodel.export import make_deck

    deck = make_deck(mesh)
    parts = (deck.node_ids, deck.element_ids, deck.elements, deck.element_pid)
    return hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in parts)).hexdigest()


def worst_by_part(verdicts: Sequence[Verdict]) -> list[list[Any]]:
    """One row a part: the worst of all shapes by every criterion of the gate."""
    rows = []
    for own in zip(*(v.parts for v in verdicts), strict=True):
        parts: Sequence[PartQuality] = own
        rows.append(
            [
                parts[0].name,
                parts[0].n_faces,
                *(round(min(getattr(p, n) for p in parts), 2) for n in ("min_angle", "min_angle_99")),
                *(round(max(getattr(p, n) for p in parts), 2) for n in ("max_angle", "edge_ratio", "aspect_ratio")),
                *(round(min(getattr(p, n) for p in parts), 2) for n in ("edge_min_mm", "time_step_us")),
                *(
                    round(max(getattr(p, n) for p in parts), 2)
                    for n in ("beyond_hard_percent", "beyond_target_percent")
                ),
            ]
        )
    return rows


PART_COLUMNS = (
    "part",
    "faces",
    "min angle",
    "1st percentile of min angle",
    "max angle",
    "edge ratio",
    "aspect ratio",
    "shortest edge, mm",
    "time step, us",
    "beyond hard limits, %",
    "beyond targets, %",
)
"""Columns of :func:`worst_by_part`; angles in degrees, the time step for cortical bone."""


def quality_tables(numbers: Mapping[str, Any]) -> list[Table]:
    """The gate of exported shapes: by shape, and by part the worst of all shapes."""
    quality = numbers["quality"]
    columns = (
        "passed",
        "min_angle_deg",
        "min_angle_1st_percentile_deg",
        "max_aspect_ratio",
        "intersecting_pairs",
        "moved_mean_mm",
        "moved_max_mm",
    )
    order = sorted(quality, key=lambda name: (name != TEMPLATE, not name.startswith("mean_")))
    rows = [[n, *(quality[n].get(c) for c in columns), "; ".join(quality[n]["failures"])] for n in order]
    passed = sum(bool(own["passed"]) for own in quality.values())
    note = (
        f"{passed} of {len(rows)} shapes pass the gate of exported shapes (min angle > 18 deg for all, > 27 deg for "
        f"99 % of the triangles, none cut each other; the template: > 26 and > 35 deg); "
        f"{next(iter(quality.values()))['faces']} triangles each; "
        f"node and element numbers {'are' if numbers.get('same_ids') else 'are NOT'} the same in all. Moved: distance "
        "of the surface from the shape as the model has it, over all vertices"
    )
    heads = ("shape", *(c.replace("_", " ") for c in columns), "failures")
    made = [Table("Quality of the meshes, by shape", heads, rows, note)]
    if "parts" in numbers:
        note = "the worst of all these shapes by each criterion; the table of every shape is in quality.txt"
        made.append(Table("Quality of the meshes, by part", PART_COLUMNS, numbers["parts"], note))
    return made


def passed_on(mesh: Mesh, maker: Any, path: Path) -> tuple[Mesh, str]:
    """A shape of a model as it may be written, and what that cost; a deck that does not pass the gate is refused.

    Parameters
    ----------
    maker : of :func:`pipelines.verbs.finisher`

    Raises
    ------
    InputError : with the criteria and the places
    """
    found = maker(mesh)
    return found.mesh, f"{found.cost}.{_judged(found.verdict, path)}"


def passed_as_it_is(mesh: Mesh, path: Path) -> tuple[Mesh, str]:
    """The same for a shape without a model: healed when it fails and is to become a deck."""
    from shapemodel.export import DECKS
    from shapemodel.meshquality import assess
    from shapemodel.repair import heal

    if path.suffix.lower() not in DECKS:
        return mesh, ""
    verdict = assess(mesh)
    if verdict.passed:
        return mesh, ""
    done = heal(mesh)
    _judged(assess(done.mesh), path)
    off = done.off_surface_mm
    return done.mesh, f"healed: the surface moved by {off.mean():.3f} mm on average, {off.max():.2f} mm at most"


def _judged(verdict: Verdict, path: Path) -> str:
    """The warning about a shape that does not pass; a deck never leaves so unless asked for as it is."""
    from shapemodel.export import DECKS
    from shapemodel.ready import insist

    if path.suffix.lower() in DECKS:
        insist(verdict, f"{path} (--raw writes it as it is)")
    return "" if verdict.passed else f" Warning: it does not pass the gate: {'; '.join(verdict.failures[:2])}."


def text(verdicts: Mapping[str, Verdict], costs: Mapping[str, str]) -> str:
    """The full tables by part of every shape, one after another."""
    from shapemodel.meshquality import table_text

    return "\n\n".join(f"{name}: {costs.get(name, '')}\n{table_text(v)}" for name, v in verdicts.items()) + "\n"
