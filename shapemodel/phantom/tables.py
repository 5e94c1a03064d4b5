"""Published numbers of the thorax, by rib or vertebral level, and where they come from.

The rib path parameters are read from the CSV files in ``data`` (each names its source in its first line):
Holcombe 2016 (means by sex) and Holcombe et al. 2017, J Anat, doi 10.1111/joa.12632 (regression). What the
papers do not state (rib cross-sections along the shaft, process lengths, out-of-plane sweep) is a rounded table
here, of an adult man unless it says otherwise; women are scaled by the named factors.
"""

from __future__ import annotations

import csv
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LEVELS = 12
"""Ribs and thoracic vertebrae on a side."""

PATH_PARAMETERS = ("S_x", "X_pk", "Y_pk", "phi_pia", "B_p", "B_d", "alpha_ph", "alpha_ls", "alpha_bh")
"""Names in ``holcombe2017_regression.csv``: chord mm, peak in chords, deg, spiral rates, deg."""


def _rows(name: str) -> list[dict[str, str]]:
    text = (files("shapemodel.phantom") / "data" / name).read_text(encoding="utf-8")
    return list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))


@cache
def regression() -> dict[str, Array]:
    """Holcombe 2017: parameter -> (12, 5) intercept, per year, female, per metre of height, per kg.

    The path has three shape numbers for rib 12 whose regression disagrees with the 2016 means (Y_pk 0.275 against
    0.179); there the intercept is moved so that the regression gives the 2016 mean at the cohort's centre.
    """
    table = {p: np.zeros((LEVELS, 5)) for p in PATH_PARAMETERS}
    for row in _rows("holcombe2017_regression.csv"):
        values = [float(row[k]) for k in ("intercept", "age_per_year", "female", "height_per_m", "weight_per_kg")]
        table[row["parameter"]][int(row["rib"]) - 1] = values
    y_peak = table["Y_pk"]
    means = {r["sex"]: float(r["Ypk"]) for r in _rows("holcombe2016_sex_means.csv") if r["rib"] == "12"}
    centre = np.array([1.0, 50.0, 0.5, 1.72, 78.0])
    y_peak[11, 0] += 0.5 * (means["M"] + means["F"]) - y_peak[11] @ centre
    return table


@cache
def scree_percent() -> Array:
    """Aicher 2026 (NAKO): per cent of the variance of each mode, in order."""
    rows = _rows("nako2026_scree_percent.csv")
    key = next(k for k in rows[0] if "percent" in k.lower() and "cum" not in k.lower())
    return np.array([float(r[key]) for r in rows])


@cache
def nako_length_mm() -> Array:
    """Aicher 2026 (NAKO): (12, 2) mean centreline length of left and right ribs, both sexes, mm."""
    return np.array([[float(r["left_mm"]), float(r["right_mm"])] for r in _rows("nako2026_mean_rib_length_mm.csv")])


# --- ribs -----------------------------------------------------------------------------------------------------

POLAR_OFFSET_DEG = np.array([11.0, 11.0, 10.0, 8.0, 7.0, 6.0, 5.0, 5.0, 6.0, 9.0, 8.0, 6.0])
"""Added to Holcombe's pump-handle angle, read as the angle of the chord from straight down: the scans of this
project are supine, breathed in, arms up, and four chest CTs show their ribs that much more level."""

BUCKET_OFFSET_DEG = np.array([-14.0, -5.0, -5.0, -7.0, -8.0, -10.0, -14.0, -21.0, -16.0, -5.0, -2.0, 0.0])
"""Added to Holcombe's bucket-handle angle (positive: lateral side lower), for the same reason."""

WAVE_MM = np.array([0.5, 2.0, 4.0, 7.5, 8.5, 10.0, 11.5, 12.5, 9.0, 4.0, 1.5, 0.5])
"""Amplitude of the sweep out of the rib's own plane (a rib is slightly helical)."""
WAVE_KNOTS = (0.0, 0.1, 0.2, 0.3, 0.45, 0.6, 0.72, 0.85, 0.93, 1.0)
WAVE_SHAPE = (0.0, -0.55, -1.0, -0.88, 0.0, 0.68, 0.95, 0.82, 0.46, 0.0)
"""Shape of that sweep over the fraction of the length; zero at both ends."""

