"""Models -> what people take away: means, their difference, modes, pictures, and the report."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines import gate, measured, telling, verbs
from pipelines.cohort import DIFFERENCE_FILE, POPULATION_FILE, TEMPLATE_FILE, model_file
from pipelines.costs import Timing
from pipelines.settings import Settings
from pipelines.workspace import COHORT, Outcome, Record, Workspace, run_stage, stage_key, write_text
from shapemodel import render
from shapemodel.anatomy import bone
from shapemodel.mesh import Mesh, read_vtp, vertex_areas
from shapemodel.meshquality import TEMPLATE_GATE, Verdict, assess
from shapemodel.ready import Ready

if TYPE_CHECKING:
    from shapemodel.population import Population

log = logging.getLogger(__name__)

MEAN_FORMATS = (".stl", ".ply", ".vtp")
MEAN_VIEWS: tuple[render.View, ...] = ("front", "left", "back")
MODE_VIEWS: tuple[render.View, ...] = ("front", "left")
PICTURE_FOLDER = "pictures"
REPORT_FILE = "report.html"
COHORT_FILE = "studies.json"

LITTLE_SEEN = 0.5
"""Vertices that less than this share of a group's subjects showed are drawn see-through."""

QUALITY_FILE = "quality.txt"
"""Tables by part of every shape that was put to the gate."""

MEASURES_FILE = "measures.csv"

FALSE_DISCOVERY = 0.05
"""Rate at which a vertex is called different between the sexes."""

SIGNED_COLORS = ("coolwarm", "linear-gradient(90deg,#3b4cc0,#dddddd,#b40426)")
"""Colour map of signed millimetres, for the picture and for the page."""


def results(workspace: Workspace, settings: Settings) -> tuple[Record, Timing | None]:
    """Means with their symmetric forms, the difference map, modes, and pictures of all."""
    model_record = workspace.read(COHORT, "model")
    if model_record is None:
        raise ValueError("results need models")
    problem = render.missing()
    shown = asdict(settings.report)
    shown.pop("thumbnail_px")
    shown["heal"] = settings.cohort.heal
    key = stage_key("results", {"models": dict(model_record.outputs), "can": not problem}, shown)

    def body(work: Path) -> Outcome:
        from shapemodel.population import read_population

        models = {g: verbs.read_model(workspace.folder() / model_file(g)) for g in model_record.numbers["groups"]}
        shapes, quality = finished(models, read_population(workspace.folder() / POPULATION_FILE), settings)
        quality.note_template(read_vtp(workspace.folder() / TEMPLATE_FILE))
        for name, mesh in shapes.items():
            write_all(mesh, work / name)
        numbers: dict[str, Any] = {"means": sorted(shapes), "notice": problem, **quality_numbers(quality)}
        measured.write_csv(model_record.numbers["measures"], work / MEASURES_FILE)
        write_text(work / QUALITY_FILE, gate.text(quality.verdicts, quality.costs))
        if DIFFERENCE_FILE in model_record.outputs:
            shapes["difference"] = read_vtp(workspace.folder() / DIFFERENCE_FILE)
            shutil.copyfile(workspace.folder() / DIFFERENCE_FILE, work / DIFFERENCE_FILE)
            numbers["difference"] = difference_numbers(shapes["difference"])
        if not problem:
            (work / PICTURE_FOLDER).mkdir()
            draw(shapes, models, work / PICTURE_FOLDER, settings)
        return Outcome(numbers)

    return run_stage(workspace, COHORT, "results", key=key, body=body)


