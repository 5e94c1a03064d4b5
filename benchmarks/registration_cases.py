"""Targets whose true correspondence is known, and real pairs whose truth is not; all kept as files in a work folder.

Targets are never the mesh that truth was computed on: every one is voxelised at CT sampling and meshed anew by
:func:`shapemodel.surfaces.labels_to_mesh`, as a scan's labels are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from shapemodel.mesh import Mesh, Points, read_vtp, vertex_normals, write_vtp
from shapemodel.phantom.raster import Grid, box_of, coverage
from shapemodel.phantom.subject import draw_population, mean_subject
from shapemodel.phantom.truth import closest, locate, material
from shapemodel.surfaces import labels_to_mesh
from shapemodel.template import TemplateSettings, compose_template, whole_bones

SPACING_MM = (0.7, 0.7, 2.0)
"""Voxels of the targets: a usual chest CT."""

MARGIN_MM = 6.0
CUT = 0.15
"""Part of the height that every second phantom target lacks below, as scans do."""

VERTICES = 45000
STORED_SIZES = (45000, 30000)


@dataclass(frozen=True)
class Case:
    """A target with the true position (V, 3) of each template vertex and whether it is visible (V,).

    ``clean`` is the target with true labels and without what does not belong to it: what wrong bones are judged by.
    """

    name: str
    template: Mesh
    target: Mesh
    truth: Points
    visible: NDArray[np.bool_]
    clean: Mesh


def stored(template: Path, files: Sequence[Path], size: int = 0) -> Iterator[Case]:
    """Cases from .npz files: ``V_n F_n L_n`` of a template; ``X XF XL fov G_n vis_n`` and ``tV tF tL`` of targets."""
    t = np.load(template)
    for path in files:
        c = np.load(path)
        n = size or next(n for n in STORED_SIZES if f"G_{n}" in c and f"V_{n}" in t)
        mesh = Mesh(t[f"V_{n}"], t[f"F_{n}"], t[f"L_{n}"])
        fov = np.array([-np.inf, np.inf, -np.inf, np.inf, *c["fov"]])
        target, clean = Mesh(c["X"], c["XF"], c["XL"], fov), Mesh(c["tV"], c["tF"], c["tL"], fov)
        name = f"{template.stem}/{path.stem}"
        yield Case(name, mesh, target, c[f"G_{n}"], c[f"vis_{n}"], clean)


def kept(path: Path, make: Callable[[], Mesh]) -> Mesh:
    """The mesh in this file, made when it is not there yet."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_vtp(make(), path)
    return read_vtp(path)


def voxelised(whole: Mesh, seed: int) -> tuple[NDArray[np.uint8], Grid]:
    """Labels (z, y, x) of closed surfaces on a CT grid of random phase; a little noise on the share of a voxel."""
    rng = np.random.default_rng(seed)
    spacing = np.array(SPACING_MM)
    low = whole.vertices.min(0) - MARGIN_MM - rng.uniform(0, 1, 3) * spacing
    size = np.ceil((whole.vertices.max(0) + MARGIN_MM - low) / spacing).astype(int)
    grid = Grid(tuple(low.tolist()), SPACING_MM, tuple(size.tolist()))
    best, labels = np.full(grid.shape, 0.5, np.float32), np.zeros(grid.shape, np.uint8)
    for label in whole.labels:
        v, f, _ = whole.select(label)
        box = box_of(v, grid, margin=1)
        if box is None:
            continue
        share = coverage(v, f, grid, box)
        share += (0.08 * rng.standard_normal(share.shape) * (share > 0) * (share < 1)).astype(np.float32)
        won = share > best[box]
        best[box][won] = share[won]
        labels[box][won] = label
    return labels, grid


def image(labels: NDArray[np.uint8], grid: Grid, first: int = 0) -> object:
    """The label map as an image, from its slice ``first`` upwards."""
    import SimpleITK as sitk

    out = sitk.GetImageFromArray(labels[first:])
    out.SetSpacing(grid.spacing)
    out.SetOrigin((*grid.origin[:2], grid.origin[2] + first * grid.spacing[2]))
    return out


Ball = tuple[NDArray[np.float64], float, int]


def near(grid: Grid, place: NDArray[np.float64], radius: float) -> tuple[tuple[slice, ...], NDArray[np.bool_]]:
    """Box (z, y, x) around a place and which of its voxels lie within the radius."""
    e = (place - grid.origin) / grid.spacing
    reach = radius / np.array(grid.spacing)
    lo, hi = np.maximum(np.floor(e - reach), 0).astype(int), np.minimum(np.ceil(e + reach) + 1, grid.size).astype(int)
    axes = [(np.arange(a, b) - c) * s for a, b, c, s in zip(lo, hi, e, grid.spacing, strict=True)]
    d2 = axes[2][:, None, None] ** 2 + axes[1][None, :, None] ** 2 + axes[0][None, None] ** 2
    z, y, x = (slice(int(a), int(b)) for a, b in zip(lo[::-1], hi[::-1], strict=True))
    return (z, y, x), d2.transpose(0, 1, 2) < radius**2


