"""How near each bone's surface is to the next bone: there the cortex reaches the surface, and joints are bright."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from shapemodel import anatomy
from shapemodel.mesh import Points
from shapemodel.phantom.scene import Scene

FAR_MM = 5.0
"""Distances beyond this are of no interest, and are given as this."""

NOWHERE_MM = 1e6
"""Of a point that stands for "no other bone"."""

THINNING = 2
"""Every how many vertices of the other bones are looked at; edges are 1.2-2 mm."""


def joint_distance(scene: Scene) -> dict[int, NDArray[np.float64]]:
    """Label -> (n,) mm from each vertex to the nearest bone of another group, at most FAR_MM.

    Groups are all ribs, the vertebrae of odd and of even level, the sternum, and the neighbours that are not of the
    model; ribs never touch each other, nor do vertebrae two levels apart.
    """
    groups: dict[str, list[int]] = {"rib": list(anatomy.RIBS), "sternum": [anatomy.STERNUM]}
    groups["odd"] = [anatomy.vertebra(k) for k in range(1, 13, 2)]
    groups["even"] = [anatomy.vertebra(k) for k in range(2, 13, 2)]
    bone, vertices = scene.bones.bone, scene.bones.vertices
    others: list[Points] = [v for v, _ in scene.others.values()]
    out = {}
    for name, labels in groups.items():
        rest = [vertices[np.isin(bone, k)] for g, k in groups.items() if g != name]
        tree = cKDTree(np.vstack([*rest, *others, np.full((1, 3), NOWHERE_MM)])[::-THINNING])
        for label in labels:
            near, _ = tree.query(vertices[bone == label], distance_upper_bound=FAR_MM)
            out[label] = np.minimum(near, FAR_MM)
    return out
