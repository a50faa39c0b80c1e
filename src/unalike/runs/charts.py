"""Small line charts as inline SVG, in the colours of the page around them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

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
        log: logarithmic scale over at most six powers of ten; what is below lies on the axis.

    Returns:
        An `<svg>` element.

    Example:
        >>> band_chart([[0.1, 0.2], [0.3, 0.2]], title="t", x_label="step", y_label="size").startswith("<svg")
        True
    """
    columns = list(zip(*series, strict=True))
    means = [sum(c) / len(c) for c in columns]
    top = max((max(c) for c in columns), default=0) or 1.0
    smallest = min((v for c in columns for v in c if v > 0), default=top)
    bottom = max(smallest, top / 1e6) / 1.2 if log else 0.0

    def point(step: int, value: float) -> str:
        x = _LEFT + (_WIDTH - _LEFT - _RIGHT) * (step / max(1, len(columns) - 1))
        share = (
            math.log(max(value, bottom) / bottom) / math.log(top / bottom) if log else value / top
        )
        return f"{x:.1f},{_TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - share):.1f}"

    upper = [point(i, max(c)) for i, c in enumerate(columns)]
    lower = [point(i, min(c)) for i, c in enumerate(columns)]
    base, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    middle = (_TOP + base) / 2
    return "\n".join(
        [
            f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}" class="chart">',
            f'<path class="axis" d="M{_LEFT},{_TOP} V{base} H{right}"/>',
            f'<polygon class="band" points="{" ".join(upper + lower[::-1])}"/>',
            f'<polyline class="line" points="{" ".join(point(i, m) for i, m in enumerate(means))}"/>',
            f'<text x="{_LEFT - 6}" y="{_TOP + 9}" text-anchor="end">{percent(top)}</text>',
            f'<text x="{_LEFT - 6}" y="{base}" text-anchor="end">{percent(bottom)}</text>',
            f'<text x="{_LEFT}" y="{base + 14}" text-anchor="middle">0</text>',
            f'<text x="{right}" y="{base + 14}" text-anchor="end">{max(0, len(columns) - 1)}</text>',
            f'<text x="{(_LEFT + right) / 2}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>',
            f'<text x="12" y="{middle}" text-anchor="middle" transform="rotate(-90 12 {middle})">{escape(y_label)}</text>',
            "</svg>",
        ]
    )


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
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title)}" class="chart">'
    ]
    base = _TOP + step * len(rows)
    for value in _ticks(start, top):
        parts.append(
            f'<line class="grid-line" x1="{x(value)}" x2="{x(value)}" y1="{_TOP}" y2="{base}"/>'
        )
        parts.append(
            f'<text x="{x(value)}" y="{base + 15}" text-anchor="middle">{value:.3g}</text>'
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


def percent(share: float) -> str:
    """A share in percent, to two digits.

    Example:
        >>> percent(0.1234), percent(0.00012), percent(0)
        ('12%', '0.012%', '0%')
    """
    value = 100 * share
    return f"{value:.0f}%" if value >= 10 or value == 0 else f"{value:.2g}%"