def faulty(labels: NDArray[np.uint8], grid: Grid, whole: Mesh, seed: int) -> tuple[NDArray[np.uint8], list[Ball]]:
    """A label map with the faults of automatic ones, and the balls of bone that are missing from it.

    Three rib heads are labelled as the vertebra, two pieces of 20 mm as the neighbouring rib, two pieces are
    missing, and six ribs go on into a stub of calcified cartilage.
    """
    rng = np.random.default_rng([seed, 1])
    out, gone = labels.copy(), []
    ribs = rng.permutation([k for k in whole.labels if k < 25])
    spine, front = whole.vertices[whole.bone >= 26], whole.vertices[whole.bone == 25].mean(0)
    for k in ribs[:3]:
        v = whole.select(int(k))[0]
        head = v[np.argmin(np.linalg.norm(v[:, None, :2] - spine[None, ::200, :2], axis=2).min(1))]
        owner = whole.bone[whole.bone >= 26][np.argmin(np.linalg.norm(spine - head, axis=1))]
        box, ball = near(grid, head, 12.0)
        out[box][ball & (labels[box] == k)] = owner
    for k in [k for k in ribs[3:] if k not in (12, 24)][:2]:
        v = whole.select(int(k))[0]
        box, ball = near(grid, v[rng.integers(len(v))], 12.0)
        out[box][ball & (labels[box] == k)] = k + 1
    for k in ribs[-2:]:
        v = whole.select(int(k))[0]
        place = v[rng.integers(len(v))]
        box, ball = near(grid, place, 15.0)
        out[box][ball & (labels[box] == k)] = 0
        gone.append((place, 15.0, int(k)))
    for k in [k for k in ribs[5:-2] if k not in (11, 12, 23, 24)][:6]:
        v = whole.select(int(k))[0]
        end = v[np.argmin(v[:, 1])]
        way = (front - end) / np.linalg.norm(front - end)
        for step in np.arange(0.0, rng.uniform(6.0, 22.0), 2.0):
            box, ball = near(grid, end + step * way, 4.0)
            out[box][ball & (out[box] == 0)] = k
    return out, gone


def scanned(name: str, folder: Path, whole: Mesh, how: tuple[int, bool, bool]) -> tuple[Mesh, Mesh, list[Ball]]:
    """(target, the same without faults, missing balls); ``how`` is (seed, cut below, faulty)."""
    seed, cut, wrong = how
    made: list[Ball] = []

    def make(faults: bool) -> Mesh:
        labels, grid = voxelised(whole, seed)
        if faults:
            labels, balls = faulty(labels, grid, whole, seed)
            made.extend(balls)
        return labels_to_mesh(image(labels, grid, int(CUT * labels.shape[0]) if cut else 0))

    kind = f"{'cut' if cut else 'whole'}"
    clean = kept(folder / f"target_{name}_{kind}.vtp", lambda: make(False))
    if not wrong:
        return clean, clean, []
    path = folder / f"target_{name}_{kind}_faulty"
    target = kept(path.with_suffix(".vtp"), lambda: make(True))
    if made:
        np.save(path.with_suffix(".npy"), np.array([[*p, r, k] for p, r, k in made]))
    balls = [(row[:3], float(row[3]), int(row[4])) for row in np.load(path.with_suffix(".npy"))]
    return target, clean, balls


def shown(truth: Points, bone: NDArray[np.uint8], fov: NDArray[np.float64], gone: list[Ball]) -> NDArray[np.bool_]:
    """(V,) points inside the scan and not in a missing piece of their bone."""
    out = ((truth > fov[0::2]) & (truth < fov[1::2])).all(1)
    for place, radius, label in gone:
        out &= (bone != label) | (np.linalg.norm(truth - place, axis=1) > radius)
    return out


def clean_template(surfaces: Mesh) -> Mesh:
    """One subject's own bones as the template stage makes them: apart from each other, remeshed, completed."""
    from shapemodel.phantom.shape import surface

    settings = TemplateSettings(target_vertices=VERTICES)
    return compose_template([surfaces], fallback=surface(mean_subject()), settings=settings).mesh


