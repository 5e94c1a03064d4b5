"""Labelled bones of real CTs against reference label maps, and what they cost.

    python benchmarks/segmentation.py [FOLDER] [--study P001 ...] [--baseline] [--thick 2] [--joints 2 4]
    python benchmarks/segmentation.py --suite SUITE.csv [--people 3] [--scans FOLDER]

FOLDER holds ``ct/STUDY/`` (DICOM) and ``labels/STUDY.nii.gz`` (default: $SHAPEMODEL_REAL_CT, else ../shared).
For every study, in a process of its own: seconds of CPU from the DICOM folder to filled labels, peak memory,
Dice of each bone and of all bones as one, bone that the two give to different neighbours, false bone
(labelled 1-37 where the reference says other bone; leaves Dice), calcified
cartilage inside ribs and sternum, pieces a bone, Euler number of the meshed solid, flags. ``--baseline`` adds a
plain HU > 200 mask with islands below 1 mL removed, as one Dice against all bones of the model. ``--thick`` averages
slices first. ``--joints`` scores ribs and vertebrae again without what lies within so many mm of a joint of the
reference, and vertebrae as if one kind of difference at a time were the reference's. ``--suite`` labels the
phantom scans of ``shapemodel.phantom.suite`` instead, one row each in the CSV (run again to resume), and prints the
table by knob.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage as ndi
from segmentation_joints import away_from_joints, joint_line, spine_if_agreed
from segmentation_suite import read_rows, run_suite, summary

from shapemodel.anatomy import COSTAL_CARTILAGE, MODEL_LABELS, OTHER_BONE, RIBS, STERNUM, VERTEBRAE, bone
from shapemodel.labels import label_bones
from shapemodel.study import read_ct
from shapemodel.surfaces import labels_to_mesh

MIN_DICE = 0.6
"""Numbered right."""


def scores(ours: np.ndarray, reference: np.ndarray, voxel_ml: float) -> dict:
    """Dice by bone and the wrong volumes; both (z, y, x) uint8 on one grid."""
    table = np.bincount(ours.ravel().astype(np.int64) * 64 + reference.ravel(), minlength=4096).reshape(64, 64)
    mine, theirs = table.sum(axis=1) - table[:, OTHER_BONE], table.sum(axis=0)
    spine, ribs = slice(VERTEBRAE[0], VERTEBRAE[-1] + 1), slice(RIBS[0], RIBS[-1] + 1)
    own = table[spine, spine].diagonal().sum()
    dice = {bone(k).name: round(2 * table[k, k] / (mine[k] + theirs[k]), 4) for k in MODEL_LABELS if theirs[k]}
    return {
        "dice": dice,
        "false_bone_ml": round(float(table[1:38, OTHER_BONE].sum() * voxel_ml), 2),
        "cartilage_ml": round(float(table[1:26, COSTAL_CARTILAGE].sum() * voxel_ml), 2),
        "outline_dice": round(float(2 * table[1:38, 1:38].sum() / (mine[1:38].sum() + theirs[1:38].sum())), 4),
        "rib_for_vertebra_ml": round(float(table[ribs, spine].sum() * voxel_ml), 1),
        "vertebra_for_rib_ml": round(float(table[spine, ribs].sum() * voxel_ml), 1),
        "vertebra_for_next_ml": round(float((table[spine, spine].sum() - own) * voxel_ml), 1),
        "invented": [bone(k).name for k in MODEL_LABELS if mine[k] and not theirs[k]],
    }


def topology(image: sitk.Image) -> dict[str, tuple[int, int]]:
    """Pieces (6-connected voxels) and Euler number of the meshed solid of each bone."""
    mesh = labels_to_mesh(image)
    labels = sitk.GetArrayViewFromImage(image)
    boxes = ndi.find_objects(labels, max_label=max(MODEL_LABELS))
    euler = dict(zip(mesh.fields["surface_label"], mesh.fields["surface_euler"], strict=True))
    return {
        bone(int(k)).name: (int(ndi.label(labels[boxes[int(k) - 1]] == k)[1]), int(e)) for k, e in sorted(euler.items())
    }


def baseline(hu: np.ndarray, reference: np.ndarray, voxel_ml: float) -> float:
    """Dice of HU > 200, islands below 1 mL removed, with all bones of the model together."""
    lab, n = ndi.label(hu > 200)
    ml = np.bincount(lab.ravel(), minlength=n + 1) * voxel_ml
    ml[0] = 0
    mask = (ml >= 1.0)[lab]
    truth = (reference > 0) & (reference <= max(MODEL_LABELS))
    return round(float(2 * (mask & truth).sum() / (mask.sum() + truth.sum())), 3)


def averaged(ct: sitk.Image, n: int) -> sitk.Image:
    """The scan with every ``n`` slices made one (a rest at the top is dropped): as if stored in thicker slices."""
    hu = sitk.GetArrayViewFromImage(ct)
    few = len(hu) // n
    thick = sitk.GetImageFromArray(hu[: few * n].reshape(few, n, *hu.shape[1:]).mean(axis=1).astype(np.int16))
    spacing, origin = list(ct.GetSpacing()), list(ct.GetOrigin())
    origin[2] += 0.5 * (n - 1) * spacing[2]
    spacing[2] *= n
    thick.SetSpacing(spacing)
    thick.SetOrigin(origin)
    return thick


def one(folder: Path, study: str, with_baseline: bool, thick: int = 1, joints: Sequence[float] = ()) -> dict:
    """Measure one study in this process."""
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    start = time.process_time()
    ct = read_ct(folder / "ct" / study)
    read = time.process_time() - start
    labelled = label_bones(averaged(ct, thick) if thick > 1 else ct)
    cpu = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    ours = np.repeat(sitk.GetArrayFromImage(labelled.image), thick, axis=0)
    reference = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "labels" / f"{study}.nii.gz")))[: len(ours)]
    voxel_ml = float(np.prod(ct.GetSpacing())) / 1000
    result = scores(ours, reference, voxel_ml)
    result |= {
        "study": study,
        "cpu_seconds": round(cpu, 1),
        "read_seconds": round(read, 1),
        "steps": dict(labelled.seconds),
        "peak_gb": round(peak, 2),
        "topology": topology(labelled.image),
        "status": {bone(k).name: b.status for k, b in labelled.bones.items()},
        "flags": [f"{f.code} {f.note}" for f in labelled.flags],
    }
    spacing = tuple(float(v) for v in ct.GetSpacing()[::-1])
    result["joints"] = [away_from_joints(ours, reference, mm, spacing) for mm in joints]
    result["spine_if_agreed"] = spine_if_agreed(ours, reference) if joints else {}
    if with_baseline:
        result["baseline_dice"] = baseline(sitk.GetArrayViewFromImage(ct)[: len(ours)], reference, voxel_ml)
    return result


def show(r: dict) -> str:
    """A study's result as a few lines."""
    dice, done = r["dice"], r["status"]
    ribs = {bone(k).name: dice[bone(k).name] for k in RIBS if bone(k).name in dice}
    spine = {bone(k).name: dice[bone(k).name] for k in VERTEBRAE if bone(k).name in dice}
    complete = {n: v for n, v in ribs.items() if done[n] == "complete"}
    wanted = {n: 0 if n.startswith("vertebra") else 2 for n in r["topology"] if done[n] == "complete"}
    wrong = {n: r["topology"][n][1] for n, e in wanted.items() if r["topology"][n][1] != e}
    low = min(complete, key=complete.get) if complete else "-"
    lines = [
        f"{r['study']}: {r['cpu_seconds']} s CPU (read {r['read_seconds']}), {r['peak_gb']} GB peak",
        f"  ribs {np.mean(list(ribs.values())):.3f}, numbered right {sum(v > MIN_DICE for v in ribs.values())} of "
        f"{len(ribs)}, lowest complete {low} {complete.get(low, float('nan')):.3f}",
        f"  sternum {dice.get(bone(STERNUM).name, float('nan')):.3f}, T1-T12 {np.mean(list(spine.values())):.3f}, "
        f"lowest {min(spine, key=spine.get)} {min(spine.values()):.3f}",
        f"  false bone {r['false_bone_ml']} mL, cartilage {r['cartilage_ml']} mL, invented {r['invented']}",
        f"  all bones as one {r['outline_dice']:.3f}; mL rib for vertebra {r['rib_for_vertebra_ml']}, "
        f"vertebra for rib {r['vertebra_for_rib_ml']}, for the next {r['vertebra_for_next_ml']}",
        f"  more than one piece: {[n for n, (p, _) in r['topology'].items() if p > 1]}; "
        f"Euler number wrong in {wrong or 'none'} of {len(wanted)} complete bones",
        f"  flags {r['flags']}",
    ]
    lines[4:4] = [joint_line(j) for j in r["joints"]]
    if r["spine_if_agreed"]:
        lines.insert(4, "  T1-T12 if one kind of difference were the reference's: " + str(r["spine_if_agreed"]))
    if "baseline_dice" in r:
        lines.append(f"  baseline HU > 200 + islands, all bones together: {r['baseline_dice']}")
    return "\n".join(lines)


