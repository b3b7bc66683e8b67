"""Opening the request of an agent's tool call: what it may be, who decides it, and whether the budget allows it.

The workflow `tool-call` is there without a file. Its request is an approval like those of files, whose fields are the
call itself; so each call has a definition of its own, which its run keeps.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, ValidationError

from approvals_bot.approvals import fields as forms
from approvals_bot.approvals import tool_call
from approvals_bot.approvals.agent_policy import TOOL_CALL, Budget
from approvals_bot.approvals.allowances import is_permitted, scope_of_calls, use_of_call
from approvals_bot.approvals.durations import Duration, duration_text
from approvals_bot.approvals.json_values import UnfitError
from approvals_bot.approvals.plain_text import one_line
from approvals_bot.approvals.policy import Definition, pinned
from approvals_bot.approvals.request import Opening
from approvals_bot.approvals.resolution import find_undecidable_stage, resolve_seats, with_groups
from approvals_bot.approvals.rules import rules_of
from approvals_bot.approvals.stages import context_of, request_of, seat_queries
from approvals_bot.approvals.standing import could_approve
from approvals_bot.approvals.standing_grants import StandingGrants
from approvals_bot.approvals.values import shown_moment
from approvals_bot.durable.engine import Engine, Run, SentKey
from approvals_bot.durable.store.protocol import Filter
from approvals_bot.errors import InvalidPayloadError
from approvals_bot.people import People, SourceUnavailable, parse_address
from approvals_bot.people.addresses import PersonAddress
from approvals_bot.service.budgets import BudgetSpent, amounts_of, key_of, seconds_until, take_from_budget
from approvals_bot.service.catalog import Listed
from approvals_bot.service.notices import notify_admins
from approvals_bot.service.refusals import OpeningRefused, nobody_decides, usable_key
from approvals_bot.service.standing import StoredGrants

log = logging.getLogger(__name__)

DEADLINE = timedelta(minutes=15)  # an agent that waits holds up its user; the file's [clock] may say otherwise
LONGEST_AGENT = 200  # characters of an agent's name, in the log
MOST_ASKED = 20  # addresses that a call may name


# No twin of RequestOptions, AskOptions: those are what a client's caller may pass, this is what comes over the wire.
class ToolCall(BaseModel):
    """The input of `tool-call`: what the model wants called, as its agent sends it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tool: Annotated[str, StringConstraints(strict=True, min_length=1, max_length=200)]
    arguments: dict[str, JsonValue]
    tool_call_id: Annotated[str, StringConstraints(strict=True, min_length=1, max_length=200)] | None = None
    agent: Annotated[str, StringConstraints(strict=True, max_length=200)] | None = None
    why: Annotated[str, StringConstraints(strict=True, max_length=50_000)] | None = None
    to: Annotated[tuple[str, ...], Field(min_length=1, max_length=MOST_ASKED)] | None = None
    deadline: Duration | None = None
    expects: dict[str, JsonValue] | None = None


@dataclass(frozen=True, slots=True)
class OpenedBy:
    """What a new run keeps of the one who opened it: the actor, and attributes to find it by."""

    actor: dict[str, str]
    attributes: dict[str, str]


@dataclass(frozen=True, slots=True)
class RunOpening:
    """What is to be started: the workflow, what was sent, by whom, for whom and under which key."""

    listed: Listed
    input: Mapping[str, JsonValue]
    opener: str
    requester: str
    on_behalf_of: str | None
    key: str | None
    by: OpenedBy


