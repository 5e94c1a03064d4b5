"""The demo cohort: phantom subjects as DICOM studies, and their truth beside them.

``<folder>/ct/<subject>/...`` is what a hospital would hand over; ``<folder>/truth/<subject>/`` holds
``labels.nii.gz`` (true label map) and ``bones.vtp`` (true surfaces in the scanner's frame, with ``visible`` and
``fov``, the subject's record and the pose from its own frame, so that any material point can be located).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shapemodel.mesh import Mesh, read_vtp, write_vtp
from shapemodel.phantom.dicom import DicomSettings, write_dicom
from shapemodel.phantom.knobs import CTKnobs
from shapemodel.phantom.subject import Subject, draw_population

if TYPE_CHECKING:
    from shapemodel.phantom.ct import PhantomCT

DEMO_PIXEL_MM, DEMO_MATRIX = 0.9, 432
"""Coarser than clinical 0.7-0.8 mm, so that the demo stays small: 58 MB and seconds a study."""

ENCODED = ("HFS", "HFS", "HFS", "FFS")
"""Patient positions that studies of the cohort take turns with."""


@dataclass(frozen=True)
class CohortStudy:
    """One study of the cohort on disk.

    Attributes
    ----------
    subject, knobs, seed : what was rendered, and how
    ct : folder with the DICOM files
    labels, bones : true label map (.nii.gz) and true surfaces (.vtp)
    position : PatientPosition
    """

    subject: Subject
    knobs: CTKnobs
    seed: int
    ct: Path
    labels: Path
    bones: Path
    position: str

    def row(self, root: Path) -> dict[str, Any]:
        """Manifest columns that are known without looking at the images; ``ct`` relative to ``root``."""
        who = self.subject
        return {
            "subject": who.subject,
            "sex": who.sex,
            "age_years": who.age_years,
            "height_cm": who.height_cm,
            "weight_kg": who.weight_kg,
            "position": self.position,
            "ct": Path(os.path.relpath(self.ct, root)).as_posix(),
        }


def demo_knobs(index: int, seed: int) -> CTKnobs:
    """Knobs of study ``index`` of a cohort: scans of middling difficulty, no two alike."""
    rng = np.random.default_rng([seed, 17, index])
    turn = rng.normal(0.0, 1.0, 3) * (1.5, 1.5, 2.5)
    return CTKnobs(
        slice_mm=2.0,
        pixel_mm=DEMO_PIXEL_MM,
        matrix=DEMO_MATRIX,
        noise=("middle", "low")[int(rng.random() < 0.3)],
        cut_above_mm=round(float(rng.uniform(-14.0, -4.0)), 1),
        cut_below_mm=round(float(rng.choice([-12.0, -6.0, 10.0, 25.0])), 1),
        arms=("up", "down")[int(rng.random() < 0.2)],
        contrast_hu=float(rng.choice([0.0, 0.0, 160.0, 220.0])),
        rotate_deg=(round(float(turn[0]), 2), round(float(turn[1]), 2), round(float(turn[2]), 2)),
        shift_mm=(round(float(rng.normal(0, 8)), 1), round(float(rng.normal(0, 8)), 1), 0.0),
        padding_hu=(None, -1024.0, -2000.0)[index % 3],
    )


def write_cohort(
    folder: str | Path,
    n_female: int,
    n_male: int,
    seed: int,
    *,
    knobs: Callable[[int, int], CTKnobs] = demo_knobs,
    note: Callable[[str, int, int], None] | None = None,
) -> list[CohortStudy]:
    """Render and write the studies of a cohort; the same bytes for the same arguments.

    Parameters
    ----------
    folder : made if missing; files that are there are replaced
    n_female, n_male, seed : see :func:`shapemodel.phantom.subject.draw_population`
    knobs : (index, seed) -> knobs of that study
    note : called with (subject, number done, number of all) before each study
    """
    subjects = draw_population(n_female, n_male, seed)
    out = []
    for i, subject in enumerate(subjects):
        if note:
            note(subject.subject, i, len(subjects))
        out.append(write_study(folder, subject, knobs(i, seed), study_seed(seed, i), index=i))
    return out


def study_seed(seed: int, index: int) -> int:
    """Seed of noise, textures, names and UIDs of study ``index``."""
    return int(np.random.default_rng([seed, 19, index]).integers(2**31))


def write_study(folder: str | Path, subject: Subject, knobs: CTKnobs, seed: int, *, index: int = 0) -> CohortStudy:
    """Render one subject and write its DICOM study and its truth; ``index`` varies how it is stored."""
    from shapemodel.phantom.ct import render_ct

    scan = render_ct(subject, knobs, seed)
    folder = Path(folder)
    stored = DicomSettings(
        seed=seed,
        flip_columns=index % 5 == 3,
        flip_rows=index % 7 == 4,
        descending=index % 2 == 1,
        position=ENCODED[index % len(ENCODED)],
        nested=index % 3 == 2,
        signed=bool(knobs.padding_hu is not None and knobs.padding_hu < -1024),
    )
    ct, truth = folder / "ct" / subject.subject, folder / "truth" / subject.subject
    write_dicom(scan.image, ct, subject, stored)
    truth.mkdir(parents=True, exist_ok=True)
    labels = _write_image(scan, truth / "labels.nii.gz")
    bones = write_vtp(_with_record(scan, subject), truth / "bones.vtp")
    return CohortStudy(subject, knobs, seed, ct, labels, bones, stored.position)


def _write_image(scan: PhantomCT, path: Path) -> Path:
    import SimpleITK as sitk

    part = path.with_name(f".{os.getpid()}.part.{path.name}")
    try:
        sitk.WriteImage(scan.labels, str(part), useCompression=True)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _with_record(scan: PhantomCT, subject: Subject) -> Mesh:
    fields = {"subject": json.dumps(asdict(subject), sort_keys=True), "pose": scan.pose.ravel()}
    return replace(scan.surface, fields={**scan.surface.fields, **fields})


@dataclass(frozen=True)
class StudyTruth:
    """Truth of one study as read from disk.

    Attributes
    ----------
    bones : true surfaces where the patient lay, with ``visible`` and ``fov``
    subject : the record from which every material point follows
    pose : (4, 4) map from the subject's frame to the scanner's
    """

    bones: Mesh
    subject: Subject
    pose: NDArray[np.float64]


def read_truth(path: str | Path) -> StudyTruth:
    """Read ``bones.vtp`` as written by :func:`write_study`."""
    mesh = read_vtp(path)
    subject = Subject(**json.loads(mesh.fields["subject"]))
    return StudyTruth(mesh, subject, np.asarray(mesh.fields["pose"], np.float64).reshape(4, 4))
