"""Groupwise rounds of a run: who takes part, what is redone, and that the same bytes come out whatever happened."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from cage import SMALL, cage

from pipelines import cohort, pool
from pipelines.line import Line, reference
from pipelines.progress import Quiet
from pipelines.settings import CohortSettings, RunSettings, Settings
from pipelines.subject import SURFACE_FILE, Job
from pipelines.workspace import COHORT, Outcome, Workspace, run_stage
from shapemodel import groupwise
from shapemodel.anatomy import MODEL_LABELS
from shapemodel.groupwise import GroupwiseSettings
from shapemodel.mesh import Mesh, read_vtp, write_vtp
from shapemodel.reasons import InputError, StudyError
from shapemodel.registration import prepare, register
from shapemodel.study import Study
from shapemodel.template import Template

SEX = {"a": "F", "b": "F", "c": "M", "d": "M"}
WIDTH = {"a": 0.9, "b": 1.0, "c": 1.1, "d": 1.0}
TWO = ["a", "c"]
"""The two who take part: one of each sex, first by name since all are complete."""

OWN_COMPOSED = cohort.composed

ROUNDS = [(s, f"round_{k}") for k in (1, 2) for s in (*TWO, COHORT)]


def chosen(*, rounds: int = 2, workers: int = 1, **others: object) -> Settings:
    """Rounds of two studies, which never come to rest by themselves; a registration of little work."""
    library = {
        "registration": replace(SMALL, samples=400, rib_samples=600),
        "groupwise": GroupwiseSettings(rounds=rounds, tol_mm=1e-6),
    }
    return Settings(RunSettings(workers), CohortSettings(**{"round_studies": 2, **others}), library=library)


def store(space: Workspace, subject: str, mesh: Mesh) -> None:
    """A study's surfaces as the stages before leave them."""
    bones = {str(k): "complete" for k in MODEL_LABELS}
    run_stage(space, subject, "labels", key="given", body=lambda _: Outcome({"bones": bones}))

    def body(work: Path) -> Outcome:
        write_vtp(mesh, work / SURFACE_FILE)
        return Outcome()

    run_stage(space, subject, "surfaces", key="given", body=body)


def made(root: Path, settings: Settings) -> Line:
    """The template of what lies in the folder."""
    line = Line(Workspace(root), settings, Quiet())
    line.space.log_folder.mkdir(exist_ok=True)
    jobs = [Job(line.space, Study(s, sex=sex), "", settings) for s, sex in SEX.items()]
    with pool.opened(settings.run, len(jobs)) as workers:
        reference(line, workers, jobs)
    return line


def files(root: Path) -> dict[str, str]:
    """Hash of every artefact except the log."""
    found = [p for p in sorted(root.rglob("*")) if p.is_file() and "log" not in p.relative_to(root).parts]
    return {p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}


@pytest.fixture(scope="module")
def quick() -> Iterator[None]:
    """A made-up thorax stands for the composed template, and its triangles are good enough."""

    def composed(space: Workspace, *_: object) -> tuple:
        def body(work: Path) -> Outcome:
            write_vtp(cage(0.5).with_arrays(prior=np.zeros(len(cage(0.5).vertices), bool)), work / "composed.vtp")
            return Outcome()

        return run_stage(space, COHORT, "composed", key="given", body=body)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cohort, "composed", composed)
        patch.setattr(groupwise, "heal", lambda mesh, *_, **__: SimpleNamespace(mesh=mesh))
        patch.setattr(groupwise, "remesh_again", lambda mesh, _: (mesh, ()))
        yield


