"""Labelled bones from a chest CT, without trained weights.

>>> from shapemodel.labels import label_bones
"""

from shapemodel.labels.pipeline import label_bones
from shapemodel.labels.records import BoneStatus, Labelled, LabelSettings, Overrides

__all__ = ["BoneStatus", "LabelSettings", "Labelled", "Overrides", "label_bones"]
