"""Vertebrae: one canonical solid a level, meshed once, and the smooth map that gives each subject's bone.

Canonical coordinates are millimetres of the mean man's bone: left, behind and above the middle of its body.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from shapemodel.phantom import tables
from shapemodel.phantom.solids import Array, blade, cut, ellipsoid, join, mesh_of, prism
from shapemodel.phantom.spine import LEVEL_COUNT, Spine
from shapemodel.phantom.subject import Subject, by_sex, level_noise, stream

STEP_MM = 1.6
"""Grid of the marching cubes, about the edge length of the mesh."""
CANAL_HALF_DEPTH_MM = 7.6
WAIST = 0.09
"""The body is this much slimmer at half height."""
DISH_MM = 0.9
"""End-plates are hollow in the middle."""


def _body(p: Array, k: int) -> Array:
    w, d, h = tables.BODY_WIDTH_MM[k], tables.BODY_DEPTH_MM[k], tables.BODY_HEIGHT_MM[k]
    waist = 1.0 - WAIST * np.cos(np.pi * np.clip(p[..., 2] / h, -0.5, 0.5))
    r2 = (p[..., 0] / (0.36 * w)) ** 2 + (p[..., 1] / (0.36 * d)) ** 2
    q = p.copy()
    q[..., 2] = p[..., 2] + np.sign(p[..., 2]) * DISH_MM * np.exp(-r2)
    body = prism(q, (0.5 * w * waist, 0.5 * d * waist, 0.5 * h + 0.3), 2.5, 0.45)
    corner = np.abs(p) - np.array([0.47 * w, 0.0, 0.30 * h])
    corner[..., 1] = p[..., 1] - 0.26 * d
    return join(body, ellipsoid(corner, np.zeros(3), np.array([3.6, 5.5, 0.20 * h])), 3.0)


def _arch(p: Array, k: int) -> Array:
    """Pedicles, articular pillars, laminae and spinous process; ``p`` has its x folded to the left."""
    back, h = 0.5 * tables.BODY_DEPTH_MM[k], tables.BODY_HEIGHT_MM[k]
    side = tables.CANAL_HALF_WIDTH_MM[k] + 2.6
    pillar = np.array([side, back + 10.6, 0.16 * h])
    pedicle = (np.array([0.30 * tables.BODY_WIDTH_MM[k], back - 4.0, 0.20 * h]), pillar + [0.0, -1.0, 0.0])
    tall = 0.26 * h
    out = blade(p, pedicle, (3.0, 3.0), (tall, tall))
    out = join(out, ellipsoid(p, pillar, np.array([5.0, 4.2, 0.29 * h])), 2.5)
    roof = back + 2 * CANAL_HALF_DEPTH_MM + 3.2
    lamina = (pillar + np.array([0.5, 5.2, -0.34 * h]), np.array([0.0, roof + 0.6, -0.32 * h]))
    out = join(out, blade(p, lamina, (2.6, 3.2), (0.46 * h, 0.44 * h)), 2.5)
    tip = tables.SPINOUS_TIP_MM[k]
    root = np.array([0.0, roof + 1.0, -0.26 * h])
    end = np.array([0.0, back + tip[0] - 3.0, tip[1] + 2.0])
    return join(out, _spinous(p, root, end, k), 2.5)


def _spinous(p: Array, root: Array, end: Array, k: int) -> Array:
    """A blade of bone in the midline, thicker at its tip; tall where it is level, slim where it is steep."""
    axis = (end - root) / np.linalg.norm(end - root)
    length = float(np.linalg.norm(end - root))
    q = p - root
    t = np.clip(q @ axis / length, 0.0, 1.0)
    rest = q - (t * length)[..., None] * axis
    thick = 2.5 + 0.9 * t**3
    tall = (7.6 if 5 <= k <= 9 else 8.2) * (1 - 0.48 * t) + (1.5 if k >= 11 else 0.0)
    other = np.sqrt(rest[..., 1] ** 2 + rest[..., 2] ** 2)
    r = np.sqrt((rest[..., 0] / thick) ** 2 + (other / tall) ** 2)
    slope = np.sqrt((rest[..., 0] / thick**2) ** 2 + (other / tall**2) ** 2)
    return np.asarray((r - 1.0) * r / np.maximum(slope, 1e-9))


def _processes(p: Array, k: int) -> Array:
    """Transverse and articular processes, x folded to the left."""
    back, h = 0.5 * tables.BODY_DEPTH_MM[k], tables.BODY_HEIGHT_MM[k]
    side = tables.CANAL_HALF_WIDTH_MM[k] + 2.6
    club = transverse_club(k)
    root = np.array([side + 0.5, back + 11.5, 0.12 * h])
    out = blade(p, (root, club - [0.0, 0.2, 0.0]), (4.2, 3.8), (5.6, 4.6))
    half = 4.6 if k < 11 else 3.8
    out = join(out, ellipsoid(p, club, np.array([half, CLUB_DEPTH_MM, 5.2])), 2.5)
    top = superior_facet(k) - [0.0, 2.3, 0.0]
    out = join(out, ellipsoid(p, top, np.array([4.8, 2.3, 6.2])), 1.6)
    bottom = inferior_facet(k) + [0.0, 2.5, 0.0]
    return join(out, ellipsoid(p, bottom, np.array([4.8, 2.4, 6.6])), 1.6)


CLUB_DEPTH_MM = 4.4
"""Half depth of the club at the end of a transverse process: from its facet, where the rib rests, to its middle."""

FACET_BACK_MM = 12.4
"""Plane of the facet joints behind the back wall of the body."""


def transverse_tip(k: int) -> Array:
    """(3,) canonical tip of the left transverse process of row ``k`` (0 is C7)."""
    x, behind, z = tables.TRANSVERSE_TIP_MM[k]
    return np.array([x, 0.5 * tables.BODY_DEPTH_MM[k] + behind + 3.5, z])


def superior_facet(k: int) -> Array:
    """(3,) canonical middle of the left superior joint surface, which faces back."""
    side, back = tables.CANAL_HALF_WIDTH_MM[k] + 2.6, 0.5 * tables.BODY_DEPTH_MM[k]
    return np.array([side - 0.6, back + FACET_BACK_MM, 0.5 * tables.BODY_HEIGHT_MM[k] + 1.6])


def inferior_facet(k: int) -> Array:
    """(3,) canonical middle of the left inferior joint surface, which faces forwards."""
    side, back = tables.CANAL_HALF_WIDTH_MM[k] + 2.6, 0.5 * tables.BODY_DEPTH_MM[k]
    return np.array([side - 1.8, back + FACET_BACK_MM + 1.6, -0.5 * tables.BODY_HEIGHT_MM[k] + 0.4])


def transverse_club(k: int) -> Array:
    """(3,) canonical middle of the club at the end of the left transverse process."""
    return transverse_tip(k) - np.array([4.6 if k < 11 else 3.8, 0.6, 0.0])


def _canal(p: Array, k: int) -> Array:
    half = tables.CANAL_HALF_WIDTH_MM[k]
    y = p[..., 1] - 0.5 * tables.BODY_DEPTH_MM[k] - CANAL_HALF_DEPTH_MM + 0.2
    wide = half * (1.0 - 0.18 * np.clip(y / CANAL_HALF_DEPTH_MM, -1.0, 1.0))
    r = ((np.abs(p[..., 0]) / wide) ** 2.3 + (np.abs(y) / CANAL_HALF_DEPTH_MM) ** 2.3) ** (1 / 2.3)
    return np.asarray((r - 1.0) * CANAL_HALF_DEPTH_MM)


def solid(p: Array, k: int) -> Array:
    """Distance-like field of the canonical vertebra of row ``k``: negative inside bone."""
    fold = p.copy()
    fold[..., 0] = np.sqrt(p[..., 0] ** 2 + 0.04)
    out = join(_body(p, k), _arch(fold, k), 2.0)
    out = join(out, _processes(fold, k), 2.2)
    return cut(out, _canal(p, k), 1.0)


@cache
def canonical(k: int) -> tuple[Array, np.ndarray]:
    """(V, 3) canonical coordinates and (F, 3) faces of row ``k`` (0 is C7, 13 is L1): the same for everyone."""
    tip, spine_tip = transverse_tip(k), tables.SPINOUS_TIP_MM[k]
    d, h = tables.BODY_DEPTH_MM[k], tables.BODY_HEIGHT_MM[k]
    low = np.array([-tip[0] - 5.0, -0.5 * d - 4.0, min(-0.5 * h - 14.0, spine_tip[1] - 10.0)])
    high = np.array([tip[0] + 5.0, 0.5 * d + spine_tip[0] + 6.0, 0.5 * h + 14.0])
    v, f = mesh_of(lambda p: solid(p, k), low, high, STEP_MM)
    v.setflags(write=False)
    f.setflags(write=False)
    return v, f


@dataclass(frozen=True)
class VertebraShapes:
    """How a subject's vertebrae differ from the canonical ones; rows are levels.

    Attributes
    ----------
    arch : (14, 3) scale of the arch along left, back, up
    spinous : (14, 3) shift of the tip of the spinous process, mm
    tip : (2, 14, 3) where the clubs of the transverse processes are to be, local mm; NaN where nothing asks
    facet : (14,) shift of the superior articular processes to the back, mm
    wave, phase, push : (14, 8, 3), (14, 8), (14, 8, 3) smooth deformation of each bone
    """

    arch: Array
    spinous: Array
    tip: Array
    facet: Array
    wave: Array
    phase: Array
    push: Array


def vertebra_shapes(subject: Subject, column: Spine, tip: Array) -> VertebraShapes:
    """Draw the subject's process shapes; ``tip`` (2, 14, 3) as in :class:`VertebraShapes`."""
    rng = stream(subject, "vertebrae")
    s = subject.residual
    size = by_sex(subject, tables.FEMALE_SPINE, 1.0)
    size *= 1 + 0.5 * (subject.height_cm / by_sex(subject, 164.5, 178.0) - 1)
    noise = np.stack([level_noise(rng, LEVEL_COUNT, 4.0)[0] for _ in range(3)], axis=1)
    arch = size * (1 + s * np.array([0.04, 0.04, 0.015]) * noise)
    arch[:, 2] *= _pitch(column) / size
    sd = np.array([1.4, 2.4, 2.6])
    spinous = s * sd * np.stack([level_noise(rng, LEVEL_COUNT, 1.5)[0] for _ in range(3)], axis=1)
    wave = rng.normal(size=(LEVEL_COUNT, 8, 3)) * (2 * np.pi / 45.0)
    phase = rng.uniform(0, 2 * np.pi, size=(LEVEL_COUNT, 8))
    push = s * 0.22 * rng.normal(size=(LEVEL_COUNT, 8, 3)).clip(-2.5, 2.5)
    shapes = VertebraShapes(arch, spinous, tip, np.zeros(LEVEL_COUNT), wave, phase, push)
    return replace(shapes, facet=facet_shifts(column, shapes))


