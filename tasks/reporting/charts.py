"""Charts of the report as inline SVG: they scale, print, and follow the page's light or dark colours.

Colours are CSS classes of the page (`s-before`, `s-after`, `s-part1`, ...): one for teacher and rough masks, one for
student and refined masks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

WIDTH, HEIGHT = 420, 250
LEFT, RIGHT, TOP, BOTTOM = 46, 18, 10, 40


def safe(svg: str) -> Markup:
    """Marks SVG of this package as safe to insert into the page: all texts in it are escaped."""
    return Markup(svg)  # noqa: S704


class Series(NamedTuple):
    """A line through points (x, y) in data units, in the colour of the CSS class `style`."""

    label: str
    style: str
    x: Sequence[float]
    y: Sequence[float]


class Axis(NamedTuple):
    """A linear axis."""

    label: str
    low: float
    high: float
    ticks: list[float]

    @classmethod
    def over(cls, label: str, values: Sequence[float], count: int = 5) -> Axis:
        """An axis between round numbers that includes 0 and all values."""
        low, high = min([0.0, *values]), max([0.0, *values])
        if high - low < 1e-9:
            high = low + 1  # all values are (almost) zero
        step = nice_step((high - low) / count)
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        return cls(label, first * step, last * step, [i * step for i in range(first, last + 1)])


def nice_step(rough: float) -> float:
    """The smallest of 1, 2, 2.5, 5 or 10 times a power of ten that is at least `rough` (> 0)."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(nice * power for nice in (1, 2, 2.5, 5, 10) if nice * power >= rough * (1 - 1e-9))


def smooth(values: Sequence[float], weight: float) -> list[float]:
    """Exponential moving average without the start's bias (Kingma and Ba, 2015, section 3)."""
    result, mean, mass = [], 0.0, 0.0
    for value in values:
        mean = weight * mean + (1 - weight) * value
        mass = weight * mass + (1 - weight)
        result.append(mean / mass)
    return result


def line_chart(series: Sequence[Series], x: Axis, y: Axis, title: str) -> Markup:
    """Lines over two linear axes; screen readers read `title`."""
    parts = [_axes(x, y)]
    for one in series:
        points = " ".join(f"{_x(x, a):.1f},{_y(y, b):.1f}" for a, b in zip(one.x, one.y, strict=True))
        parts.append(f'<polyline class="line {escape(one.style)}" points="{points}"/>')
    return _svg(parts, title)


def band_chart(
    x: Axis,
    y: Axis,
    places: Sequence[float],
    curves: tuple[Sequence[float], Sequence[float], Sequence[float]],
    dots: Sequence[tuple[float, float, str]],
    title: str,
) -> Markup:
    """A line with a band around it, and dots that were measured.

    Args:
        x, y: the axes.
        places: along x.
        curves: y at these places: the band's lower end, the line, the band's upper end.
        dots: x, y and a text that the pointer shows.
        title: for screen readers.
    """
    low, middle, high = (
        [f"{_x(x, a):.1f},{_y(y, b):.1f}" for a, b in zip(places, curve, strict=True)] for curve in curves
    )
    parts = [
        _axes(x, y),
        f'<polygon class="band s-after" points="{" ".join([*low, *reversed(high)])}"/>',
        f'<polyline class="line s-after" points="{" ".join(middle)}"/>',
    ]
    parts += [
        f'<circle class="dot s-before" cx="{_x(x, a):.1f}" cy="{_y(y, b):.1f}" r="4">'
        f"<title>{escape(text)}</title></circle>"
        for a, b, text in dots
    ]
    return _svg(parts, title)


def histogram(
    edges: Sequence[float],
    counts: Sequence[tuple[str, str, Sequence[int]]],
    x_label: str,
    y_label: str,
    title: str,
) -> Markup:
    """Counts in bins: for each kind (label, style, counts), with bars side by side in each bin."""
    x = Axis(x_label, edges[0], edges[-1], list(edges[:: max(1, (len(edges) - 1) // 5)]))
    y = Axis.over(y_label, [value for _, _, values in counts for value in values] or [1])
    parts = [_axes(x, y)]
    for k, (label, style, values) in enumerate(counts):
        for i, value in enumerate(values):
            left, right = _x(x, edges[i]), _x(x, edges[i + 1])
            width = (right - left - 2) / len(counts)
            top = _y(y, value)
            parts.append(
                f'<rect class="bar {escape(style)}" x="{left + 1 + k * width:.1f}" y="{top:.1f}" '
                f'width="{width:.1f}" height="{HEIGHT - BOTTOM - top:.1f}"><title>{escape(label)}, '
                f"{edges[i]:.2f} to {edges[i + 1]:.2f}: {value}</title></rect>"
            )
    return _svg(parts, title)


def dumbbell(before: float | None, after: float | None, high: float, title: str) -> Markup:
    """Two dots on a track from 0 to `high`, joined by a line; no dot for None."""
    width, height, margin = 360, 16, 8

    def at(value: float) -> float:
        return margin + (width - 2 * margin) * min(max(value / high, 0), 1)

    parts = [f'<line class="track" x1="{margin}" x2="{width - margin}" y1="8" y2="8"/>']
    if before is not None and after is not None:
        parts.append(f'<line class="way" x1="{at(before):.1f}" x2="{at(after):.1f}" y1="8" y2="8"/>')
    for value, style in ((before, "s-before"), (after, "s-after")):
        if value is not None:
            parts.append(f'<circle class="dot {style}" cx="{at(value):.1f}" cy="8" r="5"/>')
    return safe(
        f'<svg class="dumbbell" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def _svg(parts: Sequence[str], title: str) -> Markup:
    return safe(
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"{''.join(parts)}</svg>"
    )


def _x(axis: Axis, value: float) -> float:
    return LEFT + (value - axis.low) / (axis.high - axis.low) * (WIDTH - LEFT - RIGHT)


def _y(axis: Axis, value: float) -> float:
    inside = min(max(value, axis.low), axis.high)
    return HEIGHT - BOTTOM - (inside - axis.low) / (axis.high - axis.low) * (HEIGHT - TOP - BOTTOM)


def _axes(x: Axis, y: Axis) -> str:
    floor, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for tick in y.ticks:
        at = _y(y, tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(
            f'<text class="tick" x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{_tick(tick)}</text>'
        )
    for tick in x.ticks:
        at = _x(x, tick)
        parts.append(f'<line class="axis" x1="{at:.1f}" x2="{at:.1f}" y1="{floor}" y2="{floor + 4}"/>')
        parts.append(
            f'<text class="tick" x="{at:.1f}" y="{floor + 17}" text-anchor="middle">{_tick(tick)}</text>'
        )
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{floor}" y2="{floor}"/>')
    middle = (LEFT + right) / 2
    parts.append(
        f'<text class="label" x="{middle}" y="{HEIGHT - 5}" text-anchor="middle">{escape(x.label)}</text>'
    )
    centre = (TOP + floor) / 2
    parts.append(
        f'<text class="label" transform="translate(11 {centre}) rotate(-90)" text-anchor="middle">'
        f"{escape(y.label)}</text>"
    )
    return "".join(parts)


def _tick(value: float) -> str:
    return f"{round(value, 6):,g}"
