"""Which source a stage's result hangs on, found by reading the imports.

It starts at the function that is the stage. Of ``pipelines``, whose modules serve many stages, what is named counts:
that function, the functions and constants that it names, and so on. Of the library whole modules count, each with
all that it imports anywhere. Nothing is run to find out; imports for type checking do not count, and relative ones
are not used here.

``anatomy``, ``mesh`` and ``reasons`` lie under everything: a change there makes every stage of every study run again.
A change of ``labels`` touches the labels alone, one of ``registration`` the registration alone, unless the bytes that
come out are others; the template and what comes after the models share most of the repair of meshes.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

LIBRARY, PIPELINES = "shapemodel", "pipelines"

FOLDER = Path(__file__).resolve().parents[1]
"""Where both packages lie."""

KEEPERS = frozenset(f"{PIPELINES}.{name}" for name in ("costs", "provenance", "settings", "source", "workspace"))
"""Modules that keep, hash and time what others make; the values of the settings are in the keys themselves."""

DATA = frozenset((".csv", ".css", ".html", ".js", ".json", ".npz", ".toml", ".vtp"))
"""Endings of files that a library module may read: those beside it, and in ``data`` beside it."""


@cache
def code_sha256(entry: str) -> str:
    """SHA-256 of all source that a function or module hangs on, by its dotted name."""
    digest = hashlib.sha256()
    for name, source in sorted(reached(entry).items()):
        digest.update(f"{name}\0{len(source)}\0".encode() + source)
    return digest.hexdigest()


def reached(entry: str, folder: Path = FOLDER) -> dict[str, bytes]:
    """Source of all that a function or module hangs on, itself included.

    Keys are names of library modules, dotted names of functions and constants of ``pipelines``, and names of data
    files relative to the folder.

    Raises
    ------
    LookupError : the entry is not there
    """
    if _place(entry, folder) is None:
        raise LookupError(f"no source of {entry}")
    found: dict[str, bytes] = {}
    todo = [entry]
    while todo:
        place = _place(todo.pop(), folder)
        if place is None or place.module in KEEPERS:
            continue
        if place.module.split(".")[0] == LIBRARY:
            if place.module not in found:
                found[place.module] = place.path.read_bytes()
                found |= {p.relative_to(folder).as_posix(): p.read_bytes() for p in _data_beside(place.path)}
                todo += _library_imports(place.path)
            continue
        parts = _parts(place.module, place.path)
        for name in [place.name] if place.name in parts else parts:
            own = f"{place.module}.{name}"
            if own not in found:
                found[own] = parts[name].source
                todo += parts[name].uses
    return found


@dataclass(frozen=True)
class Place:
    """Where a dotted name points: a module's file, and a name in it or nothing."""

    module: str
    path: Path
    name: str


@cache
def _place(dotted: str, folder: Path) -> Place | None:
    """The longest beginning of a dotted name that is a module of ours; None for names of other packages."""
    words = dotted.split(".")
    if words[0] not in (LIBRARY, PIPELINES):
        return None
    for n in range(len(words), 0, -1):
        stem = folder.joinpath(*words[:n])
        for path in (stem.with_suffix(".py"), stem / "__init__.py"):
            if path.is_file():
                return Place(".".join(words[:n]), path, ".".join(words[n : n + 1]))
    return None


def _data_beside(path: Path) -> list[Path]:
    folders = (path.parent, path.parent / "data")
    return sorted(p for f in folders if f.is_dir() for p in f.iterdir() if p.suffix in DATA)


@cache
def _library_imports(path: Path) -> tuple[str, ...]:
    """Dotted names that a module imports, at its top or inside functions."""
    return tuple(dotted for _, dotted in _imports(_statements(ast.parse(path.read_bytes()).body)))


def _statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """All statements at any depth, those for type checking excepted; far quicker than a walk through every node."""
    for statement in body:
        yield statement
        if not _for_type_checking(statement):
            yield from _statements(getattr(statement, "body", ()))
        for branch in (*getattr(statement, "handlers", ()), *getattr(statement, "cases", ())):
            yield from _statements(branch.body)
        for block in ("orelse", "finalbody"):
            yield from _statements(getattr(statement, block, ()))


def _for_type_checking(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test)


def _imports(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, str]]:
    """What import statements bind: local name, dotted name."""
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            above = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            yield from ((alias.asname or alias.name, above + alias.name) for alias in node.names)


@dataclass(frozen=True)
class Part:
    """What a name at the top of a module is bound to: its source without comments, and the dotted names in it."""

    source: bytes = b""
    uses: tuple[str, ...] = ()

    def __add__(self, other: Part) -> Part:
        return Part(self.source + other.source, self.uses + other.uses)


@cache
def _parts(module: str, path: Path) -> dict[str, Part]:
    """The functions, classes, constants and imported names of a module, by name."""
    top = [s for s in ast.parse(path.read_bytes()).body if not _for_type_checking(s)]
    imported = dict(_imports(top))
    parts = {name: Part(uses=(dotted,)) for name, dotted in imported.items()}
    rest = [(_bound(s), s) for s in top if not isinstance(s, ast.Import | ast.ImportFrom)]
    known = imported | {name: f"{module}.{name}" for names, _ in rest for name in names}
    for names, statement in rest:
        part = Part(ast.unparse(statement).encode(), _uses(statement, known))
        parts |= {name: parts.get(name, Part()) + part for name in names}
    return parts


def _bound(statement: ast.stmt) -> set[str]:
    """Names that a statement at the top of a module binds."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    return {n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def _uses(statement: ast.stmt, known: Mapping[str, str]) -> tuple[str, ...]:
    """Dotted names behind the names in a statement; of ``module.name`` that name alone, not all of the module."""
    found, inner = [dotted for _, dotted in _imports(ast.walk(statement))], set()
    for node in ast.walk(statement):  # an attribute comes before the name that it is an attribute of
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in known:
            inner.add(node.value)
            found.append(f"{known[node.value.id]}.{node.attr}")
        elif isinstance(node, ast.Name) and node.id in known and node not in inner:
            found.append(known[node.id])
    return tuple(found)
