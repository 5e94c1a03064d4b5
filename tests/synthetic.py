"""A made-up population with known mean, modes, covariate effects and block-missing data, for the model's tests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from shapemodel.latent import rigid_motions
from shapemodel.population import Population


@dataclass(frozen=True)
class Truth:
    """What was put in: template, modes (K, V, 3) in mm a standard deviation, scores, whole shapes in the frame."""

    template: np.ndarray
    modes: np.ndarray
    scores: np.ndarray
    whole: np.ndarray


def cage(n_vertices: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points on a cage-sized barrel as 12 pairs of half rings from the top, each a strip of triangles."""
    per = n_vertices // 48
    points, faces, bone = [], [], []
    for label in range(24):
        level, side = label % 12, (1 if label < 12 else -1)
        t = np.repeat(np.linspace(-0.45 * np.pi, 0.45 * np.pi, per), 2)
        z = 150.0 - 27.0 * level - 8.0 * np.tile([0, 1], per)
        wide = 1 - 0.5 * (z / 300) ** 2
        points.append(np.c_[side * 145 * np.cos(t) * wide, 95 * np.sin(t) * wide, z + 20 * np.sin(t)])
        i = np.arange(0, 2 * per - 2, 2) + label * 2 * per
        faces += [np.c_[i, i + 1, i + 2], np.c_[i + 2, i + 1, i + 3]]
        bone.append(np.full(2 * per, label + 1, np.uint8))
    return np.vstack(points), np.vstack(faces), np.concatenate(bone)


def smooth_modes(points: np.ndarray, strengths: np.ndarray, length: float, rng: np.random.Generator) -> np.ndarray:
    """(K, V, 3) random smooth fields of these root-mean-square strengths (mm), without rigid motion."""
    modes = []
    for _ in strengths:
        wave, phase, way = rng.normal(size=(40, 3)) / length, rng.uniform(0, 7, (40, 3)), rng.normal(size=(40, 3))
        field = sum(np.cos((points @ w)[:, None] + p) * a for w, p, a in zip(wave, phase, way, strict=True))
        modes.append(field)
    rigid = rigid_motions(points, np.ones(len(points))).reshape(-1, 6)
    flat = np.stack(modes).reshape(len(modes), -1)
    flat -= (flat @ rigid) @ rigid.T / len(points)
    flat *= (strengths / np.sqrt((flat**2).mean(axis=1) * 3))[:, None]
    return flat.reshape(len(modes), -1, 3)


def population(
    n: int, *, seed: int = 0, n_vertices: int = 1200, n_modes: int = 10, cut: float = 0.5, noise: float = 0.2
) -> tuple[Population, Population, Truth]:
    """(whole, cut, truth): n subjects, half of each sex; a share ``cut`` of them loses the lower 10-40 %.

    Men score higher on mode 1; taller subjects are cut more often, so that what is missing depends on shape.
    """
    rng = np.random.default_rng(seed)
    template, faces, bone = cage(n_vertices)
    modes = smooth_modes(template, 9.0 * 0.7 ** np.arange(n_modes), 110.0, rng)
    sex = np.array(["F", "M"])[np.arange(n) % 2]
    scores = rng.normal(size=(n, n_modes))
    scores[:, 0] += np.where(sex == "M", 0.8, -0.8)
    whole = template + np.tensordot(scores, modes, 1) + noise * rng.normal(size=(n, len(template), 3))
    order = np.argsort(-scores[:, 0] * np.where(sex == "M", 1, 1) + rng.normal(size=n))
    visible = np.ones((n, len(template)), bool)
    for i in order[: int(round(cut * n))]:
        visible[i] = template[:, 2] > np.quantile(template[:, 2], rng.uniform(0.1, 0.4))
    raw = np.empty_like(whole)
    for i in range(n):
        turn = Rotation.from_rotvec(rng.normal(size=3) * 0.1).as_matrix()
        raw[i] = whole[i] @ turn.T + rng.normal(size=3) * 20
    height = 168 + 5 * scores[:, 0] + rng.normal(size=n) * 3
    age = rng.uniform(25, 80, n)
    names = tuple(f"s{i:03d}" for i in range(n))
    full = Population(
        raw, np.ones_like(visible), names, tuple(map(str, sex)), faces, bone, np.zeros(len(bone), bool),
        {"height_cm": height, "age_years": age},
    )  # fmt: skip
    nothing = np.where(visible[..., None], raw, raw.mean(axis=0))
    part = Population(nothing, visible, names, full.sex, faces, bone, full.prior, full.covariates)
    return full, part, Truth(template, modes, scores, whole)


def onto(shape: np.ndarray, target: np.ndarray) -> np.ndarray:
    """A shape laid rigidly on another, for comparing means that differ by their frame only."""
    from shapemodel.population import rigid_fit

    rotation, shift = rigid_fit(shape, target, np.ones(len(shape)))
    return shape @ rotation.T + shift