def phantom_pairs(folder: Path, women: int, men: int, seed: int, wrong: bool) -> Iterator[Case]:
    """Every ordered pair of phantom subjects; targets of every second subject are cut below."""
    from shapemodel.phantom.shape import surface

    people = draw_population(women, men, seed)
    for i, one in enumerate(people):
        key = f"{seed}_{one.subject}"
        template = kept(folder / f"template_{key}.vtp", lambda one=one: clean_template(surface(one)))
        points = material(one, template.vertices, template.bone)
        for j, other in enumerate(people):
            if i == j:
                continue
            target, clean, gone = scanned(f"{seed}_{other.subject}", folder, surface(other), (j, j % 2 == 1, wrong))
            truth = locate(other, points)
            name = f"{'faulty' if wrong else 'pair'}/{one.subject}>{other.subject}"
            yield Case(name, template, target, truth, shown(truth, template.bone, target.fov, gone), clean)


def waves(points: Points, rng: np.random.Generator, length: float, amplitude: float) -> Points:
    """(n, 3) smooth random displacement of this wavelength / 2 pi and standard deviation, mm."""
    w = rng.normal(size=(60, 3)) / length
    a = rng.normal(size=(60, 3)) * amplitude * np.sqrt(2 / 60)
    return np.asarray(np.cos(points @ w.T + rng.uniform(0, 2 * np.pi, 60)) @ a)


def another(whole: Mesh, seed: int) -> Points:
    """(V, 3) vertices of one person turned into another whose bones have other cross-sections, not a warp's alone.

    A smooth map of the whole, motion and size of each bone of its own, and a field along the normals that is a
    bone's own: ridges move, shafts thicken and thin. Nothing of it is drawn from the registration's own prior.
    """
    rng = np.random.default_rng([seed, 2])
    v, n, c = whole.vertices, vertex_normals(whole.vertices, whole.faces), whole.vertices.mean(0)
    out = np.empty_like(v)
    for label in whole.labels:
        own = whole.bone == label
        x, mid = v[own], v[own].mean(0)
        thick = waves(x, rng, 7.0, 0.7)[:, :1] + waves(x, rng, 20.0, 0.6)[:, :1]
        turn = Rotation.from_rotvec(np.deg2rad(2.0) * rng.normal(size=3))
        out[own] = turn.apply((x + n[own] * thick - mid) * rng.uniform(0.93, 1.07, 3)) + mid + 1.2 * rng.normal(size=3)
    out = out + waves(out, rng, 100.0, 10.0) + waves(out, rng, 40.0, 2.0)
    high = (out[:, 2] - c[2]) / np.ptp(out[:, 2])
    out = (out - c) * rng.uniform(0.9, 1.1, 3) + c
    out[:, 1] += rng.uniform(-25.0, 25.0) * high**2
    return np.asarray(Rotation.from_rotvec(np.deg2rad(5.0) * rng.normal(size=3)).apply(out - c) + c)


def reshaped(folder: Path, labels: Path, seeds: Sequence[int]) -> Iterator[Case]:
    """A real subject's bones against other shapes of themselves; odd seeds are faulty, every third is cut."""
    name = labels.name.removesuffix(".nii.gz")
    whole = kept(folder / f"surfaces_{name}.vtp", lambda: read_surfaces(labels))
    template = kept(folder / f"template_{name}.vtp", lambda: clean_template(whole))
    ours = sorted(whole_bones(whole) & set(template.labels))
    whole, template = only(whole, ours), only(template, ours)
    face, bary = np.zeros(len(template.vertices), np.int64), np.zeros((len(template.vertices), 3))
    for label in ours:
        own = template.bone == label
        face[own], bary[own], _ = closest(template.vertices[own], *whole.select(label)[:2])
    for seed in seeds:
        moved = whole.with_vertices(another(whole, seed))
        truth = np.empty_like(template.vertices)
        for label in ours:
            v, f, _ = moved.select(label)
            own = template.bone == label
            truth[own] = np.einsum("nk,nkd->nd", bary[own], v[f[face[own]]])
        how = (seed, seed % 3 == 2, seed % 2 == 1)
        target, clean, gone = scanned(f"{name}_{seed}", folder, moved, how)
        assert target.fov is not None
        seen = shown(truth, template.bone, target.fov, gone)
        yield Case(f"reshaped/{name}_{seed}", template, target, truth, seen, clean)


def read_surfaces(labels: Path) -> Mesh:
    """Surfaces of a label map file."""
    import SimpleITK as sitk

    return labels_to_mesh(sitk.ReadImage(str(labels)))


def only(mesh: Mesh, labels: Sequence[int]) -> Mesh:
    """These bones of a mesh."""
    from shapemodel.mesh import join

    return join({k: mesh.select(k)[:2] for k in labels}, mesh.fov)
