"""What a shape says of itself: in the fields of a .vtp, in the header of a deck, on the screen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from shapemodel.fitting import Fit
    from shapemodel.mesh import Mesh
    from shapemodel.model import ShapeModel


def fit_lines(fitted: ShapeModel, found: Fit) -> tuple[str, ...]:
    """What a fit found, as sentences."""
    from shapemodel.query import joint_percentile

    distance = float(np.linalg.norm(found.scores))
    scores = ", ".join(f"{b:+.2f}" for b in found.scores[:5])
    seen = found.mesh.arrays["visible"].astype(bool)
    sd = found.mesh.arrays["sd_mm"]
    hidden = f"{float(sd[~seen].mean()):.1f} mm where not" if (~seen).any() else "nothing was left out"
    return (
        f"scores of the first modes: {scores}; Mahalanobis distance {distance:.2f}: joint percentile "
        f"{joint_percentile(distance, fitted.n_modes):.4g} over {fitted.n_modes} modes",
        f"{found.residual_mm:.2f} mm root mean square from the data; standard deviation "
        f"{float(sd[seen].mean()):.1f} mm on average where there were data, {hidden}"
        + ("" if found.converged else "; the fit had not settled when it was stopped"),
    )


ABOUT = "about"
"""Name of the mesh field that says what a shape is: its title, then the lines of a deck's header."""


def described(mesh: Mesh, fitted: ShapeModel, title: str, notes: Sequence[str] = ()) -> Mesh:
    """The mesh with a field that says what it is, of which model and of whom: it goes with it into every .vtp."""
    text = json.dumps([title, *deck_notes(fitted), *notes])
    return replace(mesh, fields={**mesh.fields, ABOUT: text})


def told(mesh: Mesh) -> tuple[str, tuple[str, ...]]:
    """(title, notes) that :func:`described` left; empty for other meshes."""
    lines = json.loads(str(mesh.fields[ABOUT])) if ABOUT in mesh.fields else [""]
    return str(lines[0]), tuple(map(str, lines[1:]))


def deck_notes(fitted: ShapeModel) -> tuple[str, ...]:
    """What the header of a deck must say of the model: which, how many, whose posture and breath."""
    positions = ", ".join(fitted.metadata.get("positions", [])) or "not recorded"
    lungs = np.asarray(fitted.covariates.get("lung_volume_ml", []), float) / 1000
    lungs = lungs[np.isfinite(lungs)]
    breath = (
        f"lung volume {lungs.mean():.1f} L on average, {lungs.min():.1f} to {lungs.max():.1f} L ({len(lungs)} studies)"
        if len(lungs)
        else "lung volume not recorded"
    )
    return (
        f"{fitted.group} model of {fitted.n_subjects} subjects; model hash {fitted.fingerprint}",
        f"posture: patient positions {positions}; chest CTs are taken lying, not sitting",
        f"breath: {breath}; chest CTs are taken breathed in",
    )
