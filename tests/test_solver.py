"""A real solver (CalculiX) reads the decks: mass, rigid modes and reactions are what mechanics says."""

import re
import shutil
import subprocess
from functools import lru_cache

import femodel
import numpy as np
import pytest
import trimesh

from shapemodel.export import DeckInfo, make_deck, write_shape
from shapemodel.export.deck import DEFAULT_THICKNESS_MM
from shapemodel.mesh import Mesh, join
from shapemodel.meshquality import SHAPE_GATE, assess
from shapemodel.remesh import remesh

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
    run = subprocess.run(["ccx", "-i", "x"], cwd=folder, capture_output=True, text=True, timeout=1200)
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


@lru_cache(maxsize=1)
def mean_rib() -> Mesh:
    """The left sixth rib of the mean phantom, meshed as a template is: 3 mm triangles."""
    from shapemodel.phantom.shape import surface
    from shapemodel.phantom.subject import mean_subject

    v, f, _ = surface(mean_subject()).select(6)
    mesh = join({6: remesh(v, f)})
    assert assess(mesh, SHAPE_GATE).passed
    return mesh


@pytest.mark.parametrize("shape", [bar, mean_rib])
def test_free_rib_has_six_zero_modes(tmp_path, shape):
    hz = frequencies(solve(shape(), tmp_path, "*STEP\n*FREQUENCY\n9\n*END STEP\n"))
    assert (hz[:6] < 1.0).all()
    assert hz[6] > 20.0  # the first bending mode of a rib of 300 mm lies at some tens of Hz


@pytest.mark.parametrize("shape", [bar, mean_rib])
def test_three_point_bend_reaction_equals_load(tmp_path, shape):
    """Held near both ends, pressed in the middle, from the front to the back."""
    m = shape()
    ids = make_deck(m).node_ids
    x, y = m.vertices[:, 0], m.vertices[:, 1]
    ends = (x.min() + 5, x.max() - 5) if shape is bar else (y.min() + 5, y.max() - 5)
    along = x if shape is bar else y
    top = x[np.argmax(y)] if shape is bar else (y.min() + y.max()) / 2
    low, high, middle = (ids[np.argsort(np.abs(along - at))[:6]] for at in (*ends, top))
    push = 2 if shape is bar else 1
    sets = "".join(
        f"*NSET, NSET={name}\n{', '.join(map(str, s))}\n" for name, s in (("LOW", low), ("HIGH", high), ("MID", middle))
    )
    step = (
        f"*STEP\n*STATIC\n*CLOAD\nMID, {push}, {-LOAD_N / len(middle)}\n"
        "*NODE PRINT, NSET=LOW, TOTALS=ONLY\nRF\n*NODE PRINT, NSET=HIGH, TOTALS=ONLY\nRF\n*END STEP\n"
    )
    dat = solve(m, tmp_path, step, before=sets + "*BOUNDARY\nLOW, 1, 3\nHIGH, 1, 3\n")
    total = np.array(totals(dat))
    assert len(total) == 2
    assert total.sum(axis=0)[push - 1] == pytest.approx(LOAD_N, rel=1e-4)
    assert (total[:, push - 1] > 0.05 * LOAD_N).all()


def totals(dat: str) -> list[list[float]]:
    """Total forces of the node sets that were asked for, in order."""
    return [list(map(float, line.split())) for line in re.findall(r"total force.*\n\n(.*)\n", dat)]


@pytest.mark.slow
def test_whole_mean_thorax_carries_its_load(tmp_path):
    """All 37 bones of a mean at full density in one deck: each held at three nodes and pressed; reaction = load."""
    m = femodel.reference(3.0, 2.0)
    assert assess(m, SHAPE_GATE).passed
    assert len(m.labels) == 37
    ids = make_deck(m).node_ids
    held, pressed = [], []
    for label in m.labels:
        own = np.flatnonzero(m.bone == label)
        v = m.vertices[own]
        a = int(np.argmin(v[:, 2]))
        b = int(np.argmax(np.linalg.norm(v - v[a], axis=1)))
        c = int(np.argmax(np.linalg.norm(np.cross(v - v[a], v[b] - v[a]), axis=1)))
        held += ids[own[[a, b, c]]].tolist()
        pressed.append(ids[own[np.argsort(np.linalg.norm(v - v[[a, b, c]].mean(axis=0), axis=1))[0]]])
    sets = "*NSET, NSET=HELD\n" + "".join(f"{i},\n" for i in held)
    load = "".join(f"{i}, 3, {-LOAD_N}\n" for i in pressed)
    step = f"*STEP\n*STATIC\n*CLOAD\n{load}*NODE PRINT, NSET=HELD, TOTALS=ONLY\nRF\n*END STEP\n"
    total = totals(solve(m, tmp_path, step, before=sets + "*BOUNDARY\nHELD, 1, 3\n"))
    assert total[0] == pytest.approx([0, 0, 37 * LOAD_N], abs=1e-3 * LOAD_N)


@pytest.mark.slow
def test_whole_mean_thorax_is_37_free_bodies(tmp_path):
    """A coarse mean of all bones in one deck, nothing held: six zero modes a bone, 222 in all, and no more."""
    m = femodel.reference(7.0, 6.0)
    hz = frequencies(solve(m, tmp_path, "*STEP\n*FREQUENCY\n225\n*END STEP\n"))
    assert (hz[:222] < 1.0).all()
    assert hz[222] > 10.0
