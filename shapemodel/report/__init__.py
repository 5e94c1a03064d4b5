"""The report: one HTML file that shows what came in, what became of it, and what went wrong.

Nothing is fetched from anywhere: pictures are inline WebP, charts inline SVG. The page is a pure function
of its records, so the same results give the same bytes.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shapemodel.anatomy import RIBS, STERNUM, VERTEBRAE, bone
from shapemodel.reasons import FLAGS, REASONS
from shapemodel.report.charts import lines_svg, scree_svg, strip_svg

STATUSES = ("complete", "cut", "absent")
UNKNOWN = "unknown"


@dataclass(frozen=True)
class StudyEntry:
    """One study of the cohort.

    Attributes
    ----------
    subject, sex, age_years, height_cm, weight_kg, position : as in the manifest; None when unknown
    code, message : why it was left out; empty when it was used
    stage : where it was left out
    flags : (code, bone label or 0, note)
    bones : label number -> ``complete``, ``cut`` or ``absent``
    numbers : results by name, e.g. ``residual_mean_mm``; shown as they are
    pictures : view -> WebP bytes
    """

    subject: str
    sex: str | None = None
    age_years: float | None = None
    height_cm: float | None = None
    weight_kg: float | None = None
    position: str | None = None
    code: str = ""
    message: str = ""
    stage: str = ""
    flags: tuple[tuple[str, int, str], ...] = ()
    bones: Mapping[int, str] = field(default_factory=dict)
    numbers: Mapping[str, Any] = field(default_factory=dict)
    pictures: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def used(self) -> bool:
        """Whether it is part of the models."""
        return not self.code


@dataclass(frozen=True)
class ShapeEntry:
    """A shape to show: a mean, a difference map, one end of a mode.

    Attributes
    ----------
    title, note : words above and below the pictures
    pictures : view -> WebP bytes
    scale : (low, high, unit, CSS gradient) of the colours, or None
    files : file names beside the report
    """

    title: str
    note: str = ""
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    scale: tuple[float, float, str, str] | None = None
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chart:
    """Curves over one axis: a thick line for the whole, thin ones for its parts.

    Attributes
    ----------
    title, note : words above and below
    across, up : what the axes are
    at : positions along the axis
    lines : name -> values (None: unknown); the first is the whole
    """

    title: str
    across: str
    up: str
    at: Sequence[float]
    lines: Mapping[str, Sequence[float | None]]
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table with a title, column names, rows of cells, and words under it."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[Any]]
    note: str = ""


@dataclass(frozen=True)
class ReportData:
    """Everything on the page.

    Attributes
    ----------
    title : of the page
    statements : sentences that every reader must know (posture, breath, few subjects), shown first
    studies : the cohort in manifest order
    means, difference, modes : shapes to show; ``modes`` holds (minus, plus) pairs
    scree : model name -> share of the variance by mode
    charts : how good the models are
    tables : further tables in order
    provenance : name -> value
    notice : a sentence about what is not on the page (pictures that could not be made), or empty
    """

    title: str
    statements: tuple[str, ...]
    studies: tuple[StudyEntry, ...]
    means: tuple[ShapeEntry, ...] = ()
    difference: tuple[ShapeEntry, ...] = ()
    modes: tuple[tuple[ShapeEntry, ShapeEntry], ...] = ()
    scree: Mapping[str, Sequence[float]] = field(default_factory=dict)
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)
    notice: str = ""


def render(data: ReportData) -> str:
    """The page as HTML text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("shapemodel.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(inline=_inline, number=_number, bone_name=lambda k: bone(int(k)).name, by_code=_by_code)
    return environment.get_template("page.html").render(
        data=data,
        flow=_flow(data.studies),
        columns=_number_columns(data.studies),
        ribs=[[k for k in RIBS if bone(k).side == side] for side in ("right", "left")],
        spine=list(VERTEBRAE),
        sternum=STERNUM,
        reasons=REASONS,
        meanings=FLAGS,
        scree=scree_svg(data.scree) if data.scree else "",
        strips=_strips(data.studies),
        drawn=[(c, lines_svg(c.at, c.lines, c.across, c.up)) for c in data.charts],
    )


def _inline(picture: bytes) -> str:
    return "data:image/webp;base64," + base64.b64encode(picture).decode("ascii")


def _number(value: Any) -> str:
    """A number with as many digits as a reader can use; other values as they are."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if value != value:
            return "–"
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
    return str(value)


def _by_code(flags: Sequence[tuple[str, int, str]]) -> dict[str, list[tuple[int, str]]]:
    """Flags of a study by their code, so that one that many bones carry takes one line."""
    grouped: dict[str, list[tuple[int, str]]] = {}
    for code, label, note in flags:
        grouped.setdefault(code, []).append((label, note))
    return grouped


def _flow(studies: Sequence[StudyEntry]) -> dict[str, Any]:
    """The inclusion flow: how many came, how many were left out and why, how many were used."""
    refused = Counter(s.code for s in studies if not s.used)
    used = [s for s in studies if s.used]
    return {
        "scanned": len(studies),
        "refused": [(code, n, [s.subject for s in studies if s.code == code]) for code, n in sorted(refused.items())],
        "used": len(used),
        "flagged": sum(1 for s in used if s.flags),
        "female": sum(1 for s in used if s.sex == "F"),
        "male": sum(1 for s in used if s.sex == "M"),
    }


def _number_columns(studies: Sequence[StudyEntry]) -> list[str]:
    """Names of the numbers that any study has, in the order of their first coming."""
    return list(dict.fromkeys(name for s in studies for name in s.numbers))


def _strips(studies: Sequence[StudyEntry]) -> dict[str, str]:
    """A strip of dots for each number, so that an odd study stands out."""
    strips: dict[str, str] = {}
    for name in _number_columns(studies):
        points = [
            (s.subject, float(s.numbers[name]), s.sex or "")
            for s in studies
            if isinstance(s.numbers.get(name), int | float) and not isinstance(s.numbers.get(name), bool)
        ]
        if len(points) >= 3:
            strips[name] = strip_svg(points)
    return strips
