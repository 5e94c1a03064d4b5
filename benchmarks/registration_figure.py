"""The figures of the docs, phantoms only: peers on the same truth; a template on other people."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import registration_cases as cases
import registration_peers
from registration_cases import Case

from shapemodel.mesh import Mesh
from shapemodel.registration import prepare, register
from shapemodel.render import Look, beside, encode, picture

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
SHOWN = 4
"""People in the picture of registered phantoms."""

RESIDUAL = Look("residual_mm", (0.0, 1.0), "viridis", "distance from the surface, mm", "visible")
ERROR = Look("error_mm", (0.0, 6.0), "inferno", "true error, mm", "visible")


def peers_chart(rows: list[dict[str, object]], path: Path) -> None:
    """Mean and 95th percentile of the true error of each method, best first, on a logarithmic scale."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names, mean = [str(r["method"]) for r in rows], np.array([float(str(r["mean"])) for r in rows])
    p95 = np.array([float(str(r["p95"])) for r in rows])
    figure, axes = plt.subplots(figsize=(7.5, 0.32 * len(rows) + 1.0), dpi=110)
    place = np.arange(len(rows))
    axes.barh(place, mean, color=["#2a788e" if n == "ours" else "#b5b5b5" for n in names])
    axes.plot(p95, place, "k|", markersize=9, label="95th percentile")
    axes.set(xscale="log", xlabel="true error of visible vertices, mm (median over cases)", yticks=place)
    axes.set_yticklabels(names)
    axes.invert_yaxis()
    axes.legend(frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, pil_kwargs={"quality": 90})
    plt.close(figure)


def registered(case: Case) -> Mesh:
    """The fitted template with its residual, what was seen, and its true error."""
    found = register(prepare(case.template), case.target)
    mesh = case.template.with_vertices(found.vertices)
    error = np.linalg.norm(found.vertices - case.truth, axis=1)
    return mesh.with_arrays(visible=found.visible, residual_mm=found.residual_mm, error_mm=error)


def draw(work: Path) -> None:
    """Write the figures into the docs."""
    from registration import Rows

    rows = registration_peers.table(Rows(work / "peers.csv"))
    if rows:
        peers_chart(rows, IMAGES / "registration_peers.webp")
    first: list[Case] = []
    for case in cases.phantom_pairs(work, 3, 3, 7, False):
        if len(first) == SHOWN:
            break
        first.append(case)
    fitted = [registered(case) for case in first]
    template = first[0].template
    half = max(np.ptp(m.vertices, axis=0).max() for m in [template, *fitted]) / 2
    box = np.array([[-half] * 3, [half] * 3])

    def view(mesh: Mesh, look: Look) -> np.ndarray:
        middle = (mesh.vertices.min(0) + mesh.vertices.max(0)) / 2
        return picture(mesh, height=420, look=look, box=box + middle)

    rows_of = [[view(template, Look()), *(view(m, look) for m in fitted)] for look in (RESIDUAL, ERROR)]
    strips = [beside(r) for r in rows_of]
    width = max(s.shape[1] for s in strips)
    padded = [np.pad(s, ((0, 8), (0, width - s.shape[1]), (0, 0)), constant_values=255) for s in strips]
    (IMAGES / "registration.webp").write_bytes(encode(np.vstack(padded)))
