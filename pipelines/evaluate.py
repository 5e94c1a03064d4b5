"""How good the models are: compactness, generalization, specificity, how many subjects a mean needs, error budget."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines import verbs
from pipelines.cohort import POPULATION_FILE, model_file
from pipelines.costs import Timing
from pipelines.settings import Settings
from pipelines.subject import REGISTERED_FILE, registered_mesh
from pipelines.workspace import COHORT, Outcome, Record, Workspace, run_stage, stage_key
from shapemodel.anatomy import bone

if TYPE_CHECKING:
    from shapemodel.model import ShapeModel
    from shapemodel.population import Population
    from shapemodel.quality import Curve

log = logging.getLogger(__name__)

MEAN_GOALS_MM = (1.0, 0.5)
"""Errors of a mean for which the subjects needed are reckoned."""

LEAST_LEARNING = 4
"""Subjects of a group below which halves of it say nothing about its mean."""

LEAST_SHOWN = 0.5
"""A subject counts for a bone's correspondence error when it shows at least this share of it."""


def evaluation(workspace: Workspace, studies: Sequence[Any], settings: Settings) -> tuple[Record, Timing | None]:
    """Curves by bone and for the cage, the learning curve of each group, and the error budget of each bone."""
    model_record = workspace.read(COHORT, "model")
    if model_record is None:
        raise ValueError("an evaluation needs models")
    subjects = sorted(str(s.subject) for s in studies)
    inputs = {
        "models": dict(model_record.outputs),
        "registered": [workspace.output(s, "registration", REGISTERED_FILE) for s in subjects],
    }
    key = stage_key("evaluation", inputs, asdict(settings.evaluation))

    def body(work: Path) -> Outcome:
        del work
        from shapemodel.population import read_population

        population = read_population(workspace.folder() / POPULATION_FILE)
        models = {g: verbs.read_model(workspace.folder() / model_file(g)) for g in model_record.numbers["groups"]}
        return Outcome(
            {
                "curves": curves(population, models["pooled"], settings),
                "learning": {g: learning(population, m.subjects, settings) for g, m in models.items()},
                "budget": {g: budget(m, shown_errors(workspace, subjects)) for g, m in models.items()},
            }
        )

    return run_stage(workspace, COHORT, "evaluation", key=key, body=body)


def curves(population: Population, pooled: ShapeModel, settings: Settings) -> dict[str, Any]:
    """Compactness, generalization and specificity of the pooled model against the number of modes."""
    from shapemodel.completion import CompletionSettings
    from shapemodel.neighbours import spread_nodes
    from shapemodel.quality import compactness, generalizations, specificity

    own, n = settings.evaluation, population.n_subjects
    folds = None if n <= own.folds or not own.folds else own.folds
    left = n - (1 if folds is None else -(-n // folds))
    modes = [m for m in own.modes if m <= min(left - 1, pooled.n_modes)]
    found = [compactness(pooled)]
    if modes and n >= 3:
        nodes = spread_nodes(np.asarray(pooled.mean), population.bone, own.nodes)
        quick = CompletionSettings(nodes=own.nodes, calibration_folds=0)
        found += generalizations(population, modes, nodes=nodes, folds=folds, seed=own.seed, settings=quick)
        found.append(specificity(pooled, population.vertices, modes, count=own.samples, seed=own.seed))
    return {c.name: {**plain(c), "folds": folds or n, "subjects": n} for c in found}


def plain(curve: Curve) -> dict[str, Any]:
    """A curve as a record keeps it."""
    return {
        "definition": curve.definition,
        "at": [int(m) for m in curve.at],
        "value": rounded(curve.value),
        "error": rounded(curve.error),
        "bones": {bone(k).name: rounded(v) for k, v in sorted(curve.by_bone.items())},
    }


def rounded(values: Any) -> list[float | None]:
    """Four decimals; None for what is not a number."""
    return [round(float(v), 4) if np.isfinite(v) else None for v in np.asarray(values)]


def learning(population: Population, subjects: Sequence[str], settings: Settings) -> dict[str, Any]:
    """The learning curve of a group's mean and how many subjects it would need; empty for a handful."""
    from shapemodel.filling import trivial
    from shapemodel.quality import learning_curve, mean_scale, subjects_needed

    index = np.array([i for i, s in enumerate(population.subjects) if s in set(subjects)])
    n, own = len(index), settings.evaluation
    if n < LEAST_LEARNING:
        return {}
    sizes = sorted({max(1, round(n * share)) for share in (0.1, 0.2, 0.3, 0.4, 0.5)})
    curve = learning_curve(trivial(population), sizes, draws=own.draws, seed=own.seed, index=index)
    scale = mean_scale(curve, n)
    needed = {f"{goal:g}": subjects_needed(scale, goal) for goal in MEAN_GOALS_MM}
    now = round(float(scale / np.sqrt(n)), 3)
    return {**plain(curve), "subjects": n, "scale_mm": round(scale, 3), "now_mm": now, "needed": needed}


def shown_errors(workspace: Workspace, subjects: Sequence[str]) -> dict[int, float]:
    """Label -> root mean square over subjects of the correspondence error that their registrations expect, mm."""
    from shapemodel.correspondence import from_mesh

    square: dict[int, list[float]] = {}
    for subject in subjects:
        for label, fit in from_mesh(registered_mesh(workspace, subject)).bones.items():
            if fit.visible_fraction >= LEAST_SHOWN:
                square.setdefault(label, []).append(fit.expected_mm**2)
    return {k: float(np.sqrt(np.mean(v))) for k, v in square.items()}


def budget(fitted: ShapeModel, correspondence_mm: Mapping[int, float]) -> dict[str, list[float]]:
    """Bone -> label boundary, correspondence, sampling, together, mm."""
    from shapemodel.means import BOUNDARY_MM, error_budget

    boundary = {k: BOUNDARY_MM[bone(k).kind] for k in fitted.reference.labels}
    rows = error_budget(fitted, boundary_mm=boundary, correspondence_mm=correspondence_mm)
    return {
        bone(r.label).name: [
            round(float(x), 3) for x in (r.boundary_mm, r.correspondence_mm, r.sampling_mm, r.total_mm)
        ]
        for r in rows
    }