def _pitch(column: Spine) -> Array:
    """(14,) spacing of each level and its neighbours against the canonical one: arches grow with it."""
    mine = 0.5 * (column.height[1:] + column.height[:-1]) + column.disc
    theirs = 0.5 * (tables.BODY_HEIGHT_MM[1:] + tables.BODY_HEIGHT_MM[:-1]) + tables.DISC_MM
    ratio = mine / theirs
    return np.minimum(np.append(ratio, ratio[-1]), np.insert(ratio, 0, ratio[0]))


def _step(x: Array, low: float, high: float) -> Array:
    t = np.clip((x - low) / (high - low), 0.0, 1.0)
    return np.asarray(t * t * (3 - 2 * t))


def map_points(p: Array, k: int, column: Spine, shapes: VertebraShapes) -> Array:
    """Canonical points (n, 3) of row ``k`` -> (n, 3) in the subject's local frame of that level, mm."""
    out = _scaled(p, k, column, shapes)
    back = 0.5 * tables.BODY_DEPTH_MM[k]
    far = _step(p[:, 1], back + 19.0, back + float(tables.SPINOUS_TIP_MM[k, 0]))
    near = 1.0 - _step(np.abs(p[:, 0]), 6.0, 14.0)
    out = out + (far * near)[:, None] * shapes.spinous[k]
    low, high = tables.CANAL_HALF_WIDTH_MM[k] + 1.0, transverse_tip(k)[0] - 2.0
    reach = _step(np.abs(p[:, 0]), low, high) * _step(p[:, 1], back + 1.0, back + 9.0)
    most = np.array([min(TIP_MOVE_MM, UNFOLDED * (high - low)), TIP_MOVE_MM, TIP_MOVE_MM])
    for side, sign in ((0, 1.0), (1, -1.0)):
        target = shapes.tip[side, k]
        if np.isnan(target).any():
            continue
        at = _scaled((transverse_club(k) * [sign, 1.0, 1.0])[None], k, column, shapes)[0]
        move = np.clip(target - at, -most, most)
        out = out + (reach * (sign * p[:, 0] > 0))[:, None] * move
    h = tables.BODY_HEIGHT_MM[k]
    upper = _step(p[:, 2], 0.15 * h, 0.5 * h) * _step(p[:, 1], back + 2.0, back + 8.0)
    out = out + (upper * shapes.facet[k])[:, None] * np.array([0.0, 1.0, 0.0])
    return out + np.sin(p @ shapes.wave[k].T + shapes.phase[k]) @ shapes.push[k]


