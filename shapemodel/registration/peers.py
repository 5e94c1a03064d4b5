"""The reference engines under the interface of :func:`shapemodel.registration.register`: for comparison, not use.

pycpd (Myronenko and Song 2010) whole, in its four forms; biocpd's faster form of it where that is installed;
trimesh's two non-rigid ICPs (Amberg 2007, Sumner and Popovic 2004); and a per-bone Gaussian-process ICP of our own
writing after the recipe of the NAKO rib-cage model (Aicher 2026). Each begins at our own start or at its own, the
centroids laid on each other, so that none is a straw man.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from threadpoolctl import threadpool_limits

from shapemodel.mesh import Mesh, Points
from shapemodel.registration.prepare import Prepared, prepare
from shapemodel.registration.prior import nystrom, spread
from shapemodel.registration.start import check_target, place
from shapemodel.registration.target import sample_target

Form = Literal["rigid", "affine", "deformable", "lowrank"]
Start = Literal["ours", "own"]

CPD_POINTS = 1500
"""Points of template and target that the dense forms see; their cost grows with the product."""

FAST_POINTS = 5000
"""The same for the form whose cost grows with the number alone."""

SAMPLES = 400
"""Target points of each bone."""

GP_NOISE = (5.0, 1.0, 0.25, 0.05)
"""Noise variances (mm2) of the four passes of the GP-ICP, and their iterations."""

GP_ITERATIONS = (15, 20, 25, 30)


def started(
    template: Mesh | Prepared, target: Mesh, *, start: Start = "ours"
) -> tuple[Prepared, NDArray[np.float64], Points]:
    """The prepared template, target samples (B, S, 3; NaN where absent), the template's vertices at the start.

    ``ours`` is the robust labelled similarity; ``own`` lays centroids on each other, all that these methods ask for.
    """
    prepared = template if isinstance(template, Prepared) else prepare(template)
    check_target(target)
    samples = sample_target(target, prepared.labels, SAMPLES)
    points = np.where(samples.present[:, None, None], samples.points, np.nan)
    if start == "ours":
        return prepared, points, place(prepared, samples).inverse(prepared.mesh.vertices)
    y = prepared.mesh.vertices
    return prepared, points, y + np.nanmean(points, axis=(0, 1)) - y.mean(0)


def spread_out(samples: NDArray[np.float64], y: Points, count: int) -> tuple[Points, NDArray[np.int64]]:
    """(count, 3) far-apart target points of all bones, and as many template vertices."""
    own = samples.reshape(-1, 3)
    own = own[np.isfinite(own).all(1)]
    return own[spread(own, count)], spread(y, count)


def carried(y: Points, marks: NDArray[np.int64], shift: Points) -> Points:
    """(V, 3) vertices that follow the shifts (N, 3) of the nearest marks."""
    near, j = cKDTree(y[marks]).query(y, k=4)
    w = 1.0 / (near + 1e-3)
    return np.asarray(y + np.einsum("vk,vkd->vd", w / w.sum(1, keepdims=True), shift[j]))


def coherent_point_drift(
    template: Mesh | Prepared, target: Mesh, *, form: Form = "deformable", start: Start = "ours"
) -> Points:
    """(V, 3) template vertices under pycpd, whole; vertices between its points follow the nearest ones."""
    import pycpd

    with threadpool_limits(limits=1):
        _, samples, y = started(template, target, start=start)
        x, marks = spread_out(samples, y, CPD_POINTS)
        center, size = x.mean(0), float(x.std())
        a, b = (x - center) / size, (y[marks] - center) / size
        common = {"X": a, "Y": b, "max_iterations": 60}
        if form == "rigid":
            engine = pycpd.RigidRegistration(**common)
        elif form == "affine":
            engine = pycpd.AffineRegistration(**common)
        elif form == "deformable":
            engine = pycpd.DeformableRegistration(**common, alpha=2, beta=0.5)
        else:
            engine = pycpd.DeformableRegistration(**common, alpha=2, beta=0.5, low_rank=True, num_eig=150)
        moved = engine.register()[0]
        if form in ("rigid", "affine"):
            return np.asarray(engine.transform_point_cloud((y - center) / size) * size + center)
        return carried(y, marks, size * (moved - b))


def fast_drift(template: Mesh | Prepared, target: Mesh, *, start: Start = "ours") -> Points:
    """(V, 3) vertices under biocpd's low-rank CPD with its sparse E-step, whole; ImportError where not installed."""
    import biocpd

    with threadpool_limits(limits=1):
        _, samples, y = started(template, target, start=start)
        x, marks = spread_out(samples, y, FAST_POINTS)
        center, size = x.mean(0), float(x.std())
        a, b = (x - center) / size, (y[marks] - center) / size
        kernel = {"alpha": 2.0, "beta": 0.5, "num_eig": 150, "low_rank_method": "pivoted_cholesky"}
        engine = biocpd.DeformableRegistration(X=a, Y=b, w=0.1, max_iterations=100, **kernel)
        return carried(y, marks, size * (np.asarray(engine.register()[0], np.float64) - b))


def nonrigid_icp(
    template: Mesh | Prepared, target: Mesh, *, form: Literal["amberg", "sumner"], start: Start = "ours"
) -> Points:
    """(V, 3) vertices under trimesh's non-rigid ICP, whole, with its published settings."""
    import trimesh

    with threadpool_limits(limits=1):
        prepared, _, y = started(template, target, start=start)
        source = trimesh.Trimesh(y, prepared.mesh.faces, process=False)
        goal = trimesh.Trimesh(target.vertices, target.faces, process=False)
        engine = trimesh.registration.nricp_sumner if form == "sumner" else trimesh.registration.nricp_amberg
        return np.asarray(engine(source, goal))


def gp_icp(template: Mesh | Prepared, target: Mesh, *, start: Start = "ours") -> Points:
    """(V, 3) vertices after a per-bone Gaussian-process ICP with nearest points; absent bones stay at the start.

    Its own start lays the centroid of each bone on the target's, as the recipe does.
    """
    with threadpool_limits(limits=1):
        prepared, samples, y = started(template, target, start=start)
        out = y.copy()
        for b in range(len(prepared.labels)):
            if np.isfinite(samples[b]).all():
                ids = np.flatnonzero(prepared.index == b)
                if start == "own":
                    y[ids] += samples[b].mean(0) - y[ids].mean(0)
                out[ids] = _gp_icp_bone(y[ids], samples[b])
    return out


def _gp_icp_bone(y: Points, x: Points) -> Points:
    marks = y[spread(y, 150)]
    basis = nystrom(y, marks, ((60.0, 15.0), (25.0, 5.0)), 80).astype(np.float64)
    tree, now = cKDTree(x), y
    for noise, count in zip(GP_NOISE, GP_ITERATIONS, strict=True):
        for _ in range(count):
            goal = x[tree.query(now)[1]]
            matrix = basis.T @ basis / noise + np.eye(basis.shape[1])
            now = y + basis @ np.linalg.solve(matrix, basis.T @ (goal - y) / noise)
    return now
