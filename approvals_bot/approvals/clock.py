"""When a request's stages remind, escalate and end: a file's `[clock]` and `[[escalate]]`, and the delay of mails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    PlainSerializer,
    Tag,
    WithJsonSchema,
    model_validator,
)

from approvals_bot.approvals.base import Bool, Frozen, Int, Slug, Text, refuse
from approvals_bot.approvals.business_time import (
    BusinessTime,
    Calendar,
    Length,
    Span,
    TimeZone,
    is_at_least,
    length_text,
    parse_length,
)
from approvals_bot.approvals.deadlines import Deadline, StageDeadline, TimeOfField, length_of

OnDeadline = Literal["expire", "reject", "escalate", "approve"]
"""What happens to a request that isn't decided in time."""


MORE = "pick"
"""Among the addresses of an escalation: as many more people as its seats pick."""


class Clock(Frozen):
    """Times of each stage, counted from its opening. `calendar`: for business days and hours."""

    deadline: StageDeadline | None = None
    remind: Reminders = ()
    on_deadline: OnDeadline = "expire"
    i_know: Bool = False
    calendar: CalendarName = None
    zone: TimeZone | None = None  # of times of day, and of `now` in conditions; None: UTC
    none: Literal[True] | None = None  # that there is no deadline on purpose

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            deadline: str | timedelta | None = ...,
            remind: Sequence[str | timedelta] | Backoff | Mapping[str, Any] = ...,
            on_deadline: OnDeadline = ...,
            i_know: bool = ...,
            calendar: str | Calendar | None = ...,
            zone: str | None = ...,
            none: Literal[True] | None = ...,
        ) -> None: ...

    def reminders(self) -> tuple[Length, ...]:
        """Return when to remind after the opening, without reminders after the deadline."""
        lengths = self.remind.times() if isinstance(self.remind, Backoff) else tuple(dict.fromkeys(self.remind))
        until = self.deadline if isinstance(self.deadline, timedelta | BusinessTime) else None
        return tuple(at for at in lengths if until is None or not is_at_least(at, until))

    @model_validator(mode="after")
    def _times_make_sense(self) -> Clock:
        if self.deadline is None and self.on_deadline != "expire":
            raise refuse("this needs a deadline", at="on_deadline")
        if self.deadline is not None and self.none is not None and not isinstance(self.deadline, TimeOfField):
            raise refuse("there is a deadline", at="none")
        check_times(self.deadline, self.remind, self.on_deadline, knows=self.i_know)
        return self


def check_times(
    deadline: Deadline | None, remind: Reminders | None, on_deadline: OnDeadline | None, *, knows: bool | None
) -> None:
    """Refuse a reminder after the deadline, and an approval by silence unless its author `knows`."""
    until = length_of(deadline)
    if until is not None and isinstance(remind, tuple) and any(is_at_least(at, until) for at in remind):
        raise refuse("a reminder at or after the deadline would never be sent", at="remind")
    if on_deadline == "approve" and not knows:
        raise refuse("silence would approve the request; if you want that, add i_know = true", at="on_deadline")


class Backoff(Frozen):
    """`max` reminders at growing intervals: at `first`, then after first × backoff more, and so on."""

    first: Span
    backoff: Annotated[float, Field(ge=1, le=10, allow_inf_nan=False)] = 2.0
    max: Annotated[Int, Field(ge=1, le=50)]

    def times(self) -> tuple[Length, ...]:
        times: list[Length] = []
        gap, at = self.first.total_seconds() if isinstance(self.first, timedelta) else 1.0, 0.0
        for _ in range(self.max):
            at += gap
            gap *= self.backoff
            times.append(self.first.times(at) if isinstance(self.first, BusinessTime) else timedelta(seconds=round(at)))
        return tuple(dict.fromkeys(times))


class Escalation(Frozen):
    """A time after which open seats get more people (`add`) or other people (`replace`)."""

    after: Span
    to: Annotated[tuple[Text, ...], Field(min_length=1)]
    mode: Literal["add", "replace"] = "add"

    if TYPE_CHECKING:

        def __init__(
            self, *, after: str | timedelta, to: Sequence[str], mode: Literal["add", "replace"] = ...
        ) -> None: ...

    def without_more(self) -> Escalation:
        """Return the escalation in a stage that picks nobody; then it may be to nobody."""
        return self.model_copy(update={"to": tuple(address for address in self.to if address != MORE)})


def lengths_of(deadline: object, remind: Reminders | None) -> Iterator[tuple[tuple[str | int, ...], object]]:
    """Yield the deadline and the lengths of the reminders, each with its path in the clock's table."""
    if deadline is not None:
        yield ("deadline",), deadline
    if isinstance(remind, Backoff):
        yield ("remind", "first"), remind.first
    else:
        yield from ((("remind", at), length) for at, length in enumerate(remind or ()))


def calendar_of(clock: Clock, calendars: Mapping[str, Calendar]) -> Calendar | None:
    """Return the calendar of this clock: the one it names, or the only one. None: there is none."""
    match clock.calendar:
        case Calendar():
            return clock.calendar
        case None:
            return next(iter(calendars.values())) if len(calendars) == 1 else None
        case name:
            return calendars.get(name)


def _kind_of_reminders(value: object) -> str:
    return "table" if isinstance(value, (dict, Backoff)) else "list"


def _kind_of_calendar(value: object) -> str:
    return "table" if isinstance(value, (dict, Calendar)) else "name"


def _mail_delay(value: object) -> object:
    """False, True or "after 10m"."""
    match value:
        case bool():
            return timedelta(0) if value else None
        case str() if value.startswith("after "):
            try:
                return parse_length(value.removeprefix("after "))
            except ValueError as error:
                raise refuse(str(error)) from None
        case timedelta() | BusinessTime() | None:
            return value
        case _:
            raise refuse('write true, false, or a delay like "after 10m"')


def _mail_delay_text(value: Length | None) -> bool | str:
    return f"after {length_text(value)}" if value else value is not None


MailDelay = Annotated[
    Length | None,
    BeforeValidator(_mail_delay),
    PlainSerializer(_mail_delay_text, return_type=bool | str),
    WithJsonSchema({"anyOf": [{"type": "boolean"}, {"type": "string", "pattern": "^after .+"}]}),
]
Reminders = Annotated[
    Annotated[tuple[Span, ...], Tag("list")] | Annotated[Backoff, Tag("table")], Discriminator(_kind_of_reminders)
]
CalendarName = (
    Annotated[Annotated[Slug, Tag("name")] | Annotated[Calendar, Tag("table")], Discriminator(_kind_of_calendar)] | None
)
