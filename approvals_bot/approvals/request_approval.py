"""`request_approval`: the approvals of TOML files, as a function for Python workflows.

Rules, cards, reminders and pages are the same. The log keeps what was requested, so changing the code doesn't affect
pending requests. A workflow may make any number of requests, in a loop or at once; each has its number in the run.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, JsonValue, TypeAdapter, ValidationError

from approvals_bot.approvals import fields as forms
from approvals_bot.approvals import outcomes
from approvals_bot.approvals.acts import Reply, Stop
from approvals_bot.approvals.apply import decided
from approvals_bot.approvals.author_fields import field_tables, fits_in, given_values, values_by_name
from approvals_bot.approvals.business_time import Calendar, Calendars
from approvals_bot.approvals.card_model import State
from approvals_bot.approvals.clock import Clock, Escalation
from approvals_bot.approvals.deadlines import DATES
from approvals_bot.approvals.delivery import LAZY, LazyArgumentError, lazily
from approvals_bot.approvals.delivery_policy import Deliver
from approvals_bot.approvals.eligibility import Resolution
from approvals_bot.approvals.field_specs import Ask
from approvals_bot.approvals.fields import Fits
from approvals_bot.approvals.json_values import same_json
from approvals_bot.approvals.named_people import opening_with_people
from approvals_bot.approvals.outcomes import Outcome, answers_of, last_answers_of
from approvals_bot.approvals.policy import Definition, Labels, Policy
from approvals_bot.approvals.published import PublishedRequests
from approvals_bot.approvals.request import ON_BEHALF_OF, REQUESTER, Opening, Request, RequestStage
from approvals_bot.approvals.resolution import LOOKUP_LIMIT, find_seats, with_groups
from approvals_bot.approvals.rules import KeptDefinition, rules_of
from approvals_bot.approvals.stage_policy import Stage
from approvals_bot.approvals.stages import context_of, next_stage, request_of, seat_queries
from approvals_bot.approvals.templates import LONGEST_LINE, TemplateError, channels_of
from approvals_bot.approvals.timers import past_deadlines
from approvals_bot.approvals.workflow import PendingRequest
from approvals_bot.durable.core.api import (
    accompany,
    cancel_run,
    get_workflow_metadata,
    is_bug,
    now,
    projector,
    resource,
    step,
)
from approvals_bot.durable.core.context import cancellation_reason
from approvals_bot.durable.core.serialization import Proven
from approvals_bot.errors import InvalidArgumentError, InvalidPayloadError
from approvals_bot.people import AddressError, People, canonical

STOPPED_WAITING = "the workflow stopped waiting for it"


@dataclass(frozen=True, slots=True)
class RequestSpec:
    """A workflow's request, as its run keeps it."""

    title: str
    opening: Opening
    definition: KeptDefinition
    found: Proven[Resolution | None] = None  # who decides first, if that could be found out with the request


@step(retries=0)
async def ask(
    asked: Annotated[RequestSpec, LAZY],
    at: Proven[datetime],
    calendars: Calendars = resource(Calendars),
    people: People = resource(People),
) -> RequestSpec:
    """Record the request with its calendar, its group names and who decides first. From here on, the log counts."""
    definition = asked.definition.with_calendar(calendars.named).with_group_names(people.group_names)
    opening = await opening_with_people(definition.fields, asked.opening, people, "fields")
    complete = replace(asked, definition=definition, opening=await with_groups(definition, opening, people))
    return replace(complete, found=await _who_decides_first(complete, people, at))


ask.only_reads = True


async def _who_decides_first(asked: RequestSpec, people: People, at: datetime) -> Resolution | None:
    """Look people up for the stage that opens first. None if that fails or takes long: the stage then looks itself."""
    with suppress(Exception):  # whatever is wrong with the request or its people has its place there, too
        rules = rules_of(asked.definition, asked.opening)
        request = request_of(rules, asked.opening, at=at)
        _, stage = (request, None) if rules.is_timed else next_stage(request, rules, at)  # it opens a moment later
        if stage is not None:
            async with asyncio.timeout(LOOKUP_LIMIT):
                return await find_seats(
                    seat_queries(request, rules, stage), context_of(request, rules, stage), people, at=at
                )
    return None


