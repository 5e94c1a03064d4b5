"""The line: studies of a manifest -> template -> correspondences -> models -> results and report.

Fan out (:mod:`pipelines.subject`), gather (:mod:`pipelines.cohort`), give (:mod:`pipelines.deliver`,
:mod:`pipelines.review`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines import cohort, deliver, evaluate, pool, review, rounds, workspace
from pipelines.corrections import OVERRIDES_FILE
from pipelines.costs import Timing, log_timing
from pipelines.progress import Quiet
from pipelines.provenance import git_commit, tree_sha256, value_sha256, versions
from pipelines.settings import Settings, to_table, to_toml
from pipelines.subject import Done, Job, correspond, one_thread, out_of_memory, see
from pipelines.workspace import COHORT, Record, Workspace
from shapemodel.reasons import InputError, StudyError

log = logging.getLogger(__name__)

MINIMUM_STUDIES = 2
"""A mean and its spread need two studies."""


@dataclass(frozen=True)
class RunResult:
    """What a run leaves.

    Attributes
    ----------
    workspace : its folder
    used : subjects in the models
    refused : subject -> (reason code, message)
    files : deliverables by name
    redone : stages that this run did, as (subject, stage); the others were fresh
    """

    workspace: Workspace
    used: tuple[str, ...]
    refused: dict[str, tuple[str, str]]
    files: dict[str, Path]
    redone: tuple[tuple[str, str], ...]


class Line:
    """One run over one cohort; holds what has been refused and done so far."""

    def __init__(self, space: Workspace, settings: Settings, progress: Quiet):
        self.space, self.settings, self.progress = space, settings, progress
        self.refused: dict[str, tuple[str, str, str]] = {}
        self.redone: list[tuple[str, str]] = []

    def spent(self, timing: Timing | None) -> None:
        """Note a stage that was really done."""
        if timing is not None:
            self.redone.append((timing.subject, timing.stage))
            log_timing(self.space.log_folder, timing)
            log.info("%s %s: %.1f s, %.0f MB", timing.subject or "cohort", timing.stage, timing.seconds, timing.peak_mb)

    def refuse(self, subject: str, code: str, message: str, stage: str) -> None:
        """Leave a study out."""
        self.refused[subject] = (code, message, stage)
        log.info("%s left out at %s: %s (%s)", subject, stage, code, message)

    def fan_out(
        self, workers: pool.Pool, title: str, function: Callable[..., Done], jobs: Sequence[Job]
    ) -> tuple[list[Job], list[Record]]:
        """Work on every study; a refusal concerns its own study alone.

        Returns the jobs that came through, in their order, and the refusals of the others.
        """
        refusals: dict[str, Record] = {}
        self.progress.begin(title, len(jobs))
        for job, done in workers.map(function, jobs, self.progress.note):
            if isinstance(done, pool.Failure):
                done = Done(job.subject, (out_of_memory(job.subject, title),))
            for timing in done.timings:
                self.spent(timing)
            refusal = done.refusal
            if refusal is not None:
                refusals[job.subject] = refusal
            seconds = sum(t.seconds for t in done.timings)
            words = f"left out ({refusal.code})" if refusal else f"{seconds:.1f} s" if done.timings else "up to date"
            self.progress.advance(job.subject, words)
        self.progress.end()
        return [j for j in jobs if j.subject not in refusals], [refusals[s] for s in sorted(refusals)]

    def usable(self, done: tuple[list[Job], list[Record]]) -> list[Job]:
        """The jobs that came through a stage that every study needs; the others are left out of the run."""
        jobs, refusals = done
        for record in refusals:
            self.refuse(record.subject, record.code, record.message, record.stage)
        return jobs

    def gather(self, title: str, stage: Callable[..., tuple[Record, Timing | None]], *args: Any) -> Record:
        """A stage that concerns all studies; without its result nothing can follow, so a refusal ends the run."""
        self.progress.begin(title, 1)
        self.progress.note("all studies", title)
        with one_thread():
            record, timing = stage(self.space, *args)
        self.spent(timing)
        self.progress.advance("all studies", f"{timing.seconds:.1f} s" if timing else "up to date")
        self.progress.end()
        if not record.ok:
            raise StudyError(record.code, record.message)
        return record


def run(manifest: str | Path, out: str | Path, *, settings: Settings, progress: Quiet | None = None) -> RunResult:
    """Studies of a manifest -> means, models and report in a folder; a second run redoes only what changed.

    Parameters
    ----------
    manifest : CSV, one row a study (see the README)
    out : the run's folder, made if need be
    settings : of all stages
    progress : told what is going on

    Raises
    ------
    InputError : a wrong manifest or settings, too few usable studies, or a folder in use
    """
    from shapemodel.manifest import read_manifest

    manifest = Path(manifest)
    studies = read_manifest(manifest)
    with workspace.opened(out) as space, logged(space):
        line = Line(space, settings, progress or Quiet())
        provenance(space, manifest, settings)
        jobs = make_jobs(line, studies, corrections(manifest, studies))
        with pool.opened(settings.run, len(jobs)) as workers:
            jobs = line.usable(line.fan_out(workers, "labels and surfaces", see, jobs))
            enough(jobs, line)
            where = reference(line, workers, jobs)
            jobs = [replace(j, template=where) for j in jobs]
            jobs = line.usable(line.fan_out(workers, "registration", correspond, jobs))
        used = [j.study for j in jobs]
        enough(used, line)
        line.gather("models", cohort.models, used, settings)
        line.gather("evaluation", evaluate.evaluation, used, settings)
        line.gather("results", deliver.results, settings)
        review.write_cohort(space, studies, line.refused)
        line.gather("report", review.report, studies, line.refused, settings)
        files = {p.name: p for p in sorted(space.results.iterdir()) if p.is_file() and not p.name.startswith(".")}
        refused = {k: (code, message) for k, (code, message, _) in line.refused.items()}
        return RunResult(space, tuple(s.subject for s in used), refused, files, tuple(line.redone))


def reference(line: Line, workers: pool.Pool, jobs: Sequence[Job]) -> tuple[Path, str]:
    """The template, path and hash: given; or composed, then made the mean of a balanced few in groupwise rounds.

    A mean that misses the gate of a template ends the rounds with the one before it.
    """
    space, settings = line.space, line.settings
    studies = [j.study for j in jobs]
    line.gather("composed template", cohort.composed, studies, settings)
    who = rounds.subjects(space, studies, settings)
    met, number, last, ended = [j for j in jobs if j.subject in who], 0, 0, False
    while met and number < settings.section("groupwise").rounds and not ended:
        near = [replace(j, template=rounds.so_far(space, number), round=number + 1) for j in met]
        number += 1
        met, _ = line.fan_out(workers, f"template, round {number}", rounds.meet, near)
        mean = line.gather(f"template, mean of round {number}", rounds.mean, number, [j.subject for j in met], settings)
        fit = not mean.numbers["failures"]
        last, ended = number if fit else last, bool(mean.numbers["converged"]) or not fit
    made = line.gather("template", rounds.template, last)
    rounds.sweep(space, who, number)
    return space.folder(COHORT) / cohort.TEMPLATE_FILE, made.outputs[cohort.TEMPLATE_FILE]


def report(folder: str | Path, *, settings: Settings) -> Path:
    """Write the report of a finished run anew, from what lies in its folder."""
    root = Path(folder)
    if not (root / "provenance.json").is_file():
        raise InputError(f"{root}: expected the folder of a run, found no provenance.json in it")
    with workspace.opened(root) as space:
        studies, refused = review.read_cohort(space)
        record, _ = review.report(space, studies, refused, settings)
        return space.results / next(iter(record.outputs))


def make_jobs(line: Line, studies: Sequence[Any], overrides: dict[str, Any]) -> list[Job]:
    """Jobs of the studies that can be used; the others are left out with the manifest's reason."""
    jobs = []
    for study in studies:
        own = overrides.get(study.subject)
        if own is not None and own.empty:
            own = None
        if not study.usable:
            note = study.note or "left out in the manifest"
            line.refuse(study.subject, study.reason or "excluded", f"{study.subject}: {note}", "scan")
            continue
        if own is not None and own.exclude:
            line.refuse(study.subject, "excluded", f"{study.subject}: {own.why or 'left out by hand'}", OVERRIDES_FILE)
            continue
        source = Path(study.labels or study.ct)
        if not source.exists():
            raise InputError(f"{study.subject}: {source}: no such file or folder; correct the manifest")
        content = workspace.input_sha256(line.space, source, tree_sha256)
        jobs.append(Job(line.space, study, content, line.settings, own))
    return jobs


