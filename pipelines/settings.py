"""Settings: one TOML file becomes frozen records; a key that nobody reads is refused by its name.

``default.toml`` beside this module holds the published parameters. A user's file names only what differs;
the full set is copied beside the results.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shapemodel.reasons import InputError

DEFAULT_TOML = Path(__file__).with_name("default.toml")


@dataclass(frozen=True)
class RunSettings:
    """How the work is spread; never part of an artefact's key, since it does not change results.

    Attributes
    ----------
    workers : processes; 1 works in the process itself, 0 takes one a core
    memory_gb : limit of one worker; a study that breaks it fails alone
    scheduler : address of an existing dask scheduler (tcp://host:port), empty for a local one
    """

    workers: int = 0
    memory_gb: float = 3.0
    scheduler: str = ""


@dataclass(frozen=True)
class CohortSettings:
    """Who makes the template and the models.

    Attributes
    ----------
    template : a .vtp to use as template; empty: composed from the cohort
    template_studies : how many of the most complete studies the template is composed from
    round_studies : how many of the most complete studies, the sexes in turn, take part in the groupwise rounds
    modes : most modes kept in a model, 0: all
    permutations : of the test of the difference between the sexes
    heal : part bones that cut each other, and better the triangles, of every shape that is written (the models keep
        their means as they are, and carry the healed ones beside them)
    seed : of every draw in the cohort stages
    groups : further groups with a model and mean of their own, ``"older_women: sex = F and age_years >= 60"``
    """

    template: str = ""
    template_studies: int = 6
    round_studies: int = 12
    modes: int = 0
    permutations: int = 1000
    heal: bool = True
    seed: int = 1
    groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class DemoSettings:
    """The embedded phantom cohort.

    Attributes
    ----------
    studies : subjects, half female and half male
    seed : of the cohort
    """

    studies: int = 12
    seed: int = 1


@dataclass(frozen=True)
class ReportSettings:
    """Pictures and words of the report.

    Attributes
    ----------
    thumbnail_px : height of a study's pictures
    picture_px : height of the pictures of means and modes
    modes : modes shown
    sigma : how far along a mode the pictures and the checks go, in standard deviations
    checked_modes, checked_samples : modes (both ends) and random shapes of the pooled model that are put to the gate of
        exported shapes, beside the means
    """

    thumbnail_px: int = 260
    picture_px: int = 420
    modes: int = 3
    sigma: float = 2.0
    checked_modes: int = 5
    checked_samples: int = 20


@dataclass(frozen=True)
class EvaluationSettings:
    """How the models are judged.

    Attributes
    ----------
    modes : numbers of modes at which generalization and specificity are given, as far as the cohort has them
    nodes : vertices on which the models of the folds are built, spread over the bones
    folds : of the cross-validation; a cohort of at most so many, or 0, leaves out one subject at a time
    samples : random shapes of the specificity
    draws : of the learning curve, for each number of subjects
    seed : of all of these
    """

    modes: tuple[int, ...] = (1, 2, 3, 5, 8, 12, 20, 30, 50)
    nodes: int = 1000
    folds: int = 20
    samples: int = 200
    draws: int = 40
    seed: int = 1


@dataclass(frozen=True)
class Settings:
    """All settings of a run, one section a stage; sections of the library are its own records."""

    run: RunSettings = field(default_factory=RunSettings)
    cohort: CohortSettings = field(default_factory=CohortSettings)
    demo: DemoSettings = field(default_factory=DemoSettings)
    report: ReportSettings = field(default_factory=ReportSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    library: Mapping[str, Any] = field(default_factory=dict)

    def section(self, name: str) -> Any:
        """The library's settings record of a stage."""
        if name not in self.library:
            return load_class(LIBRARY[name])()
        return self.library[name]


LIBRARY: dict[str, str] = {
    "labels": "shapemodel.labels:LabelSettings",
    "surfaces": "shapemodel.surfaces:SurfaceSettings",
    "template": "shapemodel.template:TemplateSettings",
    "groupwise": "shapemodel.groupwise:GroupwiseSettings",
    "registration": "shapemodel.registration:RegistrationSettings",
    "limits": "shapemodel.correspondence:Limits",
    "completion": "shapemodel.completion:CompletionSettings",
}
"""Section name -> ``module:class`` of the settings record that a library stage defines."""

OWN: dict[str, type] = {
    "run": RunSettings,
    "cohort": CohortSettings,
    "demo": DemoSettings,
    "report": ReportSettings,
    "evaluation": EvaluationSettings,
}


def load_class(place: str) -> Any:
    """The class named ``module:class``."""
    module, name = place.split(":")
    return getattr(importlib.import_module(module), name)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a TOML value fits a field's type; integers pass for floats, lists for tuples."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, a) for a in args)
    if origin is typing.Literal:
        return value in args
    if origin in (tuple, list):
        if not isinstance(value, list | tuple):
            return False
        kinds = args[:1] * len(value) if len(args) == 2 and args[1] is Ellipsis else args
        return len(kinds) == len(value) and all(_fits(v, k) for v, k in zip(value, kinds, strict=True))
    if origin is not None or hint is Any:
        return True
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _frozen(value: Any) -> Any:
    return tuple(_frozen(v) for v in value) if isinstance(value, list | tuple) else value


def build(kind: Any, table: Mapping[str, Any], where: str) -> Any:
    """A settings record from a table.

    Raises
    ------
    InputError : a key that the record does not have, or a value of the wrong type, with the key's full name
    """
    hints = typing.get_type_hints(kind)
    known = [f.name for f in dataclasses.fields(kind) if f.init]
    values = {}
    for key, value in table.items():
        name = f"{where}.{key}" if where else key
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
            raise InputError(f"settings: unknown key {name!r}; {hint}")
        if dataclasses.is_dataclass(hints[key]) and isinstance(value, Mapping):
            values[key] = build(hints[key], value, name)
        elif _fits(value, hints[key]):
            values[key] = float(value) if hints[key] is float else _frozen(value)
        else:
            raise InputError(f"settings: {name} must be {_hint_name(hints[key])}, found {value!r}")
    return kind(**values)


def _hint_name(hint: Any) -> str:
    return getattr(hint, "__name__", str(hint)) if typing.get_origin(hint) is None else str(hint)


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(below)
    for key, value in above.items():
        old = out.get(key)
        out[key] = _merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return out


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file; InputError with the line when it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: cannot be read as TOML: {error}") from error


def load(path: str | Path | None = None, **changes: Mapping[str, Any]) -> Settings:
    """The published settings, overlaid with a user's TOML file and then with ``section={key: value}``."""
    table = read_toml(DEFAULT_TOML)
    if path is not None:
        table = _merged(table, read_toml(Path(path)))
    return from_table(_merged(table, changes))


def from_table(table: Mapping[str, Any]) -> Settings:
    """Settings from nested tables; unknown sections and keys are refused."""
    own: dict[str, Any] = {}
    library: dict[str, Any] = {}
    for name, section in table.items():
        if name not in OWN and name not in LIBRARY:
            near = difflib.get_close_matches(name, [*OWN, *LIBRARY], 1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join([*OWN, *LIBRARY])}"
            raise InputError(f"settings: unknown section {name!r}; {hint}")
        if not isinstance(section, Mapping):
            raise InputError(f"settings: {name} must be a section [{name}], found {section!r}")
        if name in OWN:
            own[name] = build(OWN[name], section, name)
        else:
            library[name] = build(load_class(LIBRARY[name]), section, name)
    return Settings(**own, library=library)


def to_table(settings: Settings) -> dict[str, dict[str, Any]]:
    """Nested tables of every value in force, e.g. to be stored beside results or hashed."""
    table = {name: dataclasses.asdict(getattr(settings, name)) for name in OWN}
    table.update({name: dataclasses.asdict(settings.section(name)) for name in LIBRARY})
    return table


def to_toml(table: Mapping[str, Any], where: str = "") -> str:
    """TOML text of nested tables of plain values; ``None`` is left out (it means the default)."""
    plain = [f"{k} = {_toml_value(v)}" for k, v in table.items() if not isinstance(v, Mapping) and v is not None]
    text = (f"[{where}]\n" if where and plain else "") + "".join(line + "\n" for line in plain)
    for key, value in table.items():
        if isinstance(value, Mapping):
            text += ("\n" if text else "") + to_toml(value, f"{where}.{key}" if where else key)
    return text


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml_value(v) for v in value) + "]"
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


HEADER = """\
# The published parameters, all of them; what they mean stands in the records named beside the sections.
# A settings file of your own names only what differs:
#   shapemodel run data_manifest.csv --out study/ --settings mine.toml
"""


def published() -> str:
    """Text of ``default.toml``: every section with the value of every field (None, "decided by the code", left out)."""
    places = {**{name: f"pipelines.settings:{kind.__name__}" for name, kind in OWN.items()}, **LIBRARY}
    table = to_table(Settings())
    parts = [f"# {places[name]}\n{to_toml(values, name)}" for name, values in table.items()]
    return HEADER + "\n" + "\n".join(parts)


if __name__ == "__main__":
    DEFAULT_TOML.write_text(published(), encoding="utf-8")
