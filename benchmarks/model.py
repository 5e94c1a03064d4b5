"""Measure the shape model: speed at scale, the phantom population against its truth, coverage of intervals.

Run one part at a time::

    python benchmarks/model.py pca        # 2,000 x 135,000 float32, complete, streamed from disk
    python benchmarks/model.py missing    # 600 x 135,000, a third of the subjects cut
    python benchmarks/model.py phantom    # 48 phantom subjects, half with cut lower ribs, true correspondence
    python benchmarks/model.py coverage   # 50 cohorts drawn from a phantom model: mean and covariate intervals
    python benchmarks/model.py query      # percentile query to file

Each prints seconds, peak memory of this process and its numbers; ``--small`` shrinks the sizes for a trial.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
from scipy.spatial.transform import Rotation

from shapemodel.completion import complete
from shapemodel.means import mean_interval
from shapemodel.mesh import vertex_areas
from shapemodel.model import ShapeModel, fit_model
from shapemodel.neighbours import node_weights, spread_nodes
from shapemodel.pca import principal_components
from shapemodel.population import Population, align, rigid_fit, seen_mean
from shapemodel.regression import mean_interval as covariate_interval
from shapemodel.regression import regress, residual_covariance


def say(text: str) -> None:
    """One line with the peak memory so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    sys.stdout.write(f"{text}  [peak {peak:.2f} GiB]\n")
    sys.stdout.flush()


class Clock:
    """Wall and processor seconds since its making; on a busy machine only the latter means much."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def __str__(self) -> str:
        return f"{time.perf_counter() - self.wall:.1f} s ({time.process_time() - self.cpu:.1f} processor s)"


def pca(small: bool) -> None:
    """Complete data from an HDF5 file."""
    s, v = (200, 4500) if small else (2000, 45000)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "population.h5"
        rng = np.random.default_rng(0)
        basis = rng.normal(size=(60, 3 * v)).astype(np.float32)
        with h5py.File(path, "w") as f:
            data = f.create_dataset("vertices", (s, v, 3), np.float32)
            for i in range(0, s, 100):
                scores = (rng.normal(size=(min(100, s - i), 60)) * 10 * 0.9 ** np.arange(60)).astype(np.float32)
                noise = rng.standard_normal((len(scores), 3 * v), np.float32)
                data[i : i + 100] = (scores @ basis + noise).reshape(-1, v, 3)
        with h5py.File(path, "r") as f:
            clock = Clock()
            found = principal_components(f["vertices"], n_modes=50)
            say(f"complete PCA {s} x {3 * v}, {len(found.variances)} modes: {clock}")


def missing(small: bool) -> None:
    """A made-up cohort with a third cut, at full size."""
    s, v = (60, 4500) if small else (600, 45000)
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
    names = tuple(f"s{i}" for i in range(s))
    cohort = Population(
        x, visible, names, ("F", "M") * (s // 2), np.zeros((0, 3), int), bone.astype(np.uint8), np.zeros(v, bool)
    )  # fmt: skip
    clock = Clock()
    done = complete(cohort)
    say(f"completion {s} x {3 * v}: {clock}, {done.iterations} iterations, converged {done.converged}")
    model = fit_model(done, n_modes=50)
    say(f"with the model of {model.n_modes} modes: {clock}")


def draw(women: int, men: int, seed: int, count: int) -> tuple[Population, np.ndarray]:
    """Phantom subjects in true correspondence on ``count`` vertices, and how much area each vertex stands for."""
    from shapemodel.phantom.shape import surface
    from shapemodel.phantom.subject import draw_population

    subjects = draw_population(women, men, seed)
    first = surface(subjects[0])
    nodes = spread_nodes(first.vertices, first.bone, count)
    area = vertex_areas(first.vertices, first.faces)
    weights = node_weights(first.vertices, first.bone, nodes, area / area.mean())
    shapes = np.stack([surface(s).vertices[nodes] for s in subjects])
    covariates = {k: np.array([getattr(s, k) for s in subjects]) for k in ("age_years", "height_cm", "weight_kg")}
    whole = Population(
        shapes, np.ones(shapes.shape[:2], bool), tuple(s.subject for s in subjects), tuple(s.sex for s in subjects),
        np.zeros((0, 3), int), first.bone[nodes], np.zeros(len(nodes), bool), covariates,
    )  # fmt: skip
    return whole, weights


def cut_lower(whole: Population, seed: int, share: float = 0.5) -> Population:
    """The same subjects in random frames, a share of them cut at 8 to 35 % of the height."""
    rng = np.random.default_rng(seed)
    x, visible = np.array(whole.vertices), np.array(whole.visible)
    for i in rng.permutation(len(x))[: round(share * len(x))]:
        low, height = x[i, :, 2].min(), np.ptp(x[i, :, 2])
        visible[i] = x[i, :, 2] > low + height * rng.uniform(0.08, 0.35)
    for i in range(len(x)):
        turn = Rotation.from_rotvec(rng.normal(size=3) * 0.08).as_matrix()
        x[i] = (x[i] - x[i].mean(axis=0)) @ turn.T + rng.normal(size=3) * 20
    return replace(whole, vertices=x, visible=visible)


def extrapolated(cohort: Population) -> Population:
    """What a registration hands on for hidden vertices: the cohort's seen mean laid on what is visible."""
    framed = align(cohort)
    mean = seen_mean(framed.vertices, framed.visible)
    x = np.array(framed.vertices)
    for i in range(len(x)):
        x[i][~framed.visible[i]] = mean[~framed.visible[i]]
    return replace(framed, vertices=x)