@dataclass(frozen=True)
class Quality:
    """What the gate said of each shape by name, what it cost, and whether all have the same ids."""

    verdicts: dict[str, Verdict] = field(default_factory=dict)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    costs: dict[str, str] = field(default_factory=dict)
    ids: set[str] = field(default_factory=set)

    def note(self, name: str, mesh: Mesh, found: Ready | None = None) -> Mesh:
        """Enter a shape; the mesh as it leaves."""
        verdict = found.verdict if found else assess(mesh)
        made = found.mesh if found else mesh
        self.verdicts[name] = verdict
        self.rows[name] = gate.row(verdict, len(made.faces), found)
        self.costs[name] = found.cost if found else "as it is"
        self.ids.add(gate.ids_of(made))
        return made

    def note_template(self, mesh: Mesh) -> None:
        """Enter the template, by its own gate."""
        verdict = assess(mesh, TEMPLATE_GATE)
        self.verdicts[gate.TEMPLATE], self.costs[gate.TEMPLATE] = verdict, "as it is, by its own gate"
        self.rows[gate.TEMPLATE] = gate.row(verdict, len(mesh.faces))
        self.ids.add(gate.ids_of(mesh))


def finished(models: Mapping[str, Any], population: Population, settings: Settings) -> tuple[dict[str, Mesh], Quality]:
    """The means as they are written, and how they and shapes all over the models did at the gate."""
    shapes, quality = {}, Quality()
    makers = {g: verbs.finisher(m) for g, m in models.items()} if settings.cohort.heal else {}
    for group, own in mean_shapes(models, population).items():
        for name, mesh in own.items():
            found = makers[group](mesh) if makers else None
            cost = (found.cost,) if found else ()
            title = name.replace("_", " ")
            shapes[name] = telling.described(quality.note(name, mesh, found), models[group], title, cost)
    if makers:
        group = "pooled" if "pooled" in models else next(iter(models))
        for name, mesh in gate.trial_shapes(models[group], settings.report):
            quality.note(name, mesh, makers[group](mesh))
    return shapes, quality


def mean_shapes(models: Mapping[str, Any], population: Population) -> dict[str, dict[str, Mesh]]:
    """Each group's mean, its left-right symmetric and its size-matched form, by group and file name."""
    mirror = verbs.mirror_map(next(iter(models.values())))
    shapes = {}
    for group, fitted in models.items():
        seen = np.asarray(fitted.n_seen) >= LITTLE_SEEN * max(int(fitted.n_subjects), 1)
        matched = verbs.size_matched_mean(fitted, population)
        shapes[group] = {
            f"mean_{group}": verbs.mean(fitted).with_arrays(well_seen=seen),
            f"mean_{group}_size_matched": matched.with_arrays(well_seen=seen),
            f"mean_{group}_symmetric": verbs.symmetric_mean(fitted, mirror).with_arrays(well_seen=seen),
        }
    return shapes


def quality_numbers(quality: Quality) -> dict[str, Any]:
    """What the record of the stage keeps of the gate."""
    return {
        "quality": quality.rows,
        "parts": gate.worst_by_part([v for name, v in quality.verdicts.items() if name != gate.TEMPLATE]),
        "same_ids": len(quality.ids) == 1,
    }


def write_all(mesh: Mesh, path: Path, endings: Sequence[str] = MEAN_FORMATS) -> None:
    """A shape in several formats."""
    from shapemodel.export import write_shape

    for ending in endings:
        write_shape(mesh, path.with_name(path.name + ending))


def difference_numbers(mesh: Mesh) -> dict[str, Any]:
    """Area-weighted mean distance between the two means, overall and by bone, and how much of it is sure."""
    area, distance = vertex_areas(mesh.vertices, mesh.faces), np.asarray(mesh.arrays["distance_mm"])
    by_bone = {
        bone(k).name: round(float(np.average(distance[own], weights=area[own])), 2)
        for k in mesh.labels
        if (own := mesh.bone == k).any()
    }
    sure = np.asarray(mesh.arrays["q"]) < FALSE_DISCOVERY
    return {
        "mean_mm": round(float(np.average(distance, weights=area)), 3),
        "different_percent": round(100 * float(np.average(sure, weights=area)), 1),
        "bones": by_bone,
    }


def draw(shapes: Mapping[str, Mesh], models: Mapping[str, Any], place: Path, settings: Settings) -> None:
    """Pictures of means, difference and modes, all to one scale."""
    height = settings.report.picture_px
    box = common_box([m for m in shapes.values()])
    for name, mesh in shapes.items():
        if name == "difference" or name.endswith(("_symmetric", "_size_matched")):
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
