"""Relief along a shaft: a mark is found from afar, nothing is made up where there is none, a cut is no squeeze."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from shapemodel.registration.ends import join
from shapemodel.registration.profile import SHIFTS, STEP_MM, Relief, relief, shift, unlike
from shapemodel.registration.stations import Places, doubted

LENGTH = 200.0


def rod(mark: float, seed: int, *, height: float = 1.5, low: float = 0.0, high: float = LENGTH) -> tuple:
    """(n,) places and (n, 2) offsets of points on a rod of 5 x 3 mm with a line across one side at ``mark`` mm."""
    rng = np.random.default_rng(seed)
    s, a = rng.uniform(low, high, 4000), rng.uniform(0, 2 * np.pi, 4000)
    r = 5.0 + height * np.exp(-0.5 * ((s - mark) / 4.0) ** 2) * np.exp(-0.5 * (np.minimum(a, 2 * np.pi - a) / 0.6) ** 2)
    return s, np.column_stack([r * np.cos(a), 0.6 * r * np.sin(a)]) + 0.1 * rng.normal(size=(4000, 2))


def found(ours: tuple, theirs: tuple, ends: tuple[float, float] = (1.5, 1.5)) -> tuple[NDArray, NDArray, NDArray]:
    """(n,) mm along the first rod, how far each row lies from there on the second, and how sure that is."""
    rows = int(LENGTH / STEP_MM) + 1
    off = -SHIFTS[0] + STEP_MM
    first = relief(*ours, rows)
    second = relief(theirs[0] + off, theirs[1], rows + int(2 * off / STEP_MM) + 1)
    mm = np.arange(rows) * STEP_MM
    return (mm, *shift(*unlike(first, second, (mm + off) / STEP_MM), ends))


@pytest.mark.parametrize("by", [-12.0, 9.0])
def test_a_mark_is_found_from_farther_than_it_is_wide(by: float) -> None:
    mm, mean, sd = found(rod(60.0, 1), rod(60.0 + by, 2))
    at = np.searchsorted(mm, 60.0)
    assert mean[at] == pytest.approx(by, abs=1.5)  # a row is 2 mm, a shift 1 mm
    assert sd[at] < 2.0 < sd[np.searchsorted(mm, 130.0)]
    assert abs(mean[[0, -1]]).max() < 2.0  # ends that are known stay


def test_without_marks_shafts_are_even_and_unsure() -> None:
    for seed in (1, 3, 5):
        _, mean, sd = found(rod(60.0, seed, height=0.0), rod(60.0, seed + 1, height=0.0))
        assert np.sqrt((mean**2).mean()) < 3.5  # the prior's own spread is 2.9 on average along 200 mm
        assert np.sqrt(((mean / sd) ** 2).mean()) < 2.0  # what it is off by is no surprise to it


def test_a_cut_rod_is_not_squeezed_into_what_is_left() -> None:
    mm, mean, sd = found(rod(60.0, 1), rod(66.0, 2, high=110.0), (1.5, 12.0))
    assert mean[np.searchsorted(mm, 60.0)] == pytest.approx(6.0, abs=1.5)
    assert abs(mean[-1] - 6.0) < sd[-1] < 12.0  # squeezing would need -90
    assert sd[-1] > 5.0


def test_what_is_nowhere_to_be_seen_says_nothing() -> None:
    empty = Relief(np.zeros((101, 16)), np.zeros(101))
    d2, there = unlike(empty, empty, np.arange(101.0))
    assert (there == 0).all()
    mean, _ = shift(d2, there, (1.5, 1.5))
    assert abs(mean).max() < 0.1


def test_a_rib_that_stands_out_is_doubted_and_its_neighbours_are_not() -> None:
    line = join(np.column_stack([np.linspace(0.0, 100.0, 11), np.zeros((11, 2))]))
    even = np.linspace(10.0, 90.0, 9)
    shifts = np.array([[6.0, 6.5, -8.0, 5.5, 6.0], [6.0, 7.0, 6.0, 6.0, 5.0]]).ravel()  # left, right
    ribs = [Places(line, (0.0, 100.0), even, np.full(9, k), np.full(9, 2.0), True) for k in shifts]
    found = [p.sd.max() for p in doubted([*ribs, None], np.array([*range(5), *range(5), 5])) if p is not None]
    assert found[2] > 12.0  # by what it differs
    assert max(found[:2] + found[3:]) < 2.5
    assert (ribs[2].sd == 2.0).all()
