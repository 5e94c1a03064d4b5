"""Interchange: an independent reader finds what was written, where statismo 0.9 says it is."""

from __future__ import annotations

import csv
import importlib.util
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from shapemodel.interchange import load_model, save_model, write_bundle, write_control_points
from shapemodel.model import fit_model, mean_shape
from shapemodel.reasons import InputError
from tests.synthetic import population


@pytest.fixture(scope="module")
def model():
    return fit_model(population(14, seed=6)[1], "female", metadata={"posture": "supine", "breath": "inspired"})


def test_exact_round_trip(model, tmp_path) -> None:
    back = load_model(save_model(model, tmp_path / "m.h5"))
    for name in ("mean", "modes", "variances", "scores", "n_seen", "origin", "sem"):
        np.testing.assert_array_equal(getattr(back, name), getattr(model, name))
    assert (back.subjects, back.sex, back.group, back.noise) == (model.subjects, model.sex, model.group, model.noise)
    assert back.metadata == model.metadata
    np.testing.assert_array_equal(back.reference.faces, model.reference.faces)
    np.testing.assert_array_equal(back.covariates["height_cm"], model.covariates["height_cm"])


def test_same_bytes(model, tmp_path) -> None:
    assert save_model(model, tmp_path / "a.h5").read_bytes() == save_model(model, tmp_path / "b.h5").read_bytes()
    a, _ = write_bundle(model, tmp_path / "one")
    b, _ = write_bundle(model, tmp_path / "two")
    assert a.read_bytes() == b.read_bytes()


def test_statismo_layout_read_without_us(model, tmp_path) -> None:
    """The layout of statismo 0.9 as Scalismo's reader expects it, with plain h5py."""
    path = save_model(model, tmp_path / "m.h5")
    with h5py.File(path, "r") as f:
        assert int(f["version/majorVersion"][()]) == 0
        assert int(f["version/minorVersion"][()]) == 9
        assert f["version/majorVersion"].dtype == np.int32
        assert f["representer"].attrs["name"] == "itkStandardMeshRepresenter"
        assert f["representer"].attrs["datasetType"] == "POLYGON_MESH"
        points, cells = f["representer/points"][()], f["representer/cells"][()]
        mean, basis = f["model/mean"][()], f["model/pcaBasis"][()]
        variance, noise = f["model/pcaVariance"][()], f["model/noiseVariance"][()]
    assert points.shape == (3, model.n_vertices)
    assert cells.shape == (3, len(model.reference.faces))
    assert cells.dtype == np.int32
    assert {a.dtype for a in (points, mean, basis, variance, noise)} == {np.dtype(np.float32)}
    np.testing.assert_allclose(mean.reshape(-1, 3), model.mean, rtol=1e-6, atol=1e-4)
    np.testing.assert_allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-4)
    b = np.zeros(len(variance))
    b[0] = 2.0
    shape = (mean + basis @ (b * np.sqrt(variance))).reshape(-1, 3)
    np.testing.assert_allclose(shape, model.instance([2.0]), atol=1e-3)


def test_bundle_is_read_by_one_file_and_numpy(model, tmp_path) -> None:
    bundle, reader = write_bundle(model, tmp_path)
    spec = importlib.util.spec_from_file_location("read_shapemodel", reader)
    module = importlib.util.module_from_spec(spec)
    sys.modules["read_shapemodel"] = module
    spec.loader.exec_module(module)
    read = module.load(bundle)
    np.testing.assert_allclose(read.instance([1.0, -2.0]), model.instance([1.0, -2.0]), atol=1e-3)
    np.testing.assert_allclose(read.scores_of(read.instance([1.0, -2.0]))[:2], [1, -2], atol=1e-3)
    ids, vertices, faces = read.part("rib_left_07", read.mean)
    assert set(model.reference.bone[ids]) == {7}
    assert faces.max() < len(vertices)
    assert read.metadata["metadata"]["posture"] == "supine"
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import read_shapemodel; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"scipy", "h5py", "vtk", "shapemodel"} & set(loaded)


def test_control_points(model, tmp_path) -> None:
    path = write_control_points(mean_shape(model), model.instance([1.0]), tmp_path / "c.csv", index=np.array([0, 7]))
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [r["id"] for r in rows] == ["1", "8"]
    assert rows[1]["part"] == "rib_left_01"
    assert float(rows[1]["target_z"]) == pytest.approx(model.instance([1.0])[7, 2], abs=1e-6)


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_model(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("not a model")
    with pytest.raises(InputError, match="not a model file"):
        load_model(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w") as f:
        f["x"] = 1
    with pytest.raises(InputError, match="no group"):
        load_model(tmp_path / "other.h5")
    assert not list(tmp_path.glob(".*part"))
