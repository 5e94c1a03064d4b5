"""Who a study belongs to: sex, age, height, weight from the tags, and the pseudonym in place of a name."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from shapemodel.study.record import Sex

OLDEST_YEARS = 89.0
"""Higher ages are recorded as 90: they would point at a person."""

_PLACEHOLDER = re.compile(r"^(anon.*|unknown|none|null|patient|subject|test|id|x+|0+|1|n/?a|-+)$", re.IGNORECASE)
_AGE_UNITS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}
_HEIGHTS_CM = (40.0, 260.0)
_WEIGHTS_KG = (1.0, 400.0)


@dataclass(frozen=True)
class Person:
    """What the tags say of a subject; None where they say nothing credible."""

    sex: Sex | None
    age_years: float | None
    height_cm: float | None
    weight_kg: float | None
    position: str | None


def person(tags: Mapping[str, str]) -> Person:
    """Read PatientSex, PatientAge (or the birth date), PatientSize, PatientWeight, PatientPosition."""
    sex: Sex | None = None
    if tags.get("PatientSex", "").upper() == "F":
        sex = "F"
    elif tags.get("PatientSex", "").upper() == "M":
        sex = "M"
    height = _number(tags.get("PatientSize", ""))
    if height is not None and height < 3.0:
        height = round(height * 100, 1)  # the standard's unit is metres; some write centimetres
    weight = _number(tags.get("PatientWeight", ""))
    return Person(
        sex,
        _age(tags),
        height if height is not None and _HEIGHTS_CM[0] <= height <= _HEIGHTS_CM[1] else None,
        weight if weight is not None and _WEIGHTS_KG[0] <= weight <= _WEIGHTS_KG[1] else None,
        tags.get("PatientPosition", "").upper() or None,
    )


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _age(tags: Mapping[str, str]) -> float | None:
    match = re.fullmatch(r"(\d{1,3})\s*([YMWD]?)", tags.get("PatientAge", "").strip().upper())
    age: float | None = None
    if match:
        age = round(int(match[1]) * _AGE_UNITS[match[2] or "Y"], 2)
    else:
        born, seen = (re.fullmatch(r"(\d{4})(\d\d)(\d\d)", tags.get(k, "")) for k in ("PatientBirthDate", "StudyDate"))
        if born and seen:
            before_birthday = (seen[2], seen[3]) < (born[2], born[3])
            age = float(int(seen[1]) - int(born[1]) - before_birthday)
    if age is None or not 0 <= age <= 120:
        return None
    return age if age <= OLDEST_YEARS else OLDEST_YEARS + 1


def names_a_person(patient_id: str, sexes: Iterable[str]) -> bool:
    """Can this PatientID tell people apart? Not when empty, a placeholder, or shared by both sexes."""
    known = {s for s in sexes if s in ("F", "M")}
    return bool(patient_id) and not _PLACEHOLDER.match(patient_id) and len(known) < 2


def pseudonym(identity: str, salt: str) -> str:
    """A name that cannot be undone without the salt: ``S`` and ten hexadecimal digits."""
    return "S" + hashlib.sha256(f"{salt}\0{identity}".encode()).hexdigest()[:10]
