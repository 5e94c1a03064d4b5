"""The reference engines run under the same interface and begin at our start."""

from __future__ import annotations

import numpy as np
import pytest
from cage import cage, warp

from shapemodel.registration import PriorSettings, peers, prepare


@pytest.mark.slow
@pytest.mark.parametrize("form", ["rigid", "affine", "deformable", "lowrank"])
def test_pycpd_runs_whole(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "CPD_POINTS", 200)
    template, dense = cage(), cage(1.3)
    prepared = prepare(template, prior=PriorSettings(nodes=60, rank=20, landmarks=80, fine_rank=10, bone_rank=8))
    moved = peers.coherent_point_drift(prepared, dense.with_vertices(warp(dense.vertices)), form=form)
    assert np.isfinite(moved).all()


@pytest.mark.slow
def test_gp_icp_lands_on_the_surface_but_slides() -> None:
    template, dense = cage(), cage(1.3)
    prepared = prepare(template, prior=PriorSettings(nodes=60, rank=20, landmarks=80, fine_rank=10, bone_rank=8))
    target = dense.with_vertices(warp(dense.vertices))
    before = peers.started(prepared, target)[2]
    moved = peers.gp_icp(prepared, target)
    truth = warp(template.vertices)
    assert np.linalg.norm(moved - truth, axis=1).mean() < np.linalg.norm(before - truth, axis=1).mean()