def main() -> None:
    here = Path(__file__).resolve().parents[1]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("SHAPEMODEL_REAL_CT", here.parent / "shared")
    parser.add_argument("folder", type=Path, nargs="?", default=Path(default))
    parser.add_argument("--study", nargs="*")
    parser.add_argument("--baseline", action="store_true")
    parser.add_argument("--thick", type=int, default=1, metavar="N", help="average every N slices first")
    parser.add_argument(
        "--joints",
        type=float,
        nargs="+",
        default=[],
        metavar="MM",
        help="score also without what is so near to a joint",
    )
    parser.add_argument("--json", type=Path, help="write all results here")
    parser.add_argument("--suite", type=Path, metavar="CSV", help="label the phantom suite, a row a scan in this file")
    parser.add_argument("--people", type=int, default=3, help="people for each case of the suite")
    parser.add_argument("--scans", type=Path, help="keep the suite's scans in this folder, for the next time")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.suite:
        run_suite(args.suite, args.people, scores, args.scans)
        print(summary(read_rows(args.suite)))  # noqa: T201
        return
    if args.one:
        print(json.dumps(one(args.folder, args.one, args.baseline, args.thick, args.joints)))  # noqa: T201
        return
    studies = args.study or sorted(p.name for p in (args.folder / "ct").iterdir() if p.is_dir())
    results = []
    for study in studies:
        command = [sys.executable, __file__, str(args.folder), "--one", study] + ["--baseline"] * args.baseline
        command += ["--thick", str(args.thick)]
        command += ["--joints", *map(str, args.joints)] if args.joints else []
        env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        out = subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout
        results.append(json.loads(out.splitlines()[-1]))
        print(show(results[-1]), flush=True)  # noqa: T201
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
