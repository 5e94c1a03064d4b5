"""Corrections of single studies from the command line: each call changes ``overrides.toml`` beside the manifest.

The tools carry the names that people know from 3D Slicer. The next run redoes that study's stages alone.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from shapemodel.reasons import InputError

OVERRIDES_FILE = "overrides.toml"
"""Corrections of single studies, beside the manifest."""

TOOLS = (
    "threshold",
    "crop",
    "grow-from-seeds",
    "scissors",
    "islands",
    "local-threshold",
    "relabel",
    "cut",
    "exclude",
    "include",
    "show",
    "reset",
)

BY_HAND = "left out by hand"
"""Said when nobody says why."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``shapemodel edit`` understands."""
    point = ("X", "Y", "Z")
    parser.add_argument("subject", help="the study's pseudonym in the manifest")
    parser.add_argument("tool", choices=TOOLS, help="what to do; show prints, reset forgets all corrections")
    parser.add_argument(
        "-m", "--manifest", default="data_manifest.csv", help="overrides.toml lies beside it (%(default)s)"
    )
    parser.add_argument("--shift", type=float, help="threshold: HU added to the automatic thresholds")
    parser.add_argument("--box", type=float, nargs=6, metavar="MM", help="xmin xmax ymin ymax zmin zmax, mm LPS")
    parser.add_argument("--label", help="bone, e.g. rib_left_07")
    parser.add_argument("--to", help="bone that it becomes, or background")
    parser.add_argument("--at", type=float, nargs=3, metavar=point, help="mm LPS")
    parser.add_argument("--normal", type=float, nargs=3, metavar=point, help="cut: towards what is taken away")
    parser.add_argument("--min-mm3", type=float, help="islands: smaller pieces go")
    parser.add_argument("--low", type=float, help="local-threshold: HU")
    parser.add_argument("--high", type=float, help="local-threshold: HU")
    parser.add_argument("--radius", type=float, help="local-threshold: mm")
    parser.add_argument("--why", default="", help="exclude: the reason")


def edit(args: argparse.Namespace) -> str:
    """Change the corrections of a study and say what they are now.

    Raises
    ------
    InputError : an unknown subject, a tool without what it needs, a value outside its range
    """
    from shapemodel.manifest import read_manifest
    from shapemodel.overrides import Corrections, change_study, read_overrides

    manifest = Path(args.manifest)
    subjects = {s.subject for s in read_manifest(manifest, check_files=False)}
    if args.subject not in subjects:
        raise InputError(f"{args.subject}: no such subject in {manifest}")
    path = manifest.parent / OVERRIDES_FILE
    now = read_overrides(path).get(args.subject, Corrections())
    if args.tool != "show":
        now = change_study(path, args.subject, changed(now, args))
    return f"{args.subject}: version {now.version}: {describe(now)}"


def changed(now: Any, args: argparse.Namespace) -> Any:
    """The corrections with one more change."""
    from shapemodel.overrides import Corrections, Step, label_number

    if args.tool == "reset":
        return Corrections(version=now.version)
    if args.tool == "threshold":
        return replace(now, threshold_shift=needed(args, "shift"))
    if args.tool == "crop":
        return replace(now, crop=tuple(needed(args, "box")))
    if args.tool in ("exclude", "include"):
        return replace(now, exclude=args.tool == "exclude", why=(args.why or BY_HAND) if args.tool == "exclude" else "")
    if args.tool == "grow-from-seeds":
        seed = (*needed(args, "at"), label_number(needed(args, "label"), "--label"))
        return replace(now, seeds=(*now.seeds, seed))
    values: dict[str, Any] = {
        k: label_number(v, f"--{k}") for k in ("label", "to") if (v := getattr(args, k)) is not None
    }
    values |= {k: tuple(v) for k in ("at", "normal", "box") if (v := getattr(args, k)) is not None}
    values |= {k: v for k in ("min_mm3", "low", "high", "radius") if (v := getattr(args, k)) is not None}
    return replace(now, steps=(*now.steps, Step(do=args.tool.replace("-", "_"), **values)))


def needed(args: argparse.Namespace, name: str) -> Any:
    """An option that the tool cannot do without."""
    value = getattr(args, name)
    if value is None:
        raise InputError(f"{args.tool}: expected --{name}, found nothing")
    return value


def describe(now: Any) -> str:
    """Corrections in words."""
    if now.empty:
        return "no corrections"
    words = []
    if now.exclude:
        words.append(f"left out ({now.why})")
    if now.threshold_shift:
        words.append(f"threshold {now.threshold_shift:+g} HU")
    if now.crop is not None:
        words.append(f"cropped to {list(now.crop)}")
    if now.seeds:
        words.append(f"{len(now.seeds)} seed(s)")
    words += [step.do for step in now.steps]
    return ", ".join(words)
