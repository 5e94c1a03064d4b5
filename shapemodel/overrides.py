"""Corrections of single studies: ``overrides.toml``, beside the manifest, the only place where they live.

::

    format = 1

    [studies.S0bfe086337]
    version = 3                                  # raised by every change
    threshold_shift = -20                        # HU, added to the automatic thresholds
    crop = [-180, 170, -330, 40, -340, 0]        # xmin, xmax, ymin, ymax, zmin, zmax, mm LPS; nothing outside
    exclude = "metal implant"                    # why the study is left out

    [[studies.S0bfe086337.seeds]]                # this place belongs to that bone
    label = "rib_left_07"
    at = [84.0, -12.5, -210.0]                   # mm LPS

    [[studies.S0bfe086337.steps]]                # done in their order, after the automatic labelling
    do = "relabel"                               # also: cut, scissors, islands, local_threshold
    label = "rib_left_07"
    to = "rib_left_08"

:class:`Corrections` extends what the labelling itself understands
(:class:`shapemodel.labels.records.Overrides`: threshold shift, crop, seeds) by the steps that
:func:`shapemodel.steps.correct` carries out on the labelled result. Labels are bone names of
:mod:`shapemodel.anatomy`, or ``background``; in records they are numbers.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shapemodel.anatomy import LABEL, bone
from shapemodel.files import replacing
from shapemodel.labels.records import Overrides
from shapemodel.reasons import InputError

FORMAT = 1
BACKGROUND = "background"
MAX_SHIFT_HU = 300.0
"""A larger shift than this leaves no bone, or all of the body."""

_BARE = re.compile(r"[A-Za-z0-9_-]+")

Point = tuple[float, float, float]
Box = tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class Step:
    """One change of a label map.

    Attributes
    ----------
    do : what to do
        ``relabel``: ``label`` becomes ``to``; with ``at`` only the piece at that point, with ``box`` only inside it;
        ``cut``: of ``label``, what lies beyond the plane through ``at`` towards ``normal`` becomes ``to``;
        ``scissors``: of ``label`` (none: of all), what lies inside ``box`` becomes ``to``;
        ``islands``: of ``label`` (none: of each), the largest piece stays, or those of at least ``min_mm3``; the
        rest becomes ``to``;
        ``local_threshold``: background of ``low``..``high`` HU within ``radius`` mm of ``at`` that is connected to
        it becomes ``label``
    label, to : label numbers; ``to`` is 0 (background) when nothing is said
    at, normal : mm LPS; ``normal`` need not be a unit vector
    box : xmin, xmax, ymin, ymax, zmin, zmax mm LPS
    min_mm3, low, high, radius : mm3, HU, HU, mm
    """

    do: str
    label: int | None = None
    to: int = 0
    at: Point | None = None
    normal: Point | None = None
    box: Box | None = None
    min_mm3: float | None = None
    low: float | None = None
    high: float | None = None
    radius: float | None = None


NEEDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "relabel": (("label", "to"), ("at", "box")),
    "cut": (("label", "at", "normal"), ("to",)),
    "scissors": (("box",), ("label", "to")),
    "islands": ((), ("label", "min_mm3", "to")),
    "local_threshold": (("label", "at", "low", "high", "radius"), ()),
}
"""For each kind of step: the keys it must have, and those it may have."""


@dataclass(frozen=True)
class Corrections(Overrides):
    """The corrections of one study; the defaults change nothing.

    Attributes
    ----------
    threshold_shift : HU added to the automatic thresholds
    crop : box in mm LPS outside which nothing is labelled, or None
    seeds : (x, y, z, label): places, mm LPS, with the bone they belong to
    steps : changes of the label map, in their order
    exclude : the study is left out
    why : why it is
    version : number of changes so far
    """

    steps: tuple[Step, ...] = ()
    why: str = ""
    version: int = 0

    @property
    def empty(self) -> bool:
        """True when it changes nothing."""
        return replace(self, version=0) == Corrections()


def read_overrides(path: str | Path) -> dict[str, Corrections]:
    """All corrections by subject; none when the file does not exist. InputError names file, study, key, expected."""
    path = Path(path)
    if not path.exists():
        return {}
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise InputError(f"{path}: not a TOML file: {e}") from e
    unknown = set(raw) - {"format", "studies"}
    if unknown or raw.get("format", FORMAT) != FORMAT:
        raise InputError(f"{path}: expected format = {FORMAT} and [studies.*], found {sorted(raw)}")
    studies = raw.get("studies", {})
    if not isinstance(studies, dict) or not all(isinstance(v, dict) for v in studies.values()):
        raise InputError(f"{path}: expected one table [studies.SUBJECT] a study")
    return {subject: _study(f"{path}: {subject}", table) for subject, table in studies.items()}


def write_overrides(overrides: Mapping[str, Corrections], path: str | Path) -> Path:
    """Write all corrections, subjects in order; what :func:`read_overrides` reads is the same again."""
    lines = [f"format = {FORMAT}"]
    for subject in sorted(overrides):
        lines += _table_lines(subject, overrides[subject])
    with replacing(path) as part:
        part.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Path(path)


def change_study(path: str | Path, subject: str, new: Corrections) -> Corrections:
    """Set the corrections of one study in the file; its version goes up by one if they differ from the old ones."""
    everything = read_overrides(path)
    old = everything.get(subject, Corrections())
    if replace(new, version=old.version) == old:
        return old
    everything[subject] = _study(f"{path}: {subject}", _plain(replace(new, version=old.version + 1)))
    write_overrides(everything, path)
    return everything[subject]


def label_number(name: Any, where: str) -> int:
    """Number of a bone name, or 0 for ``background``."""
    if name == BACKGROUND:
        return 0
    if not isinstance(name, str) or name not in LABEL:
        raise InputError(f"{where}: expected a bone name such as rib_left_07, or {BACKGROUND}, found {name!r}")
    return LABEL[name]


def label_name(label: int) -> str:
    """Inverse of :func:`label_number`."""
    return bone(label).name if label else BACKGROUND


def _study(where: str, table: Mapping[str, Any]) -> Corrections:
    _known(where, table, {"threshold_shift", "crop", "seeds", "steps", "exclude", "version"})
    exclude, version = table.get("exclude", ""), table.get("version", 0)
    if not isinstance(exclude, str):
        raise InputError(f"{where}: exclude: expected a sentence why, found {exclude!r}")
    if not isinstance(version, int) or isinstance(version, bool) or version < 0:
        raise InputError(f"{where}: version: expected a whole number, found {version!r}")
    shift = _number(f"{where}: threshold_shift", table.get("threshold_shift", 0.0))
    if abs(shift) > MAX_SHIFT_HU:
        raise InputError(f"{where}: threshold_shift: expected at most {MAX_SHIFT_HU:.0f} HU, found {shift:g}")
    seeds = []
    for i, seed in enumerate(_list(f"{where}: seeds", table.get("seeds", []))):
        here = f"{where}: seeds[{i}]"
        _known(here, seed, {"label", "at"}, required=("label", "at"))
        seeds.append((*_point(f"{here}: at", seed["at"]), label_number(seed["label"], here)))
    steps = tuple(_step(f"{where}: steps[{i}]", s) for i, s in enumerate(_list(where, table.get("steps", []))))
    return Corrections(
        threshold_shift=shift,
        crop=_box(f"{where}: crop", table["crop"]) if "crop" in table else None,
        seeds=tuple(seeds),
        exclude=bool(exclude),
        steps=steps,
        why=exclude,
        version=version,
    )


def _step(where: str, table: Mapping[str, Any]) -> Step:
    do = table.get("do")
    if not isinstance(do, str) or do not in NEEDS:
        raise InputError(f"{where}: do: expected one of {', '.join(NEEDS)}, found {do!r}")
    needed, allowed = NEEDS[do]
    _known(where, table, {"do", *needed, *allowed}, required=needed)
    values: dict[str, Any] = {"do": do}
    for key in (k for k in table if k != "do"):
        here = f"{where}: {key}"
        if key in ("label", "to"):
            values[key] = label_number(table[key], here)
        elif key in ("at", "normal"):
            values[key] = _point(here, table[key])
        elif key == "box":
            values[key] = _box(here, table[key])
        else:
            values[key] = _number(here, table[key])
    if do == "cut" and not any(values["normal"]):
        raise InputError(f"{where}: normal: expected a direction, found {values['normal']}")
    if do == "local_threshold" and not (values["low"] <= values["high"] and values["radius"] > 0):
        raise InputError(f"{where}: expected low <= high and radius > 0")
    return Step(**values)


def _known(where: str, table: Any, keys: set[str], required: tuple[str, ...] = ()) -> None:
    if not isinstance(table, Mapping):
        raise InputError(f"{where}: expected a table, found {table!r}")
    unknown, missing = sorted(set(table) - keys), sorted(set(required) - set(table))
    if unknown or missing:
        raise InputError(f"{where}: expected keys {sorted(keys)}, found unknown {unknown}, missing {missing}")


def _list(where: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise InputError(f"{where}: expected a list of tables, found {value!r}")
    return value


def _number(where: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{where}: expected a number, found {value!r}")
    return float(value)


def _point(where: str, value: Any) -> Point:
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise InputError(f"{where}: expected x, y, z in mm LPS, found {value!r}")
    x, y, z = (_number(where, v) for v in value)
    return (x, y, z)


def _box(where: str, value: Any) -> Box:
    if not isinstance(value, list | tuple) or len(value) != 6:
        raise InputError(f"{where}: expected xmin, xmax, ymin, ymax, zmin, zmax in mm LPS, found {value!r}")
    x0, x1, y0, y1, z0, z1 = (_number(where, v) for v in value)
    if not (x0 < x1 and y0 < y1 and z0 < z1):
        raise InputError(f"{where}: expected each minimum below its maximum, found {list(value)}")
    return (x0, x1, y0, y1, z0, z1)


def _plain(overrides: Corrections) -> dict[str, Any]:
    """As it stands in the file; what is at its default is left out."""
    table: dict[str, Any] = {"version": overrides.version}
    if overrides.threshold_shift:
        table["threshold_shift"] = overrides.threshold_shift
    if overrides.crop is not None:
        table["crop"] = list(overrides.crop)
    if overrides.exclude or overrides.why:
        table["exclude"] = overrides.why or "left out by hand"
    if overrides.seeds:
        table["seeds"] = [{"label": label_name(s[3]), "at": list(s[:3])} for s in overrides.seeds]
    if overrides.steps:
        table["steps"] = [_plain_step(s) for s in overrides.steps]
    return table


def _plain_step(step: Step) -> dict[str, Any]:
    table: dict[str, Any] = {"do": step.do}
    needed, allowed = NEEDS[step.do]
    for key in (*needed, *allowed):
        value = getattr(step, key)
        if value is None or (key == "to" and key not in needed and value == 0):
            continue
        table[key] = label_name(value) if key in ("label", "to") else list(value) if isinstance(value, tuple) else value
    return table


def _table_lines(subject: str, overrides: Corrections) -> list[str]:
    name = f"studies.{subject if _BARE.fullmatch(subject) else _toml(subject)}"
    table = _plain(overrides)
    lines = ["", f"[{name}]"]
    lines += [f"{k} = {_toml(v)}" for k, v in table.items() if k not in ("seeds", "steps")]
    for key in ("seeds", "steps"):
        for entry in table.get(key, []):
            lines += ["", f"[[{name}.{key}]]", *(f"{k} = {_toml(v)}" for k, v in entry.items())]
    return lines


def _toml(value: Any) -> str:
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        escaped = "".join(c if ord(c) >= 32 and ord(c) != 127 else f"\\u{ord(c):04x}" for c in escaped)
        return f'"{escaped}"'
    if isinstance(value, list):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    return repr(value)
