"""Intake: what is on disk -> checked studies and CT volumes in Hounsfield units, axial LPS.

>>> from shapemodel.study import read_ct, scan_box, scan_folder
"""

from __future__ import annotations

from shapemodel.study.geometry import RESAMPLED, scan_box, to_axial
from shapemodel.study.record import Study
from shapemodel.study.scan import scan_folder
from shapemodel.study.volume import read_ct

__all__ = ["RESAMPLED", "Study", "read_ct", "scan_box", "scan_folder", "to_axial"]
