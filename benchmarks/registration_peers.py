"""Ours and the pip-installable peers on the same truth, each from its own start and from ours."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import registration_scores as scores
from registration_cases import Case

from shapemodel.mesh import Mesh, Points
from shapemodel.reasons import StudyError
from shapemodel.registration import Prepared, peers, prepare, register

if TYPE_CHECKING:
    from registration import Rows

STARTS = ("ours", "own")
"""Our labelled similarity, or what the method itself asks for: centroids laid on each other."""

ENGINES: dict[str, Callable[..., Points]] = {
    "start": lambda p, t, start: peers.started(p, t, start=start)[2],
    "pycpd_rigid": partial(peers.coherent_point_drift, form="rigid"),
    "pycpd_affine": partial(peers.coherent_point_drift, form="affine"),
    "pycpd_deformable": partial(peers.coherent_point_drift, form="deformable"),
    "pycpd_lowrank": partial(peers.coherent_point_drift, form="lowrank"),
    "biocpd_lowrank": peers.fast_drift,
    "nricp_amberg": partial(peers.nonrigid_icp, form="amberg"),
    "nricp_sumner": partial(peers.nonrigid_icp, form="sumner"),
    "gp_icp": peers.gp_icp,
}


def ours(template: Prepared, target: Mesh, start: str) -> Points:
    """The shipped engine; it has one start."""
    assert start == "ours"
    return register(template, target).vertices


def compare(found: Iterator[Case], rows: Rows, methods: list[str] | None) -> None:
    """One row a case, method and start; what is not installed is said and left out."""
    for case in found:
        ready = prepare(case.template)
        every = {"ours": ours, **ENGINES}
        for name, start in [(n, s) for n in methods or every for s in STARTS if (n, s) != ("ours", "own")]:
            method = name if name == "ours" else f"{name}, {start if start == 'own' else 'our'} start"
            if rows.has(case.name, method):
                continue
            scores.reset_peak()
            began = time.process_time()
            try:
                fitted = every[name](ready, case.target, start=start)
            except (ImportError, StudyError) as error:
                sys.stdout.write(f"{case.name} {method}: left out, {error}\n")
                continue
            cost = {"cpu_s": time.process_time() - began, "peak_mb": scores.peak_mb()}
            row = {"case": case.name, "method": method, "code": rows.code, **scores.errors(case, fitted), **cost}
            rows.add([row])
            sys.stdout.write(
                "  ".join(f"{k} {v:.3g}" if isinstance(v, float) else str(v) for k, v in row.items()) + "\n"
            )
            sys.stdout.flush()


def table(rows: Rows) -> list[dict[str, object]]:
    """Median over the cases of each method, best first."""
    out = []
    for method in sorted({str(r["method"]) for r in rows.rows}):
        own = [r for r in rows.rows if r["method"] == method]
        keys = ("mean", "p95", "hidden", "worst_rib", "wrong_pct", "flips_pct", "cpu_s", "peak_mb")
        out.append({"method": method, "n": len(own), **{k: float(np.nanmedian([r[k] for r in own])) for k in keys}})
    return sorted(out, key=lambda r: float(str(r["mean"])))
