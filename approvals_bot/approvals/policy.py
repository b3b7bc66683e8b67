"""A workflow's file as frozen models: requesters, rules and stages. Fields, clock and delivery have their own modules.

TOML files load into these models, and workflow authors pass `Stage Seat Clock Deliver Policy Escalation Ask` to
`request_approval`, with the same keys and values: `Clock(deadline="4h", remind=["1h"])`. A wrong value raises a
ValueError that names its key. A run keeps `pinned(definition)` in its log, so a changed file affects only new requests.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args

from pydantic import (
    AfterValidator,
    Field,
    JsonValue,
    StringConstraints,
    ValidationInfo,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema

from approvals_bot.approvals.agent_policy import CHOICES, EVERY_APP, TOOL_CALL, Allowance, Budget
from approvals_bot.approvals.base import Frozen, Int, Label, Slug, Text, WorkflowName, refuse
from approvals_bot.approvals.business_time import (
    BusinessTime,
    Calendar,
    TimeZone,
)
from approvals_bot.approvals.circumstances import calendars_in
from approvals_bot.approvals.clock import (
    MORE,
    Backoff,
    Clock,
    Escalation,
    OnDeadline,
    Reminders,
    calendar_of,
    check_times,
    lengths_of,
)
from approvals_bot.approvals.deadlines import StageDeadline, TimeOfField
from approvals_bot.approvals.delivery_policy import Action, Actions, Deliver, StageDeliver
from approvals_bot.approvals.durations import Duration
from approvals_bot.approvals.field_addresses import variants
from approvals_bot.approvals.field_specs import Ask, FieldName, FieldSpec, Question

LONGEST_GRACE = timedelta(days=1)
MAX_AGE = timedelta(minutes=10)
LONGEST_CATCH_UP = timedelta(days=7)

SCHEDULE = "app:schedule"
"""The requester of what a schedule starts, unless it names another. No API key may have this name."""

Choice = Literal["approve", "reject", "changes", "edit", "answer"]
"""A choice that a stage may offer its approvers."""

CommentRule = Literal["never", "optional", "on-reject", "always"]
"""When approvers have to comment. `on-reject`: if they don't approve; `never`: they can't."""

SelfApproval = Literal["never", "allow", "skip-up"]
"""Whether requesters decide on their own requests."""

Rejections = Literal["any", "all"] | Annotated[Int, Field(ge=1, le=1000)]
"""How many rejections end a stage."""

Share = Annotated[str, StringConstraints(pattern=r"^(?:100|[1-9][0-9]?)%$")]
"""A share of the people of a seat: `50%`."""

Need = Literal["all", "majority"] | Share | Annotated[Int, Field(ge=1, le=1000)]
"""How many votes a seat needs."""

OnChange = Literal["reset", "keep", "reset-if-raised"]
"""What an edit of a field does to the votes already given."""


class Definition(Frozen):
    """One workflow: an approval with stages, or a form that starts a Python workflow."""

    workflow: WorkflowInfo
    fields: dict[FieldName, FieldSpec] = Field(default_factory=dict)
    request: Annotated[tuple[RequestRule, ...], Field(min_length=1)] | None = None  # instead of workflow.request
    policy: Policy = Field(default_factory=lambda: Policy())
    auto: tuple[Auto, ...] = ()
    stage: tuple[Stage, ...] = ()
    deliver: Deliver = Field(default_factory=lambda: Deliver())
    clock: Clock = Field(default_factory=lambda: Clock())
    escalate: tuple[Escalation, ...] = ()
    on: Actions = Field(default_factory=lambda: Actions())
    labels: Labels = Field(default_factory=lambda: Labels())
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    schedule: tuple[WorkflowSchedule, ...] = ()
    allowance: Allowance | None = None  # of tool calls, as `budget`
    budget: Budget | None = None
    # Never in a file: what a run keeps of the service's file; see `with_calendar` and `with_group_names`.
    calendars: SkipJsonSchema[dict[str, Calendar] | None] = None
    group_names: SkipJsonSchema[dict[str, str]] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _is_a_file(cls, value: object, info: ValidationInfo) -> object:
        if info.context is not None and isinstance(value, dict):
            return _as_loaded(value)
        return value

    @model_validator(mode="after")
    def _stages_that_act_at_a_deadline_have_one(self) -> Definition:
        for at, stage in enumerate(self.stage):
            if stage.on_deadline is not None and stage.deadline is None and self.clock.deadline is None:
                raise refuse("this needs a deadline", at=("stage", at, "on_deadline"))
        return self

    @property
    def id(self) -> str:
        return self.workflow.id

    @property
    def is_approval(self) -> bool:
        """Whether it is a form that opens a request. Those of tool calls have no form."""
        return self.workflow.run is None and self.workflow.id != TOOL_CALL

    @property
    def is_tool_call(self) -> bool:
        """Whether it asks about tool calls: its fields are the arguments of whatever tool is called."""
        return self.workflow.run is None and self.workflow.id == TOOL_CALL

    def outcomes_of(self, stage: Stage) -> tuple[Choice, ...]:
        """Return the choices of this stage: its own, else the policy's."""
        return stage.outcomes if stage.outcomes is not None else self.policy.outcomes

    def deadline_fields(self, done: Collection[str] = ()) -> tuple[str, ...]:
        """Return the fields that hold a deadline of a stage, but not of those that are `done`."""
        own = [stage.deadline or self.clock.deadline for stage in self.stage if stage.id not in done]
        deadlines = own if self.stage else [self.clock.deadline]
        return tuple(dict.fromkeys(each.field for each in deadlines if isinstance(each, TimeOfField)))

    def in_folder(self, folder: str) -> Definition:
        """Return the definition of a file in a sub-folder, which is part of the workflow's name."""
        named = self.workflow.model_copy(update={"id": f"{folder}/{self.id}"})
        return self.model_copy(update={"workflow": named})

    def with_calendar(self, calendars: Mapping[str, Calendar]) -> Definition:
        """Return the definition with its calendars built in: a run keeps the calendars as of its start.

        Returns it unchanged if it uses no business time, or if there is no such calendar.
        """
        asked = {name: calendars[name] for name in self.asked_calendars if name in calendars}
        changes: dict[str, object] = {"calendars": asked} if asked else {}
        calendar = calendar_of(self.clock, calendars)
        if calendar is not None and any(self.business_times()):
            changes["clock"] = self.clock.model_copy(update={"calendar": calendar})
        return self.model_copy(update=changes) if changes else self

    @property
    def asked_calendars(self) -> tuple[str, ...]:
        """The calendars whose business hours conditions ask for."""
        whens = (*self.conditions(), *(action.when or "" for action in self.follow_ups()))
        return tuple(dict.fromkeys(name for when in whens for name in calendars_in(when)))

    def follow_ups(self) -> Iterator[Action]:
        """Yield the follow-ups of all events."""
        for _, actions in self.on:
            yield from actions or ()

    def conditions(self) -> Iterator[str]:
        """Yield every condition that decides something; not those of follow-ups."""
        yield from (rule.when for rule in self.request or () if rule.when is not None)
        yield from (rule.when for rule in self.auto)
        for stage in self.stage:
            yield from (when for when in (stage.when, *(seat.when for seat in stage.seats)) if when is not None)

    def business_times(self) -> Iterator[tuple[tuple[str | int, ...], BusinessTime]]:
        """Yield every length in business time, with its path in the file."""
        found: list[tuple[tuple[str | int, ...], object]] = []
        found += [(("clock", *path), length) for path, length in lengths_of(self.clock.deadline, self.clock.remind)]
        found += [(("escalate", at, "after"), each.after) for at, each in enumerate(self.escalate)]
        if self.deliver.email is not None:
            found.append((("deliver", "email"), self.deliver.email))
        for at, stage in enumerate(self.stage):
            found += [(("stage", at, *path), length) for path, length in lengths_of(stage.deadline, stage.remind)]
            if stage.deliver is not None and stage.deliver.email:
                found.append((("stage", at, "deliver", "email"), stage.deliver.email))
        yield from ((path, length) for path, length in found if isinstance(length, BusinessTime))

    def in_stage(self, stage: Stage) -> Definition:
        """Return the definition as it is in this stage, with the stage's own times and delivery.

        Where nobody is picked, no escalation picks more: one that only did this is to nobody, and left out.
        """
        own = {key: of for key in ("deadline", "remind", "on_deadline") if (of := getattr(stage, key)) is not None}
        changes: dict[str, Any] = {"clock": self.clock.model_copy(update=own)} if own else {}
        if stage.deliver is not None:
            changes["deliver"] = self.deliver.but(stage.deliver)
        if any(MORE in each.to for each in self.escalate) and all(seat.pick is None for seat in stage.seats):
            changes["escalate"] = tuple(each.without_more() for each in self.escalate)
        return self.model_copy(update=changes) if changes else self

    @property
    def deliveries(self) -> tuple[Deliver, ...]:
        """The file's delivery, and those of the stages that have their own."""
        return self.deliver, *(self.in_stage(stage).deliver for stage in self.stage if stage.deliver is not None)

    @property
    def to_requester(self) -> Deliver:
        """The delivery by which requesters are notified: the file's, or else that of the first stage that has one."""
        return next((deliver for deliver in self.deliveries if not deliver.is_silent), self.deliver)

    def with_group_names(self, names: Mapping[str, str]) -> Definition:
        """Return the definition with the names of its groups built in: a run keeps those it started with.

        `names`: of all the service's groups that have a name, by the group's id.
        """
        seats = [seat for stage in self.stage for seat in stage.seats]
        addresses = {address for seat in seats for address in (*seat.from_, *(seat.notify or ()))}
        addresses.update(address for escalation in self.escalate for address in escalation.to)
        addresses = {each for address in addresses for each, _ in variants(address, self.fields)}
        used = {id: name for id, name in names.items() if f"@{id}" in addresses}
        return self.model_copy(update={"group_names": used}) if used else self