def gap(shape: np.ndarray, truth: np.ndarray) -> str:
    """Mean and largest distance after a rigid fit."""
    rotation, shift = rigid_fit(shape, truth, np.ones(len(shape)))
    d = np.linalg.norm(shape @ rotation.T + shift - truth, axis=1)
    return f"{d.mean():.3f} mm (p95 {np.quantile(d, 0.95):.2f}, max {d.max():.2f})"


def cosines(found: ShapeModel, truth: ShapeModel) -> list[float]:
    """Cosine of the first three modes, after the rotation between the two frames."""
    rotation, _ = rigid_fit(found.mean, truth.mean, np.ones(len(truth.mean)))
    return [round(abs(float(((found.modes[k] @ rotation.T) * truth.modes[k]).sum())), 3) for k in range(3)]


def phantom(small: bool) -> None:
    """Means and modes of a half-cut phantom population against the same subjects uncut."""
    whole, _ = draw(6, 6, 7, 1500) if small else draw(24, 24, 7, 6000)
    cohort = cut_lower(whole, 3)
    truth, naive = align(whole), extrapolated(cohort)
    clock = Clock()
    done = complete(cohort)
    say(f"{whole.n_subjects} subjects, {100 * (1 - cohort.visible.mean()):.1f} % hidden: {clock}")
    for sex in ("female", "male"):
        target = truth.select(sex).vertices.mean(axis=0)
        own = cohort.select(sex)
        complete_only = align(whole.select(sex).take(np.flatnonzero(own.visible.all(axis=1))))
        framed = align(cohort).select(sex)
        say(f"{sex}: ours {gap(fit_model(done, sex).mean, target)}")
        say(f"{sex}: naive (extrapolated vertices as data) {gap(naive.select(sex).vertices.mean(axis=0), target)}")
        say(f"{sex}: mean of visible vertices {gap(seen_mean(framed.vertices, framed.visible), target)}")
        say(f"{sex}: complete cases only {gap(complete_only.vertices.mean(axis=0), target)}")
    reference = fit_model(truth)
    plain = fit_model(replace(naive, visible=np.ones_like(naive.visible)))
    say(f"cosines of modes 1-3: ours {cosines(fit_model(done), reference)}, naive {cosines(plain, reference)}")


