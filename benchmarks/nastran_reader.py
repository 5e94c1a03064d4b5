"""Have an independent reader, pyNastran, read an exported .bdf in an environment of its own.

pyNastran pins old versions of what we use, so it is installed into a virtual environment in a temporary folder
(this needs the network)::

    python benchmarks/nastran_reader.py             # a rib of the mean phantom
    python benchmarks/nastran_reader.py SHAPE.vtp   # any shape

Nodes, elements, parts, thickness and material must be those of the shape.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import numpy as np

from shapemodel.export import make_deck, write_shape
from shapemodel.mesh import Mesh, join, read_vtp

READER = """
import json, sys
from pyNastran.bdf.bdf import read_bdf
m = read_bdf(sys.argv[1], xref=True, debug=False)
json.dump({
    "nodes": {i: list(n.get_position()) for i, n in m.nodes.items()},
    "elements": {i: [e.type, e.pid, list(e.node_ids)] for i, e in m.elements.items()},
    "thickness": {i: p.Thickness() for i, p in m.properties.items()},
    "mass": sum(e.Mass() for e in m.elements.values()),
}, open(sys.argv[2], "w"))
"""

PLACES_MM = 1e-6
"""Agreement of coordinates: those of a .bdf have about nine significant digits, on some hundred millimetres."""


def shape(argv: list[str]) -> Mesh:
    """The shape named on the command line, else a remeshed rib."""
    if argv:
        return read_vtp(argv[0])
    from shapemodel.phantom.shape import surface
    from shapemodel.phantom.subject import mean_subject
    from shapemodel.remesh import remesh

    v, f, _ = surface(mean_subject()).select(6)
    return join({6: remesh(v, f)})


def main() -> None:
    """Write, read by the other, compare."""
    mesh = shape(sys.argv[1:])
    deck = make_deck(mesh)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        venv.create(place / "env", with_pip=True)
        python = str(place / "env" / "bin" / "python")
        subprocess.run([python, "-m", "pip", "install", "-q", "pyNastran"], check=True)
        write_shape(mesh, place / "x.bdf")
        (place / "read.py").write_text(READER)
        subprocess.run([python, str(place / "read.py"), str(place / "x.bdf"), str(place / "x.json")], check=True)
        found = json.loads((place / "x.json").read_text())
    nodes = np.array([found["nodes"][str(i)] for i in deck.node_ids])
    gap = float(np.abs(nodes - mesh.vertices).max())
    same = len(found["nodes"]) == len(mesh.vertices) and len(found["elements"]) == len(mesh.faces)
    for i, pid, corners in zip(deck.element_ids, deck.element_pid, deck.elements, strict=True):
        same &= found["elements"][str(i)] == ["CTRIA3", int(pid), corners.tolist()]
    sys.stdout.write(
        f"{len(nodes)} nodes, largest difference {gap:.2g} mm; {len(mesh.faces)} CTRIA3, ids, parts and corners "
        f"{'the same' if same else 'DIFFER'}; thickness {sorted(set(found['thickness'].values()))}; "
        f"mass {found['mass']:.6g}\n"
    )
    if gap > PLACES_MM or not same:
        sys.exit("pyNastran does not read what was written")


if __name__ == "__main__":
    main()
