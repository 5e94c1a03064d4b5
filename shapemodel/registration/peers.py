"""The reference engines under the interface of :func:`shapemodel.registration.register`: for comparison, not use.

pycpd (Myronenko and Song 2010) whole, in its four forms; and a per-bone Gaussian-process ICP of our own writing
after the recipe of the NAKO rib-cage model (Aicher 2026). All begin at our own start, so that none is a straw man.
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

CPD_POINTS = 1500
"""Points of template and target that the dense forms see; their cost grows with the product."""

GP_NOISE = (5.0, 1.0, 0.25, 0.05)
"""Noise variances (mm2) of the four passes of the GP-ICP, and their iterations."""

GP_ITERATIONS = (15, 20, 25, 30)


def started(template: Mesh | Prepared, target: Mesh) -> tuple[Prepared, NDArray, Points]:
    """The prepared template, target samples (B, S, 3) and the template's vertices placed by our own start."""
    prepared = template if isinstance(template, Prepared) else prepare(template)
    check_target(target)
    samples = sample_target(target, prepared.labels, 400)
    fit = place(prepared, samples)
    points = np.where(samples.present[:, None, None], samples.points, np.nan)
    return prepared, points, fit.inverse(prepared.mesh.vertices)


def coherent_point_drift(template: Mesh | Prepared, target: Mesh, *, form: Form = "deformable") -> Points:
    """(V, 3) template vertices under pycpd, whole; vertices between its points follow the nearest ones."""
    import pycpd

    with threadpool_limits(limits=1):
        prepared, samples, y = started(template, target)
        own = samples.reshape(-1, 3)
        own = own[np.isfinite(own).all(1)]
        x = own[spread(own, CPD_POINTS)]
        marks = spread(y, CPD_POINTS)
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
        near, j = cKDTree(y[marks]).query(y, k=4)
        w = 1.0 / (near + 1e-3)
        shift = size * (moved - b)
        return y + np.einsum("vk,vkd->vd", w / w.sum(1, keepdims=True), shift[j])


def gp_icp(template: Mesh | Prepared, target: Mesh) -> Points:
    """(V, 3) vertices after a per-bone Gaussian-process ICP with nearest points; absent bones stay at the start."""
    with threadpool_limits(limits=1):
        prepared, samples, y = started(template, target)
        out = y.copy()
        for b in range(len(prepared.labels)):
            if np.isfinite(samples[b]).all():
                ids = np.flatnonzero(prepared.index == b)
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
