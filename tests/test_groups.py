"""Groups of the manifest: conditions select whom they say, and what cannot be read is named."""

from __future__ import annotations

import pytest

from pipelines.groups import select
from shapemodel.reasons import InputError
from shapemodel.study import Study

STUDIES = [
    Study("a", "F", 70.0, position="HFS"),
    Study("b", "F", 50.0, position="FFS"),
    Study("c", "M", 65.0),
    Study("d", "F"),
]


@pytest.mark.parametrize(
    ("condition", "who"),
    [
        ("sex = F and age_years >= 60", ["a"]),
        ("age_years<66", ["b", "c"]),
        ("position != HFS", ["b"]),  # who does not say is in no group
        ("subject = d", ["d"]),
    ],
)
def test_who_is_in(condition: str, who: list[str]) -> None:
    assert select(f"some: {condition}", STUDIES) == ("some", who)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("female: sex = F", "name other than"),
        ("tall: height >= 180", "found 'height >= 180'"),
        ("old: age_years >= sixty", "needs a number"),
        ("x: sex > F", "= and != only"),
        ("no condition", "expected"),
    ],
)
def test_what_cannot_be_read_is_said(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        select(text, STUDIES)
