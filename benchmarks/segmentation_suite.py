"""Labelled bones of the phantom suite: numbering, Dice and flags by knob (``segmentation.py --suite``)."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage as ndi

from shapemodel.anatomy import MODEL_LABELS, RIBS, STERNUM, VERTEBRAE, bone
from shapemodel.labels import label_bones
from shapemodel.phantom.suite import CASES, VARIANTS, Case, suite
from shapemodel.reasons import StudyError

MIN_SEEN_MM = 10.0
"""A bone of which less lies in the scan is not judged."""
MIN_DICE = 0.6
"""Numbered right."""


COLUMNS = (
    "case person level refused not_right swapped flags ribs sternum spine lowest_rib false_bone_ml cartilage_ml "
    "seconds measures"
).split()
"""Of the CSV that ``--suite`` writes: one row a phantom scan."""


def exempt(truth: np.ndarray, spacing_zyx: tuple[float, ...]) -> set[int]:
    """Labels of which under 10 mm lies in the scan, and of vertebrae cut by its first or last slice."""
    out = set()
    for k, box in enumerate(ndi.find_objects(truth, max_label=max(MODEL_LABELS)), start=1):
        if box is None:
            continue
        extent = max((b.stop - b.start) * s for b, s in zip(box, spacing_zyx, strict=True))
        cut = box[0].start == 0 or box[0].stop == truth.shape[0]
        if extent < MIN_SEEN_MM or (k in VERTEBRAE and cut):
            out.add(k)
    return out


def stored_scan(case: Case, person: int, folder: Path | None) -> tuple[sitk.Image, sitk.Image]:
    """CT and truth of a phantom scan, from ``folder`` where they were kept before; kept there where one is given."""
    paths = [folder / f"{case.name}_{person}_{kind}.nii" for kind in ("truth", "ct")] if folder else []
    if paths and all(p.exists() for p in paths):
        return sitk.ReadImage(str(paths[1])), sitk.ReadImage(str(paths[0]))
    scan = case.render()
    for path, image in zip(paths, (scan.labels, scan.image), strict=False):
        part = path.with_suffix(".part.nii")
        sitk.WriteImage(image, str(part))
        part.replace(path)
    return scan.image, scan.labels


def phantom_row(
    case: Case, person: int, scores: Callable[[np.ndarray, np.ndarray, float], dict], folder: Path | None = None
) -> dict[str, object]:
    """Label one phantom scan and score it against its truth."""
    ct, labels = stored_scan(case, person, folder)
    truth = sitk.GetArrayFromImage(labels)
    row: dict[str, object] = dict.fromkeys(COLUMNS, "")
    row |= {"case": case.name, "person": person, "level": case.level}
    start = time.process_time()
    try:
        found = label_bones(ct)
    except StudyError as e:
        return row | {"refused": e.code, "seconds": round(time.process_time() - start, 1)}
    ours = sitk.GetArrayFromImage(found.image)
    s = scores(ours, truth, float(np.prod(ct.GetSpacing())) / 1000)
    spared = {bone(k).name for k in exempt(truth, ct.GetSpacing()[::-1])}
    judged = {n: d for n, d in s["dice"].items() if n not in spared}
    table = np.bincount(truth.ravel().astype(np.int64) * 64 + ours.ravel(), minlength=4096).reshape(64, 64)
    named = {bone(k).name: k for k in MODEL_LABELS}
    wrong = [n for n, d in judged.items() if d <= MIN_DICE]
    swapped = [n for n in wrong if table[named[n], 1:38].argmax() + 1 != named[n] and table[named[n], 1:38].any()]

    def mean(labels: tuple[int, ...]) -> float:
        values = [judged[bone(k).name] for k in labels if bone(k).name in judged]
        return round(float(np.mean(values)), 4) if values else float("nan")

    return row | {
        "not_right": " ".join(wrong),
        "swapped": " ".join(swapped),
        "flags": " ".join(sorted({f.code for f in found.review})),
        "ribs": mean(tuple(RIBS)),
        "sternum": mean((STERNUM,)),
        "spine": mean(tuple(VERTEBRAE)),
        "lowest_rib": min((judged[bone(k).name] for k in RIBS if bone(k).name in judged), default=float("nan")),
        "false_bone_ml": s["false_bone_ml"],
        "cartilage_ml": s["cartilage_ml"],
        "seconds": round(time.process_time() - start, 1),
        "measures": json.dumps({k: round(v, 3) for k, v in found.measures.items()}),
    }


def run_suite(
    path: Path, people: int, scores: Callable[[np.ndarray, np.ndarray, float], dict], folder: Path | None = None
) -> None:
    """Label all phantom scans of the suite, one row each into the CSV; scans that it already holds are not redone.

    With a ``folder`` the scans are kept there (135 MB each) and taken from there the next time. The first person of
    every case comes first, so that a part of the suite already covers all knobs.
    """
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    cases = [(i % people, case) for i, case in enumerate(suite(people))]
    known = {(r["case"], r["person"]) for r in read_rows(path)}
    with path.open("a", newline="") as f:
        writer = csv.DictWriter(f, COLUMNS)
        if not known:
            writer.writeheader()
        for person, case in sorted(cases, key=lambda q: q[0]):
            if (case.name, str(person)) not in known:
                writer.writerow(phantom_row(case, person, scores, folder))
                f.flush()


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of the suite's CSV; none where it is not there."""
    if not path.exists():
        return []
    with path.open(newline="") as f:
        return list(csv.DictReader(f))


def summary(rows: list[dict[str, str]]) -> str:
    """Table by knob, and the shares that the limits of the flags are judged by."""
    lines = [
        "case | level | scans | refused | not right | wrong and flagged | right and not flagged | "
        "ribs | sternum | spine | flags"
    ]
    for name in CASES:
        own = [r for r in rows if r["case"] == name]
        if own:
            lines.append(f"{name} | {own[0]['level']} | {len(own)} | " + " | ".join(_cells(own)))
    for level in ("plain", "middling", "hard"):
        own = [r for r in rows if r["level"] == level and r["case"] not in VARIANTS]
        seen = [r for r in own if r["flags"] or r["refused"]]
        lines.append(f"{level} without {' '.join(VARIANTS)}: {len(seen)} of {len(own)} flagged or refused")
    wrong = [r for r in rows if r["not_right"]]
    silent = [f"{r['case']}/{r['person']} ({r['not_right']})" for r in wrong if not r["flags"]]
    swapped = sum(bool(r["swapped"]) for r in rows)
    lines.append(
        f"{len(rows)} scans, {len(wrong)} with bones not right (Dice <= {MIN_DICE}), {swapped} with wrong numbers; "
        f"without a flag: {', '.join(silent) or 'none'}"
    )
    return "\n".join(lines)


def _cells(own: list[dict[str, str]]) -> list[str]:
    def mean(column: str) -> str:
        values = [float(r[column]) for r in own if r[column] not in ("", "nan")]
        return f"{np.mean(values):.3f}" if values else "-"

    wrong, right = ([r for r in own if bool(r["not_right"] or r["refused"]) == w] for w in (True, False))
    codes = sorted({c for r in own for c in r["flags"].split()})
    counts = [
        sum(bool(r["refused"]) for r in own),
        sum(bool(r["not_right"]) for r in own),
        f"{sum(bool(r['flags'] or r['refused']) for r in wrong)} of {len(wrong)}",
        f"{sum(not r['flags'] for r in right)} of {len(right)}",
    ]
    return [*map(str, counts), mean("ribs"), mean("sternum"), mean("spine"), " ".join(codes) or "-"]
