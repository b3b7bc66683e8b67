"""`approve`: a tool call that waits for a person, inside a workflow.

It is `request_approval` with an agent's defaults: every argument is pinned and may be edited, all text counts as
written by a model, people may approve, edit, reject or answer, and silence is no consent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from pydantic import JsonValue

from approvals_bot.approvals import tool_call
from approvals_bot.approvals.author_fields import as_sent
from approvals_bot.approvals.delivery_policy import Deliver
from approvals_bot.approvals.json_values import UnfitError, check_json, check_whole_size
from approvals_bot.approvals.published import PublishedRequests
from approvals_bot.approvals.request import ON_BEHALF_OF, REQUESTER
from approvals_bot.approvals.request_approval import (
    RequestSpec,
    WorkflowRequest,
    request_spec,
    requested,
    table_of,
)
from approvals_bot.approvals.stage_policy import Stage
from approvals_bot.approvals.visible import revealed
from approvals_bot.client.decision import Decision
from approvals_bot.client.digests import changes_between, digest_of
from approvals_bot.durable.core.api import get_workflow_metadata, projector
from approvals_bot.durable.core.serialization import json_text
from approvals_bot.errors import InvalidArgumentError, InvalidPayloadError, KeyReusedError
from approvals_bot.people import is_mail

MOST_OPEN = 400_000
"""Bytes of the arguments of all open calls of a run. It publishes them twice, as they are and as shown, within 1 MB."""

TOO_MUCH = (
    "with those of the run's other open calls, they have {:,} bytes, of at most {:,}: ask again once some are decided"
)

CHOICES = ("approve", "edit", "reject", "answer")
DEADLINE = "15m"


async def approve(
    tool: str,
    arguments: Mapping[str, Any],
    *,
    tool_call_id: str,
    to: str | Sequence[str] | None = None,
    why: str | None = None,
    agent: str | None = None,
    expects: Mapping[str, JsonValue] | None = None,
    deadline: str | timedelta | None = DEADLINE,
    on_behalf_of: str | None = None,
    stages: Sequence[Stage | Mapping[str, Any]] | None = None,
    deliver: Deliver | Mapping[str, Any] | None = None,
) -> Decision:
    """Ask people whether this tool may be called with these arguments, wait, and return the decision.

        decision = await approve("pay", {"price": 640}, tool_call_id=call.id, to="@finance")
        if not decision.approved:
            return decision.text  # the model reads it
        decision.require(arguments := decision.arguments)
        return await pay(**arguments)

    Who decides: `to` (addresses and groups; one of them is enough), or `stages`. What they see: the tool, each
    argument, `why` (the model's reason) and `agent`. `expects`: the JSON Schema of the arguments, which edits must fit.
    The agent is the requester, and the person who started the run is the one it acts for: they may decide only where
    `to` says "on-behalf-of". Within a run, `tool_call_id` is the request's key: the same call again waits for the same
    decision.

    Any number may wait at once, by `asyncio.gather`. Raises ValueError for invalid arguments, among them arguments that
    are no JSON or too much of it; KeyReusedError if the id was used for another call; NobodyCanDecideError.
    """
    if not tool_call_id:
        raise InvalidArgumentError("a tool call needs its id: pass tool_call_id=…")
    given = _json(arguments)
    calls, digest = projector(PublishedRequests).calls, digest_of(tool, given)
    call = calls.get(tool_call_id)
    if call is None:
        size = len(json_text(given).encode())
        if (taken := size + sum(each.size for each in calls.values() if each.is_open)) > MOST_OPEN:
            raise InvalidPayloadError([{"loc": ["arguments"], "msg": TOO_MUCH.format(taken, MOST_OPEN)}], "arguments")
        call = calls[tool_call_id] = _Call(digest, given, size)

        def made() -> RequestSpec:
            said = tool_call.values(tool, given, agent=agent, why=why, tool_call_id=tool_call_id)
            return _spec(said, expects, to, stages, deliver, deadline, on_behalf_of)

        try:
            call.request = await requested(made)
        except BaseException:
            del calls[tool_call_id]
            raise
        finally:
            call.is_requested.set()
    elif call.digest != digest:
        raise KeyReusedError(tool_call_id, _difference(call.arguments, given), get_workflow_metadata().run_id)
    await call.is_requested.wait()
    if call.request is None:
        raise InvalidArgumentError(f"the tool call {tool_call_id!r} couldn't be requested")
    return tool_call.decision_of(await call.request.decision(), given)


@dataclass(slots=True, eq=False)
class _Call:
    """A tool call of this run."""

    digest: str
    arguments: dict[str, JsonValue]
    size: int
    request: WorkflowRequest | None = None
    is_requested: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_open(self) -> bool:
        return self.request is None or not self.request.settled.is_set()


def _json(arguments: Mapping[str, Any]) -> dict[str, JsonValue]:
    """Return the arguments as JSON. Raises InvalidPayloadError for what is none, and for too much of it."""
    try:
        given: dict[str, JsonValue] = as_sent(dict(arguments))
        check_json(given, depth=1)
        check_whole_size(given)
    except UnfitError as error:
        raise InvalidPayloadError([{"loc": ["arguments", *error.path], "msg": str(error)}], "arguments") from None
    return given


def _difference(before: Mapping[str, JsonValue], after: Mapping[str, JsonValue]) -> str:
    places = [place for place, *_ in changes_between(before, after)]
    return revealed(f"other values of {', '.join(places[:5])}") if places else "another tool"


def _spec(
    said: Mapping[str, Any],
    expects: Mapping[str, JsonValue] | None,
    to: str | Sequence[str] | None,
    stages: Sequence[Stage | Mapping[str, Any]] | None,
    deliver: Deliver | Mapping[str, Any] | None,
    deadline: str | timedelta | None,
    on_behalf_of: str | None,
) -> RequestSpec:
    """Build the request as a workflow's file would define it."""
    if expects is not None:
        from approvals_bot.approvals.expected import check_schema  # without a schema, jsonschema isn't needed

        try:
            check_schema(expects)
        except UnfitError as error:
            raise InvalidPayloadError([{"loc": ["expects"], "msg": str(error)}], "expects") from None
    run = get_workflow_metadata()
    person = run.attributes.get(ON_BEHALF_OF) or run.attributes.get(REQUESTER) or ""
    opener = run.attributes.get(REQUESTER)
    return request_spec(
        tool_call.title_of(said),
        approvers=to or (),
        need=1,
        stages=[table_of(stage) for stage in stages or ()],
        values=said,
        form=tool_call.specs(expects),
        marks={"pinned": (tool_call.TOOL, tool_call.ARGUMENTS), "editable": (), "untrusted": ()},
        offered={"outcomes": [*CHOICES], "ask": {}, "comment": "optional"},
        tables={
            "deliver": table_of(deliver if deliver is not None else {"dm": True}),
            "clock": {"deadline": deadline, "on_deadline": "reject"} if deadline is not None else {},
            "policy": {},
            "escalate": [],
            "labels": {},
        },
        instructions=None,
        # The agent asks, not the person it acts for. What an API key has started, that key asks.
        requester=str(opener) if opener and not is_mail(str(opener)) else f"app:{run.workflow_name}",
        on_behalf_of=on_behalf_of or (str(person) if is_mail(str(person)) else None),
    )
