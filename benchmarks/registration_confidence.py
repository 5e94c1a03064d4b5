"""How well the expected error of a bone predicts the true one, and the calibration of its weights.

Each source of truth counts alike in the fit, however many bones it has, and is judged by weights that were fitted
without the case at hand (leave one case out). Real people have no truth: they are judged and not fitted to.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import fields

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from shapemodel.registration.confidence import FLAG_MM, WEIGHTS, Evidence, expected_error

OFF_MM, GOOD_MM = 3.0, 1.5
"""A bone off by more than the first must be flagged; one off by less than the second should not be."""

SOURCES = ("pair", "faulty", "reshaped", "real")
"""First parts of the names of cases; what has another one is a warp of a stored template."""

RIDGE = 1.0
LARGE_COUNTS = 5.0
"""Bones that are off count so many times in the fit: they are what it is for."""


def columns(rows: Sequence[dict[str, object]], real: Sequence[dict[str, object]]) -> dict[str, NDArray]:
    """The rows as arrays; ``source`` says where their truth comes from.

    Real people have no truth: two fits lie between a bone and its image after A->B->A, so each is held to be off by
    the square root of a half of what is found there. What both get wrong in the same way stays unknown.
    """
    half = [{**r, "case": f"real/{r['case']}", "error": float(str(r["error"])) * np.sqrt(0.5)} for r in real]
    every = [*rows, *half]
    names = ["error", *(f.name for f in fields(Evidence))]
    out = {k: np.array([float(str(r[k])) for r in every]) for k in names}
    out["case"] = np.array([str(r["case"]) for r in every])
    first = [c.split("/")[0] for c in out["case"]]
    out["source"] = np.array([s if s in SOURCES else "warp" for s in first])
    return out


def complete(rows: Sequence[dict[str, object]]) -> list[dict[str, object]]:
    """Those that have all of the evidence: older versions gathered less."""
    return [r for r in rows if all(r.get(f.name) not in (None, "") for f in fields(Evidence))]


def evidence(data: dict[str, NDArray]) -> Evidence:
    """The rows as one record of evidence."""
    return Evidence(**{f.name: data[f.name] for f in fields(Evidence)})


def fitted(x: NDArray, error: NDArray, source: NDArray) -> NDArray[np.float64]:
    """(k,) weights of the log of the error; every source has the same say."""
    w = np.where(error > OFF_MM, LARGE_COUNTS, 1.0)
    for name in np.unique(source):
        w[source == name] *= len(source) / w[source == name].sum()
    a = x * w[:, None]
    return np.asarray(np.linalg.solve(a.T @ x + RIDGE * np.eye(x.shape[1]), a.T @ np.log(error)))


def left_out(known: Evidence, data: dict[str, NDArray]) -> NDArray[np.float64]:
    """(n,) expected errors, mm, each by weights that never saw the case."""
    x = known.features()
    out = np.zeros(len(x))
    for name in np.unique(data["case"]):
        own = data["case"] == name
        rest = ~own & (data["source"] != "real")
        weights = fitted(x[rest], data["error"][rest], data["source"][rest])
        out[own] = expected_error(known, weights)[own]
    return out


def judged(data: dict[str, NDArray], expected: NDArray, limit: float) -> list[str]:
    """One line a source: rank correlations, share of bad bones flagged, share of good bones flagged.

    Those whose ``truth`` is known are all but real people.
    """
    lines = []
    for name in ["all", "truth", *np.unique(data["source"])]:
        own = np.ones(len(expected), bool) if name == "all" else data["source"] == name
        own = data["source"] != "real" if name == "truth" else own
        error, flagged = data["error"][own], expected[own] > limit
        each = [data["case"][own] == c for c in np.unique(data["case"][own])]
        within = np.median([spearmanr(error[m], expected[own][m])[0] for m in each])
        bad, good = error > OFF_MM, error < GOOD_MM
        lines.append(
            f"{name:12s} {len(each):3d} cases {own.sum():5d} bones  "
            f"rank correlation {spearmanr(error, expected[own])[0]:.2f} "
            f"(in a case {within:.2f})  off > {OFF_MM} mm: {bad.sum()}, flagged {100 * _share(flagged, bad):.0f} %  "
            f"good < {GOOD_MM} mm: {good.sum()}, flagged {100 * _share(flagged, good):.0f} %  "
            f"mean error / expected {error.mean():.2f} / {expected[own].mean():.2f}"
        )
    return lines


def _share(flagged: NDArray, which: NDArray) -> float:
    return float(flagged[which].mean()) if which.any() else float("nan")


def report(rows: Sequence[dict[str, object]], real: Sequence[dict[str, object]], fit: bool) -> None:
    """Print the shipped weights' record; with ``fit`` the new weights and limits for each share of bad bones."""
    data = columns(complete(rows), complete(real))
    known = evidence(data)
    shipped = expected_error(known, np.array(list(WEIGHTS.values())))
    out = [f"shipped weights, flagged above {FLAG_MM} mm:", *judged(data, shipped, FLAG_MM)]
    if fit:
        expected = left_out(known, data)
        true = data["source"] != "real"
        weights = fitted(known.features()[true], data["error"][true], data["source"][true])
        bad = data["error"] > OFF_MM
        out += [
            "",
            "weights: " + str(dict(zip(WEIGHTS, np.round(weights, 3).tolist(), strict=True))),
            "each case left out:",
        ]
        for share in (0.9, 0.93, 0.95, 0.97):
            limit = float(np.quantile(expected[bad], 1 - share))
            out += ["", f"limit {limit:.2f} mm flags {100 * share:.0f} %:", *judged(data, expected, limit)]
    sys.stdout.write("\n".join(out) + "\n")
