"""Two small charts as SVG text, readable on light and dark backgrounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

WIDTH, LEFT, ROW, TOP = 760, 330, 26, 44
INK, QUIET, OURS, OTHERS = "#6b7280", "#9ca3af", "#2563eb", "#94a3b8"


def bars(title: str, found: Sequence[tuple[str, float]]) -> str:
    """Draw a bar for each value, on a logarithmic scale, since the values are orders of magnitude apart."""
    height = TOP + ROW * max(1, len(found)) + 10
    most = max((value for _, value in found), default=1.0)
    room, decades = WIDTH - LEFT - 80, max(1.0, math.log10(max(most, 10.0)))
    drawn = []
    for row, (name, value) in enumerate(found):
        y, length = TOP + row * ROW, max(1.0, room * math.log10(max(value, 1.0)) / decades)
        color = OURS if name.startswith("Ours") else OTHERS
        drawn.append(_text(LEFT - 8, y + 13, name, "end"))
        drawn.append(f'<rect x="{LEFT}" y="{y}" width="{length:.0f}" height="18" rx="2" fill="{color}"/>')
        drawn.append(_text(LEFT + length + 6, y + 13, f"{value:,.0f}"))
    return _svg(f"{title} (logarithmic)", height, drawn or [_text(20, TOP + 13, "not measured yet")])


def line(title: str, found: Sequence[tuple[float, float]]) -> str:
    """Draw a curve over sizes that grow tenfold; its y axis begins at 0."""
    height, bottom = 240, 200
    if len(found) < 2:
        return _svg(title, height, [_text(20, TOP + 13, "not measured yet")])
    most = max(value for _, value in found) * 1.25 or 1.0
    first, last = math.log10(found[0][0]), math.log10(found[-1][0])
    room = WIDTH - 140
    at = [
        (70 + room * (math.log10(size) - first) / (last - first), bottom - (bottom - TOP) * value / most)
        for size, value in found
    ]
    path = " ".join(f"{x:.0f},{y:.1f}" for x, y in at)
    drawn = [
        f'<line x1="50" y1="{bottom}" x2="{WIDTH - 50}" y2="{bottom}" stroke="{QUIET}"/>',
        f'<polyline points="{path}" fill="none" stroke="{OURS}" stroke-width="2"/>',
    ]
    for (x, y), (size, value) in zip(at, found, strict=True):
        drawn.append(f'<circle cx="{x:.0f}" cy="{y:.1f}" r="3.5" fill="{OURS}"/>')
        drawn.append(_text(x, y - 10, f"{value:.3g}", "middle"))
        drawn.append(_text(x, bottom + 20, f"{size:,.0f}", "middle"))
    return _svg(title, height, drawn)


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" fill="{INK}">{escape(text)}</text>'


def _svg(title: str, height: int, drawn: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="13"><title>{escape(title)}</title>'
    )
    name = f'<text x="20" y="26" font-size="15" font-weight="600" fill="{INK}">{escape(title)}</text>'
    return "\n".join([head, name, *drawn, "</svg>"]) + "\n"
