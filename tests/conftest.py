"""Fixtures that several test modules share."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from cage import SMALL, cage, warp

from shapemodel.mesh import Mesh
from shapemodel.registration import Prepared, prepare

REAL_STUDIES = ("P001", "cap002", "normal001", "normal002")


def real_folder() -> Path | None:
    """Folder with ``ct/`` and ``labels/`` of the real studies, or None on a machine that has none."""
    named = os.environ.get("SHAPEMODEL_REAL_CT")
    candidates = [Path(named)] if named else []
    candidates.append(Path(__file__).resolve().parents[2] / "shared")
    for folder in candidates:
        if all((folder / "ct" / s).is_dir() for s in REAL_STUDIES):
            return folder
    return None


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of the real CTs; the test is skipped, with the reason, where there is none."""
    folder = real_folder()
    if folder is None:
        pytest.skip("no real CTs: set SHAPEMODEL_REAL_CT to a folder with ct/ and labels/")
    return folder


@pytest.fixture(scope="session")
def benchmark_script() -> Callable[[str], ModuleType]:
    """Loads a script of ``benchmarks/``, which is no package, by its name."""

    def load(name: str) -> ModuleType:
        path = Path(__file__).resolve().parents[1] / "benchmarks" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    """The made-up thorax, made ready as a template."""
    return prepare(cage(), prior=SMALL.prior)


@pytest.fixture(scope="module")
def target() -> Mesh:
    """The same thorax on another person, with other vertices."""
    dense = cage(1.7)
    return dense.with_vertices(warp(dense.vertices))
