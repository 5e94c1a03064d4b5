"""Prongs: front ends of ribs that split in two.

Calcified cartilage goes on from the edges of a rib's front end as two spurs. A scan shows them as bone; a template
must not have them, since every later shape would.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse.csgraph import connected_components

from shapemodel.mesh import Faces, Points
from shapemodel.walks import edge_graph, far_ends, head_first, walk

END_MM = 30.0
"""The front end of a rib that is looked at."""

STEP_MM = 2.0
"""Places along it are looked at this far apart."""

PRONG_MM = 5.0
"""Two parts that both go on so far beyond the place where they split are prongs; a sound end's cup is shallower."""


def forked(vertices: Points, faces: Faces, spine: Points) -> bool:
    """Whether the front end of a rib, the one farther from ``spine`` (3,), splits into prongs."""
    edges = edge_graph(vertices, faces)
    along = walk(edges, head_first(far_ends(edges), vertices, spine[None])[0])
    for place in np.arange(along.max() - END_MM, along.max() - PRONG_MM, STEP_MM):
        own = np.flatnonzero(along > place)
        _, part = connected_components(edges[own][:, own], directed=False)
        reach = np.zeros(part.max() + 1)
        np.maximum.at(reach, part, along[own] - place)
        if (reach > PRONG_MM).sum() > 1:
            return True
    return False
