"""Groupwise rounds: how far the template still moves, and whether two starts end at the same mean.

    python benchmarks/groupwise.py [--work DIR] [--rounds 8] [--vertices 12000]

Six phantom people (three women, three men), every second cut below, as ``registration.py pairs`` scans them. Each of
two people is a first template, made as the template stage makes one; rounds go on from there. Printed: mean movement of
a round, along the normals and in all, mm; and how far the two means lie from each other after a similarity, mm, as the
mean distance from the seen vertices of each bone of the one to the same bone of the other, both ways.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

import numpy as np
from registration_cases import kept, scanned
from registration_scores import surface_distances

from shapemodel.groupwise import GroupwiseSettings, groupwise
from shapemodel.mesh import Mesh, vertex_areas, write_vtp
from shapemodel.overlay import size_fit
from shapemodel.phantom.shape import surface
from shapemodel.phantom.subject import draw_population, mean_subject
from shapemodel.registration import prepare, register
from shapemodel.template import Template, TemplateSettings, apply, compose_template

OVERLAYS = 40
"""Steps of nearest points that lay one mean on the other."""


def apart(one: Template, other: Template) -> float:
    """Mean mm from the seen surface of each mean to the other, laid on it."""
    area = vertex_areas(one.mesh.vertices, one.mesh.faces)
    placed = one.mesh
    for _ in range(OVERLAYS):  # each has the frame of its first template
        near = np.empty_like(placed.vertices)
        for k in placed.labels:
            near[placed.bone == k] = _nearest(placed, other.mesh, k)
        placed = one.mesh.with_vertices(apply(size_fit(placed.vertices, near, area), placed.vertices))
    both = []
    for a, b, prior in ((placed, other.mesh, one.prior), (other.mesh, placed, other.prior)):
        for k in a.labels:
            v, f, _ = b.select(k)
            own = (a.bone == k) & ~prior
            if own.any():
                both.append(surface_distances(a.vertices[own], v, f))
    return float(np.concatenate(both).mean())


def _nearest(one: Mesh, other: Mesh, label: int) -> np.ndarray:
    from shapemodel.phantom.truth import closest

    v, f, _ = other.select(label)
    face, bary, _ = closest(one.select(label)[0], v, f)
    return np.einsum("nk,nkd->nd", bary, v[f[face]])


def main() -> None:
    """Run both starts and print."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--work", type=Path, default=Path("build/registration"))
    p.add_argument("--rounds", type=int, default=8)
    p.add_argument("--vertices", type=int, default=12000)
    o = p.parse_args()
    people = draw_population(3, 3, 7)
    targets = [scanned(f"7_{q.subject}", o.work, surface(q), (j, j % 2 == 1, False))[0] for j, q in enumerate(people)]
    settings = TemplateSettings(target_vertices=o.vertices)
    means = []
    for i in (0, 4):
        first = kept(
            o.work / f"start_{o.vertices}_{people[i].subject}.vtp",
            partial(_start, surface(people[i]), settings),
        )
        done = groupwise(
            Template(first, np.zeros(len(first.vertices), bool)),
            targets,
            register,
            prepare=prepare,
            settings=GroupwiseSettings(rounds=o.rounds),
        )
        moved = "  ".join(
            f"{along:.3f}/{every:.3f}" for along, every in zip(done.surface_mm, done.moved_mm, strict=True)
        )
        sys.stdout.write(f"start {people[i].subject}: along normals/all, mm a round: {moved}\n")
        sys.stdout.flush()
        write_vtp(done.template.mesh, o.work / f"mean_{o.vertices}_{people[i].subject}.vtp")
        means.append(done.template)
    sys.stdout.write(f"the two means lie {apart(*means):.3f} mm apart\n")


def _start(whole: Mesh, settings: TemplateSettings) -> Mesh:
    return compose_template([whole], fallback=surface(mean_subject()), settings=settings).mesh


if __name__ == "__main__":
    main()
