"""What label maps and files do to a registration: each is survived, or refused with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from cage import SMALL, rib_path, tube, warp
from test_registration import error, joined, lump_of, without

from shapemodel.correspondence import Registration, refuse
from shapemodel.mesh import Mesh, face_normals, join
from shapemodel.reasons import StudyError
from shapemodel.registration import Prepared
from shapemodel.registration import register as register_fully
from shapemodel.registration.prepare import sound
from shapemodel.registration.target import open_vertices

FAIR_MM = 1.6
"""Mean error of an undisturbed subject under these settings (see test_registration)."""


def fit(prepared: Prepared, target: Mesh) -> Registration:
    return register_fully(prepared, target, settings=SMALL)


def outcome(prepared: Prepared, target: Mesh) -> tuple[str, Registration | None]:
    """The code of the refusal, or nothing and the registration."""
    try:
        fitted = fit(prepared, target)
        refuse(fitted)
    except StudyError as refusal:
        return refusal.code, None
    return "", fitted


def test_eleven_pairs(prepared: Prepared, target: Mesh) -> None:
    fitted = fit(prepared, without(without(target, 12), 24))
    refuse(fitted)
    off, bone = error(fitted.vertices, prepared.mesh), prepared.mesh.bone
    assert off[~np.isin(bone, (12, 24))].mean() < FAIR_MM
    assert {f.bone for f in fitted.flags if f.code == "bone_absent"} == {12, 24}
    assert not fitted.visible[np.isin(bone, (12, 24))].any()


def test_thirteen_pairs(prepared: Prepared, target: Mesh) -> None:
    """A lumbar rib has a label that is no bone of the model: it changes nothing, and marks nothing as seen."""
    s = np.full((20, 2), 4.0)
    lumbar = tube(rib_path(13, 1.0, 40)[:20], s, 10)
    parts = {k: target.select(k)[:2] for k in target.labels}
    fitted = fit(prepared, join({**parts, 40: (warp(lumbar[0]), lumbar[1])}))
    alone = fit(prepared, join(parts))
    assert np.abs(fitted.vertices - alone.vertices).max() < 0.01
    assert (fitted.visible == alone.visible).mean() > 0.999


def test_numbers_one_off_are_flagged_or_refused(prepared: Prepared, target: Mesh) -> None:
    """The first pair was missed and every rib has the number of the one above, as when a scan starts below it."""
    bone = target.bone.copy()
    ribs = (bone <= 24) & ~np.isin(bone, (1, 13))
    bone[ribs] -= 1
    bone[np.isin(target.bone, (1, 13))] = 40
    code, fitted = outcome(prepared, replace(target, bone=bone))
    assert code in ("", "registration_failed", "bad_labels")
    if fitted:
        flagged = {k for k, b in fitted.bones.items() if b.flagged and k <= 24}
        assert len(flagged) >= 12


def test_ribs_in_random_order_are_refused(prepared: Prepared, target: Mesh) -> None:
    """Little of them is found where they are put, and no low residual of the rest may hide it."""
    order = np.arange(256)
    order[1:25] = np.random.default_rng(0).permutation(order[1:25])
    code, _ = outcome(prepared, replace(target, bone=order[target.bone].astype(np.uint8)))
    assert code in ("registration_failed", "bad_labels", "mirrored")


@pytest.mark.parametrize("left", [0, 1, 10], ids=["no triangle", "one triangle", "ten triangles"])
def test_empty_bone_counts_as_absent(prepared: Prepared, target: Mesh, left: int) -> None:
    own = target.bone[target.faces[:, 0]] == 6
    faces = np.vstack([target.faces[~own], target.faces[own][:left]])
    fitted = fit(prepared, replace(target, faces=faces))
    mine = prepared.mesh.bone == 6
    assert error(fitted.vertices, prepared.mesh)[~mine].mean() < FAIR_MM
    assert fitted.bones[6].visible_fraction < 0.05
    assert np.isfinite(fitted.vertices).all()


def test_triangles_that_hang_on_a_surface_make_no_rim() -> None:
    v, f = tube(rib_path(5, 1.0, 20), np.full((20, 2), 4.0), 10)
    fins = np.column_stack([f[10:20, 0], f[10:20, 1], f[60:70, 2]])
    assert not open_vertices(np.vstack([f, f[30:35], fins]), len(v)).any()
    holed = open_vertices(np.vstack([np.delete(f, 100, axis=0), f[30:35], fins]), len(v))
    assert set(np.flatnonzero(holed)) == set(f[100].tolist())  # a hole is one all the same


def test_flat_and_doubled_triangles_are_survived(prepared: Prepared, target: Mesh) -> None:
    """Triangles that are edges, triangles twice, edges with three triangles, vertices that no triangle uses."""
    f = target.faces
    flat, fins = f[::40][:, [0, 1, 1]], np.column_stack([f[:-1:60, 0], f[:-1:60, 1], f[1::60, 2]])
    broken = Mesh(
        np.vstack([target.vertices, target.vertices[:50] + 400.0]),
        np.vstack([f, flat, f[::45], fins[target.bone[fins[:, 2]] == target.bone[fins[:, 0]]]]),
        np.concatenate([target.bone, target.bone[:50]]),
    )
    assert error(fit(prepared, broken).vertices, prepared.mesh).mean() < FAIR_MM


def test_triangles_that_share_no_vertices_are_joined(prepared: Prepared, target: Mesh) -> None:
    """As an STL has them: every edge would be the rim of a hole."""
    corners = target.faces.ravel()
    soup = Mesh(target.vertices[corners], np.arange(len(corners)).reshape(-1, 3), target.bone[corners])
    assert len(sound(soup).vertices) == len(target.vertices)
    assert error(fit(prepared, soup).vertices, prepared.mesh).mean() < FAIR_MM
    assert sound(target) is target


@pytest.mark.parametrize("bones", [range(1, 38), (3, 7, 25, 30)], ids=["all", "four"])
def test_surfaces_turned_inside_out_are_turned_back(prepared: Prepared, target: Mesh, bones: Sequence[int]) -> None:
    inward = np.isin(target.bone[target.faces[:, 0]], bones)
    turned = replace(target, faces=np.where(inward[:, None], target.faces[:, ::-1], target.faces))
    assert (np.sort(sound(turned).faces) == np.sort(target.faces)).all()
    code, fitted = outcome(prepared, turned)
    assert not code
    assert fitted is not None
    assert error(fitted.vertices, prepared.mesh).mean() < FAIR_MM


def test_pieces_are_turned_back_each_by_itself() -> None:
    """The root of a rib that the scan cuts, a lump of cartilage 90 mm away that is turned inside out, and a cavity,
    whose normals point into it: from the middle of all three the root seemed inside out, and was fitted so."""
    root, lump = lump_of((12.0, 6.0, 6.0), (0.0, 0.0, 0.0)), lump_of((7.0, 7.0, 7.0), (90.0, 0.0, 0.0))
    shown = root[0], root[1][(root[0][root[1]][:, :, 0] > 0).all(1)]
    hollow = lump_of((3.0, 2.0, 2.0), (6.0, 0.0, 0.0))
    cavity = hollow[0], hollow[1][:, ::-1]
    right = join({11: joined(joined(shown, cavity), lump)})
    mixed = join({11: joined(joined(shown, cavity), (lump[0], lump[1][:, ::-1]))})
    normals = [face_normals(m.vertices, m.faces) for m in (right, sound(right), sound(mixed))]
    np.testing.assert_allclose(normals[1], normals[0])
    np.testing.assert_allclose(normals[2], normals[0])


def test_one_side_alone_is_survived_or_refused(prepared: Prepared, target: Mesh) -> None:
    """All right ribs are missing: the left ones keep their places, the others are marked as not seen."""
    kept = {k: target.select(k)[:2] for k in target.labels if not 13 <= k <= 24}
    fitted = fit(prepared, join(kept))
    bone = prepared.mesh.bone
    right = (bone >= 13) & (bone <= 24)
    assert error(fitted.vertices, prepared.mesh)[~right].mean() < 1.5 * FAIR_MM
    assert fitted.visible[right].mean() < 0.05
