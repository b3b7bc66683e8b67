"""Small drawings, as numbers for templates: the stages of a workflow with their clock, and charts of days. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from approvals_bot.approvals.card_text import span
from approvals_bot.approvals.conditions import condition
from approvals_bot.approvals.eligibility import RequestContext, label_of
from approvals_bot.approvals.plain_text import readable
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.stage_policy import Stage
from approvals_bot.approvals.timers import Time, stage_times
from approvals_bot.people import Person, is_mail
from approvals_bot.service.workflow_figures import Day

COLUMN = 208  # user units, of one stage
MARGIN = 14
DOTS = 8  # seats' places that are drawn; of more, the number is enough
LABEL = 25  # characters that fit into a column
WIDTH, HEIGHT = 300, 72  # of a chart
NARROWEST = 140  # the distance of two marks of the clock whose words are beside each other


def clip(text: str, most: int = LABEL) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


@dataclass(frozen=True, slots=True)
class ConditionText:
    """A condition as people read it: `words` after "if", or else the file's own `code`."""

    words: str
    code: str


def condition_text(when: str | None, definition: Definition) -> ConditionText | None:
    """Word a condition of this workflow's file; None if there is none."""
    return None if when is None else ConditionText(condition(when, definition.fields).words(), when)


@dataclass(frozen=True, slots=True)
class SeatWords:
    """A seat: `needs` in words, `when` it applies, and its places, for dots: -1 for a share of them."""

    needs: str
    when: ConditionText | None
    places: int


@dataclass(frozen=True, slots=True)
class DrawnStage:
    """One stage in its column, and the same in words. `x`: of its mark."""

    x: int
    title: str
    label: str
    when: ConditionText | None
    seats: tuple[SeatWords, ...]
    times: tuple[str, ...] = ()  # of its own clock


@dataclass(frozen=True, slots=True)
class Mark:
    """A time of the clock that runs in each stage. `row`: its words are above or below those of the one before."""

    x: float
    row: int
    kind: str
    after: str
    what: str


@dataclass(frozen=True, slots=True)
class StageDrawing:
    """The stages in a row, and the clock of each below. `end`: the x of the decision."""

    stages: tuple[DrawnStage, ...]
    marks: tuple[Mark, ...]
    width: int
    height: int
    clock_y: int
    end: int


def draw_stages(definition: Definition, now: datetime, person: Callable[[str], Person]) -> StageDrawing:
    """Draw a workflow's stages, and the times that count from the opening of each. `person`: who has an address."""
    about = RequestContext("the requester", group_names=definition.group_names)
    named = [one for stage in definition.stage for seat in stage.seats for one in seat.from_ if is_mail(one)]
    people = {address: person(address) for address in named}
    stages = tuple(
        DrawnStage(
            MARGIN + 90 + number * COLUMN,
            stage.title or readable(stage.id),
            clip(stage.title or readable(stage.id)),
            condition_text(stage.when, definition),
            tuple(_seat(definition, stage, at, about, people) for at in range(len(stage.seats))),
            _own_times(definition, stage, now),
        )
        for number, stage in enumerate(definition.stage)
    )
    end = MARGIN + 90 + len(stages) * COLUMN
    lines = max((len(stage.seats) for stage in stages), default=0)
    clock_y = 92 + 40 * lines
    width = max(end + 90, 720)
    marks = _marks(stage_times(definition, now), now, width)
    height = clock_y + (26 + 18 * max(mark.row + 1 for mark in marks) if marks else 0)
    return StageDrawing(stages, marks, width, height, clock_y, end)


def _own_times(definition: Definition, stage: Stage, now: datetime) -> tuple[str, ...]:
    """Word the times of a stage with a clock of its own."""
    here = definition.in_stage(stage)
    if here.clock is definition.clock:
        return ()
    times = sorted(stage_times(here, now), key=lambda time: time.at)
    return tuple(f"After {span(time.at - now)}: {time.what}" for time in times)


_NEEDS = {"all": "everyone", "majority": "the majority"}


def _seat(
    definition: Definition, stage: Stage, at: int, about: RequestContext, people: Mapping[str, Person]
) -> SeatWords:
    """Word a seat: `2 of Release managers`, of alternatives `and everyone of SRE`, `or 1 of Board`."""
    seat, word = stage.seats[at], ""
    if stage.alternatives is not None and at:
        word = "and " if stage.alternative_of(at) == stage.alternative_of(at - 1) else "or "
    who = label_of(seat.from_, about, people)
    return SeatWords(
        f"{word}{_NEEDS.get(str(seat.need), seat.need)} of {who}" + (f", {seat.pick} picked" if seat.pick else ""),
        condition_text(seat.when, definition),
        min(seat.need, DOTS) if isinstance(seat.need, int) else -1,
    )


def _marks(times: Sequence[Time], now: datetime, width: int) -> tuple[Mark, ...]:
    """Place the times on a line that ends with the last one: in order, as far apart as their words need."""
    ordered = sorted(times, key=lambda time: time.at)
    if not ordered:
        return ()
    room = width - 2 * MARGIN - NARROWEST
    whole = max((ordered[-1].at - now).total_seconds(), 1.0)
    marks, taken = list[Mark](), [-float(NARROWEST)] * 6
    for time in ordered:
        x = MARGIN + room * (time.at - now).total_seconds() / whole
        row = next((row for row, last in enumerate(taken) if x - last >= NARROWEST), len(taken) - 1)
        taken[row] = x
        marks.append(Mark(round(x, 1), row, time.kind, span(time.at - now), time.what))
    return tuple(marks)


@dataclass(frozen=True, slots=True)
class ChartBar:
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Chart:
    """Bars for days. `most`: the value of the highest in words; `words`: the whole for people who can't see it."""

    bars: tuple[ChartBar, ...]
    most: str
    words: str
    first: str
    last: str


def chart(days: Sequence[Day], value: Callable[[Day], float | None], word: Callable[[float], str], what: str) -> Chart:
    """Draw one value of each day. `what` names it: `Open requests`."""
    values = [value(day) for day in days]
    known = [each for each in values if each is not None]
    top = max(known, default=0.0)
    step = WIDTH / max(len(days), 1)
    bars = tuple(
        ChartBar(
            round(number * step + step * 0.15, 2),
            round(HEIGHT - _height(each, top), 2),
            round(step * 0.7, 2),
            _height(each, top),
        )
        for number, each in enumerate(values)
        if each
    )
    first, last = (_day(days[0]), _day(days[-1])) if days else ("", "")
    newest = next((each for each in reversed(values) if each is not None), None)
    said = f"{what} from {first} to {last}: highest: {word(top)}" if known else f"{what}: none yet"
    words = f"{said}, lastly {word(newest)}." if newest is not None else f"{said}."
    return Chart(bars, word(top) if known else "", words, first, last)


def _height(value: float, top: float) -> float:
    return round(max(HEIGHT * value / top, 2.0), 2)


def _day(day: Day) -> str:
    return f"{day.day.day} {day.day:%b}"


def open_chart(days: Sequence[Day]) -> Chart:
    """Draw how many requests were open at the end of each day."""
    return chart(days, lambda day: float(day.open), lambda count: f"{count:.0f}", "Open requests")


def decision_chart(days: Sequence[Day]) -> Chart:
    """Draw the median time to a decision of each day."""
    return chart(days, lambda day: day.seconds, seconds_in_words, "Time to a decision")


def seconds_in_words(seconds: float) -> str:
    return span(timedelta(seconds=seconds))
