"""What opens a workflow's requests, as frozen models: its name, who may ask for what, and its schedules."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, StringConstraints, model_validator

from approvals_bot.approvals.base import Frozen, Slug, Text, WorkflowName, refuse
from approvals_bot.approvals.business_time import TimeZone
from approvals_bot.approvals.durations import Duration

LONGEST_CATCH_UP = timedelta(days=7)
SHORTEST_RETENTION = timedelta(days=1)

SCHEDULE = "app:schedule"
"""The requester of what a schedule starts, unless it names another. No API key may have this name."""


class RequestRule(Frozen):
    """People and apps that may request some values: those for which the condition is true."""

    from_: Annotated[tuple[Text, ...], Field(min_length=1, alias="from")]
    when: Text | None = None


class WorkflowInfo(Frozen):
    """The workflow's name, and who may start it. `title`, `instructions` and `key` are templates."""

    id: WorkflowName
    title: Text | None = None
    description: Annotated[Text, StringConstraints(max_length=500)] | None = None  # for requesters
    instructions: Annotated[Text, StringConstraints(max_length=2_000)] | None = None  # for approvers
    request: Annotated[tuple[Text, ...], Field(min_length=1)]  # "*" every person, "@group", "app:ci", an address
    owners: tuple[Text, ...] | None = None  # "@group", "app:desk", an address: who may reassign
    viewers: tuple[Text, ...] | None = None  # "@group", an address: who may see its requests, besides those concerned
    on_behalf_of: Literal["required", "optional", "never"] = "optional"
    key: Text | None = None
    run: Annotated[str, StringConstraints(max_length=200)] | None = None  # "module:function"
    retention: Retention | None = None  # how long its runs are kept after their end; None: what the service says
    may_ask: tuple[Text, ...] | None = None  # of tool calls: the addresses and groups that an agent may name


class WorkflowSchedule(Frozen):
    """Times at which the workflow starts on its own, with this input."""

    id: Slug
    cron: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    zone: TimeZone = "UTC"
    input: dict[str, JsonValue] = Field(default_factory=dict)
    requester: Text = SCHEDULE
    overlap: Literal["skip", "queue", "allow"] = "skip"
    catch_up: CatchUp = timedelta(hours=1)

    @model_validator(mode="after")
    def _has_times(self) -> WorkflowSchedule:
        from approvals_bot.durable.core.cron import Cron  # most files have no schedule and need no cronsim

        try:
            Cron(self.cron, self.zone)
        except ValueError as error:
            raise refuse(str(error), at="cron") from None
        return self


def _catch_up(value: timedelta) -> timedelta:
    if value > LONGEST_CATCH_UP:
        raise refuse("at most a week can be caught up with", "7d")
    return value


def _retention(value: timedelta) -> timedelta:
    if value < SHORTEST_RETENTION:
        raise refuse("runs are kept for a day at least", "1d")
    return value


def in_years(value: object) -> object:
    """Return how long "7y" is, for runs and the audit: years of 365 days. Anything else is returned as it is."""
    years = re.fullmatch(r"\s*([1-9][0-9]?)\s*y\s*", value, re.ASCII) if isinstance(value, str) else None
    return value if years is None else timedelta(days=365 * int(years[1]))


Retention = Annotated[Duration, BeforeValidator(in_years), AfterValidator(_retention)]
CatchUp = Annotated[Duration, AfterValidator(_catch_up)]
