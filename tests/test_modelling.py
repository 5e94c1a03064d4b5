"""The verbs of the model on the command line: what they write and what stands in it."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipelines import cli
from shapemodel.interchange import save_model
from shapemodel.mesh import read_vtp, write_vtp
from shapemodel.model import ShapeModel, fit_model
from shapemodel.standalone_reader import load
from tests.synthetic import population


@pytest.fixture(scope="module")
def model() -> ShapeModel:
    """24 made-up ribs; the surfaces are open strips, so shapes are written as they are."""
    cohort = population(30, seed=6, cut=0.0, n_vertices=480)[0]
    lungs = {**cohort.covariates, "lung_volume_ml": np.linspace(3000, 6000, 30)}
    return fit_model(replace(cohort, covariates=lungs), n_modes=8, metadata={"positions": ["HFS"]})


@pytest.fixture(scope="module")
def stored(model: ShapeModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(model, tmp_path_factory.mktemp("model") / "model_pooled.h5")


def run(*words: object) -> None:
    assert cli.main([str(w) for w in words]) == 0


def test_a_deck_says_whose_shape_it_is(model: ShapeModel, stored: Path, tmp_path: Path) -> None:
    """Of how many, which model, posture and breath: also when it comes from a stored shape."""
    run("query", stored, "--mode", 1, "--percentile", 5, "-o", tmp_path / "a.k", "--raw")
    run("query", stored, "--mode", 1, "--percentile", 5, "-o", tmp_path / "a.vtp", "--raw")
    run("export", tmp_path / "a.vtp", "-o", tmp_path / "b.k", "--raw")
    head = [line for line in (tmp_path / "a.k").read_text().splitlines() if line.startswith("$ ")]
    assert head == [line for line in (tmp_path / "b.k").read_text().splitlines() if line.startswith("$ ")]
    text = "\n".join(head)
    assert f"pooled model of 30 subjects; model hash {model.fingerprint}" in text
    assert "patient positions HFS" in text
    assert "lung volume 4.5 L on average, 3.0 to 6.0 L (30 studies)" in text


def test_sizes_swap_by_one_file(stored: Path, tmp_path: Path) -> None:
    for percent in (5, 95):
        name = tmp_path / f"p{percent:02d}.k"
        run("query", stored, "--mode", 1, "--percentile", percent, "-o", name, "--split", "--raw", "-q")
    a, b = ((tmp_path / f"p{p:02d}.k").read_text().split("*ELEMENT")[1] for p in (5, 95))
    assert a == b
    a, b = ((tmp_path / f"p{p:02d}_nodes.k").read_text().splitlines() for p in (5, 95))
    assert [line[:8] for line in a if line[:1] == " "] == [line[:8] for line in b if line[:1] == " "]


def test_joint_percentile_along_several_modes(model: ShapeModel, stored: Path, tmp_path: Path) -> None:
    """Three modes at sqrt(chi2inv(0.95, 3) / 3) = 1.614 SD each."""
    run(
        "query", stored, "--joint", 95, "--mode", 1, "--mode", 2, "--mode", 3, "--among", 3, "-o", tmp_path / "j.vtp",
        "--raw",
    )  # fmt: skip
    np.testing.assert_allclose(model.scores_of(read_vtp(tmp_path / "j.vtp").vertices)[:4], [1.614] * 3 + [0], atol=2e-3)


def test_lung_volume_and_bmi_are_covariates(stored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("query", stored, "--sex", "F", "--lung-volume", 4000, "-o", tmp_path / "x.vtp", "--raw")
    assert "average at sex F, lung_volume_ml 4000" in capsys.readouterr().out
    assert cli.main(["query", str(stored), "--bmi", "24", "-o", str(tmp_path / "y.vtp"), "--raw"]) == 2  # no weights


def test_control_points_go_from_the_mean_to_the_shape(model: ShapeModel, stored: Path, tmp_path: Path) -> None:
    run("query", stored, "--mode", 2, "--percentile", 90, "-o", tmp_path / "pairs.csv", "--raw")
    rows = list(csv.DictReader((tmp_path / "pairs.csv").read_text().splitlines()))
    assert len(rows) == model.n_vertices
    np.testing.assert_allclose([float(rows[7][f"source_{k}"]) for k in "xyz"], model.mean[7], atol=1e-5)
    there = model.instance([0, 1.2815516])[7]
    np.testing.assert_allclose([float(rows[7][f"target_{k}"]) for k in "xyz"], there, atol=1e-4)


def test_a_model_for_numpy_alone(model: ShapeModel, stored: Path, tmp_path: Path) -> None:
    run("export", stored, "-o", tmp_path / "m.npz")
    np.testing.assert_allclose(load(tmp_path / "m.npz").instance([1.0]), model.instance([1.0]), atol=1e-3)
    assert (tmp_path / "read_shapemodel.py").is_file()


def test_fit_from_a_registered_mesh_and_from_landmarks(model: ShapeModel, stored: Path, tmp_path: Path) -> None:
    """Scores that were put in come back, half of the surface hidden; landmarks come near."""
    scores = np.array([1.0, -1.5, 0.5, 0, 0, 0, 0, 0])
    mesh = model.mesh(model.instance(scores))
    seen = mesh.vertices[:, 2] > 0
    write_vtp(mesh.with_arrays(visible=seen), tmp_path / "registered.vtp")
    run("fit", stored, tmp_path / "registered.vtp", "-o", tmp_path / "f.vtp", "--scores", tmp_path / "s.csv")
    found = [float(r["score"]) for r in csv.DictReader((tmp_path / "s.csv").read_text().splitlines())]
    np.testing.assert_allclose(found, scores, atol=0.15)
    made = read_vtp(tmp_path / "f.vtp")
    assert np.linalg.norm(made.vertices - mesh.vertices, axis=1)[~seen].mean() < 1.0
    chosen = range(0, model.n_vertices, 20)
    rows = [[i, *mesh.vertices[i]] for i in chosen]
    text = "vertex,x,y,z\n" + "".join(f"{i},{x},{y},{z}\n" for i, x, y, z in rows)
    (tmp_path / "points.csv").write_text(text)
    run("fit", stored, tmp_path / "points.csv", "-o", tmp_path / "g.vtp")
    assert np.linalg.norm(read_vtp(tmp_path / "g.vtp").vertices - mesh.vertices, axis=1).mean() < 3.0


def test_a_fit_says_how_little_a_small_model_knows(model: ShapeModel, stored: Path, tmp_path: Path) -> None:
    """A shape that the model cannot reach: the standard deviation is not below what was left over."""
    mesh = model.mesh(model.mean + 8 * np.sin(model.mean / 9.0))
    write_vtp(mesh.with_arrays(visible=np.ones(model.n_vertices, bool)), tmp_path / "odd.vtp")
    run("fit", stored, tmp_path / "odd.vtp", "-o", tmp_path / "o.vtp")
    made = read_vtp(tmp_path / "o.vtp")
    off = np.sqrt((np.linalg.norm(made.vertices - mesh.vertices, axis=1) ** 2).mean())
    assert made.arrays["sd_mm"].min() > 0.7 * off
