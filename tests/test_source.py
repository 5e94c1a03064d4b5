"""Every module that a stage's code imports is part of the stage's key, wherever the import stands."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path

import pytest
from test_architecture import ROOT, _imported

from pipelines.source import KEEPERS, code_sha256, reached
from pipelines.workspace import STAGE_ENTRY


def write(folder: Path, texts: Mapping[str, str]) -> Path:
    """A tree of source from the texts of modules by name."""
    for name, text in texts.items():
        path = folder.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize(
    "text",
    [
        "import shapemodel.b",
        "import shapemodel.b as other",
        "from shapemodel import b",
        "from shapemodel.b import thing",
        "def f():\n    from shapemodel.b import thing",
        "class C:\n    def f(self):\n        try:\n            import shapemodel.b\n        finally:\n            pass",
        "try:\n    import numpy\nexcept ImportError:\n    import shapemodel.b",
        "def f(x):\n    match x:\n        case 1:\n            import shapemodel.b",
        "if TYPE_CHECKING:\n    from shapemodel.c import x\nelse:\n    from shapemodel.b import x",
        "def f():\n    from shapemodel.b import make\ndef g():\n    from shapemodel.d import make",
    ],
)
def test_imports_of_the_library_are_followed(tmp_path: Path, text: str) -> None:
    others = {f"shapemodel.{name}": f"{name} = 1" for name in "bcd"}
    folder = write(tmp_path, {"shapemodel.a": text, **others})
    found = reached("shapemodel.a", folder)
    assert found["shapemodel.b"] == b"b = 1"
    assert "shapemodel.c" not in found


def test_imports_of_imports_count_and_circles_end(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        {
            "shapemodel.a": "from shapemodel.rooms import thing",
            "shapemodel.rooms.__init__": "from shapemodel.rooms.one import thing",
            "shapemodel.rooms.one": "import shapemodel.a, shapemodel.last",
            "shapemodel.rooms.two": "",
            "shapemodel.last": "",
        },
    )
    assert set(reached("shapemodel.a", folder)) == {f"shapemodel.{n}" for n in ("a", "rooms", "rooms.one", "last")}


def test_data_beside_a_module_count(tmp_path: Path) -> None:
    folder = write(tmp_path, {"shapemodel.a": "import shapemodel.rooms.one", "shapemodel.rooms.one": ""})
    for name in ("page.html", "data/table.csv"):
        path = folder / "shapemodel" / "rooms" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    assert reached("shapemodel.a", folder)["shapemodel/rooms/data/table.csv"] == b"data/table.csv"
    assert "shapemodel/rooms/page.html" in reached("shapemodel.a", folder)


STAGES = """
from pipelines import verbs
from pipelines.verbs import LIMIT as limit
import shapemodel.unused

def one():
    return helper(verbs.fit())

def two():
    return verbs.cut()

def any(name):
    return getattr(verbs, name)()

def helper(x):
    return x + limit
"""

VERBS = """
LIMIT = 1

def fit():  # what is not code does not count
    from shapemodel.a import fit as make

    return make()

def cut():
    from shapemodel.b import cut as make

    return make()
"""


@pytest.fixture
def stages(tmp_path: Path) -> Path:
    library = dict.fromkeys(("shapemodel.a", "shapemodel.b", "shapemodel.unused"), "")
    return write(tmp_path, {"pipelines.stages": STAGES, "pipelines.verbs": VERBS, **library})


def test_of_pipelines_only_what_is_named_counts(stages: Path) -> None:
    found = reached("pipelines.stages.one", stages)
    assert set(found) == {
        "pipelines.stages.one",
        "pipelines.stages.helper",
        "pipelines.verbs.fit",
        "pipelines.verbs.LIMIT",
        "shapemodel.a",
    }
    assert b"#" not in found["pipelines.verbs.fit"]
    assert "shapemodel.b" in reached("pipelines.stages.two", stages)


def test_a_module_used_as_a_whole_counts_as_a_whole(stages: Path) -> None:
    assert {"shapemodel.a", "shapemodel.b"} <= set(reached("pipelines.stages.any", stages))


def test_an_entry_that_is_not_there_is_said() -> None:
    with pytest.raises(LookupError, match=r"no source of numpy\.linalg"):
        reached("numpy.linalg")


@pytest.mark.parametrize("entry", STAGE_ENTRY.values())
def test_stages_are_functions_with_a_code_of_their_own(entry: str) -> None:
    module, _, name = entry.rpartition(".")
    assert callable(getattr(importlib.import_module(module), name))
    assert entry in reached(entry)
    assert [e for e in STAGE_ENTRY.values() if code_sha256(e) == code_sha256(entry)] == [entry]


@pytest.mark.parametrize("stage", STAGE_ENTRY)
def test_no_library_module_is_imported_but_not_hashed(stage: str) -> None:
    """Against another reading of the imports, that of the test of the architecture."""
    found = reached(STAGE_ENTRY[stage])
    for module in [name for name in found if name.split(".")[0] == "shapemodel" and "/" not in name]:
        stem = ROOT.joinpath(*module.split("."))
        path = stem / "__init__.py" if stem.is_dir() else stem.with_suffix(".py")
        for name in _imported(path):
            if ROOT.joinpath(*name.split(".")).with_suffix(".py").is_file():
                assert name in found, f"{path} imports {name}"


@pytest.mark.parametrize(
    ("part", "stages"),
    [
        ("shapemodel.sliding", {"template", "model", "results"}),
        ("shapemodel.clearing", {"template", "model", "results"}),
        ("shapemodel.ready", {"model", "results"}),
        ("shapemodel.topology", {"surfaces", "template", "registration", "model", "results"}),
        ("shapemodel.prongs", {"template"}),
        ("shapemodel.walks", {"template", "registration", "model", "results"}),
        ("shapemodel.quality", {"evaluation"}),
        ("pipelines.judged", {"report"}),
        ("pipelines.gate", {"results", "report"}),
        ("pipelines.selection", {"report"}),
        ("pipelines.deliver", {"results", "report"}),
        ("pipelines.verbs.difference", {"model"}),
        ("shapemodel.labels", {"labels"}),
        ("shapemodel.registration", {"registration"}),
        ("shapemodel/report/page.html", {"report"}),
    ],
)
def test_stages_hang_on_what_they_use(part: str, stages: set[str]) -> None:
    users = {s for s, e in STAGE_ENTRY.items() if any(n == part or n.startswith(part + ".") for n in reached(e))}
    assert stages <= users


def test_stages_do_not_hang_on_each_other_s_code() -> None:
    labels, registration = (reached(STAGE_ENTRY[s]) for s in ("labels", "registration"))
    assert "shapemodel.labels" not in registration
    assert "shapemodel.registration" not in labels


def test_what_only_keeps_or_shows_does_not_count() -> None:
    for entry in STAGE_ENTRY.values():
        modules = {".".join(name.split(".")[:2]) for name in reached(entry)}
        shown = {f"pipelines.{name}" for name in ("cli", "commands", "line", "pool", "progress")}
        assert not modules & (KEEPERS | shown)
