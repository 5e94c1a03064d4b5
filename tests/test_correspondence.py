"""The registration record: exact storage, and refusal outside the limits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shapemodel.correspondence import BoneFit, Limits, Registration, from_mesh, refuse, to_mesh
from shapemodel.mesh import Mesh, join, read_vtp, write_vtp
from shapemodel.reasons import Flag, InputError, StudyError

TETRA = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]]), np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])


@pytest.fixture
def template() -> Mesh:
    return join({3: TETRA, 26: (TETRA[0] + 5, TETRA[1])})


def made(visible: float = 1.0, residual: float = 0.2, flagged: bool = False) -> Registration:
    seen = np.arange(8) < 8 * visible
    bones = {
        k: BoneFit(
            visible, residual, 2 * Limits().expected_mm if flagged else 0.5, 0.9, flagged, "why" if flagged else ""
        )
        for k in (3, 26)
    }
    fov = np.array([-np.inf, np.inf, -np.inf, np.inf, -3.0, 9.0])
    vertices = np.random.default_rng(0).normal(size=(8, 3))
    return Registration(vertices, seen, residual * seen, bones, 31, True, 1.05, fov, (Flag("bone_unsure", 3, "why"),))


def test_comes_back_from_storage_exactly(template: Mesh, tmp_path: Path) -> None:
    fitted = made(0.5)
    back = from_mesh(read_vtp(write_vtp(to_mesh(fitted, template), tmp_path / "r.vtp")))
    assert back.vertices.tobytes() == fitted.vertices.tobytes()
    assert (back.visible == fitted.visible).all()
    assert back.residual_mm == pytest.approx(fitted.residual_mm)
    assert (back.bones, back.iterations, back.converged, back.scale) == (fitted.bones, 31, True, 1.05)
    assert back.flags == fitted.flags
    assert (back.fov == fitted.fov).all()


def test_other_template_and_plain_mesh_are_refused(template: Mesh) -> None:
    with pytest.raises(InputError, match="expected the template's 4"):
        to_mesh(made(), join({3: TETRA}))
    with pytest.raises(InputError, match="visible"):
        from_mesh(template)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (made(visible=0.125), "of the template on the scan"),
        (made(residual=2.0), "from the surface"),
        (made(flagged=True), "not to be trusted"),
    ],
)
def test_outside_the_limits_is_refused_with_its_reason(bad: Registration, why: str) -> None:
    refuse(made())
    with pytest.raises(StudyError, match=why) as refusal:
        refuse(bad, subject="S1")
    assert refusal.value.code == "registration_failed"