async def open_call(engine: Engine, people: People, file: Definition, asked: RunOpening) -> Run[Any]:
    """Open the request of a tool call, or find the one that was opened with this key; durable before this returns.

    A call that comes again with its key and arguments costs nothing and needs nobody, also after its end. Raises
    OpeningRefused, IdempotencyConflictError or InvalidPayloadError; then nothing was written but the budget.
    """
    call = _read(asked.input)
    _check_schema(call)
    name = asked.key or call.tool_call_id
    if name is None:
        raise OpeningRefused("call_unnamed", ("header", "Idempotency-Key"))
    sent = {"tool": call.tool, "arguments": call.arguments, "requester": asked.requester}
    behalf = {} if asked.on_behalf_of is None else {"on_behalf_of": asked.on_behalf_of}
    key = SentKey(f"{asked.opener} {usable_key(name)}", sent | behalf)
    decides = await _who_decides(file, call, asked.requester, people)
    definition = _definition_of(file, call, decides)
    said = {"agent": call.agent or asked.opener.removeprefix("app:"), "why": call.why}
    given = tool_call.values(call.tool, call.arguments, tool_call_id=call.tool_call_id, **said)
    fields = forms.dump(definition.fields, forms.values(definition.fields, given))
    opening = await known_opening(definition, Opening(fields, asked.requester, asked.on_behalf_of), people)
    workflow = asked.listed.workflow.under(TOOL_CALL, pinned(definition))
    if not await engine.count_runs(Filter(keys=[key_of(asked.opener, name)]), 1):
        if not definition.stage:
            raise OpeningRefused("call_asks_nobody")
        await _check_deciders(definition, opening, people, engine.now())
        if file.budget is not None:
            budget = file.budget
            if budget.open is not None and await _seems_covered(engine, definition, opening, people):
                budget = budget.model_copy(update={"open": None})  # nobody is asked
            await _check_budget(engine, people, budget, asked, call, name)
    actor = asked.by.actor | ({"agent": one_line(call.agent, LONGEST_AGENT)} if call.agent else {})
    return await engine.start_by(actor, workflow, opening, idempotency_key=key, attributes=asked.by.attributes)


def _read(input: Mapping[str, JsonValue]) -> ToolCall:
    try:
        return ToolCall.model_validate(dict(input))
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False, include_context=False)
        raise InvalidPayloadError(
            [{"loc": ["input", *fault["loc"]], "msg": fault["msg"]} for fault in faults], "input"
        ) from None


def _check_schema(call: ToolCall) -> None:
    """Raise InvalidPayloadError unless edits can be checked by what the call says of its arguments."""
    if call.expects is None:
        return
    from approvals_bot.approvals.expected import check_schema  # without a schema, jsonschema isn't needed

    try:
        check_schema(call.expects)
    except UnfitError as error:
        raise InvalidPayloadError([{"loc": ["input", "expects"], "msg": str(error)}], "input") from None


async def _who_decides(definition: Definition, call: ToolCall, requester: str, people: People) -> Sequence[str]:
    """Return the addresses that the agent has named, if it may ask all of them; () if the file's stages decide."""
    for at, text in enumerate(call.to or ()):
        try:
            parse_address(text)
        except ValueError as error:
            raise InvalidPayloadError([{"loc": ["input", "to", at], "msg": str(error)}], "input") from None
    for text in call.to or ():
        if not await _may_ask(text, definition.workflow.may_ask or (), requester, people):
            return ()
    return call.to or ()


OTHERS_DECIDE = (
    "The people in `to` aren't asked: workflow.may_ask of the file doesn't cover all of them, so its stages decide."
)


async def note_on_call(
    listed: Listed | None, input: Mapping[str, JsonValue], requester: str, people: People
) -> str | None:
    """Return what the caller of an opened tool call should know: that others are asked than those it named."""
    file = listed.definition if listed is not None else None
    if file is None or not file.is_tool_call or not input.get("to"):
        return None
    return None if await _who_decides(file, _read(input), requester, people) else OTHERS_DECIDE


async def _may_ask(text: str, allowed: Sequence[str], requester: str, people: People) -> bool:
    """Return whether an address is among those that an agent may name, or a person is in a group among them."""
    if text in allowed:
        return True
    address = parse_address(text)
    if not isinstance(address, PersonAddress):
        return False
    for entry in allowed:
        found = await people.resolve(entry, requester=requester)
        if any(person.address == people.canonical(address.address) for person in found.persons):
            return True
    return False


def _definition_of(file: Definition, call: ToolCall, decides: Sequence[str]) -> Definition:
    """Return the definition of this call's request: the file's, with the call's fields, deadline and approvers."""
    table: dict[str, Any] = file.model_dump(mode="json", exclude_unset=True, include=_OF_A_CALL)
    table["fields"] = tool_call.specs(call.expects)
    longest = file.clock.deadline
    if longest is None:
        longest = DEADLINE
        table["clock"] = {"on_deadline": "reject", **table.get("clock", {}), "deadline": duration_text(longest)}
    if call.deadline is not None and isinstance(longest, timedelta) and call.deadline < longest:
        table["clock"]["deadline"] = duration_text(call.deadline)
        for stage, own in zip(table.get("stage", ()), (each.deadline for each in file.stage), strict=False):
            if isinstance(own, timedelta) and call.deadline < own:
                stage["deadline"] = duration_text(call.deadline)
    if decides:
        first = {name: value for name, value in table["stage"][0].items() if name not in ("when", "any")}
        table["stage"] = [first | {"seat": [{"from": list(decides)}]}]
    for stage in table.get("stage", ()):
        stage.setdefault("comment", "optional")
    return Definition.model_validate(table).model_copy(update={"group_names": file.group_names})


