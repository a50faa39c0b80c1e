"""Small line charts as inline SVG, in the colours of the page around them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from unalike.runs.numbers import number, percent

_WIDTH, _HEIGHT = 480, 170
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 10, 12, 34


def band_chart(
    series: Sequence[Sequence[float]], *, title: str, x_label: str, y_label: str, log: bool = False
) -> str:
    """The mean over series at each step as a line, from the smallest to the largest as a band,
    values shown as percentages.

    Args:
        series: equally long rows of numbers of at least 0, such as one row an image.
        title: what a screen reader says of it.
        x_label, y_label: of the axes.
        log: logarithmic scale over at most six powers of ten; what is below lies on the axis. It
            has no place for 0: zeros count neither for the mean nor for the band, and steps
            without any other value are left out.

    Returns:
        An `<svg>` element.

    Example:
        >>> labels = {"title": "t", "x_label": "step", "y_label": "size"}
        >>> band_chart([[0.1, 0.2], [0.3, 0.2]], **labels).startswith("<svg")
        True
    """
    columns = list(zip(*series, strict=True))
    values = [v for c in columns for v in c if v > 0]
    top = max(values, default=1.0)
    bottom = max(min(values, default=top), top / 1e6) / 1.2 if log else 0.0
    base, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT

    def x(step: int) -> float:
        return _LEFT + (right - _LEFT) * step / max(1, len(columns) - 1)

    def point(step: int, value: float) -> str:
        share = value / top
        if log:
            share = math.log(max(value, bottom) / bottom) / math.log(top / bottom)
        return f"{x(step):.1f},{_TOP + (base - _TOP) * (1 - share):.1f}"

    middle = (_TOP + base) / 2
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}" '
        'class="chart">',
        f'<path class="axis" d="M{_LEFT},{_TOP} V{base} H{right}"/>',
    ]
    for steps in _drawn(columns, log=log):
        shown = {i: [v for v in columns[i] if v > 0 or not log] for i in steps}
        upper = [point(i, max(own)) for i, own in shown.items()]
        lower = [point(i, min(own)) for i, own in shown.items()]
        line = [point(i, sum(own) / len(own)) for i, own in shown.items()]
        if len(steps) == 1:
            at, height = line[0].split(",")
            parts.append(f'<circle class="dot" cx="{at}" cy="{height}" r="3"/>')
        parts.append(f'<polygon class="band" points="{" ".join(upper + lower[::-1])}"/>')
        parts.append(f'<polyline class="line" points="{" ".join(line)}"/>')
    labels = [
        (_LEFT - 6, _TOP + 9, "end", percent(top)),
        (_LEFT - 6, base, "end", percent(bottom)),
        (_LEFT, base + 14, "middle", "0"),
        (right, base + 14, "end", str(max(0, len(columns) - 1))),
        ((_LEFT + right) / 2, _HEIGHT - 6, "middle", x_label),
    ]
    parts += [
        f'<text x="{at}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'
        for at, y, anchor, text in labels
    ]
    return "\n".join(
        [
            *parts,
            f'<text x="12" y="{middle}" text-anchor="middle" '
            f'transform="rotate(-90 12 {middle})">{escape(y_label)}</text>',
            "</svg>",
        ]
    )


def _drawn(columns: Sequence[Sequence[float]], *, log: bool) -> list[list[int]]:
    """The steps that are drawn, those without a gap between them together: on a logarithmic scale
    only those that have a value above 0.
    """
    runs: list[list[int]] = []
    for step, column in enumerate(columns):
        if log and not any(value > 0 for value in column):
            continue
        if runs and runs[-1][-1] == step - 1:
            runs[-1].append(step)
        else:
            runs.append([step])
    return runs


def dot_chart(
    rows: Sequence[tuple[str, float, float | None, float | None]], *, title: str, start: float = 0.0
) -> str:
    """A dot a row on a common scale, with a line for its interval.

    Args:
        rows: label, value, and the ends of the interval or None; at least one.
        title: what a screen reader says of it.
        start: where the scale begins; values are at least that.

    Returns:
        An `<svg>` element.

    Example:
        >>> dot_chart([("cat", 2.0, 1.5, 3.0)], title="t", start=1).count("circle")
        1
    """
    left, step = 170, 18
    height = _TOP + step * len(rows) + 22
    top = max(high if high is not None else value for _, value, _, high in rows)
    top = top if top > start else start + 1

    def x(value: float) -> float:
        return round(left + (_WIDTH - left - 2 * _RIGHT) * (value - start) / (top - start), 1)

    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title)}" '
        'class="chart">'
    ]
    base = _TOP + step * len(rows)
    for value in _ticks(start, top):
        parts.append(
            f'<line class="grid-line" x1="{x(value)}" x2="{x(value)}" y1="{_TOP}" y2="{base}"/>'
        )
        parts.append(
            f'<text x="{x(value)}" y="{base + 15}" text-anchor="middle">{number(value, 3)}</text>'
        )
    for i, (label, value, low, high) in enumerate(rows):
        y = _TOP + step * i + step / 2
        short = label if len(label) <= 26 else label[:25] + "…"
        parts.append(f'<text x="{left - 10}" y="{y + 4}" text-anchor="end">{escape(short)}</text>')
        if low is not None and high is not None:
            parts.append(f'<line class="line" x1="{x(low)}" x2="{x(high)}" y1="{y}" y2="{y}"/>')
        parts.append(f'<circle class="dot" cx="{x(value)}" cy="{y}" r="4"/>')
    return "\n".join([*parts, "</svg>"])


def _ticks(start: float, top: float) -> list[float]:
    """At most seven round numbers from `start` to `top`."""
    power = 10.0 ** math.floor(math.log10((top - start) / 6))
    step = next(power * m for m in (1, 2, 5, 10) if (top - start) / (power * m) <= 6)
    first = math.ceil(start / step - 1e-9)
    return [step * i for i in range(first, math.floor(top / step + 1e-9) + 1)]
