"""Anatomical measures of a thorax, by vertices of a fixed template: the same vertices on everybody.

:func:`landmarks_of` looks at the template once (which end of a rib is its head, the rings of vertices along
its shaft, the end plates of the vertebrae); :func:`measure` then reads any shape of that template. Lengths are
millimetres, angles degrees, volumes millilitres, all in the LPS frame of the shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from shapemodel.anatomy import N_PAIRS, RIBS, STERNUM, bone, rib, vertebra
from shapemodel.mesh import Mesh, Points, vertex_areas, vertex_normals, volume
from shapemodel.walks import edge_graph, far_ends, head_first, walk

SECTIONS = 40
"""Rings of vertices along a rib: about 8 mm on the longest, so that the polyline loses < 0.3 % of a curved length."""

END_RING = 0.3
"""The end of a rib is the mean of the vertices in this share of the last ring: about 2 mm, no single vertex."""

ENDPLATE_COSINE = 0.8
"""A vertex of the front of a vertebra belongs to an end plate when its normal is this near the spine's direction."""

BODY_SHARE = 0.45
"""The front share of a vertebra's depth that is body and nothing else."""

KYPHOSIS_LEVELS = ((1, 12), (4, 12), (5, 12))
"""Upper end plate of the first, lower end plate of the second vertebra (Cobb), T5-T12 as Nishida 2020."""


@dataclass(frozen=True)
class Sections:
    """A rib's centreline as fixed averages of its vertices: ``matrix @ vertices`` is (SECTIONS + 2, 3), head first."""

    label: int
    matrix: csr_matrix


@dataclass(frozen=True)
class Endplates:
    """Vertices of a vertebral body's upper and lower end plate."""

    label: int
    upper: NDArray[np.int64]
    lower: NDArray[np.int64]


@dataclass(frozen=True)
class Landmarks:
    """What :func:`measure` needs to know of a template."""

    ribs: tuple[Sections, ...]
    vertebrae: tuple[Endplates, ...]


def landmarks_of(template: Mesh) -> Landmarks:
    """Sections of the ribs and end plates of the vertebrae that the template has."""
    present = set(template.labels)
    spine = [
        template.vertices[template.bone == vertebra(i)].mean(axis=0) for i in range(1, 13) if vertebra(i) in present
    ]
    ribs = tuple(_sections(template, k, np.array(spine)) for k in RIBS if k in present)
    levels = [i for i in range(1, N_PAIRS + 1) if vertebra(i) in present]
    plates = tuple(_endplates(template, i, levels) for i in levels) if len(levels) > 1 else ()
    return Landmarks(ribs, plates)


def _sections(template: Mesh, label: int, spine: Points) -> Sections:
    """Rings by geodesic distance along the rib from its head, the end nearest to the spine."""
    vertices, faces, ids = template.select(label)
    edges = edge_graph(vertices, faces)
    head, front = head_first(far_ends(edges, unreached=0.0), vertices, spine)
    from_head, from_front = (walk(edges, k, unreached=0.0) for k in (head, front))
    along = (from_head - from_front + from_head.max()) / (2 * from_head.max())
    ring = np.clip((along * SECTIONS).astype(int), 0, SECTIONS - 1)
    area = np.maximum(vertex_areas(vertices, faces), 1e-9)
    total = np.bincount(ring, area, minlength=SECTIONS)
    kept = np.flatnonzero(total > 0)
    new = np.full(SECTIONS, -1)
    new[kept] = np.arange(1, len(kept) + 1)
    first = ids[along <= max(END_RING / SECTIONS, along.min())]
    last = ids[along >= min(1 - END_RING / SECTIONS, along.max())]
    rows = np.concatenate([np.zeros(len(first)), new[ring], np.full(len(last), len(kept) + 1)])
    columns = np.concatenate([first, ids, last])
    ends_of = np.full(len(first), 1 / len(first)), np.full(len(last), 1 / len(last))
    values = np.concatenate([ends_of[0], area / total[ring], ends_of[1]])
    shape = (len(kept) + 2, len(template.vertices))
    return Sections(label, csr_matrix((values, (rows, columns)), shape=shape))


