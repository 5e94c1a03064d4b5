"""The verbs as functions: values in, values out. ``run`` does these in order; the command line calls the same.

Heavy libraries are imported where they are used, so that asking for help stays quick.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.settings import Settings
from shapemodel.reasons import InputError

if TYPE_CHECKING:
    import numpy as np
    import SimpleITK as sitk
    from numpy.typing import NDArray

    from shapemodel.completion import Completion
    from shapemodel.correspondence import Registration
    from shapemodel.fitting import Fit
    from shapemodel.labels import Labelled
    from shapemodel.mesh import Mesh
    from shapemodel.model import ShapeModel
    from shapemodel.overrides import Corrections
    from shapemodel.population import Population
    from shapemodel.query import QueryReport
    from shapemodel.ready import Finisher
    from shapemodel.registration import Prepared
    from shapemodel.study import Study
    from shapemodel.template import Template

LEAST_GROUP = 2
"""A model of one subject has no modes; such a group is left out."""


def scan(
    root: str | Path,
    *,
    subjects: Mapping[str, str] | str | None = None,
    salt: str = "",
    note: Callable[[str, float], None] | None = None,
) -> list[Study]:
    """What is in a tree of images: one row a study, usable or with the reason why not.

    Parameters
    ----------
    root : folder of DICOM files in any order and nesting, or of volumes
    subjects : id or path -> pseudonym; ``"folder"``: the folders' names; None: a salted hash
    salt : of that hash
    note : told the folder and the share that is done
    """
    from shapemodel.study import scan_folder

    return scan_folder(root, subjects=subjects, salt=salt, progress=note)


def segment(
    ct: str | Path | sitk.Image,
    *,
    series: str | None = None,
    overrides: Corrections | None = None,
    settings: Settings | None = None,
) -> Labelled:
    """A chest CT (a path, or an image in HU, axial LPS) -> labelled bones with their status and flags."""
    from shapemodel.labels import label_bones
    from shapemodel.study import read_ct

    image = read_ct(ct, series) if isinstance(ct, str | Path) else ct
    chosen = (settings or Settings()).section("labels")
    if overrides is None:
        return label_bones(image, settings=chosen)
    from shapemodel.steps import correct

    found = label_bones(image, settings=chosen, overrides=overrides)
    return replace(found, image=correct(image, found.image, overrides))


def surfaces(labels: str | Path | sitk.Image, *, scheme: str = "shapemodel", settings: Settings | None = None) -> Mesh:
    """A label map (a path, or an image with our numbers) -> closed surfaces of the bones, mm, LPS."""
    from shapemodel.labelmaps import read_labels
    from shapemodel.surfaces import labels_to_mesh

    image = read_labels(labels, scheme) if isinstance(labels, str | Path) else labels
    return labels_to_mesh(image, settings=(settings or Settings()).section("surfaces"))


def template(
    meshes: Sequence[Mesh], *, settings: Settings | None = None, note: Callable[[str, float], None] | None = None
) -> Template:
    """Surfaces of several subjects -> the reference mesh of the whole thorax.

    It is composed of their bones, then made their mean in groupwise rounds as far as the settings want these.
    """
    from functools import partial

    from shapemodel.groupwise import groupwise
    from shapemodel.registration import prepare
    from shapemodel.template import remesh_for

    chosen = settings or Settings()
    made = compose(meshes, settings=chosen, note=note)
    parts = {k: made.mesh.select(k)[:2] for k in made.mesh.labels}
    return groupwise(
        made,
        list(meshes),
        partial(_registered, settings=chosen),
        prepare=partial(prepare, prior=chosen.section("registration").prior),
        settings=chosen.section("groupwise"),
        remesh=remesh_for(parts, chosen.section("template")),
        progress=note,
    ).template


def _registered(reference: Prepared, mesh: Mesh, *, settings: Settings) -> Registration:
    return register(mesh, reference, settings=settings)


def compose(
    meshes: Sequence[Mesh], *, settings: Settings | None = None, note: Callable[[str, float], None] | None = None
) -> Template:
    """Surfaces of several subjects -> a first reference mesh, bone by bone from those who show it whole.

    What no subject shows whole, on either side, is taken from the mean phantom and marked ``prior``.
    """
    from shapemodel.phantom.shape import surface
    from shapemodel.phantom.subject import mean_subject
    from shapemodel.template import compose_template

    chosen = (settings or Settings()).section("template")
    return compose_template(list(meshes), fallback=surface(mean_subject()), settings=chosen, progress=note)


def register(
    mesh: Mesh,
    reference: Mesh | Prepared,
    *,
    subject: str = "study",
    settings: Settings | None = None,
    refuse: bool = True,
) -> Registration:
    """Surfaces of a subject and a template -> the template's vertices on that subject.

    Raises
    ------
    StudyError : outside the limits of residual, visibility or confidence
    """
    from shapemodel import correspondence
    from shapemodel.registration import register as fit

    chosen = settings or Settings()
    found = fit(reference, mesh, settings=chosen.section("registration"))
    if refuse:
        correspondence.refuse(found, limits=chosen.section("limits"), subject=subject)
    return found


def completed(
    meshes: Sequence[Mesh],
    studies: Sequence[Study],
    *,
    covariates: Mapping[str, Sequence[float | None]] | None = None,
    settings: Settings | None = None,
) -> Completion:
    """Registered meshes of a cohort -> all in one frame, with what their scans cut off filled in."""
    from shapemodel.completion import complete
    from shapemodel.population import gather

    population = gather(
        meshes, subjects=[s.subject for s in studies], sex=[s.sex for s in studies], covariates=covariates
    )
    return complete(population, settings=(settings or Settings()).section("completion"))


def model(
    done: Completion,
    *,
    settings: Settings | None = None,
    facts: Mapping[str, Any] | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, ShapeModel]:
    """A cohort in one frame -> its pooled, female and male model, and those of further groups.

    A sex with fewer than two studies has no model of its own. ``facts`` go into the models' metadata; ``groups`` are
    subjects by the group's name (:func:`groups_of`).
    """
    import numpy as np

    from shapemodel.model import fit_model

    sex = done.population.sex
    counts = {"pooled": len(sex), "female": sex.count("F"), "male": sex.count("M")}
    modes = (settings or Settings()).cohort.modes or None
    made = {g: fit_model(done, g, n_modes=modes, metadata=facts) for g, n in counts.items() if n >= LEAST_GROUP}
    for name, who in (groups or {}).items():
        index = np.array([i for i, s in enumerate(done.population.subjects) if s in set(who)])
        if len(index) >= LEAST_GROUP:
            made[name] = fit_model(done, index, n_modes=modes, name=name, metadata=facts)
    return made


def groups_of(conditions: Sequence[str], studies: Sequence[Study]) -> dict[str, list[str]]:
    """Subjects of each group that ``name: condition`` describes; see :mod:`pipelines.groups`."""
    from pipelines.groups import select

    return dict(select(text, studies) for text in conditions)


def facts(studies: Sequence[Study]) -> dict[str, Any]:
    """What a model says of its cohort: posture, and how many."""
    return {"positions": sorted({str(s.position) for s in studies if s.position}), "n": len(studies)}


def difference(done: Completion, models: Mapping[str, ShapeModel], *, settings: Settings | None = None) -> Mesh | None:
    """The female mean with what separates it from the male mean, in their common frame; None without both.

    Arrays: ``difference_mm`` (V, 3) male - female; ``distance_mm`` (V,) its length; ``outward_mm`` (V,) along
    the outward normal, positive where the male surface lies outside the female one; ``p`` and ``q`` (V,) of the
    permutation test and the false-discovery rate.
    """
    import numpy as np

    from shapemodel import means
    from shapemodel.mesh import vertex_normals

    if not {"female", "male"} <= models.keys():
        return None
    chosen = (settings or Settings()).cohort
    found = means.difference(done, "female", "male", permutations=chosen.permutations, seed=chosen.seed)
    base = mean(models["female"])
    gap = models["male"].mean - models["female"].mean
    outward = np.einsum("ij,ij->i", gap, vertex_normals(base.vertices, base.faces))
    return base.with_arrays(
        difference_mm=gap, distance_mm=np.linalg.norm(gap, axis=1), outward_mm=outward, p=found.p, q=found.q
    )


def measures(done: Completion, models: Mapping[str, ShapeModel]) -> dict[str, dict[str, tuple[float, float, int]]]:
    """Anatomical measures of each group: name -> (mean, standard deviation, subjects that showed it)."""
    import numpy as np

    from shapemodel.measures import landmarks_of, measure_group

    first = next(iter(models.values()))
    landmarks = landmarks_of(first.reference)
    table = {}
    places = {s: i for i, s in enumerate(done.population.subjects)}
    for group, fitted in models.items():
        index = np.array([places[s] for s in fitted.subjects])
        own = measure_group(
            done.population.vertices[index], first.reference, landmarks, visible=done.population.visible[index]
        )
        table[group] = {m.name: (m.mean, m.sd, m.n) for m in own}
    return table


def mean(fitted: ShapeModel) -> Mesh:
    """The mean of a model, with how many subjects showed each vertex."""
    from shapemodel.model import mean_shape

    return mean_shape(fitted)


def with_bases(models: Mapping[str, ShapeModel], reference: Mesh | None = None) -> dict[str, ShapeModel]:
    """The models with their means and first modes healed, on which every export of theirs is made fit for use.

    ``reference`` is the template that the models' subjects were registered with, if it is at hand: a mean follows it
    where nothing else helps.
    """
    from shapemodel.ready import healed

    template = None if reference is None else reference.vertices
    return {group: healed(m, template) for group, m in models.items()}


def finisher(fitted: ShapeModel) -> Finisher:
    """Makes shapes of a model pass the gate of exported shapes: call it with a mesh, get the mesh and the cost."""
    from shapemodel.ready import Finisher

    return Finisher(fitted)


def write_template(made: Template, path: Path) -> Path:
    """Store a template as .vtp with arrays ``bone`` and ``prior``."""
    from shapemodel import template as module

    return module.write_template(made, path)


def write_model(fitted: ShapeModel, path: Path) -> Path:
    """Store a model as HDF5 that Scalismo opens."""
    from shapemodel import interchange

    return interchange.save_model(fitted, path)


def read_model(path: str | Path) -> ShapeModel:
    """Read what :func:`write_model` wrote."""
    from shapemodel import interchange

    return interchange.load_model(path)


def preview(
    study: str | Path,
    *,
    labels: str | Path | None = None,
    shift: float = 0.0,
    roi: Sequence[float] | None = None,
    settings: Settings | None = None,
) -> NDArray[np.uint8]:
    """One picture of a study: its CT, its labelled bones, slices with outlines; (height, width, 3) uint8."""
    from shapemodel.labelmaps import read_labels
    from shapemodel.preview import preview as draw
    from shapemodel.study import read_ct

    ct = read_ct(study)
    label = read_labels(labels, "shapemodel", reference=ct) if labels else segment(ct, settings=settings).image
    box = (roi[0], roi[1], roi[2], roi[3], roi[4], roi[5]) if roi else None
    return draw(ct, label, surfaces(label, settings=settings), shift=shift, roi=box)


def symmetric_mean(fitted: ShapeModel, matrix: Any = None) -> Mesh:
    """The left-right symmetric form of a model's mean; ``matrix`` is the template's :func:`mirror_map`."""
    from shapemodel.symmetry import symmetric_mean as make

    return make(fitted, matrix)


def size_matched_mean(fitted: ShapeModel, population: Population) -> Mesh:
    """The mean of a model's subjects, each brought to the cohort's mean size: groups then differ in shape only."""
    import numpy as np

    from shapemodel.filling import trivial
    from shapemodel.means import size_matched_mean as make

    index = np.array([i for i, s in enumerate(population.subjects) if s in set(fitted.subjects)])
    return fitted.mesh(make(trivial(population), index)[0])


def mirror_map(fitted: ShapeModel) -> Any:
    """Which points mirror which on the models' common template; the same for all groups."""
    from shapemodel.symmetry import mirror_map as make

    return make(mean(fitted))


