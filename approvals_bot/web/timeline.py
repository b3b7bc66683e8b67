"""A story drawn as a timeline: where each bar lies, as numbers for the template. Pure.

Time is not drawn to scale: a run may work for milliseconds and then wait for days, and to scale one would see only the
waiting. Each moment at which something began or ended gets a place, and between two places a gap that grows with the
logarithm of the time between them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from approvals_bot.web.story import Stretch

WIDTH = 600  # user units; the page's column
LABELS = 150  # of them, at the left
LANE = 24  # height of one line
HEAD = 20  # height of the line of times
MOST_LANES = 30  # a longer story is told by its list


@dataclass(frozen=True, slots=True)
class Bar:
    """One stretch of time as a bar."""

    label: str
    words: str  # "sent card, 0.2 seconds": what a screen reader says
    kind: str
    ending: str
    x: float
    y: float
    width: float


@dataclass(frozen=True, slots=True)
class Drawing:
    """The bars, and how large the picture is. `left_out`: stretches that did not fit."""

    bars: tuple[Bar, ...]
    width: int
    height: int
    left_out: int


def draw(stretches: tuple[Stretch, ...], *, start: datetime, end: datetime) -> Drawing:
    """The picture of these stretches between the run's start and its end (or now)."""
    shown = stretches[:MOST_LANES]
    places = _places({start, end} | {at for s in shown for at in (s.start, s.end) if at is not None})
    bars = tuple(
        Bar(
            label=_short(stretch.label),
            words=f"{stretch.label}, {_length((stretch.end or end) - stretch.start)}, {stretch.ending}",
            kind=stretch.kind,
            ending=stretch.ending,
            x=places[stretch.start],
            y=HEAD + lane * LANE,
            width=max(places[stretch.end or end] - places[stretch.start], 4.0),
        )
        for lane, stretch in enumerate(shown)
    )
    return Drawing(bars, WIDTH, HEAD + len(bars) * LANE, len(stretches) - len(shown))


def _places(moments: set[datetime]) -> dict[datetime, float]:
    """An x for each moment: in order, and further apart the more time lies between."""
    ordered = sorted(moments)
    gaps = [0.0] + [1 + math.log10(1 + (later - earlier).total_seconds() * 10) for earlier, later in pairwise(ordered)]
    room, whole, x = WIDTH - LABELS - 6, sum(gaps) or 1.0, 0.0
    places: dict[datetime, float] = {}
    for moment, gap in zip(ordered, gaps, strict=True):
        x += gap
        places[moment] = round(LABELS + room * x / whole, 1)
    return places


def _length(span: timedelta) -> str:
    seconds = span.total_seconds()
    for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} seconds"


def _short(label: str, most: int = 20) -> str:
    return label if len(label) <= most else label[: most - 1] + "…"
