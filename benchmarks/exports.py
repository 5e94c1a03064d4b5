"""Measure what users take away: the gate, the way from a model to a file, percentile shapes against the truth.

Run one part at a time::

    python benchmarks/exports.py gate STUDY     # a run's folder: means, 2 SD of five modes, 20 samples at the gate
    python benchmarks/exports.py query MODEL    # a model file: percentile query to deck, with and without the repair
    python benchmarks/exports.py percentiles    # 48 half-cut phantom subjects: percentiles against 400 whole ones
    python benchmarks/exports.py learning       # how many subjects a stable mean needs, on the phantom

``gate`` makes the healed means where the models of the run do not carry them yet.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from model import Clock, cut_lower, draw, say

from pipelines import gate, verbs
from pipelines.cohort import TEMPLATE_FILE, model_file
from pipelines.settings import ReportSettings
from shapemodel.completion import complete
from shapemodel.covariates import covariate_query
from shapemodel.mesh import read_vtp
from shapemodel.meshquality import assess
from shapemodel.model import ShapeModel, fit_model
from shapemodel.population import align, rigid_fit
from shapemodel.quality import learning_curve
from shapemodel.query import query

TRUTH = 400
"""Phantom subjects that stand for the population."""


def gate_(study: str) -> None:
    """Every shape at the gate, raw and repaired."""
    place = Path(study) / "cohort"
    groups = [g for g in ("female", "male", "pooled") if (place / model_file(g)).is_file()]
    template = read_vtp(place / TEMPLATE_FILE)
    passed, raw_passed, ids, count = 0, 0, set(), 0
    for group in groups:
        fitted = verbs.read_model(place / model_file(group))
        clock = Clock()
        if fitted.base is None:
            fitted = verbs.with_bases({group: fitted}, template)[group]
            say(f"{group}: healed mean made in {clock}")
        maker = verbs.finisher(fitted)
        trials = [(f"mean {group}", verbs.mean(fitted))]
        trials += gate.trial_shapes(fitted, ReportSettings()) if group == groups[-1] else []
        for name, mesh in trials:
            raw = assess(mesh)
            clock = Clock()
            found = maker(mesh)
            whole = found.verdict.whole
            say(
                f"{name}: raw {len(raw.intersections.pairs)} cuts, min angle {raw.whole.min_angle:.1f}; "
                f"{'passed' if found.verdict.passed else 'FAILED'} min angle {whole.min_angle:.1f}, 1st percentile "
                f"{whole.min_angle_99:.1f}; moved {found.off_mm.mean():.4f} mm, most {found.off_mm.max():.2f}; {clock}"
            )
            passed += found.verdict.passed
            raw_passed += raw.passed
            ids.add(gate.ids_of(found.mesh))
            count += 1
    say(f"{passed} of {count} pass ({raw_passed} without repair); one set of ids: {len(ids) == 1}")


def query_(path: str) -> None:
    """A percentile of mode 1 to an LS-DYNA deck and to a surface file."""
    from shapemodel.export import write_shape

    with tempfile.TemporaryDirectory() as folder:
        for ending in (".k", ".inp", ".bdf", ".vtp", ".stl"):
            write_shape(verbs.query(verbs.read_model(path), modes={1: 5})[0][0], Path(folder) / f"warm{ending}")
            clock = Clock()
            mesh, _ = verbs.query(verbs.read_model(path), modes={1: 95})[0]
            write_shape(mesh, Path(folder) / f"x{ending}")
            say(f"model file to {ending}, {len(mesh.vertices)} vertices, as it is: {clock}")
        clock = Clock()
        fitted = verbs.read_model(path)
        mesh, _ = verbs.query(fitted, modes={1: 95})[0]
        found = verbs.finisher(fitted)(mesh)
        write_shape(found.mesh, Path(folder) / "x.k")
        say(f"model file to .k, repaired and judged ({'passed' if found.verdict.passed else 'FAILED'}): {clock}")


def apart(shape: np.ndarray, truth: np.ndarray) -> str:
    """Mean, 95th percentile and maximum of the distance after a rigid fit."""
    rotation, shift = rigid_fit(shape, truth, np.ones(len(shape)))
    d = np.linalg.norm(shape @ rotation.T + shift - truth, axis=1)
    return f"{d.mean():.2f} mm (p95 {np.quantile(d, 0.95):.2f}, max {d.max():.2f})"


def percentiles(_: str) -> None:
    """Shapes at percentiles of 48 people, half of them cut, against those of 400 whole people."""
    people, _ = draw(TRUTH // 2, TRUTH // 2, 11, 1500)
    truth = fit_model(align(people))
    whole, _ = draw(24, 24, 7, 1500)
    ours, full = fit_model(complete(cut_lower(whole, 3))), fit_model(align(whole))
    for name, found in (("half cut", ours), ("the same, whole", full)):
        for mode in (1, 2, 3):
            for percentile in (5.0, 95.0):
                target = query(truth, mode=mode, percentile=percentile)[0].vertices
                best = min(
                    (
                        apart(query(found, mode=mode, percentile=p)[0].vertices, target)
                        for p in (percentile, 100 - percentile)
                    ),
                    key=lambda text: float(text.split()[0]),
                )  # the sign of a mode is a convention
                say(f"{name}: mode {mode} at its {percentile:g}th percentile from the truth's {best}")
        for person in PEOPLE:
            shapes = [covariate_query(m, person)[0].vertices for m in (found, truth)]
            say(f"{name}: average at {person} from the truth's {apart(*shapes)}")
    say(f"for scale: mean of the 400 from its own 95th percentile of mode 1 {_size(truth)}")


PEOPLE = (
    {"sex": "F", "age_years": 50.0, "height_cm": 151.0, "weight_kg": 48.0},
    {"sex": "F", "age_years": 50.0, "height_cm": 162.0, "weight_kg": 63.0},
    {"sex": "M", "age_years": 50.0, "height_cm": 175.0, "weight_kg": 77.0},
    {"sex": "M", "age_years": 50.0, "height_cm": 187.0, "weight_kg": 102.0},
)
"""Small woman, average woman, average man, large man, as in crash dummies' anthropometry."""


def _size(model: ShapeModel) -> str:
    return apart(query(model, mode=1, percentile=95.0)[0].vertices, model.mean)


def learning(_: str) -> None:
    """Mean distance of the mean of m people from that of the others, by sex."""
    people, _ = draw(TRUTH // 4, TRUTH // 4, 11, 1500)
    done = complete(replace(align(people)))
    for sex in ("F", "M"):
        index = np.array([i for i, s in enumerate(people.sex) if s == sex])
        sizes = [2, 5, 10, 20, 40, 60]
        curve = learning_curve(done, sizes, draws=50, index=index)
        text = ", ".join(f"{m}: {v:.2f}" for m, v in zip(sizes, curve.value, strict=True))
        say(f"{sex}, {len(index)} people: mean of m people from the mean of the others, mm: {text}")


def main() -> None:
    """Choose a part."""
    parts = {"gate": gate_, "query": query_, "percentiles": percentiles, "learning": learning}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=parts)
    parser.add_argument("path", nargs="?", default="", help="run's folder (gate), model file (query)")
    chosen = parser.parse_args()
    if chosen.part in ("gate", "query") and not chosen.path:
        sys.exit(f"{chosen.part} needs a path")
    parts[chosen.part](chosen.path)


if __name__ == "__main__":
    main()
