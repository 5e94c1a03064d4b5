"""Study: one row of the manifest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Sex = Literal["F", "M"]


@dataclass(frozen=True)
class Study:
    """One subject's scan and what is known of it; nothing in it names a person.

    Attributes
    ----------
    subject : pseudonym, unique in a cohort
    sex : F, M or None; without it the study serves the pooled model only
    age_years, height_cm, weight_kg : None when unknown; DICOM ages above 89 are recorded as 90
    position : patient position as in DICOM (HFS: head first, supine), None when unknown
    ct : folder of the DICOM files, one DICOM file, or a NIfTI, NRRD or MHA volume; None when only labels are given
    series : hash that names the DICOM series in ``ct``; None for volumes
    labels : label map made elsewhere (file or folder), None to have the CT labelled
    labels_scheme : whose numbers ``labels`` uses, one of :data:`shapemodel.labelmaps.SCHEMES`
    include : False leaves the study out
    reason : code of :data:`shapemodel.reasons.REASONS` when it cannot be used, else empty
    note : what a reader should know: why this series, what was found instead
    sha256 : of the pixel data in slice order and the geometry; empty when unknown
    """

    subject: str
    sex: Sex | None = None
    age_years: float | None = None
    height_cm: float | None = None
    weight_kg: float | None = None
    position: str | None = None
    ct: Path | None = None
    series: str | None = None
    labels: Path | None = None
    labels_scheme: str | None = None
    include: bool = True
    reason: str = ""
    note: str = ""
    sha256: str = ""

    @property
    def usable(self) -> bool:
        """True when it is included and no reason speaks against it."""
        return self.include and not self.reason