_OF_A_CALL = {"workflow", "policy", "stage", "deliver", "clock", "escalate", "labels", "allowance"}
"""The tables of the file that a call's request follows. The others are for all calls together."""


async def known_opening(definition: Definition, opening: Opening, people: People) -> Opening:
    """Return the opening with what the file's rules ask about its requester. Raises OpeningRefused."""
    try:
        return await with_groups(definition, opening, people)
    except SourceUnavailable as error:
        raise OpeningRefused("group_unknown", error=str(error)) from None


async def _check_deciders(definition: Definition, opening: Opening, people: People, now: datetime) -> None:
    """Raise OpeningRefused if nobody is asked, or nobody who is asked could ever decide."""
    found = await find_undecidable_stage(definition, opening, people, now)
    if found is not None:
        raise nobody_decides(*found)


async def _seems_covered(engine: Engine, definition: Definition, opening: Opening, people: People) -> bool:
    """Return whether an allowance would approve this call now. The request itself asks again, and counts it."""
    lists = engine.resources.get(StandingGrants)
    if definition.allowance is None or not isinstance(lists, StoredGrants):
        return False
    now, rules = engine.now(), rules_of(definition, opening)
    request = request_of(rules, opening, at=now)
    grants = [
        each.grant
        for each in await lists.kept(scope_of_calls(request))
        if each.covers(use_of_call(request, each.grant), now)
        and is_permitted(each.grant, definition.allowance, request)
    ]
    if not grants:
        return False
    found = {
        stage.id: await resolve_seats(seat_queries(request, rules, stage), context_of(request, rules, stage), people)
        for stage in request.stages
    }
    return any(could_approve(request, rules, grant.votes, found, now) for grant in grants)


async def _check_budget(
    engine: Engine, people: People, budget: Budget, asked: RunOpening, call: ToolCall, name: str
) -> None:
    """Count the call. Raises OpeningRefused if it is one too many, and lets the admins know the first time."""
    amounts, wrong = amounts_of(budget, call.arguments)
    if wrong:
        msg = "must be a number that isn't negative: the budget adds it up"
        faults = [{"loc": ["input", "arguments", *place.split(".")], "msg": msg} for place in wrong]
        raise InvalidPayloadError(faults, "input")
    spent = await take_from_budget(engine, budget, asked.opener, name, amounts)
    if spent is None:
        return
    if spent.is_first:
        await _notify_admins(engine, people, asked, spent)
    seconds = seconds_until(spent.again, engine.now())
    raise OpeningRefused(
        "budget_spent",
        session=spent.session,
        what=spent.what,
        limit=spent.limit,
        when=_when(spent),
        retry_after=str(seconds),
    )


def _when(spent: BudgetSpent) -> str:
    if spent.again is not None:
        return f"Ask again after {spent.again:%Y-%m-%d %H:%M:%S} UTC."
    if spent.what == "open":
        return "Ask again once one of its requests has been decided."
    return "This call alone is more than the whole budget."


async def _notify_admins(engine: Engine, people: People, asked: RunOpening, spent: BudgetSpent) -> None:
    """Audit that a session has used its budget, log it, and notify each admin."""
    opener, data = asked.opener, {"session": spent.session, "budget": f"{spent.what} = {spent.limit}"}
    await engine.audit("budget_spent", who=opener, actor=asked.by.actor, data=data)
    log.warning("%s: the session %r has used its budget (%s, %s)", opener, spent.session, spent.what, spent.limit)
    text = (
        f"The agent {opener.removeprefix('app:')} has used the budget of its session {one_line(spent.session, 200)} "
        f"({spent.what}, {spent.limit}). Further tool calls of the session are refused"
        f"{f' until {shown_moment(spent.again.replace(microsecond=0))}' if spent.again else ''}, and nobody is asked "
        "about them."
    )
    delivery_id = f"budget {opener} {spent.session} {spent.what} {engine.now().isoformat()}"
    notify_admins(engine, people, "An agent has used its budget", text, delivery_id)
