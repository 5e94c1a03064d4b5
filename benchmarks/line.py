"""What the whole line leaves: distances of the registered template, errors against the phantoms' truth, peak memory.

    python benchmarks/line.py distance STUDY_FOLDER     # of a finished run: registered template <-> labelled surfaces
    python benchmarks/line.py truth DEMO_FOLDER         # of a finished demo: true error by study and by bone
    python benchmarks/line.py boundary DEMO_FOLDER      # of a finished demo: labelled surfaces <-> true bones, by kind
    python benchmarks/line.py memory COMMAND ...        # runs the command; peak memory of all its processes together

Distances are from points to surfaces, bone by bone: from visible vertices of the registered template to the
surfaces, and from 1,500 vertices a bone of the surfaces, 2.5 mm or more inside the scan, to the template; the
symmetric distance is the mean of both means. Memory is the sum of proportional set sizes, sampled once a second.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import psutil
from registration_scores import surface_distances

from pipelines.score import true_places
from shapemodel.anatomy import bone
from shapemodel.mesh import Mesh, read_vtp
from shapemodel.phantom.cohort import read_truth
from shapemodel.phantom.truth import material

SAMPLES = 1500
INSIDE_MM = 2.5
WORST = 6
"""Bones that are named for each study."""


def say(text: str) -> None:
    """One line for the reader."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def distances(registered: Mesh, bones: Mesh) -> tuple[float, float]:
    """Mean mm from the registered template to the surfaces on seen parts, and back."""
    rng = np.random.default_rng(0)
    visible = np.asarray(registered.arrays["visible"], bool)
    there, back = [np.zeros(0)], [np.zeros(0)]
    for k in bones.labels:
        v, f, ids = registered.select(k)
        x, g, _ = bones.select(k)
        if not len(v):
            continue
        if visible[ids].any():
            there.append(surface_distances(v[visible[ids]], x, g))
        own = x[rng.permutation(len(x))[:SAMPLES]]
        if bones.fov is not None:
            own = own[((own > bones.fov[0::2] + INSIDE_MM) & (own < bones.fov[1::2] - INSIDE_MM)).all(axis=1)]
        if len(own):
            back.append(surface_distances(own, v, f))
    return float(np.concatenate(there).mean()), float(np.concatenate(back).mean())


def distance(folder: Path) -> None:
    for path in sorted(folder.glob("studies/*/registered.vtp")):
        mesh = read_vtp(path)
        there, back = distances(mesh, read_vtp(path.with_name("bones.vtp")))
        seen = 100 * float(np.mean(mesh.arrays["visible"]))
        say(
            f"{path.parent.name}: template -> surfaces {there:.2f} mm, back {back:.2f} mm, "
            f"symmetric {(there + back) / 2:.2f} mm, {seen:.0f} % visible"
        )


def truth(folder: Path) -> None:
    paths = sorted((folder / "study").glob("studies/*/registered.vtp"))
    names, meshes = [p.parent.name for p in paths], [read_vtp(p) for p in paths]
    truths = [read_truth(folder / "truth" / n / "bones.vtp") for n in names]
    places = true_places(meshes, truths)
    label, table = meshes[0].bone, []
    for i, (name, mesh, true) in enumerate(zip(names, meshes, truths, strict=True)):
        error, seen = np.linalg.norm(mesh.vertices - places.scanned[i], axis=1), places.seen[i]
        own = (mesh.vertices - true.pose[:3, 3]) @ true.pose[:3, :3]
        surface = material(true.subject, own, label).distance
        per = np.array(
            [error[(label == k) & seen].mean() if ((label == k) & seen).any() else np.nan for k in range(38)]
        )
        table.append(per)
        order = [int(k) for k in np.argsort(-np.nan_to_num(per))[:WORST]]
        agree = 100 * float((np.asarray(mesh.arrays["visible"], bool) == seen).mean())
        ribs, spine = np.nanmean(per[1:25]), np.nanmean(per[26:])
        say(
            f"{name}: {error[seen].mean():.2f} mm (ribs {ribs:.2f}, sternum {per[25]:.2f}, vertebrae {spine:.2f}), "
            f"off the true surface {surface[seen].mean():.2f}, visible agrees {agree:.1f} %; "
            + ", ".join(f"{bone(k).name} {per[k]:.1f}" for k in order)
        )
    mean = np.nanmean(np.array(table)[:, 1:], axis=0)
    say("mean by bone: " + ", ".join(f"{bone(k).name} {e:.1f}" for k, e in enumerate(mean, start=1)))


def boundary(folder: Path) -> None:
    """Root mean square distance between the surfaces of automatic labels and the true bones, both ways, by kind."""
    rng, found = np.random.default_rng(0), {}
    for path in sorted((folder / "study").glob("studies/*/bones.vtp")):
        ours, true = read_vtp(path), read_truth(folder / "truth" / path.parent.name / "bones.vtp").bones
        for k in sorted(set(ours.labels) & set(true.labels)):
            for one, other in ((ours, true), (true, ours)):
                points = one.select(k)[0]
                points = points[rng.permutation(len(points))[:SAMPLES]]
                if ours.fov is not None:
                    low, high = ours.fov[0::2] + INSIDE_MM, ours.fov[1::2] - INSIDE_MM
                    points = points[((points > low) & (points < high)).all(axis=1)]
                if len(points):
                    v, f, _ = other.select(k)
                    found.setdefault(bone(k).kind, []).append(surface_distances(points, v, f))
    for kind, distances_ in found.items():
        d = np.concatenate(distances_)
        rms, away = np.sqrt((d**2).mean()), np.quantile(d, 0.95)
        say(f"{kind}: root mean square {rms:.2f} mm, mean {d.mean():.2f} mm, 95th percentile {away:.2f} mm")


def memory(command: list[str]) -> int:
    start, peak = time.monotonic(), 0
    process = psutil.Popen(command)
    while process.poll() is None:
        total = 0
        for one in [process, *process.children(recursive=True)]:
            try:
                total += one.memory_full_info().pss
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue  # it ended between the listing and the look
        peak = max(peak, total)
        time.sleep(1.0)
    say(f"peak {peak / 1e9:.2f} GB over all processes, {time.monotonic() - start:.0f} s")
    return int(process.returncode)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("distance", "truth", "boundary", "memory"))
    parser.add_argument("rest", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    if args.what == "memory":
        return memory(args.rest)
    {"distance": distance, "truth": truth, "boundary": boundary}[args.what](Path(args.rest[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
