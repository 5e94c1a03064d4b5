"""The folder of a run: every artefact by study and stage, fresh as long as what made it is the same.

A stage writes into a folder of its own and its files are renamed into place, the record last; whatever
kills the process, a file under its final name is whole. A stage is redone when the hash of its inputs, its
settings or its code differs from the record's, or when a file is not the one that the record names.

Layout::

    studies/<subject>/<stage>.json        one record a stage: ok or refused, why, flags, numbers, hashes
    studies/<subject>/<artefacts>         labels.nii.gz, bones.vtp, registered.vtp, front.webp ...
    cohort/                               composed.vtp, round_1.vtp ..., template.vtp, models and their records
    results/                              what users take: means, differences, report.html
    log/                                  the only place that knows times: run.log, timings.csv
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from pipelines.costs import Timing, peak_mb, reset_peak
from pipelines.provenance import file_sha256, value_sha256
from pipelines.source import code_sha256
from shapemodel.reasons import InputError, StudyError

log = logging.getLogger(__name__)

COHORT = ""
"""The subject of stages that concern all studies at once."""

STAGE_ENTRY = {
    "labels": "pipelines.subject.labels",
    "surfaces": "pipelines.subject.surfaces",
    "pictures": "pipelines.subject.pictures",
    "composed": "pipelines.cohort.composed",
    "round": "pipelines.rounds.registration",
    "round_mean": "pipelines.rounds.mean",
    "template": "pipelines.rounds.template",
    "registration": "pipelines.subject.registration",
    "model": "pipelines.cohort.models",
    "evaluation": "pipelines.evaluate.evaluation",
    "results": "pipelines.deliver.results",
    "report": "pipelines.review.report",
}
"""The function of each stage; a change of any source that it hangs on makes the stage run again."""

OK, REFUSED = "ok", "refused"
WORK_PREFIX = ".work-"


@dataclass(frozen=True)
class Record:
    """What a stage did with a study.

    Attributes
    ----------
    subject, stage : whose and what; the subject is empty for a cohort stage
    key : hash of inputs, settings and code
    status : ``ok`` or ``refused``
    code, message : why it was refused (:data:`shapemodel.reasons.REASONS`)
    flags : ``[code, bone, note]`` for the reviewer
    numbers : results worth a table
    outputs : SHA-256 by file name, relative to the study's folder
    """

    subject: str
    stage: str
    key: str
    status: str = OK
    code: str = ""
    message: str = ""
    flags: tuple[tuple[str, int, str], ...] = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether the stage came to its end."""
        return self.status == OK


@dataclass(frozen=True)
class Outcome:
    """What a stage's body gives back beside the files it wrote."""

    numbers: Mapping[str, Any] = field(default_factory=dict)
    flags: tuple[tuple[str, int, str], ...] = ()


@dataclass(frozen=True)
class Workspace:
    """A run's folder. It only knows paths, so it travels to workers."""

    root: Path

    def folder(self, subject: str = COHORT) -> Path:
        """Where the artefacts of a study, or of the cohort, lie."""
        return self.root / "studies" / subject if subject else self.root / "cohort"

    @property
    def results(self) -> Path:
        """What users take away."""
        return self.root / "results"

    @property
    def log_folder(self) -> Path:
        """The log, the one place that knows times."""
        return self.root / "log"

    def place(self, subject: str, stage: str) -> Path:
        """Folder that a stage's files are renamed into."""
        return self.results if stage in ("results", "report") else self.folder(subject)

    def record_path(self, subject: str, stage: str) -> Path:
        """The record of a stage."""
        return self.folder(subject) / f"{stage}.json"

    def read(self, subject: str, stage: str) -> Record | None:
        """The record of a stage, or None when there is none that can be read."""
        path = self.record_path(subject, stage)
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            data["flags"] = tuple((str(c), int(b), str(n)) for c, b, n in data["flags"])
            return Record(**data)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError):
            log.warning("%s cannot be read; the stage is done again", path)
            return None

    def output(self, subject: str, stage: str, name: str) -> str:
        """Hash of a stage's file: what the next stage's key is made of."""
        record = self.read(subject, stage)
        return record.outputs.get(name, "") if record else ""

    def forget(self, subject: str, stage: str) -> None:
        """Drop a stage's files and its record."""
        record = self.read(subject, stage)
        self.record_path(subject, stage).unlink(missing_ok=True)
        for name in record.outputs if record else ():
            (self.place(subject, stage) / name).unlink(missing_ok=True)

    def fresh(self, subject: str, stage: str, key: str) -> Record | None:
        """The stage's record if the key is the same and its files are there as the record names them."""
        record = self.read(subject, stage)
        if record is None or record.key != key:
            return None
        place = self.place(subject, stage)
        for name, digest in record.outputs.items():
            path = place / name
            if not path.is_file() or file_sha256(path) != digest:
                return None
        return record