async def request_approval(
    title: str,
    *,
    approvers: str | Sequence[str] = (),
    need: int | str = 1,
    stages: Sequence[Stage | Mapping[str, Any]] = (),
    fields: Any = None,
    form: Mapping[str, Ask | Mapping[str, Any] | str] | None = None,
    pinned: Collection[str] | None = None,
    editable: Collection[str] = (),
    untrusted: Collection[str] = (),
    outcomes: Sequence[str] = ("approve", "reject"),
    ask: Mapping[str, Ask | Mapping[str, Any] | str] | None = None,
    comment: str = "on-reject",
    deliver: Deliver | Mapping[str, Any] | None = None,
    clock: Clock | Mapping[str, Any] | None = None,
    policy: Policy | Mapping[str, Any] | None = None,
    escalate: Sequence[Escalation | Mapping[str, Any]] = (),
    labels: Labels | Mapping[str, str] | None = None,
    instructions: str | None = None,
    requester: str | None = None,
    on_behalf_of: str | None = None,
) -> Outcome:
    """Request a decision from people, wait for minutes or weeks, and return the outcome.

        match await request_approval("Refund order 42", approvers="@finance", fields={"amount": Decimal("80")}):
            case Approved() as approval:
                approval.require({"amount": amount})
                await refund(amount)

    Who decides: `approvers` and `need`, or `stages`. What they see: `title` and `instructions`, as plain text, and
    `fields` (a mapping, dataclass or model), typed by their values or by `form`. All fields are pinned unless `pinned`
    names some. Without `deliver`, each approver gets a direct message, or a mail. `requester` defaults to the person
    who started the run, else to the workflow itself. `labels` are those of the buttons: `{"approve": "Refund"}`.
    `stages`, `ask`, `form`, `deliver`, `clock`, `policy` and `escalate` take models, or dicts like the tables of a
    workflow's file.

    Returns one of the classes in `Outcome`. Raises ValueError for invalid arguments, and
    NobodyCanDecideError if nobody could ever decide. If the workflow stops waiting, because of a timeout or its end,
    the request is cancelled.
    """

    def made() -> RequestSpec:
        return request_spec(
            title,
            approvers=approvers,
            need=need,
            stages=[table_of(stage) for stage in stages],
            values=values_by_name(fields or {}),
            form={name: spec_of(spec) for name, spec in (form or {}).items()},
            marks={"pinned": pinned, "editable": editable, "untrusted": untrusted},
            offered={
                "outcomes": list(outcomes),
                "ask": {name: spec_of(spec) for name, spec in (ask or {}).items()},
                "comment": comment,
            },
            tables={
                "deliver": table_of(deliver if deliver is not None else {"dm": True}),
                "clock": table_of(clock or {}),
                "policy": table_of(policy or {}),
                "escalate": [table_of(each) for each in escalate],
                "labels": table_of(labels or {}),
            },
            instructions=instructions,
            requester=requester,
            on_behalf_of=on_behalf_of,
        )

    return await (await requested(made, fits_in(type(fields)))).outcome()


async def requested(make: Callable[[], RequestSpec], fits: Fits | None = None) -> WorkflowRequest:
    """Open a request beside the workflow. `make` isn't called in a replay. `fits`: the check of edited fields."""
    try:
        asked = await ask(lazily(make), now())
    except LazyArgumentError as failure:
        raise failure.cause from None
    definition = asked.definition
    business = next(definition.business_times(), None)
    if business is not None and not isinstance(definition.clock.calendar, Calendar):
        raise InvalidArgumentError(
            f"{business[1]} needs a calendar: name one from config.toml with clock={{'calendar': …}}"
        )
    if missing := [name for name in definition.asked_calendars if name not in (definition.calendars or {})]:
        raise InvalidArgumentError(f"config.toml has no calendar named {missing[0]!r}")
    _refuse_times_and_places(asked)
    request = WorkflowRequest(asked)
    request.fits = fits
    accompany(request.accompany(), leave=request.end_with_run, stays=request.name_if_open)
    return request