SECTION_LONG_MM = np.array([16.0, 13.2, 12.0, 12.4, 12.8, 13.2, 14.0, 14.8, 14.2, 13.2, 12.0, 10.0])
SECTION_SHORT_MM = np.array([6.2, 6.6, 6.4, 6.8, 7.2, 7.4, 7.4, 7.4, 7.0, 6.4, 5.6, 5.2])
"""Full size of the cross-section at mid shaft along its long and short axis, men."""
FEMALE_LONG, FEMALE_SHORT = 0.875, 0.87
"""Women against men: 10.5 / 12 and 6 / 7 mm at mid rib."""

SECTION_KNOTS = (0.0, 0.3, 0.6, 1.0, 1.35, 2.0, 2.5, 2.85, 3.0)
"""Landmark coordinate of the columns below: 0 head, 1 tubercle, 2 angle, 3 anterior end."""
LONG_PROFILE = (0.80, 0.84, 0.68, 0.80, 0.88, 0.98, 1.04, 1.15, 1.08)
SHORT_PROFILE = (1.15, 1.15, 0.95, 1.18, 1.20, 1.14, 0.98, 0.90, 0.92)
"""Relative to mid shaft: round head, thin neck, flat shaft, wide flat anterior end."""
FIRST_LONG_PROFILE = (0.62, 0.62, 0.55, 0.78, 0.95, 1.05, 1.05, 1.15, 1.15)
"""The first rib is narrow at its neck and broad in front."""

TWIST_DEG = np.array(
    [
        [-60.0, -80.0, -84.0, -85.0],
        [-20.0, -50.0, -62.0, -62.0],
        [5.0, -26.0, -45.0, -52.0],
        [10.0, -16.0, -36.0, -41.0],
        [10.0, -14.0, -32.0, -38.0],
        [8.0, -8.0, -24.0, -34.0],
        [8.0, -6.0, -22.0, -31.0],
        [20.0, 4.0, -12.0, -18.0],
        [20.0, 6.0, -14.0, -24.0],
        [14.0, 2.0, -14.0, -26.0],
        [16.0, 4.0, -10.0, -26.0],
        [10.0, 2.0, -8.0, -18.0],
    ]
)
"""Turn of the section's long axis from the normal of the rib's plane towards outward, at landmark 0, 1.5, 2.3, 3."""
TWIST_KNOTS = (0.0, 1.5, 2.3, 3.0)

NECK_MM = np.array([23.0, 24.0, 24.5, 25.0, 25.0, 25.0, 25.0, 24.5, 23.5, 22.0, 19.0, 15.0])
ANGLE_MM = np.array([33.0, 48.0, 56.0, 62.0, 68.0, 74.0, 80.0, 86.0, 90.0, 88.0, 70.0, 40.0])
"""Arc length from the head to the tubercle and to the angle, men of 178 cm."""
MOST_ANGLE = 0.55
"""The angle lies no further along a rib than this share of its length."""
TUBERCLE_MM = np.array([4.2, 3.4, 3.0, 3.0, 3.0, 3.0, 3.0, 2.8, 2.6, 2.2, 0.6, 0.0])
"""Height of the tubercle over the shaft; ribs 11 and 12 have none to speak of."""
RIDGE_MM = np.array([0.0, 1.2, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.2, 0.6, 0.0])
"""Height of the line across the outer side of the shaft that marks the angle, where iliocostalis inserts. The angle of
rib 1 coincides with its tubercle, and rib 12 has none (Gray)."""


@cache
def angle_share() -> Array:
    """(12,) place of the angle as a share of the rib's length.

    A rib's length is its own, only loosely bound to stature (it also goes with weight and age), and the angle is part
    of its course: it keeps its place on the rib, not its distance from the spine in body heights.
    """
    return np.minimum(ANGLE_MM / nako_length_mm().mean(axis=1), MOST_ANGLE)


