"""What a run puts to the gate, its tables, and the refusal of a deck that cannot be had."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_ready import closing, model, pair

from pipelines import cli, gate, verbs
from pipelines.settings import ReportSettings
from shapemodel.interchange import save_model
from shapemodel.mesh import read_vtp, write_vtp
from shapemodel.meshquality import assess
from shapemodel.reasons import InputError


def test_every_trial_shape_is_named_passes_and_has_the_same_ids() -> None:
    fitted = verbs.with_bases({"pooled": model()}, pair())["pooled"]
    maker = verbs.finisher(fitted)
    made = {
        name: maker(mesh)
        for name, mesh in gate.trial_shapes(fitted, ReportSettings(checked_modes=2, checked_samples=3))
    }
    assert list(made)[:2] == ["pooled mode 1 minus 2 SD", "pooled mode 1 plus 2 SD"]
    assert len(made) == 7
    rows = {name: gate.row(found.verdict, 10, found) for name, found in made.items()}
    assert all(row["passed"] for row in rows.values())
    assert max(row["moved_max_mm"] for row in rows.values()) > 0.05  # mode 1 closes a joint: something had to give
    assert len({gate.ids_of(found.mesh) for found in made.values()}) == 1
    parts = gate.worst_by_part([found.verdict for found in made.values()])
    assert [row[0] for row in parts] == ["rib_left_03", "rib_left_04"]
    assert all(len(row) == len(gate.PART_COLUMNS) for row in parts)
    worst = min(p.min_angle for found in made.values() for p in found.verdict.parts)
    assert min(row[2] for row in parts) == pytest.approx(worst, abs=0.01)
    numbers = {"quality": rows, "parts": parts, "same_ids": True}
    tables = gate.quality_tables(numbers)
    assert "7 of 7 shapes pass" in tables[0].note
    assert "moved" in gate.text({n: f.verdict for n, f in made.items()}, {n: f.cost for n, f in made.items()})


def test_renumbered_triangles_are_other_ids() -> None:
    mesh = pair()
    assert gate.ids_of(mesh) != gate.ids_of(replace(mesh, faces=mesh.faces[:, [1, 2, 0]]))
    assert gate.ids_of(mesh) == gate.ids_of(mesh.with_vertices(mesh.vertices + 1))


def test_a_deck_is_healed_or_refused_a_picture_file_never(tmp_path: Path) -> None:
    mesh = pair()
    touching = mesh.with_vertices(mesh.vertices + closing(mesh))
    healed, cost = gate.passed_as_it_is(touching, tmp_path / "x.k")
    assert assess(healed).passed
    assert "surface moved" in cost
    assert gate.passed_as_it_is(touching, tmp_path / "x.stl") == (touching, "")
    needle = mesh.with_vertices(mesh.vertices * [1, 0.01, 0.01])
    with pytest.raises(InputError, match="rib_left_0"):
        gate.passed_as_it_is(needle, tmp_path / "x.k")


def test_query_and_export_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fitted = verbs.with_bases({"pooled": model()}, pair())["pooled"]
    path = str(save_model(fitted, tmp_path / "m.h5"))
    ask = ["query", path, "--mode", "1", "--percentile", "5"]
    assert cli.main([*ask, "-o", str(tmp_path / "a.vtp")]) == 0
    assert "vertices were moved" in capsys.readouterr().out
    assert cli.main([*ask, "-o", str(tmp_path / "raw.vtp"), "--raw"]) == 0
    assert assess(read_vtp(tmp_path / "a.vtp")).passed
    assert not assess(read_vtp(tmp_path / "raw.vtp")).passed
    assert cli.main(["mean", path, "-o", str(tmp_path / "mean.k")]) == 0
    assert "vertices were moved" in (tmp_path / "mean.k").read_text()
    needle = write_vtp(fitted.mesh(fitted.mean * [1, 0.01, 0.01]), tmp_path / "needle.vtp")
    assert cli.main(["export", str(needle), "-o", str(tmp_path / "needle.inp")]) != 0
    assert "rib_left_0" in capsys.readouterr().err
    assert not (tmp_path / "needle.inp").exists()
    assert cli.main(["export", str(needle), "-o", str(tmp_path / "needle.inp"), "--raw"]) == 0
    assert np.isfinite(read_vtp(tmp_path / "a.vtp").arrays["healed_mm"]).all()
