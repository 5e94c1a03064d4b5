"""The bones of a subject: one closed surface a bone, the same vertices on everybody.

``surface(subject)`` is the truth of the phantom: vertex ``i`` is the same material point on every subject, since
each bone is one canonical surface carried to LPS by a smooth map (ribs by their landmark chart, vertebrae and
sternum from canonical solids), then bent by a smooth field of the whole thorax.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.spatial import cKDTree

from shapemodel.anatomy import RIBS, STERNUM, VERTEBRAE, bone
from shapemodel.mesh import Faces, Mesh, Points, join
from shapemodel.phantom import ribs, sternum, vertebrae
from shapemodel.phantom.contact import give_way
from shapemodel.phantom.ribpath import RibCurve, RibParameters, head_tip, rib_curve, rib_parameters
from shapemodel.phantom.spine import LEVEL_COUNT, Spine, spine
from shapemodel.phantom.subject import Array, Subject
from shapemodel.phantom.warp import coefficients, deform

MIRROR = np.array([-1.0, 1.0, 1.0])
RIB_GAP_MM, FACET_GAP_MM = 1.0, 0.9
"""Joint space kept between a rib and a vertebra, and between two vertebrae."""
RIB_SPACE_MM = 2.0
"""Least intercostal space, from edge to edge, where ribs come close in front."""
SPACING_ROUNDS = 5
EAGER = 1.4
"""A turn moves the shaft partly past its neighbour, so a little more is needed."""
SECTION_SPREAD = 1.06
"""Sections in front are this much taller than at mid shaft."""
FREE_FROM = 110
"""Points of a curve before this one (a quarter of the rib) are held by the spine and not looked at."""
FIRST_RIB_GAP_MM = 3.0
"""Least distance of the first rib from the second, which passes close behind it."""
TUBERCLE_GAP_MM = 1.0
"""From the tubercle to the transverse process that is brought to it."""
FREE_GAP_MM = 2.5
"""The same for ribs 11 and 12, which have no joint there, and for the large tubercle of rib 1."""
_GAP = (FREE_GAP_MM, *[TUBERCLE_GAP_MM] * 9, FREE_GAP_MM, FREE_GAP_MM)
CACHED = 6
"""Subjects whose bones are remembered."""

Part = tuple[Points, Faces]


@dataclass(frozen=True)
class Anatomy:
    """All that the bones of one subject are made from, before the field of the whole thorax bends them.

    Attributes
    ----------
    subject : whom it describes
    column : the spine
    curves : (side, level) -> curve, as for a left rib (mirror x for side 1)
    sections : cross-sections of the ribs
    vertebra : process shapes
    breastbone : size and place of the sternum
    field : (2, n) amplitudes of the thorax-wide deformation
    """

    subject: Subject
    column: Spine
    curves: dict[tuple[int, int], RibCurve]
    sections: ribs.RibSections
    vertebra: vertebrae.VertebraShapes
    breastbone: sternum.SternumShape
    field: Array

    def bend(self, points: Array) -> Array:
        """Points (n, 3) of the undeformed thorax carried to the subject's final LPS coordinates."""
        return deform(points, self.field)


@lru_cache(maxsize=CACHED)
def anatomy(subject: Subject) -> Anatomy:
    """Parameters of every bone of this subject."""
    column = spine(subject)
    parameters = rib_parameters(subject, column)
    sections = ribs.rib_sections(subject)
    field = coefficients(subject)
    curves = spaced_curves(column, parameters, sections, field)
    front = np.array(
        [[curves[side, level].points[-1] * (MIRROR if side else 1.0) for level in range(1, 13)] for side in (0, 1)]
    )
    tips = _transverse_targets(column, curves, sections)
    return Anatomy(
        subject,
        column,
        curves,
        sections,
        vertebrae.vertebra_shapes(subject, column, tips),
        sternum.sternum_shape(subject, front),
        field,
    )


