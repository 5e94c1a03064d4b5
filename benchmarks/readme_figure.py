"""The README's picture of the way to a deck: the mean woman beside her 5th percentile, front and left, one scale.

    python benchmarks/readme_figure.py demo/study/cohort/model_female.h5

Both shapes are as a deck has them, after the gate. Of phantoms only.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipelines import verbs
from shapemodel.mesh import Mesh
from shapemodel.query import query
from shapemodel.ready import insist
from shapemodel.render import View, beside, encode, picture

PATH = Path(__file__).resolve().parents[1] / "docs" / "images" / "female_p05.webp"
HEIGHT, CAPTION, ROOM = 380, 26, 8.0
PERCENTILE = 5
VIEWS: tuple[View, ...] = ("front", "left")


def captioned(image: np.ndarray, words: str) -> np.ndarray:
    """The picture with words under it."""
    made = Image.new("RGB", (image.shape[1], image.shape[0] + CAPTION), "white")
    made.paste(Image.fromarray(image))
    place = (made.width // 2, image.shape[0] + CAPTION // 2)
    ImageDraw.Draw(made).text(place, words, "black", ImageFont.load_default(15), anchor="mm")
    return np.asarray(made)


def centred(mesh: Mesh) -> Mesh:
    """The mesh with the middle of its box at the origin, so that both stand in the middle of one box."""
    return mesh.with_vertices(mesh.vertices - (mesh.vertices.min(axis=0) + mesh.vertices.max(axis=0)) / 2)


def main() -> None:
    """Draw and write."""
    fitted = verbs.read_model(sys.argv[1])
    finish = verbs.finisher(fitted)
    shapes = {
        f"mean of {fitted.n_subjects} women": verbs.mean(fitted),
        f"{PERCENTILE}th percentile of mode 1": query(fitted, mode=1, percentile=PERCENTILE)[0],
    }
    ready = {name: finish(mesh) for name, mesh in shapes.items()}
    for name, found in ready.items():
        insist(found, name)
    meshes = {name: centred(found.mesh) for name, found in ready.items()}
    half = np.max([np.abs(m.vertices).max(axis=0) for m in meshes.values()], axis=0) + ROOM
    box = np.array([-half, half])
    tiles = [
        captioned(picture(mesh, view, height=HEIGHT, box=box), f"{name}, {view}")
        for view in VIEWS
        for name, mesh in meshes.items()
    ]
    PATH.write_bytes(encode(beside(tiles)))


if __name__ == "__main__":
    main()
