"""What the verbs do that make models, ask them for shapes, fit them, and write what comes out."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines import gate, telling, verbs
from pipelines.options import chosen, output, say
from shapemodel.reasons import InputError

if TYPE_CHECKING:
    from shapemodel.fitting import Fit
    from shapemodel.mesh import Mesh
    from shapemodel.model import ShapeModel

PAIRS, BUNDLE = ".csv", ".npz"
"""Endings of control-point pairs (from the model's mean to the shape), and of a model for NumPy alone."""

COVARIATES = (
    ("sex", "sex"),
    ("age", "age_years"),
    ("height", "height_cm"),
    ("weight", "weight_kg"),
    ("bmi", "bmi"),
    ("lung_volume", "lung_volume_ml"),
)
"""Options of ``query`` and the covariates they give."""

AS_IT_IS = "as the model has it"


def model(args: argparse.Namespace) -> None:
    """``shapemodel model``."""
    from shapemodel.manifest import read_manifest
    from shapemodel.mesh import read_vtp

    rows = {s.subject: s for s in read_manifest(args.manifest, check_files=False)}
    studies = [rows[named(Path(m), set(rows))] for m in args.meshes]
    names = ("age_years", "height_cm", "weight_kg")
    table = {name: [getattr(s, name) for s in studies] for name in names}
    settings = chosen(args)
    groups = verbs.groups_of([*settings.cohort.groups, *(args.group or [])], studies)
    done = verbs.completed([read_vtp(m) for m in args.meshes], studies, covariates=table, settings=settings)
    made = verbs.model(done, settings=settings, groups=groups, facts=verbs.facts(studies))
    if settings.cohort.heal:
        made = verbs.with_bases(made)
    place = Path(args.out)
    place.mkdir(parents=True, exist_ok=True)
    for group, fitted in made.items():
        path = verbs.write_model(fitted, place / f"model_{group}.h5")
        say(args, f"{path}: {fitted.n_subjects} subjects, {fitted.n_modes} modes")


def named(path: Path, subjects: set[str]) -> str:
    """The subject that a mesh's name, or its folder's, stands for."""
    stem = path.stem.removeprefix("registered_")
    for name in (stem, path.parent.name):
        if name in subjects:
            return name
    raise InputError(f"{path}: neither the file nor its folder is named after a subject of the manifest")


def mean(args: argparse.Namespace) -> None:
    """``shapemodel mean``."""
    path = output(args)
    fitted = verbs.read_model(args.model)
    mesh = verbs.symmetric_mean(fitted) if args.symmetric else verbs.mean(fitted)
    mesh, cost = (mesh, AS_IT_IS) if args.raw else gate.passed_on(mesh, verbs.finisher(fitted), path)
    title = f"{fitted.group} mean{' (symmetric)' if args.symmetric else ''}"
    for written in write_shape(args, mesh, path, fitted, title, (cost,)):
        say(args, f"{written}: mean of {fitted.n_subjects} ({fitted.group}); {cost}")


def write_shape(
    args: argparse.Namespace, mesh: Mesh, path: Path, fitted: ShapeModel, title: str, notes: tuple[str, ...] = ()
) -> list[Path]:
    """A shape in the format of the file's ending, which says what it is as far as the format can."""
    if path.suffix.lower() == PAIRS:
        from shapemodel.interchange import write_control_points

        return [write_control_points(verbs.mean(fitted), mesh.vertices, path)]
    from shapemodel.export import DeckInfo
    from shapemodel.export import write_shape as write

    told = telling.described(mesh, fitted, title, notes)
    info = DeckInfo(title=title, notes=telling.told(told)[1], units=args.units)
    return write(told, path, info, split=args.split)


def query(args: argparse.Namespace) -> None:
    """``shapemodel query``."""
    path = output(args)
    fitted = verbs.read_model(args.model)
    modes, percentiles = args.mode or [], args.percentile or []
    if args.joint is None and len(modes) != len(percentiles) and args.residual_mode is None:
        raise InputError(f"{len(modes)} --mode but {len(percentiles)} --percentile: give one for each mode")
    shapes = verbs.query(
        fitted,
        modes=dict(zip(modes, percentiles, strict=False)),
        kind=args.kind,
        joint=None if args.joint is None else (tuple(modes) or (1,), args.joint),
        among=args.among,
        covariates={k: v for option, k in COVARIATES if (v := getattr(args, option)) is not None},
        residual_mode=None if args.residual_mode is None else (args.residual_mode, (percentiles or [50.0])[0]),
        sample=None if args.sample is None else (args.sample, args.seed),
    )
    maker = None if args.raw else verbs.finisher(fitted)
    for i, (mesh, found) in enumerate(shapes, 1):
        own = path if len(shapes) == 1 else path.with_name(f"{path.stem}_{i}{path.suffix}")
        mesh, cost = gate.passed_on(mesh, maker, own) if maker else (mesh, AS_IT_IS)
        lines = [*found.lines(), cost]
        written = write_shape(args, mesh, own, fitted, found.what, tuple(lines[1:]))
        say(args, "\n  ".join([", ".join(map(str, written)), *lines]))


def fit(args: argparse.Namespace) -> None:
    """``shapemodel fit``: the model's scores and shape for a new subject."""
    path = output(args)
    fitted = verbs.read_model(args.model)
    found = verbs.fit(fitted, args.subject, scheme=args.scheme, settings=chosen(args))
    mesh, cost = fitted_mesh(fitted, found, path, raw=args.raw)
    told = telling.fit_lines(fitted, found)
    for written in write_shape(args, mesh, path, fitted, f"fitted to {Path(args.subject).name}", (*told, cost)):
        say(args, "\n  ".join([str(written), *told, cost]))
    if args.scores:
        with Path(args.scores).open("w", newline="", encoding="utf-8") as stream:
            out = csv.writer(stream, lineterminator="\n")
            out.writerow(["mode", "score", "sd"])
            deviations = found.score_cov.diagonal() ** 0.5
            out.writerows(
                [k, f"{b:.6f}", f"{s:.6f}"]
                for k, (b, s) in enumerate(zip(found.scores, deviations, strict=True), start=1)
            )


def fitted_mesh(fitted: ShapeModel, found: Fit, path: Path, *, raw: bool) -> tuple[Mesh, str]:
    """The fitted shape where the subject lies; a deck of it is made fit for use in the model's own frame."""
    from shapemodel.export import DECKS

    if raw or path.suffix.lower() not in DECKS:
        return found.mesh, AS_IT_IS
    own = found.mesh.with_vertices(fitted.instance(found.scores))
    ready, cost = gate.passed_on(own, verbs.finisher(fitted), path)
    return ready.with_vertices(ready.vertices @ found.rotation.T + found.shift), cost


def export(args: argparse.Namespace) -> None:
    """``shapemodel export``."""
    path = output(args)
    if path.suffix.lower() == BUNDLE:
        from shapemodel.interchange import write_bundle

        for made in write_bundle(verbs.read_model(args.shape), path.parent, name=path.stem):
            say(args, str(made))
        return
    from shapemodel.mesh import read_vtp

    mesh = read_vtp(args.shape)
    if path.suffix.lower() == PAIRS:
        say(args, str(pairs(args, mesh, path)))
        return
    from shapemodel.export import DeckInfo, write_shape

    title, notes = telling.told(mesh)
    info = DeckInfo(title=args.title or title or Path(args.shape).stem, units=args.units, notes=notes)
    if args.solids:
        from shapemodel.export.solid_decks import write_solid_deck
        from shapemodel.solids import carry, read_solids

        shape = carry(read_solids(args.solids), mesh)
        say(args, f"{write_solid_deck(shape, path, info)}: {shape.summary}")
        return
    mesh, cost = (mesh, "") if args.raw else gate.passed_as_it_is(mesh, path)
    for written in write_shape(mesh, path, info, split=args.split):
        say(args, f"{written}: {cost}" if cost else str(written))


def solids(args: argparse.Namespace) -> None:
    """``shapemodel solids``."""
    from shapemodel.mesh import read_vtp
    from shapemodel.solids import carry, fill, write_solids

    path = output(args, BUNDLE)
    template = read_vtp(args.template)
    made = fill(template)
    say(args, f"{write_solids(made, path)}: {carry(made, template).summary}")


def pairs(args: argparse.Namespace, mesh: Mesh, path: Path) -> Path:
    """Control-point pairs from the shape of ``--source`` to this one."""
    from shapemodel.interchange import write_control_points
    from shapemodel.mesh import read_vtp

    if not args.source:
        raise InputError(f"{path}: control-point pairs need two shapes: name the one they start from with --source")
    source = read_vtp(args.source)
    if len(source.vertices) != len(mesh.vertices):
        raise InputError(f"--source has {len(source.vertices)} vertices, the shape {len(mesh.vertices)}: one template?")
    return write_control_points(source, mesh.vertices, path)
