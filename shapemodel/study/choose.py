"""The best thorax series of a study, and why."""

from __future__ import annotations

import re
from collections.abc import Sequence

from shapemodel.reasons import StudyError
from shapemodel.study.dicom import Series
from shapemodel.study.geometry import axis_order

LONG_ENOUGH = 0.85
"""A series counts as long enough when it covers this share of the longest one..."""

WHOLE_THORAX_MM = 280.0
"""...or this much of the body, about the height of a thorax."""

SAME_SPACING_MM = 0.3
"""Slice spacings are compared in steps of this: a soft kernel then counts for more."""

ELSEWHERE = re.compile(r"HEAD|BRAIN|SKULL|NECK|PELVIS|FOOT|KNEE|HIP|HAND|WRIST|ANKLE|LEG")
THORAX = re.compile(r"CHEST|THOR|LUNG|RIB|HEART|WHOLE|CAP|TRUNK")
SHARP = re.compile(r"LUNG|BONE|EDGE|SHARP|YA|YB|YC|YD|(?:^|\D)(?:6|7|8|9)\d")
"""Sharpening kernels (B70f, Br64, FC52 and the like): their noise widens every threshold."""

_ORDER_OF_REASONS = ("missing_slice", "mixed_geometry", "sheared", "bad_rescale", "truncated", "too_thick", "not_axial")


def choose_series(found: Sequence[Series]) -> tuple[Series, str]:
    """The series to use and a sentence why; if none is usable, the one whose reason says most.

    Preferred, in this order: a thorax by its body part, long enough, original rather than derived, axial,
    thin slices, a soft kernel, length, number of slices.
    """
    if not found:
        raise StudyError("no_images", "expected a CT series, found none")
    usable = [s for s in found if not s.reason]
    if not usable:
        return _most_telling(found), ""
    longest = max(s.length for s in usable)
    best = min(usable, key=lambda s: (*_rank(s, longest), s.hash))
    return best, _why(best, usable, found)


def _rank(series: Series, longest: float) -> tuple[float, ...]:
    head = series.first
    elsewhere = bool(ELSEWHERE.search(head.body_part)) and not THORAX.search(head.body_part)
    short = series.length < min(LONG_ENOUGH * longest, WHOLE_THORAX_MM)
    return (
        elsewhere,
        short,
        _derived(series),
        not is_axial(series),
        round(series.spacing / SAME_SPACING_MM),
        _sharp(series),
        -round(series.length),
        series.spacing,
    )


def is_axial(series: Series) -> bool:
    """True when its slices are stored as axial ones."""
    return series.stack is not None and axis_order(series.stack.direction)[0] == (0, 1, 2)


def _derived(series: Series) -> bool:
    kinds = series.first.image_type
    return "DERIVED" in kinds or "SECONDARY" in kinds or "MPR" in kinds or "REFORMATTED" in kinds


def _sharp(series: Series) -> bool:
    return bool(SHARP.search(series.first.kernel.upper()))


def _why(best: Series, usable: Sequence[Series], found: Sequence[Series]) -> str:
    words = ["derived" if _derived(best) else "original", "axial" if is_axial(best) else "not stored axially"]
    words += [f"{round(best.spacing, 2):g} mm", f"{best.length:.0f} mm long", f"{best.size[2]} slices"]
    if best.first.kernel:
        words.append("sharp kernel" if _sharp(best) else "soft kernel")
    text = ", ".join(words)
    if len(usable) > 1:
        text = f"best of {len(usable)} usable series: {text}"
    refused = sorted({s.reason for s in found if s.reason})
    if refused:
        text += f"; {sum(bool(s.reason) for s in found)} other(s) not used ({', '.join(refused)})"
    if best.dropped:
        text += f"; {best.dropped} copies of slices ignored"
    return text


def _most_telling(found: Sequence[Series]) -> Series:
    def order(s: Series) -> tuple[int, int]:
        place = _ORDER_OF_REASONS.index(s.reason) if s.reason in _ORDER_OF_REASONS else len(_ORDER_OF_REASONS)
        return (place, -len(s.slices))

    return min(found, key=order)
