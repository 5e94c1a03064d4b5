"""The run's folder: stages are redone exactly when something that made them changed, and nothing is half written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import workspace as ws
from pipelines.costs import Timing, log_timing
from pipelines.workspace import Outcome, Workspace, run_stage
from shapemodel.reasons import InputError, StudyError


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


class Body:
    """A stage that counts how often it was done."""

    def __init__(self, text: str = "one", names: tuple[str, ...] = ("a.txt",)):
        self.text, self.names, self.calls = text, names, 0

    def __call__(self, work: Path) -> Outcome:
        self.calls += 1
        for name in self.names:
            (work / name).write_text(self.text)
        return Outcome({"n": self.calls}, (("flag", 3, "note"),))


def test_a_fresh_stage_is_not_done_again(space: Workspace) -> None:
    body = Body()
    first, cost = run_stage(space, "S1", "labels", key="k", body=body)
    again, nothing = run_stage(space, "S1", "labels", key="k", body=body)
    assert body.calls == 1
    assert first == again
    assert cost is not None
    assert cost.peak_mb > 1
    assert nothing is None


def test_another_key_does_it_again_and_drops_files_no_longer_made(space: Workspace) -> None:
    run_stage(space, "S1", "labels", key="k", body=Body(names=("a.txt", "b.txt")))
    run_stage(space, "S1", "labels", key="l", body=Body("two"))
    assert (space.folder("S1") / "a.txt").read_text() == "two"
    assert not (space.folder("S1") / "b.txt").exists()


@pytest.mark.parametrize("damage", ["change", "remove", "record"])
def test_a_file_that_is_not_the_recorded_one_is_made_again(space: Workspace, damage: str) -> None:
    body = Body()
    run_stage(space, "S1", "labels", key="k", body=body)
    target = space.folder("S1") / "a.txt"
    if damage == "change":
        target.write_text("edited")
    elif damage == "remove":
        target.unlink()
    else:
        space.record_path("S1", "labels").write_text("{")
    run_stage(space, "S1", "labels", key="k", body=body)
    assert body.calls == 2
    assert target.read_text() == "one"


def test_a_refusal_is_recorded_and_leaves_no_files(space: Workspace) -> None:
    def refuse(work: Path) -> Outcome:
        (work / "half.txt").write_text("x")
        raise StudyError("no_lungs", "S1: expected lungs, found none")

    run_stage(space, "S1", "labels", key="k", body=Body())
    record, _ = run_stage(space, "S1", "labels", key="l", body=refuse)
    assert (record.ok, record.code) == (False, "no_lungs")
    assert space.read("S1", "labels") == record
    assert sorted(p.name for p in space.folder("S1").iterdir()) == ["labels.json"]


def test_any_other_failure_leaves_the_stage_as_it_was(space: Workspace) -> None:
    def break_(work: Path) -> Outcome:
        (work / "a.txt").write_text("half")
        raise RuntimeError("bug")

    before, _ = run_stage(space, "S1", "labels", key="k", body=Body())
    with pytest.raises(RuntimeError, match="bug"):
        run_stage(space, "S1", "labels", key="l", body=break_)
    assert space.fresh("S1", "labels", "k") == before


def test_key_depends_on_inputs_settings_and_stage() -> None:
    base = ws.stage_key("surfaces", {"labels": "x"}, {"grid": 1.0})
    assert base == ws.stage_key("surfaces", {"labels": "x"}, {"grid": 1.0})
    others = [
        ws.stage_key("surfaces", {"labels": "y"}, {"grid": 1.0}),
        ws.stage_key("surfaces", {"labels": "x"}, {"grid": 1.1}),
        ws.stage_key("labels", {"labels": "x"}, {"grid": 1.0}),
    ]
    assert len({base, *others}) == 4


def test_key_depends_on_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    base = ws.stage_key("surfaces", {}, {})
    monkeypatch.setattr(ws, "code_sha256", lambda entry: "another" + entry)
    assert ws.stage_key("surfaces", {}, {}) != base


def test_records_know_no_time(space: Workspace) -> None:
    run_stage(space, "S1", "labels", key="k", body=Body())
    text = space.record_path("S1", "labels").read_text()
    assert not {"seconds", "peak_mb", "when"} & set(json.loads(text))
    assert str(space.root) not in text


def test_the_folder_is_one_run_s_alone_and_is_swept(tmp_path: Path) -> None:
    stale = tmp_path / "studies" / "S1" / ".work-labels-99"
    stale.mkdir(parents=True)
    (stale / "half.vtp").write_text("x")
    with ws.opened(tmp_path):
        assert not stale.exists()
        with pytest.raises(InputError, match="another run is at work"), ws.opened(tmp_path):
            pass
    with ws.opened(tmp_path):
        pass


def test_a_killed_process_leaves_the_lock_free(tmp_path: Path) -> None:
    code = (
        f"import os\nfrom pipelines import workspace\nwith workspace.opened({str(tmp_path)!r}): os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    with ws.opened(tmp_path):
        pass


def test_a_file_in_the_way_is_said(tmp_path: Path) -> None:
    (tmp_path / "study").write_text("x")
    with pytest.raises(InputError, match="cannot be used as a run's folder"), ws.opened(tmp_path / "study"):
        pass


def test_inputs_are_read_again_only_when_they_changed(space: Workspace, tmp_path: Path) -> None:
    scan = tmp_path / "ct"
    scan.mkdir()
    (scan / "1.dcm").write_text("x")
    calls: list[Path] = []

    def digest(path: Path) -> str:
        calls.append(path)
        return f"hash{len(calls)}"

    assert ws.input_sha256(space, scan, digest) == ws.input_sha256(space, scan, digest) == "hash1"
    os.utime(scan / "1.dcm", ns=(1, 1))
    assert ws.input_sha256(space, scan, digest) == "hash2"


def test_costs_are_logged_under_one_header(tmp_path: Path) -> None:
    for stage in ("labels", "surfaces"):
        log_timing(tmp_path, Timing("S1", stage, 1.234, 56.7))
    head, *rows = (tmp_path / "timings.csv").read_text().splitlines()
    assert head == "when,subject,stage,seconds,peak_mb"
    assert [row.split(",")[1:] for row in rows] == [["S1", "labels", "1.23", "57"], ["S1", "surfaces", "1.23", "57"]]
