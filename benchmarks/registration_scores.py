"""Scores of a registration: against truth where it is known, against the target's surface where it is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from registration_cases import Case, only
from scipy.spatial import cKDTree

from shapemodel.correspondence import Registration
from shapemodel.intersections import find_intersections
from shapemodel.mesh import Faces, Mesh, Points, face_normals, vertex_normals
from shapemodel.surfaces import vertex_adjacency

CLEARLY_MM = 1.0
"""A vertex is on the wrong bone when another bone is nearer than its own by more than this."""

APART_MM = 2.0
"""Where the true place is this near to another bone, the nearest bone tells nothing."""

LEAST_VERTICES = 6
"""A bone with fewer visible vertices is not scored."""

SEEN_MM = 2.5
"""Target points nearer to a face of the scan are its lid."""


def errors(case: Case, fitted: Points) -> dict[str, float]:
    """True errors in mm over visible and hidden vertices, the worst rib, flips, wrong bones; NaN counts as failed."""
    off = np.linalg.norm(fitted - case.truth, axis=1)
    seen, bone, faces = case.visible, case.template.bone, case.template.faces
    if not np.isfinite(off).all():
        bad = ("mean", "p95", "hidden", "worst_rib", "worst_rib_label")
        return {**dict.fromkeys(bad, np.inf), "wrong_pct": 100.0, "flips_pct": 100.0}
    ribs = {k: off[seen & (bone == k)].mean() for k in range(1, 25) if (seen & (bone == k)).sum() >= LEAST_VERTICES}
    worst = max(ribs, key=lambda k: ribs[k])
    turned = (face_normals(fitted, faces) * face_normals(case.truth, faces)).sum(1) <= 0
    return {
        "mean": float(off[seen].mean()),
        "p95": float(np.percentile(off[seen], 95)),
        "hidden": float(off[~seen].mean()) if (~seen).any() else np.nan,
        "worst_rib": float(ribs[worst]),
        "worst_rib_label": worst,
        "wrong_pct": 100.0 * wrong_bones(fitted, bone, case.clean, seen & apart(case.truth, bone, case.clean)),
        "flips_pct": 100.0 * float(turned.mean()),
    }


def apart(points: Points, bone: NDArray[np.uint8], target: Mesh) -> NDArray[np.bool_]:
    """(V,) points at least ``APART_MM`` from any other bone of the target."""
    out = np.ones(len(points), dtype=bool)
    for label in np.unique(bone):
        others = target.vertices[target.bone != label]
        own = np.flatnonzero(bone == label)
        out[own] = cKDTree(others).query(points[own], distance_upper_bound=APART_MM)[0] >= APART_MM
    return out


def wrong_bones(points: Points, bone: NDArray[np.uint8], target: Mesh, counted: NDArray[np.bool_]) -> float:
    """Part of the counted points to which another bone of the target is clearly nearer than their own."""
    if not counted.any():
        return 0.0
    distance, j = cKDTree(target.vertices).query(points[counted])
    suspect = np.flatnonzero(target.bone[j] != bone[counted])
    ids, bad = np.flatnonzero(counted), 0
    for label in np.unique(bone[ids[suspect]]):
        own = suspect[bone[ids[suspect]] == label]
        mine = target.vertices[target.bone == label]
        away = cKDTree(mine).query(points[ids[own]])[0] if len(mine) else np.full(len(own), np.inf)
        bad += int((away > distance[own] + CLEARLY_MM).sum())
    return bad / len(ids)


def bone_rows(case: Case, found: Registration) -> list[dict[str, object]]:
    """One row a bone that shows: its true mean error, what was expected of it, and on what evidence."""
    off = np.linalg.norm(found.vertices - case.truth, axis=1)
    rows: list[dict[str, object]] = []
    for label, fit in found.bones.items():
        own = case.visible & (case.template.bone == label)
        if own.sum() >= LEAST_VERTICES:
            head = {"case": case.name, "bone": label, "error": float(off[own].mean()), "expected": fit.expected_mm}
            rows.append({**head, "flagged": int(fit.flagged), **fit.evidence})
    return rows


def surface_distances(points: Points, vertices: Points, faces: Faces) -> NDArray[np.float64]:
    """(n,) mm from points to triangles."""
    import pyvista as pv

    surface = pv.PolyData(vertices, np.column_stack([np.full(len(faces), 3), faces]).ravel())
    _, nearest = surface.find_closest_cell(points, return_closest_point=True)
    return np.asarray(np.linalg.norm(np.reshape(nearest, (-1, 3)) - points, axis=1))


def folded(rest: Points, moved: Points, faces: NDArray[np.int64]) -> float:
    """Part of the triangles that turned over against their surroundings."""
    average = vertex_adjacency(len(rest), faces)

    def leaning(points: Points) -> NDArray[np.float64]:
        around = average @ (average @ vertex_normals(points, faces))
        return np.asarray((face_normals(points, faces) * around[faces].sum(1)).sum(1))

    return float(((leaning(moved) <= 0) & (leaning(rest) > 0)).mean())


def surface_scores(template: Mesh, found: Registration, target: Mesh) -> dict[str, float]:
    """How a registration without known truth lies on its target: distances both ways, wrong bones, flips, cuts."""
    shared = sorted(set(template.labels) & set(target.labels))
    seen = found.visible & np.isin(template.bone, shared)
    moved, goal = template.with_vertices(found.vertices), only(target, shared)
    ahead = surface_distances(found.vertices[seen], goal.vertices, goal.faces)
    points = goal.vertices
    if target.fov is not None:
        low, high = target.fov[0::2] + SEEN_MM, target.fov[1::2] - SEEN_MM
        points = points[((points > low) & (points < high)).all(1)]
    points = points[:: max(1, len(points) // 40000)]
    fitted = only(moved, shared)
    back = surface_distances(points, fitted.vertices, fitted.faces)
    cut, own = (len(find_intersections(m).faces) for m in (moved, template))
    return {
        "visible": float(found.visible.mean()),
        "to_target": float(ahead.mean()),
        "to_template": float(back.mean()),
        "to_template_p95": float(np.percentile(back, 95)),
        "wrong_pct": 100.0 * wrong_bones(found.vertices, template.bone, goal, seen),
        "flips_pct": 100.0 * folded(template.vertices, found.vertices, template.faces),
        "cut_pct": 100.0 * (cut - own) / len(template.faces),
        "flagged": float(sum(b.flagged for b in found.bones.values())),
        "expected_median": float(np.median([b.expected_mm for b in found.bones.values() if b.visible_fraction > 0])),
    }


def there_and_back(
    first: tuple[Mesh, Registration], second: tuple[Mesh, Registration]
) -> tuple[dict[str, float], list[dict[str, object]]]:
    """A->B->A: (template of A, its fit to B) and (template of B, its fit to A); of all, and a row a bone.

    A vertex of A's template goes to B, from there as a point fixed on B's own template back to A. Vertices count
    that both scans show and no prior made.
    """
    from shapemodel.phantom.truth import closest

    (one, to_b), (two, to_a) = first, second
    off, rows = [], []
    own_a, own_b = (~np.asarray(m.arrays["prior"], bool) & f.visible for m, f in ((one, to_b), (two, to_a)))
    for label in sorted(set(one.labels) & set(two.labels)):
        v, f, ids = two.select(label)
        own = np.flatnonzero((one.bone == label) & own_a)
        if not len(own):
            continue
        face, bary, gap = closest(to_b.vertices[own], v, f)
        corner = ids[f[face]]
        back = np.einsum("nk,nkd->nd", bary, to_a.vertices[corner])
        away = np.linalg.norm(back - one.vertices[own], axis=1)[own_b[corner].all(1) & (gap < SEEN_MM)]
        off.append(away)
        if len(away) >= LEAST_VERTICES:
            fit = to_b.bones[label]
            rows.append({"bone": label, "error": float(away.mean()), "expected": fit.expected_mm, **fit.evidence})
    every = np.concatenate(off)
    total = {"there_and_back": float(every.mean()), "there_and_back_p95": float(np.percentile(every, 95))}
    return total, rows


def reset_peak() -> None:
    """Forget the peak memory of this process (Linux)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_mb() -> float:
    """Peak resident memory since :func:`reset_peak`, MB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 1024
