"""The finite-element deck of a thorax, before any solver's spelling: nodes, shells, parts, sets, one numbering.

Node and element numbers are ``label * 100,000 + 1, 2, 3 ...`` in the order of the bone's vertices and faces, so
they depend on the template alone: every mean, percentile and sample of a model has the same ones, also when a
single bone is written. The shell's nodes lie on the outer surface of the bone; sections say so, and the solver
puts the thickness inwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from shapemodel.anatomy import BONES, bone
from shapemodel.mesh import Mesh
from shapemodel.reasons import InputError

Units = Literal["mm-kg-ms", "mm-t-s"]

NUMBERS_A_BONE = 100_000
"""Room for node and element numbers of one bone; label 37 stays below the 8 digits of fixed-format decks."""

DEFAULT_THICKNESS_MM: Mapping[str, float] = {"rib": 0.75, "sternum": 0.75, "vertebra": 0.53}
"""Cortical thickness by kind of bone: ribs and sternum inside the 0.7-1.2 mm usual in body models; vertebrae the
0.53 mm of the VIVA+ thorax. Replace it by a per-vertex array ``thickness_mm`` where it is known."""

ORIGINS = ("observed", "extrapolated", "prior")
"""Meaning of the values 0, 1, 2 of the point array ``origin``."""


@dataclass(frozen=True)
class Material:
    """Cortical bone, in SI base units; the numbers of the VIVA+ rib cortex (density and Poisson ratio: usual)."""

    young_pa: float = 14.7e9
    poisson: float = 0.3
    density_kg_m3: float = 2000.0
    yield_pa: float = 100.7e6
    tangent_pa: float = 1.94e9

    def stress(self, pascal: float, units: Units) -> float:
        """Pascal in the deck's stress unit: GPa for mm-kg-ms, MPa for mm-t-s."""
        return pascal * (1e-9 if units == "mm-kg-ms" else 1e-6)

    def density(self, units: Units) -> float:
        """kg/mm3 for mm-kg-ms, t/mm3 for mm-t-s."""
        return self.density_kg_m3 * (1e-9 if units == "mm-kg-ms" else 1e-12)


@dataclass(frozen=True)
class DeckInfo:
    """What the header of a deck says.

    Attributes
    ----------
    title : what the shape is, e.g. ``female mean``
    notes : further header lines: posture, breath, number of subjects, model hash, percentile, warnings
    units : ``mm-kg-ms`` (kN, GPa) or ``mm-t-s`` (N, MPa)
    material : cortical bone of every part
    """

    title: str = "skeletal thorax"
    notes: tuple[str, ...] = ()
    units: Units = "mm-kg-ms"
    material: Material = field(default_factory=Material)

    def header(self, elements: str) -> list[str]:
        """Lines for the comment at the top of a deck; ``elements`` says how its elements are meant."""
        force = "kN, GPa" if self.units == "mm-kg-ms" else "N, MPa"
        return [
            f"shapemodel: {self.title}",
            f"units {self.units} ({force}); frame LPS: x to the patient's left, y to the back, z to the head",
            elements,
            *self.notes,
        ]


@dataclass(frozen=True)
class Part:
    """One bone of the deck: its part (and section) number, name and shell thickness in mm."""

    label: int
    pid: int
    name: str
    thickness_mm: float


