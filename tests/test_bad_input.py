"""Bad inputs each get their reason code or their sentence, and never a traceback."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from small import write_rows

from pipelines import cli
from shapemodel.manifest import read_manifest
from shapemodel.phantom.dicom import write_dicom


def _ct(size: tuple[int, int, int] = (48, 48, 40), spacing: tuple[float, float, float] = (8.0, 8.0, 8.0)) -> sitk.Image:
    """A body of water in air, without lungs or bones."""
    z, y, x = np.mgrid[: size[2], : size[1], : size[0]]
    inside = ((x - size[0] / 2) / (size[0] / 2.5)) ** 2 + ((y - size[1] / 2) / (size[1] / 3.0)) ** 2 < 1
    image = sitk.GetImageFromArray(np.where(inside, 40, -1000).astype(np.int16))
    image.SetSpacing(spacing)
    return image


def _scan(root: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = cli.main(["scan", str(root), "-m", str(root.parent / "m.csv"), "--subjects", "folder"])
    out = capsys.readouterr()
    assert "Traceback" not in out.err
    return code, out.out, out.err


def test_an_empty_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ct").mkdir()
    code, _, err = _scan(tmp_path / "ct", capsys)
    assert code == cli.EXIT_STUDY
    assert "no_images" in err


def test_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = _scan(tmp_path / "nowhere", capsys)
    assert code == cli.EXIT_INPUT
    assert "nowhere" in err


def _reason(root: Path, capsys: pytest.CaptureFixture[str]) -> set[str]:
    _scan(root, capsys)
    return {s.reason for s in read_manifest(root.parent / "m.csv", check_files=False)}


def test_a_text_file_called_dcm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "ct" / "s1"
    folder.mkdir(parents=True)
    (folder / "notes.dcm").write_text("not an image")
    assert _reason(tmp_path / "ct", capsys) == {"not_dicom"}


def test_a_truncated_series(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = write_dicom(_ct(spacing=(2.4, 2.4, 2.5), size=(150, 150, 100)), tmp_path / "ct" / "s1")
    files[7].write_bytes(files[7].read_bytes()[:-2000])
    assert _reason(tmp_path / "ct", capsys) & {"truncated", "missing_slice"}


def test_a_missing_slice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = write_dicom(_ct(spacing=(2.4, 2.4, 2.5), size=(150, 150, 100)), tmp_path / "ct" / "s1")
    files[40].unlink()
    assert _reason(tmp_path / "ct", capsys) == {"missing_slice"}


def test_a_single_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = write_dicom(_ct(), tmp_path / "ct" / "s1")
    for path in files[1:]:
        path.unlink()
    assert _reason(tmp_path / "ct", capsys) <= {"not_volume", "too_short"}


def _head() -> sitk.Image:
    """A skull: bone shell, brain, no lungs."""
    z, y, x = np.mgrid[:90, :128, :128]
    r = np.sqrt(((x - 64) / 45.0) ** 2 + ((y - 64) / 55.0) ** 2 + ((z - 40) / 42.0) ** 2)
    hu = np.where(r < 0.85, 35, np.where(r < 1.0, 900, np.where(r < 1.08, 20, -1000)))
    image = sitk.GetImageFromArray(hu.astype(np.int16))
    image.SetSpacing((1.6, 1.6, 2.0))
    return image


def test_a_head_is_no_thorax(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sitk.WriteImage(_head(), str(tmp_path / "head.nii.gz"))
    code = cli.main(["segment", str(tmp_path / "head.nii.gz"), "-o", str(tmp_path / "l.nii.gz")])
    err = capsys.readouterr().err
    assert code == cli.EXIT_STUDY
    assert any(f"[{reason}]" in err for reason in ("no_lungs", "not_thorax", "too_short"))
    assert not (tmp_path / "l.nii.gz").exists()


def test_a_2d_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sitk.WriteImage(_ct()[:, :, 20], str(tmp_path / "flat.mha"))
    code = cli.main(["segment", str(tmp_path / "flat.mha"), "-o", str(tmp_path / "l.nii.gz")])
    assert code == cli.EXIT_STUDY
    assert "[not_volume]" in capsys.readouterr().err


ROW = {"subject": "S1", "labels": "l.nii.gz", "labels_scheme": "shapemodel"}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([ROW, ROW], "subject"),
        ([{**ROW, "sex": "X"}], "row 2, column sex: expected F, M or nothing, found 'X'"),
        ([{**ROW, "labels": "gone.nii.gz"}], "labels"),
        ([{**ROW, "age_years": "old"}], "age_years"),
        ([{**ROW, "labels_scheme": ""}], "labels_scheme"),
        ([], "expected at least one study"),
    ],
)
def test_wrong_manifests(tmp_path: Path, rows: list[dict], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "l.nii.gz").write_bytes(b"")
    write_rows(tmp_path / "m.csv", rows)
    code = cli.main(["run", str(tmp_path / "m.csv"), "--out", str(tmp_path / "study"), "--quiet"])
    out = capsys.readouterr()
    assert code == cli.EXIT_INPUT
    assert words in out.err
    assert out.err.count("\n") == 1


def test_label_maps_that_hold_nothing_leave_too_few_studies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sitk.WriteImage(sitk.Image(20, 20, 20, sitk.sitkUInt8), str(tmp_path / "l.nii.gz"))
    write_rows(tmp_path / "m.csv", [ROW, {**ROW, "subject": "S2"}])
    code = cli.main(["run", str(tmp_path / "m.csv"), "--out", str(tmp_path / "study"), "--workers", "1"])
    err = capsys.readouterr().err
    assert code == cli.EXIT_INPUT
    assert "0 usable studies are left" in err
    assert "S1: bad_labels" in err


def test_unknown_setting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s.toml").write_text("[cohort]\nseeed = 1\n")
    write_rows(tmp_path / "m.csv", [])
    code = cli.main(
        ["run", str(tmp_path / "m.csv"), "--out", str(tmp_path / "study"), "--settings", str(tmp_path / "s.toml")]
    )
    assert code == cli.EXIT_INPUT
    assert "cohort.seeed" in capsys.readouterr().err


def test_no_scheduler_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.pool.CONNECT_SECONDS", 1)
    sitk.WriteImage(sitk.Image(20, 20, 20, sitk.sitkUInt8), str(tmp_path / "l.nii.gz"))
    write_rows(tmp_path / "m.csv", [ROW, {**ROW, "subject": "S2"}])
    command = ["run", str(tmp_path / "m.csv"), "--out", str(tmp_path / "study"), "--scheduler", "tcp://127.0.0.1:1"]
    assert cli.main(command) == cli.EXIT_INPUT
    assert "no dask scheduler answers" in capsys.readouterr().err


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    """What the kernel says of a full disk, at the first file that a study writes."""
    labels = np.zeros((40, 60, 60), np.uint8)
    rng = np.random.default_rng(0)
    labels[:] = rng.integers(0, 38, labels.shape)
    sitk.WriteImage(sitk.GetImageFromArray(labels), str(tmp_path / "l.nii.gz"))
    write_rows(tmp_path / "m.csv", [ROW, {**ROW, "subject": "S2"}])
    code = (
        "import errno, sys\n"
        "from pipelines import cli, subject\n"
        "def full(*args, **kw): raise OSError(errno.ENOSPC, 'No space left on device')\n"
        "import shapemodel.labelmaps\n"
        "shapemodel.labelmaps.write_labels = full\n"
        f"sys.exit(cli.main(['run', {str(tmp_path / 'm.csv')!r}, '--out', {str(tmp_path / 'study')!r}, "
        "'--workers', '1', '--quiet']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == cli.EXIT_RESOURCES
    assert "the disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    left = [p for p in (tmp_path / "study" / "studies").rglob("*") if p.is_file()]
    assert left == [], "nothing half written stays"


@pytest.mark.skipif(shutil.which("mount") is None, reason="needs mount")
@pytest.mark.slow
def test_a_small_file_system_that_fills_up(tmp_path: Path) -> None:
    """The same on a file system of 1 MB, where it may be mounted (root only)."""
    place = tmp_path / "small"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], check=False).returncode:
        pytest.skip("may not mount a file system here")
    try:
        noise = np.random.default_rng(0).integers(0, 38, (80, 200, 200)).astype(np.uint8)
        sitk.WriteImage(sitk.GetImageFromArray(noise), str(tmp_path / "l.nii.gz"))
        write_rows(tmp_path / "m.csv", [ROW, {**ROW, "subject": "S2"}])
        command = [sys.executable, "-m", "pipelines.cli", "run", str(tmp_path / "m.csv"), "--out", str(place / "study")]
        done = subprocess.run([*command, "--workers", "1"], capture_output=True, text=True, check=False)
        assert done.returncode == cli.EXIT_RESOURCES, done.stderr
        assert "the disk is full" in done.stderr
    finally:
        subprocess.run(["umount", str(place)], check=True)
