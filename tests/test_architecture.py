"""Imports go one way: a room of the library imports only rooms above it, and the library never the pipelines."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def _modules(package: str) -> list[Path]:
    return sorted(p for p in (ROOT / package).rglob("*.py"))


def _room(path: Path, package: str) -> str:
    """The top-level module or sub-package that a file belongs to; empty for the package's own ``__init__``."""
    part = path.relative_to(ROOT / package).parts[0]
    return "" if part == "__init__.py" else part.removesuffix(".py")


def _imported(path: Path) -> set[str]:
    """Dotted names that a file imports anywhere, those for type checking excepted."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skip = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in skip:
            continue
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{a.name}" for a in node.names} | {node.module}
    return found


def _rooms_used(path: Path, package: str) -> set[str]:
    names = {n.split(".")[1] for n in _imported(path) if n.startswith(package + ".") and n.count(".") >= 1}
    known = {_room(p, package) for p in _modules(package)}
    return names & known


def test_library_never_imports_pipelines() -> None:
    for path in _modules("shapemodel"):
        assert not {n for n in _imported(path) if n.split(".")[0] == "pipelines"}, path


@pytest.mark.parametrize("package", ["shapemodel", "pipelines"])
def test_rooms_import_one_way(package: str) -> None:
    """There is an order of the rooms in which each imports only earlier ones; a circle is printed."""
    uses: dict[str, set[str]] = {}
    for path in _modules(package):
        room = _room(path, package)
        if room:
            uses.setdefault(room, set()).update(_rooms_used(path, package) - {room, ""})
    done: set[str] = set()
    while ready := [room for room, needs in uses.items() if room not in done and needs <= done]:
        done |= set(ready)
    circle = {room: sorted(needs - done) for room, needs in uses.items() if room not in done}
    assert not circle, f"rooms that import each other: {circle}"


def test_library_says_nothing_and_never_exits() -> None:
    """No prints and no ``sys.exit`` in the library: it takes and returns values."""
    for path in _modules("shapemodel"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("print", "sys.exit", "exit", "os._exit"), f"{path}:{node.lineno} {called}"


def test_every_module_says_what_it_is() -> None:
    for package in ("shapemodel", "pipelines"):
        for path in _modules(package):
            text = path.read_text(encoding="utf-8")
            assert not text.strip() or ast.get_docstring(ast.parse(text)), f"{path} has no docstring"


def test_nobody_touches_gpl_or_network() -> None:
    """gpytoolbox keeps its GPL parts in ``copyleft``; nothing here fetches from a network."""
    for package in ("shapemodel", "pipelines"):
        for path in _modules(package):
            names = _imported(path)
            assert not {n for n in names if "copyleft" in n}, path
            assert not {n for n in names if n.split(".")[0] in ("requests", "urllib", "httpx")}, path
