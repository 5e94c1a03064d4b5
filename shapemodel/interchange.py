"""Models on disk: HDF5 in the statismo 0.9 layout that Scalismo opens, and an .npz bundle for NumPy alone.

What statismo has no place for (bones, scores, subjects, what was seen, the standard error, metadata as JSON)
stands in a group of our own, ``shapemodel``, which other readers ignore. No pickle; the same model gives the
same bytes. ``write_bundle`` puts :mod:`shapemodel.standalone_reader`, one file that needs NumPy only, beside
the .npz, so that a model can be read without this project.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from shapemodel import standalone_reader
from shapemodel.anatomy import bone
from shapemodel.mesh import Mesh, Points
from shapemodel.model import ShapeModel
from shapemodel.reasons import InputError

FORMAT = "shapemodel-model"
FORMAT_VERSION = 1

OWN_GROUP = "shapemodel"

OWN_ARRAYS = ("mean", "variances", "scores", "n_seen", "origin", "sem")
"""Arrays of a model that our group keeps in full precision."""


def save_model(model: ShapeModel, path: str | Path) -> Path:
    """Write a model as .h5 (statismo 0.9 plus our group); deterministic, through a temporary name."""

    def write(part: Path) -> None:
        import h5py

        with h5py.File(part, "w", track_order=False) as f:
            _write_statismo(f, model)
            own = f.create_group(OWN_GROUP)
            own.attrs["metadata"] = _header(model)
            for name in OWN_ARRAYS:
                own.create_dataset(name, data=getattr(model, name), track_times=False)
            own.create_dataset("bone", data=model.reference.bone, track_times=False)
            own.create_dataset("reference", data=model.reference.vertices, track_times=False)
            if model.base is not None:
                own.create_dataset("base", data=model.base, track_times=False)
            if model.healing is not None:  # most vertices need nothing
                own.create_dataset("healing", data=model.healing, track_times=False, compression="gzip", shuffle=True)
            for name in sorted(model.covariates):
                own.create_dataset(f"covariates/{name}", data=model.covariates[name], track_times=False)

    return _atomic(Path(path), write)


def load_model(path: str | Path) -> ShapeModel:
    """Read a model written by :func:`save_model`."""
    import h5py

    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        f = h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path}: not a model file (HDF5), or damaged: {error}") from error
    with f:
        if OWN_GROUP not in f:
            raise InputError(f"{path}: has no group {OWN_GROUP!r}; a statismo model of another tool is not enough")
        own = f[OWN_GROUP]
        meta = json.loads(own.attrs["metadata"])
        if meta["format"] != FORMAT or meta["version"] != FORMAT_VERSION:
            raise InputError(f"{path}: expected {FORMAT} {FORMAT_VERSION}, found {meta['format']} {meta['version']}")
        basis = f["model/pcaBasis"][()]
        arrays = {k: own[k][()] for k in OWN_ARRAYS}
        reference = Mesh(own["reference"][()], f["representer/cells"][()].T, own["bone"][()])
        base, healing = (own[name][()] if name in own else None for name in ("base", "healing"))
        covariates = {k: own["covariates"][k][()] for k in own["covariates"]} if "covariates" in own else {}
    modes = np.ascontiguousarray(basis.T.reshape(basis.shape[1], len(basis) // 3, 3), np.float32)
    return ShapeModel(
        reference=reference,
        modes=modes,
        covariates=covariates,
        base=base,
        healing=healing,
        **arrays,
        **_from_header(meta),
    )


def _write_statismo(f: Any, model: ShapeModel) -> None:
    """The published groups ``version``, ``modelinfo``, ``representer`` and ``model``."""
    scalar = {"majorVersion": 0, "minorVersion": 9}
    for name, value in scalar.items():
        f.create_dataset(f"version/{name}", data=np.int32(value), track_times=False)
    info = f.create_group("modelinfo")
    info.create_dataset("scores", data=model.scores.T.astype(np.float32), track_times=False)
    info.attrs["buildtime"] = "not recorded, so that equal models have equal bytes"
    rep = f.create_group("representer")
    rep.attrs["name"] = "itkStandardMeshRepresenter"
    rep.attrs["datasetType"] = "POLYGON_MESH"
    rep.attrs["version"] = "0.9"
    rep.create_dataset("points", data=model.reference.vertices.T.astype(np.float32), track_times=False)
    rep.create_dataset("cells", data=model.reference.faces.T.astype(np.int32), track_times=False)
    group = f.create_group("model")
    group.create_dataset("mean", data=model.mean.ravel().astype(np.float32), track_times=False)
    basis = np.ascontiguousarray(model.modes.reshape(model.n_modes, 3 * model.n_vertices).T, np.float32)
    group.create_dataset("pcaBasis", data=basis, track_times=False)
    group.create_dataset("pcaVariance", data=model.variances.astype(np.float32), track_times=False)
    group.create_dataset("noiseVariance", data=np.float32(model.noise), track_times=False)


def _header(model: ShapeModel) -> str:
    """JSON of what is not an array."""
    meta = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "frame": "LPS, mm",
        "group": model.group,
        "noise": model.noise,
        "total_variance": model.total_variance,
        "subjects": list(model.subjects),
        "sex": list(model.sex),
        "bones": {str(int(k)): bone(int(k)).name for k in np.unique(model.reference.bone)},
        "metadata": dict(model.metadata),
    }
    return json.dumps(meta, sort_keys=True)


def _from_header(meta: dict[str, Any]) -> dict[str, Any]:
    kept = {k: meta[k] for k in ("group", "noise", "total_variance", "metadata")}
    return {**kept, "subjects": tuple(meta["subjects"]), "sex": tuple(meta["sex"])}


def write_bundle(model: ShapeModel, folder: str | Path, *, name: str | None = None) -> tuple[Path, Path]:
    """Write ``<name>.npz`` and the NumPy-only reader beside it; returns both paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {
        "mean": model.mean.astype(np.float32),
        "modes": model.modes,
        "variances": model.variances,
        "scores": model.scores,
        "faces": model.reference.faces.astype(np.int32),
        "bone": model.reference.bone,
        "n_seen": model.n_seen.astype(np.int32),
        "origin": model.origin,
        "sem": model.sem.astype(np.float32),
        "metadata": np.frombuffer(_header(model).encode(), np.uint8),
    }

    def write(part: Path) -> None:
        with part.open("wb") as stream:
            np.savez(stream, **arrays)

    path = _atomic(folder / f"{name or 'model_' + model.group}.npz", write)
    reader = _atomic(folder / "read_shapemodel.py", _copy_reader)
    return path, reader