def _endplates(template: Mesh, level: int, levels: list[int]) -> Endplates:
    """Front vertices of a vertebra whose normals point along the spine, up and down."""
    at = levels.index(level)
    above, below = levels[max(at - 1, 0)], levels[min(at + 1, len(levels) - 1)]
    centre = {i: template.vertices[template.bone == vertebra(i)].mean(axis=0) for i in (above, level, below)}
    up = centre[above] - centre[below]
    up /= np.linalg.norm(up)
    vertices, faces, ids = template.select(vertebra(level))
    normals = vertex_normals(vertices, faces)
    depth = vertices[:, 1] - vertices[:, 1].min()
    body = depth < BODY_SHARE * depth.max()
    cosine = normals @ up
    found = [ids[body & (sign * cosine > ENDPLATE_COSINE)] for sign in (1, -1)]
    return Endplates(vertebra(level), found[0], found[1])


def measure(shape: Mesh, landmarks: Landmarks) -> dict[str, float]:
    """All measures of a shape by name, e.g. ``rib_left_06_length_mm``.

    ``rib_*_length_mm`` : along the centreline, from the head to the anterior end
    ``rib_*_inclination_deg`` : angle of the chord first to last ring below the horizontal, seen from the side
    (positive: the front end is lower), ``rib_*_span_mm`` its straight length
    ``cage_width_mm, cage_depth_mm, cage_height_mm`` : extent of all ribs, left-right, front-back, up-down
    ``sternum_length_mm`` : extent along its longest direction
    ``kyphosis_T05_T12_deg`` : angle between the upper end plate of one and the lower one of the other vertebra,
    in the sagittal plane; ``thoracic_spine_length_mm`` : through the centres of the bodies' end plates
    ``<bone>_volume_ml`` : enclosed volume
    """
    out: dict[str, float] = {}
    for sections in landmarks.ribs:
        name = bone(sections.label).name
        line = np.asarray(sections.matrix @ shape.vertices)
        chord = line[-2] - line[1]  # whole rings: where a blunt end's outermost vertex lies is chance
        out[f"{name}_length_mm"] = float(np.linalg.norm(np.diff(line, axis=0), axis=1).sum())
        out[f"{name}_span_mm"] = float(np.linalg.norm(line[-1] - line[0]))
        out[f"{name}_inclination_deg"] = float(np.degrees(np.arctan2(-chord[2], abs(chord[1]))))
    ribs = shape.vertices[np.isin(shape.bone, RIBS)]
    if len(ribs):
        for axis, name in enumerate(("width", "depth", "height")):
            out[f"cage_{name}_mm"] = float(np.ptp(ribs[:, axis]))
    if (shape.bone == STERNUM).any():
        out["sternum_length_mm"] = _longest(shape.vertices[shape.bone == STERNUM])
    out.update(_spine(shape, landmarks))
    for label in shape.labels:
        vertices, faces, _ = shape.select(label)
        out[f"{bone(label).name}_volume_ml"] = volume(vertices, faces) / 1000
    return out


def _longest(points: Points) -> float:
    """Extent of a bone along its first principal axis."""
    centred = points - points.mean(axis=0)
    return float(np.ptp(centred @ np.linalg.svd(centred, full_matrices=False)[2][0]))


