"""A small phantom cohort for tests of the whole line: coarse scans, coarse template, four subjects."""

from __future__ import annotations

import csv
from pathlib import Path

from shapemodel.phantom.cohort import CohortStudy, write_study
from shapemodel.phantom.knobs import CTKnobs
from shapemodel.phantom.subject import draw_population

SETTINGS = """
[run]
workers = 1
[cohort]
permutations = 50
[report]
thumbnail_px = 80
picture_px = 100
modes = 1
[surfaces]
grid_mm = 2.5
[template.remesh]
edge_mm = 8.0
tip_edge_mm = 7.0
iterations = 4
[template.remesh.carve]
grid_mm = 2.0
[registration]
samples = 500
coarse_steps = 6
[completion]
nodes = 600
iterations = 40
"""
"""Settings for speed: these tests are about the line, not about tenths of millimetres."""

KNOBS = CTKnobs(slice_mm=3.0, pixel_mm=1.6, matrix=256, couch=False, noise="low")


def write_small_cohort(folder: Path) -> list[CohortStudy]:
    """Two women and two men as DICOM, their truth, ``settings.toml``, and a manifest.

    The first is to be labelled from its CT, the others come with their true label maps.
    """
    people = draw_population(2, 2, 5)
    studies = [write_study(folder, who, KNOBS, 10 + i, index=i) for i, who in enumerate(people)]
    (folder / "settings.toml").write_text(SETTINGS)
    write_rows(folder / "data_manifest.csv", [row(study, folder, i) for i, study in enumerate(studies)])
    return studies


def row(study: CohortStudy, folder: Path, index: int) -> dict[str, str]:
    """A manifest row; all but the first name the label map instead of the CT."""
    values = {k: "" if v is None else str(v) for k, v in study.row(folder).items()}
    if index:
        values |= {"ct": "", "labels": str(study.labels.relative_to(folder)), "labels_scheme": "shapemodel"}
    return values


def write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    """A manifest with all columns, ``include`` yes unless the row says otherwise."""
    from shapemodel.manifest import COLUMNS

    with path.open("w", newline="") as handle:
        out = csv.DictWriter(handle, COLUMNS, restval="")
        out.writeheader()
        out.writerows([{"include": "yes", **r} for r in rows])
