"""Policy tests: `deploy.test.toml` beside `deploy.toml`, with requests to play and what is expected of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, JsonValue, model_validator

from approvals_bot.approvals.base import Frozen, Text, nearest, refuse
from approvals_bot.approvals.durations import DurationOrZero
from approvals_bot.approvals.policy import Definition
from approvals_bot.config.load import TESTS, Configuration, TomlFile, name_of
from approvals_bot.config.mail import MailAddress
from approvals_bot.config.messages import ConfigErrors, Finding
from approvals_bot.config.positions import Path as Place
from approvals_bot.config.service import ServiceSettings
from approvals_bot.people.addresses import AddressError, GroupAddress, canonical_in_file, parse_address

START = datetime(2026, 1, 5, 9, tzinfo=UTC)
"""When a case without `now` begins: a Monday morning, so that a test has the same result every day."""


def _json(value: object) -> object:
    """Write TOML's dates and times as the API takes them."""
    match value:
        case dict():
            return {key: _json(each) for key, each in value.items()}
        case list():
            return [_json(each) for each in value]
        case date() | time():
            return value.isoformat()
        case _:
            return value


def _moment(value: object) -> datetime:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            value = None
    elif isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time())
    if not isinstance(value, datetime):
        raise refuse("write a date and time, like 2026-03-02T09:00:00Z")
    return value.astimezone(UTC) if value.tzinfo is not None else value.replace(tzinfo=UTC)


def _texts(value: object) -> object:
    return [value] if isinstance(value, str) else value


Values = Annotated[dict[str, JsonValue], BeforeValidator(_json)]
Moment = Annotated[datetime, BeforeValidator(_moment)]
Texts = Annotated[tuple[Text, ...], BeforeValidator(_texts)]


# No twin of Vote, Ended, CardVote: this is what a file says that somebody will do.
class CaseVote(Frozen):
    """What somebody does, `after` so much time since the vote before, or the opening. Nobody: only time passes."""

    by: Text | None = None
    choice: Literal["approve", "reject", "changes", "edit", "answer", "take_back", "withdraw"] | None = None
    comment: str = ""
    answers: Values = Field(default_factory=dict)
    fields: Values = Field(default_factory=dict)  # with "edit"
    after: DurationOrZero = timedelta()

    @model_validator(mode="after")
    def _is_somebodys(self) -> CaseVote:
        if self.by is None and (self.choice is not None or self.comment or self.answers or self.fields):
            raise refuse("is missing: whose vote is this?", at="by")
        return self


class Case(Frozen):
    """One request, what people do, and what is expected of it.

    `covered_by`: an earlier case, which is played before; what its approval covers is there. `break_glass`: the reason
    with which the requester opens it without a vote. `asked`: everybody who may decide in the stages that open.
    `outcome`: also `waiting`, and `refused` if it can't be opened. `why`: texts that the reasons contain.
    """

    name: Text
    input: Values = Field(default_factory=dict)
    requester: Text
    on_behalf_of: Text | None = None
    now: Moment = START
    covered_by: Text | None = None
    break_glass: Text | None = None
    votes: tuple[CaseVote, ...] = ()
    asked: tuple[Text, ...] | None = None
    outcome: Literal["approved", "rejected", "answered", "expired", "cancelled", "waiting", "refused"] | None = None
    why: Texts = ()

    @model_validator(mode="after")
    def _expects_something(self) -> Case:
        if self.asked is None and self.outcome is None and not self.why:
            raise refuse("is missing: a case expects an outcome, who is asked, or why", at="outcome")
        if self.break_glass is not None and self.votes:
            raise refuse("what is opened without a vote is decided before anybody votes", at="votes")
        return self


class PolicyTests(Frozen):
    """A file of policy tests. `groups`: who is in a group that only Slack or a URL knows, for these tests."""

    groups: dict[str, tuple[MailAddress, ...]] = Field(default_factory=dict)
    case: Annotated[tuple[Case, ...], Field(min_length=1)]


@dataclass(frozen=True)
class LoadedTests:
    """A file of policy tests with its workflow, and the lines of its keys."""

    path: Path
    definition: Definition
    tests: PolicyTests
    file: TomlFile

    def line(self, *place: str | int) -> int:
        """Return the line of a key."""
        return self.file.places.line_of(place)


def load_tests(path: Path, configuration: Configuration) -> LoadedTests:
    """Load a file of policy tests. Raises ConfigErrors with every problem."""
    file, service = TomlFile.read(path), configuration.service
    named = name_of(path, service.server.workflows)
    definition = next((each for each in configuration.workflows if each.id == named), None)
    tests, wrong = file.fit(PolicyTests, {})
    found = list(wrong)
    if definition is None:
        beside = path.name.removesuffix(TESTS) + ".toml"
        found.append(Finding(("case",), f"there is no workflow to test: {beside} is not beside this file"))
    elif not definition.is_approval:
        found.append(Finding(("case",), "only approvals can be tested here; this file has a Python workflow"))
    elif tests is not None:
        found += _faults(tests, definition, service)
    if found or tests is None or definition is None:
        raise ConfigErrors(file.problems(found))
    return LoadedTests(path, definition, tests, file)


def _faults(tests: PolicyTests, definition: Definition, service: ServiceSettings) -> Iterator[Finding]:
    """Yield what can't be meant, whatever the outcome: people who are none, groups and fields that don't exist."""
    for name in tests.groups:
        if not name.startswith("slack:@") and name not in service.groups:
            yield Finding(("groups", name), f"no group is called {name}", nearest(name, service.groups))
    seen: dict[str, int] = {}
    for at, case in enumerate(tests.case):
        path = ("case", at)
        if seen.setdefault(case.name, at) != at:
            yield Finding((*path, "name"), f'another case is called "{case.name}"')
        yield from _person((*path, "requester"), case.requester, apps=True)
        if case.on_behalf_of is not None:
            yield from _person((*path, "on_behalf_of"), case.on_behalf_of)
        if case.covered_by is not None and case.covered_by not in list(seen)[:-1]:
            yield Finding((*path, "covered_by"), "no earlier case has this name", nearest(case.covered_by, seen))
        for key, rule in (("covered_by", definition.standing), ("break_glass", definition.break_glass)):
            if getattr(case, key) is not None and rule is None:
                table = "standing" if key == "covered_by" else key
                yield Finding((*path, key), f"the workflow has no [{table}]")
        for name in case.input:
            if name not in definition.fields:
                yield Finding(
                    (*path, "input", name), "the workflow has no such field", nearest(name, definition.fields)
                )
        for number, vote in enumerate(case.votes):
            if vote.by is not None:
                yield from _person((*path, "votes", number, "by"), vote.by)
        for number, entry in enumerate(case.asked or ()):
            yield from _entry((*path, "asked", number), entry, service)


def _person(path: Place, text: str, *, apps: bool = False) -> Iterator[Finding]:
    if apps and text.startswith("app:"):
        return
    try:
        canonical_in_file(text)
    except AddressError as error:
        how = "write a person's address" + (", or app:name" if apps else "")
        yield Finding(path, how if error.is_shapeless else str(error))


def _entry(path: Place, text: str, service: ServiceSettings) -> Iterator[Finding]:
    try:
        address = parse_address(text)
    except ValueError as error:
        yield Finding(path, str(error))
        return
    if isinstance(address, GroupAddress) and address.name not in service.groups:
        near = nearest(address.name, service.groups)
        yield Finding(path, f"no group is called {address.name}", near and f"@{near}")
