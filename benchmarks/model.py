"""Measure what the shape model costs: at the sizes of the requirements, and by slopes at the sizes of large cohorts.

Run one part at a time::

    python benchmarks/model.py pca        # 2,000 x 135,000 float32, complete, streamed from disk
    python benchmarks/model.py missing    # 600 x 135,000, a third of the subjects cut
    python benchmarks/model.py query      # percentile query to file
    python benchmarks/model.py cost       # slopes over the number of subjects -> 26,275 and 100,000

Each prints seconds, peak memory of this process and its numbers; ``--small`` shrinks the sizes for a trial. How right
the model is: ``benchmarks/population.py`` and ``benchmarks/coverage.py``.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from shapemodel.completion import complete
from shapemodel.model import fit_model
from shapemodel.pca import leading_components, principal_components
from shapemodel.population import Population

VERTICES = 45000
LARGE = (26275, 100000)
"""Subjects of the largest published thorax cohort, and of the largest imaging cohorts under way."""


def peak_gib() -> float:
    """Peak memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def say(text: str) -> None:
    """One line with the peak memory so far."""
    sys.stdout.write(f"{text}  [peak {peak_gib():.2f} GiB]\n")
    sys.stdout.flush()


class Clock:
    """Wall and processor seconds since its making; on a busy machine only the latter means much."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    @property
    def spent(self) -> float:
        """Processor seconds."""
        return time.process_time() - self.cpu

    def __str__(self) -> str:
        return f"{time.perf_counter() - self.wall:.1f} s ({self.spent:.1f} processor s)"


def write_shapes(path: Path, s: int, v: int) -> None:
    """A file with the dataset ``vertices`` (s, v, 3) float32: 60 modes and noise."""
    rng = np.random.default_rng(0)
    basis = rng.normal(size=(60, 3 * v)).astype(np.float32)
    with h5py.File(path, "w") as f:
        data = f.create_dataset("vertices", (s, v, 3), np.float32)
        for i in range(0, s, 100):
            scores = (rng.normal(size=(min(100, s - i), 60)) * 10 * 0.9 ** np.arange(60)).astype(np.float32)
            noise = rng.standard_normal((len(scores), 3 * v), np.float32)
            data[i : i + 100] = (scores @ basis + noise).reshape(-1, v, 3)


def pca(small: bool) -> None:
    """Complete data from an HDF5 file."""
    s, v = (200, 4500) if small else (2000, VERTICES)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "population.h5"
        write_shapes(path, s, v)
        with h5py.File(path, "r") as f:
            clock = Clock()
            found = principal_components(f["vertices"], n_modes=50)
            say(f"complete PCA {s} x {3 * v}, {len(found.variances)} modes: {clock}")


def cut_cohort(s: int, v: int) -> Population:
    """A made-up cohort with a third cut."""
    rng = np.random.default_rng(0)
    t, z = rng.uniform(0, 2 * np.pi, v), np.sort(rng.uniform(-160, 160, v))
    points = np.c_[145 * np.cos(t), 95 * np.sin(t), z]
    bone = np.clip((12 * (160 - z) / 320).astype(int), 0, 11) + 1 + 12 * (points[:, 0] < 0)
    k = 60
    wave, phase = rng.normal(size=(k, 3)) / 90, rng.uniform(0, 7, (k, 3))
    fields = np.cos((points @ wave.T)[:, None, :] + phase.T[None]) * (9 * 0.9 ** np.arange(k))
    basis = fields.transpose(2, 0, 1).reshape(k, -1).astype(np.float32)
    scores = rng.normal(size=(s, k)).astype(np.float32)
    x = (scores @ basis).reshape(s, v, 3)
    x += points.astype(np.float32)
    for i in range(s):
        x[i] += 0.3 * rng.standard_normal((v, 3), np.float32)
    visible = np.ones((s, v), bool)
    for i in range(0, s, 3):
        visible[i] = z > -160 + 320 * rng.uniform(0.05, 0.35)
        x[i, ~visible[i]] = points[~visible[i]]
    names, none = tuple(f"s{i}" for i in range(s)), np.zeros((0, 3), int)
    return Population(x, visible, names, ("F", "M") * (s // 2), none, bone.astype(np.uint8), np.zeros(v, bool))


def missing(small: bool) -> None:
    """A made-up cohort with a third cut, at full size."""
    s, v = (60, 4500) if small else (600, VERTICES)
    cohort, clock = cut_cohort(s, v), Clock()
    done = complete(cohort)
    say(f"completion {s} x {3 * v}: {clock}, {done.iterations} iterations, converged {done.converged}")
    model = fit_model(done, n_modes=50)
    say(f"with the model of {model.n_modes} modes: {clock}")


def query_speed(small: bool) -> None:
    """From a saved model to a written shape."""
    from shapemodel.interchange import load_model, save_model
    from shapemodel.mesh import write_vtp
    from shapemodel.query import query

    cohort = cut_cohort(20, 2000 if small else VERTICES)
    with tempfile.TemporaryDirectory() as folder:
        path = save_model(fit_model(cohort), Path(folder) / "m.h5")
        write_vtp(query(load_model(path), mode=1, percentile=5)[0], Path(folder) / "warm.vtp")
        clock = Clock()
        write_vtp(query(load_model(path), mode=1, percentile=95)[0], Path(folder) / "x.vtp")
        say(f"load, query, write {cohort.n_vertices} vertices: {clock}")


def one_cost(what: str, s: int, v: int, out: Any) -> None:
    """Processor seconds and peak GiB of one fit, in a process of its own."""
    if what == "missing":
        cohort, clock = cut_cohort(s, v), Clock()
        fit_model(complete(cohort), n_modes=50)
        out.put((clock.spent, peak_gib()))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "population.h5"
        write_shapes(path, s, v)
        with h5py.File(path, "r") as f:
            clock = Clock()
            leading_components(f["vertices"], 50)
            out.put((clock.spent, peak_gib()))


def cost(small: bool, most: int = 10**9) -> None:
    """Slopes of processor seconds and memory over the number of subjects, and where they lead."""
    v = 4500 if small else VERTICES
    sizes: dict[str, Sequence[int]] = {"randomised PCA": (150, 300, 600, 1200), "missing": (150, 300, 600)}
    for what, every in sizes.items():
        counts, rows = [s for s in every if s <= most], []
        for s in counts:
            context = get_context("spawn")
            out = context.Queue()
            process = context.Process(target=one_cost, args=(what, s, v, out))
            process.start()
            rows.append(out.get())
            process.join()
            say(f"{what} {s} x {3 * v}: {rows[-1][0]:.1f} processor s, {rows[-1][1]:.2f} GiB")
        for i, unit in enumerate(("processor s", "GiB")):
            slope, start = np.polyfit(counts, [r[i] for r in rows], 1)
            there = ", ".join(f"{n:,}: {start + slope * n:,.1f} {unit}" for n in LARGE)
            say(f"{what}: {start:.2f} + {slope:.5f} a subject; {there}")


def main() -> None:
    """Choose a part."""
    parts = {"pca": pca, "missing": missing, "query": query_speed, "cost": cost}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=parts)
    parser.add_argument("--small", action="store_true", help="small sizes, for a trial")
    parser.add_argument("--most", type=int, default=10**9, help="cost: at most so many subjects")
    chosen = parser.parse_args()
    if chosen.part == "cost":
        cost(chosen.small, chosen.most)
    else:
        parts[chosen.part](chosen.small)


if __name__ == "__main__":
    main()
