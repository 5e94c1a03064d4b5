"""Groupwise rounds of a run: the composed template becomes the mean of its cohort, so that it favours no study.

A round registers the template so far to a few studies, the sexes in turn (a stage a study, the parallel part), and
takes their mean (a stage of the cohort). Each leaves a record and a file of its own, so that a run which was stopped
goes on in the middle of a round. The mathematics is :mod:`shapemodel.groupwise`'s.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Collection, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pipelines import verbs
from pipelines.cohort import COMPOSED_FILE, TEMPLATE_FILE, balanced, template_numbers
from pipelines.costs import Timing
from pipelines.settings import Settings
from pipelines.subject import SURFACE_FILE, Done, Job, Note, fit_numbers, flags_of, in_order, prepared
from pipelines.workspace import COHORT, Outcome, Record, Workspace, run_stage, stage_key
from shapemodel.carrying import Carry
from shapemodel.groupwise import Held, averaged, next_round
from shapemodel.mesh import Mesh, read_vtp, write_vtp
from shapemodel.template import read_template, remesh_for, write_template

log = logging.getLogger(__name__)

COUNT = "registrations"
"""Mesh field: how many registrations a study's shape is the mean of."""

SHOWN = "shown"
"""Mesh array of a study's shape: the share of its registrations that saw a vertex."""

MEAN, CORNERS, WEIGHT = "mean", "carried_corners", "carried_weight"
"""Mesh arrays of a round's template: where its vertices lie on the unrepaired mean, and on which of its triangles."""


def stage_of(number: int) -> str:
    """Name of a round's stage, of a study and of the cohort alike."""
    return f"round_{number}"


def file_of(number: int) -> str:
    """Name of a round's file; the template before the first round is the composed one."""
    return f"{stage_of(number)}.vtp" if number else COMPOSED_FILE


def subjects(workspace: Workspace, studies: Sequence[Any], settings: Settings) -> list[str]:
    """Who takes part in the rounds; nobody when no rounds are wanted or the template is given."""
    if settings.cohort.template or settings.section("groupwise").rounds < 1:
        return []
    return balanced(workspace, studies, settings.cohort.round_studies)


def so_far(workspace: Workspace, number: int) -> tuple[Path, str]:
    """The template after a round, 0: before all: its path and hash."""
    stage = stage_of(number) if number else "composed"
    return workspace.folder(COHORT) / file_of(number), workspace.output(COHORT, stage, file_of(number))


def meet(job: Job, note: Note) -> Done:
    """One study's part of a round."""
    return in_order(job, note, (stage_of(job.round), registration))


def registration(job: Job) -> tuple[Record, Timing | None]:
    """The template so far on this study, averaged with what earlier rounds gave."""
    if job.template is None or job.round < 1:
        raise ValueError("a round needs a template and its number, from 1")
    number, (path, digest) = job.round, job.template
    chosen, limits = job.settings.section("registration"), job.settings.section("limits")
    inputs = {
        "bones": job.workspace.output(job.subject, "surfaces", SURFACE_FILE),
        "template": digest,
        "before": job.workspace.output(job.subject, stage_of(number - 1), file_of(number - 1)),
        "number": number,
    }
    key = stage_key("round", inputs, [asdict(chosen), asdict(limits), _of_one_round(job.settings)])

    def body(work: Path) -> Outcome:
        reference = prepared(path, digest, chosen)
        mesh = read_vtp(job.workspace.folder(job.subject) / SURFACE_FILE)
        found = verbs.register(mesh, reference, subject=job.subject, settings=job.settings)
        before = held(job.workspace, job.subject, number - 1).carried(_carry(reference.mesh)) if number > 1 else None
        now = averaged(before, found, number, settings=job.settings.section("groupwise"))
        shape = replace(reference.mesh, vertices=now.vertices, arrays={SHOWN: now.shown}, fields={COUNT: now.count})
        write_vtp(shape, work / file_of(number))
        return Outcome({**fit_numbers(found), COUNT: now.count}, flags_of(found.flags))

    return run_stage(job.workspace, job.subject, stage_of(number), key=key, body=body)


