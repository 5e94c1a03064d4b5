"""What the report says: from the records of a run's folder to one HTML page."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pipelines import judged, verbs
from pipelines import measured as measured_
from pipelines.cohort import DIFFERENCE_FILE, GROUPS
from pipelines.costs import Timing
from pipelines.deliver import MEAN_FORMATS, MEAN_VIEWS, MODE_VIEWS, PICTURE_FOLDER, SIGNED_COLORS, difference_limit
from pipelines.gate import quality_tables
from pipelines.selection import selection_table
from pipelines.settings import Settings
from pipelines.subject import STUDY_VIEWS
from pipelines.workspace import COHORT, OK, Outcome, Record, Workspace, run_stage, stage_key, write_text
from shapemodel.mesh import read_vtp
from shapemodel.reasons import InputError
from shapemodel.report import ReportData, ShapeEntry, StudyEntry, Table
from shapemodel.report import render as render_page

log = logging.getLogger(__name__)

REPORT_FILE = "report.html"
COHORT_FILE = "studies.json"

STUDY_NUMBERS = (
    ("labels", "confidence"),
    ("labels", "lung_volume_ml"),
    ("labels", "arms"),
    ("registration", "residual_mean_mm"),
    ("registration", "residual_p95_mm"),
    ("registration", "visible_percent"),
    ("registration", "unsure_bones"),
)
"""Numbers of a study that the report shows: stage and name."""

STAGES = ("labels", "surfaces", "pictures", "registration")


def write_cohort(space: Workspace, studies: Sequence[Any], refused: Mapping[str, tuple[str, str, str]]) -> Path:
    """Note who came in and who was left out, so that the report can be written again without the manifest."""
    rows = [
        {k: v for k, v in asdict(s).items() if not isinstance(v, Path)} | {"refused": refused.get(s.subject)}
        for s in studies
    ]
    return write_text(space.folder() / COHORT_FILE, json.dumps(rows, indent=1, sort_keys=True) + "\n")


def read_cohort(space: Workspace) -> tuple[list[Any], dict[str, tuple[str, str, str]]]:
    """What :func:`write_cohort` noted."""
    from shapemodel.study import Study

    path = space.folder() / COHORT_FILE
    if not path.is_file():
        raise InputError(f"{space.root}: the run did not come to its end; run it again")
    rows = json.loads(path.read_text(encoding="utf-8"))
    refused = {r["subject"]: tuple(r["refused"]) for r in rows if r["refused"]}
    return [Study(**{k: v for k, v in r.items() if k != "refused"}) for r in rows], refused


def report(
    workspace: Workspace, studies: Sequence[Any], refused: Mapping[str, tuple[str, str, str]], settings: Settings
) -> tuple[Record, Timing | None]:
    """One HTML file of everything that a reviewer should see."""
    entries = tuple(study_entry(workspace, s, refused.get(s.subject)) for s in studies)
    result = workspace.read(COHORT, "results")
    inputs = {
        "records": [[r.key if r else "" for r in _records(workspace, s.subject)] for s in studies],
        "rows": [[str(v) for v in asdict(s).values() if not isinstance(v, Path)] for s in studies],
        "refused": {k: list(v) for k, v in refused.items()},
        "results": dict(result.outputs) if result else {},
        "model": getattr(workspace.read(COHORT, "model"), "key", ""),
        "evaluation": getattr(workspace.read(COHORT, "evaluation"), "key", ""),
    }
    key = stage_key("report", inputs, asdict(settings.report))

    def body(work: Path) -> Outcome:
        text = render_page(report_data(workspace, entries, settings))
        (work / REPORT_FILE).write_text(text, encoding="utf-8")
        return Outcome({"studies": len(entries), "bytes": len(text)})

    return run_stage(workspace, COHORT, "report", key=key, body=body)


def _records(workspace: Workspace, subject: str) -> list[Record | None]:
    return [workspace.read(subject, stage) for stage in STAGES]


def study_entry(workspace: Workspace, study: Any, refusal: tuple[str, str, str] | None) -> StudyEntry:
    """What the report says of a study, from its row and its records."""
    records = {r.stage: r for r in _records(workspace, study.subject) if r is not None}
    labels = records.get("labels")
    bones = labels.numbers.get("bones", {}) if labels and labels.ok else {}
    numbers = {
        name: records[stage].numbers[name]
        for stage, name in STUDY_NUMBERS
        if stage in records and name in records[stage].numbers
    }
    folder = workspace.folder(study.subject)
    pictures: dict[str, bytes] = {
        view: (folder / f"{view}.webp").read_bytes()
        for view in STUDY_VIEWS
        if "pictures" in records and f"{view}.webp" in records["pictures"].outputs
    }
    code, message, stage = refusal or ("", "", "")
    return StudyEntry(
        subject=study.subject,
        sex=study.sex,
        age_years=study.age_years,
        height_cm=study.height_cm,
        weight_kg=study.weight_kg,
        position=study.position,
        code=code,
        message=message,
        stage=stage,
        flags=tuple(f for r in records.values() if r.status == OK for f in r.flags),
        bones={int(k): v for k, v in bones.items()},
        numbers=numbers,
        pictures=pictures,
    )


def report_data(workspace: Workspace, entries: tuple[StudyEntry, ...], settings: Settings) -> ReportData:
    """Everything on the page, from what the run left."""
    model, result = workspace.read(COHORT, "model"), workspace.read(COHORT, "results")
    evaluated = workspace.read(COHORT, "evaluation")
    groups = model.numbers["groups"] if model else {}
    models = {g: groups[g] for g in (*GROUPS, *(g for g in groups if g not in GROUPS)) if g in groups}
    numbers = result.numbers if result else {}
    return ReportData(
        title="Average female and male skeletal thorax",
        statements=statements(entries, models),
        studies=entries,
        means=tuple(mean_entry(workspace, g, models[g], settings) for g in models if g != "pooled"),
        difference=difference_entries(workspace, numbers),
        modes=mode_entries(workspace, models, settings),
        scree={g: m["scree"] for g, m in models.items()},
        charts=judged.charts(evaluated.numbers) if evaluated else (),
        tables=(
            *(judged.tables(evaluated.numbers) if evaluated else ()),
            *((dropped,) if (dropped := selection_table(entries)) else ()),
            *tables(numbers, model.numbers.get("measures", {}) if model else {}),
        ),
        provenance=provenance_rows(workspace),
        notice=str(numbers.get("notice", "")),
    )


def statements(entries: Sequence[StudyEntry], models: Mapping[str, Any]) -> tuple[str, ...]:
    """What every reader of a mean must know: posture, breath, arms, whose chests, how many."""
    used = [e for e in entries if e.used]
    supine = sum(1 for e in used if e.position and e.position.endswith("S"))
    unknown = sum(1 for e in used if not e.position)
    lungs = [float(e.numbers["lung_volume_ml"]) / 1000 for e in used if e.numbers.get("lung_volume_ml")]
    arms = [str(e.numbers.get("arms", "unknown")) for e in used]
    posture = f"Posture: {supine} of {len(used)} studies are tagged supine"
    posture += f", {unknown} do not say" if unknown else ""
    known = [a for a in arms if a in ("up", "down")]
    posture += f"; arms up in {known.count('up')}, down in {known.count('down')}" if known else "; arms not known"
    breath = (
        f" Breath: lung volume {np.mean(lungs):.1f} L on average, {min(lungs):.1f} to {max(lungs):.1f} L "
        f"({len(lungs)} studies)."
        if lungs
        else " Breath: the lung volume is not known."
    )
    lines = [
        posture
        + "."
        + breath
        + " A chest CT is taken lying and breathed in; these are not the shapes of sitting people."
    ]
    lines += [
        f"The {group} mean rests on {models[group]['n']} studies only."
        for group in ("female", "male")
        if group in models and models[group]["n"] < FEW
    ]
    missing = [g for g in ("female", "male") if g not in models]
    lines += [f"There is no {g} model: fewer than {verbs.LEAST_GROUP} studies." for g in missing]
    lines.append("A mean stands for the people of this cohort, not for a population.")
    return tuple(lines)


FEW = 20
"""Below this a mean is said to rest on few studies."""


def _pictures(workspace: Workspace, name: str, views: Sequence[str]) -> dict[str, bytes]:
    place = workspace.results / PICTURE_FOLDER
    return {v: p.read_bytes() for v in views if (p := place / f"{name}_{v}.webp").is_file()}


def mean_entry(workspace: Workspace, group: str, numbers: Mapping[str, Any], settings: Settings) -> ShapeEntry:
    """A group's mean for the report."""
    del settings
    files = tuple(f"mean_{group}{ending}" for ending in MEAN_FORMATS)
    files += tuple(
        f"mean_{group}_{form}{e}"
        for form in ("symmetric", "size_matched")
        for e in MEAN_FORMATS
        if (workspace.results / f"mean_{group}_{form}{e}").is_file()
    )
    note = f"{numbers['n']} studies; {numbers['seen_by_all_percent']:.0f} % of the surface is seen in all of them"
    return ShapeEntry(f"{group} mean", note, _pictures(workspace, f"mean_{group}", MEAN_VIEWS), files=files)


