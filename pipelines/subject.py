"""One study: CT -> labels -> surfaces -> pictures, then surfaces + template -> correspondence.

This is the unit that runs in parallel: a job holds plain values and paths, and what comes back are records.
"""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipelines import verbs
from pipelines.costs import Timing
from pipelines.settings import Settings
from pipelines.workspace import Outcome, Record, Workspace, run_stage, stage_key
from shapemodel.anatomy import MODEL_LABELS
from shapemodel.mesh import Mesh, read_vtp, write_vtp
from shapemodel.reasons import Flag, StudyError

log = logging.getLogger(__name__)

LABELS_FILE = "labels.nii.gz"
SURFACE_FILE = "bones.vtp"
REGISTERED_FILE = "registered.vtp"
STUDY_VIEWS: tuple[Literal["front", "left"], ...] = ("front", "left")

Note = Callable[[str, str], None]


@dataclass(frozen=True)
class Job:
    """What a worker needs to know about a study.

    Attributes
    ----------
    workspace : where artefacts go
    study : the manifest's row, paths absolute
    content : hash of the images or the label map that the study names
    overrides : its corrections, or None
    settings : of all stages
    template : path and hash of the template; only for registration
    round : which groupwise round the template is for, from 1; 0: none, it is the final one
    """

    workspace: Workspace
    study: Any
    content: str
    settings: Settings
    overrides: Any = None
    template: tuple[Path, str] | None = None
    round: int = 0

    @property
    def subject(self) -> str:
        """The study's pseudonym."""
        return str(self.study.subject)


@dataclass(frozen=True)
class Done:
    """The records of one study, in the order of the stages, and what they cost."""

    subject: str
    records: tuple[Record, ...] = ()
    timings: tuple[Timing, ...] = field(default_factory=tuple)

    @property
    def refusal(self) -> Record | None:
        """The record that refuses the study, or None."""
        return next((r for r in self.records if not r.ok), None)


def see(job: Job, note: Note) -> Done:
    """Images -> labels -> surfaces -> pictures; stops at the first refusal."""
    return in_order(job, note, ("labels", labels), ("surfaces", surfaces), ("pictures", pictures))


def correspond(job: Job, note: Note) -> Done:
    """Surfaces -> the template's vertices on this subject."""
    return in_order(job, note, ("registration", registration))


def in_order(job: Job, note: Note, *stages: tuple[str, Callable[[Job], tuple[Record, Timing | None]]]) -> Done:
    """A study's stages one after another, on one thread; the first refusal ends them."""
    records: list[Record] = []
    timings: list[Timing] = []
    for name, stage in stages:
        note(job.subject, name)
        with one_thread():
            record, timing = _out_of_memory_is_a_reason(job, name, stage)
        records.append(record)
        timings += [timing] if timing else []
        if not record.ok:
            break
    return Done(job.subject, tuple(records), tuple(timings))


@contextlib.contextmanager
def one_thread() -> Any:
    """One thread for BLAS, OpenMP and ITK: sums keep their order, and workers do not multiply into each other."""
    import SimpleITK as sitk
    from threadpoolctl import threadpool_limits

    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        with threadpool_limits(limits=1):
            yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def _out_of_memory_is_a_reason(
    job: Job, name: str, stage: Callable[[Job], tuple[Record, Timing | None]]
) -> tuple[Record, Timing | None]:
    """A study too large for the worker is left out and says so; it is tried again in the next run."""
    try:
        return stage(job)
    except MemoryError:
        return out_of_memory(job.subject, name), None


def out_of_memory(subject: str, stage: str, detail: str = "") -> Record:
    """The refusal of a study that did not fit; it is not stored, so that the next run tries again."""
    message = (
        f"{subject}: the study did not fit into the worker's memory{detail}; "
        "give more with --memory-gb, or use fewer --workers"
    )
    return Record(subject, stage, "", "refused", "out_of_resources", message)


