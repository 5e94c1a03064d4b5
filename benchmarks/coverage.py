"""Whether 95 % intervals hold the truth 95 times in 100: cohorts drawn from a phantom model, half of them cut.

The cohorts come from the Gaussian model of 48 phantom subjects: linear effects of sex, age, height and weight, and
the residual's covariance; so the true mean of a sex and the true average of a person's covariates are known exactly::

    python benchmarks/coverage.py --rows FILE.csv --repeats 50     # goes on where it stopped

One row a cohort: shares of coordinates covered by the bootstrap interval of each sex's mean (also where a quarter or
more of the subjects hide the vertex) and by the interval of a person's average, and what the person's error and half
width are. Coordinates of one cohort err together, so the shares of single cohorts scatter widely; the summary gives the
standard error over cohorts.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from shapemodel.completion import complete
from shapemodel.means import mean_interval
from shapemodel.mesh import Points
from shapemodel.model import ShapeModel, fit_model
from shapemodel.neighbours import spread_nodes
from shapemodel.phantom.shape import surface
from shapemodel.phantom.subject import draw_population
from shapemodel.population import Population, rigid_fit
from shapemodel.regression import Regression, regress, residual_covariance
from shapemodel.regression import mean_interval as covariate_interval

SOURCE_SEED, SOURCE_EACH = 7, 24
TYPICAL = {"F": (164.5, 6.5, 69.0, 11.0), "M": (178.0, 7.0, 84.0, 12.0)}
"""Mean and SD of height (cm) and of weight (kg) at that height."""
KG_PER_CM = 0.6
PERSON = {"sex": "F", "age_years": 55.0, "height_cm": 165.0, "weight_kg": 68.0}
BOOTSTRAPS = 200


def phantoms(count: int) -> Population:
    """48 phantom subjects in true correspondence on about ``count`` vertices."""
    who = draw_population(SOURCE_EACH, SOURCE_EACH, SOURCE_SEED)
    first = surface(who[0])
    nodes = spread_nodes(first.vertices, first.bone, count)
    shapes = np.stack([surface(s).vertices[nodes] for s in who])
    known = {k: np.array([getattr(s, k) for s in who]) for k in ("age_years", "height_cm", "weight_kg")}
    seen, none = np.ones(shapes.shape[:2], bool), np.zeros(len(nodes), bool)
    return Population(
        shapes, seen, tuple(s.subject for s in who), tuple(s.sex for s in who),
        np.zeros((0, 3), int), first.bone[nodes], none, known,
    )  # fmt: skip


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


class Source:
    """The model that cohorts are drawn from, and its truth."""

    def __init__(self, count: int):
        self.whole = phantoms(count)
        self.model: ShapeModel = fit_model(self.whole)
        self.effects: Regression = regress(self.model)
        value, vector = np.linalg.eigh(residual_covariance(self.effects))
        self.root = vector * np.sqrt(np.maximum(value, 0))

    def average(self, person: Mapping[str, float | str]) -> Points:
        """(V, 3) true average at these covariates."""
        return self.model.instance(self.effects.row(person) @ self.effects.coefficients)

    def mean(self, sex: str) -> Points:
        """(V, 3) true mean of a sex."""
        height, _, weight, _ = TYPICAL[sex]
        return self.average({"sex": sex, "age_years": 55.0, "height_cm": height, "weight_kg": weight})

    def cohort(self, each: int, seed: int) -> Population:
        """``each`` women and men of this population."""
        rng, sex = np.random.default_rng(seed), ("F", "M") * each
        age = rng.uniform(25, 85, 2 * each)
        height = np.array([rng.normal(*TYPICAL[s][:2]) for s in sex])
        weight = np.array([rng.normal(*TYPICAL[s][2:]) for s in sex])
        weight += KG_PER_CM * (height - [TYPICAL[s][0] for s in sex])
        rows = [dict(zip(PERSON, row, strict=True)) for row in zip(sex, age, height, weight, strict=True)]
        scores = np.stack([self.effects.row(row) for row in rows]) @ self.effects.coefficients
        scores += rng.standard_normal((2 * each, len(self.root))) @ self.root.T
        return replace(
            self.whole, vertices=np.stack([self.model.instance(b) for b in scores]), sex=sex,
            visible=np.ones((2 * each, self.whole.n_vertices), bool), subjects=tuple(f"s{i}" for i in range(2 * each)),
            covariates={"age_years": age, "height_cm": height, "weight_kg": weight},
        )  # fmt: skip


def within(truth: Points, low: Points, high: Points, seen: NDArray[np.int64]) -> tuple[NDArray[np.bool_], Points]:
    """(V, 3) whether the truth, laid on the interval's centre, lies inside; and the centre's error."""
    centre = (low + high) / 2
    rotation, shift = rigid_fit(truth, centre, seen.astype(float))
    moved = truth @ rotation.T + shift
    return (low < moved) & (moved < high), centre - moved


def trial(source: Source, each: int, seed: int) -> dict[str, float]:
    """One cohort."""
    cohort = cut_lower(source.cohort(each, seed), seed)
    done = complete(cohort)
    hidden = cohort.n_seen < 0.75 * cohort.n_subjects
    row: dict[str, float] = {"seed": seed}
    for s, group in (("F", "female"), ("M", "male")):
        got = mean_interval(done, group, repeats=BOOTSTRAPS)
        inside, _ = within(source.mean(s), got.low, got.high, cohort.n_seen)
        row |= {f"{group} mean": inside.mean(), f"{group} mean, hidden": inside[hidden].mean()}
    low, high = covariate_interval(regress(fit_model(done)), PERSON)
    inside, error = within(source.average(PERSON), low, high, cohort.n_seen)
    row |= {"person": inside.mean(), "person, hidden": inside[hidden].mean()}
    return row | {"error mm": float(np.abs(error).mean()), "half width mm": float((high - low).mean() / 2)}


def main() -> None:
    """Run what is missing, print the summary."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rows", type=Path, default=Path("build/coverage.csv"))
    p.add_argument("--repeats", type=int, default=50)
    p.add_argument("--each", type=int, default=24, help="women, and men, of a cohort")
    p.add_argument("--vertices", type=int, default=400)
    o = p.parse_args()
    rows = list(csv.DictReader(o.rows.open(encoding="utf-8"))) if o.rows.is_file() else []
    done = {int(float(r["seed"])) for r in rows}
    o.rows.parent.mkdir(parents=True, exist_ok=True)
    source = Source(o.vertices)
    for seed in [s for s in range(o.repeats) if s not in done]:
        rows.append({k: f"{v:.5g}" for k, v in trial(source, o.each, seed).items()})
        with o.rows.open("w", newline="", encoding="utf-8") as f:
            writer = csv.DictWriter(f, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    sys.stdout.write(f"{len(rows)} cohorts of {2 * o.each}, half cut, {o.vertices} vertices, 95 % intervals:\n")
    for name in list(rows[0])[1:]:
        value = np.array([float(r[name]) for r in rows])
        scale, unit = (1, "") if name.endswith("mm") else (100, " %")
        error = np.nanstd(value, ddof=1) / np.sqrt(len(value)) if len(value) > 1 else np.nan
        sys.stdout.write(f"{name}: {scale * np.nanmean(value):.3g}{unit} +- {scale * error:.2g}\n")


if __name__ == "__main__":
    main()