def query(
    fitted: ShapeModel,
    *,
    modes: Mapping[int, float] | None = None,
    kind: Any = "gaussian",
    joint: tuple[Sequence[int], float] | None = None,
    among: int | None = None,
    sample: tuple[int, int] | None = None,
    covariates: Mapping[str, Any] | None = None,
    residual_mode: tuple[int, float] | None = None,
) -> list[tuple[Mesh, QueryReport]]:
    """Shapes of a model, each with a report of what it is; exactly one way of asking at a time.

    Parameters
    ----------
    modes, kind : mode number (from 1) -> percentile, ``gaussian`` or ``empirical``
    joint : (modes, joint percentile): by equal parts along these modes
    among : the joint percentile is over the first so many modes; None: all of the model
    sample : (how many, seed)
    covariates : sex, age_years, height_cm, weight_kg; with ``residual_mode`` (mode, percentile) what they leave over
    """
    import numpy as np

    from shapemodel import query as module

    if sample and covariates:
        from shapemodel.covariates import residual_samples

        return residual_samples(fitted, dict(covariates), sample[0], seed=sample[1])
    asked = [
        name for name, given in (("modes", modes if not joint else None), ("joint", joint), ("sample", sample)) if given
    ]
    if covariates or residual_mode:
        asked.append("covariates")
    if len(asked) != 1:
        raise InputError("ask for one thing: --mode with --percentile, --joint, --sample, or covariates such as --age")
    if joint:
        direction = np.zeros(fitted.n_modes)
        direction[[module.check_mode(fitted, k) for k in joint[0]]] = 1.0
        return [module.joint_query(fitted, joint[1], direction=direction, degrees=among)]
    if sample:
        return module.sample_shapes(fitted, sample[0], seed=sample[1])
    if modes:
        return [module.query(fitted, mode=dict(modes), kind=kind)]
    from shapemodel import covariates as by

    known = dict(covariates or {})
    if residual_mode:
        return [by.residual_query(fitted, known, mode=residual_mode[0], percentile=residual_mode[1])]
    return [by.covariate_query(fitted, known)]


def fit(
    fitted: ShapeModel, subject: str | Path, *, scheme: str = "shapemodel", settings: Settings | None = None
) -> Fit:
    """A model's posterior for a subject: a registered mesh, surfaces, a label map, or landmarks by vertex."""
    from pipelines.options import read_landmarks
    from shapemodel import fitting
    from shapemodel.mesh import read_vtp

    path = Path(subject)
    if path.suffix.lower() == ".csv":
        return fitting.fit_landmarks(fitted, read_landmarks(path))
    if path.suffix.lower() != ".vtp":
        return fitting.fit_surface(fitted, surfaces(path, scheme=scheme, settings=settings))
    mesh = read_vtp(path)
    if len(mesh.vertices) == fitted.n_vertices and "visible" in mesh.arrays:
        return fitting.fit_vertices(fitted, mesh.vertices, mesh.arrays["visible"].astype(bool), robust=True)
    return fitting.fit_surface(fitted, mesh)