def is_full_disk(error: BaseException) -> bool:
    """Whether an error, or what it came from, says that the disk is full."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def flags_of(flags: Any) -> tuple[tuple[str, int, str], ...]:
    """Flags as plain values for a record."""
    return tuple((f.code, int(f.bone), f.note) for f in flags if isinstance(f, Flag))


def labels(job: Job) -> tuple[Record, Timing | None]:
    """CT -> labelled bones, or the label map that the manifest names, in our numbers."""
    study = job.study
    inputs = {"content": job.content, "series": study.series, "scheme": study.labels_scheme}
    inputs["over"] = asdict(job.overrides) if job.overrides is not None else None
    inputs["what"] = "labels" if study.labels else "ct"
    key = stage_key("labels", inputs, {} if study.labels else asdict(job.settings.section("labels")))
    body = _given_labels if study.labels else _own_labels
    return run_stage(job.workspace, job.subject, "labels", key=key, body=lambda work: body(job, work))


def _own_labels(job: Job, work: Path) -> Outcome:
    from shapemodel.labelmaps import write_labels

    found = verbs.segment(job.study.ct, series=job.study.series, overrides=job.overrides, settings=job.settings)
    write_labels(found.image, work / LABELS_FILE)
    bones: dict[str, str] = {str(k): found.bones[k].status for k in MODEL_LABELS if k in found.bones}
    if job.overrides is not None:
        bones = statuses(found.image)
    numbers = {
        "bones": bones,
        "confidence": round(float(found.score), 4),
        "lung_volume_ml": round(float(found.lung_volume_ml), 1),
        "arms": found.arms,
        "thresholds_hu": [round(float(t), 1) for t in found.thresholds],
    }
    return Outcome(numbers, flags_of(found.flags))


def _given_labels(job: Job, work: Path) -> Outcome:
    from shapemodel.labelmaps import read_labels, write_labels
    from shapemodel.study import read_ct

    if not job.study.labels_scheme:
        raise StudyError(
            "bad_labels", f"{job.subject}: labels are given without labels_scheme; say whose numbers they use"
        )
    ct = read_ct(job.study.ct, job.study.series) if job.study.ct else None
    image = read_labels(job.study.labels, job.study.labels_scheme, ct)
    if job.overrides is not None:
        from shapemodel.steps import correct

        image = correct(ct, image, job.overrides)
    write_labels(image, work / LABELS_FILE)
    return Outcome({"bones": statuses(image), "labels_scheme": job.study.labels_scheme})


def statuses(image: Any) -> dict[str, str]:
    """``complete``, ``cut`` (it touches the edge of the scan) or ``absent`` for each bone of a label map."""
    import SimpleITK as sitk

    array = sitk.GetArrayViewFromImage(image)
    present = set(np.unique(array).tolist())
    edges: set[int] = set()
    for axis in range(3):
        for side in (0, -1):
            edges |= set(np.unique(np.take(array, side, axis=axis)).tolist())
    return {str(k): "absent" if k not in present else "cut" if k in edges else "complete" for k in MODEL_LABELS}


def surfaces(job: Job) -> tuple[Record, Timing | None]:
    """Labels -> one closed surface a bone."""
    source = job.workspace.output(job.subject, "labels", LABELS_FILE)
    key = stage_key("surfaces", {"labels": source}, asdict(job.settings.section("surfaces")))

    def body(work: Path) -> Outcome:
        mesh = verbs.surfaces(job.workspace.folder(job.subject) / LABELS_FILE, settings=job.settings)
        write_vtp(mesh, work / SURFACE_FILE)
        return Outcome({"bones": len(mesh.labels)})

    return run_stage(job.workspace, job.subject, "surfaces", key=key, body=body)


def pictures(job: Job) -> tuple[Record, Timing | None]:
    """Front and left views of the surfaces; none where pictures cannot be made."""
    from shapemodel import render

    source = job.workspace.output(job.subject, "surfaces", SURFACE_FILE)
    height, problem = job.settings.report.thumbnail_px, render.missing()
    key = stage_key("pictures", {"bones": source, "can": not problem}, {"height": height})

    def body(work: Path) -> Outcome:
        if not problem:
            mesh = read_vtp(job.workspace.folder(job.subject) / SURFACE_FILE)
            for view in STUDY_VIEWS:
                (work / f"{view}.webp").write_bytes(render.encode(render.picture(mesh, view, height=height)))
        return Outcome({"notice": problem})

    return run_stage(job.workspace, job.subject, "pictures", key=key, body=body)


@lru_cache(maxsize=2)
def prepared(path: Path, digest: str, settings: Any) -> Any:
    """The template made ready once a process; ``digest`` is the template's, so that a new one is not mistaken."""
    from shapemodel.registration import prepare

    log.debug("template %s", digest)
    return prepare(read_vtp(path), prior=settings.prior)


def registration(job: Job) -> tuple[Record, Timing | None]:
    """Surfaces -> the template's vertices on this subject, with what was seen and how far off it may be."""
    if job.template is None:
        raise ValueError("registration needs a template")
    path, digest = job.template
    source = job.workspace.output(job.subject, "surfaces", SURFACE_FILE)
    chosen, limits = job.settings.section("registration"), job.settings.section("limits")
    key = stage_key("registration", {"bones": source, "template": digest}, [asdict(chosen), asdict(limits)])

    def body(work: Path) -> Outcome:
        from shapemodel.correspondence import to_mesh

        mesh = read_vtp(job.workspace.folder(job.subject) / SURFACE_FILE)
        reference = prepared(path, digest, chosen)
        found = verbs.register(mesh, reference, subject=job.subject, settings=job.settings)
        write_vtp(to_mesh(found, reference.mesh), work / REGISTERED_FILE)
        return Outcome(fit_numbers(found), flags_of(found.flags))

    return run_stage(job.workspace, job.subject, "registration", key=key, body=body)


def fit_numbers(found: Any) -> dict[str, Any]:
    """What a table needs to know of a registration."""
    seen = found.residual_mm[found.visible]
    return {
        "residual_mean_mm": round(float(seen.mean()), 4),
        "residual_p95_mm": round(float(np.percentile(seen, 95)), 4),
        "visible_percent": round(100 * float(found.visible.mean()), 2),
        "scale": round(float(found.scale), 5),
        "unsure_bones": sum(bool(b.flagged) for b in found.bones.values()),
    }


def registered_mesh(workspace: Workspace, subject: str) -> Mesh:
    """The template's vertices on a subject, as stored."""
    return read_vtp(workspace.folder(subject) / REGISTERED_FILE)
