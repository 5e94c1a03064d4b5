"""Ours and its peers on the same truth: a table of true correspondence errors.

    python benchmarks/registration.py --phantom 4 --out registration.csv
    python benchmarks/registration.py --template normal001.npz --cases cases/*.npz --size 30000

Truth comes from phantom subjects against each other (made here), or from files with the arrays
``V_n F_n L_n`` (template) and ``X XF XL fov G_n vis_n`` (target, true positions, what is visible).
Methods: ours, pycpd in four forms and a per-bone GP-ICP (from our start), trimesh's two non-rigid ICPs.
"""

from __future__ import annotations

import argparse
import csv
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from shapemodel.mesh import Mesh, face_normals
from shapemodel.registration import Prepared, peers, prepare, register

Method = Callable[[Prepared, Mesh], NDArray]


@dataclass(frozen=True)
class Case:
    """A target with the true position (V, 3) of each template vertex and whether it is visible (V,)."""

    name: str
    template: Mesh
    target: Mesh
    truth: NDArray
    visible: NDArray


def stored(template: Path, files: list[Path], size: int) -> Iterator[Case]:
    """Cases from files."""
    t = np.load(template)
    mesh = Mesh(t[f"V_{size}"], t[f"F_{size}"], t[f"L_{size}"])
    for path in files:
        c = np.load(path)
        fov = np.array([-np.inf, np.inf, -np.inf, np.inf, *c["fov"]])
        name = f"{template.stem}/{path.stem}"
        yield Case(name, mesh, Mesh(c["X"], c["XF"], c["XL"], fov), c[f"G_{size}"], c[f"vis_{size}"])


def thinned(vertices: NDArray, faces: NDArray, keep: float) -> tuple[NDArray, NDArray]:
    """A bone with this part of its triangles."""
    import pyvista as pv

    cells = np.column_stack([np.full(len(faces), 3), faces]).ravel()
    small = pv.PolyData(vertices, cells).decimate(1.0 - keep, volume_preservation=True).clean()
    return np.asarray(small.points, np.float64), np.asarray(small.faces).reshape(-1, 4)[:, 1:]


