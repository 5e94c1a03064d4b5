"""Label maps in and out: ours, TotalSegmentator's, 3D Slicer's, DICOM SEG, NumPy; and scenes for 3D Slicer.

>>> from shapemodel.labelmaps import SCHEMES, read_labels, write_labels
>>> SCHEMES
('shapemodel', 'totalsegmentator-v1', 'totalsegmentator-v2', 'slicer', 'dicom-seg')
"""

from __future__ import annotations

from shapemodel.labelmaps.io import read_labels, write_labels
from shapemodel.labelmaps.schemes import SCHEMES

__all__ = ["SCHEMES", "read_labels", "write_labels"]
