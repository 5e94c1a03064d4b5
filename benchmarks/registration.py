"""Measure the registration: one part a command, rows kept as CSV, so that a run that was stopped goes on.

    python benchmarks/registration.py truth --template normal001.npz --cases normal001/*.npz
    python benchmarks/registration.py pairs                      # phantom people against each other
    python benchmarks/registration.py pairs --faulty             # the same with the faults of automatic label maps
    python benchmarks/registration.py reshaped --labels A.nii.gz --seeds 0-5    # other shapes of a real subject's bones
    python benchmarks/registration.py real --labels A.nii.gz B.nii.gz ...       # every ordered pair
    python benchmarks/registration.py peers --template T.npz --cases hard_10.npz
    python benchmarks/registration.py confidence [--fit]         # from the rows of all parts above
    python benchmarks/registration.py figure

Rows, templates and targets go to ``--work`` (``build/registration``). A row is computed anew when the code of the
registration has changed since (column ``code``), or with ``--again``. Truth, cases: ``registration_cases.py``.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import registration_cases as cases
import registration_scores as scores
from registration_cases import Case

import shapemodel
from shapemodel.correspondence import Registration, from_mesh, to_mesh
from shapemodel.mesh import Mesh, read_vtp, write_vtp
from shapemodel.reasons import StudyError
from shapemodel.registration import Prepared, prepare, register

Row = dict[str, object]

TRUTH_PARTS = ("truth", "pairs", "reshaped")
NOT_CODE = ("confidence.py", "peers.py")
"""Modules of the registration that do not move a vertex."""


def code() -> str:
    """Name of the present code of the registration."""
    home = Path(shapemodel.__file__).parent
    files = [p for p in sorted((home / "registration").glob("*.py")) if p.name not in NOT_CODE]
    return hashlib.sha256(b"".join(p.read_bytes() for p in [*files, home / "contact.py"])).hexdigest()[:8]


CODE = code()
"""Of what this process has imported."""


class Rows:
    """A CSV file of rows with the same first columns ``case, method, code``, written as they come."""

    def __init__(self, path: Path, again: bool = False) -> None:
        self.path, self.again, self.code = path, again, CODE
        self.rows: list[Row] = []
        if path.is_file():
            with path.open(newline="", encoding="utf-8") as f:
                self.rows = [{k: number(v) for k, v in row.items()} for row in csv.DictReader(f)]

    def has(self, case: str, method: str) -> bool:
        """Whether this was measured with the present code."""
        return not self.again and any((r["case"], r["method"], r["code"]) == (case, method, CODE) for r in self.rows)

    def add(self, rows: Iterable[Row]) -> None:
        """Replace older rows of the same case and method, and write the file."""
        new = list(rows)
        keys = {(r["case"], r["method"]) for r in new}
        self.rows = [r for r in self.rows if (r["case"], r["method"]) not in keys] + new
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("w", newline="", encoding="utf-8") as f:
            writer = csv.DictWriter(f, list(dict.fromkeys(k for r in self.rows for k in r)))
            writer.writeheader()
            writer.writerows(self.rows)


def number(text: str) -> object:
    """The float that a cell holds, or its text; the code's name stays text though it may look like a number."""
    try:
        return float(text) if len(text) != 8 or "." in text else text
    except ValueError:
        return text


def say(row: Row) -> None:
    """One line."""
    cells = [f"{k} {v:.3g}" if isinstance(v, float) else str(v) for k, v in row.items()]
    sys.stdout.write("  ".join(cells) + "\n")
    sys.stdout.flush()


class Bench:
    """Prepares a template once and measures one registration at a time."""

    def __init__(self) -> None:
        self.last: tuple[Mesh, Prepared] | None = None

    def prepared(self, template: Mesh) -> Prepared:
        """What :func:`prepare` makes of it; the last one is remembered."""
        if self.last is None or not np.array_equal(self.last[0].vertices, template.vertices):
            self.last = template, prepare(template)
        return self.last[1]

    def run(self, template: Mesh, target: Mesh) -> tuple[Registration, Row]:
        """A registration, its processor seconds and peak memory."""
        ready = self.prepared(template)
        scores.reset_peak()
        began = time.process_time()
        found = register(ready, target)
        return found, {"cpu_s": time.process_time() - began, "peak_mb": scores.peak_mb()}


def measure(found: Iterator[Case], rows: Rows, bones: Rows) -> None:
    """Register all cases with known truth that have no row yet."""
    bench = Bench()
    for case in found:
        if rows.has(case.name, "ours"):
            continue
        try:
            result, cost = bench.run(case.template, case.target)
        except StudyError as error:  # none of these cases is broken: it counts as failed
            nowhere = np.full_like(case.truth, np.nan)
            rows.add([{"case": case.name, "method": "ours", "code": CODE, **scores.errors(case, nowhere)}])
            sys.stdout.write(f"{case.name}: refused, {error}\n")
            continue
        row: Row = {"case": case.name, "method": "ours", "code": CODE, **scores.errors(case, result.vertices)}
        row["worst_rib_flagged"] = int(result.bones[int(float(str(row["worst_rib_label"])))].flagged)
        row |= {"visible_agree_pct": 100.0 * float((result.visible == case.visible).mean()), **cost}
        bones.add({"method": "ours", "code": CODE, **r} for r in scores.bone_rows(case, result))
        rows.add([row])
        say(row)


