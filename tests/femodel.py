"""A phantom population on one finite-element mesh, in true correspondence: what a perfect registration would give.

The mean phantom is remeshed as a template is; each of its vertices keeps its place between the same three vertices of
the phantom's surfaces, which are the same material points on everybody.
"""

from __future__ import annotations

from functools import lru_cache

import gpytoolbox
import numpy as np

from shapemodel.mesh import Mesh, Points
from shapemodel.phantom.shape import surface
from shapemodel.phantom.subject import draw_population, mean_subject
from shapemodel.population import Population
from shapemodel.remesh import RemeshSettings, remesh_bones


@lru_cache(maxsize=2)
def reference(edge_mm: float, tip_edge_mm: float) -> Mesh:
    """The mean phantom as a finite-element mesh."""
    whole = surface(mean_subject())
    settings = RemeshSettings(edge_mm=edge_mm, tip_edge_mm=tip_edge_mm)
    return remesh_bones({k: whole.select(k)[:2] for k in whole.labels}, settings=settings)


def places(mesh: Mesh, whole: Mesh) -> tuple[np.ndarray, np.ndarray]:
    """(V, 3) vertices of the phantom's surfaces around each vertex of a mesh, and their weights."""
    corners, weights = np.zeros((len(mesh.vertices), 3), int), np.zeros((len(mesh.vertices), 3))
    for label in mesh.labels:
        own = mesh.bone == label
        v, f, ids = whole.select(label)
        _, face, weights[own] = gpytoolbox.squared_distance(mesh.vertices[own], v, F=f.astype(np.int32), use_cpp=True)
        corners[own] = ids[f[face]]
    return corners, weights


def carried(shape: Points, corners: np.ndarray, weights: np.ndarray) -> Points:
    """(V, 3) the mesh's vertices on a subject."""
    return np.einsum("ij,ijk->ik", weights, shape[corners])


def population(mesh: Mesh, women: int, men: int, *, seed: int = 7) -> Population:
    """Phantom subjects on the mesh, complete."""
    corners, weights = places(mesh, surface(mean_subject()))
    people = draw_population(women, men, seed)
    shapes = np.stack([carried(surface(p).vertices, corners, weights) for p in people])
    return Population(
        shapes,
        np.ones(shapes.shape[:2], bool),
        tuple(p.subject for p in people),
        tuple(p.sex for p in people),
        mesh.faces,
        mesh.bone,
        np.zeros(len(mesh.vertices), bool),
        {k: np.array([getattr(p, k) for p in people]) for k in ("age_years", "height_cm", "weight_kg")},
    )