def _spine(shape: Mesh, landmarks: Landmarks) -> dict[str, float]:
    plates = {bone(p.label).level: p for p in landmarks.vertebrae if len(p.upper) > 2 and len(p.lower) > 2}
    out = {}
    for first, last in KYPHOSIS_LEVELS:
        if first in plates and last in plates:
            top = _tilt(shape.vertices[plates[first].upper])
            bottom = _tilt(shape.vertices[plates[last].lower])
            out[f"kyphosis_T{first:02d}_T{last:02d}_deg"] = float(top - bottom)
    if len(plates) > 1:
        path = [shape.vertices[q].mean(axis=0) for _, p in sorted(plates.items()) for q in (p.upper, p.lower)]
        out["thoracic_spine_length_mm"] = float(np.linalg.norm(np.diff(np.array(path), axis=0), axis=1).sum())
    return out


def _tilt(points: Points) -> float:
    """Degrees by which an end plate rises towards the back, in the sagittal plane (least-squares plane)."""
    centred = points - points.mean(axis=0)
    normal = np.linalg.svd(centred, full_matrices=False)[2][2]
    normal = normal * np.sign(normal[2])
    return float(np.degrees(np.arctan2(-normal[1], normal[2])))


@dataclass(frozen=True)
class Spread:
    """A measure in a group: its mean, standard deviation and how many subjects it rests on."""

    name: str
    mean: float
    sd: float
    n: int


def measure_group(
    shapes: NDArray[np.floating], template: Mesh, landmarks: Landmarks, visible: NDArray[np.bool_] | None = None
) -> list[Spread]:
    """Mean and spread of every measure over shapes (n, V, 3).

    With ``visible`` (n, V), a measure of a subject counts only when at least 95 % of the vertices of the bones it is
    made of were seen; the cage's extent needs all ribs.
    """
    rows: list[dict[str, float]] = []
    for i, x in enumerate(shapes):
        got = measure(template.with_vertices(np.asarray(x, np.float64)), landmarks)
        if visible is not None:
            got = {k: v for k, v in got.items() if _seen(k, template, visible[i])}
        rows.append(got)
    names = list(dict.fromkeys(k for row in rows for k in row))
    out = []
    for name in names:
        values = np.array([row[name] for row in rows if name in row])
        sd = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
        out.append(Spread(name, float(values.mean()), sd, len(values)))
    return out


SEEN_SHARE = 0.95
"""A measure of a bone of which more than this was hidden is the model's opinion, not an observation."""


def _seen(name: str, template: Mesh, visible: NDArray[np.bool_]) -> bool:
    if name.startswith("cage"):
        used = np.isin(template.bone, RIBS)
    elif name.startswith(("kyphosis", "thoracic")):
        used = template.bone > STERNUM
    else:
        owner = next(k for k in template.labels if name.startswith(bone(k).name))
        used = template.bone == owner
    return bool(visible[used].mean() >= SEEN_SHARE)


PUBLISHED: Mapping[str, tuple[float, float, str]] = {
    **{
        f"{bone(rib(side, level)).name}_length_mm": (women, men, "Holcombe 2016, sex means, arc length")
        for side in ("left", "right")
        for level, women, men in (
            (1, 106.6, 113.2), (2, 200.7, 212.8), (3, 250.1, 265.8), (4, 274.7, 293.8), (5, 289.4, 309.3),
            (6, 292.7, 314.1), (7, 288.2, 311.5), (8, 275.4, 299.9), (9, 257.3, 280.3), (10, 226.1, 247.7),
            (11, 175.4, 194.5), (12, 95.1, 106.5),
        )
    },
    "sternum_length_mm": (162.8, 191.8, "CT of 30 women and 30 men aged 20-40, manubrium to xiphoid"),
    "kyphosis_T05_T12_deg": (24.1, 24.1, "Nishida 2020, standing, both sexes, SD 8.4"),
    "cage_width_mm": (297.0, 297.0, "NAKO 2026, both sexes pooled, ribs only"),
    "cage_depth_mm": (187.0, 187.0, "NAKO 2026, both sexes pooled, ribs only"),
    "cage_height_mm": (322.0, 322.0, "NAKO 2026, both sexes pooled, ribs only"),
}  # fmt: skip
"""Published mean of women, of men, and whose; to print beside ours."""