def difference_entries(workspace: Workspace, numbers: Mapping[str, Any]) -> tuple[ShapeEntry, ...]:
    """The difference map for the report; nothing without both sexes."""
    if "difference" not in numbers:
        return ()
    limit = difference_limit(read_vtp(workspace.results / DIFFERENCE_FILE))
    pictures = _pictures(workspace, "difference", MEAN_VIEWS)
    note = f"on average the two means lie {numbers['difference']['mean_mm']} mm apart; red: male outside female"
    scale = (-limit, limit, "mm, male outside female", SIGNED_COLORS[1]) if pictures else None
    return (ShapeEntry("male against female, on the female mean", note, pictures, scale, (DIFFERENCE_FILE,)),)


def mode_entries(
    workspace: Workspace, models: Mapping[str, Any], settings: Settings
) -> tuple[tuple[ShapeEntry, ShapeEntry], ...]:
    """Both ends of the first modes of the pooled model."""
    if "pooled" not in models:
        return ()
    pairs = []
    for k in range(1, min(settings.report.modes, models["pooled"]["modes"]) + 1):
        share = f"{100 * models['pooled']['scree'][k - 1]:.1f} % of the variance"
        ends = [
            ShapeEntry(
                f"mode {k}, {sign}{settings.report.sigma:g} SD",
                share,
                _pictures(workspace, f"mode{k}_{name}", MODE_VIEWS),
            )
            for name, sign in (("minus", "−"), ("plus", "+"))
        ]
        pairs.append((ends[0], ends[1]))
    return tuple(p for p in pairs if p[0].pictures)


