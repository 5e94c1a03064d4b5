"""The whole line on a small phantom cohort: DICOM and label maps in, means and report out; resume; same bytes."""

from __future__ import annotations

import hashlib
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from small import write_small_cohort

from pipelines import line, settings, verbs
from pipelines.line import RunResult
from shapemodel.intersections import find_intersections
from shapemodel.mesh import read_vtp

OK_MEAN_MM = 5.0
"""Coarse scans, 8 mm triangles and four people: far above what the demo reaches, far below a wrong rib (25 mm)."""


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    write_small_cohort(folder)
    return folder


def _run(cohort: Path, out: Path, **changes: dict) -> RunResult:
    return line.run(cohort / "data_manifest.csv", out, settings=settings.load(cohort / "settings.toml", **changes))


@pytest.fixture(scope="module")
def done(cohort: Path) -> RunResult:
    return _run(cohort, cohort / "study")


def _bytes(root: Path) -> dict[str, str]:
    """Hash of every artefact except the log."""
    return {
        p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob("*"))
        if p.is_file() and "log" not in p.relative_to(root).parts
    }


def test_everything_is_there(done: RunResult) -> None:
    assert len(done.used) == 4
    assert not done.refused
    for group in ("female", "male"):
        for name in (f"mean_{group}", f"mean_{group}_symmetric"):
            for ending in (".stl", ".ply", ".vtp"):
                assert done.files[f"{name}{ending}"].stat().st_size > 1000
    page = done.files["report.html"].read_text()
    assert all(s in page for s in done.used)
    for group in ("pooled", "female", "male"):
        assert (done.workspace.folder() / f"model_{group}.h5").is_file()


def test_means_are_near_the_truth(cohort: Path, done: RunResult) -> None:
    """Ribs and spine of the female mean lie where the two women's true bones lie, in the frame of their scans."""
    from pipelines.demo import compare

    found = compare(cohort, done)
    assert sum(s.ribs_right for s in found.studies) == sum(s.ribs_visible for s in found.studies)
    assert found.mean_error_mm["female"] < OK_MEAN_MM
    assert found.mean_error_mm["male"] < OK_MEAN_MM
    assert min(s.visible_agreement for s in found.studies) > 0.95


def test_sides_are_the_patient_s(done: RunResult) -> None:
    mean = read_vtp(done.files["mean_female.vtp"])
    assert mean.vertices[mean.bone == 6][:, 0].mean() > 50 + mean.vertices[mean.bone == 18][:, 0].mean()


@pytest.mark.slow
def test_the_mean_of_all_four_serves_as_template(cohort: Path, done: RunResult, tmp_path: Path) -> None:
    """With a groupwise round the template changes, loses no bone, and the means are as near to the truth.

    Triangles of 8 mm are too large for the last ribs, of which new ones would leave a stub; they keep theirs.
    """
    from pipelines.demo import compare

    shutil.copytree(done.workspace.root, tmp_path / "study")
    found = _run(cohort, tmp_path / "study", groupwise={"rounds": 1})
    stages = {stage for _, stage in found.redone}
    assert {"round_1", "template", "registration", "model"} <= stages
    assert not stages & {"labels", "surfaces", "composed"}
    record = found.workspace.read("", "round_1")
    assert record is not None
    assert record.numbers["studies"] == list(done.used)
    first, last = (read_vtp(found.workspace.folder() / name) for name in ("composed.vtp", "template.vtp"))
    before, after = (np.bincount(m.bone, minlength=38)[1:] for m in (first, last))
    assert (after > 0.6 * before).all()
    assert not len(find_intersections(last).pairs)
    assert max(compare(cohort, found).mean_error_mm.values()) < OK_MEAN_MM


def test_a_second_run_does_nothing(cohort: Path, done: RunResult) -> None:
    before = _bytes(done.workspace.root)
    again = _run(cohort, cohort / "study")
    assert again.redone == ()
    assert _bytes(done.workspace.root) == before


def test_only_what_changed_is_redone(cohort: Path, done: RunResult, tmp_path: Path) -> None:
    work = tmp_path / "study"
    shutil.copytree(done.workspace.root, work)
    assert {stage for _, stage in _run(cohort, work, report={"sigma": 1.0}).redone} == {"results", "report"}
    _run(cohort, work)
    victim = done.used[0]
    (work / "studies" / victim / "registered.vtp").unlink()
    redone = _run(cohort, work).redone
    assert redone == ((victim, "registration"),), "the same bytes come back, so nothing after it is redone"


