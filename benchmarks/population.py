"""A phantom population of which half lacks its lower ribs, against the same subjects' complete true shapes.

The subjects lie in random poses; every second one, by seed, is cut at 8 to 35 % of its height. Truth is the complete
shape of all of them, aligned as the models are::

    python benchmarks/population.py true --work DIR         # true correspondence
    python benchmarks/population.py make --work DIR         # voxels, surfaces, template, registrations; goes on
    python benchmarks/population.py registered --work DIR   # the same questions with registered correspondence

``make`` voxelises each subject at CT sampling and meshes it anew, as the registration benchmark does: real surfaces of
label maps, not of whole CTs. It keeps every file, so that it can be stopped. Means, modes and percentile shapes are
then compared with the truth, those of plain PCA (what was extrapolated taken for data) and of complete cases beside.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from registration_cases import image, kept, voxelised
from scipy.spatial.transform import Rotation

from shapemodel.completion import complete
from shapemodel.correspondence import to_mesh
from shapemodel.covariates import covariate_query, residual_query
from shapemodel.mesh import Mesh, Points, read_vtp, write_vtp
from shapemodel.model import ShapeModel, fit_model
from shapemodel.phantom.cohort import StudyTruth
from shapemodel.phantom.shape import surface
from shapemodel.phantom.subject import Subject, draw_population, mean_subject
from shapemodel.population import Population, align, area_weights, rigid_fit, seen_mean
from shapemodel.query import joint_query, query
from shapemodel.registration import prepare, register
from shapemodel.surfaces import labels_to_mesh
from shapemodel.template import compose_template

SEED = 7
CUT_SHARE, CUT_HEIGHT = 0.5, (0.08, 0.35)
POSE_RAD, POSE_MM = 0.08, 20.0
TEMPLATE_MAKERS = 6
"""Complete subjects that the template is composed of, as many as in a run."""

GROUPS = ("female", "male")
PERSON = {"sex": "F", "age_years": 50.0, "height_cm": 162.0, "weight_kg": 63.0}


@dataclass(frozen=True)
class Lying:
    """A phantom subject as scanned: ``turn`` (3, 3) and ``shift`` (3,) from its own frame, and where the scan ends."""

    who: Subject
    turn: NDArray[np.float64]
    shift: NDArray[np.float64]
    cut: float

    def posed(self, points: Points) -> Points:
        """Points of its own frame where they lie in the scan."""
        return np.asarray(points @ self.turn.T + self.shift)


def people(women: int, men: int) -> list[Lying]:
    """The cohort; ``cut`` is the share of the height that the scan lacks, 0 for every second subject."""
    rng = np.random.default_rng(SEED)
    who = draw_population(women, men, SEED)
    cut = np.zeros(len(who))
    for first, count in ((0, women), (women, men)):
        chosen = first + rng.permutation(count)[: round(CUT_SHARE * count)]
        cut[chosen] = rng.uniform(*CUT_HEIGHT, len(chosen))
    return [
        Lying(
            w, Rotation.from_rotvec(rng.normal(size=3) * POSE_RAD).as_matrix(), rng.normal(size=3) * POSE_MM, float(c)
        )
        for w, c in zip(who, cut, strict=True)
    ]


def floor(one: Lying, points: Points) -> float:
    """z at which this subject's scan ends, below all points when it is complete."""
    low, height = points[:, 2].min(), np.ptp(points[:, 2])
    return float(low + height * one.cut) if one.cut else float(low - height)


def covariates(cohort: Sequence[Lying]) -> dict[str, NDArray[np.float64]]:
    """Age, height and weight by subject."""
    return {k: np.array([getattr(c.who, k) for c in cohort]) for k in ("age_years", "height_cm", "weight_kg")}


def gathered(
    cohort: Sequence[Lying],
    shapes: Points,
    visible: NDArray[np.bool_],
    faces: NDArray[np.int64],
    bone: NDArray[np.uint8],
) -> Population:
    """A population record of these shapes."""
    names, sexes = tuple(c.who.subject for c in cohort), tuple(c.who.sex for c in cohort)
    return Population(shapes, visible, names, sexes, faces, bone, np.zeros(len(bone), bool), covariates(cohort))


