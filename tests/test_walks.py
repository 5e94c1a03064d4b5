"""Walks along edges, ends of long bones and rings of neighbours, on a rod and on triangles that can be counted."""

from __future__ import annotations

import numpy as np
import pytest

from shapemodel.walks import edge_graph, far_ends, grow, head_first, walk
from tests.test_prongs import rod

STRIP = np.array([[k, k + 1, k + 2] for k in range(6)])
"""A strip of six triangles on eight vertices."""


def two_rods() -> tuple[np.ndarray, np.ndarray]:
    v, f = rod(0.0)
    return np.vstack([v, v + [0, 50, 0]]), np.vstack([f, f + len(v)])


def test_a_walk_follows_the_surface() -> None:
    v, f = rod(0.0)
    along = walk(edge_graph(v, f), int(np.argmin(v[:, 0])))
    assert 80.0 <= along.max() < 105.0  # mm: the length, a section's width, and the detour along edges


@pytest.mark.parametrize("unreached", [None, 0.0])
def test_what_is_not_connected_gets_what_was_asked_for(unreached: float | None) -> None:
    v, f = two_rods()
    along = walk(edge_graph(v, f), 0, unreached=unreached)
    half = len(v) // 2
    assert (along[half:] == (along[:half].max() if unreached is None else unreached)).all()


def test_ends_of_a_rod_in_the_order_of_the_spine() -> None:
    v, f = rod(0.0)
    ends = far_ends(edge_graph(v, f))
    low, high = sorted(v[list(ends), 0])
    assert low < 7
    assert high > 84
    for spine in (np.array([[0.0, 10, 10]]), np.array([[0.0, 10], [200.0, 10]])):
        head, front = head_first(ends, v, spine)
        assert v[head, 0] < v[front, 0]
    assert v[head_first(ends, v, np.array([[100.0, 10, 10]]))[0], 0] > 84
    turned = v[:, [1, 0, 2]]
    assert turned[head_first(ends, turned, np.zeros((0, 3)))[0], 1] > 84  # farther back


def test_rings_begin_with_the_faces_themselves() -> None:
    mask = np.arange(6) == 0
    assert [grow(STRIP, mask, 8, rings).tolist() for rings in (1, 2, 4)] == [
        [0, 1, 2],
        [0, 1, 2, 3, 4],
        [0, 1, 2, 3, 4, 5, 6, 7],
    ]
    np.testing.assert_array_equal(grow(STRIP, np.array([0]), 8, 2), grow(STRIP, mask, 8, 2))