TIP_MOVE_MM = 7.0
"""Furthest that a transverse process follows its rib, along each axis."""
UNFOLDED = 0.42
"""A shift along the process may be this share of the length over which it sets in, so that nothing folds."""
FACET_MM = 1.3
"""Joint space between superior and inferior articular processes."""
FACET_MOVE_MM = 3.5
"""Furthest that the superior articular processes move forwards or backwards to meet the vertebra above."""


def facet_shifts(column: Spine, shapes: VertebraShapes) -> Array:
    """(14,) mm backwards by which the superior facets of each level move to face the inferior ones of the next."""
    out = np.zeros(LEVEL_COUNT)
    for k in range(1, LEVEL_COUNT):
        above, below = (inferior_facet(k - 1)[None], superior_facet(k)[None])
        y = [
            column.to_local(k, column.to_world(k - 1, _scaled(above * [sign, 1, 1], k - 1, column, shapes)))[0, 1]
            for sign in (1.0, -1.0)
        ]
        out[k] = 0.5 * sum(y) - FACET_MM - _scaled(below, k, column, shapes)[0, 1]
    return np.clip(out, -FACET_MOVE_MM, FACET_MOVE_MM)


def _scaled(p: Array, k: int, column: Spine, shapes: VertebraShapes) -> Array:
    """Body scaled to the subject's width, depth and height, arch to its own; wedged; smooth across the pedicles."""
    w, d, h = tables.BODY_WIDTH_MM[k], tables.BODY_DEPTH_MM[k], tables.BODY_HEIGHT_MM[k]
    arch = shapes.arch[k]
    body = 1.0 - _step(p[:, 1], 0.5 * d - 3.0, 0.5 * d + 8.0)
    x = p[:, 0] * (body * column.width[k] / w + (1 - body) * arch[0])
    deep = column.depth[k] / d
    behind = p[:, 1] - 0.5 * d
    y = 0.5 * column.depth[k] + deep * behind + (arch[1] - deep) * np.logaddexp(0.0, behind / 2.0) * 2.0
    z = p[:, 2] * (body * column.height[k] / h + (1 - body) * arch[2])
    lean = np.tan(np.radians(tables.WEDGE_DEG[k])) / h
    return np.column_stack([x, y, z * (1 + lean * np.clip(p[:, 1], -0.5 * d, 0.5 * d))])
