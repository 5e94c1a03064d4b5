"""What the labelling is told and what it returns: settings, overrides, flags, statuses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from shapemodel.reasons import Flag, flag_code

Arms = Literal["up", "down", "unknown"]
State = Literal["complete", "cut", "absent"]

NUMBERING = flag_code("numbering_weak", "the votes of the ribs for the vertebral level disagree")
PITCH = flag_code("rib_gap", "the distance between two ribs along the spine is unusual: one may be missing or double")
PAIRS = flag_code("rib_pairs", "left and right ribs differ in number or place, or there are not twelve pairs")
TOP = flag_code("top_unsure", "the scan does not show that the uppermost rib is the first")
DISC = flag_code("disc_unsure", "the discs were seen only weakly or are unevenly spaced")
CANAL = flag_code("canal_weak", "the spinal canal was followed with little bone around it")
ORPHAN = flag_code("orphan_piece", "a piece of bone at the cage belongs to no rib")
FUSED = flag_code("fused", "a bone was one piece with another and was parted")
RATIO = flag_code("side_ratio", "a rib and its mirror differ much in volume")
SHOULDER = flag_code(
    "shoulder_contact", "a rib reaches further from the lungs than ribs do: shoulder blade fused to it"
)
CARTILAGE = flag_code("cartilage_bridge", "calcified cartilage is fused with a rib or the sternum")
STERNUM_ODD = flag_code("sternum_odd", "the sternum is missing, unusually wide or far off the midline")
CONTRAST = flag_code("contrast", "vessels or heart are as bright as bone: contrast agent")
METAL = flag_code("metal", "a little metal in the scan: wires, clips, leads")
METAL_MUCH = flag_code("metal_much", "so much metal in the scan that its artefacts may hide bone")
EFFUSION = flag_code("lung_uneven", "one lung holds far less air than the other: effusion, collapse or resection")
FIELD = flag_code("field_of_view", "much of the thorax lies outside the scan")
VARIANT = flag_code("variant_pairs", "more or fewer than twelve ribs on a side were found inside the scan")
STUB = flag_code("stub", "under 10 mm of the bone lies in the scan: what is labelled of it is not to be judged")
PIECES = flag_code("pieces", "a bone came out in more than one piece")

REMARKS = frozenset({CONTRAST, METAL, FIELD, STUB})
"""Flags that state a fact of the scan and by themselves ask for no second look: with contrast agent of 150 and 300 HU,
six sternal wires, or tops and bottoms cut off, phantoms were numbered as right as without. What puts labels at risk in
such scans raises flags of its own."""


@dataclass(frozen=True)
class LabelSettings:
    """Parameters of the labelling; every length is mm, every value HU. One set serves all scans."""

    threshold_shift: float = 0.0
    min_rib_starts: int = 6


@dataclass(frozen=True)
class Overrides:
    """Corrections of one study by a person.

    ``threshold_shift`` HU added to both automatic thresholds; ``crop`` (xmin, xmax, ymin, ymax, zmin, zmax) mm
    LPS outside which nothing is labelled; ``seeds`` (x, y, z, label) mm LPS; ``relabel`` {from: to} after all
    else; ``exclude`` True leaves the study out.
    """

    threshold_shift: float = 0.0
    crop: tuple[float, float, float, float, float, float] | None = None
    seeds: tuple[tuple[float, float, float, int], ...] = ()
    relabel: Mapping[int, int] = field(default_factory=dict)
    exclude: bool = False


@dataclass(frozen=True)
class BoneStatus:
    """State of one bone: ``cut_faces`` of the scan that cut it (xmin .. zmax), ``confidence`` 0-1 that label and
    outline are right, ``volume_ml``, number of ``pieces``, and ``extent_mm``, the longest edge of its box."""

    status: State
    cut_faces: tuple[str, ...] = ()
    confidence: float = 0.0
    volume_ml: float = 0.0
    pieces: int = 0
    extent_mm: float = 0.0


@dataclass(frozen=True)
class Labelled:
    """The labelled scan.

    Attributes
    ----------
    image : SimpleITK uint8 image of label numbers (:mod:`shapemodel.anatomy`), geometry of the CT
    bones : status by label 1-37
    flags : what a reviewer should look at
    thresholds : low (outline of bone) and working (separation) HU
    lung_volume_ml : air of the lungs, to say how deep the breath was
    arms : up, down or unknown
    score : 0-1, how sure the whole labelling is
    measures : what the flags of the study were decided on, by name
    seconds : CPU seconds by step
    """

    image: Any
    bones: Mapping[int, BoneStatus]
    flags: tuple[Flag, ...]
    thresholds: tuple[float, float]
    lung_volume_ml: float
    arms: Arms
    score: float
    measures: Mapping[str, float] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def review(self) -> tuple[Flag, ...]:
        """The flags that ask for a second look: all but :data:`REMARKS`."""
        return tuple(f for f in self.flags if f.code not in REMARKS)