def _refuse_times_and_places(asked: RequestSpec) -> None:
    """Refuse a deadline that no field holds, or that has passed, and a channel that can't be known before."""
    definition = asked.definition
    for channel in [to.slack for to in definition.deliveries if to.slack is not None and "{" in to.slack]:
        try:
            channels_of(channel, definition.fields)
        except TemplateError as error:
            raise InvalidArgumentError(f"deliver.slack: {error}") from None
    for name in definition.deadline_fields():
        if name not in definition.fields or definition.fields[name].type not in DATES:
            raise InvalidArgumentError(f"the deadline is in the field {name!r}, which is no date or datetime")
    rules, at = rules_of(definition, asked.opening), now()
    if not rules.deadline_fields:
        return
    ruling = rules.ruling(asked.opening.fields)
    if (ruling.at(at) if rules.is_timed else ruling).automatic is not None:
        return
    if past := past_deadlines(definition, ruling.typed, at, ruling.not_opening):
        raise InvalidPayloadError([{"loc": ["fields", *each.path], "msg": each.text} for each in past], "fields")


class WorkflowRequest(PendingRequest):
    """A request of a workflow, which continues at the decision, while copies are still updated."""

    ends_with_changes = True

    def __init__(self, asked: RequestSpec) -> None:
        self.asked = asked
        self.found = asked.found
        self.failure: BaseException | None = None
        super().__init__(asked.opening, asked.definition, projector(PublishedRequests).next_number, asked.title)

    async def look_up(self, stage: RequestStage, *also: str) -> Resolution:
        """Look people up. Those who decide first have been looked up with the request."""
        found, self.found = self.found, None
        return await super().look_up(stage, *also) if found is None else found

    async def accompany(self) -> None:
        """Run the request beside the workflow, which must not wait for the last mail."""
        try:
            await self.run()
        except Exception as failure:
            if self.settled.is_set() or is_bug(failure):
                raise
            self.failure = failure
            self.settled.set()

    async def outcome(self) -> Outcome:
        await self.decision()
        return self._outcome()

    async def decision(self) -> Request:
        """Wait for the decision. If the workflow stops waiting, the request is cancelled."""
        try:
            await self.settled.wait()
        except asyncio.CancelledError:
            # Not the error's own text: anyio puts an address into it, another one in each replay.
            self.abandon(cancellation_reason() or STOPPED_WAITING)
            raise
        if self.failure is not None:
            raise self.failure
        return self.request

    def stop(self, act: Stop) -> Reply:
        """Cancel the whole run, and with it all its requests."""
        cancel_run(act.reason or f"cancelled by {act.by}")
        return Reply("taken_back", True, "cancellation")

    def name_if_open(self) -> str | None:
        """Return what the request is called as long as people decide it: their votes and cards can't move."""
        return None if self.settled.is_set() else f"the request {self.request.title!r}"

    def abandon_request(self, why: str) -> None:
        by = f"app:{self.definition.id}"  # the workflow itself
        self.request = decided(self.request, "cancelled", by, now(), "rule", because=why)

    def end_with_run(self) -> None:
        self.abandon("the workflow has ended")

    def _outcome(self) -> Outcome:
        ended = self.request.outcome
        assert ended is not None, "it is decided"
        asks, answers = {id: stage.ask for id, stage in self.rules.stages.items()}, dict[str, Any]()
        for stage, given in last_answers_of(self.request).items():
            answers |= forms.values(asks[stage], given)
        kind = _KINDS[ended.state]
        if kind is outcomes.Approved and not same_json(self.request.fields, self.asked.opening.fields):
            kind = outcomes.Edited
        definition = self.definition
        made: Outcome = kind(
            self.request.id,
            ended.by,
            deepcopy(self.rules.ruling(self.request.fields).typed),  # lists in it are the author's to change
            answers,
            self.request.digest,
            lambda fields: _digest(definition, fields),
            ended.in_place_of,
            {
                stage: {person: forms.values(asks[stage], given) for person, given in by_person.items()}
                for stage, by_person in answers_of(self.request).items()
            },
            at=ended.at,
            via=ended.via,
            comment=ended.comment,
        )
        return made