@dataclass(frozen=True)
class Deck:
    """Numbered nodes, three-node shells, parts and named sets of one shape.

    Attributes
    ----------
    node_ids : (V,) ; nodes : (V, 3) mm, LPS
    element_ids : (F,) ; elements : (F, 3) node numbers, outward normals ; element_pid : (F,)
    thickness_mm : (F, 3) thickness at the corners, or None when each part has one
    node_sets : node numbers by set name
    """

    info: DeckInfo
    parts: tuple[Part, ...]
    node_ids: NDArray[np.int64]
    nodes: NDArray[np.float64]
    element_ids: NDArray[np.int64]
    elements: NDArray[np.int64]
    element_pid: NDArray[np.int64]
    thickness_mm: NDArray[np.float64] | None
    node_sets: Mapping[str, NDArray[np.int64]]

    def header(self) -> list[str]:
        """Lines for the comment at the top of a deck."""
        return self.info.header("shell nodes lie on the outer bone surface; the thickness lies inside")

    def groups(self) -> dict[str, list[Part]]:
        """Parts by region, for part sets: ribs left, ribs right, sternum, spine."""
        region = {"rib": "ribs", "sternum": "sternum", "vertebra": "spine"}
        found: dict[str, list[Part]] = {}
        for p in self.parts:
            b = bone(p.label)
            name = f"ribs_{b.side}" if b.kind == "rib" else region[b.kind]
            found.setdefault(name, []).append(p)
        return found


def part_name(label: int) -> str:
    """Part name in the style of the VIVA+ human body model: ``TX-Ribcage-R6-Cortical-L``, ``TX-Spine-T07-...``."""
    b = bone(label)
    if b.kind == "rib":
        return f"TX-Ribcage-R{b.level}-Cortical-{'L' if b.side == 'left' else 'R'}"
    if b.kind == "sternum":
        return "TX-Ribcage-Sternum--Cortical-M"
    return f"TX-Spine-T{b.level:02d}-Cortical-M"


def make_deck(mesh: Mesh, info: DeckInfo | None = None) -> Deck:
    """Number a shape for export.

    Parameters
    ----------
    mesh : surfaces of model bones; the arrays ``thickness_mm`` (V,) and ``origin`` (V,) are used when present

    Raises
    ------
    InputError
        when there is no face, a bone is not of the model, a bone has too many vertices, or a number is not finite
    """
    known = {b.label for b in BONES}
    if not len(mesh.faces) or not set(mesh.labels) <= known:
        raise InputError(f"deck: expected faces of bones 1-37, found {len(mesh.faces)} faces of labels {mesh.labels}")
    if not np.isfinite(mesh.vertices).all():
        raise InputError("deck: expected finite coordinates, found NaN or infinity; fit the shape again")
    face_bone = mesh.bone[mesh.faces[:, 0]]
    thickness = mesh.arrays.get("thickness_mm")
    node_ids, element_ids = numbers(mesh.bone), numbers(face_bone)
    sets = {b.name: node_ids[mesh.bone == b.label] for b in BONES if (mesh.bone == b.label).any()}
    if "origin" in mesh.arrays:
        origin = np.asarray(mesh.arrays["origin"])
        sets |= {f"origin_{name}": node_ids[origin == i] for i, name in enumerate(ORIGINS) if (origin == i).any()}
    return Deck(
        info=info or DeckInfo(),
        parts=tuple(Part(k, _pid(k), part_name(k), DEFAULT_THICKNESS_MM[bone(k).kind]) for k in mesh.labels),
        node_ids=node_ids,
        nodes=mesh.vertices,
        element_ids=element_ids,
        elements=node_ids[mesh.faces],
        element_pid=face_bone.astype(np.int64) * 100 + 1,
        thickness_mm=None if thickness is None else np.asarray(thickness, float)[mesh.faces],
        node_sets=sets,
    )


def _pid(label: int) -> int:
    """Part number: the label and 01 for the cortical shell (02 is free for what fills it)."""
    return label * 100 + 1


def numbers(labels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """``label * 100,000 + 1, 2 ...`` counted within each label, in order of appearance."""
    ids = np.zeros(len(labels), dtype=np.int64)
    for k in np.unique(labels):
        own = labels == k
        if own.sum() >= NUMBERS_A_BONE:
            raise InputError(
                f"deck: {bone(int(k)).name} has {own.sum()} items, expected under {NUMBERS_A_BONE}; remesh"
            )
        ids[own] = int(k) * NUMBERS_A_BONE + 1 + np.arange(own.sum())
    return ids
