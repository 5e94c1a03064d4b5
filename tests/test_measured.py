"""The table of measures: what deviates from published values is said, chance and small differences are not."""

from __future__ import annotations

from pathlib import Path

from pipelines.measured import deviation, table, write_csv


def test_only_more_than_five_percent_and_two_standard_errors_deviates() -> None:
    assert deviation((323.0, 10.0, 25), 300.0) == "+8 %"
    assert deviation((312.0, 1.0, 25), 300.0) == ""  # 4 %
    assert deviation((330.0, 60.0, 9), 300.0) == ""  # 1.5 standard errors
    assert deviation((330.0, 0.0, 1), 300.0) == ""  # one subject has no standard error
    assert deviation(None, 300.0) == ""


def test_table_and_file(tmp_path: Path) -> None:
    rows = {"rib_left_06_length_mm": (330.0, 10.0, 25.0), "cage_width_mm": (297.0, 9.0, 25.0)}
    made = table({"female": rows, "male": {}})
    assert [r[0] for r in made.rows] == ["cage width mm", "rib left 06 length mm"]
    assert made.rows[1][-2] == "F +13 %"  # 292.7 mm (Holcombe 2016)
    assert "1 of 2 measures" in made.note
    text = write_csv({"female": rows}, tmp_path / "m.csv").read_text().splitlines()
    assert text[1] == "cage_width_mm,female,297,9,25"