_KINDS: dict[State, Any] = {
    "approved": outcomes.Approved,
    "rejected": outcomes.Rejected,
    "changes_requested": outcomes.ChangesRequested,
    "answered": outcomes.Answered,
    "expired": outcomes.Expired,
    "withdrawn": outcomes.Withdrawn,
    "cancelled": outcomes.Withdrawn,
}


def _digest(definition: Definition, fields: Mapping[str, Any]) -> str:
    typed = forms.values(definition.fields, given_values(values_by_name(fields)), "fields")
    return forms.digest(definition.id, rules_of(definition).digest, definition.fields, typed)


def request_spec(
    title: str,
    *,
    approvers: str | Sequence[str],
    need: int | str,
    stages: Sequence[Mapping[str, Any]],
    values: Mapping[str, Any],
    form: Mapping[str, Any],
    marks: Mapping[str, Any],
    offered: Mapping[str, Any],
    tables: Mapping[str, Any],
    instructions: str | None,
    requester: str | None,
    on_behalf_of: str | None,
) -> RequestSpec:
    """Build the request as a workflow's file would define it."""
    run = get_workflow_metadata()
    from_ = [approvers] if isinstance(approvers, str) else list(approvers)
    if bool(from_) == bool(stages):
        raise InvalidArgumentError("pass either approvers=… or stages=…")
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", run.workflow_name).strip("-_.")[:64] or "workflow"
    own = [{"id": "approval", "from": from_, "need": need}] if from_ else [dict(stage) for stage in stages]
    table = {
        "workflow": {"id": name, "request": [f"app:{name}"], "instructions": _literal(instructions)},
        "fields": field_tables(values, form, **marks),
        "stage": [{"ask": offered["ask"], "comment": offered["comment"]} | stage for stage in own],
        **tables,
    }
    table["policy"] = {"outcomes": offered["outcomes"]} | table["policy"]
    try:
        definition = _DEFINITION.validate_python(table)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in error.errors()
        )
        raise InvalidArgumentError(f"invalid request: {faults}") from None
    if given_twice := [stage.id for stage in definition.stage if stage.id in _before(stage, definition)]:
        raise InvalidArgumentError(f"two stages are named {given_twice[0]!r}")
    typed = forms.values(definition.fields, given_values(values), "fields")
    opening = Opening(
        forms.dump(definition.fields, typed),
        _identity("requester", requester or run.attributes.get(REQUESTER) or f"app:{name}"),
        _identity("on_behalf_of", on_behalf_of or run.attributes.get(ON_BEHALF_OF) or "") or None,
    )
    return RequestSpec(_line(title), opening, definition)


def _identity(what: str, given: object) -> str:
    """Return whom a person's address names, or an app. What the configuration says of addresses is seen to later."""
    key = str(given)
    if not key or key.startswith("app:"):
        return key
    try:
        return canonical(key)
    except AddressError as error:
        raise InvalidArgumentError(f"{what}: {error}") from None


def _literal(text: str | None) -> str | None:
    """Return a template that renders to just this text."""
    return None if text is None else f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}"


def _before(stage: Any, definition: Definition) -> list[JsonValue]:
    return [other.id for other in definition.stage[: definition.stage.index(stage)]]


def _line(title: str) -> str:
    line = " ".join(title.split())
    if not line:
        raise InvalidArgumentError("a request needs a title")
    return line if len(line) <= LONGEST_LINE else line[: LONGEST_LINE - 1] + "…"


_DEFINITION = TypeAdapter(Definition)


def table_of(written: BaseModel | Mapping[str, Any]) -> dict[str, Any]:
    """Return a model, or a dict like a table of a workflow's file, as a dict."""
    return written.model_dump(mode="json", exclude_unset=True) if isinstance(written, BaseModel) else dict(written)


def spec_of(written: BaseModel | Mapping[str, Any] | str) -> dict[str, Any] | str:
    """Return a field's specification; a string is its type."""
    return written if isinstance(written, str) else table_of(written)
