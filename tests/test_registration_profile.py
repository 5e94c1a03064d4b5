"""Relief along a shaft: a mark is found from afar, nothing is made up where there is none, a cut is no squeeze."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from shapemodel.mesh import Mesh, vertex_normals
from shapemodel.phantom.tube import tube
from shapemodel.registration.ends import LEAST_SAMPLES, RIM_MM, RibSurface, Shaft, agree, join, reach, shafts
from shapemodel.registration.profile import RELIEF_MM, ROWS, Relief, about, relief, shift, unlike
from shapemodel.registration.stations import PASSES, Course, Places, doubted, marks, of_neighbours, own_markings, read
from shapemodel.registration.target import bulged, draw

LENGTH = 200.0


def rod(mark: float, seed: int, *, height: float = 1.5, low: float = 0.0, high: float = LENGTH) -> tuple:
    """(n,) places and (n, 2) offsets of points on a rod of 5 x 3 mm with a line across one side at ``mark`` mm."""
    rng = np.random.default_rng(seed)
    s, a = rng.uniform(low, high, 4000), rng.uniform(0, 2 * np.pi, 4000)
    r = 5.0 + height * np.exp(-0.5 * ((s - mark) / 4.0) ** 2) * np.exp(-0.5 * (np.minimum(a, 2 * np.pi - a) / 0.6) ** 2)
    return s, np.column_stack([r * np.cos(a), 0.6 * r * np.sin(a)]) + 0.1 * rng.normal(size=(4000, 2))


def found(ours: tuple, theirs: tuple, ends: tuple[float, float] = (1.5, 1.5)) -> tuple[NDArray, NDArray, NDArray]:
    """(n,) mm midway between two rods, the shift of the second against the first there, and how sure that is, by as
    many looks as the registration takes."""
    maps = [relief(np.zeros(len(s), np.int64), s, across, np.array([LENGTH])) for s, across in (ours, theirs)]
    length = np.array([LENGTH])
    d2, there = about(unlike(maps[0], maps[1], np.array([length, length]), np.zeros(1)), np.zeros((1, ROWS)))
    variance = None
    for _ in range(1 + PASSES):
        mean, sd, variance = shift(d2, there, length, np.array([ends]), variance)
    return np.linspace(0.0, LENGTH, ROWS), mean[0], sd[0]


@pytest.mark.parametrize("by", [-12.0, 9.0])
def test_a_mark_is_found_from_farther_than_it_is_wide(by: float) -> None:
    mm, mean, sd = found(rod(60.0, 1), rod(60.0 + by, 2))
    at = np.searchsorted(mm, 60.0 + 0.5 * by)
    assert mean[at] == pytest.approx(by, abs=1.5)  # a row of a map is 2 mm, a shift 1 mm
    assert sd[at] < 2.0 < sd[np.searchsorted(mm, 130.0)]
    assert abs(mean[[0, -1]]).max() < 2.0  # ends that are known stay


def test_the_relief_of_one_bone_is_believed_more_than_that_of_two() -> None:
    """Two noisy maps of one rough rib differ by their noise, 0.14 mm, and by that they are compared: taken for alike by
    chance, by 0.22. Maps of two ribs are compared by what two people's differ by."""
    rng = np.random.default_rng(0)
    own, other = 0.3 * rng.normal(size=(2, 1, 103, 16))
    there = np.ones((1, 103), np.float32)
    one, again, two = (
        Relief((x + 0.1 * rng.normal(size=x.shape)).astype(np.float32), there) for x in (own, own, other)
    )
    length, usual = np.array([LENGTH]), np.zeros((1, ROWS))
    differ = []
    for theirs in (again, two):
        d2, shown = about(unlike(one, theirs, np.array([length, length]), np.zeros(1)), usual)
        differ.append(shift(d2, shown, length, np.array([[1.5, 1.5]]))[2])
    assert np.sqrt(np.median(differ[0])) == pytest.approx(0.14, rel=0.2)
    assert np.sqrt(np.median(differ[1])) == pytest.approx(RELIEF_MM[1], rel=0.2)


def test_two_rods_exchanged_have_the_opposite_shift() -> None:
    one, two = rod(60.0, 1), rod(67.0, 2)
    _, there, sd = found(one, two)
    _, back, _ = found(two, one)
    np.testing.assert_allclose(there, -back, atol=1e-6 * sd.max())


def test_without_marks_shafts_are_even_and_unsure() -> None:
    for seed in (1, 3, 5):
        _, mean, sd = found(rod(60.0, seed, height=0.0), rod(60.0, seed + 1, height=0.0))
        assert np.sqrt((mean**2).mean()) < 3.5  # the prior's own spread is 3.3 on average along 200 mm
        assert np.sqrt(((mean / sd) ** 2).mean()) < 2.0  # what it is off by is no surprise to it