@pytest.fixture(scope="module")
def before(quick: None, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: ARG001
    """Surfaces of four people, two of whom differ in width."""
    root = tmp_path_factory.mktemp("before")
    for subject, width in WIDTH.items():
        mesh = cage(0.7)
        store(Workspace(root), subject, mesh.with_vertices(mesh.vertices * [width, 1.0, 1.0]))
    return root


@pytest.fixture(scope="module")
def done(before: Path, tmp_path_factory: pytest.TempPathFactory) -> Line:
    root = tmp_path_factory.mktemp("rounds") / "study"
    shutil.copytree(before, root)
    return made(root, chosen())


def test_a_mean_that_misses_the_gate_is_not_used(before: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every shape of the cohort would have to be mended where the template is bad."""
    root = tmp_path / "study"
    shutil.copytree(before, root)
    told = iter([(), ("rib_left_12: min angle, deg 13.10, limit 26.0",)])
    monkeypatch.setattr(groupwise, "remesh_again", lambda mesh, _: (mesh, next(told)))
    line = made(root, chosen(rounds=4))
    assert (COHORT, "round_2") in line.redone
    assert (COHORT, "round_3") not in line.redone
    assert line.space.read(COHORT, "template").numbers["rounds"] == 1
    last = (read_vtp(line.space.folder() / f"{name}.vtp") for name in ("template", "round_1"))
    assert np.array_equal(*(m.vertices for m in last))
    assert made(root, chosen(rounds=4)).redone == []


def test_rounds_are_those_of_a_balanced_few(done: Line) -> None:
    assert done.redone == [(COHORT, "composed"), *ROUNDS, (COHORT, "template")]
    assert done.space.read(COHORT, "round_1").numbers["studies"] == TWO
    record = done.space.read(COHORT, "template")
    assert record.numbers["rounds"] == 2
    assert len(record.numbers["surface_mm"]) == 2
    template = read_vtp(done.space.folder() / "template.vtp")
    assert set(template.arrays) == {"prior"}
    assert done.refused == {}


def test_a_round_is_the_library_s(before: Path, done: Line) -> None:
    """What the run keeps in files between its stages, the library does in memory."""
    settings, start = chosen(rounds=1), cage(0.5)
    found = groupwise.groupwise(
        Template(start, np.zeros(len(start.vertices), bool)),
        [read_vtp(before / "studies" / s / SURFACE_FILE) for s in TWO],
        partial(register, settings=settings.section("registration")),
        prepare=partial(prepare, prior=SMALL.prior),
        settings=settings.section("groupwise"),
    )
    stored = read_vtp(done.space.folder() / "round_1.vtp")
    np.testing.assert_allclose(stored.vertices, found.template.mesh.vertices, atol=1e-9)
    assert np.array_equal(stored.arrays["prior"], found.n_seen == 0)


def test_a_second_run_does_nothing(done: Line) -> None:
    old = files(done.space.root)
    assert made(done.space.root, chosen()).redone == []
    assert files(done.space.root) == old


def test_two_workers_give_the_same_bytes(before: Path, done: Line, tmp_path: Path) -> None:
    shutil.copytree(before, tmp_path / "study")
    made(tmp_path / "study", chosen(rounds=1, workers=2))
    mine, theirs = files(tmp_path / "study"), files(done.space.root)
    places = [f"studies/{s}/round_1" for s in TWO] + ["cohort/round_1"]
    names = [p + ending for p in places for ending in (".json", ".vtp")]
    assert [mine[n] for n in names] == [theirs[n] for n in names]


def test_a_stopped_run_goes_on_in_the_middle_of_a_round(done: Line, tmp_path: Path) -> None:
    """Stopped between the two studies of the second round; the rest comes out the same."""
    root = tmp_path / "study"
    shutil.copytree(done.space.root, root)
    space = Workspace(root)
    for subject, stage in [*ROUNDS[4:], (COHORT, "template")]:
        space.forget(subject, stage)
    assert made(root, chosen()).redone == [*ROUNDS[4:], (COHORT, "template")]
    assert files(root) == files(done.space.root)


def test_fewer_rounds_go_no_further_and_leave_nothing_of_the_others(done: Line, tmp_path: Path) -> None:
    root = tmp_path / "study"
    shutil.copytree(done.space.root, root)
    assert made(root, chosen(rounds=1)).redone == [(COHORT, "template")]
    assert {p.stem for p in root.rglob("round_*")} == {"round_1"}
    none = made(root, chosen(rounds=0))
    assert none.redone == [(COHORT, "template")]
    assert not list(root.rglob("round_*"))
    place = none.space.folder()
    assert (place / "template.vtp").read_bytes() == (place / "composed.vtp").read_bytes()


def test_a_given_template_is_taken_as_it_is(before: Path, done: Line, tmp_path: Path) -> None:
    root = tmp_path / "study"
    shutil.copytree(before, root)
    own = done.space.folder() / "template.vtp"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cohort, "composed", OWN_COMPOSED)
        line = made(root, chosen(template=str(own)))
    assert line.redone == [(COHORT, "composed"), (COHORT, "template")]
    assert not list(root.rglob("round_*"))
    assert (line.space.folder() / "template.vtp").read_bytes() == own.read_bytes()


def test_a_given_template_that_cannot_be_one_is_refused_by_the_settings_name(tmp_path: Path) -> None:
    holed = Mesh(cage(0.5).vertices, cage(0.5).faces[1:], cage(0.5).bone)
    path = write_vtp(holed, tmp_path / "holed.vtp")
    with pytest.raises(InputError, match=r"cohort\.template: .*closed manifold"):
        OWN_COMPOSED(Workspace(tmp_path), [], chosen(template=str(path)))


def test_a_study_unfit_for_a_round_is_left_out_of_the_rounds_alone(before: Path, tmp_path: Path) -> None:
    root = tmp_path / "study"
    shutil.copytree(before, root)
    shutil.rmtree(root / "studies" / "a")
    store(Workspace(root), "a", cage(0.7).with_vertices(cage(0.7).vertices * [-1.0, 1.0, 1.0]))
    line = made(root, chosen(rounds=1))
    assert line.space.read("a", "round_1").code == "mirrored"
    assert line.space.read(COHORT, "round_1").numbers["studies"] == ["c"]
    assert line.refused == {}
    shutil.rmtree(root / "studies" / "c")
    store(Workspace(root), "c", cage(0.7).with_vertices(cage(0.7).vertices * [-1.0, 1.0, 1.0]))
    with pytest.raises(StudyError, match="no subject could be registered"):
        made(root, chosen(rounds=1))