def tables(numbers: Mapping[str, Any], measured: Mapping[str, Mapping[str, Any]]) -> tuple[Table, ...]:
    """Tables of the results: measures by sex, distance between the means, quality of the meshes."""
    made = [measured_.table(measured)] if {"female", "male"} <= measured.keys() else []
    if "difference" in numbers:
        rows = [[name, value] for name, value in numbers["difference"]["bones"].items()]
        half = (len(rows) + 1) // 2
        wide = [rows[i] + (rows[i + half] if i + half < len(rows) else ["", None]) for i in range(half)]
        note = (
            f"mean over the bone's surface; {numbers['difference']['different_percent']} % of the surface differs "
            "at a false-discovery rate of 5 % (permutation test)"
        )
        made.append(Table("Distance between the means by bone", ("bone", "mm", "bone", "mm"), wide, note))
    if "quality" in numbers:
        made += quality_tables(numbers)
    return tuple(made)


def provenance_rows(workspace: Workspace) -> dict[str, str]:
    """What made the results, for the end of the page."""
    path = workspace.root / "provenance.json"
    if not path.is_file():
        return {}
    data = json.loads(path.read_text(encoding="utf-8"))
    rows = {k: str(v) for k, v in data.items() if not isinstance(v, Mapping)}
    return {**rows, **{k: str(v) for k, v in data.get("versions", {}).items()}}
