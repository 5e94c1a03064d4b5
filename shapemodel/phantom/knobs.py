"""What can be set about a phantom CT: the scanner, the patient's place in it, and what makes scans difficult."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from shapemodel.reasons import InputError

NoiseLevel = Literal["low", "middle", "high"]

NOISE_HU: dict[str, float] = {"low": 9.0, "middle": 17.0, "high": 32.0}
"""Standard deviation in soft tissue of an average body; 15-17 HU in the four real CTs (2 mm, medium kernel)."""


@dataclass(frozen=True)
class CTKnobs:
    """Settings of one phantom scan; the defaults are an easy scan of middling quality.

    Attributes
    ----------
    slice_mm, pixel_mm, matrix : thickness (= distance) of slices, pixel size, pixels a side
    noise : level of image noise, see :data:`NOISE_HU`
    blur_mm : full width at half maximum of the in-plane point spread
    cut_above_mm, cut_below_mm : how far the scan ends inside the thorax (measured from the top of T1 and
        ribs 1, and from the lowest of ribs and T12); negative: so much room beyond it
    arms : raised above the head, as in most chest CTs, or beside the body
    contrast_hu : enhancement of heart, aorta and vessels; 0 is a plain scan, 150-300 is usual
    calcified : share of costal cartilage that is calcified, 0-1; None: by age and sex
    fused : calcified cartilage bridges the joints to rib and sternum
    effusion : share of the depth of the chest (0-1) that pleural fluid fills from the back
    wires : sternal wires, with their streaks
    rotate_deg : turns of the patient about x, y, z (about the centre of the bones, in this order)
    shift_mm : the patient off the centre of the field of view, x, y, z
    spongiosa_hu : HU of vertebral spongiosa; None: by age and sex
    cortex_scale : factor on the thickness of all cortices (osteoporosis < 1)
    n_pairs, kyphosis_deg : replace those of the subject when given (11 or 13 pairs; degrees)
    couch : the couch is in the image
    padding_hu : value outside the circle of reconstruction, e.g. -2000 or -1024; None: the square is filled
    """

    slice_mm: float = 2.0
    pixel_mm: float = 0.75
    matrix: int = 512
    noise: NoiseLevel = "middle"
    blur_mm: float = 1.2
    cut_above_mm: float = -12.0
    cut_below_mm: float = -12.0
    arms: Literal["up", "down"] = "up"
    contrast_hu: float = 0.0
    calcified: float | None = None
    fused: bool = False
    effusion: float = 0.0
    wires: int = 0
    rotate_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)
    shift_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    spongiosa_hu: float | None = None
    cortex_scale: float = 1.0
    n_pairs: int | None = None
    kyphosis_deg: float | None = None
    couch: bool = True
    padding_hu: float | None = None

    def __post_init__(self) -> None:
        if not (0.2 <= self.slice_mm <= 10 and 0.2 <= self.pixel_mm <= 5 and 16 <= self.matrix <= 2048):
            raise InputError(f"no such scanner: {self.slice_mm} mm slices, {self.matrix} x {self.pixel_mm} mm pixels")
        if self.noise not in NOISE_HU:
            raise InputError(f"noise {self.noise!r}: expected one of {list(NOISE_HU)}")
        if self.arms not in ("up", "down"):
            raise InputError(f"arms {self.arms!r}: expected up or down")
        for name in ("calcified", "effusion"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise InputError(f"{name} {value}: expected 0 to 1")
