"""Loose pieces at the front of a rib: its own goes on downwards, a clavicle rises from it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from shapemodel.anatomy import rib
from shapemodel.labels.ribs import attach_orphans

SPACING = (2.0, 1.5, 1.5)
RIB_2 = rib("left", 2)


def scene(rise_mm: float) -> tuple[SimpleNamespace, np.ndarray, np.ndarray]:
    """A rib that comes forwards 60 mm beside the canal and sinks, and 10 mm beyond its end a piece 50 mm long that runs
    on inwards and rises by ``rise_mm`` from end to end: work grid, components, ribs."""
    shape = (60, 100, 60)
    z, y, x = np.meshgrid(*(np.arange(n) * s for n, s in zip(shape, SPACING, strict=True)), indexing="ij")
    shaft = (np.hypot(x - 80.0, z - (60.0 + 0.2 * (y - 40.0))) < 4.0) & (y > 40.0) & (y < 140.0)
    away = 80.0 - x
    level = 58.0 + rise_mm * (away - 10.0) / 50.0
    piece = (np.hypot(y - 32.0, z - level) < 4.0) & (away > 10.0) & (away < 60.0)
    comps = np.where(piece, 2, np.where(shaft, 1, 0)).astype(np.int32)
    work = SimpleNamespace(
        voxel_ml=float(np.prod(SPACING)) / 1000.0,
        lung_mm=np.full(shape, 5.0, np.float32),
        mm=lambda index: np.asarray(index, dtype=float) * SPACING,
        canal=SimpleNamespace(at_z=lambda z_mm: np.tile([130.0, 20.0], (len(z_mm), 1))),
    )
    return work, comps, np.where(shaft, np.uint8(RIB_2), np.uint8(0))


@pytest.mark.parametrize(("rise_mm", "kept"), [(-12.0, True), (0.0, True), (40.0, False)])
def test_what_rises_from_a_rib_is_not_its_front(rise_mm: float, kept: bool) -> None:
    work, comps, ribs = scene(rise_mm)
    pieces = attach_orphans(work, comps, ribs)
    assert [label for component, _, label in pieces if component == 2] == [RIB_2 if kept else 0]
    assert (ribs[comps == 2] == RIB_2).all() == kept