def corrections(manifest: Path, studies: Sequence[Any]) -> dict[str, Any]:
    """Corrections by subject, from ``overrides.toml`` beside the manifest; none when there is no such file."""
    from shapemodel.overrides import read_overrides

    path = manifest.parent / OVERRIDES_FILE
    found = read_overrides(path)
    unknown = sorted(set(found) - {s.subject for s in studies})
    if unknown:
        raise InputError(f"{path}: no such subject in {manifest.name}: {', '.join(unknown)}")
    return dict(found)


def enough(studies: Sequence[Any], line: Line) -> None:
    """Stop with a sentence when too few studies are left."""
    if len(studies) >= MINIMUM_STUDIES:
        return
    reasons = "; ".join(f"{s}: {code}" for s, (code, _, _) in sorted(line.refused.items()))
    raise InputError(
        f"{len(studies)} usable studies are left, but a mean needs {MINIMUM_STUDIES}"
        + (f" ({reasons})" if reasons else "")
    )


def provenance(space: Workspace, manifest: Path, settings: Settings) -> None:
    """What made the results: settings, versions, hashes; nothing of when and where."""
    table = to_table(settings)
    table.pop("run")
    workspace.write_text(space.root / "settings.toml", to_toml(table))
    what = {
        "manifest_sha256": tree_sha256(manifest),
        "settings_sha256": value_sha256(table),
        "commit": git_commit(),
        "versions": versions(),
    }
    workspace.write_text(space.root / "provenance.json", json.dumps(what, indent=1, sort_keys=True) + "\n")


@contextmanager
def logged(space: Workspace) -> Iterator[None]:
    """Everything that is logged also goes to ``log/run.log``, with its time."""
    handler = logging.FileHandler(space.log_folder / "run.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    loggers = [logging.getLogger(name) for name in ("shapemodel", "pipelines")]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(min(logger.level or logging.INFO, logging.INFO))
    try:
        yield
    except Exception as error:
        log.info("the run stopped: %s: %s", type(error).__name__, error, exc_info=not isinstance(error, InputError))
        raise
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        handler.close()
