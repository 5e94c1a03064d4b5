"""Groups of the manifest by a condition: ``older_women: sex = F and age_years >= 60``.

Columns are those of the manifest that describe people (:data:`COLUMNS`); comparisons ``= != < <= > >=``, joined by
``and``. A study that does not know a column is not in the group.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

from shapemodel.reasons import InputError

COLUMNS = ("subject", "sex", "age_years", "height_cm", "weight_kg", "position")
OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "=": operator.eq,
}
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,40}")
_PART = re.compile(r"\s*(\w+)\s*(<=|>=|!=|<|>|=)\s*(\S+)\s*")
TAKEN = ("pooled", "female", "male", "difference")


def select(text: str, studies: Sequence[Any]) -> tuple[str, list[str]]:
    """(name of the group, its subjects).

    Raises
    ------
    InputError : when the text cannot be read, naming what was expected
    """
    name, _, condition = text.partition(":")
    name = name.strip()
    if not _NAME.fullmatch(name) or name in TAKEN:
        raise InputError(f"group {text!r}: expected 'name: condition' with a name other than {', '.join(TAKEN)}")
    parts = [_read(part, text) for part in re.split(r"\s+and\s+", condition.strip())]
    return name, [s.subject for s in studies if all(_holds(getattr(s, column), *rest) for column, *rest in parts)]


def _read(part: str, text: str) -> tuple[str, str, str]:
    found = _PART.fullmatch(part)
    if not found or found[1] not in COLUMNS:
        columns = ", ".join(COLUMNS)
        raise InputError(f"group {text!r}: expected comparisons such as 'age_years >= 60' of {columns}, found {part!r}")
    column, sign, value = found.groups()
    if column.endswith(("_years", "_cm", "_kg")):
        try:
            float(value)
        except ValueError:
            raise InputError(f"group {text!r}: {column} needs a number, found {value!r}") from None
    elif sign not in ("=", "!="):
        raise InputError(f"group {text!r}: {column} can be compared with = and != only")
    return column, sign, value


def _holds(own: Any, sign: str, value: str) -> bool:
    if own is None:
        return False
    return OPERATORS[sign](own, float(value)) if isinstance(own, int | float) else OPERATORS[sign](str(own), value)