def test_a_cut_rod_is_not_squeezed_into_what_is_left() -> None:
    mm, mean, sd = found(rod(60.0, 1), rod(66.0, 2, high=110.0), (1.5, 12.0))
    assert mean[np.searchsorted(mm, 63.0)] == pytest.approx(6.0, abs=1.5)
    assert abs(mean[-1] - 6.0) < sd[-1] < 12.0  # squeezing would need -90
    assert sd[-1] > 5.0


def test_what_is_nowhere_to_be_seen_says_nothing() -> None:
    empty = Relief(np.zeros((1, 101, 16), np.float32), np.zeros((1, 101), np.float32))
    d2, there = about(unlike(empty, empty, np.full((2, 1), LENGTH), np.zeros(1)), np.zeros((1, ROWS)))
    assert (there == 0).all()
    mean, _, _ = shift(d2, there, np.array([LENGTH]), np.array([[1.5, 1.5]]))
    assert abs(mean).max() < 0.1


def test_a_rib_that_stands_out_is_doubted_and_its_neighbours_are_not() -> None:
    line = join(np.column_stack([np.linspace(0.0, 100.0, 11), np.zeros((11, 2))]))
    course = Course(line, np.array([0.0, 100.0]))
    even = np.linspace(10.0, 90.0, 9)
    shifts = np.array([[6.0, 6.5, -8.0, 5.5, 6.0], [6.0, 7.0, 6.0, 6.0, 5.0]]).ravel()  # left, right
    ribs = [Places(course, 1.0, even, np.full(9, k), np.full(9, 2.0), True) for k in shifts]
    found = [p.sd.max() for p in doubted([*ribs, None], np.array([*range(5), *range(5), 5])) if p is not None]
    assert found[2] > 12.0  # by what it differs
    assert max(found[:2] + found[3:]) < 2.5
    assert (ribs[2].sd == 2.0).all()


def test_a_rib_without_marks_is_shifted_as_those_around_it() -> None:
    levels, right = np.array([*range(5), *range(5)]), np.arange(10) > 4
    shifts, sd = np.full((10, 4), 6.0), np.full((10, 4), 1.5)
    shifts[2], sd[2] = 0.0, 5.0  # it has no mark: even, and unsure
    usual = of_neighbours(shifts, sd, np.ones(10, bool), levels, right)
    assert (abs(usual[2] - 6.0) < 0.3).all()  # drawn to even spacing by next to nothing
    assert (abs(usual[7] - 6.0) < 1.5).all()  # its opposite number counts, but little
    assert (of_neighbours(shifts, sd, np.zeros(10, bool), levels, right) == 0).all()  # nothing known: even


def test_the_cut_of_a_short_piece_does_not_make_its_head_a_cut_too() -> None:
    y = np.linspace(0.0, -120.0, 61)
    rod, faces = tube(
        np.column_stack([np.zeros((61, 1)), y, np.zeros(61)]), np.full((61, 2), 4.0), np.array([0, 0, 1.0])
    )
    shaft = shafts(Mesh(rod, faces, np.full(len(rod), 12, np.uint8)), np.array([12]), np.array([-np.inf, np.inf] * 3))[
        0
    ]
    depth = -rod[:, 1]
    piece = RibSurface(
        rod[depth < 3.0], rod[(depth >= 3.0) & (depth < 7.0)], rod[depth < 3.0]
    )  # the scan ends behind 7 mm
    head, front = reach(shaft, rod, piece).rim
    assert head > RIM_MM[0] > front  # all of the cut is within 8 mm of the head, and belongs to the other end


def test_a_piece_too_short_for_a_line_of_its_own_has_no_places() -> None:
    y = np.linspace(0.0, -120.0, 61)
    rod, faces = tube(
        np.column_stack([np.zeros((61, 1)), y, np.zeros(61)]), np.full((61, 2), 4.0), np.array([0, 0, 1.0])
    )
    mesh = Mesh(rod, faces, np.full(len(rod), 12, np.uint8))
    shaft = shafts(mesh, np.array([12]), np.array([-np.inf, np.inf] * 3))
    face, bary = draw(rod, faces, 3000)
    points = np.einsum("mk,mkd->md", bary, rod[faces[face]])
    own = own_markings(mesh, vertex_normals(rod, faces), shaft)
    for depth, known in ((7.0, 0), (20.0, 0), (60.0, 1)):  # one and two pieces of a line have no direction of their own
        near = points[-points[:, 1] < depth]
        assert len(near) >= LEAST_SAMPLES
        assert len(marks(own, shaft, [RibSurface(near, np.zeros((0, 3)), near)], rod, 1.0).rib) == known


def ridged(step: float) -> Mesh:
    """A tube of 5 mm with three ridges of 0.5 mm, meshed at about ``step`` mm."""
    y = np.linspace(0.0, -120.0, round(120.0 / step) + 1)
    size = 5.0 + 0.5 * np.exp(-0.5 * ((-y[:, None] - [30.0, 60.0, 90.0]) / 2.5) ** 2).sum(1)
    v, f = tube(np.column_stack([0 * y, y, 0 * y]), np.column_stack([size, size]), np.array([0, 0, 1.0]))
    return Mesh(v, f, np.full(len(v), 12, np.uint8))