def with_true_correspondence(cohort: Sequence[Lying]) -> tuple[Population, Population]:
    """(as scanned, complete): the phantom's own vertices; hidden ones have the seen mean, for whoever believes it."""
    first = surface(cohort[0].who)
    shapes = np.stack([surface(c.who).vertices for c in cohort])
    posed = np.stack([c.posed(x) for c, x in zip(cohort, shapes, strict=True)])
    visible = np.stack([x[:, 2] > floor(c, x) for c, x in zip(cohort, posed, strict=True)])
    whole = gathered(cohort, shapes, np.ones_like(visible), first.faces, first.bone)
    cut = align(replace(whole, vertices=posed, visible=visible))
    guess = seen_mean(cut.vertices, cut.visible)
    return replace(cut, vertices=np.where(visible[..., None], cut.vertices, guess)), whole


def target(one: Lying, index: int, folder: Path) -> Mesh:
    """Surfaces of the subject's voxels, from where its scan ends; kept as a file."""

    def make() -> Mesh:
        bones = surface(one.who)
        posed = bones.with_vertices(one.posed(bones.vertices))
        labels, grid = voxelised(posed, index)
        end = floor(one, posed.vertices)
        return labels_to_mesh(image(labels, grid, max(0, int(np.ceil((end - grid.origin[2]) / grid.spacing[2])))))

    return kept(folder / f"target_{one.who.subject}.vtp", make)


def makers(cohort: Sequence[Lying]) -> list[int]:
    """The first complete women and men in turn, as a run chooses those with most complete bones."""
    whole = [[i for i, c in enumerate(cohort) if not c.cut and c.who.sex == s] for s in "FM"]
    return sorted([i for pair in zip(*whole, strict=False) for i in pair][:TEMPLATE_MAKERS])


def make(cohort: Sequence[Lying], folder: Path) -> None:
    """Everything that registered correspondence needs, on file; what is there is kept."""
    folder.mkdir(parents=True, exist_ok=True)

    def compose() -> Mesh:
        return compose_template(
            [target(cohort[i], i, folder) for i in makers(cohort)], fallback=surface(mean_subject())
        ).mesh

    ready = prepare(kept(folder / "template.vtp", compose))
    reference = read_vtp(folder / "template.vtp")
    for i, one in enumerate(cohort):
        path, began = folder / f"registered_{one.who.subject}.vtp", time.process_time()
        if path.is_file():
            continue
        found = register(ready, target(one, i, folder))
        write_vtp(to_mesh(found, reference), path)
        say(f"{one.who.subject}: {found.visible.mean():.0%} seen, {time.process_time() - began:.0f} processor s")


def with_registered_correspondence(cohort: Sequence[Lying], folder: Path) -> tuple[Population, Population]:
    """(as registered, complete): template vertices, and their consensus of the cohort on everybody's true shape."""
    from pipelines.score import true_places

    meshes = [read_vtp(folder / f"registered_{c.who.subject}.vtp") for c in cohort]
    truths = []
    for c in cohort:
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = c.turn, c.shift
        bones = surface(c.who)
        posed = bones.with_vertices(c.posed(bones.vertices))
        end = np.array([-np.inf, np.inf, -np.inf, np.inf, floor(c, posed.vertices), np.inf])
        truths.append(StudyTruth(replace(posed, fov=end), c.who, pose))
    truth = true_places(meshes, truths)
    shapes = np.stack([m.vertices for m in meshes])
    visible = np.stack([np.asarray(m.arrays["visible"], bool) for m in meshes])
    error = np.linalg.norm(shapes - truth.scanned, axis=2)
    seen = [float(e[s].mean()) for e, s in zip(error, truth.seen, strict=True)]
    say(f"registration: {np.mean(seen):.2f} mm from the true place where seen (worst subject {max(seen):.2f})")
    faces, bone = meshes[0].faces, meshes[0].bone
    return (
        gathered(cohort, shapes, visible, faces, bone),
        gathered(cohort, truth.own, np.ones_like(visible), faces, bone),
    )