# --- spine: C7, T1 ... T12, L1 (14 rows) -------------------------------------------------------------------------

SPINE_NAMES = ("vertebra_C7", *(f"vertebra_T{i:02d}" for i in range(1, 13)), "vertebra_L1")

BODY_WIDTH_MM = np.array([28.0, 29.5, 28.0, 26.5, 26.0, 26.5, 27.5, 28.5, 30.0, 31.5, 33.0, 36.0, 39.5, 42.0])
BODY_DEPTH_MM = np.array([17.0, 18.0, 19.6, 22.0, 23.3, 24.5, 26.0, 27.4, 28.2, 29.2, 30.0, 31.0, 31.5, 32.0])
BODY_HEIGHT_MM = np.array([15.0, 16.5, 17.2, 17.6, 18.0, 18.6, 19.4, 20.0, 20.6, 21.2, 22.2, 23.2, 24.6, 26.0])
"""Vertebral bodies of men; depth and height near Panjabi 1991 and the CT tables of the project's sources."""
DISC_MM = np.array([4.8, 4.6, 4.0, 3.4, 3.1, 3.2, 3.5, 3.9, 4.4, 5.0, 5.4, 5.8, 6.6])
"""Disc between each row and the next, at the centre (Fletcher, 128 CT: 2.7 at T4-5 to 5.4 at T10-11)."""
WEDGE_DEG = np.array([0.0, 0.6, 1.2, 2.0, 2.4, 2.8, 3.0, 3.2, 3.2, 3.0, 2.6, 3.2, 3.0, 1.0])
"""Anterior wedging of the bodies (T9-T12 after the skeletons of PMC2899959, rounded)."""
TILT_DEG = np.array([-22.0, -22.0, -19.5, -16.5, -13.0, -9.5, -6.0, -2.8, 0.2, 3.0, 5.4, 7.4, 9.0, 9.0])
"""Sagittal tilt of each level lying supine: negative leans forward going up; T1 to T12 differ by the kyphosis."""
FEMALE_SPINE = 0.91
"""Women's vertebrae against men's, linear."""

CANAL_HALF_WIDTH_MM = np.array([11.0, 9.8, 8.6, 8.2, 8.0, 8.0, 8.0, 8.0, 8.2, 8.2, 8.4, 9.2, 10.2, 10.8])
TRANSVERSE_TIP_MM = np.array(
    [
        [32.0, 10.0, 2.0],
        [36.5, 16.5, -3.5],
        [31.0, 19.5, 5.5],
        [28.5, 20.5, 6.0],
        [28.0, 21.5, 7.0],
        [28.0, 22.0, 8.0],
        [28.5, 23.0, 9.0],
        [28.5, 23.0, 9.5],
        [29.5, 22.8, 10.5],
        [29.0, 22.0, 10.0],
        [27.0, 20.8, 4.2],
        [24.0, 20.0, -1.0],
        [23.0, 16.0, -6.0],
        [38.0, 12.0, -1.0],
    ]
)
"""Tip of the transverse process: to the side, behind the back of the body, above the middle of the body."""
SPINOUS_TIP_MM = np.array(
    [
        [48.0, -4.0],
        [46.0, -6.0],
        [44.0, -9.0],
        [42.0, -13.0],
        [40.0, -17.0],
        [38.0, -22.0],
        [36.0, -26.5],
        [34.0, -30.0],
        [34.0, -30.0],
        [35.0, -26.5],
        [37.0, -21.0],
        [38.0, -15.0],
        [38.5, -11.0],
        [41.0, -8.0],
    ]
)
"""Tip of the spinous process: behind the back of the body, above (negative: below) the middle; steep at T5-T9."""

# --- sternum (CT, bibliomed 16478: 30 men, 30 women) -----------------------------------------------------------------

MANUBRIUM_MM = {"M": 53.6, "F": 47.6}
STERNAL_BODY_MM = {"M": 101.1, "F": 87.5}
STERNUM_MM = {"M": 191.8, "F": 162.8}
STERNAL_ANGLE_DEG = {"M": 161.4, "F": 160.5}
