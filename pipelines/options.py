"""What options of the command line mean that several verbs share: settings, output path, who is who, what is said."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipelines.settings import Settings, load
from shapemodel.reasons import Flag, InputError


def say(args: argparse.Namespace, line: str) -> None:
    """One line on standard output, unless quiet."""
    if not args.quiet:
        sys.stdout.write(line + "\n")


def say_flags(args: argparse.Namespace, flags: Iterable[Flag]) -> None:
    """A line for each thing that a reviewer should look at, with the bone it concerns."""
    from shapemodel.anatomy import bone

    for flag in flags:
        where = f" {bone(flag.bone).name}" if flag.bone else ""
        say(args, f"look at it: {flag.code}{where}: {flag.note}")


def chosen(args: argparse.Namespace) -> Settings:
    """Settings: published, overlaid with ``--settings`` and with the options that name workers."""
    changes: dict[str, dict[str, Any]] = {}
    for name in ("workers", "memory_gb", "scheduler"):
        if getattr(args, name, None) is not None:
            changes.setdefault("run", {})[name] = getattr(args, name)
    for name in ("studies", "seed"):
        if args.verb == "demo" and getattr(args, name, None) is not None:
            changes.setdefault("demo", {})[name] = getattr(args, name)
    found = load(args.settings, **changes)
    if found.run.workers < 0:
        raise InputError(f"--workers must be 0 or more, found {found.run.workers}")
    return found


def output(args: argparse.Namespace, *endings: str) -> Path:
    """The output path, its folder made; refused before any work when its ending is wrong."""
    path = Path(args.output)
    if endings and not path.name.lower().endswith(endings):
        raise InputError(f"-o {path}: expected a name ending in {', '.join(endings)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def read_pairs(path: Path) -> dict[str, str]:
    """``id,pseudonym`` rows of a CSV."""
    try:
        rows = [row for row in csv.reader(path.read_text(encoding="utf-8").splitlines()) if row]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--subjects {path}: cannot be read: {error}") from error
    wrong = next((i for i, row in enumerate(rows, 1) if len(row) != 2), None)
    if wrong is not None:
        raise InputError(f"--subjects {path}: row {wrong}: expected id,pseudonym, found {rows[wrong - 1]}")
    return {row[0]: row[1] for row in rows}


def read_landmarks(path: Path) -> dict[int, Any]:
    """``vertex,x,y,z`` rows: vertices of the model from 0, mm, LPS."""
    import numpy as np

    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        return {int(r["vertex"]): np.array([float(r[k]) for k in "xyz"]) for r in rows}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: expected the columns vertex, x, y, z with numbers: {error!r}") from error
