"""The command line: quick help, clear sentences, exit codes, quiet, progress lines."""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pipelines import cli, commands, corrections, options, progress
from shapemodel.mesh import Mesh, read_vtp, write_vtp
from shapemodel.reasons import Flag, InputError, StudyError

VERBS = [
    "scan", "run", "segment", "surfaces", "template", "register", "model", "mean", "query", "report", "demo",
    "fit", "solids", "export", "edit", "preview",
]  # fmt: skip


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    text = capsys.readouterr().out
    assert all(f"    {verb} " in text for verb in VERBS)
    assert set(VERBS) == set(commands.COMMANDS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_and_takes_quiet_and_debug(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        cli.main([verb, "--help"])
    assert done.value.code == 0
    text = capsys.readouterr().out
    assert "--quiet" in text
    assert "--debug" in text


def test_help_is_quick() -> None:
    """Under half a second of work; counted in CPU time, since a busy machine is not the command's fault."""
    code = (
        "import sys, time\nsys.argv = ['shapemodel', '--help']\nfrom pipelines.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'numpy', 'vtk', 'pyvista', 'SimpleITK', 'scipy', 'matplotlib', 'distributed'} & set(sys.modules)\n"
        "sys.stderr.write(f'{time.process_time()} {sorted(heavy)}')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, heavy = done.stderr.split(" ", 1)
    assert heavy == "[]"
    assert float(seconds) < 0.5


def test_wrong_input_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.main(["surfaces", str(tmp_path / "none.nii.gz"), "-o", str(tmp_path / "x.vtp")])
    err = capsys.readouterr().err
    assert code != 0
    assert err.count("\n") == 1
    assert "none.nii.gz" in err
    assert "Traceback" not in err


def test_wrong_ending_is_refused_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["surfaces", "labels.nii.gz", "-o", str(tmp_path / "x.stl")]) == cli.EXIT_INPUT
    assert "expected a name ending in .vtp" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (InputError("row 3: wrong"), cli.EXIT_INPUT, "row 3: wrong"),
        (StudyError("no_lungs", "S1: no lungs"), cli.EXIT_STUDY, "S1: no lungs [no_lungs]"),
        (OSError(28, "No space left on device"), cli.EXIT_RESOURCES, "the disk is full"),
        (MemoryError(), cli.EXIT_RESOURCES, "out of memory"),
        (KeyboardInterrupt(), cli.EXIT_INTERRUPTED, "goes on where it stopped"),
        (ZeroDivisionError("x"), cli.EXIT_BUG, "internal error: ZeroDivisionError"),
    ],
)
def test_each_failure_has_its_sentence_and_exit_code(
    error: BaseException, code: int, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.setitem(commands.COMMANDS, "report", fail)
    assert cli.main(["report", "study"]) == code
    err = capsys.readouterr().err
    assert words in err
    assert "Traceback" not in err
    assert cli.main(["report", "study", "--debug"]) == code
    assert "Traceback" in capsys.readouterr().err


def test_a_flag_names_its_bone(capsys: pytest.CaptureFixture[str]) -> None:
    flags = [Flag("bone_unsure", 7, "expected error 4.5 mm"), Flag("contrast", 0, "40 mL")]
    options.say_flags(argparse.Namespace(quiet=False), flags)
    assert capsys.readouterr().out.splitlines() == [
        "look at it: bone_unsure rib_left_07: expected error 4.5 mm",
        "look at it: contrast: 40 mL",
    ]


def test_a_full_disk_deep_inside_is_recognised() -> None:
    from pipelines.subject import is_full_disk

    outer = RuntimeError("could not write")
    outer.__cause__ = OSError(28, "No space left on device")
    assert is_full_disk(outer)
    assert not is_full_disk(OSError(2, "no such file"))


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("shapemodel ")


def _shape() -> Mesh:
    v = np.array([[0.0, 0, 0], [10, 0, 0], [0, 10, 0], [0, 0, 10]])
    f = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]])
    return Mesh(v, f, np.full(4, 7, np.uint8))


def test_export_writes_and_quiet_is_quiet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shape = write_vtp(_shape(), tmp_path / "rib.vtp")
    assert cli.main(["export", str(shape), "-o", str(tmp_path / "rib.k"), "--title", "a rib"]) == 0
    assert "rib.k" in capsys.readouterr().out
    assert "*NODE" in (tmp_path / "rib.k").read_text()
    assert cli.main(["export", str(shape), "-o", str(tmp_path / "rib.stl"), "--quiet"]) == 0
    assert capsys.readouterr().out == ""
    assert len(read_vtp(shape).vertices) == 4