def phantoms(count: int, seed: int, keep: float) -> Iterator[Case]:
    """Phantom subjects, every one against the mean subject: the target's surface is noisy and cut in every second."""
    from shapemodel.mesh import join
    from shapemodel.phantom.shape import surface
    from shapemodel.phantom.subject import draw_population, mean_subject
    from shapemodel.phantom.truth import locate, material

    mean = mean_subject()
    whole = surface(mean)
    template = join({k: thinned(*whole.select(k)[:2], keep) for k in whole.labels})
    points = material(mean, template.vertices, template.bone)
    for i, subject in enumerate(draw_population((count + 1) // 2, count // 2, seed)):
        truth, target = locate(subject, points), surface(subject)
        noise = np.random.default_rng(i).normal(0, 0.2, target.vertices.shape)
        target = target.with_vertices(target.vertices + noise)
        low = float(np.quantile(target.vertices[:, 2], 0.15)) if i % 2 else -np.inf
        shown = (target.vertices[target.faces][:, :, 2] > low).all(1)
        fov = np.array([-np.inf, np.inf, -np.inf, np.inf, low, np.inf])
        target = Mesh(target.vertices, target.faces[shown], target.bone, fov)
        yield Case(f"phantom/{i}", template, target, truth, truth[:, 2] > low)


def trimesh_nricp(form: str, prepared: Prepared, target: Mesh) -> NDArray:
    """trimesh's non-rigid ICP, whole, from our start."""
    import trimesh

    _, _, y = peers.started(prepared, target)
    source = trimesh.Trimesh(y, prepared.mesh.faces, process=False)
    goal = trimesh.Trimesh(target.vertices, target.faces, process=False)
    engine = trimesh.registration.nricp_sumner if form == "sumner" else trimesh.registration.nricp_amberg
    return np.asarray(engine(source, goal))


def ours(prepared: Prepared, target: Mesh) -> NDArray:
    """The shipped engine."""
    return register(prepared, target).vertices


METHODS: dict[str, Method] = {
    "ours": ours,
    "start": lambda p, t: peers.started(p, t)[2],
    "gp_icp": peers.gp_icp,
    "pycpd_rigid": partial(peers.coherent_point_drift, form="rigid"),
    "pycpd_affine": partial(peers.coherent_point_drift, form="affine"),
    "pycpd_deformable": partial(peers.coherent_point_drift, form="deformable"),
    "pycpd_lowrank": partial(peers.coherent_point_drift, form="lowrank"),
    "nricp_sumner": partial(trimesh_nricp, "sumner"),
    "nricp_amberg": partial(trimesh_nricp, "amberg"),
}


def scored(case: Case, fitted: NDArray) -> dict[str, float]:
    """True errors in mm over visible and hidden vertices, the worst rib, flipped faces; NaN counts as failed."""
    off = np.linalg.norm(fitted - case.truth, axis=1)
    seen, bone, faces = case.visible, case.template.bone, case.template.faces
    if not np.isfinite(off).all():
        return {"mean": np.inf, "p95": np.inf, "hidden": np.inf, "worst_rib": np.inf, "flips_pct": 100.0}
    ribs = [off[seen & (bone == k)].mean() for k in range(1, 25) if (seen & (bone == k)).sum() > 5]
    turned = (face_normals(fitted, faces) * face_normals(case.truth, faces)).sum(1) <= 0
    return {
        "mean": float(off[seen].mean()),
        "p95": float(np.percentile(off[seen], 95)),
        "hidden": float(off[~seen].mean()) if (~seen).any() else 0.0,
        "worst_rib": float(max(ribs)),
        "flips_pct": 100.0 * float(turned.mean()),
    }


def trusted(case: Case, prepared: Prepared) -> dict[str, float]:
    """What our own result says of itself, against truth: agreement of visible, rank correlation, flags."""
    r = register(prepared, case.target)
    off = np.linalg.norm(r.vertices - case.truth, axis=1)
    rows = [
        (off[own].mean(), r.bones[k].expected_mm, r.bones[k].flagged)
        for k in r.bones
        if (own := case.visible & (case.template.bone == k)).sum() > 5
    ]
    error, expected, flagged = (np.array(c) for c in zip(*rows, strict=True))
    bad = error > 3.0
    return {
        "visible_agree_pct": 100.0 * float((r.visible == case.visible).mean()),
        "spearman": float(spearmanr(error, expected)[0]),
        "bones_over_3mm": int(bad.sum()),
        "of_them_flagged": int((bad & flagged).sum()),
    }


def main() -> None:
    """Run the methods over the cases, one row each, and append medians."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--phantom", type=int, default=0, help="number of phantom subjects")
    p.add_argument("--seed", type=int, default=7)
    p.add_argument("--keep", type=float, default=0.25, help="part of the phantom's triangles that its template keeps")
    p.add_argument("--template", type=Path)
    p.add_argument("--cases", type=Path, nargs="*", default=[])
    p.add_argument("--size", type=int, default=30000)
    p.add_argument("--methods", default="ours,start,gp_icp,pycpd_rigid,pycpd_affine,pycpd_lowrank")
    p.add_argument("--out", type=Path, default=Path("registration.csv"))
    o = p.parse_args()
    cases = [*phantoms(o.phantom, o.seed, o.keep)] if o.phantom else []
    if o.template:
        cases += stored(o.template, o.cases, o.size)
    rows, prepared = [], {}
    for case in cases:
        if id(case.template) not in prepared:
            prepared[id(case.template)] = prepare(case.template)
        ready = prepared[id(case.template)]
        for name in o.methods.split(","):
            began = time.process_time()
            fitted = METHODS[name](ready, case.target)
            row = {"case": case.name, "method": name, **scored(case, fitted)}
            row["cpu_s"] = time.process_time() - began
            row["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            if name == "ours":
                row |= trusted(case, ready)
            rows.append(row)
            sys.stdout.write(
                " ".join(f"{k}={v:.3g}" if isinstance(v, float) else str(v) for k, v in row.items()) + "\n"
            )
            sys.stdout.flush()
    for name in o.methods.split(","):
        own = [r for r in rows if r["method"] == name]
        keys = [k for k in own[0] if k not in ("case", "method")] if own else []
        rows.append({"case": "median", "method": name, **{k: float(np.median([r[k] for r in own])) for k in keys}})
    with o.out.open("w", newline="") as f:
        writer = csv.DictWriter(f, list(dict.fromkeys(k for r in rows for k in r)))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
