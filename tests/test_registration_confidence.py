"""What is expected of a bone's error follows from the evidence, and the evidence from the fit."""

from __future__ import annotations

import numpy as np
import pytest
from cage import SMALL, cage, warp
from test_registration import error, without

from shapemodel.mesh import Mesh
from shapemodel.registration import Prepared, register
from shapemodel.registration.confidence import ABSENT_MM, FLAG_MM, Evidence, evidence, judge
from shapemodel.registration.match import Pairs


def plain(prepared: Prepared, **changed: float) -> Evidence:
    """Evidence of a good fit of every bone, the first one changed."""
    n = len(prepared.labels)
    usual = {"cut": 0.0, "lost": 0.0, "rough": 0.15, "bend": 1.0, "alike": 0.7}
    values = {name: np.full(n, value) for name, value in usual.items()}
    for name, value in changed.items():
        values[name][0] = value
    return Evidence(**values, rib=prepared.labels < 25, low=np.isin(prepared.labels, [9, 10, 11, 21, 22, 23]))


@pytest.mark.parametrize("worse", [{"bend": 8.0}, {"rough": 0.5}, {"cut": 1.0}, {"lost": 0.5}, {"alike": 0.2}])
def test_worse_evidence_raises_what_is_expected(prepared: Prepared, worse: dict[str, float]) -> None:
    seen, residual = np.ones(len(prepared.index), bool), np.zeros(len(prepared.index))
    before, after = (
        judge(prepared, seen, residual, plain(prepared)),
        judge(prepared, seen, residual, plain(prepared, **worse)),
    )
    assert after[1].expected_mm > 1.3 * before[1].expected_mm
    assert after[2] == before[2]
    assert 0 < after[1].confidence < before[1].confidence < 1


def test_a_bone_that_is_not_there_is_never_trusted(prepared: Prepared) -> None:
    seen = prepared.index > 0
    fit = judge(prepared, seen, np.zeros(len(seen)), plain(prepared, cut=1.0))[1]
    assert (fit.expected_mm, fit.flagged, fit.visible_fraction) == (ABSENT_MM, True, 0.0)
    rest = judge(prepared, seen, np.zeros(len(seen)), plain(prepared, cut=0.999, bend=0.0))[1]
    assert (rest.expected_mm, rest.flagged) == (ABSENT_MM, True)  # nor one of which a thousandth is there


def test_bend_is_motion_of_the_bone_s_own_without_its_shift(prepared: Prepared) -> None:
    """A bone-wise shift is no bend; a stretch by s moves points at distance r from the centroid by s r."""
    n, q = len(prepared.labels), prepared.bone.shape[1]
    own = np.zeros((n, q, 3))
    own[0, 0] = 2.0  # the first basis function is the shift
    own[1, 3, 2] = 1.0  # the fourth is the linear map's z, in units of its standard deviation
    nothing = Pairs(
        prepared.nodes, prepared.mesh.vertices[prepared.nodes], np.ones((*prepared.nodes.shape, 3)), prepared.weight
    )
    seen = np.ones(len(prepared.index), bool)
    seen[prepared.index == 2] = False
    found = evidence(prepared, own, prepared.mesh.vertices, nothing, prepared.weight, seen, np.full(n, 0.5))
    z = prepared.mesh.vertices[prepared.nodes[1], 2]
    expected = prepared.prior.bone_linear * np.abs(z - z[prepared.weight[1] > 0].mean())[prepared.weight[1] > 0].mean()
    assert found.bend[0] == pytest.approx(0.0, abs=1e-5)
    assert found.bend[1] == pytest.approx(expected, rel=0.02)
    assert found.rough == pytest.approx(0.0)
    assert found.cut == pytest.approx((np.arange(n) == 2).astype(float))
    assert found.lost == pytest.approx((np.arange(n) == 2).astype(float))
    assert prepared.labels[found.low].tolist() == [k for k in prepared.labels if k in (9, 10, 11, 21, 22, 23)]


def test_other_bones_than_the_template_s_are_expected_to_be_worse(prepared: Prepared, target: Mesh) -> None:
    """Ribs 4-6 of another person: their middle is shifted 15 mm along themselves, which no surface shows."""
    dense = cage(1.7)
    v, bone = dense.vertices.copy(), dense.bone
    for label in (4, 5, 6):
        own = bone == label
        arc = v[own, 1] - v[own, 1].min()
        v[own, 2] += 25.0 * np.sin(2 * np.pi * arc / np.ptp(arc))
    same = register(prepared, target, settings=SMALL)
    other = register(prepared, dense.with_vertices(warp(v)), settings=SMALL)
    for label in (4, 5, 6):
        assert other.bones[label].expected_mm > 1.2 * same.bones[label].expected_mm
        assert other.bones[label].flagged
        assert other.bones[label].evidence["bend"] > same.bones[label].evidence["bend"]


def test_vertebrae_are_expected_to_be_better_than_ribs(prepared: Prepared, target: Mesh) -> None:
    fitted = register(prepared, without(target, 6), settings=SMALL)
    off = error(fitted.vertices, prepared.mesh)
    kinds = {k: (prepared.mesh.bone > 25) == (k == "spine") for k in ("spine", "ribs")}
    expected = {
        k: np.median([b.expected_mm for j, b in fitted.bones.items() if (j > 25) == (k == "spine")]) for k in kinds
    }
    assert expected["spine"] < expected["ribs"]
    assert off[kinds["spine"]].mean() < off[kinds["ribs"]].mean()
    assert fitted.bones[6].expected_mm > FLAG_MM
    assert fitted.bones[6].flagged
    assert "0% of the bone" in fitted.bones[6].note
