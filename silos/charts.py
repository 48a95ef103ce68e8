"""Small line and bar charts as SVG text: no scripts, no fonts or files from elsewhere, colours from the page's styles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

Point = tuple[float, float]
WIDTH, HEIGHT = 340, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 14, 46


@dataclass(frozen=True)
class Axes:
    """What is on the axes and how far they go.  percent: show parts as percentages."""

    title: str
    x: str
    y: str
    x_end: float = 1.0
    y_end: float = 1.0
    percent: bool = True

    def place(self, point: Point) -> tuple[float, float]:
        """Where a point is in the picture."""
        across = LEFT + point[0] / self.x_end * (WIDTH - LEFT - RIGHT)
        up = HEIGHT - BOTTOM - point[1] / self.y_end * (HEIGHT - TOP - BOTTOM)
        return round(across, 2), round(up, 2)

    def label(self, value: float) -> str:
        """A number at a grid line."""
        return f"{100 * value:g}%" if self.percent else f"{value:g}"


def line_chart(axes: Axes, points: Sequence[Point], *, diagonal: bool = True, marks: bool = True) -> str:
    """A line through the points; diagonal: the line of no information, or of perfect calibration, for comparison."""
    parts = _frame(axes, [i / 4 * axes.x_end for i in range(5)])
    if diagonal:
        (x0, y0), (x1, y1) = axes.place((0, 0)), axes.place((min(axes.x_end, axes.y_end), min(axes.x_end, axes.y_end)))
        parts.append(f'<line class="reference" x1="{x0}" y1="{y0}" x2="{x1}" y2="{y1}"/>')
    places = [axes.place(point) for point in points]
    parts.append(f'<polyline class="series" points="{" ".join(f"{x},{y}" for x, y in places)}"/>')
    if marks:
        for (x, y), point in zip(places, points, strict=True):
            text = f"{axes.x} {axes.label(round(point[0], 4))}, {axes.y} {axes.label(round(point[1], 4))}"
            parts.append(f'<circle class="mark" cx="{x}" cy="{y}" r="3"><title>{escape(text)}</title></circle>')
    return _svg(axes, parts)


def bar_chart(axes: Axes, heights: Sequence[float], *, line: float | None = None) -> str:
    """A bar for each height, numbered from 1; line: a height to compare with."""
    parts = _frame(axes, [])
    count = max(1, len(heights))
    slot = (WIDTH - LEFT - RIGHT) / count
    base = HEIGHT - BOTTOM
    for i, height in enumerate(heights):
        _, top = axes.place((0, max(0.0, height)))
        x, width = LEFT + i * slot + 0.14 * slot, 0.72 * slot
        text = escape(f"{axes.x} {i + 1}: {axes.label(round(height, 4))}")
        parts.append(
            f'<rect class="bar" x="{x:.2f}" y="{top}" width="{width:.2f}" height="{max(0.0, base - top):.2f}" rx="2">'
            f"<title>{text}</title></rect>"
        )
        if count <= 12 or (i + 1) % 5 == 0:
            parts.append(f'<text x="{x + width / 2:.2f}" y="{base + 15}" text-anchor="middle">{i + 1}</text>')
    if line is not None:
        _, y = axes.place((0, line))
        parts.append(f'<line class="reference" x1="{LEFT}" y1="{y}" x2="{WIDTH - RIGHT}" y2="{y}"/>')
    return _svg(axes, parts)


def nice_end(largest: float) -> float:
    """A round number not below the largest value, for the end of an axis."""
    if not largest > 0:
        return 1.0
    unit = 10.0 ** (len(f"{largest:.0f}") - 1) if largest >= 1 else 10.0 ** -len(f"{1 / largest:.0f}")
    while True:
        for multiple in (1, 2, 4, 5, 8, 10):
            if multiple * unit >= largest:
                return float(f"{multiple * unit:.12g}")
        unit *= 10


def _frame(axes: Axes, across: Sequence[float]) -> list[str]:
    """Grid lines with their numbers, and the axes' names."""
    out = []
    for i in range(5):
        value = i / 4 * axes.y_end
        _, y = axes.place((0, value))
        out.append(f'<line class="grid" x1="{LEFT}" y1="{y}" x2="{WIDTH - RIGHT}" y2="{y}"/>')
        out.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{axes.label(value)}</text>')
    for value in across:
        x, _ = axes.place((value, 0))
        out.append(f'<text x="{x}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{axes.label(value)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    out.append(f'<text class="name" x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{escape(axes.x)}</text>')
    up = (TOP + HEIGHT - BOTTOM) / 2
    out.append(
        f'<text class="name" x="12" y="{up}" text-anchor="middle" transform="rotate(-90 12 {up})">{escape(axes.y)}</text>'
    )
    return out


def _svg(axes: Axes, parts: Sequence[str]) -> str:
    name = escape(axes.title, quote=True)
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{name}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )
