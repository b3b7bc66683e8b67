"""What conditions ask besides fields: who the requester is, what time it is, and what became of the request.

`requester.in("@sre")`, `requester.is_app`, `requester.email` · `now.weekday`, `now.hour`, `business_hours("berlin")` ·
of follow-ups only: `answer_of("finance", "code")`, `stage.id`. Each gets a name in the condition, as if it were a
field. Its value is that of one moment, which the caller chooses and keeps. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from approvals_bot.approvals.base import nearest
from approvals_bot.approvals.business_time import Calendar, is_open
from approvals_bot.approvals.field_specs import FieldSpec
from approvals_bot.approvals.plain_text import readable
from approvals_bot.approvals.zones import zone_of

LONGEST_LABEL = 75
WORDS = ("requester", "now", "business_hours")
"""What circumstances begin with, which no field is called."""

WEEKDAY = FieldSpec(type="integer", min=1, max=7, label="weekday")
HOUR = FieldSpec(type="integer", min=0, max=23, label="hour")

Kind = Literal["in", "is_app", "email", "weekday", "hour", "business_hours", "answer", "stage"]

Asks = Mapping[str, Mapping[str, FieldSpec]]
"""The questions of each stage, by its id."""


class ConditionError(ValueError):
    """An invalid condition. The message says why; `suggestion` is what was probably meant."""

    def __init__(self, message: str, suggestion: str = "") -> None:
        self.suggestion = suggestion
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Circumstance:
    """A part of a condition that is no field. `text`: as files write it.

    `names`: the groups that the requester may be in, a calendar, or a stage and its question.
    """

    kind: Kind
    text: str
    spec: FieldSpec
    names: tuple[str, ...] = ()

    @property
    def is_time(self) -> bool:
        return self.kind in ("weekday", "hour", "business_hours")

    @property
    def is_of_requester(self) -> bool:
        return self.kind in ("in", "is_app", "email")

    @property
    def shown_as(self) -> str:
        """What explanations call it: the label, or for times what the file says."""
        return str(self.spec.label) if self.is_of_requester else self.text

    def times(self) -> tuple[Any, ...]:
        """Return every value that it has at some time."""
        return (
            tuple(range(1, 8)) if self.kind == "weekday" else tuple(range(24)) if self.kind == "hour" else (True, False)
        )


@dataclass(frozen=True, slots=True)
class Known:
    """What a condition may know. `at`: None if that isn't certain yet; `zone`: of the workflow's clock."""

    requester: str = ""
    groups: Collection[str] = ()
    at: datetime | None = None
    zone: str = "UTC"
    calendars: Mapping[str, Calendar] = field(default_factory=dict)
    stage: str = ""
    answers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def value(self, of: Circumstance) -> Any:
        """Return the value; None if it isn't known, or an answer that nobody gave."""
        match of.kind:
            case "in":
                return any(group in self.groups for group in of.names)
            case "is_app":
                return self.requester.startswith("app:")
            case "email":
                return self.requester
            case "stage":
                return self.stage
            case "answer":
                stage, name = of.names
                return self.answers.get(stage, {}).get(name)
            case _ if self.at is None:
                return None
            case "weekday":
                return self.at.astimezone(zone_of(self.zone)).isoweekday()
            case "hour":
                return self.at.astimezone(zone_of(self.zone)).hour
            case "business_hours":
                calendar = self.calendars.get(of.names[0])
                return None if calendar is None else is_open(calendar, self.at)


def with_names(text: str, fields: Collection[str], asks: Asks | None) -> tuple[str, dict[str, Circumstance]]:
    """Put a name into the place of each circumstance. Returns the text, and what the names mean.

    `asks`: in a follow-up, the questions that stages ask. Raises ConditionError for parts of another form.
    """
    found: dict[str, Circumstance] = {}

    def name_of(match: re.Match[str]) -> str:
        if match.lastgroup is None or (match["who"] and "requester" in fields) or (match["time"] and "now" in fields):
            return match[0]
        one = _read(match, asks)
        name = next((name for name, known in found.items() if known == one), f"_circumstance_{len(found)}")
        found[name] = one
        return name

    named = _PART.sub(name_of, text)
    _refuse_others(_QUOTED.sub("", named), fields, asks)
    return named, found


def in_file_words(message: str, found: Mapping[str, Circumstance]) -> str:
    """Return a message with what the file says instead of the names."""
    for name in sorted(found, key=len, reverse=True):
        message = message.replace(name, found[name].text)
    return message