def stage_key(stage: str, inputs: Mapping[str, Any], settings: Any) -> str:
    """Key of a stage: hash of what goes in, of its settings and of the source that it hangs on."""
    return value_sha256({"stage": stage, "in": inputs, "set": settings, "code": code_sha256(STAGE_ENTRY[stage])})


def run_stage(
    workspace: Workspace, subject: str, stage: str, *, key: str, body: Callable[[Path], Outcome]
) -> tuple[Record, Timing | None]:
    """Do a stage unless it is fresh.

    ``body`` writes into the folder that it is given. A :class:`StudyError` becomes a refusal; a full disk or
    any other exception leaves no trace of the stage and goes on up.
    """
    found = workspace.fresh(subject, stage, key)
    if found is not None:
        return found, None
    place = workspace.place(subject, stage)
    place.mkdir(parents=True, exist_ok=True)
    work = place / f"{WORK_PREFIX}{stage}-{os.getpid()}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    start = time.perf_counter()
    reset_peak()
    try:
        try:
            outcome = body(work)
            record = Record(subject, stage, key, flags=outcome.flags, numbers=outcome.numbers)
        except StudyError as error:
            shutil.rmtree(work)
            work.mkdir()
            record = Record(subject, stage, key, REFUSED, error.code, str(error))
        record = _keep(workspace, work, record)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return record, Timing(subject, stage, time.perf_counter() - start, peak_mb())


def _keep(workspace: Workspace, work: Path, record: Record) -> Record:
    """Rename the files of a stage into place, drop the ones it no longer makes, write the record last."""
    place = workspace.place(record.subject, record.stage)
    made = sorted(p.relative_to(work).as_posix() for p in work.rglob("*") if p.is_file())
    outputs = {name: file_sha256(work / name) for name in made}
    before = workspace.read(record.subject, record.stage)
    workspace.record_path(record.subject, record.stage).unlink(missing_ok=True)
    for name in set(before.outputs if before else ()) - set(made):
        (place / name).unlink(missing_ok=True)
    for name in made:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(work / name, place / name)
    kept = Record(**{**_plain_record(record), "outputs": outputs, "flags": record.flags})
    write_text(
        workspace.record_path(record.subject, record.stage),
        json.dumps(_plain_record(kept), indent=1, sort_keys=True, default=_plain_number) + "\n",
    )
    return kept


def _plain_record(record: Record) -> dict[str, Any]:
    return asdict(record)


def _plain_number(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be stored in a record")


def write_text(path: Path, text: str) -> Path:
    """Write a text file under a temporary name, then rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{WORK_PREFIX}{path.name}-{os.getpid()}")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


@contextmanager
def opened(root: str | Path) -> Iterator[Workspace]:
    """A workspace that this process alone works in; what a killed run left half done is swept away.

    Raises
    ------
    InputError : the folder is a file, cannot be written, or another run is at work in it
    """
    root = Path(root).resolve()
    workspace = Workspace(root)
    try:
        workspace.log_folder.mkdir(parents=True, exist_ok=True)
        handle = open(workspace.log_folder / "lock", "a", encoding="utf-8")  # noqa: SIM115 - held until the end
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise InputError(f"{root}: cannot be used as a run's folder: {error.strerror}") from error
    with handle:
        _lock(handle, root)
        for stale in root.rglob(f"{WORK_PREFIX}*"):
            shutil.rmtree(stale, ignore_errors=True) if stale.is_dir() else stale.unlink(missing_ok=True)
        yield workspace


def _lock(handle: IO[str], root: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InputError(f"{root}: another run is at work in this folder; wait for it or stop it") from error


def input_sha256(workspace: Workspace, path: Path, digest: Callable[[Path], str]) -> str:
    """Hash of an input's content, read again only when names, sizes or change times differ.

    The list of what was seen lies in ``log/`` since it holds times.
    """
    cache = workspace.log_folder / "inputs.json"
    try:
        seen = json.loads(cache.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        seen = {}
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    print_ = value_sha256([[p.as_posix(), p.stat().st_size, p.stat().st_mtime_ns] for p in files])
    known = seen.get(path.as_posix())
    if known and known[0] == print_:
        return str(known[1])
    found = digest(path)
    seen[path.as_posix()] = [print_, found]
    write_text(cache, json.dumps(seen, sort_keys=True, indent=0))
    return found
