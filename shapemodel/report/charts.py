"""Small charts as inline SVG text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from markupsafe import Markup

COLORS = ("#5a5a5a", "#b3446c", "#2f6f9f", "#6a8f3c", "#c78a2c")
SEX_COLORS = {"F": "#b3446c", "M": "#2f6f9f"}
SCREE_MODES = 12
"""Modes shown in the scree chart: beyond these the bars are hairlines."""


def scree_svg(shares: Mapping[str, Sequence[float]], *, width: int = 560, height: int = 220) -> Markup:
    """Share of the variance by mode, one bar a model beside another, and its running sum as a line.

    ``shares`` maps a model's name to fractions that sum to at most one.
    """
    left, bottom, top = 40, 28, 14
    modes = min(max((len(v) for v in shares.values()), default=0), SCREE_MODES)
    slot = (width - left - 10) / max(modes, 1)
    bar = slot * 0.8 / max(len(shares), 1)
    scale = height - bottom - top
    parts = [_axis(left, width - 10, top, scale)]
    for i, (name, values) in enumerate(shares.items()):
        color, total, line = COLORS[i % len(COLORS)], 0.0, []
        for m, share in enumerate(list(values)[:modes]):
            x = left + m * slot + slot * 0.1 + i * bar
            total += float(share)
            h = scale * float(share)
            tip = f"{name}, mode {m + 1}: {100 * share:.1f} %, together {100 * total:.1f} %"
            parts.append(
                f'<rect x="{x:.1f}" y="{top + scale - h:.1f}" width="{bar:.1f}" height="{h:.1f}" fill="{color}">'
                f"<title>{escape(tip)}</title></rect>"
            )
            line.append(f"{left + (m + 0.5) * slot:.1f},{top + scale * (1 - total):.1f}")
        parts.append(f'<polyline points="{" ".join(line)}" fill="none" stroke="{color}" stroke-width="1.2"/>')
        parts.append(f'<text x="{left + 6 + i * 90}" y="10" fill="{color}" font-size="11">{escape(name)}</text>')
    for m in range(modes):
        x = left + (m + 0.5) * slot
        parts.append(f'<text x="{x:.1f}" y="{height - 12}" text-anchor="middle" font-size="11">{m + 1}</text>')
    label = "share of the variance by mode; lines: running sum"
    return Markup(
        f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
    )


def _axis(left: float, right: float, top: float, scale: float) -> str:
    lines = []
    for percent in (0, 25, 50, 75, 100):
        y = top + scale * (1 - percent / 100)
        lines.append(
            f'<line x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
            f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end" font-size="11">{percent} %</text>'
        )
    return "".join(lines)


def strip_svg(points: Sequence[tuple[str, float, str]], *, width: int = 120, height: int = 24) -> Markup:
    """One dot a study along a line from the least to the largest value, coloured by sex.

    ``points`` holds (subject, value, sex).
    """
    values = [v for _, v, _ in points]
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    dots = "".join(
        f'<circle cx="{8 + (width - 16) * (v - low) / span:.1f}" cy="{height / 2}" r="4" '
        f'fill="{SEX_COLORS.get(sex, COLORS[0])}" fill-opacity="0.65">'
        f"<title>{escape(f'{name}: {v:g}')}</title></circle>"
        for name, v, sex in points
    )
    line = f'<line x1="8" x2="{width - 8}" y1="{height / 2}" y2="{height / 2}" stroke="#ccc"/>'
    return Markup(f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}">{line}{dots}</svg>')


KIND_COLORS = {"rib": "#9db4c7", "sternum": "#c78a2c", "vertebra": "#b9a3c9"}
"""Thin lines of bones, by the first part of their names."""
WHOLE_COLORS = ("#22262a", "#b3446c", "#2f6f9f")
TICKS = 5


def lines_svg(
    at: Sequence[float],
    lines: Mapping[str, Sequence[float | None]],
    across: str,
    up: str,
    *,
    width: int = 560,
    height: int = 260,
) -> Markup:
    """Curves from zero: bones thin in the colour of their kind, everything else thick; a tip on each names it."""
    left, bottom, top, right = 48, 40, 16, 12
    known = [float(v) for values in lines.values() for v in values if v is not None]
    if not known or not len(at):
        return Markup("")
    most, step = nice_top(max(known))
    low, high = min(at), max(at)

    def place(x: float, y: float) -> str:
        along = (x - low) / ((high - low) or 1.0)
        return f"{left + along * (width - left - right):.1f},{top + (height - top - bottom) * (1 - y / most):.1f}"

    parts = []
    for k in range(round(most / step) + 1):
        y = float(place(low, k * step).split(",")[1])
        parts.append(
            f'<line x1="{left}" x2="{width - right}" y1="{y}" y2="{y}" stroke="#ddd"/>'
            f'<text x="{left - 6}" y="{y + 4}" text-anchor="end" font-size="11">{k * step:g}</text>'
        )
    thick = 0
    named = sorted(lines.items(), key=lambda item: _kind(item[0]) is None)
    for name, values in named:
        points = [place(x, float(y)) for x, y in zip(at, values, strict=False) if y is not None]
        kind = _kind(name)
        color, stroke = (KIND_COLORS[kind], 0.9) if kind else (WHOLE_COLORS[thick % len(WHOLE_COLORS)], 2.4)
        tip = f"{name}: " + ", ".join(f"{x:g}: {y:.3g}" for x, y in zip(at, values, strict=False) if y is not None)
        parts.append(
            f'<polyline points="{" ".join(points)}" fill="none" stroke="{color}" stroke-width="{stroke}">'
            f"<title>{escape(tip)}</title></polyline>"
        )
        if not kind:
            parts.append(
                f'<text x="{left + 8 + 90 * thick}" y="11" fill="{color}" font-size="11">{escape(name)}</text>'
            )
            thick += 1
    for x in at if len(at) <= 12 else at[:: -(-len(at) // 12)]:
        px = place(x, 0).split(",")[0]
        parts.append(f'<text x="{px}" y="{height - bottom + 15}" text-anchor="middle" font-size="11">{x:g}</text>')
    words = f'<text x="{width - right}" y="{height - 8}" text-anchor="end" font-size="11">{escape(across)}</text>'
    words += f'<text x="{left}" y="{height - 8}" font-size="11">up: {escape(up)}</text>'
    label = escape(f"{up} against {across}")
    return Markup(
        f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img" aria-label="{label}">'
        f"{''.join(parts)}{words}</svg>"
    )


def _kind(name: str) -> str | None:
    first = name.split("_")[0]
    return first if first in KIND_COLORS else None


def nice_top(value: float) -> tuple[float, float]:
    """Upper end of an axis from zero and the distance of its ticks: 1, 2 or 5 times a power of ten."""
    from math import ceil, floor, log10

    rough = max(value, 1e-9) / TICKS
    power = 10.0 ** floor(log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
    return step * ceil(max(value, 1e-9) / step - 1e-9), step