def test_a_correction_redoes_its_own_study(cohort: Path, done: RunResult, tmp_path: Path) -> None:
    """A correction in overrides.toml touches the surfaces of that study alone; what rests on all follows."""
    work, own = tmp_path / "study", tmp_path / "cohort"
    shutil.copytree(done.workspace.root, work)
    shutil.copytree(cohort / "ct", own / "ct")
    shutil.copytree(cohort / "truth", own / "truth")
    for name in ("data_manifest.csv", "settings.toml"):
        shutil.copy(cohort / name, own / name)
    (own / "overrides.toml").write_text(
        f'format = 1\n[studies.{done.used[1]}]\nversion = 1\n[[studies.{done.used[1]}.steps]]\ndo = "islands"\n'
        'label = "sternum"\n'
    )
    redone = _run(own, work).redone
    assert {s for s, stage in redone if stage == "labels"} == {done.used[1]}


def test_excluded_and_unfit_studies_are_left_out_with_their_reason(
    cohort: Path, done: RunResult, tmp_path: Path
) -> None:
    work, own = tmp_path / "study", tmp_path / "cohort"
    shutil.copytree(done.workspace.root, work)
    shutil.copytree(cohort, own, ignore=shutil.ignore_patterns("study"))
    lines = (own / "data_manifest.csv").read_text().splitlines()
    bad = lines[1].split(",")
    bad[0] = "half"
    broken = own / "ct" / "half"
    shutil.copytree(own / "ct" / done.used[0], broken)
    files = sorted(p for p in broken.rglob("*") if p.is_file())
    for path in files[: len(files) // 2]:
        path.write_bytes(path.read_bytes()[:600])
    bad[lines[0].split(",").index("ct")] = "ct/half"
    (own / "data_manifest.csv").write_text("\n".join([*lines, ",".join(bad)]) + "\n")
    found = _run(own, work)
    assert set(found.used) == set(done.used)
    assert found.refused["half"][0] in ("truncated", "missing_slice", "not_dicom")
    assert "half" in found.files["report.html"].read_text()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_and_resumed_gives_the_same_bytes(cohort: Path, done: RunResult, tmp_path: Path, how: int) -> None:
    """Stopped in mid-run, the next run does only the rest, and every artefact has the bytes of an unbroken run."""
    work = tmp_path / "study"
    command = [sys.executable, "-m", "pipelines.cli", "run", str(cohort / "data_manifest.csv"), "--out", str(work)]
    command += ["--settings", str(cohort / "settings.toml")]
    (work / "studies").mkdir(parents=True)
    for name in done.used[:3]:  # spare the test what the first stages cost; the fourth study is killed in them
        shutil.copytree(done.workspace.folder(name), work / "studies" / name)
    hear = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a background job is started deaf to Ctrl-C
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL}
    with subprocess.Popen(command, **pipes, text=True, preexec_fn=hear) as process:  # type: ignore[call-overload]
        assert process.stderr is not None
        for text in process.stderr:
            if text.startswith("labels and surfaces 4/4"):
                time.sleep(0.5)  # in the middle of the template
                process.send_signal(how)
                break
        rest = process.stderr.read()
    assert process.returncode != 0
    if how == signal.SIGINT:
        assert "goes on where it stopped" in rest
        assert "Traceback" not in rest
    again = _run(cohort, work)
    assert {stage for _, stage in again.redone} & {"labels", "surfaces"} == set()
    assert ("", "template") in again.redone
    assert _bytes(work) == _bytes(done.workspace.root)


def test_verbs_one_by_one_give_what_run_gives(cohort: Path, done: RunResult) -> None:
    """``run`` is the verbs in order: labels -> surfaces -> registration by hand end in the same vertices."""
    chosen = settings.load(cohort / "settings.toml")
    subject = done.used[1]
    bones = verbs.surfaces(cohort / "truth" / subject / "labels.nii.gz", settings=chosen)
    template = read_vtp(done.workspace.folder() / "template.vtp")
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        found = verbs.register(bones, template, settings=chosen)
    stored = read_vtp(done.workspace.folder(subject) / "registered.vtp")
    np.testing.assert_allclose(found.vertices, stored.vertices, atol=1e-6)
    assert np.array_equal(found.visible, stored.arrays["visible"])
