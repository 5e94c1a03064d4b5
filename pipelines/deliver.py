"""Models -> what people take away: means, their difference, modes, pictures, and the report."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pipelines import verbs
from pipelines.cohort import GROUPS, model_file
from pipelines.settings import Settings
from pipelines.subject import STUDY_VIEWS
from pipelines.workspace import COHORT, OK, Outcome, Record, Timing, Workspace, run_stage, stage_key, write_text
from shapemodel import render
from shapemodel.anatomy import bone
from shapemodel.mesh import Mesh, vertex_areas, vertex_normals
from shapemodel.reasons import InputError
from shapemodel.report import ReportData, ShapeEntry, StudyEntry, Table
from shapemodel.report import render as render_page

log = logging.getLogger(__name__)

MEAN_FORMATS = (".stl", ".ply", ".vtp")
MEAN_VIEWS: tuple[render.View, ...] = ("front", "left", "back")
MODE_VIEWS: tuple[render.View, ...] = ("front", "left")
PICTURE_FOLDER = "pictures"
REPORT_FILE = "report.html"
COHORT_FILE = "studies.json"

LITTLE_SEEN = 0.5
"""Vertices that less than this share of a group's subjects showed are drawn see-through."""

SIGNED_COLORS = ("coolwarm", "linear-gradient(90deg,#3b4cc0,#dddddd,#b40426)")
"""Colour map of signed millimetres, for the picture and for the page."""

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


def results(workspace: Workspace, settings: Settings) -> tuple[Record, Timing | None]:
    """Means with their symmetric forms, the difference map, modes, and pictures of all."""
    model_record = workspace.read(COHORT, "model")
    if model_record is None:
        raise ValueError("results need models")
    problem = render.missing()
    shown = asdict(settings.report)
    shown.pop("thumbnail_px")
    key = stage_key("results", {"models": dict(model_record.outputs), "can": not problem}, shown)

    def body(work: Path) -> Outcome:
        models = {g: verbs.read_model(workspace.folder() / model_file(g)) for g in model_record.numbers}
        shapes = {name: mesh for g, m in models.items() for name, mesh in mean_shapes(g, m)}
        for name, mesh in shapes.items():
            write_all(mesh, work / name)
        numbers: dict[str, Any] = {"means": sorted(shapes), "notice": problem}
        if {"mean_female", "mean_male"} <= shapes.keys():
            shapes["difference"] = difference(shapes["mean_female"], shapes["mean_male"])
            write_all(shapes["difference"], work / "difference_female_male", (".vtp",))
            numbers["difference"] = difference_numbers(shapes["difference"])
        if not problem:
            (work / PICTURE_FOLDER).mkdir()
            draw(shapes, models, work / PICTURE_FOLDER, settings)
        return Outcome(numbers)

    return run_stage(workspace, COHORT, "results", key=key, body=body)


def mean_shapes(group: str, fitted: Any) -> Iterator[tuple[str, Mesh]]:
    """A group's mean, and its left-right symmetric form, with file names."""
    mean = verbs.mean(fitted)
    n = max(int(fitted.n_subjects), 1)
    seen = np.asarray(fitted.n_seen) >= LITTLE_SEEN * n
    yield f"mean_{group}", mean.with_arrays(well_seen=seen)
    symmetric = verbs.symmetric_mean(fitted)
    if symmetric is not None:
        yield f"mean_{group}_symmetric", symmetric.with_arrays(well_seen=seen)


def write_all(mesh: Mesh, path: Path, endings: Sequence[str] = MEAN_FORMATS) -> None:
    """A shape in several formats."""
    from shapemodel.export import write_shape

    for ending in endings:
        write_shape(mesh, path.with_name(path.name + ending))


def difference(female: Mesh, male: Mesh) -> Mesh:
    """The female mean with what separates it from the male mean, in the models' common frame.

    Arrays: ``difference_mm`` (V, 3) male - female; ``distance_mm`` (V,) its length; ``outward_mm`` (V,) along
    the outward normal: positive where the male surface lies outside the female one.
    """
    gap = male.vertices - female.vertices
    outward = np.einsum("ij,ij->i", gap, vertex_normals(female.vertices, female.faces))
    return female.with_arrays(difference_mm=gap, distance_mm=np.linalg.norm(gap, axis=1), outward_mm=outward)


def difference_numbers(mesh: Mesh) -> dict[str, Any]:
    """Area-weighted mean distance between the two means, overall and by bone."""
    area, distance = vertex_areas(mesh.vertices, mesh.faces), np.asarray(mesh.arrays["distance_mm"])
    by_bone = {
        bone(k).name: round(float(np.average(distance[own], weights=area[own])), 2)
        for k in mesh.labels
        if (own := mesh.bone == k).any()
    }
    return {"mean_mm": round(float(np.average(distance, weights=area)), 3), "bones": by_bone}