def _as_loaded(file: dict[str, Any]) -> dict[str, Any]:
    """Return the tables of a file. That of tool calls lets every key ask, and people edit and answer, by default."""
    if kept := {"calendars", "group_names"} & file.keys():
        raise refuse("unknown key", at=kept.pop())
    about, policy = file.get("workflow"), file.get("policy", {})
    rules = file.get("request")
    if isinstance(about, dict) and isinstance(rules, list) and all(isinstance(rule, dict) for rule in rules) and rules:
        if "request" in about:
            raise refuse("is said by [[request]]; leave one of them out", at=("workflow", "request"))
        lists = [rule["from"] for rule in rules if isinstance(rule.get("from"), list)]
        about = {**about, "request": list(dict.fromkeys(entry for each in lists for entry in each)) or ["*"]}
        file = {**file, "workflow": about}
    if not isinstance(about, dict) or not isinstance(policy, dict) or about.get("id") != TOOL_CALL or "run" in about:
        return file
    shared = {"workflow": {"request": ["*", EVERY_APP], **about}, "policy": {"outcomes": [*CHOICES], **policy}}
    return file | shared


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


class Policy(Frozen):
    """The rules of the vote."""

    self_approval: SelfApproval = "never"
    reject: Rejections = "any"
    outcomes: Outcomes = ("approve", "reject")
    on_change: Literal["reset", "keep"] | dict[FieldName, OnChange] | None = None  # None: see `Rules.on_change_of`
    recheck: Literal["at-click", "at-quorum"] = "at-click"
    reassign: Literal["approvers", "owners", "never"] | None = None  # None: "approvers"
    grace: Grace | None = None  # how long the deciding vote can be undone
    when_nobody: Literal["approve", "reject"] | None = None  # if no stage applies at the opening; None: it is refused
    distinct: Literal[True] | None = None  # nobody decides in two stages
    carry_over: Literal[True] | None = None  # an earlier approval of the same person counts again in later stages
    exclude: Annotated[tuple[Text, ...], Field(min_length=1)] | None = None  # may not decide: addresses, "field:author"

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            self_approval: Literal["never", "allow", "skip-up"] = ...,
            reject: int | Literal["any", "all"] = ...,
            outcomes: Sequence[Choice] = ...,
            on_change: Literal["reset", "keep"] | Mapping[str, OnChange] | None = ...,
            recheck: Literal["at-click", "at-quorum"] = ...,
            reassign: Literal["approvers", "owners", "never"] | None = ...,
            grace: str | timedelta | None = ...,
            when_nobody: Literal["approve", "reject"] | None = ...,
            distinct: Literal[True] | None = ...,
            carry_over: Literal[True] | None = ...,
            exclude: Sequence[str] | None = ...,
        ) -> None: ...

    def on_change_of(self, field: str) -> OnChange | None:
        """Return what the policy says that editing this field does to the votes; None if it says nothing."""
        return self.on_change.get(field) if isinstance(self.on_change, dict) else self.on_change

    @model_validator(mode="after")
    def _decides_once_or_again(self) -> Policy:
        if self.distinct and self.carry_over:
            raise refuse("with distinct = true nobody decides in two stages; leave one of them out", at="carry_over")
        return self


