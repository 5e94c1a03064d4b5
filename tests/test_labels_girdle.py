"""The shoulder girdle on a made-up rib and blade that touch."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from shapemodel.labels.girdle import split_girdle

SPACING = (2.0, 1.5, 1.5)


def test_the_tip_of_a_blade_near_the_lungs_is_no_rib() -> None:
    """A blade lies on a rib in a contact of partial volume; below the rib its tip comes to within 7.5 mm of the lungs,
    nearer than many ribs lie. The rib keeps all of itself, and none of the blade but the contact (one voxel)."""
    shape = (70, 50, 80)
    z, y, x = np.meshgrid(*(np.arange(n) * s for n, s in zip(shape, SPACING, strict=True)), indexing="ij")
    rib = (y < 7.0) & (np.abs(z - 60.0) < 6.0)
    sheet = (np.abs(x - 60.0) < 4.0) & (y < 55.0) & (z > 36.0) & (z < 130.0)
    blade = sheet & (y > np.where(z < 54.0, 7.4, 10.0))
    contact = sheet & (y >= 7.0) & (y <= 10.0) & (np.abs(z - 60.0) < 6.0) & ~blade
    hu = np.where(rib | blade, 450, np.where(contact, 210, 40)).astype(np.int16)
    work = SimpleNamespace(
        hu=hu,
        spacing=SPACING,
        voxel_ml=float(np.prod(SPACING)) / 1000.0,
        lung_mm=y.astype(np.float32),
        apex=69,
        limits=SimpleNamespace(low=160.0, working=220.0),
    )
    nothing = np.zeros(shape, bool)
    girdle = split_girdle(work, hu > 190, nothing, nothing)
    assert not (girdle & rib).any()
    assert (blade & ~girdle).sum() * work.voxel_ml < 0.02
    near = blade & (y < 9.0)
    assert near.sum() * work.voxel_ml > 0.1  # by its distance from the lungs alone this is rib
