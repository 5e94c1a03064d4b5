"""How well places along ribs can be known at all: noiseless ribs of phantom people against each other, ends known.

    python benchmarks/registration_marks.py [--people WOMEN MEN SEED]

Vertices of the phantom are material points, so the true shift against even spacing between the ends is known at every
place of a rib. Printed is what is left of it, mean mm over the stations of all ribs and (in brackets) of the worst rib:
by even spacing, with the tubercle and the angle known exactly and even spacing between them, the same with a smooth
curve through the marks, and by what :mod:`shapemodel.registration.stations` finds on these surfaces without noise, cuts
or a template.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from itertools import permutations

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from shapemodel.anatomy import bone
from shapemodel.mesh import Mesh
from shapemodel.phantom.shape import anatomy, surface
from shapemodel.phantom.subject import Subject, draw_population
from shapemodel.registration.ends import STATIONS, Shaft, shafts
from shapemodel.registration.stations import Markings, Marks, read, stations
from shapemodel.registration.target import draw

NEAR = 0.015
"""Part of the length about a place over which the shift of the surface is averaged."""

MARKS = np.array([1.0, 2.0])
"""Landmark coordinates of the phantom's tubercle and angle."""

SAMPLES = (12000, 8000)
"""Points on a rib of the first and of the second person: never the same ones, whose noise would match."""


def walked(person: Subject, shaft: dict[int, Shaft], count: int) -> tuple[Markings, list[NDArray[np.float64]]]:
    """The markings of all ribs from ``count`` points on each; and the share of its rib's length of each vertex."""
    mesh = surface(person)
    points, arcs = [], []
    for label, s in shaft.items():
        v, f, _ = mesh.select(label)
        face, bary = draw(v, f, count)
        points.append(np.einsum("mk,mkd->md", bary, v[f[face]]))
        arcs.append(np.einsum("mk,mk->m", bary, s.along[f[face]]))
    found = read(list(shaft.values()), points, arcs)
    share = [
        (c.line.lengthwise(mesh.select(label)[0])[0] - c.ends[0]) / c.length
        for label, c in zip(shaft, found.courses, strict=True)
    ]
    return found, share


def at_places(one: NDArray[np.float64], other: NDArray[np.float64], share: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) by which places at this ``share`` (n,) of a rib are off even spacing, from those of its vertices (V,)."""
    return np.array([np.median((other - one)[np.abs(one - x) < NEAR]) for x in share])


def left(one: Subject, other: Subject, shaft: dict[int, Shaft]) -> dict[str, NDArray[np.float64]]:
    """(R,) mean mm that each way of knowing leaves at the stations of each rib of a pair of people."""
    (a, ours), (b, theirs) = (walked(q, shaft, n) for q, n in zip((one, other), SAMPLES, strict=True))
    a = replace(a, at=np.array([STATIONS * c.length for c in a.courses]))
    marks = Marks(np.arange(len(shaft)), a, b, 1.0)
    levels = np.array([bone(k).level for k in shaft])
    whole, as_long = np.full((len(shaft), 2), 2), (np.ones(len(shaft)), np.zeros(len(shaft)))
    right = np.array([bone(k).side == "right" for k in shaft])
    found = stations(marks, [None] * len(shaft), whole, as_long, levels, right)
    off: dict[str, list[float]] = {"even": [], "marks": [], "marks, smooth": [], "found": []}
    for i, (label, places) in enumerate(zip(shaft, found, strict=True)):
        curve = anatomy(one).curves[0 if bone(label).side == "left" else 1, bone(label).level]
        at = curve.landmark_arc(MARKS) / curve.length
        true, known = (b.courses[i].length * at_places(ours[i], theirs[i], q) for q in (STATIONS, at))
        x, y = np.r_[0.0, at, 1.0], np.r_[0.0, known, 0.0]
        assert places is not None
        guesses = (0.0, np.interp(STATIONS, x, y), PchipInterpolator(x, y)(STATIONS), places.shift)
        for name, guess in zip(off, guesses, strict=True):
            off[name].append(float(np.abs(guess - true).mean()))
    return {k: np.array(v) for k, v in off.items()}


def ribs_of(mesh: Mesh) -> dict[int, Shaft]:
    """The shafts of the phantom's ribs by label."""
    labels = np.array(mesh.labels, np.int64)
    return {int(labels[s.index]): s for s in shafts(mesh, labels, np.array([-np.inf, np.inf] * 3))}


def main() -> None:
    """Print the table."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--people", type=int, nargs=3, default=[3, 3, 7], metavar=("WOMEN", "MEN", "SEED"))
    people = draw_population(*p.parse_args().people)
    shaft = ribs_of(surface(people[0]))
    rows = [left(one, other, shaft) for one, other in permutations(people, 2)]
    for (one, other), row in zip(permutations(people, 2), rows, strict=True):
        cells = "  ".join(f"{k} {v.mean():.2f} ({v.max():.1f})" for k, v in row.items())
        sys.stdout.write(f"{one.subject} > {other.subject}:  {cells}\n")
    every = {k: np.array([r[k] for r in rows]) for k in rows[0]}
    mean = "  ".join(f"{k} {v.mean():.2f} ({v.max():.1f})" for k, v in every.items())
    sys.stdout.write(f"all {len(rows)}:  {mean}\n")


if __name__ == "__main__":
    main()
