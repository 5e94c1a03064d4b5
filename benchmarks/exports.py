"""Measure what users take away: the gate, and the way from a model to a file.

Run one part at a time::

    python benchmarks/exports.py gate STUDY     # a run's folder: means, 2 SD of five modes, 20 samples at the gate
    python benchmarks/exports.py query MODEL    # a model file: percentile query to deck, with and without the repair

``gate`` makes the healed means where the models of the run do not carry them yet.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from model import Clock, say

from pipelines import gate, verbs
from pipelines.cohort import TEMPLATE_FILE, model_file
from pipelines.settings import ReportSettings
from shapemodel.mesh import read_vtp
from shapemodel.meshquality import TEMPLATE_GATE, assess


def gate_(study: str) -> None:
    """Every shape at the gate, raw and repaired."""
    place = Path(study) / "cohort"
    groups = [g for g in ("female", "male", "pooled") if (place / model_file(g)).is_file()]
    template = read_vtp(place / TEMPLATE_FILE)
    passed, raw_passed, ids, count = 0, 0, set(), 0
    own = assess(template, TEMPLATE_GATE)
    say(
        f"template, its own gate: {'passed' if own.passed else 'FAILED'} min angle {own.whole.min_angle:.1f}, "
        f"1st percentile {own.whole.min_angle_99:.1f}, {len(own.intersections.pairs)} cuts"
    )
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
        for percentile in (5, 95):  # the first one imports what the work needs
            clock = Clock()
            fitted = verbs.read_model(path)
            mesh, _ = verbs.query(fitted, modes={1: percentile})[0]
            found = verbs.finisher(fitted)(mesh)
            write_shape(found.mesh, Path(folder) / "x.k")
        say(f"model file to .k, repaired and judged ({'passed' if found.verdict.passed else 'FAILED'}): {clock}")


def main() -> None:
    """Choose a part."""
    parts = {"gate": gate_, "query": query_}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=parts)
    parser.add_argument("path", help="run's folder (gate), model file (query)")
    chosen = parser.parse_args()
    parts[chosen.part](chosen.path)


if __name__ == "__main__":
    main()
