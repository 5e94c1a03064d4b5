"""What each verb of the command line does: read, call the verb's function, write, say where."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import gate, verbs
from pipelines.options import chosen, output, read_pairs, say
from pipelines.progress import shown
from shapemodel.reasons import InputError

if TYPE_CHECKING:
    from shapemodel.mesh import Mesh


def run(args: argparse.Namespace) -> None:
    """Do the verb that the command line names."""
    COMMANDS[args.verb](args)


def scan(args: argparse.Namespace) -> None:
    """``shapemodel scan``."""
    from shapemodel.manifest import write_manifest

    subjects: Any = args.subjects
    if subjects and subjects != "folder":
        subjects = read_pairs(Path(subjects))
    Path(args.manifest).parent.mkdir(parents=True, exist_ok=True)
    with shown(quiet=args.quiet) as progress:
        progress.begin("scan", 1)
        found = verbs.scan(args.root, subjects=subjects, salt=args.salt, note=lambda s, _: progress.note(s, "scan"))
    write_manifest(found, args.manifest)
    for study in found:
        say(args, f"{study.subject}: {'usable' if study.usable else study.reason}; {study.note}")
    good = sum(s.usable for s in found)
    say(args, f"{good} of {len(found)} studies usable; manifest: {args.manifest}")


def run_line(args: argparse.Namespace) -> None:
    """``shapemodel run``."""
    from pipelines import line

    with shown(quiet=args.quiet) as progress:
        found = line.run(args.manifest, args.out, settings=chosen(args), progress=progress)
    summary(args, found)


def summary(args: argparse.Namespace, found: Any) -> None:
    """Say what was used, what was left out, and where things lie."""
    for subject, (code, message) in sorted(found.refused.items()):
        say(args, f"left out {subject}: {code}: {message}")
    say(args, f"{len(found.used)} studies used, {len(found.refused)} left out, {len(found.redone)} stages done")
    for name in ("mean_female.stl", "mean_male.stl", "mean_pooled.stl", "report.html"):
        if name in found.files:
            say(args, f"{name}: {found.files[name]}")
    from shapemodel.render import missing

    if problem := missing():
        say(args, problem)


def demo(args: argparse.Namespace) -> None:
    """``shapemodel demo``."""
    from pipelines import demo as demo_

    with shown(quiet=args.quiet) as progress:
        found = demo_.demo(args.out, settings=chosen(args), progress=progress)
    summary(args, found.result)
    for row in found.lines():
        say(args, row)


def report(args: argparse.Namespace) -> None:
    """``shapemodel report``."""
    from pipelines import line

    say(args, str(line.report(args.folder, settings=chosen(args))))


def segment(args: argparse.Namespace) -> None:
    """``shapemodel segment``."""
    from shapemodel.labelmaps import write_labels
    from shapemodel.study import read_ct

    path = output(args)
    own = None
    if args.overrides:
        from shapemodel.overrides import read_overrides

        table = read_overrides(args.overrides)
        if args.subject not in table:
            raise InputError(f"--subject {args.subject}: {args.overrides} knows {', '.join(sorted(table)) or 'nobody'}")
        own = table[args.subject]
    ct = read_ct(args.ct, args.series)
    found = verbs.segment(ct, overrides=own, settings=chosen(args))
    scene = path.suffix.lower() == ".mrb"
    mesh = verbs.surfaces(found.image, settings=chosen(args)) if scene else None
    write_labels(found.image, path, ct=ct if scene else None, mesh=mesh)
    for flag in found.flags:
        say(args, f"look at it: {flag.code}: {flag.note}")
    complete = sum(b.status == "complete" for b in found.bones.values())
    cut = sum(b.status == "cut" for b in found.bones.values())
    say(args, f"{path}: {complete} bones complete, {cut} cut by the edge of the scan; confidence {found.score:.2f}")


def surfaces(args: argparse.Namespace) -> None:
    """``shapemodel surfaces``."""
    from shapemodel.mesh import write_vtp

    path = output(args, ".vtp")
    mesh = verbs.surfaces(args.labels, scheme=args.scheme, settings=chosen(args))
    write_vtp(mesh, path)
    say(args, f"{path}: {len(mesh.labels)} bones, {len(mesh.vertices)} vertices")


def template(args: argparse.Namespace) -> None:
    """``shapemodel template``."""
    from shapemodel.mesh import read_vtp

    path = output(args, ".vtp")
    made = verbs.template([read_vtp(m) for m in args.meshes], settings=chosen(args))
    verbs.write_template(made, path)
    say(args, f"{path}: {len(made.mesh.vertices)} vertices")


def register(args: argparse.Namespace) -> None:
    """``shapemodel register``."""
    from shapemodel.correspondence import to_mesh
    from shapemodel.mesh import read_vtp, write_vtp

    path = output(args, ".vtp")
    reference, mesh = read_vtp(args.template), read_vtp(args.mesh)
    found = verbs.register(mesh, reference, subject=Path(args.mesh).stem, settings=chosen(args), refuse=not args.force)
    write_vtp(to_mesh(found, reference), path)
    seen = found.residual_mm[found.visible]
    words = f"{found.visible.mean():.0%} of the template seen, {seen.mean() if len(seen) else 0:.2f} mm off on average"
    say(args, f"{path}: {words}")
    for flag in found.flags:
        say(args, f"look at it: {flag.code}: {flag.note}")


def model(args: argparse.Namespace) -> None:
    """``shapemodel model``."""
    from shapemodel.manifest import read_manifest
    from shapemodel.mesh import read_vtp

    rows = {s.subject: s for s in read_manifest(args.manifest, check_files=False)}
    studies = [rows[named(Path(m), set(rows))] for m in args.meshes]
    names = ("age_years", "height_cm", "weight_kg")
    table = {name: [getattr(s, name) for s in studies] for name in names}
    settings = chosen(args)
    done = verbs.completed([read_vtp(m) for m in args.meshes], studies, covariates=table, settings=settings)
    made = verbs.model(done, settings=settings)
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
    mesh, cost = (mesh, "as the model has it") if args.raw else gate.passed_on(mesh, verbs.finisher(fitted), path)
    write_shape(mesh, path, fitted, f"{fitted.group} mean{' (symmetric)' if args.symmetric else ''}", (cost,))
    say(args, f"{path}: mean of {fitted.n_subjects} ({fitted.group}); {cost}")


def write_shape(mesh: Mesh, path: Path, fitted: Any, title: str, notes: tuple[str, ...] = ()) -> None:
    """A shape in the format of the file's ending; a deck's header says what it is."""
    from shapemodel.export import DeckInfo
    from shapemodel.export import write_shape as write

    write(mesh, path, DeckInfo(title=title, notes=(*verbs.deck_notes(fitted), *notes)))


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
        joint=None if args.joint is None else (modes[0] if modes else 1, args.joint),
        covariates={
            k: v
            for k, v in (
                ("sex", args.sex),
                ("age_years", args.age),
                ("height_cm", args.height),
                ("weight_kg", args.weight),
            )
            if v is not None
        },
        residual_mode=None if args.residual_mode is None else (args.residual_mode, (percentiles or [50.0])[0]),
        sample=None if args.sample is None else (args.sample, args.seed),
    )
    maker = None if args.raw else verbs.finisher(fitted)
    for i, (mesh, found) in enumerate(shapes, 1):
        own = path if len(shapes) == 1 else path.with_name(f"{path.stem}_{i}{path.suffix}")
        mesh, cost = gate.passed_on(mesh, maker, own) if maker else (mesh, "as the model has it")
        write_shape(mesh, own, fitted, found.what, (*found.lines()[1:], cost))
        say(args, f"{own}: {' '.join(found.lines())} {cost}")


def export(args: argparse.Namespace) -> None:
    """``shapemodel export``."""
    from shapemodel.export import DeckInfo, write_shape
    from shapemodel.mesh import read_vtp

    path = output(args)
    info = DeckInfo(title=args.title or Path(args.shape).stem, units=args.units)
    mesh = read_vtp(args.shape)
    mesh, cost = (mesh, "") if args.raw else gate.passed_as_it_is(mesh, path)
    for written in write_shape(mesh, path, info, split=args.split):
        say(args, f"{written}: {cost}" if cost else str(written))


def edit(args: argparse.Namespace) -> None:
    """``shapemodel edit``."""
    from pipelines import corrections

    say(args, corrections.edit(args))


def preview(args: argparse.Namespace) -> None:
    """``shapemodel preview``."""
    from shapemodel.files import replacing
    from shapemodel.render import encode

    path = output(args, ".png", ".webp")
    image = verbs.preview(args.study, labels=args.labels, shift=args.shift, roi=args.roi, settings=chosen(args))
    with replacing(path) as part:
        part.write_bytes(encode(image, "png" if path.suffix.lower() == ".png" else "webp"))
    say(args, str(path))


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "scan": scan,
    "run": run_line,
    "demo": demo,
    "report": report,
    "segment": segment,
    "surfaces": surfaces,
    "template": template,
    "register": register,
    "model": model,
    "mean": mean,
    "query": query,
    "export": export,
    "edit": edit,
    "preview": preview,
}
