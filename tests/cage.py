"""A small made-up thorax of tubes and ellipsoids for tests: quick to build at any density, with a known warp."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shapemodel.anatomy import STERNUM, rib, vertebra
from shapemodel.mesh import Mesh, join
from shapemodel.registration import PriorSettings, RegistrationSettings

SMALL = RegistrationSettings(
    prior=PriorSettings(nodes=120, rank=60, landmarks=200, fine_rank=20, bone_rank=12),
    samples=1000,
    soft_template=60,
    soft_target=80,
    soft_steps=5,
    coarse_steps=8,
    coarse_nodes=80,
    joint_steps=1,
    bone_steps=3,
    fine_steps=2,
    backward_samples=60,
)
"""A registration with a fifth of the published work: what is tested is the method, not the last tenth of a mm."""


def tube(path: NDArray, radii: NDArray, spokes: int) -> tuple[NDArray, NDArray]:
    """Closed tube about a path (n, 3) with two radii (n, 2), across and along z."""
    t = np.gradient(path, axis=0)
    t /= np.linalg.norm(t, axis=1, keepdims=True)
    u = np.cross(t, [0.0, 0.0, 1.0])
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    w = np.cross(u, t)
    a = 2 * np.pi * np.arange(spokes) / spokes  # a vertex, not a flat facet, lies outermost
    ring = (
        path[:, None]
        + radii[:, :1, None] * np.cos(a)[None, :, None] * u[:, None]
        + radii[:, 1:, None] * np.sin(a)[None, :, None] * w[:, None]
    )
    n = len(path)
    v = np.vstack([ring.reshape(-1, 3), path[0] - 2 * t[0], path[-1] + 2 * t[-1]])
    i, j = np.meshgrid(np.arange(n - 1), np.arange(spokes), indexing="ij")
    p, q = i * spokes + j, i * spokes + (j + 1) % spokes
    r, s = p + spokes, q + spokes
    side = np.concatenate([np.stack([p, r, q], -1).reshape(-1, 3), np.stack([q, r, s], -1).reshape(-1, 3)])
    k = np.arange(spokes)
    first = np.stack([np.full(spokes, n * spokes), k, (k + 1) % spokes], -1)
    last = np.stack([np.full(spokes, n * spokes + 1), (n - 1) * spokes + (k + 1) % spokes, (n - 1) * spokes + k], -1)
    f = np.concatenate([side, first, last])
    a0, a1, a2 = (v[f[:, c]] for c in range(3))
    return v, f if np.einsum("ij,ij->", a0, np.cross(a1, a2)) > 0 else f[:, ::-1]


def rib_path(level: int, sign: float, n: int) -> NDArray:
    """From the head beside the spine, round the side, to the front; lower ribs are wider and shorter in front."""
    s = np.linspace(0.0, 1.0, n)
    angle = s * np.pi * (0.85 - 0.03 * max(level - 7, 0) ** 1.3 / 2)
    width, depth = 60 + 7 * min(level, 8), 70 + 4 * min(level, 8)
    x = sign * (18 + (width - 18) * np.sin(angle) ** 0.9)
    y = 30 + depth * np.cos(angle) - depth
    return np.column_stack([x, y, -24.0 * level - 55 * s + 6 * np.sin(3 * angle)])


def cage(density: float = 1.0, fov: NDArray | None = None) -> Mesh:
    """Ribs, sternum and vertebrae; ``density`` scales the number of vertices along and around."""
    parts = {}
    n, spokes = round(40 * density), max(round(10 * density), 8)
    for level in range(1, 13):
        for side, sign in (("left", 1.0), ("right", -1.02)):
            s = np.linspace(0, 1, n)
            bump = np.exp(-(((s - 0.12) / 0.04) ** 2)) + 0.5 * np.exp(-(((s - 1) / 0.08) ** 2))
            radii = np.column_stack([3.5 + 1.5 * bump, 5.0 + 1.5 * bump + np.sin(5 * s)])
            parts[rib(side, level)] = tube(rib_path(level, sign, n), radii, spokes)
        column = np.column_stack([np.zeros(10), np.full(10, 38.0), -24.0 * level + np.linspace(-9, 9, 10)])
        column[:, 0] += np.linspace(0, 0.5, 10)
        r = np.column_stack([np.full(10, 15.0), np.full(10, 12.0)]) * np.sin(np.linspace(0.5, 2.6, 10))[:, None]
        parts[vertebra(level)] = tube(column + [[0, 1e-3, 0]] * np.arange(10)[:, None], r, 2 * spokes)
    front = np.column_stack([np.linspace(-2, 2, 20), np.linspace(-128, -150, 20), np.linspace(-60, -230, 20)])
    parts[STERNUM] = tube(front, np.column_stack([np.linspace(26, 14, 20), np.full(20, 6.0)]), 2 * spokes)
    return join(parts, fov)


def warp(points: NDArray) -> NDArray:
    """Another person: other size, wider, bent, turned and moved; up to 30 mm and more."""
    x = points * [1.08, 1.02, 0.97]
    x = x + 5.0 * np.sin(points[:, [2, 0, 1]] / 60.0)
    x[:, 1] += 6.0 * ((points[:, 2] + 150) / 150) ** 2
    turn = np.deg2rad(4.0)
    c, s = np.cos(turn), np.sin(turn)
    return np.column_stack([c * x[:, 0] - s * x[:, 1], s * x[:, 0] + c * x[:, 1], x[:, 2]]) + [12.0, -8.0, 15.0]
