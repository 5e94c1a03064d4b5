"""Read a thorax shape model bundle (.npz) with NumPy alone. This one file may be copied anywhere.

>>> from read_shapemodel import load                       # doctest: +SKIP
>>> model = load("model_female.npz")                       # doctest: +SKIP
>>> bigger = model.instance([2.0])                         # doctest: +SKIP
>>> ids, vertices, faces = model.part("rib_left_07", bigger)  # doctest: +SKIP

Vertices are millimetres, LPS: x to the patient's left, y to the back, z to the head. Scores are standard
deviations: ``x = mean + sum_k scores[k] * sqrt(variances[k]) * modes[k]``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

FORMAT = "shapemodel-model"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Bundle:
    """A shape model.

    Attributes
    ----------
    mean : (V, 3) mm; modes : (K, V, 3) orthonormal; variances : (K,) mm2
    scores : (n, K) of the subjects, standard deviations
    faces : (F, 3), from 0; bone : (V,) label numbers; names : label number -> bone name
    n_seen : (V,) subjects that showed the vertex
    origin : (V,) 0 observed, 1 extrapolated, 2 the template's prior; sem : (V,) mm
    metadata : everything else that is known about the model
    """

    mean: np.ndarray
    modes: np.ndarray
    variances: np.ndarray
    scores: np.ndarray
    faces: np.ndarray
    bone: np.ndarray
    n_seen: np.ndarray
    origin: np.ndarray
    sem: np.ndarray
    names: dict[int, str]
    metadata: dict[str, Any]

    def instance(self, scores: Any) -> np.ndarray:
        """(V, 3) vertices for up to K scores in standard deviations."""
        b = np.asarray(scores, float).ravel()
        if len(b) > len(self.variances):
            raise ValueError(f"{len(b)} scores for a model of {len(self.variances)} modes")
        return self.mean + np.tensordot(b * np.sqrt(self.variances[: len(b)]), self.modes[: len(b)], 1)

    def scores_of(self, vertices: np.ndarray) -> np.ndarray:
        """(K,) scores of a complete shape that lies in the model's frame."""
        return self.modes.reshape(len(self.variances), -1) @ (vertices - self.mean).ravel() / np.sqrt(self.variances)

    def part(self, name: str, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Indices, vertices and faces of one bone, by name."""
        labels = [k for k, n in self.names.items() if n == name]
        if not labels:
            raise KeyError(f"no bone {name!r}; there are {', '.join(self.names.values())}")
        ids = np.flatnonzero(self.bone == labels[0])
        new = np.full(len(self.bone), -1)
        new[ids] = np.arange(len(ids))
        return ids, vertices[ids], new[self.faces[self.bone[self.faces[:, 0]] == labels[0]]]


def load(path: Any) -> Bundle:
    """Read a bundle; ValueError when the file is of another format or version."""
    with np.load(path, allow_pickle=False) as z:
        meta = json.loads(bytes(z["metadata"]).decode())
        if meta.get("format") != FORMAT or meta.get("version") != FORMAT_VERSION:
            raise ValueError(f"{path}: expected {FORMAT} version {FORMAT_VERSION}, found {meta.get('format')}")
        arrays = {k: z[k] for k in z.files if k != "metadata"}
    names = {int(k): n for k, n in meta["bones"].items()}
    return Bundle(**arrays, names=names, metadata=meta)