def coverage(small: bool) -> None:
    """Intervals over repeated cohorts, half cut, whose true mean and covariate effects are known exactly.

    The cohorts are drawn from the Gaussian model of 48 phantom subjects: linear effects of sex, age, height and
    weight, and the residual's covariance.
    """
    repeats, each = (6, 12) if small else (50, 24)
    whole, _ = draw(12, 12, 7, 300) if small else draw(24, 24, 7, 800)
    source = fit_model(whole)
    effects = regress(source)
    value, vector = np.linalg.eigh(residual_covariance(effects))
    root = vector * np.sqrt(np.maximum(value, 0))
    person = {"sex": "F", "age_years": 55.0, "height_cm": 165.0, "weight_kg": 68.0}
    true_person = source.instance(effects.row(person) @ effects.coefficients)
    typical = {"F": (164.5, 6.5, 69.0, 11.0), "M": (178.0, 7.0, 84.0, 12.0)}
    true_mean = {}
    for s, (h, _, w, _) in typical.items():
        at = effects.row({"sex": s, "age_years": 55.0, "height_cm": h, "weight_kg": w})
        true_mean[s] = source.instance(at @ effects.coefficients)
    means, hidden, persons = [], [], []
    for r in range(repeats):
        rng = np.random.default_rng(r)
        sex = ("F", "M") * each
        age = rng.uniform(25, 85, 2 * each)
        height = np.array([rng.normal(*typical[s][:2]) for s in sex])
        weight = np.array([rng.normal(*typical[s][2:]) for s in sex]) + 0.6 * (height - [typical[s][0] for s in sex])
        rows = zip(sex, age, height, weight, strict=True)
        design = np.stack([effects.row(dict(zip(person, row, strict=True))) for row in rows])
        scores = design @ effects.coefficients + rng.standard_normal((2 * each, len(root))) @ root.T
        drawn = replace(
            whole, vertices=np.stack([source.instance(b) for b in scores]), sex=sex,
            visible=np.ones((2 * each, whole.n_vertices), bool), subjects=tuple(f"s{i}" for i in range(2 * each)),
            covariates={"age_years": age, "height_cm": height, "weight_kg": weight},
        )  # fmt: skip
        cohort = cut_lower(drawn, r)
        done = complete(cohort)
        for s, g in (("F", "female"), ("M", "male")):
            got = mean_interval(done, g, repeats=200)
            inside = within(true_mean[s], got.low, got.high, cohort.n_seen)
            means.append(inside.mean())
            hidden.append(inside[cohort.n_seen < 0.75 * cohort.n_subjects].mean())
        low, high = covariate_interval(regress(fit_model(done)), person)
        persons.append(within(true_person, low, high, cohort.n_seen).mean())
    say(f"{repeats} cohorts of {2 * each}, half cut, 95 % intervals, share of coordinates covered:")
    say(f"mean of a sex {100 * np.mean(means):.1f} %, where a quarter is hidden {100 * np.nanmean(hidden):.1f} %")
    say(f"average at covariates {100 * np.mean(persons):.1f} %")


def within(truth: np.ndarray, low: np.ndarray, high: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """(V, 3) whether the truth, laid on the interval's centre, lies inside."""
    centre = (low + high) / 2
    rotation, shift = rigid_fit(truth, centre, seen.astype(float))
    moved = truth @ rotation.T + shift
    return (low < moved) & (moved < high)


def query_speed(small: bool) -> None:
    """From a saved model to a written shape."""
    from shapemodel.interchange import load_model, save_model
    from shapemodel.mesh import write_vtp
    from shapemodel.query import query

    whole, _ = draw(4, 4, 1, 2000 if small else 45000)
    with tempfile.TemporaryDirectory() as folder:
        path = save_model(fit_model(whole), Path(folder) / "m.h5")
        write_vtp(query(load_model(path), mode=1, percentile=5)[0], Path(folder) / "warm.vtp")
        clock = Clock()
        write_vtp(query(load_model(path), mode=1, percentile=95)[0], Path(folder) / "x.vtp")
        say(f"load, query, write {whole.n_vertices} vertices: {clock}")


def main() -> None:
    """Choose a part."""
    parts = {"pca": pca, "missing": missing, "phantom": phantom, "coverage": coverage, "query": query_speed}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=parts)
    parser.add_argument("--small", action="store_true", help="small sizes, for a trial")
    chosen = parser.parse_args()
    parts[chosen.part](chosen.small)


if __name__ == "__main__":
    main()
