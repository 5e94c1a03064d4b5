"""CT numbers of the phantom's tissues, and how they change with age and sex.

Sources: spongiosa Jang et al. 2019 (Radiology; L1, 120 kV, n = 20,374); cortical thickness Holcombe et al. 2019,
2022 (ribs); the other values are those usual in radiology texts. Levels of rib and sternum spongiosa relative to
vertebrae, and cortical HU before blur, were set so that the rendered bones have the histograms of real chest CTs.
"""

from __future__ import annotations

import numpy as np

from shapemodel import anatomy

AIR = -1000.0
LUNG = -890.0
FAT = -110.0
MUSCLE = 55.0
SKIN = 20.0
BLOOD = 45.0
FLUID = 12.0
"""Pleural effusion (transudate)."""
ATELECTASIS = 35.0
"""Lung pressed together above the fluid."""
CSF = 18.0
CORD = 38.0
DISC = 85.0
JOINT = 240.0
"""Cartilage, capsule and bone dust where two bones meet (136-315 HU between rib and vertebra of a real CT)."""
CARTILAGE = 105.0
CALCIFIED = 900.0
"""Dense calcified cartilage; patches vary around it."""
CALCIFICATION_THRESHOLD = 187.5
"""HU above which costal cartilage counts as calcified (sensitivity 98.6 %, specificity 99.7 %)."""
CORTEX = 980.0
"""Cortical bone before blur; at 0.75 mm pixels and 2 mm slices 0.7-1.2 mm of it reads 300-900 HU."""
CORTEX_SPREAD = 0.12
"""Standard deviation of the cortex from place to place, relative: pores, and cortex that the bone lacks."""
RIM = 95.0
RIM_MM: dict[str, float] = {"vertebra": 0.72, "rib": 0.65, "sternum": 0.43, "other": 0.7}
"""The outline that readers draw and thresholds find is where HU leaves that of soft tissue; the dense cortex begins
this far inside it (in four real CTs HU peaks 1-1.5 mm inside the outline, and passes 300 at 0.5 mm)."""
HALO_PER_FAT = 5.0
"""Next to bone it is darker than in muscle (fat between muscle and periosteum, undershoot of sharp kernels), by this
many HU per mm of subcutaneous fat: 9-20 HU are read 1-2 mm off the ribs of a lean man, -60 in a stout woman."""
SUBCORTICAL = 0.8
"""Spongiosa just under the cortex is denser than deep in the bone, by this share; it fades over about 3 mm."""
STEEL = 6000.0
CEILING = 3071.0
"""Largest value of a 12-bit scanner."""

ORGANS: dict[str, float] = {
    "lung": LUNG,
    "heart": BLOOD,
    "aorta": BLOOD,
    "vessel": BLOOD,
    "vena": BLOOD,
    "pulmonary": BLOOD,
    "liver": 58.0,
    "spleen": 50.0,
    "stomach": 25.0,
    "kidney": 32.0,
    "trachea": -990.0,
    "bronch": -980.0,
    "oesophagus": 30.0,
    "esophagus": 30.0,
    "gas": AIR,
    "mediastin": -70.0,
    "breast": -85.0,
    "disc": DISC,
    "canal": CSF,
    "cord": CORD,
}
"""HU by the beginning of an organ's name."""

ENHANCING: dict[str, float] = {
    "heart": 0.8,
    "aorta": 1.0,
    "vessel": 1.0,
    "vena": 1.1,
    "pulmonary": 1.1,
    "liver": 0.2,
    "spleen": 0.35,
    "kidney": 0.6,
}
"""Share of the contrast enhancement that an organ takes up."""

SPONGIOSA_SHARE: dict[str, float] = {"vertebra": 1.0, "rib": 0.8, "sternum": 0.4, "other": 0.9}
"""Spongiosa HU of a kind of bone relative to a vertebral body."""

CORTEX_MM: dict[str, float] = {"vertebra": 0.5, "rib": 1.1, "sternum": 0.5, "other": 1.3}
"""Cortical thickness in young adults by kind of bone."""

THINNING_MM_PER_DECADE: dict[str, float] = {"F": 0.039, "M": 0.021}
"""Loss of rib cortex from 30 years on, middle of the published ranges (0.035-0.043 and 0.011-0.032)."""


def organ_hu(name: str, contrast_hu: float = 0.0) -> float:
    """HU of an organ by its name, muscle if it is not known; with contrast, enhanced by its share."""
    for start, hu in ORGANS.items():
        if name.startswith(start):
            share = next((s for k, s in ENHANCING.items() if name.startswith(k)), 0.0)
            return hu + share * contrast_hu
    return MUSCLE


def spongiosa_hu(age_years: float, sex: str | None) -> float:
    """Vertebral spongiosa: 226 HU below 30 years to 89 at 90 and above, -2.3 HU a year; women +12 until 50."""
    hu = float(np.interp(age_years, [30.0, 90.0], [226.0, 89.0]))
    return hu + (12.0 if sex == "F" and age_years < 50 else 0.0)


def cortex_mm(label: int, age_years: float, sex: str | None) -> float:
    """Mean cortical thickness of a bone of this label number."""
    kind = anatomy.bone(label).kind
    lost = THINNING_MM_PER_DECADE.get(sex or "", 0.03) * max(age_years - 30.0, 0.0) / 10.0
    return max(CORTEX_MM[kind] * (1.0 - lost), 0.3)


def calcified_share(age_years: float) -> float:
    """Share of costal cartilage that is calcified, on average: little below 30 years, nearly a half at 90."""
    return float(np.interp(age_years, [25.0, 50.0, 70.0, 90.0], [0.0, 0.10, 0.25, 0.45]))
