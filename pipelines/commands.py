"""What each verb of the command line does: read, call the verb's function, write, say where."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines import modelling, verbs
from pipelines.options import chosen, output, read_pairs, say, say_flags
from pipelines.progress import shown
from shapemodel.reasons import InputError


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
    say_flags(args, found.flags)
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
    say_flags(args, found.flags)


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
    "model": modelling.model,
    "mean": modelling.mean,
    "query": modelling.query,
    "export": modelling.export,
    "solids": modelling.solids,
    "fit": modelling.fit,
    "edit": edit,
    "preview": preview,
}