class Labels(Frozen):
    """The label of each choice's button: "Approve deletion"."""

    approve: Label | None = None
    reject: Label | None = None
    changes: Label | None = None
    edit: Label | None = None
    answer: Label | None = None

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            approve: str | None = ...,
            reject: str | None = ...,
            changes: str | None = ...,
            edit: str | None = ...,
            answer: str | None = ...,
        ) -> None: ...

    def given(self) -> dict[Choice, str]:
        """Return the labels that are set, by choice."""
        return {choice: label for choice in get_args(Choice) if (label := getattr(self, choice)) is not None}


class Auto(Frozen):
    """A rule that decides without people. The first that matches wins."""

    when: Text
    decision: Literal["approve", "reject"]


# No twin of Clock: that is for all stages, this may say another time for its own.
class Stage(Frozen):
    """Seats that are open at the same time, or alternatives of which one is enough.

    With only one seat, its keys may be the stage's own: `from` (`from_`).
    """

    also_written: ClassVar[tuple[str, ...]] = ("from", "need", "pick", "notify")
    id: Slug
    title: Label | None = None  # None: derived from the id
    when: Text | None = None
    seat: Annotated[tuple[Seat, ...], Field(min_length=1)] | None = None
    alternatives: Annotated[tuple[Alternative, ...], Field(min_length=1)] | None = Field(None, alias="any")
    outcomes: Outcomes | None = None
    ask: dict[FieldName, Question] = Field(default_factory=dict)  # what approvers fill in
    comment: CommentRule = "on-reject"
    decide: Literal["when-all-answered"] | None = None  # None: as soon as the result is certain
    self_approval: SelfApproval | None = None  # None: the policy's, as for `reject`
    reject: Rejections | None = None
    veto: Veto | None = None  # who alone may reject; None: the approvers
    deadline: StageDeadline | None = None  # None: the clock's, as for `remind` and `on_deadline`
    remind: Reminders | None = None
    on_deadline: OnDeadline | None = None
    i_know: Literal[True] | None = None
    deliver: StageDeliver | None = None

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            id: str,
            title: str | None = ...,
            from_: Sequence[str] = ...,
            need: int | Literal["all", "majority"] | str = ...,
            pick: int | None = ...,
            notify: Sequence[str] | None = ...,
            when: str | None = ...,
            seat: Sequence[Seat | Mapping[str, Any]] = ...,
            any: Sequence[Alternative | Mapping[str, Any]] | None = ...,
            outcomes: Sequence[Choice] | None = ...,
            ask: Mapping[str, Ask | Mapping[str, Any] | str] = ...,
            comment: CommentRule = ...,
            decide: Literal["when-all-answered"] | None = ...,
            self_approval: SelfApproval | None = ...,
            reject: int | Literal["any", "all"] | None = ...,
            veto: Veto | Mapping[str, Any] | None = ...,
            deadline: str | timedelta | None = ...,
            remind: Sequence[str | timedelta] | Backoff | Mapping[str, Any] | None = ...,
            on_deadline: OnDeadline | None = ...,
            i_know: Literal[True] | None = ...,
            deliver: StageDeliver | Mapping[str, Any] | None = ...,
        ) -> None: ...

    @model_validator(mode="after")
    def _counts_rejections_once(self) -> Stage:
        if self.veto is not None and self.reject is not None:
            raise refuse("is said by [stage.veto], with need", at="reject")
        return self

    @model_validator(mode="after")
    def _times_make_sense(self) -> Stage:
        check_times(self.deadline, self.remind, self.on_deadline, knows=self.i_know)
        return self

    @model_validator(mode="before")
    @classmethod
    def _is_one_seat(cls, value: object, info: ValidationInfo) -> object:
        value = _as_in_the_file(value, info)
        if not isinstance(value, dict):
            return value
        own = {key: value[key] for key in cls.also_written if key in value}
        if value.get("any") is not None:
            if key := "seat" if value.get("seat") is not None else next(iter(own), ""):
                raise refuse(f'this stage has alternatives, so "{key}" belongs in one of them, in its seats', at=key)
            return value
        if value.get("seat") is None:
            return {**{key: of for key, of in value.items() if key not in own}, "seat": [own]}
        if own:
            key = next(iter(own))
            raise refuse(f'this stage has its own seats, so "{key}" belongs in one of them', at=key)
        return value

    @cached_property
    def seats(self) -> tuple[Seat, ...]:
        """All seats, those of alternatives one after the other. A seat's id is its position here."""
        return self.seat or tuple(seat for each in self.alternatives or () for seat in each.seats)

    def alternative_of(self, seat: int) -> int:
        """Return the number of the alternative that this seat belongs to, from 0; without alternatives, 0."""
        ends = list(accumulate(len(each.seats) for each in self.alternatives or ()))
        return bisect_right(ends, seat)

    def path_of(self, seat: int) -> tuple[str | int, ...]:
        """Return the path of this seat's table in the stage's."""
        if self.alternatives is None:
            return ("seat", seat)
        number = self.alternative_of(seat)
        return ("any", number, "seats", seat - sum(len(each.seats) for each in self.alternatives[:number]))


