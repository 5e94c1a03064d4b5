"""Named difficult scans: one knob at a time, and all at once, on several people, for tables by knob."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from shapemodel.phantom.knobs import CTKnobs
from shapemodel.phantom.subject import Subject, draw_population

if TYPE_CHECKING:
    import SimpleITK as sitk

    from shapemodel.phantom.ct import PhantomCT

Level = Literal["plain", "middling", "hard"]

CASES: dict[str, tuple[Level, dict[str, Any]]] = {
    "slices_1mm": ("plain", {"slice_mm": 1.0}),
    "slices_2mm": ("plain", {}),
    "slices_3mm": ("middling", {"slice_mm": 3.0}),
    "slices_5mm": ("hard", {"slice_mm": 5.0}),
    "noise_low": ("plain", {"noise": "low"}),
    "noise_high": ("middling", {"noise": "high"}),
    "cut_above": ("middling", {"cut_above_mm": 18.0}),
    "cut_below": ("middling", {"cut_below_mm": 45.0}),
    "cut_both": ("middling", {"cut_above_mm": 10.0, "cut_below_mm": 70.0}),
    "contrast_150": ("middling", {"contrast_hu": 150.0}),
    "contrast_300": ("hard", {"contrast_hu": 300.0}),
    "calcified": ("middling", {"calcified": 0.35}),
    "fused": ("hard", {"calcified": 0.5, "fused": True}),
    "pairs_11": ("middling", {"n_pairs": 11}),
    "pairs_13": ("middling", {"n_pairs": 13}),
    "kyphosis": ("middling", {"kyphosis_deg": 62.0}),
    "effusion": ("hard", {"effusion": 0.35}),
    "arms_down": ("middling", {"arms": "down"}),
    "wires": ("middling", {"wires": 6}),
    "rotated": ("middling", {"rotate_deg": (6.0, -5.0, 12.0)}),
    "shifted": ("plain", {"shift_mm": (35.0, -25.0, 0.0)}),
    "thin_bone": ("hard", {"spongiosa_hu": 60.0, "cortex_scale": 0.65}),
    "padded": ("plain", {"padding_hu": -2000.0}),
    "everything": (
        "hard",
        {
            "slice_mm": 3.0,
            "noise": "high",
            "contrast_hu": 220.0,
            "fused": True,
            "calcified": 0.4,
            "wires": 5,
            "arms": "down",
            "effusion": 0.2,
            "rotate_deg": (4.0, 3.0, -8.0),
            "cut_below_mm": 30.0,
        },
    ),
}
"""Name -> how hard, and the knobs that differ from the defaults."""

VARIANTS = ("pairs_11", "pairs_13")
"""Cases whose anatomy is to be flagged, however well they are labelled."""

ORIENTATIONS = ("RAS", "RAI", "LPI", "PIR", "SLA", "ASL")
"""A sample of the 48 ways to store axes: flips alone, and permutations with flips."""


@dataclass(frozen=True)
class Case:
    """One scan of the suite.

    Attributes
    ----------
    name, level : what is difficult, and how much
    subject, knobs, seed : arguments of :func:`shapemodel.phantom.ct.render_ct`
    """

    name: str
    level: Level
    subject: Subject
    knobs: CTKnobs
    seed: int

    def render(self) -> PhantomCT:
        """The scan and its truth."""
        from shapemodel.phantom.ct import render_ct

        return render_ct(self.subject, self.knobs, self.seed)


def suite(people: int = 3, seed: int = 1) -> list[Case]:
    """All named cases on this many people each (women and men in turn), no person twice in one case.

    72 scans with the default of three; the same list for the same arguments.
    """
    half = max(4, people)
    drawn = draw_population(half, half, seed)
    mixed = [p for pair in zip(drawn[:half], drawn[half:], strict=True) for p in pair]
    out = []
    for i, (name, (level, changes)) in enumerate(CASES.items()):
        for j in range(people):
            who = mixed[(i * people + j) % len(mixed)]
            out.append(Case(name, level, who, replace(CTKnobs(), **changes), int(1000 * seed + 10 * i + j)))
    return out


def stored_as(image: sitk.Image, code: str) -> sitk.Image:
    """The same image with its axes stored along other directions, e.g. ``RAS``; no voxel moves in the patient."""
    import SimpleITK as sitk

    return sitk.DICOMOrient(image, code)
