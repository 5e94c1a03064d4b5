"""The report is one file that says everything: who came in, who was left out and why, what was found."""

from __future__ import annotations

import re

import numpy as np
import pytest

from shapemodel.render import encode
from shapemodel.report import ReportData, ShapeEntry, StudyEntry, Table, render

PICTURE = encode(np.full((20, 16, 3), 200, dtype=np.uint8))


@pytest.fixture(scope="module")
def data() -> ReportData:
    bones = {**dict.fromkeys(range(1, 38), "complete"), 12: "absent", 24: "cut"}
    good = StudyEntry("S01", "F", 50.0, bones=bones, numbers={"residual_mm": 0.5}, pictures={"front": PICTURE})
    odd = StudyEntry("S<02>", "M", flags=(("surface_handle", 7, "a hole"),), numbers={"residual_mm": 0.9})
    unsure = (("bone_unsure", 3, "expected error 3.2 mm"), ("bone_unsure", 4, "expected error 5.1 mm"))
    third = StudyEntry("S03", "M", flags=unsure, numbers={"residual_mm": 0.7})
    out = StudyEntry("S04", None, code="missing_slice", message="gap of 4 mm after slice 12", stage="labels")
    return ReportData(
        title="Demo",
        statements=("Supine, breathed in.",),
        studies=(good, odd, third, out),
        means=(
            ShapeEntry("female", "n = 1", {"front": PICTURE}, (0.0, 3.0, "mm", "linear-gradient(90deg,#fff,#000)")),
        ),
        modes=((ShapeEntry("minus"), ShapeEntry("plus")),),
        scree={"pooled": (0.5, 0.3, 0.2), "female": (1.0,)},
        tables=(Table("Measures", ("name", "F", "M"), [["width", 250.123, None]]),),
        provenance={"numpy": "2"},
    )


@pytest.fixture(scope="module")
def page(data: ReportData) -> str:
    return render(data)


def test_one_file_without_network(page: str) -> None:
    assert not re.search(r'(src|href)="(https?:)?//', page)
    assert "url(" not in page
    assert "data:image/webp;base64," in page


def test_inclusion_flow_counts(page: str) -> None:
    assert "<b>4</b>studies in the manifest" in page
    assert "<b>1</b>left out" in page
    assert "1 × <code>missing_slice</code>" in page
    assert "<b>3</b>used: 1 F, 2 M" in page
    assert "gap of 4 mm after slice 12" in page


def test_a_flag_of_many_bones_takes_one_line(page: str) -> None:
    assert page.count("<code>bone_unsure</code>") == 1
    assert "<code>bone_unsure</code>: 2 × " in page
    assert "rib_left_04: expected error 5.1 mm" in page
    assert "<code>surface_handle</code> rib_left_07: a hole" in page


def test_ribs_show_their_status(page: str) -> None:
    assert 'class="absent" title="rib_left_12: absent"' in page
    assert 'class="cut" title="rib_right_12: cut"' in page
    assert page.count('class="complete" title="rib_') == 22


def test_text_is_escaped_and_numbers_short(page: str) -> None:
    assert "S&lt;02&gt;" in page
    assert "S<02>" not in page
    assert ">250<" in page


def test_scree_sums_are_in_the_chart(page: str) -> None:
    assert "pooled, mode 2: 30.0 %, together 80.0 %" in page


def test_same_records_same_bytes(data: ReportData, page: str) -> None:
    assert render(data) == page