def _copy_reader(part: Path) -> None:
    shutil.copyfile(str(standalone_reader.__file__), part)


def write_control_points(
    source: Mesh, target: Points, path: str | Path, *, index: np.ndarray[Any, Any] | None = None
) -> Path:
    """Control-point pairs for kriging and morphing tools: one row a vertex, source and target in mm.

    Columns ``id, part, source_x, source_y, source_z, target_x, target_y, target_z``; ids count from 1 as in
    decks; ``index`` chooses vertices (None: all). Decimal points whatever the locale.
    """
    chosen = np.arange(len(source.vertices)) if index is None else np.asarray(index)

    def write(part: Path) -> None:
        with part.open("w", newline="", encoding="utf-8") as stream:
            out = csv.writer(stream, lineterminator="\n")
            out.writerow(["id", "part", *(f"{who}_{axis}" for who in ("source", "target") for axis in "xyz")])
            for i in chosen:
                numbers = (*source.vertices[i], *target[i])
                out.writerow([int(i) + 1, bone(int(source.bone[i])).name, *(f"{x:.6f}" for x in numbers)])

    return _atomic(Path(path), write)


def _atomic(path: Path, write: Callable[[Path], None]) -> Path:
    """Write to a temporary name in the same folder, then rename; nothing half-written is left."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path