def real_pairs(labels: list[Path], o: argparse.Namespace, rows: Rows, bones: Rows) -> None:
    """Every ordered pair of real subjects: distances, wrong bones, flips, cuts; then A->B->A from both directions."""
    bench, names = Bench(), [p.name.removesuffix(".nii.gz") for p in labels]
    surfaces = {
        n: cases.kept(o.work / f"surfaces_{n}.vtp", lambda p=p: cases.read_surfaces(p))
        for n, p in zip(names, labels, strict=True)
    }
    made = {
        n: cases.kept(o.work / f"template_{n}.vtp", lambda m=m: cases.clean_template(m)) for n, m in surfaces.items()
    }
    for a, b in [(a, b) for a in names for b in names if a != b]:
        if rows.has(f"{a}>{b}", "ours"):
            continue
        found, cost = bench.run(made[a], surfaces[b])
        write_vtp(to_mesh(found, made[a]), o.work / f"fit_{a}_{b}_{CODE}.vtp")
        row: Row = {"case": f"{a}>{b}", "method": "ours", "code": CODE}
        rows.add([{**row, **scores.surface_scores(made[a], found, surfaces[b]), **cost}])
        say(rows.rows[-1])
    for a, b in [(a, b) for a in names for b in names if a != b]:
        if rows.has(f"{a}>{b}>{a}", "ours"):
            continue
        there, back = ((made[x], from_mesh(read_vtp(o.work / f"fit_{x}_{y}_{CODE}.vtp"))) for x, y in ((a, b), (b, a)))
        both, each = scores.there_and_back(there, back)
        row = {"case": f"{a}>{b}>{a}", "method": "ours", "code": CODE}
        bones.add({**row, **r} for r in each)
        rows.add([{**row, **both}])
        say(rows.rows[-1])


def summary(rows: list[Row], group: int = 0) -> Iterator[Row]:
    """Median (and for the pairs mean) of each group of cases: the part of the name before the slash."""
    groups = sorted({str(r["case"]).split("/")[0] if "/" in str(r["case"]) else "all" for r in rows})
    for name in groups:
        own = [r for r in rows if name == "all" or str(r["case"]).startswith(name + "/")]
        for kind in sorted({str(r["case"]).split("/")[-1].split("_")[0] for r in own}) if group else [""]:
            some = [r for r in own if not kind or str(r["case"]).split("/")[-1].startswith(kind)]
            for label, how in (("median", np.nanmedian), ("mean", np.nanmean), ("worst", np.nanmax)):
                keys = [k for k in some[0] if isinstance(some[0][k], (float, int))]
                values = {k: [float(str(r[k])) for r in some if r.get(k) not in ("", None)] for k in keys}
                cells = {k: float(how(v)) for k, v in values.items() if len(v) and not np.isnan(v).all()}
                yield {"what": f"{label} of {len(some)} {name} {kind}", **cells}


def parsed() -> argparse.Namespace:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("part", choices=["truth", "pairs", "reshaped", "real", "peers", "confidence", "figure"])
    p.add_argument("--work", type=Path, default=Path("build/registration"))
    p.add_argument("--again", action="store_true", help="measure also what has a row of this code")
    p.add_argument("--template", type=Path, help="truth, peers: .npz with the arrays V_n F_n L_n")
    p.add_argument("--cases", type=Path, nargs="*", default=[])
    p.add_argument("--labels", type=Path, nargs="*", default=[], help="real, reshaped: label maps of real subjects")
    p.add_argument("--seeds", default="0-5", help="reshaped: first-last")
    p.add_argument("--people", type=int, nargs=3, default=[3, 3, 7], metavar=("WOMEN", "MEN", "SEED"))
    p.add_argument("--faulty", action="store_true", help="pairs: targets with the faults of automatic label maps")
    p.add_argument("--size", type=int, default=0, help="truth, peers: vertices of the stored template; 0: the most")
    p.add_argument("--most", type=int, default=1000, help="at most so many cases")
    p.add_argument("--methods", nargs="*", help="peers: which; default all")
    p.add_argument("--fit", action="store_true", help="confidence: calibrate anew and print the weights")
    return p.parse_args()


def chosen(o: argparse.Namespace) -> Iterator[Case]:
    """The cases with known truth of a part."""
    if o.part == "pairs":
        return cases.phantom_pairs(o.work, *o.people, o.faulty)
    if o.part == "reshaped":
        first, last = (int(k) for k in o.seeds.split("-"))
        return (c for p in o.labels for c in cases.reshaped(o.work, p, range(first, last + 1)))
    return cases.stored(o.template, o.cases, o.size)


def main() -> None:
    """Run one part and print its summary."""
    o = parsed()
    rows = Rows(o.work / f"{o.part}.csv", o.again)
    if o.part in TRUTH_PARTS:
        from itertools import islice

        measure(islice(chosen(o), o.most), rows, Rows(o.work / "bones.csv"))
    elif o.part == "real":
        real_pairs(o.labels, o, rows, Rows(o.work / "real_bones.csv"))
    elif o.part == "peers":
        import registration_peers

        registration_peers.compare(chosen(o), rows, o.methods)
        for line in registration_peers.table(rows):
            say(line)
        return
    elif o.part == "confidence":
        import registration_confidence

        real = Rows(o.work / "real_bones.csv").rows
        registration_confidence.report(Rows(o.work / "bones.csv").rows, real, o.fit)
        return
    else:
        import registration_figure

        registration_figure.draw(o.work)
        return
    for line in summary(rows.rows, group=o.part == "truth"):
        say(line)


if __name__ == "__main__":
    main()