class Alternative(Frozen):
    """Seats that are enough for a stage, beside its other alternatives."""

    seats: Annotated[tuple[Seat, ...], Field(min_length=1)]

    if TYPE_CHECKING:

        def __init__(self, *, seats: Sequence[Seat | Mapping[str, Any]]) -> None: ...


class Veto(Frozen):
    """People who alone may reject in a stage. It doesn't wait for them."""

    from_: Annotated[tuple[Text, ...], Field(min_length=1, alias="from")]
    need: Annotated[Int, Field(ge=1, le=1000)] = 1

    if TYPE_CHECKING:

        def __init__(self, *, from_: Sequence[str], need: int = ...) -> None: ...

    @model_validator(mode="before")
    @classmethod
    def _is_written_in_python(cls, value: object, info: ValidationInfo) -> object:
        return _as_in_the_file(value, info)


class Seat(Frozen):
    """Votes needed from one set of people."""

    from_: Annotated[tuple[Text, ...], Field(min_length=1, alias="from")]
    need: Need = 1
    pick: Annotated[Int, Field(ge=1, le=1000)] | None = None  # how many of them are asked; None: all
    when: Text | None = None
    notify: tuple[Text, ...] | None = None  # who of them gets a card; None: all, (): nobody

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            from_: Sequence[str],
            need: int | Literal["all", "majority"] | str = ...,
            pick: int | None = ...,
            when: str | None = ...,
            notify: Sequence[str] | None = ...,
        ) -> None: ...

    @model_validator(mode="before")
    @classmethod
    def _is_written_by_an_author(cls, value: object, info: ValidationInfo) -> object:
        return _as_in_the_file(value, info)


