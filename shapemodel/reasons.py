"""Why a study is left out, or looked at again: every reason code with its meaning, in one place.

Two kinds of failure: :class:`StudyError` says that a study is unfit (it is recorded with its code and the
cohort goes on); any other exception is a bug and stops the run.
"""

from __future__ import annotations

from dataclasses import dataclass

REASONS: dict[str, str] = {
    # intake
    "no_images": "no readable image was found in the folder",
    "not_dicom": "the file is not DICOM, NIfTI, NRRD or MHA, or its header cannot be read",
    "truncated": "the file ends before its pixel data does",
    "not_ct": "the series is not CT",
    "not_volume": "a single 2D image, a localizer, a dose page or a secondary capture, not a volume",
    "not_axial": "the slices are not near axial",
    "missing_slice": "the slice positions have a gap",
    "mixed_geometry": "slices of different size, spacing or orientation in one series",
    "sheared": "the gantry is tilted: slices are not stacked along their normal",
    "bad_rescale": "values cannot be brought to Hounsfield units",
    "too_thick": "the slices are thicker than the labelling can use",
    "too_short": "too little of the body is in the scan",
    "not_thorax": "the scan does not show a thorax (no pair of lungs with ribs around them)",
    "duplicate": "the same images as another study of the cohort",
    "same_subject": "another study of the same person is used: a person counts once",
    "excluded": "left out by hand, in the manifest or in overrides.toml",
    "no_sex": "sex is not given as F or M, so the study cannot serve a sex-specific mean",
    # mask and labels
    "no_body": "no body was found in the scan",
    "no_lungs": "no lungs were found in the scan",
    "no_canal": "the spinal canal could not be followed",
    "too_few_ribs": "too few ribs were found to number them",
    "numbering_unsure": "ribs and vertebrae disagree about the numbering",
    "absurd_labels": "a labelled bone is larger than any bone of its kind, or lies where it cannot",
    "bad_labels": "the label map does not hold the bones that its scheme promises",
    # surfaces and registration
    "bad_surface": "the surface of the bones is empty, open where it should not be, or not in millimetres",
    "mirrored": "left and right are exchanged",
    "too_few_bones": "too few bones to place the template",
    "registration_failed": "the registration did not reach the limits of residual or confidence",
    "out_of_resources": "the study did not fit into the worker's memory or disk",
}
"""Codes with which a study is refused."""

FLAGS: dict[str, str] = {}
"""Codes with which a study is used but shown to the reviewer; stages add theirs with :func:`flag_code`."""


def flag_code(code: str, meaning: str) -> str:
    """Register a QC flag code with its meaning and return the code."""
    if code in REASONS or FLAGS.get(code, meaning) != meaning:
        raise ValueError(f"flag code {code!r} already has another meaning")
    FLAGS[code] = meaning
    return code


class StudyError(ValueError):
    """A study is unfit for use: recorded as an exclusion, and the cohort goes on.

    Parameters
    ----------
    code : one of :data:`REASONS`
    message : which study, what was expected, what was found, what to do
    """

    def __init__(self, code: str, message: str):
        if code not in REASONS:
            raise KeyError(f"{code!r} is not a documented reason code")
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[type[StudyError], tuple[str, str]]:
        return (type(self), (self.code, str(self)))


class InputError(ValueError):
    """The caller's input is wrong (a file, a column, an option): one clear sentence, no traceback."""


@dataclass(frozen=True)
class Flag:
    """One thing for the reviewer to look at: a code of :data:`FLAGS`, the bone it concerns (0: the study), why."""

    code: str
    bone: int
    note: str
