"""Mesh quality: the criteria of FE practice by part, named as in Verdict, and the gate that a shape must pass.

References: Stimpson et al., The Verdict Geometric Quality Library, SAND2007-1751 (triangle metrics);
LS-DYNA Theory Manual, time step of shell elements (characteristic length of a triangle: twice the area
over the longest side).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from shapemodel.anatomy import bone
from shapemodel.intersections import DETECTOR, Intersections, find_intersections
from shapemodel.mesh import Faces, Mesh, Points
from shapemodel.surfaces import euler_number, expected_euler

TIME_STEP_FACTOR = 0.9
"""Safety factor on the critical time step, as in explicit solvers' control cards (TSSFAC)."""

SHARE = 99.0
"""Per cent of the elements that must meet the target."""


@dataclass(frozen=True)
class Material:
    """Linear elastic constants for the time step; the default is the cortical bone of VIVA+ (GPa, kg/m3)."""

    name: str = "cortical bone"
    young_gpa: float = 14.7
    density_kg_m3: float = 2000.0
    poisson: float = 0.3

    @property
    def wave_speed(self) -> float:
        """Speed of sound in a shell, m/s (= mm/ms)."""
        return float(np.sqrt(self.young_gpa * 1e9 / (self.density_kg_m3 * (1 - self.poisson**2))))


@dataclass(frozen=True)
class Gate:
    """Limits of a shape: ``hard`` for every element, ``target`` for 99 per cent of them.

    Attributes
    ----------
    name : what kind of shape the limits are for
    min_angle_hard, min_angle_target : degrees, smallest angle of a triangle
    max_angle_hard : degrees, largest angle
    aspect_hard, aspect_target : Verdict aspect ratio
    edge_hard : mm, shortest edge allowed
    topology : whether each bone must have the Euler number of its anatomy
    """

    name: str
    min_angle_hard: float
    min_angle_target: float
    max_angle_hard: float = 140.0
    aspect_hard: float = 3.0
    aspect_target: float = 2.0
    edge_hard: float = 0.5
    topology: bool = False


TEMPLATE_GATE = Gate("template", 26.0, 35.0, 120.0, 2.2, 1.7, topology=True)
"""A mesh fresh from remeshing, whose connectivity every subject inherits."""

SHAPE_GATE = Gate("shape", 18.0, 27.0, 140.0, 3.0, 2.0)
"""Any mean, percentile, sample or subject on the template's connectivity."""


@dataclass(frozen=True)
class PartQuality:
    """Extremes of one part: the worst element, and the 1st or 99th percentile (``_99``)."""

    label: int
    name: str
    n_faces: int
    min_angle: float
    min_angle_99: float
    max_angle: float
    edge_ratio: float
    aspect_ratio: float
    aspect_ratio_99: float
    scaled_jacobian: float
    edge_min_mm: float
    edge_mean_mm: float
    edge_max_mm: float
    time_step_us: float
    beyond_hard_percent: float
    beyond_target_percent: float


@dataclass(frozen=True)
class Verdict:
    """What the gate found: ``failures`` is empty when the shape passes.

    Attributes
    ----------
    gate : the limits
    parts : one row a bone
    whole : the same over all bones
    intersections : the places where triangles cut each other
    failures : sentences with the criterion, the value, the limit and the place
    """

    gate: Gate
    parts: tuple[PartQuality, ...]
    whole: PartQuality
    intersections: Intersections
    failures: tuple[str, ...] = field(default=())
    detector: str = DETECTOR

    @property
    def passed(self) -> bool:
        """Whether every limit is met."""
        return not self.failures


