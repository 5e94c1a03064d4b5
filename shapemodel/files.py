"""Writing files so that nothing is ever half written: a temporary name beside the target, then a rename."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path with the same ending; rename it to ``path`` on success, remove it on failure."""
    path = Path(path)
    ending = "".join(path.suffixes[-2:])
    part = path.with_name(f".{path.name.removesuffix(ending)}.{os.getpid()}.part{ending}")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
