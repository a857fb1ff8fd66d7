"""Charts as SVG: over the frames of a clip, with the colours of the page around them, and over layers, as a file of their own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 460, 240  # units of the drawing; a phone shows it at about four fifths of that
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 14, 34  # margins
STEPS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)  # between grid lines
GRID_LINES = 6  # at most
NAMES, ROW = 260, 14  # of a chart over layers: width of the names, height of a row
STYLE = (
    "svg { background: #fff; font: 11px sans-serif } .grid { stroke: #ddd } .least { stroke: #b3261e } .scale { fill: #555 } "
    ".chosen { fill: #1b7f5c } .candidate { fill: #d08a1d } .excluded { fill: #9aa0a6 }"
)


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


def layer_chart(title: str, unit: str, rows: Sequence[tuple[str, float, str]], least: float, legend: Mapping[str, str]) -> str:
    """A bar for each (layer, value, key of `legend`), and a line at the value `least`; a whole SVG file."""
    low, high, step = _bounds([least, *(value for _, value, _ in rows)])
    bottom, width = TOP + ROW * len(rows), NAMES + WIDTH

    def x(value: float) -> float:
        return round(NAMES + (WIDTH - RIGHT) * (value - low) / (high - low), 1)

    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {bottom + 2 * BOTTOM}" role="img">'
    lines = [head, f"<title>{escape(title)}</title><style>{STYLE}</style>"]
    for value, text in _grid_values(low, high, step):
        lines.append(f'<path class="grid" d="M{x(value)} {TOP}V{bottom}"/>')
        lines.append(f'<text class="scale" x="{x(value)}" y="{bottom + 14}" text-anchor="middle">{text}</text>')
    for number, (name, value, kind) in enumerate(rows):
        y = TOP + ROW * number
        lines.append(f'<text x="{NAMES - 6}" y="{y + ROW - 3}" text-anchor="end">{escape(name)}</text>')
        told = f"<title>{escape(name)}: {value:.4g}{unit}, {legend[kind]}</title>"
        lines.append(
            f'<rect class="{kind}" x="{NAMES}" y="{y + 1}" width="{x(value) - NAMES:.1f}" height="{ROW - 2}">{told}</rect>'
        )
    lines.append(f'<path class="least" d="M{x(least)} {TOP}V{bottom}"/>')
    lines.append(f'<text class="scale" x="6" y="{bottom + 34}">{escape(title)}</text>')
    for number, (kind, meaning) in enumerate(legend.items()):
        start, y = NAMES + 160 * number, bottom + 54
        lines.append(f'<path class="{kind}" d="M{start} {y}h10v-10h-10z"/><text x="{start + 15}" y="{y}">{escape(meaning)}</text>')
    return "\n".join([*lines, "</svg>", ""])


def _drawing(told: str, axes: _Axes, content: Iterable[str]) -> str:
    """`told` is the chart for those who do not see it."""
    head = f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(told)}; the table has every frame">'
    return "\n".join([head, *_grid(axes), *_frame_numbers(axes), *content, "</svg>"])


class _Axes:
    """Where a value of a frame is drawn."""

    def __init__(self, finite: Sequence[float], frames: int) -> None:
        self.low, self.high, self.step = _bounds(finite)
        self.frames = frames
        self.pitch = (WIDTH - LEFT - RIGHT) / frames  # between two frames

    def x(self, number: float) -> float:
        return round(LEFT + self.pitch * (number + 0.5), 1)

    def y(self, value: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - self.low) / (self.high - self.low), 1)


def _bounds(finite: Sequence[float]) -> tuple[float, float, float]:
    """The lowest and the highest grid line around these values, and the step between two."""
    span = max(finite) - min(finite)
    step = next((step for step in STEPS if span / step <= GRID_LINES - 2), STEPS[-1])
    low = math.floor(min(finite) / step) * step
    return low, max(math.ceil(max(finite) / step) * step, low + step), step


def _grid_values(low: float, high: float, step: float) -> Iterator[tuple[float, str]]:
    digits = max(0, math.ceil(-math.log10(step)))
    for number in range(round((high - low) / step) + 1):
        yield low + step * number, f"{low + step * number:.{digits}f}"


def _grid(axes: _Axes) -> Iterator[str]:
    for value, text in _grid_values(axes.low, axes.high, axes.step):
        y = axes.y(value)
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