def triangle_metrics(vertices: Points, faces: Faces) -> dict[str, NDArray[np.float64]]:
    """Per-triangle criteria (F,): angles in degrees, lengths in mm.

    ``min_angle``, ``max_angle``, ``edge_ratio`` (longest over shortest), ``aspect_ratio`` (longest edge times
    perimeter over 4 sqrt(3) area), ``scaled_jacobian`` (2/sqrt(3) times the smallest sine; for triangles the
    minimum angle in another form), ``edge_min``, ``edge_max``, ``height_min`` (twice the area over the longest
    edge, the characteristic length of a shell's time step).
    """
    corner = [[x.take(faces[:, k]) for k in range(3)] for x in np.ascontiguousarray(vertices.T)]
    side = [[x[(k + 2) % 3] - x[(k + 1) % 3] for x in corner] for k in range(3)]  # opposite to corner k
    a, b, c = (np.sqrt(x * x + y * y + z * z) for x, y, z in side)
    (px, py, pz), (qx, qy, qz) = side[1], side[2]
    twice = np.sqrt((py * qz - pz * qy) ** 2 + (pz * qx - px * qz) ** 2 + (px * qy - py * qx) ** 2)
    aa, bb, cc = a * a, b * b, c * c
    angle = [np.arctan2(twice, cos / 2) for cos in (bb + cc - aa, cc + aa - bb, aa + bb - cc)]
    longest, shortest = np.maximum(np.maximum(a, b), c), np.minimum(np.minimum(a, b), c)
    product, tiny = np.maximum(np.maximum(b * c, c * a), a * b), 1e-30
    return {
        "min_angle": np.degrees(np.minimum(np.minimum(angle[0], angle[1]), angle[2])),
        "max_angle": np.degrees(np.maximum(np.maximum(angle[0], angle[1]), angle[2])),
        "edge_ratio": longest / np.maximum(shortest, tiny),
        "aspect_ratio": longest * (a + b + c) / np.maximum(2 * np.sqrt(3) * twice, tiny),
        "scaled_jacobian": 2 / np.sqrt(3) * twice / np.maximum(product, tiny),
        "edge_min": shortest,
        "edge_max": longest,
        "edge_mean": (a + b + c) / 3,
        "height_min": twice / np.maximum(longest, tiny),
    }


def quality_table(
    mesh: Mesh,
    *,
    gate: Gate = TEMPLATE_GATE,
    material: Material = Material(),  # noqa: B008
) -> tuple[tuple[PartQuality, ...], PartQuality]:
    """One row a bone, and one row of all bones."""
    metrics = triangle_metrics(mesh.vertices, mesh.faces)
    of_face = mesh.bone[mesh.faces[:, 0]]
    rows = tuple(
        _row(k, bone(k).name, {n: m[of_face == k] for n, m in metrics.items()}, gate, material) for k in mesh.labels
    )
    return rows, _row(0, "all", metrics, gate, material)


def assess(
    mesh: Mesh,
    gate: Gate = SHAPE_GATE,
    *,
    material: Material = Material(),  # noqa: B008
    cuts: Intersections | None = None,
) -> Verdict:
    """Judge a shape: every criterion against its limits, intersections counted by the named detector.

    A closed, manifold surface is required too. The verdict lists each failure with its place; nothing is raised.

    Parameters
    ----------
    cuts : of this very mesh, when they are known (:func:`shapemodel.intersections.find_again`)
    """
    parts, whole = quality_table(mesh, gate=gate, material=material)
    cuts = find_intersections(mesh) if cuts is None else cuts
    failures = _manifold_failures(mesh, gate.topology)
    for part in parts:
        failures += _part_failures(part, gate)
    if whole.min_angle_99 < gate.min_angle_target:
        failures.append(f"all: 1st percentile of min angle {whole.min_angle_99:.1f} deg < {gate.min_angle_target} deg")
    if whole.aspect_ratio_99 > gate.aspect_target:
        failures.append(f"all: 99th percentile of aspect ratio {whole.aspect_ratio_99:.2f} > {gate.aspect_target}")
    if len(cuts.pairs):
        failures.append(cuts.describe())
    return Verdict(gate, parts, whole, cuts, tuple(failures))