def gap(shape: Points, truth: Points, weights: NDArray[np.float64]) -> dict[str, float]:
    """Distance to the truth laid rigidly on the shape: mean, 95th percentile and largest over vertices, mm."""
    rotation, shift = rigid_fit(truth, shape, weights)
    d = np.linalg.norm(truth @ rotation.T + shift - shape, axis=1)
    return {"mean": float(d.mean()), "p95": float(np.quantile(d, 0.95)), "max": float(d.max())}


def cosines(found: ShapeModel, truth: ShapeModel, weights: NDArray[np.float64]) -> list[float]:
    """Cosines of the first three modes, after the rotation between the two frames."""
    rotation, _ = rigid_fit(found.mean, truth.mean, weights)
    return [abs(float(((found.modes[k] @ rotation.T) * truth.modes[k]).sum())) for k in range(3)]


def percentile_shapes(models: Mapping[str, ShapeModel]) -> dict[str, Points]:
    """The shapes that people ask for, by name."""
    out = {}
    for group in GROUPS:
        for mode in (1, 2):
            for percent in (5, 95):
                out[f"{group} mode {mode} at {percent}"] = query(models[group], mode=mode, percentile=percent)[
                    0
                ].vertices
    out["female joint 95 along mode 1"] = joint_query(models["female"], 95, direction=[1.0], degrees=10)[0].vertices
    out["F, 50 y, 162 cm, 63 kg"] = covariate_query(models["pooled"], PERSON)[0].vertices
    out["the same, residual mode 1 at 95"] = residual_query(models["pooled"], PERSON, mode=1, percentile=95)[0].vertices
    return out


def compared(cut: Population, whole: Population) -> dict[str, dict[str, dict[str, float]]]:
    """Each way of making means and percentile shapes, against those of the complete true shapes."""
    began = time.process_time()
    done = complete(cut)
    say(
        f"{cut.n_subjects} subjects, {100 * (1 - cut.visible.mean()):.1f} % hidden: {time.process_time() - began:.0f} s"
    )
    truth = {g: fit_model(align(whole), g) for g in ("pooled", *GROUPS)}
    weights = area_weights(truth["pooled"].mean, cut.faces)
    plain = align(replace(cut, visible=np.ones_like(cut.visible)))
    every = np.flatnonzero(cut.visible.mean(axis=1) > 0.995)
    uncut = complete(cut.take(every))
    ways = {
        "ours": {g: fit_model(done, g) for g in truth},
        "naive PCA": {g: fit_model(plain, g) for g in truth},
        f"complete cases ({len(every)})": {g: fit_model(uncut, g) for g in truth},
    }
    target_shapes = percentile_shapes(truth)
    out = {}
    for way, models in ways.items():
        rows = {f"{g} mean": gap(models[g].mean, truth[g].mean, weights) for g in GROUPS}
        got = percentile_shapes(models)
        rows |= {name: gap(got[name], target_shapes[name], weights) for name in got}
        found = cosines(models["pooled"], truth["pooled"], weights)
        rows["cosines of modes 1-3"] = {str(k + 1): c for k, c in enumerate(found)}
        out[way] = rows
    return out


def report(table: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    """The table, one shape a line."""
    names = list(next(iter(table.values())))
    say("mm from the truth: mean (95th percentile, largest)")
    say("  ".join(["shape".ljust(34), *(w.ljust(24) for w in table)]))
    for name in names:
        cells = []
        for rows in table.values():
            r = rows[name]
            cells.append(
                f"{r['mean']:.3f} ({r['p95']:.2f}, {r['max']:.1f})"
                if "mean" in r
                else " ".join(f"{c:.3f}" for c in r.values())
            )
        say("  ".join([name.ljust(34), *(c.ljust(24) for c in cells)]))


def say(text: str) -> None:
    """One line."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["true", "make", "registered"])
    parser.add_argument("--work", type=Path, default=Path("build/population"))
    parser.add_argument("--people", type=int, nargs=2, default=[20, 20], metavar=("WOMEN", "MEN"))
    o = parser.parse_args()
    cohort = people(*o.people)
    if o.part == "make":
        make(cohort, o.work)
        return
    both = with_true_correspondence(cohort) if o.part == "true" else with_registered_correspondence(cohort, o.work)
    table = compared(*both)
    report(table)
    o.work.mkdir(parents=True, exist_ok=True)
    (o.work / f"{o.part}.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
