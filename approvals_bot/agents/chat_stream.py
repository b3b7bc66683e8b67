"""A turn as a stream: the chunks of the AI SDK's UI message stream, version 1. Pure.

Chunks are made from what the run shows now, and each has a key. A stream sends those whose keys it hasn't sent yet, so
it may begin at any time: one that reconnects has an approval request before its outcome, too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from pydantic import JsonValue

from approvals_bot.agents.chat_view import ChatView, TextPart, ToolPart
from approvals_bot.approvals.request import DEADLINE, Request
from approvals_bot.approvals.tool_call import CALL_ID

PROTOCOL = {"x-vercel-ai-ui-message-stream": "v1"}
"""The header by which clients know the stream."""

ApprovalState = Literal["waiting", "approved", "rejected", "expired", "withdrawn"]


class Chunk(NamedTuple):
    """One part of a stream. No two chunks of a turn have the same key."""

    key: str
    data: dict[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn as it is now: its run's status, what it shows, and the requests that its tool calls made.

    `error`: why the run ended badly or can't go on. `can_retry`: sending the message again makes sense.
    """

    run_id: str
    view: ChatView
    requests: Mapping[str, Request] = field(default_factory=dict)  # by tool call
    has_ended: bool = False
    error: str = ""
    can_retry: bool = False

    @property
    def has_failed(self) -> bool:
        """Whether it ended badly, so another turn may answer its message."""
        return self.has_ended and bool(self.error)

    @property
    def message_id(self) -> str:
        """The id of the answer in the client's list of messages."""
        return f"answer_{self.run_id}"

    def approval_id(self, part: ToolPart) -> str:
        """Return what the client calls the approval of a tool call: opaque, and known to those who were shown it."""
        request = self.requests.get(part.id)
        return part.webhook or (request.hook_id if request is not None else "")

    def waits_for(self, part: ToolPart) -> bool:
        """Return whether the owner can decide about this tool call now."""
        if part.state != "waiting":
            return False
        if part.webhook:
            return True
        request, person = self.requests.get(part.id), self.view.turn.person
        return request is not None and request.is_open and person in request.waiting_for

    @property
    def open_calls(self) -> tuple[str, ...]:
        """The ids of the tool calls that the owner can decide about now."""
        return tuple(part.id for part in self.view.tools if self.waits_for(part))

    @property
    def is_paused(self) -> bool:
        """Whether nothing goes on until people decide."""
        parts = self.view.tools
        return (
            not self.view.is_writing
            and all(part.is_over or self.is_open(part) for part in parts)
            and any(not part.is_over for part in parts)
        )

    def is_open(self, part: ToolPart) -> bool:
        """Return whether people are still to decide about this tool call."""
        request = self.requests.get(part.id)
        return part.state == "waiting" and (bool(part.webhook) or (request is not None and request.is_open))


def chunks_of(turn: Turn, url: str = "") -> Iterator[Chunk]:
    """Yield the chunks of all that the turn shows. `url`: what the paths of pages begin with."""
    yield Chunk("start", {"type": "start", "messageId": turn.message_id})
    for part in turn.view.parts:
        if isinstance(part, TextPart):
            yield from _of_text(part)
        else:
            yield from _of_tool(turn, part, url)
    if turn.error:
        yield Chunk("error", {"type": "error", "errorText": turn.error})


FINISH = Chunk("finish", {"type": "finish"})


def _of_text(part: TextPart) -> Iterator[Chunk]:
    yield Chunk(f"{part.id} start", {"type": "text-start", "id": part.id})
    yield Chunk(f"{part.id} text", {"type": "text-delta", "id": part.id, "delta": part.text})
    yield Chunk(f"{part.id} end", {"type": "text-end", "id": part.id})


def _of_tool(turn: Turn, part: ToolPart, url: str) -> Iterator[Chunk]:
    call: dict[str, JsonValue] = {"toolCallId": part.id}
    begun = call | {"toolName": part.tool, "input": part.input}
    yield Chunk(f"{part.id} input", {"type": "tool-input-available", **begun})
    if part.is_asked and (approval_id := turn.approval_id(part)):
        yield Chunk(f"{part.id} request", {"type": "tool-approval-request", "approvalId": approval_id, **call})
        approval = approval_data(turn, part, url)
        yield Chunk(
            f"{part.id} approval {approval['state']} {approval['expiresAt']}",
            {"type": "data-approval", "id": part.id, "data": approval},
        )
    match part.state:
        case "done" | "denied":
            yield Chunk(f"{part.id} output", {"type": "tool-output-available", **call, "output": part.output})
        case "failed":
            yield Chunk(f"{part.id} output", {"type": "tool-output-error", **call, "errorText": part.error})
    if part.state == "denied":  # after the output, which clients keep: it has the reason
        yield Chunk(f"{part.id} denied", {"type": "tool-output-denied", **call})


def approval_data(turn: Turn, part: ToolPart, url: str = "") -> dict[str, JsonValue]:
    """Return what clients show of an approval: its state, who decided it and where, and until when it is open."""
    request, decision = turn.requests.get(part.id), part.decision
    by: str | None = None
    via: str | None = None
    if request is not None and request.outcome is not None:
        by, via = request.outcome.by, request.outcome.via
    elif decision is not None:
        by, via = decision.by, decision.via
    deadline = request.deadline if request is not None and request.is_open else None
    return {
        "toolCallId": part.id,
        "state": approval_state(turn, part),
        "by": by,
        "via": via,
        "expiresAt": deadline.isoformat().replace("+00:00", "Z") if deadline is not None else None,
        "url": f"{url}/requests/{request.id}" if request is not None else None,
    }


def approval_state(turn: Turn, part: ToolPart) -> ApprovalState:
    """Return the state of a tool call's approval."""
    request, decision = turn.requests.get(part.id), part.decision
    if decision is not None:
        match decision.state:
            case "approved" | "edited":
                return "approved"
            case "rejected" | "expired":
                return decision.state
            case "pending":
                return "waiting"
            case _:
                return "withdrawn"
    if request is None or request.outcome is None:
        return "waiting"
    if request.outcome.by == DEADLINE:
        return "expired"  # silence is no answer, whatever the deadline makes of it
    match request.outcome.outcome:
        case "approved" | "rejected" | "expired" as state:
            return state
        case _:
            return "withdrawn"


def after_approvals(chunks: Sequence[Chunk], answered: Collection[str]) -> set[str]:
    """Return the keys that a client has, which goes on after it was asked about these tool calls.

    That client's stream had ended once only approvals were open, so it has all that came before the last of them.
    """
    keys = [chunk.key for chunk in chunks]
    wanted = {f"{tool_call_id} request" for tool_call_id in answered}
    last = max((at for at, key in enumerate(keys) if key in wanted), default=-1)
    return {key for key in keys[: last + 1] if not key.endswith((" output", " denied")) and " approval " not in key}


def requests_by_call(requests: Sequence[Request]) -> dict[str, Request]:
    """Return the requests of a run by the ids of the tool calls that made them."""
    return {str(request.fields[CALL_ID]): request for request in requests if request.fields.get(CALL_ID)}
