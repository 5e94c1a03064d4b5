"""The embedded cohort: phantom CT studies as DICOM, the whole line on them, and the score against their truth."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipelines import line, pool, score, verbs, workspace
from pipelines.cohort import model_file
from pipelines.progress import Quiet
from pipelines.provenance import value_sha256
from pipelines.settings import Settings
from pipelines.source import code_sha256
from pipelines.subject import LABELS_FILE, registered_mesh
from pipelines.workspace import Workspace
from shapemodel.reasons import InputError

log = logging.getLogger(__name__)

MANIFEST = "data_manifest.csv"
STUDY_FOLDER = "study"
MADE = "made.json"
"""Written last beside a study's truth: what it was made from, so that it is made once."""


@dataclass(frozen=True)
class DemoResult:
    """What the demo leaves: the run's result, and how right it is."""

    result: line.RunResult
    score: score.CohortScore

    def lines(self) -> list[str]:
        """Sentences for the reader."""
        return ["against the phantoms' truth:", *(f"  {row}" for row in self.score.lines())]


@dataclass(frozen=True)
class Scan:
    """A phantom to be scanned: plain values that travel to a worker."""

    folder: Path
    subject: Any
    index: int
    seed: int


def demo(out: str | Path, *, settings: Settings, progress: Quiet | None = None) -> DemoResult:
    """Make the phantom cohort below ``out``, run the line on it, and compare with the truth.

    Layout: ``ct/`` (DICOM), ``truth/``, ``data_manifest.csv``, ``study/`` (the run's folder).
    """
    out, progress = Path(out), progress or Quiet()
    make_cohort(out, settings, progress)
    result = line.run(out / MANIFEST, out / STUDY_FOLDER, settings=settings, progress=progress)
    progress.begin("comparison with the truth", 1)
    found = compare(out, result)
    progress.advance("all studies", "done")
    progress.end()
    rows = {
        "lines": found.lines(),
        "studies": [asdict(s) for s in found.studies],
        "mean_error_mm": dict(found.mean_error_mm),
    }
    workspace.write_text(result.workspace.results / "truth.json", json.dumps(rows, indent=1, sort_keys=True) + "\n")
    return DemoResult(result, found)


def make_cohort(out: Path, settings: Settings, progress: Quiet) -> None:
    """DICOM studies, their truth and the manifest; studies that are there already are kept."""
    from shapemodel.manifest import write_manifest
    from shapemodel.phantom.subject import draw_population

    count, seed = settings.demo.studies, settings.demo.seed
    if count < line.MINIMUM_STUDIES:
        raise InputError(f"--studies {count}: a mean needs at least {line.MINIMUM_STUDIES}")
    people = draw_population((count + 1) // 2, count // 2, seed)
    out.mkdir(parents=True, exist_ok=True)
    scans = [Scan(out.resolve(), who, i, seed) for i, who in enumerate(people)]
    todo = [s for s in scans if not is_made(s)]
    if todo:
        with pool.opened(settings.run, len(todo)) as workers:
            progress.begin("phantom CTs", len(todo))
            for scan, done in workers.map(make, todo, progress.note):
                if isinstance(done, pool.Failure):
                    raise MemoryError(done.message)
                progress.advance(scan.subject.subject, "written")
            progress.end()
    names = {s.subject.subject for s in scans}
    studies = [s for s in verbs.scan(out / "ct", subjects="folder") if s.subject in names]
    write_manifest(studies, out / MANIFEST)


def recipe(scan: Scan) -> str:
    """Hash of everything that decides a study's bytes."""
    from shapemodel.phantom.cohort import demo_knobs

    who = [asdict(scan.subject), asdict(demo_knobs(scan.index, scan.seed)), scan.index, scan.seed]
    return value_sha256([who, code_sha256("shapemodel.phantom.cohort.write_study")])


def is_made(scan: Scan) -> bool:
    """Whether the study lies there, whole and from the same recipe."""
    try:
        made = json.loads((scan.folder / "truth" / scan.subject.subject / MADE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    there = sum(1 for p in (scan.folder / "ct" / scan.subject.subject).rglob("*") if p.is_file())
    return bool(made.get("recipe") == recipe(scan) and made.get("files") == there)


def make(scan: Scan, note: Any) -> str:
    """Render and write one phantom study."""
    import shutil

    from shapemodel.phantom.cohort import demo_knobs, study_seed, write_study

    name = scan.subject.subject
    note(name, "phantom CT")
    for part in ("ct", "truth"):
        shutil.rmtree(scan.folder / part / name, ignore_errors=True)
    write_study(
        scan.folder,
        scan.subject,
        demo_knobs(scan.index, scan.seed),
        study_seed(scan.seed, scan.index),
        index=scan.index,
    )
    files = sum(1 for p in (scan.folder / "ct" / name).rglob("*") if p.is_file())
    text = json.dumps({"recipe": recipe(scan), "files": files}) + "\n"
    workspace.write_text(scan.folder / "truth" / name / MADE, text)
    return str(name)


def compare(out: Path, result: line.RunResult) -> score.CohortScore:
    """The run's labels, correspondences and means against the truth."""
    from shapemodel.phantom.cohort import read_truth

    space = result.workspace
    everyone = sorted({*result.used, *result.refused})
    labels = {
        s: score.study_labels(s, _labels(space, s, result), out / "truth" / s / "labels.nii.gz") for s in everyone
    }
    used = sorted(result.used)
    meshes = [registered_mesh(space, s) for s in used]
    truth = score.true_places(meshes, [read_truth(out / "truth" / s / "bones.vtp") for s in used])
    studies = [_with_errors(labels[s], truth, used, meshes) for s in everyone]
    models = {g: verbs.read_model(p) for g in ("female", "male") if (p := space.folder() / model_file(g)).is_file()}
    errors = score.mean_errors(models, truth, used, meshes[0].faces)
    return score.CohortScore(tuple(studies), float(np.nanmean(truth.pairs)), errors)


def _labels(space: Workspace, subject: str, result: line.RunResult) -> Path | None:
    return None if subject in result.refused else space.folder(subject) / LABELS_FILE


def _with_errors(
    found: score.StudyScore, truth: score.Correspondence, used: Sequence[str], meshes: Sequence[Any]
) -> score.StudyScore:
    if found.subject not in used:
        return found
    i = list(used).index(found.subject)
    seen = truth.seen[i]
    error = np.linalg.norm(meshes[i].vertices - truth.scanned[i], axis=1)[seen]
    agreement = float(np.mean(np.asarray(meshes[i].arrays["visible"], bool) == seen))
    return replace(
        found,
        error_mm=float(error.mean()),
        error_p95_mm=float(np.percentile(error, 95)),
        visible_agreement=agreement,
    )
