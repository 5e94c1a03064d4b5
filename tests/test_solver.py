"""A real solver (CalculiX) reads the decks: mass, rigid modes and reactions are what mechanics says."""

import re
import shutil
import subprocess

import numpy as np
import pytest
import trimesh

from shapemodel.export import DeckInfo, make_deck, write_shape
from shapemodel.export.deck import DEFAULT_THICKNESS_MM
from shapemodel.mesh import Mesh, join

pytestmark = pytest.mark.skipif(shutil.which("ccx") is None, reason="no CalculiX (Debian: calculix-ccx)")

DENSITY_T_MM3 = 2e-9
LOAD_N = 10.0


def bar() -> Mesh:
    """A closed curved bar of 12 x 7 mm section and about 150 mm arc: a rib without its details."""
    n, m = 50, 16
    t = np.linspace(-0.9, 0.9, n)
    a = np.arange(m) * 2 * np.pi / m
    out = np.column_stack([np.sin(t), np.cos(t), np.zeros(n)])
    ring = 85 * out[:, None] + 3.5 * np.cos(a)[None, :, None] * out[:, None] + np.sin(a)[None, :, None] * [0, 0, 6.0]
    v = np.vstack([ring.reshape(-1, 3), ring[0].mean(0), ring[-1].mean(0)])
    i, j = np.meshgrid(np.arange(n - 1), np.arange(m), indexing="ij")
    p, q = (i * m + j).ravel(), (i * m + (j + 1) % m).ravel()
    f = np.vstack([np.column_stack([p, p + m, q]), np.column_stack([q, p + m, q + m])])
    k = np.arange(m)
    caps = [np.column_stack([k, (k + 1) % m, np.full(m, n * m)])]
    caps += [np.column_stack([(n - 1) * m + (k + 1) % m, (n - 1) * m + k, np.full(m, n * m + 1)])]
    solid = trimesh.Trimesh(v, np.vstack([f, *caps]), process=False)
    assert solid.is_watertight
    if solid.volume < 0:
        solid.invert()
    return join({6: (np.asarray(solid.vertices), np.asarray(solid.faces))})


def solve(mesh: Mesh, folder, steps: str, before: str = "") -> str:
    """Run CalculiX on the exported deck plus these steps; the text of its .dat file."""
    write_shape(mesh, folder / "x.inp", DeckInfo(units="mm-t-s"))
    with (folder / "x.inp").open("a") as f:
        f.write(before + steps)
    run = subprocess.run(["ccx", "-i", "x"], cwd=folder, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout[-2000:]
    assert "*ERROR" not in run.stdout
    return (folder / "x.dat").read_text()


def frequencies(dat: str) -> np.ndarray:
    """Frequencies in Hz; modes with a negative eigenvalue (rigid motion, round-off) count as zero."""
    rows = re.findall(r"^ +\d+ +(\S+) +(\S+) +(\S+) +(\S+)$", dat.split("P A R T I C")[0], re.M)
    return np.array([float(r[2]) for r in rows])


def test_thickness_lies_inside_the_surface(tmp_path):
    """Mass of a sphere of radius 10: mid-surface at 10 - t/2; 2 % for flat facets, outward would be 15 % more."""
    ball = trimesh.creation.icosphere(3, 10.0)
    m = join({6: (np.asarray(ball.vertices), np.asarray(ball.faces))})
    dat = solve(m, tmp_path, "*STEP\n*FREQUENCY\n8\n*END STEP\n")
    mass = float(re.search(r"TOTAL +(\S+)", dat.split("E F F E C T I V E")[1]).group(1))
    t = DEFAULT_THICKNESS_MM["rib"]
    assert mass == pytest.approx(4 * np.pi * (10 - t / 2) ** 2 * t * DENSITY_T_MM3, rel=0.02)


def test_free_rib_has_six_zero_modes(tmp_path):
    hz = frequencies(solve(bar(), tmp_path, "*STEP\n*FREQUENCY\n9\n*END STEP\n"))
    assert (hz[:6] < 1.0).all()
    assert hz[6] > 50.0


def test_three_point_bend_reaction_equals_load(tmp_path):
    m = bar()
    ids = make_deck(m).node_ids
    x = m.vertices[:, 0]
    low, high, middle = (
        ids[np.argsort(np.abs(x - at))[:6]] for at in (x.min() + 5, x.max() - 5, x[np.argmax(m.vertices[:, 1])])
    )
    sets = "".join(
        f"*NSET, NSET={name}\n{', '.join(map(str, s))}\n" for name, s in (("LOW", low), ("HIGH", high), ("MID", middle))
    )
    bc = "*BOUNDARY\nLOW, 1, 3\nHIGH, 1, 3\n"
    step = (
        f"*STEP\n*STATIC\n*CLOAD\nMID, 2, {-LOAD_N / len(middle)}\n"
        "*NODE PRINT, NSET=LOW, TOTALS=ONLY\nRF\n*NODE PRINT, NSET=HIGH, TOTALS=ONLY\nRF\n*END STEP\n"
    )
    dat = solve(m, tmp_path, step, before=sets + bc)
    totals = [list(map(float, line.split())) for line in re.findall(r"total force.*\n\n(.*)\n", dat)]
    assert len(totals) == 2
    assert np.sum(totals, axis=0)[1] == pytest.approx(LOAD_N, rel=1e-4)
    assert all(f[1] > 0.3 * LOAD_N for f in totals)
