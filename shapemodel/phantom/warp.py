"""The smooth random deformation of the whole thorax that makes each subject's residual more than a few modes.

A fixed family of smooth vector fields, from long waves to short ones; a subject has one number for each. Their
variances fall off like the modes of the NAKO cohort beyond the third (Aicher 2026). Fields are symmetric about
the middle plane but for a small share.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from shapemodel.phantom import tables
from shapemodel.phantom.subject import Array, Subject, stream

FIELDS = 72
LONGEST_MM, SHORTEST_MM = 640.0, 120.0
"""Wave lengths of the first and last field."""
LEADING_MM = 4.2
"""RMS displacement of the first field, one SD."""
ONE_SIDED = 0.16
"""Amplitude of the side's own part."""
FAMILY_SEED = 20171
"""Of the fixed family: the same for everyone."""


@cache
def family() -> tuple[Array, Array, Array, Array]:
    """Wave vectors (n, 3) per mm, phases (n,), unit directions (n, 3), standard deviations (n,) mm."""
    rng = np.random.default_rng(FAMILY_SEED)
    direction = rng.normal(size=(FIELDS, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    share = np.linspace(0.0, 1.0, FIELDS)
    length = LONGEST_MM * (SHORTEST_MM / LONGEST_MM) ** share
    along = rng.normal(size=(FIELDS, 3))
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    scree = tables.scree_percent()[3:]
    tail = scree[-1] * (len(scree) / np.arange(len(scree) + 1, FIELDS + len(scree) + 1)) ** 1.0
    variance = np.concatenate([scree, tail])[:FIELDS]
    sd = LEADING_MM * np.sqrt(variance / variance[0])
    return direction * (2 * np.pi / length)[:, None], rng.uniform(0, 2 * np.pi, FIELDS), along, sd


def coefficients(subject: Subject) -> Array:
    """(2, FIELDS) amplitudes in mm of this subject: symmetric and one-sided parts."""
    draw = stream(subject, "thorax").normal(size=(2, FIELDS)).clip(-2.6, 2.6)
    sd = family()[3] * subject.residual
    return np.stack([draw[0] * sd, draw[1] * sd * ONE_SIDED])


def deform(points: Array, amount: Array) -> Array:
    """Points (n, 3) mm, LPS about the middle of the spine, moved by the subject's field (``amount`` (2, FIELDS))."""
    if not amount.any():
        return points
    wave, phase, along, _ = family()
    mirror = np.array([-1.0, 1.0, 1.0])
    here = np.cos(points @ wave.T + phase)
    there = np.cos((points * mirror) @ wave.T + phase)
    one, two = amount[0] + amount[1], amount[0] - amount[1]
    move = (here * one) @ along + (there * two) @ along * mirror
    return np.asarray(points + move * 0.5 * np.sqrt(2.0))
