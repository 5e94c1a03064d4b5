"""All studies together: surfaces -> composed template, then correspondences -> completed population -> models."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pipelines import verbs
from pipelines.costs import Timing
from pipelines.provenance import file_sha256
from pipelines.settings import Settings
from pipelines.subject import REGISTERED_FILE, SURFACE_FILE, registered_mesh
from pipelines.workspace import COHORT, Outcome, Record, Workspace, run_stage, stage_key
from shapemodel.mesh import read_vtp, write_vtp
from shapemodel.reasons import InputError
from shapemodel.template import read_template

log = logging.getLogger(__name__)

COMPOSED_FILE = "composed.vtp"
TEMPLATE_FILE = "template.vtp"
POPULATION_FILE = "population.h5"
DIFFERENCE_FILE = "difference_female_male.vtp"
GROUPS = ("pooled", "female", "male")


def model_file(group: str) -> str:
    """File name of a group's model."""
    return f"model_{group}.h5"


def balanced(workspace: Workspace, studies: Sequence[Any], count: int) -> list[str]:
    """Subjects who stand for the cohort: those with most complete bones, the sexes in turn.

    Ties go by name, so that the choice does not hang on the order of the manifest.
    """

    def complete(subject: str) -> int:
        record = workspace.read(subject, "labels")
        bones = record.numbers.get("bones", {}) if record else {}
        return sum(status == "complete" for status in bones.values())

    queues: dict[Any, list[str]] = {}
    for study in sorted(studies, key=lambda s: (-complete(s.subject), s.subject)):
        queues.setdefault(study.sex, []).append(study.subject)
    order = [queues[k] for k in sorted(queues, key=str)]
    chosen: list[str] = []
    while len(chosen) < count and any(order):
        for queue in order:
            if queue and len(chosen) < count:
                chosen.append(queue.pop(0))
    return sorted(chosen)


def composed(workspace: Workspace, studies: Sequence[Any], settings: Settings) -> tuple[Record, Timing | None]:
    """The first template: given in the settings, or composed from the most complete studies."""
    place = workspace.folder(COHORT)
    if settings.cohort.template:
        given = Path(settings.cohort.template)
        if not given.is_file():
            raise InputError(f"settings: cohort.template: {given}: no such file")
        key = stage_key("composed", {"given": file_sha256(given)}, {})

        def copy(work: Path) -> Outcome:
            try:
                made = read_template(given)
            except InputError as error:
                raise InputError(f"settings: cohort.template: {given}: {error}") from error
            verbs.write_template(made, work / COMPOSED_FILE)
            return Outcome({"given": True, **template_numbers(made)})

        return run_stage(workspace, COHORT, "composed", key=key, body=copy)
    makers = balanced(workspace, studies, settings.cohort.template_studies)
    inputs = {s: workspace.output(s, "surfaces", SURFACE_FILE) for s in makers}
    key = stage_key("composed", inputs, asdict(settings.section("template")))

    def body(work: Path) -> Outcome:
        made = verbs.compose([read_vtp(workspace.folder(s) / SURFACE_FILE) for s in makers], settings=settings)
        verbs.write_template(made, work / COMPOSED_FILE)
        return Outcome({"made_from": makers, **template_numbers(made)})

    place.mkdir(parents=True, exist_ok=True)
    return run_stage(workspace, COHORT, "composed", key=key, body=body)


def template_numbers(made: Any) -> dict[str, Any]:
    """What a table needs to know of a template."""
    prior = round(100 * float(np.mean(made.prior)), 2)
    return {"vertices": len(made.mesh.vertices), "faces": len(made.mesh.faces), "prior_percent": prior}


def covariates(workspace: Workspace, studies: Sequence[Any]) -> dict[str, list[float | None]]:
    """Age, height, weight and lung volume by study, in order; None where unknown."""

    def lung(subject: str) -> float | None:
        record = workspace.read(subject, "labels")
        value = record.numbers.get("lung_volume_ml") if record else None
        return float(value) if value else None

    table: dict[str, list[float | None]] = {
        name: [getattr(s, name) for s in studies] for name in ("age_years", "height_cm", "weight_kg")
    }
    return {**table, "lung_volume_ml": [lung(s.subject) for s in studies]}


def models(workspace: Workspace, studies: Sequence[Any], settings: Settings) -> tuple[Record, Timing | None]:
    """Correspondences -> population in one frame, its gaps filled -> pooled, female and male model."""
    who = sorted(studies, key=lambda s: str(s.subject))
    inputs = {
        "registered": [workspace.output(s.subject, "registration", REGISTERED_FILE) for s in who],
        "who": [[s.subject, s.sex] for s in who],
        "covariates": covariates(workspace, who),
    }
    own = settings.cohort
    chosen = [asdict(settings.section("completion")), own.modes, own.permutations, own.seed, own.heal, own.groups]
    groups = verbs.groups_of(own.groups, who)
    key = stage_key("model", inputs, chosen)

    def body(work: Path) -> Outcome:
        from shapemodel.population import write_population

        meshes = [registered_mesh(workspace, s.subject) for s in who]
        done = verbs.completed(meshes, who, covariates=covariates(workspace, who), settings=settings)
        made = verbs.model(done, settings=settings, facts=verbs.facts(who), groups=groups)
        if own.heal:
            made = verbs.with_bases(made, read_vtp(workspace.folder() / TEMPLATE_FILE))
        for group, fitted in made.items():
            verbs.write_model(fitted, work / model_file(group))
        write_population(done.population, work / POPULATION_FILE)
        gap = verbs.difference(done, made, settings=settings)
        if gap is not None:
            write_vtp(gap, work / DIFFERENCE_FILE)
        numbers = {group: model_numbers(fitted) for group, fitted in made.items()}
        return Outcome({"groups": numbers, "measures": rounded(verbs.measures(done, made))})

    return run_stage(workspace, COHORT, "model", key=key, body=body)


def rounded(table: Mapping[str, Mapping[str, tuple[float, float, int]]]) -> dict[str, dict[str, list[float | None]]]:
    """Measures with two decimals; None for what is not a number."""
    return {
        group: {name: [None if x != x else round(float(x), 2) for x in values] for name, values in sorted(rows.items())}
        for group, rows in table.items()
    }


def model_numbers(model: Any) -> dict[str, Any]:
    """What a table needs to know of a model."""
    variances = np.asarray(model.variances, float)
    total = float(model.total_variance) or 1.0
    return {
        "n": int(model.n_subjects),
        "modes": int(model.n_modes),
        "scree": [round(float(v) / total, 6) for v in variances[:20]],
        "seen_by_all_percent": round(100 * float(np.mean(np.asarray(model.n_seen) == model.n_subjects)), 2),
    }
