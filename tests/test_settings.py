"""Settings: defaults from the TOML, overlays, and refusals that name the key."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pipelines import settings
from shapemodel.reasons import InputError


@dataclass(frozen=True)
class Inner:
    size: float = 1.0


@dataclass(frozen=True)
class Outer:
    name: str = "a"
    pair: tuple[float, float] = (1.0, 2.0)
    many: tuple[float, ...] = (1.0,)
    limit: float | None = None
    inner: Inner = field(default_factory=Inner)


def test_default_file_agrees_with_the_records() -> None:
    """Every published parameter stands in default.toml with the value that the code falls back to.

    When it does not: ``python -m pipelines.settings`` writes it anew.
    """
    assert tomllib.loads(settings.DEFAULT_TOML.read_text()) == tomllib.loads(settings.published())


def test_user_file_names_only_what_differs(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text("[cohort]\ntemplate_studies = 3\n")
    loaded = settings.load(mine, run={"workers": 1})
    assert loaded.cohort.template_studies == 3
    assert loaded.run.workers == 1
    assert loaded.cohort.seed == settings.CohortSettings().seed


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[cohort]\ntemplate_studys = 3\n", "cohort.template_studys.*did you mean template_studies"),
        ("[cohorts]\nseed = 3\n", "unknown section 'cohorts'; did you mean cohort"),
        ("[cohort]\nseed = 'one'\n", "cohort.seed must be int, found 'one'"),
        ("[run]\nworkers = true\n", "run.workers must be int"),
        ("seed = 3\n", "unknown section 'seed'"),
        ("cohort = 3\n", "cohort must be a section"),
        ("[cohort\n", "cannot be read as TOML.*line 1"),
    ],
)
def test_wrong_settings_are_refused_by_name(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        settings.load(path)


def test_records_are_built_with_their_types() -> None:
    built = settings.build(Outer, {"pair": [3, 4], "many": [1, 2, 3], "limit": 2, "inner": {"size": 5}}, "outer")
    assert built == Outer(pair=(3, 4), many=(1, 2, 3), limit=2, inner=Inner(5.0))
    assert isinstance(built.inner.size, float)


@pytest.mark.parametrize(
    ("table", "name"),
    [({"inner": {"sise": 1}}, "outer.inner.sise"), ({"pair": [1]}, "outer.pair"), ({"name": 1}, "name")],
)
def test_nested_mistakes_carry_the_full_name(table: dict, name: str) -> None:
    with pytest.raises(InputError, match=name):
        settings.build(Outer, table, "outer")


def test_written_settings_read_back(tmp_path: Path) -> None:
    before = settings.load(None, report={"sigma": 1.5})
    path = tmp_path / "settings.toml"
    path.write_text(settings.to_toml(settings.to_table(before)))
    assert settings.to_table(settings.load(path)) == settings.to_table(before)
