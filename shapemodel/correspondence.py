"""One subject in template order: where every template vertex lies, what was seen, and how far to trust it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from shapemodel.anatomy import bone as bone_of
from shapemodel.mesh import Mesh, Points
from shapemodel.reasons import Flag, InputError, StudyError

FIELD = "registration"
"""Name of the mesh field that holds the per-bone numbers, as JSON."""


@dataclass(frozen=True)
class BoneFit:
    """How one bone was fitted.

    Attributes
    ----------
    visible_fraction : part of its area that the scan shows (0: the bone is extrapolated)
    residual_mm : mean distance of its visible vertices from the target surface; 0 where nothing is visible
    expected_mm : predicted mean error of the position of its visible vertices, sliding included
    confidence : 0-1, ``1 / (1 + expected_mm / 3)``: one half where the prediction reaches the 3 mm of ``flagged``
    flagged : not to be trusted without a look
    note : why it is flagged
    evidence : the numbers that ``expected_mm`` was computed from, by name (:mod:`shapemodel.registration.confidence`)
    """

    visible_fraction: float
    residual_mm: float
    expected_mm: float
    confidence: float
    flagged: bool = False
    note: str = ""
    evidence: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Registration:
    """A template fitted to one subject.

    Attributes
    ----------
    vertices : (V, 3) mm, LPS, in the subject's frame and the template's order
    visible : (V,) the scan shows this point; elsewhere the vertex is extrapolated from the prior
    residual_mm : (V,) distance from the target surface; 0 where the vertex is not visible
    bones : per-bone numbers by label
    iterations : Gauss-Newton steps taken; ``converged``: the last one moved visible vertices by < 0.1 mm on average
    scale : size of the subject relative to the template (similarity)
    fov : (6,) faces of the scan as given or found, mm, infinite where there is none
    flags : what a reviewer should look at
    """

    vertices: Points
    visible: NDArray[np.bool_]
    residual_mm: NDArray[np.float64]
    bones: Mapping[int, BoneFit]
    iterations: int
    converged: bool
    scale: float
    fov: NDArray[np.float64]
    flags: tuple[Flag, ...] = field(default_factory=tuple)


@dataclass(frozen=True)
class Limits:
    """When a registration is refused: mean residual over visible vertices (mm), least visible part of the area,
    largest part of the bones on the scan whose expected error may exceed ``expected_mm``. Between real people at most
    8 % of the bones are expected to be off by more than 7 mm (48 % by more than 5 mm), between phantom people none."""

    residual_mm: float = 1.0
    visible_fraction: float = 0.25
    expected_mm: float = 7.5
    unsure_fraction: float = 0.5


NOWHERE = 0.5
"""A bone that is not seen, though more than this part of it should be inside the scan, was put in a wrong place."""


def refuse(registration: Registration, *, limits: Limits | None = None, subject: str = "study") -> None:
    """Raise ``StudyError('registration_failed')`` when a registration is outside the limits."""
    limits = limits or Limits()
    if not np.isfinite(registration.vertices).all():
        raise StudyError("registration_failed", f"{subject}: expected finite positions, found NaN; check its surfaces")
    seen = registration.visible
    fraction = float(seen.mean())
    if fraction < limits.visible_fraction:
        raise StudyError(
            "registration_failed",
            f"{subject}: expected {limits.visible_fraction:.0%} of the template on the scan, found {fraction:.0%}; "
            "check the labels and the field of view",
        )
    residual = float(registration.residual_mm[seen].mean())
    if residual > limits.residual_mm:
        raise StudyError(
            "registration_failed",
            f"{subject}: expected a mean distance of {limits.residual_mm} mm or less from the surface, "
            f"found {residual:.2f} mm; check the labels",
        )
    # a bone of which nothing is where it was put, inside the scan, speaks against the fit as one that is seen does
    shown = [
        k for k, b in registration.bones.items() if b.visible_fraction > 0 or b.evidence.get("lost", 0.0) > NOWHERE
    ]
    bad = [k for k in shown if registration.bones[k].expected_mm > limits.expected_mm]
    if len(bad) > limits.unsure_fraction * len(shown):
        names = ", ".join(bone_of(k).name for k in bad[:6])
        raise StudyError(
            "registration_failed",
            f"{subject}: {len(bad)} of {len(shown)} bones are not to be trusted ({names} ...); check the labels",
        )


def to_mesh(registration: Registration, template: Mesh) -> Mesh:
    """The registered template: arrays ``visible``, ``residual_mm``; per-bone numbers in the field ``registration``."""
    if len(registration.vertices) != len(template.vertices):
        raise InputError(
            f"registration of {len(registration.vertices)} vertices: expected the template's {len(template.vertices)}"
        )
    numbers = {
        "bones": {str(k): asdict(b) for k, b in sorted(registration.bones.items())},
        "iterations": registration.iterations,
        "converged": registration.converged,
        "scale": registration.scale,
        "flags": [asdict(f) for f in registration.flags],
    }
    mesh = replace(
        template,
        vertices=registration.vertices,
        fov=registration.fov,
        fields={**template.fields, FIELD: json.dumps(numbers, sort_keys=True)},
    )
    return mesh.with_arrays(visible=registration.visible, residual_mm=registration.residual_mm)


def from_mesh(mesh: Mesh) -> Registration:
    """Read back what :func:`to_mesh` wrote."""
    missing = [k for k in ("visible", "residual_mm") if k not in mesh.arrays]
    if missing or FIELD not in mesh.fields:
        raise InputError(f"registered mesh: expected arrays visible, residual_mm and a field {FIELD}, lacks {missing}")
    numbers = json.loads(str(mesh.fields[FIELD]))
    return Registration(
        vertices=mesh.vertices,
        visible=np.asarray(mesh.arrays["visible"], bool),
        residual_mm=np.asarray(mesh.arrays["residual_mm"], np.float64),
        bones={int(k): BoneFit(**b) for k, b in numbers["bones"].items()},
        iterations=int(numbers["iterations"]),
        converged=bool(numbers["converged"]),
        scale=float(numbers["scale"]),
        fov=np.array([-np.inf, np.inf] * 3) if mesh.fov is None else mesh.fov,
        flags=tuple(Flag(**f) for f in numbers["flags"]),
    )