def spaced_curves(
    column: Spine, parameters: RibParameters, sections: ribs.RibSections, field: Array
) -> dict[tuple[int, int], RibCurve]:
    """(side, level) -> curve of every rib; from the top down, a rib that would meet the one above is lowered.

    The first rib gives way to the second instead, and is raised.
    """
    out: dict[tuple[int, int], RibCurve] = {}
    for side in (0, 1):
        flip = MIRROR if side else np.ones(3)
        for level in (2, 1, *range(3, 13)):
            head = head_tip(column, side, level)
            turn = 0.0
            out[side, level] = rib_curve(parameters, side, level, head)
            for _ in range(SPACING_ROUNDS if level != 2 else 0):
                upper = max(level - 1, 1)
                above, below = (deform(out[side, k].points * flip, field) for k in (upper, upper + 1))
                need = _to_turn(above, below, _room(sections, side, upper), FREE_FROM if upper > 1 else FREE_FROM // 2)
                if need < 0.02:
                    break
                turn += EAGER * need if level > 1 else -EAGER * need
                out[side, level] = rib_curve(parameters, side, level, head, lowered=float(np.clip(turn, -8.0, 14.0)))
    return out


def _room(sections: ribs.RibSections, side: int, upper: int) -> float:
    """mm between the curves of a rib and the next; the first rib lies flat."""
    if upper == 1:
        return float(0.5 * (1.2 * sections.short[side, 0] + 0.85 * sections.long[side, 1]) + RIB_SPACE_MM)
    above = sections.long[side, upper - 1]
    return float(0.5 * SECTION_SPREAD * (above + sections.long[side, upper]) + RIB_SPACE_MM)


def _to_turn(above: Array, below: Array, room: float, free_from: int) -> float:
    """Degrees by which a rib must turn about its head so that its shaft keeps ``room`` mm from its neighbour."""
    shaft = below[free_from::6]
    apart, near = cKDTree(above[::3]).query(shaft)
    arm = np.linalg.norm(shaft - below[0], axis=1)
    crossed = shaft[:, 2] > above[::3][near][:, 2]
    short = np.where(crossed, room + apart, room - apart)
    return float(np.degrees(np.maximum(short / arm, 0.0).max()))


def _transverse_targets(column: Spine, curves: dict[tuple[int, int], RibCurve], sections: ribs.RibSections) -> Array:
    """(2, 14, 3) local mm: where the clubs of the transverse processes belong, behind the tubercles; NaN for C7 and L1.

    Ribs 11 and 12 have no joint there, but the process keeps to the inner side of the rib all the same.
    """
    out = np.full((2, LEVEL_COUNT, 3), np.nan)
    for (side, level), curve in curves.items():
        fields = (curve.points, curve.outward, curve.upward)
        point, outward, upward = (
            np.array([np.interp(curve.neck, curve.arc, f[:, i]) for i in range(3)]) for f in fields
        )
        j = level - 1
        down = ribs.tubercle_angle(level)
        way = np.cos(down) * outward - np.sin(down) * upward
        depth = sections.tubercle[side, j] + 0.62 * sections.short[side, j]
        away = depth + _GAP[level - 1] + vertebrae.CLUB_DEPTH_MM
        target = (point + away * way) * (MIRROR if side else 1.0)
        out[side, level] = column.to_local(level, target)
    return out


@lru_cache(maxsize=CACHED)
def parts(subject: Subject) -> dict[int, Part]:
    """Label -> (vertices, faces) of all 37 bones in LPS, always with twelve pairs; treat the arrays as read-only."""
    a = anatomy(subject)
    out: dict[int, Part] = {}
    for label in RIBS:
        b = bone(label)
        side = 0 if b.side == "left" else 1
        v = ribs.rib_surface(a.curves[side, b.level], b.level, side, a.sections)
        f = ribs.chart(b.level).faces
        out[label] = (a.bend(v * MIRROR), f[:, ::-1]) if side else (a.bend(v), f)
    for first, second in ((1, 2), (13, 14)):
        out[first] = (give_way(out[first], [out[second]], FIRST_RIB_GAP_MM), out[first][1])
    canon, faces = sternum.canonical()
    out[STERNUM] = (a.bend(sternum.map_points(canon, a.breastbone)), faces)
    for label in VERTEBRAE:
        level = bone(label).level
        near = [out[k] for k in RIBS if bone(k).level in (level, level + 1)]
        v = give_way(vertebra_part(a, level), near, RIB_GAP_MM)
        faces = vertebrae.canonical(level)[1]
        if level > 1:
            v = give_way((v, faces), [out[label - 1]], FACET_GAP_MM)
        out[label] = (v, faces)
    return out


def vertebra_part(a: Anatomy, row: int) -> Part:
    """Surface of spine row ``row`` (0 is C7, 1-12 thoracic, 13 is L1) in LPS, before it yields to its neighbours."""
    canon, faces = vertebrae.canonical(row)
    return a.bend(a.column.to_world(row, vertebrae.map_points(canon, row, a.column, a.vertebra))), faces


def surface(subject: Subject) -> Mesh:
    """Closed surfaces of the bones of this subject, outward normals, LPS mm.

    Vertices and faces are the same for every subject in number and order (about 135,000 vertices, edges of
    1.2-2 mm), so vertex ``i`` is the same material point on everyone; a subject with 11 pairs lacks ribs 12 (the
    order of the others is kept). Sternum and ribs are topological spheres, vertebrae have one hole, the canal.
    """
    bones = {
        k: p for k, p in parts(subject).items() if not (subject.n_pairs == 11 and bone(k).level == 12 and k in RIBS)
    }
    return join(bones)
