"""Those left out beside those used: means, spreads and a standing that can be checked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.selection import selection_table
from shapemodel.report import StudyEntry


def entry(name: str, sex: str | None, age: float | None, code: str = "") -> StudyEntry:
    return StudyEntry(name, sex=sex, age_years=age, code=code, bones={} if code else {1: "complete", 2: "cut"})


def test_nobody_left_out_no_table() -> None:
    assert selection_table([entry("a", "F", 40.0)]) is None


def test_two_groups_side_by_side() -> None:
    used = [entry(f"u{i}", s, a) for i, (s, a) in enumerate([("F", 40.0), ("M", 50.0), ("M", 60.0), (None, None)])]
    out = [entry(f"o{i}", "F", a, "too_few_bones") for i, a in enumerate([70.0, 80.0, 90.0])]
    table = selection_table([*used, *out])
    assert table is not None
    rows = {r[0]: r[1:] for r in table.rows}
    assert rows["women, %"][0] == pytest.approx(100 / 3)
    assert rows["women, %"][3] == 100.0
    mean, sd, n, other, other_sd, m, z = rows["age, years"]
    assert (mean, sd, n, other, other_sd, m) == (50.0, 10.0, 3, 80.0, 10.0, 3)
    assert z == pytest.approx(30 / np.hypot(10 / 3**0.5, 10 / 3**0.5))
    assert rows["bones shown whole"][0] == 1.0
    assert rows["bones shown whole"][3] is None
    assert "3 of 7" in table.note