def held(workspace: Workspace, subject: str, number: int) -> Held:
    """What is held of a study after a round."""
    mesh = read_vtp(workspace.folder(subject) / file_of(number))
    return Held(mesh.vertices, mesh.arrays[SHOWN], int(mesh.fields[COUNT][0]))


def _carry(mean: Mesh) -> Carry:
    return Carry(mean.arrays[CORNERS], mean.arrays[WEIGHT])


def mean(workspace: Workspace, number: int, who: Sequence[str], settings: Settings) -> tuple[Record, Timing | None]:
    """The mean of the studies of a round: the template that the next one starts from."""
    before, digest = so_far(workspace, number - 1)
    shapes = {s: workspace.output(s, stage_of(number), file_of(number)) for s in sorted(who)}
    own, how = settings.section("groupwise"), settings.section("template")
    meshing = [asdict(how.remesh), how.target_vertices]
    key = stage_key("round_mean", {"template": digest, "shapes": shapes}, [_of_one_round(settings), meshing])

    def body(work: Path) -> Outcome:
        first = read_template(before)
        remesh = remesh_for({k: first.mesh.select(k)[:2] for k in first.mesh.labels}, how)
        found, last = [held(workspace, s, number) for s in shapes], first.mesh.arrays[MEAN] if number > 1 else None
        made = next_round(first, found, before=last, settings=own, remesh=remesh)
        arrays = {MEAN: made.mean, CORNERS: made.carry.corners, WEIGHT: made.carry.weight}
        write_vtp(made.template.mesh.with_arrays(**arrays), work / file_of(number))
        log.info("template round %d: moved %.3f mm, %.3f along normals", number, made.moved_mm, made.surface_mm)
        for words in made.failures:
            log.warning("template round %d is not used, it misses the gate of a template: %s", number, words)
        numbers = {**template_numbers(made.template), "failures": list(made.failures), "studies": sorted(shapes)}
        moved = {"moved_mm": round(made.moved_mm, 4), "surface_mm": round(made.surface_mm, 4)}
        return Outcome({**numbers, **moved, "converged": made.surface_mm < own.tol_mm})

    return run_stage(workspace, COHORT, stage_of(number), key=key, body=body)


def template(workspace: Workspace, number: int) -> tuple[Record, Timing | None]:
    """The template that all studies are registered with: the mean after so many rounds.

    After no rounds it is the one that was composed or given, to the last bit.
    """
    last, digest = so_far(workspace, number)
    key = stage_key("template", {"last": digest, "rounds": number}, {})

    def body(work: Path) -> Outcome:
        made = read_template(last)
        if number:
            write_template(replace(made, mesh=replace(made.mesh, arrays={})), work / TEMPLATE_FILE)
        else:
            shutil.copyfile(last, work / TEMPLATE_FILE)
        records = [r for k in range(1, number + 1) if (r := workspace.read(COHORT, stage_of(k)))]
        moved = {name: [r.numbers[name] for r in records] for name in ("moved_mm", "surface_mm")}
        return Outcome({**template_numbers(made), "rounds": number, **moved})

    return run_stage(workspace, COHORT, "template", key=key, body=body)


def sweep(workspace: Workspace, who: Collection[str], number: int) -> None:
    """Drop what earlier runs left of rounds that this one did not come to, and of studies that took no part."""
    found = [p for p in workspace.root.glob("studies/*/round_*.json") if re.fullmatch(r"round_\d+", p.stem)]
    for path in sorted(found) + sorted(workspace.folder(COHORT).glob("round_*.json")):
        subject = path.parent.name if path.parent.parent.name == "studies" else COHORT
        if int(path.stem.split("_")[1]) > number or (subject and subject not in who):
            workspace.forget(subject, path.stem)


def _of_one_round(settings: Settings) -> dict[str, Any]:
    """Settings that decide a round's result; how many there are at most, and when they end, does not."""
    return {k: v for k, v in asdict(settings.section("groupwise")).items() if k != "rounds"}
