"""A workflow's file as frozen models. Requesters, stages, fields, clock and delivery have their own modules.

TOML files load into these models, and workflow authors pass `Stage Seat Clock Deliver Policy Escalation Ask` to
`request_approval`, with the same keys and values: `Clock(deadline="4h", remind=["1h"])`. A wrong value raises a
ValueError that names its key. A run keeps `pinned(definition)` in its log, so a changed file affects only new requests.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    Field,
    JsonValue,
    ValidationInfo,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema

from approvals_bot.approvals.agent_policy import CHOICES, EVERY_APP, TOOL_CALL, Allowance, Budget
from approvals_bot.approvals.base import Frozen, Label, Text, refuse
from approvals_bot.approvals.business_time import (
    BusinessTime,
    Calendar,
)
from approvals_bot.approvals.circumstances import calendars_in
from approvals_bot.approvals.clock import (
    MORE,
    Clock,
    Escalation,
    calendar_of,
    lengths_of,
)
from approvals_bot.approvals.deadlines import TimeOfField
from approvals_bot.approvals.delivery_policy import Action, Actions, Deliver
from approvals_bot.approvals.durations import Duration
from approvals_bot.approvals.field_addresses import variants
from approvals_bot.approvals.field_specs import FieldName, FieldSpec
from approvals_bot.approvals.grant_policy import Grant
from approvals_bot.approvals.opening_policy import RequestRule, WorkflowInfo, WorkflowSchedule
from approvals_bot.approvals.stage_policy import Choice, Outcomes, Rejections, SelfApproval, Stage
from approvals_bot.approvals.standing_policy import BreakGlass, Emergency, Standing

LONGEST_GRACE = timedelta(days=1)
MAX_AGE = timedelta(minutes=10)

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
    grant: Grant | None = None  # None: the approval doesn't end
    labels: Labels = Field(default_factory=lambda: Labels())
    standing: Standing | None = None
    break_glass: BreakGlass | None = None
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    schedule: tuple[WorkflowSchedule, ...] = ()
    allowance: Allowance | None = None  # of tool calls, as `budget`
    budget: Budget | None = None
    # Never in a file: what a run keeps of the service's file; see `with_calendar` and `with_group_names`.
    calendars: SkipJsonSchema[dict[str, Calendar] | None] = None
    group_names: SkipJsonSchema[dict[str, str]] = Field(default_factory=dict)
    emergency: SkipJsonSchema[Emergency | None] = None  # of one request, which was opened without a vote

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

    @property
    def decides_without_votes(self) -> bool:
        """Whether an earlier approval or an emergency may decide a request before anybody is asked."""
        return (self.emergency or self.standing or self.allowance) is not None

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
    if kept := {"calendars", "group_names", "emergency"} & file.keys():
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


NOT_PINNED: Mapping[str, Any] = {"schedule": True, "budget": True, "workflow": {"retention"}}
"""What concerns all runs of a workflow, and so isn't kept by each."""


def pinned(definition: Definition) -> dict[str, JsonValue]:
    """Return the definition as runs keep it: JSON for `Definition.model_validate`, without what concerns all runs."""
    return definition.model_dump(mode="json", exclude_none=True, exclude=dict(NOT_PINNED))


def digest(definition: Definition) -> str:
    """Return the version of a workflow: the SHA-256, in hex, of its file's canonical JSON."""
    of_file = {table: value for table, value in pinned(definition).items() if table != "emergency"}
    text = json.dumps(of_file, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _grace(value: timedelta) -> timedelta:
    if value > LONGEST_GRACE:
        raise refuse("the grace period is at most one day")
    return value


Grace = Annotated[Duration, AfterValidator(_grace)]