def test_points_of_a_coarse_mesh_lie_on_the_surface_that_it_stands_for() -> None:
    mesh = ridged(3.0)
    face, bary = draw(mesh.vertices, mesh.faces, 4000)
    corner = mesh.faces[face]
    flat = np.einsum("mk,mkd->md", bary, mesh.vertices[corner])
    points = bulged(mesh.vertices, vertex_normals(mesh.vertices, mesh.faces), corner, bary)
    shaft = (np.abs(-flat[:, 1] - 45.0) < 6.0) | (np.abs(-flat[:, 1] - 75.0) < 6.0)  # 5 mm, between ridges
    off = [np.abs(np.hypot(x[shaft, 0], x[shaft, 2]) - 5.0).mean() for x in (flat, points)]
    assert off[1] < 0.5 * off[0]


def test_a_rib_reads_the_same_whichever_mesh_it_comes_from() -> None:
    """Relief of 0.15 mm is a mark, so two meshings of one rib must not differ by half of it."""
    maps = []
    for step, count in ((3.0, 12000), (1.0, 8000)):
        mesh = ridged(step)
        face, bary = draw(mesh.vertices, mesh.faces, count)
        normals = vertex_normals(mesh.vertices, mesh.faces)
        points = bulged(mesh.vertices, normals, mesh.faces[face], bary)
        maps.append(read(shafts(mesh, np.array(mesh.labels), np.tile([-np.inf, np.inf], 3)), [points], [-points[:, 1]]))
    assert maps[0].courses[0].length == pytest.approx(maps[1].courses[0].length, abs=0.3)
    rows = min(m.relief.height.shape[1] for m in maps)
    both = np.logical_and(*(m.relief.there[0, :rows] > 0.9 for m in maps))
    one, two = (m.relief.height[0, :rows][both] for m in maps)
    assert two.max() > 0.2  # the ridges
    assert abs(one - two).max() < 0.07


def test_the_ends_of_a_pair_may_agree_with_each_other_alone() -> None:
    """First ribs are long or short together, whatever those below are; one alone that stands out is not believed."""
    levels = np.array([*range(5), *range(5)])
    right = np.repeat([False, True], 5)
    pull = np.array([20.0, 1.0, 0.0, 1.0, -1.0, 22.0, 2.0, 1.0, 0.0, -15.0])
    good = agree(pull, np.ones(10, bool), levels, right, 8.0)
    assert good[[0, 5]].all()
    assert not good[9]
    assert good[[1, 2, 3, 4, 6, 7, 8]].all()
    alone = agree(pull, np.arange(10) != 5, levels, right, 8.0)
    assert not alone[0]
    assert not alone[5]


def board(notches: NDArray[np.float64], seed: int, short: float = 0.0) -> NDArray[np.float64]:
    """(n, 3) points of a plate of 40 x 10 x 160 mm, ``short`` mm less on one side, with notches in both edges."""
    rng = np.random.default_rng(seed)
    z, turn = rng.uniform(0.0, 160.0, 12000), rng.uniform(0, 2 * np.pi, 12000)
    x = 20.0 * np.cos(turn)
    deep = 2.5 * np.exp(-0.5 * ((z[:, None] - notches) / 4.0) ** 2).sum(1) * np.abs(np.cos(turn)) ** 3
    out = np.column_stack([x - np.sign(x) * deep, 5.0 * np.sin(turn), -z])
    return out[(z > short * (0.5 + x / 40.0)) & (z < 160.0)]


def test_a_plate_is_read_along_its_axis_and_its_notches_are_found() -> None:
    """Of a plate 40 mm wide, the line through its pieces bends with its outline by more than its notches are deep."""
    plates = [board(np.array([30.0, 58.0, 90.0, 125.0]) + by, seed) for seed, by in ((1, 0.0), (2, 5.0))]
    none, both = np.zeros(0, int), (True, True)
    shaft = Shaft(0, none, none, none * 0.0, (none, none), both, both, none.reshape(0, 8), none * 0.0, 160.0, True)
    maps = [read([shaft], [x], [-x[:, 2]]) for x in plates]
    assert [m.courses[0].length for m in maps] == pytest.approx([159.0, 159.0], abs=1.0)
    lengths = np.array([[m.courses[0].length] for m in maps])
    d2, there = about(unlike(maps[0].relief, maps[1].relief, lengths, np.zeros(1)), np.zeros((1, ROWS)))
    variance = None
    for _ in range(1 + PASSES):
        mean, _, variance = shift(d2, there, lengths.mean(0), np.array([[1.5, 1.5]]), variance)
    middle = slice(ROWS // 4, 3 * ROWS // 4)
    assert mean[0, middle] == pytest.approx(5.0, abs=1.0)
    askew = read([shaft], [board(np.array([60.0]), 3, short=25.0)], [-board(np.array([60.0]), 3, short=25.0)[:, 2]])
    way = askew.courses[0].line.tangents
    assert np.ptp(way, axis=0).max() < 1e-9
    assert way[0, 2] < -0.98
