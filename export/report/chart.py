"""Charts over the frames of a clip, as SVG that takes its colours from the page around it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from html import escape

WIDTH, HEIGHT = 460, 240  # units of the drawing; a phone shows it at about four fifths of that
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 14, 34  # margins
STEPS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)  # between grid lines
GRID_LINES = 6  # at most


def line_chart(title: str, unit: str, before: Sequence[float], after: Sequence[float]) -> str:
    """Two values of each frame, from frame 0, in the classes `before` and `after`; infinite ones are left out."""
    finite = _finite((*before, *after))
    if not finite:
        return "<p>Every frame is equal to the truth.</p>"
    axes = _Axes(finite, len(before))
    means = ", ".join(
        f"{name} {_mean(values):.4g}{unit} on average"
        for name, values in (("blurry", before), ("deblurred", after))
        if _finite(values)
    )
    series = (_series(axes, name, values, unit) for name, values in (("before", before), ("after", after)))
    return _drawing(f"{title} of {len(before)} frames: {means}", axes, series)


def bar_chart(title: str, unit: str, values: Sequence[float]) -> str:
    """One value of each frame, from frame 0, as bars from zero, in the classes `up` and `down`; what is not finite is left out."""
    finite = _finite(values)
    if not finite:
        return "<p>There is nothing to compare.</p>"
    axes = _Axes([0.0, *finite], len(values))
    told = (
        f"{title} of {len(values)} frames: {_mean(values):+.3g}{unit} on average, {sum(value > 0 for value in finite)} above zero"
    )
    bars = (_bar(axes, number, value, unit) for number, value in enumerate(values) if math.isfinite(value))
    return _drawing(told, axes, bars)


def _drawing(told: str, axes: _Axes, content: Iterable[str]) -> str:
    """`told` is the chart for those who do not see it."""
    head = f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(told)}; the table has every frame">'
    return "\n".join([head, *_grid(axes), *_frame_numbers(axes), *content, "</svg>"])


class _Axes:
    """Where a value of a frame is drawn."""

    def __init__(self, finite: Sequence[float], frames: int) -> None:
        span = max(finite) - min(finite)
        self.step = next((step for step in STEPS if span / step <= GRID_LINES - 2), STEPS[-1])  # between grid lines
        self.low = math.floor(min(finite) / self.step) * self.step
        self.high = max(math.ceil(max(finite) / self.step) * self.step, self.low + self.step)
        self.frames = frames
        self.pitch = (WIDTH - LEFT - RIGHT) / frames  # between two frames

    def x(self, number: float) -> float:
        return round(LEFT + self.pitch * (number + 0.5), 1)

    def y(self, value: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - self.low) / (self.high - self.low), 1)


def _grid(axes: _Axes) -> Iterator[str]:
    digits = max(0, math.ceil(-math.log10(axes.step)))
    for number in range(round((axes.high - axes.low) / axes.step) + 1):
        value = axes.low + axes.step * number
        y, text = axes.y(value), f"{value:.{digits}f}"
        yield f'<path class="grid" d="M{LEFT} {y}H{WIDTH - RIGHT}"/>'
        yield f'<text class="scale" x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{text}</text>'


def _frame_numbers(axes: _Axes) -> Iterator[str]:
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 1000, 10000, axes.frames) if axes.frames / step <= 8)
    for number in range(0, axes.frames, step):
        yield f'<text class="scale" x="{axes.x(number)}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{number}</text>'
    yield f'<text class="scale" x="{WIDTH - RIGHT}" y="{HEIGHT - 3}" text-anchor="end">frame</text>'


def _series(axes: _Axes, name: str, values: Sequence[float], unit: str) -> str:
    drawn = [(number, value) for number, value in enumerate(values) if math.isfinite(value)]
    path = "M" + "L".join(f"{axes.x(number)} {axes.y(value)}" for number, value in drawn)
    dots = "".join(
        f'<circle cx="{axes.x(number)}" cy="{axes.y(value)}" r="3"><title>frame {number}: {value:.4g}{unit}</title></circle>'
        for number, value in drawn
    )
    return f'<g class="{name}"><path d="{path}"/>{dots}</g>' if drawn else ""


def _bar(axes: _Axes, number: int, value: float, unit: str) -> str:
    top, bottom = sorted((axes.y(value), axes.y(0.0)))
    width = round(0.7 * axes.pitch, 1)
    place = f'x="{axes.x(number) - width / 2:.1f}" y="{top}" width="{width}" height="{bottom - top:.1f}"'
    return f'<rect class="{"up" if value >= 0 else "down"}" {place}><title>frame {number}: {value:+.3g}{unit}</title></rect>'


def _finite(values: Iterable[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]


def _mean(values: Iterable[float]) -> float:
    finite = _finite(values)
    return sum(finite) / len(finite)