def _as_in_the_file(value: object, info: ValidationInfo) -> object:
    """Accept `from_` from authors, as `from` is a Python keyword. A file (validated with a context) must say `from`."""
    if info.context is None and isinstance(value, dict) and "from_" in value:
        return {("from" if key == "from_" else key): of for key, of in value.items()}
    return value


def pinned(definition: Definition) -> dict[str, JsonValue]:
    """Return the definition as runs keep it: JSON for `Definition.model_validate`, without what concerns all runs."""
    return definition.model_dump(mode="json", exclude_none=True, exclude={"schedule", "allowance", "budget"})


def digest(definition: Definition) -> str:
    """Return the version of a workflow: the SHA-256, in hex, of its file's canonical JSON."""
    text = json.dumps(pinned(definition), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _outcomes(value: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(value)) != len(value):
        raise refuse("an outcome is listed twice")
    if not {"approve", "answer"} & set(value):
        raise refuse('nobody could ever approve here; add "approve" or "answer"')
    return value


def _grace(value: timedelta) -> timedelta:
    if value > LONGEST_GRACE:
        raise refuse("the grace period is at most one day")
    return value


def _catch_up(value: timedelta) -> timedelta:
    if value > LONGEST_CATCH_UP:
        raise refuse("at most a week can be caught up with", "7d")
    return value


CatchUp = Annotated[Duration, AfterValidator(_catch_up)]
Grace = Annotated[Duration, AfterValidator(_grace)]
Outcomes = Annotated[tuple[Choice, ...], Field(min_length=1), AfterValidator(_outcomes)]