def draw(shapes: Mapping[str, Mesh], models: Mapping[str, Any], place: Path, settings: Settings) -> None:
    """Pictures of means, difference and modes, all to one scale."""
    height = settings.report.picture_px
    box = common_box([m for m in shapes.values()])
    for name, mesh in shapes.items():
        if name == "difference" or name.endswith("_symmetric"):
            continue
        for view in MEAN_VIEWS:
            _save(
                render.picture(mesh, view, height=height, look=render.Look(seen="well_seen"), box=box),
                place,
                name,
                view,
            )
    if "difference" in shapes:
        signed = shapes["difference"]
        limit = difference_limit(signed)
        look = render.Look(scalars="outward_mm", limits=(-limit, limit), colormap=SIGNED_COLORS[0])
        for view in MEAN_VIEWS:
            _save(render.picture(signed, view, height=height, look=look, box=box), place, "difference", view)
    pooled = models.get("pooled")
    if pooled is not None:
        for k in range(min(settings.report.modes, pooled.n_modes)):
            for name, sign in (("minus", -1.0), ("plus", 1.0)):
                scores = np.zeros(k + 1)
                scores[k] = sign * settings.report.sigma
                mesh = pooled.mesh(pooled.instance(scores))
                for view in MODE_VIEWS:
                    _save(render.picture(mesh, view, height=height, box=box), place, f"mode{k + 1}_{name}", view)


def common_box(meshes: Sequence[Mesh]) -> np.ndarray:
    """(2, 3) mm: the corners of a box that holds all, with room for modes."""
    low = np.min([m.vertices.min(axis=0) for m in meshes], axis=0)
    high = np.max([m.vertices.max(axis=0) for m in meshes], axis=0)
    room = 0.04 * (high - low)
    return np.array([low - room, high + room])


def difference_limit(mesh: Mesh) -> float:
    """Ends of the colour scale, mm: the 98th percentile, rounded up to a whole millimetre."""
    return float(max(np.ceil(np.percentile(np.abs(mesh.arrays["outward_mm"]), 98)), 1.0))


def _save(image: np.ndarray, place: Path, name: str, view: str) -> None:
    (place / f"{name}_{view}.webp").write_bytes(render.encode(image))


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
    models = {g: model.numbers[g] for g in GROUPS if g in model.numbers} if model else {}
    numbers = result.numbers if result else {}
    return ReportData(
        title="Average female and male skeletal thorax",
        statements=statements(entries, models),
        studies=entries,
        means=tuple(mean_entry(workspace, g, models[g], settings) for g in models if g != "pooled"),
        difference=difference_entries(workspace, numbers),
        modes=mode_entries(workspace, models, settings),
        scree={g: m["scree"] for g, m in models.items()},
        tables=tables(numbers),
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
        f"mean_{group}_symmetric{e}"
        for e in MEAN_FORMATS
        if (workspace.results / f"mean_{group}_symmetric{e}").is_file()
    )
    note = f"{numbers['n']} studies; {numbers['seen_by_all_percent']} % of the surface is seen in all of them"
    return ShapeEntry(f"{group} mean", note, _pictures(workspace, f"mean_{group}", MEAN_VIEWS), files=files)


def difference_entries(workspace: Workspace, numbers: Mapping[str, Any]) -> tuple[ShapeEntry, ...]:
    """The difference map for the report; nothing without both sexes."""
    if "difference" not in numbers:
        return ()
    from shapemodel.mesh import read_vtp

    limit = difference_limit(read_vtp(workspace.results / "difference_female_male.vtp"))
    pictures = _pictures(workspace, "difference", MEAN_VIEWS)
    note = f"on average the two means lie {numbers['difference']['mean_mm']} mm apart; red: male outside female"
    scale = (-limit, limit, "mm, male outside female", SIGNED_COLORS[1]) if pictures else None
    return (
        ShapeEntry("male against female, on the female mean", note, pictures, scale, ("difference_female_male.vtp",)),
    )


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


def tables(numbers: Mapping[str, Any]) -> tuple[Table, ...]:
    """Tables of the results."""
    made = []
    if "difference" in numbers:
        rows = [[name, value] for name, value in numbers["difference"]["bones"].items()]
        half = (len(rows) + 1) // 2
        wide = [rows[i] + (rows[i + half] if i + half < len(rows) else ["", None]) for i in range(half)]
        made.append(
            Table(
                "Distance between the means by bone", ("bone", "mm", "bone", "mm"), wide, "mean over the bone's surface"
            )
        )
    return tuple(made)


def provenance_rows(workspace: Workspace) -> dict[str, str]:
    """What made the results, for the end of the page."""
    path = workspace.root / "provenance.json"
    if not path.is_file():
        return {}
    data = json.loads(path.read_text(encoding="utf-8"))
    rows = {k: str(v) for k, v in data.items() if not isinstance(v, Mapping)}
    return {**rows, **{k: str(v) for k, v in data.get("versions", {}).items()}}