def test_scan_makes_the_manifests_folder(tmp_path: Path) -> None:
    (tmp_path / "ct").mkdir()
    (tmp_path / "ct" / "note.dcm").write_text("no image")
    manifest = tmp_path / "new" / "folder" / "data_manifest.csv"
    assert cli.main(["scan", str(tmp_path / "ct"), "--manifest", str(manifest), "--quiet"]) == 0
    assert manifest.is_file()


def test_edit_writes_overrides_beside_the_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from small import write_rows

    from shapemodel.overrides import read_overrides

    manifest = tmp_path / "data_manifest.csv"
    write_rows(manifest, [{"subject": "S1", "labels": "l.nii.gz", "labels_scheme": "shapemodel"}])
    base = ["edit", "S1", "--manifest", str(manifest)]
    assert cli.main([*base[:2], "threshold", *base[2:], "--shift", "-20"]) == 0
    seed = ["grow-from-seeds", "--label", "rib_left_07", "--at", "84", "-12.5", "-210"]
    assert cli.main([*base[:2], *seed, *base[2:]]) == 0
    assert cli.main([*base[:2], "relabel", "--label", "rib_left_07", "--to", "rib_left_08", *base[2:]]) == 0
    own = read_overrides(tmp_path / corrections.OVERRIDES_FILE)["S1"]
    assert own.threshold_shift == -20
    assert own.seeds == ((84.0, -12.5, -210.0, 7),)
    assert [(s.do, s.label, s.to) for s in own.steps] == [("relabel", 7, 8)]
    assert own.version == 3
    assert cli.main([*base[:2], "exclude", "--why", "metal", *base[2:]]) == 0
    assert read_overrides(tmp_path / corrections.OVERRIDES_FILE)["S1"].exclude
    assert "left out (metal)" in capsys.readouterr().out
    assert cli.main([*base[:2], "cut", *base[2:], "--label", "rib_left_07"]) == cli.EXIT_INPUT
    assert cli.main(["edit", "nobody", "show", *base[2:]]) == cli.EXIT_INPUT
    assert cli.main([*base[:2], "reset", *base[2:]]) == 0
    assert read_overrides(tmp_path / corrections.OVERRIDES_FILE)["S1"].empty


def test_lines_tell_study_stage_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 30.0, 60.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    out = io.StringIO()
    lines = progress.Lines(out)
    lines.begin("labels and surfaces", 2)
    lines.note("S1", "labels")
    lines.advance("S1", "30.0 s")
    lines.advance("S2", "left out (no_lungs)")
    assert out.getvalue().splitlines() == [
        "labels and surfaces 1/2 S1: 30.0 s, about 30 s left",
        "labels and surfaces 2/2 S2: left out (no_lungs)",
    ]


def test_bar_draws_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress.shown() as bar:
        assert isinstance(bar, progress.Bar)
        bar.begin("labels", 2)
        bar.note("S1", "labels")
        bar.advance("S1", "1 s")
    with progress.shown(quiet=True) as nothing:
        assert type(nothing) is progress.Quiet


@pytest.mark.parametrize(
    ("seconds", "words"), [(5, "5 s"), (89, "89 s"), (200, "3 min"), (7300, "2 h 2 min"), (7199, "2 h 0 min")]
)
def test_durations(seconds: float, words: str) -> None:
    assert progress.duration(seconds) == words


def test_the_committed_manifest_is_the_demo_cohort() -> None:
    """``sha256`` is left empty there: the last bits of phantom pixels depend on the machine's arithmetic."""
    from pipelines.settings import DemoSettings
    from shapemodel.manifest import read_manifest
    from shapemodel.phantom.subject import draw_population

    demo = DemoSettings()
    root = Path(__file__).resolve().parents[1]
    rows = read_manifest(root / "data_manifest.csv", check_files=False)
    people = draw_population((demo.studies + 1) // 2, demo.studies // 2, demo.seed)
    assert [(r.subject, r.sex, r.age_years, r.height_cm, r.weight_kg) for r in rows] == [
        (p.subject, p.sex, p.age_years, p.height_cm, p.weight_kg) for p in people
    ]
    assert [r.ct for r in rows] == [root / "demo" / "ct" / p.subject for p in people]
