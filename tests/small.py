"""A small phantom cohort for tests of the whole line: coarse scans, coarse template, four subjects."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from shapemodel.mesh import write_vtp
from shapemodel.phantom.cohort import write_study
from shapemodel.phantom.knobs import CTKnobs
from shapemodel.phantom.raster import Grid, box_of, coverage
from shapemodel.phantom.shape import surface
from shapemodel.phantom.subject import Subject, draw_population

SETTINGS = """
[run]
workers = 1
[cohort]
permutations = 50
heal = false
[report]
thumbnail_px = 80
picture_px = 100
modes = 1
[surfaces]
grid_mm = 2.5
[groupwise]
rounds = 0
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


def write_small_cohort(folder: Path) -> list[str]:
    """Two women and two men with their truth, ``settings.toml``, and a manifest.

    The first is a DICOM study to be labelled, the others come with their true label maps and no CT.
    """
    people = draw_population(2, 2, 5)
    first = write_study(folder, people[0], KNOBS, 10, index=0)
    rows = [{k: "" if v is None else str(v) for k, v in first.row(folder).items()}]
    for person in people[1:]:
        labels = write_label_study(folder, person)
        who = {k: str(getattr(person, k)) for k in ("subject", "sex", "age_years", "height_cm", "weight_kg")}
        rows.append({**who, "labels": str(labels.relative_to(folder)), "labels_scheme": "shapemodel"})
    (folder / "settings.toml").write_text(SETTINGS)
    write_rows(folder / "data_manifest.csv", rows)
    return [p.subject for p in people]


def write_label_study(folder: Path, person: Subject) -> Path:
    """True label map and true surfaces of a subject, as :func:`write_study` leaves them, without the cost of a CT."""
    bones = surface(person)
    low, high = bones.vertices.min(axis=0) - 12, bones.vertices.max(axis=0) + 12
    spacing = np.array([KNOBS.pixel_mm, KNOBS.pixel_mm, KNOBS.slice_mm])
    size = np.ceil((high - low) / spacing).astype(int)
    grid = Grid(tuple(low.tolist()), tuple(spacing.tolist()), tuple(size.tolist()))
    labels = np.zeros(grid.shape, np.uint8)
    for label in bones.labels:
        v, f, _ = bones.select(label)
        box = box_of(v, grid, 1)
        assert box is not None
        labels[box][coverage(v, f, grid, box) > 0.5] = label
    image = sitk.GetImageFromArray(labels)
    image.SetOrigin(grid.origin)
    image.SetSpacing(grid.spacing)
    place = folder / "truth" / person.subject
    place.mkdir(parents=True)
    sitk.WriteImage(image, str(place / "labels.nii.gz"), True)
    fields = {"subject": json.dumps(asdict(person), sort_keys=True), "pose": np.eye(4).ravel()}
    seen = np.ones(len(bones.vertices), bool)
    write_vtp(replace(bones.with_arrays(visible=seen), fov=grid.bounds, fields=fields), place / "bones.vtp")
    return place / "labels.nii.gz"


def write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    """A manifest with all columns, ``include`` yes unless the row says otherwise."""
    from shapemodel.manifest import COLUMNS

    with path.open("w", newline="") as handle:
        out = csv.DictWriter(handle, COLUMNS, restval="")
        out.writeheader()
        out.writerows([{"include": "yes", **r} for r in rows])