def calendars_in(text: str) -> Iterator[str]:
    """Yield the calendars that a condition names."""
    if "business_hours" in text:
        yield from (found["calendar"][1:-1] for found in _PART.finditer(text) if found["calendar"])


def _read(match: re.Match[str], asks: Asks | None) -> Circumstance:
    if match["groups"]:
        groups = tuple(each[1:-1] for each in _QUOTED.findall(match["groups"]))
        text = f"requester.in({', '.join(map(_quoted, groups))})"
        return Circumstance("in", text, _yes_no(f"the requester is in {' or '.join(groups)}"), groups)
    if match["who"] == "is_app":
        return Circumstance("is_app", "requester.is_app", _yes_no("the requester is an app"))
    if match["who"]:
        return Circumstance("email", "requester.email", FieldSpec(type="string", label="requester's address"))
    if match["time"]:
        spec = WEEKDAY if match["time"] == "weekday" else HOUR
        return Circumstance(match["time"], f"now.{match['time']}", spec)  # type: ignore[arg-type]  # of these two
    if match["calendar"]:
        name = match["calendar"][1:-1]
        return Circumstance(
            "business_hours", f"business_hours({_quoted(name)})", _yes_no(f"business hours of {name}"), (name,)
        )
    if asks is None:
        instead = "; to decide here by what approvers enter, let them edit a field" if match["asked"] else ""
        raise ConditionError(f"{match[0]} is known in the follow-ups of [[on.…]] only{instead}")
    if match["stage"]:
        return Circumstance("stage", "stage.id", FieldSpec(type="enum", values=tuple(asks), label="stage"))
    stage, name = (each[1:-1] for each in _QUOTED.findall(match["asked"]))
    if stage not in asks:
        raise ConditionError(f"no stage is called {stage}", nearest(stage, asks))
    if name not in asks[stage]:
        raise ConditionError(f"the stage {stage} doesn't ask for {name}", nearest(name, asks[stage]))
    spec = asks[stage][name]
    spec = spec if spec.label else spec.model_copy(update={"label": readable(name)[:LONGEST_LABEL]})
    return Circumstance("answer", f"answer_of({_quoted(stage)}, {_quoted(name)})", spec, (stage, name))


def _yes_no(label: str) -> FieldSpec:
    return FieldSpec(type="boolean", label=label[:LONGEST_LABEL])


def _quoted(text: str) -> str:
    return f'"{text}"'


def _refuse_others(rest: str, fields: Collection[str], asks: Asks | None) -> None:
    """Refuse what is left of circumstances, outside of texts: it has another form."""
    for word, how in _HOW.items():
        left = re.search(rf"(?<![\w.$]){word}\b(?:\s*\.\s*(\w+))?", rest)
        if left is None or word in fields or (word == "answer_of" and asks is None and "answer_of" in fields):
            continue
        near = nearest(left[1], RANGES) if word == "now" and left[1] else ""
        raise ConditionError(how, near and f"now.{near}")


RANGES = {"weekday": "1 is Monday, 7 is Sunday", "hour": "it is 0 to 23"}
_HOW = {
    "requester": 'write requester.in("@group"), requester.is_app or requester.email',
    "now": "write now.weekday (1 is Monday, 7 is Sunday) or now.hour (0 to 23)",
    "business_hours": 'write business_hours("name"), with a calendar of [calendars]',
    "answer_of": 'write answer_of("stage", "name"), in [[on.…]] only',
}
_QUOTED = re.compile(r""""[^"\\\n]*"|'[^'\\\n]*'""")
_TEXT = rf"(?:{_QUOTED.pattern})"
_PART = re.compile(
    rf"""
      \brequester\s*\.\s*(?:in\s*\(\s*(?P<groups>{_TEXT}(?:\s*,\s*{_TEXT})*)\s*\)|(?P<who>is_app|email)\b)
    | \bnow\s*\.\s*(?P<time>weekday|hour)\b
    | \bbusiness_hours\s*\(\s*(?P<calendar>{_TEXT})\s*\)
    | \banswer_of\s*\(\s*(?P<asked>{_TEXT}\s*,\s*{_TEXT})\s*\)
    | \b(?P<stage>stage\s*\.\s*id)\b
    | "(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*'
    """,
    re.VERBOSE,
)