def table_text(verdict: Verdict) -> str:
    """The table by part as plain text, with the verdict, the shares beyond the limits, and the detector's count."""
    gate = verdict.gate
    lines = [
        f"{gate.name}: min angle > {gate.min_angle_hard:g} deg for all, > {gate.min_angle_target:g} for {SHARE:g} %"
        f"; aspect < {gate.aspect_hard:g}, < {gate.aspect_target:g}; beyond: per cent of elements",
        f"{'part':<14}{'faces':>7}{'min ang':>9}{'p1':>6}{'max ang':>9}{'edge ratio':>12}{'aspect':>8}"
        f"{'sc.jac':>8}{'edge mm':>18}{'dt us':>8}{'hard':>7}{'target':>8}",
    ]
    for p in (*verdict.parts, verdict.whole):
        edges = f"{p.edge_min_mm:.2f}/{p.edge_mean_mm:.2f}/{p.edge_max_mm:.2f}"
        lines.append(
            f"{p.name:<14}{p.n_faces:>7}{p.min_angle:>9.1f}{p.min_angle_99:>6.1f}{p.max_angle:>9.1f}{p.edge_ratio:>12.2f}"
            f"{p.aspect_ratio:>8.2f}{p.scaled_jacobian:>8.2f}{edges:>18}{p.time_step_us:>8.3f}"
            f"{p.beyond_hard_percent:>7.2f}{p.beyond_target_percent:>8.2f}"
        )
    lines.append(verdict.intersections.describe())
    lines.append("passed" if verdict.passed else f"FAILED: {'; '.join(verdict.failures)}")
    return "\n".join(lines)


def _row(label: int, name: str, m: Mapping[str, NDArray[np.float64]], gate: Gate, material: Material) -> PartQuality:
    beyond_hard = (m["min_angle"] < gate.min_angle_hard) | (m["max_angle"] > gate.max_angle_hard)
    beyond_hard |= (m["aspect_ratio"] > gate.aspect_hard) | (m["edge_min"] < gate.edge_hard)
    beyond_target = (m["min_angle"] < gate.min_angle_target) | (m["aspect_ratio"] > gate.aspect_target)
    return PartQuality(
        label,
        name,
        len(m["min_angle"]),
        float(m["min_angle"].min()),
        float(np.percentile(m["min_angle"], 100 - SHARE)),
        float(m["max_angle"].max()),
        float(m["edge_ratio"].max()),
        float(m["aspect_ratio"].max()),
        float(np.percentile(m["aspect_ratio"], SHARE)),
        float(m["scaled_jacobian"].min()),
        float(m["edge_min"].min()),
        float(m["edge_mean"].mean()),
        float(m["edge_max"].max()),
        float(TIME_STEP_FACTOR * m["height_min"].min() / material.wave_speed * 1e3),
        float(100 * beyond_hard.mean()),
        float(100 * beyond_target.mean()),
    )


def _part_failures(part: PartQuality, gate: Gate) -> list[str]:
    checks = (
        ("min angle, deg", part.min_angle, gate.min_angle_hard, part.min_angle >= gate.min_angle_hard),
        ("max angle, deg", part.max_angle, gate.max_angle_hard, part.max_angle <= gate.max_angle_hard),
        ("aspect ratio", part.aspect_ratio, gate.aspect_hard, part.aspect_ratio <= gate.aspect_hard),
        ("shortest edge, mm", part.edge_min_mm, gate.edge_hard, part.edge_min_mm >= gate.edge_hard),
    )
    return [f"{part.name}: {what} {value:.2f}, limit {limit}" for what, value, limit, met in checks if not met]


def open_edges(faces: Faces) -> int:
    """Edges that are not shared by exactly two faces of opposite sense: 0 for a closed manifold surface."""
    if not len(faces):
        return 0
    tail = faces.T.ravel()
    head = faces[:, [1, 2, 0]].T.ravel()
    n = int(faces.max()) + 1
    forth, back = np.sort(tail * n + head), np.sort(head * n + tail)
    again = forth[1:] == forth[:-1]
    if not again.any() and np.array_equal(forth, back):
        return 0
    return len(np.unique(forth[1:][again])) + len(np.setxor1d(forth, back)) // 2


def _manifold_failures(mesh: Mesh, topology: bool) -> list[str]:
    if not topology and not open_edges(mesh.faces):
        return []
    failures = []
    for label in mesh.labels:
        v, f, _ = mesh.select(label)
        bad, euler = open_edges(f), euler_number(len(v), f)
        if topology and not bad and euler != expected_euler(label):
            failures.append(f"{bone(label).name}: Euler number {euler}, expected {expected_euler(label)}")
        if bad:
            failures.append(f"{bone(label).name}: {bad} edges are open or shared by more than two faces")
    return failures
