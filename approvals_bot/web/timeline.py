"""The timeline of a run: where each span's bar is drawn, by actor, as numbers for the template. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from approvals_bot.service.history import Span

WIDTH = 600  # user units; the page's column
LABELS = 240  # of them, at the left
LANE = 24  # height of one line
HEAD = 20  # height of the line of times
MOST_LANES = 30  # a longer history is only listed
LONGEST_LABEL = 70  # characters; what doesn't fit into the column is clipped


@dataclass(frozen=True, slots=True)
class Bar:
    """One span of time as a bar."""

    label: str
    words: str  # "Card sent to #deploys, 3 seconds": what a screen reader says
    kind: str
    ending: str
    x: float
    y: float
    width: float


@dataclass(frozen=True, slots=True)
class Lane:
    """The bars of one actor, below its name."""

    actor: str
    y: float
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Drawing:
    """The bars by actor, and how large the picture is. `left_out`: spans that did not fit."""

    lanes: tuple[Lane, ...]
    width: int
    height: int
    left_out: int

    @property
    def bars(self) -> tuple[Bar, ...]:
        return tuple(bar for lane in self.lanes for bar in lane.bars)


def draw(spans: Sequence[Span], *, start: datetime, end: datetime) -> Drawing:
    """Draw these spans between the run's start and its end (or now)."""
    shown = spans[:MOST_LANES]
    places = _places({start, end} | {at for s in shown for at in (s.start, s.end) if at is not None})
    lanes, y = list[Lane](), HEAD
    for actor, own in by_actor(shown):
        top = y
        y += LANE if actor else 0
        bars = tuple(_bar(span, places, end, y + at * LANE) for at, span in enumerate(own))
        lanes.append(Lane(actor, top, bars))
        y += len(bars) * LANE
    return Drawing(tuple(lanes), WIDTH, y, len(spans) - len(shown))


def by_actor(spans: Iterable[Span]) -> list[tuple[str, list[Span]]]:
    """Group spans by actor, in the order in which each did something first."""
    found: dict[str, list[Span]] = {}
    for span in spans:
        found.setdefault(span.actor, []).append(span)
    return list(found.items())


def in_words(span: Span, end: datetime) -> str:
    """Return `Card sent to #deploys, 3 seconds`, and how it ended where the words don't say so."""
    length = span_words((span.end or end) - span.start)
    if span.ending == "open":
        return f"{span.label}, {length} so far"
    is_said = (
        span.ending == "done" or span.label.endswith(span.ending) or (span.kind, span.ending) == ("step", "failed")
    )
    return f"{span.label}, {length}" if is_said else f"{span.label}, {length}, {span.ending}"


def _bar(span: Span, places: dict[datetime, float], end: datetime, y: float) -> Bar:
    return Bar(
        label=_short(span.label),
        words=in_words(span, end),
        kind=span.kind,
        ending=span.ending,
        x=places[span.start],
        y=y,
        width=max(places[span.end or end] - places[span.start], 4.0),
    )


def _places(moments: set[datetime]) -> dict[datetime, float]:
    """Return an x for each moment: in order, and further apart the more time is between."""
    ordered = sorted(moments)
    gaps = [0.0] + [1 + math.log10(1 + (later - earlier).total_seconds() * 10) for earlier, later in pairwise(ordered)]
    room, whole, x = WIDTH - LABELS - 6, sum(gaps) or 1.0, 0.0
    places: dict[datetime, float] = {}
    for moment, gap in zip(ordered, gaps, strict=True):
        x += gap
        places[moment] = round(LABELS + room * x / whole, 1)
    return places


def span_words(span: timedelta) -> str:
    """Return `under a second`, `3 seconds`, `3 hours`, `21 days`."""
    seconds = span.total_seconds()
    for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    if seconds < 1:
        return "under a second"
    return "1 second" if round(seconds) == 1 else f"{seconds:.0f} seconds"


def _short(label: str, most: int = LONGEST_LABEL) -> str:
    return label if len(label) <= most else label[: most - 1] + "…"
