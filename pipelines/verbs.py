"""The verbs as functions: values in, values out. ``run`` does these in order; the command line calls the same.

Heavy libraries are imported where they are used, so that asking for help stays quick.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.settings import Settings
from shapemodel.reasons import InputError

if TYPE_CHECKING:
    import SimpleITK as sitk
    from shapemodel.template import Template

    from shapemodel.correspondence import Registration
    from shapemodel.labels import Labelled
    from shapemodel.mesh import Mesh
    from shapemodel.registration import Prepared
    from shapemodel.study import Study


def scan(root: str | Path, *, subjects: Mapping[str, str] | None = None, salt: str = "") -> list[Study]:
    """What is in a tree of images: one row a study, usable or with the reason why not.

    Parameters
    ----------
    root : folder of DICOM files in any order and nesting, or of volumes
    subjects : folder name -> pseudonym; None: a salted hash
    salt : of that hash
    """
    from shapemodel.study import scan_folder

    return scan_folder(root, subjects=subjects, salt=salt)


def segment(
    ct: str | Path | sitk.Image, *, series: str | None = None, overrides: Any = None, settings: Settings | None = None
) -> Labelled:
    """A chest CT (a path, or an image in HU, axial LPS) -> labelled bones with their status and flags."""
    from shapemodel.labels import label_bones
    from shapemodel.study import read_ct

    image = read_ct(ct, series) if isinstance(ct, str | Path) else ct
    chosen = (settings or Settings()).section("labels")
    return label_bones(image, settings=chosen, overrides=overrides)


def surfaces(labels: str | Path | sitk.Image, *, scheme: str = "shapemodel", settings: Settings | None = None) -> Mesh:
    """A label map (a path, or an image with our numbers) -> closed surfaces of the bones, mm, LPS."""
    from shapemodel.labelmaps import read_labels

    from shapemodel.surfaces import labels_to_mesh

    image = read_labels(labels, scheme) if isinstance(labels, str | Path) else labels
    return labels_to_mesh(image, settings=(settings or Settings()).section("surfaces"))


def template(meshes: Sequence[Mesh], *, settings: Settings | None = None) -> Template:
    """Surfaces of several subjects -> the reference mesh of the whole thorax."""
    from shapemodel.template import compose_template

    if not meshes:
        raise InputError("a template needs the surfaces of at least one subject")
    del settings
    return compose_template(list(meshes))


def register(
    mesh: Mesh, reference: Mesh | Prepared, *, subject: str = "study", settings: Settings | None = None
) -> Registration:
    """Surfaces of a subject and a template -> the template's vertices on that subject.

    Raises
    ------
    StudyError : outside the limits of residual, visibility or confidence
    """
    from shapemodel.correspondence import refuse
    from shapemodel.registration import register as fit

    chosen = settings or Settings()
    found = fit(reference, mesh, settings=chosen.section("registration"))
    refuse(found, limits=chosen.section("limits"), subject=subject)
    return found
