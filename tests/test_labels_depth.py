"""Front and back of a made-up sternum: found where its cortices lie, not where vessels, wires or clavicles do."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from shapemodel.labels.depth import bone_map, cortex_map, find_surfaces

SPACING = (2.0, 1.5, 1.5)
MIDDLE_MM, HALF_MM, THICK_MM = 90.0, 20.0, 12.0
LOW, TISSUE = 160.0, 50.0


def chest(cortex_hu: int, *, vessel: bool = False, wire: bool = False) -> tuple[SimpleNamespace, np.ndarray]:
    """A plate 12 mm thick that leans by 1 mm per 4 mm of height, its cortex 3 mm; its (Z,) front in mm. Behind it, at
    3 mm, a vessel as bright as contrast agent makes it; before it a wire."""
    shape = (60, 80, 120)
    z, y, x = np.meshgrid(*(np.arange(n) * s for n, s in zip(shape, SPACING, strict=True)), indexing="ij")
    front = 40.0 + 0.25 * z
    depth = y - front
    hu = np.full(shape, 50.0)
    hu[y < front - 15.0] = -100.0
    plate = (depth >= 0) & (depth < THICK_MM) & (np.abs(x - MIDDLE_MM) < HALF_MM)
    hu[plate] = 90.0
    hu[plate & ((depth < 3.0) | (depth >= THICK_MM - 3.0))] = cortex_hu
    if vessel:
        hu[depth > THICK_MM + 3.0] = 300.0
    if wire:
        hu[(np.abs(depth + 4.0) < 1.0) & (np.abs(z - 60.0) < 2.0)] = 3000.0
    work = SimpleNamespace(
        hu=hu.astype(np.int16),
        spacing=SPACING,
        factor=(1, 1, 1),
        body=np.ones(shape, bool),
        limits=SimpleNamespace(low=LOW, tissue=TISSUE),
    )
    return work, front[:, 0, 0]


def surfaces(work: SimpleNamespace):
    n = len(work.hu)
    return find_surfaces(work, np.full(n, MIDDLE_MM), np.full(n, HALF_MM), np.full(n, 60.0))


@pytest.mark.parametrize("cortex_hu", [350, 140])
@pytest.mark.parametrize("beyond", [{}, {"vessel": True}, {"wire": True}])
def test_surfaces_lie_on_the_cortices(cortex_hu: int, beyond: dict[str, bool]) -> None:
    """Also of a cortex darker than the outline of bone, before a brighter vessel, behind a wire: to a row of 1.5 mm."""
    work, front = chest(cortex_hu, **beyond)
    found = surfaces(work)
    inner = slice(5, -5)  # smoothing leaves the ends alone
    strips = np.abs(found.offset) < HALF_MM - 2.5
    assert np.percentile(np.abs(found.front[inner, strips] + 0.75 - front[inner, None]), 95) < 1.5
    assert np.percentile(np.abs(found.back[inner, strips] + 0.75 - front[inner, None] - THICK_MM), 95) < 1.5


def test_a_thin_cortex_is_told_from_what_lies_beside_it_where_its_hu_is_not() -> None:
    work, _ = chest(140, vessel=True)
    found = surfaces(work)
    beside = np.tile(np.arange(120) * 1.5 - MIDDLE_MM, (60, 1))
    bright = cortex_map(work, found, beside)
    own, other = np.abs(beside) < HALF_MM - 4.0, (np.abs(beside) > HALF_MM + 6.0) & (np.abs(beside) < HALF_MM + 15.0)
    assert np.percentile(bright[5:-5][own[5:-5]], 5) > 0.6  # the cortex is (140 - 50) / (160 - 50) = 0.8
    assert np.percentile(bright[5:-5][other[5:-5]], 50) < 0.3
    assert np.median(bone_map(work, found, beside)[5:-5][own[5:-5]]) == 0.0  # none of it is above the outline
