"""The chats of a service: find a chat's turns, begin one, and decide about its tool calls.

A chat belongs to the person, or the API key, that began it. Nobody else finds it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import JsonValue, ValidationError

from approvals_bot.agents.chat import import_framework
from approvals_bot.agents.chat_stream import Turn, approval_state, requests_by_call
from approvals_bot.agents.chat_view import (
    CALL,
    CHAT,
    MESSAGE,
    OWNER,
    ApprovalForm,
    ChatTurn,
    ChatView,
    ToolPart,
    read_view,
)
from approvals_bot.approvals.acts import Actor, Reply, Vote
from approvals_bot.approvals.json_values import same_json
from approvals_bot.approvals.request import ON_BEHALF_OF
from approvals_bot.approvals.tool_call import ARGUMENTS
from approvals_bot.client.digests import leaves_of
from approvals_bot.config.chat import CHAT_WORKFLOW
from approvals_bot.durable.core.hooks import WebhookRequest
from approvals_bot.durable.engine import Engine, RunRecord
from approvals_bot.durable.engine.notifier import Subscription
from approvals_bot.errors import ApprovalsBotError, HookNotFoundError, IdempotencyConflictError
from approvals_bot.service.act import perform
from approvals_bot.service.catalog import Catalog
from approvals_bot.service.keys import OPENER
from approvals_bot.service.owed_lines import ACTED
from approvals_bot.service.read import requests_of

MOST_TURNS = 200  # of a chat, shown and read
LONGEST_TEXT = 8_000  # characters of a message
TOO_LATE = Reply("already_decided", code="takes_no_votes")
WEBHOOK_WAIT = 2.0  # seconds to see what a webhook's call led to

ENDED_BADLY: Mapping[str, str] = {
    "failed": "Something went wrong, and this answer ended early. Nothing more will happen in it.",
    "cancelled": "This answer was cancelled. Nothing more will happen in it.",
    "stalled": "This answer waits for a fix. What you decide meanwhile is kept.",
}
"""What people read instead of the rest of an answer, by the status of its run."""

NO_MODEL = (
    "The agent's model can't be reached or refuses to answer, so this answer ended early. Nothing more will happen in "
    "it. Send your message again in a moment; if that doesn't help, the service's operators find the reason in its run."
)
"""What people read where the run failed while the model was to write."""


@dataclass(frozen=True, slots=True)
class ChatForm:
    """How tool calls of new turns wait, and who decides after the chat's owner."""

    approval: ApprovalForm = "hook"
    approvers: tuple[str, ...] = ()


class MessageReusedError(ApprovalsBotError):
    """A message's id was used before, for another text."""


@dataclass(frozen=True, slots=True)
class AnsweredCall:
    """What an answer to a tool call led to: the reply, and the call as it is now."""

    reply: Reply
    turn: Turn
    part: ToolPart

    @property
    def is_approved(self) -> bool | None:
        """Whether it was approved in the end; None while it is open."""
        match approval_state(self.turn, self.part):
            case "waiting":
                return None
            case state:
                return state == "approved"

    def has(self, values: Mapping[str, JsonValue]) -> bool:
        """Return whether these arguments, by their addresses, are among those that it has now."""
        request = self.turn.requests.get(self.part.id)
        now = self.part.input if request is None else request.fields[ARGUMENTS]
        leaves = leaves_of(now) if isinstance(now, dict) else {}
        return all(name in leaves and same_json(leaves[name], value) for name, value in values.items())


def _has_failed(task: asyncio.Task[None]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)


class Chats:
    """The chats, as far as an owner has them."""

    def __init__(self, engine: Engine, workflows: Catalog, form: ChatForm) -> None:
        self._engine = engine
        self._workflows = workflows
        self._form = form
        self._warming: asyncio.Task[None] | None = None

    def warm_up(self) -> asyncio.Task[None]:
        """Import in the background what an answer needs, when somebody looks at the chat."""
        if self._warming is None or _has_failed(self._warming):
            self._warming = asyncio.create_task(asyncio.to_thread(import_framework))
        return self._warming

    @property
    def missing(self) -> str:
        """What has to be installed before the chat can answer; "" if it can."""
        return "" if self._workflows.find(CHAT_WORKFLOW) else self._workflows.missing.get(CHAT_WORKFLOW, "")

    def has_approvers(self, owner: str) -> bool:
        """Return whether anybody could decide about a tool call of this owner's chat."""
        if not owner.startswith("app:"):
            return True
        # A webhook's URL is shown to the chat's owner: a key that called it itself would count as a person's yes.
        return bool(self._form.approvers) and self._form.approval == "hook"

    async def turns(self, chat: str, owner: str) -> list[Turn] | None:
        """Return the newest turns of a chat, the oldest first; [] for a new one. None if it is somebody else's."""
        page = await self._engine.runs(attributes={CHAT: chat, OWNER: owner}, limit=MOST_TURNS)
        if not page.records:
            newest = (await self._engine.runs(attributes={CHAT: chat}, limit=1)).records
            if newest and newest[0].attributes.get(OWNER) != owner:
                return None
            if newest:  # begun since the first look
                return await self.turns(chat, owner)
        return [await self._turn_of(record) for record in reversed(page.records)]

    async def newest(self, owner: str, limit: int) -> list[Turn]:
        """Return the owner's newest turns, of all their chats."""
        page = await self._engine.runs(attributes={OWNER: owner}, limit=limit)
        return [await self._turn_of(record) for record in page.records]

    async def turn(self, run_id: str) -> Turn:
        """Return a turn as it is now."""
        record = await self._engine.record(run_id)
        assert record is not None, "turns are never deleted while they are read"
        return await self._turn_of(record)

    async def turn_of_call(self, tool_call_id: str, owner: str) -> Turn | None:
        """Return the owner's newest turn that has asked about this tool call."""
        page = await self._engine.runs(attributes={CALL + tool_call_id: True, OWNER: owner}, limit=1)
        return await self._turn_of(page.records[0]) if page.records else None

    async def begin(
        self, turns: list[Turn], chat: str, owner: str, message: str, text: str, *, again: bool = False
    ) -> str:
        """Begin the turn that answers a message, once; return its run's id.

        `again`: if that turn has failed, begin another one. Raises MessageReusedError if this id was used for another
        text.
        """
        answers = [turn for turn in turns if turn.view.turn.message == message]
        if any(turn.view.turn.text != text for turn in answers):
            raise MessageReusedError()
        if answers and not (again and answers[-1].has_failed):
            return answers[-1].run_id
        listed = self._workflows.find(CHAT_WORKFLOW)
        assert listed is not None, "somebody asks for `missing` first"
        given = ChatTurn(
            chat=chat,
            message=message,
            text=text,
            owner=owner,
            approval=self._form.approval,
            approvers=self._form.approvers,
            follows=answers[0].view.turn.follows if answers else turns[-1].run_id if turns else None,
        )
        await asyncio.shield(self.warm_up())
        by_app = {OPENER: owner} if owner.startswith("app:") else {}
        behalf = {ON_BEHALF_OF: given.person} if given.person else {}
        found = {CHAT: chat, OWNER: owner, MESSAGE: message} | by_app | behalf
        key = _digest(owner, chat, message, *([len(answers)] if answers else []))
        try:
            return (await self._engine.start(listed.workflow, given, idempotency_key=key, attributes=found)).id
        except IdempotencyConflictError as error:  # the same message at the same time, perhaps with another text
            if (await self.turn(error.run_id)).view.turn.text != text:
                raise MessageReusedError() from None
            return error.run_id

    async def decide(
        self,
        turn: Turn,
        part: ToolPart,
        by: str,
        approved: bool,
        comment: str = "",
        arguments: Mapping[str, JsonValue] | None = None,
        *,
        actor: Actor | None = None,
    ) -> AnsweredCall:
        """Answer a tool call as the chat's owner, once. `arguments`: those to change; `actor`: by default the owner."""
        actor = actor or Actor("person", by)
        if part.webhook and by.startswith("app:"):
            reply = Reply("not_an_approver")
        elif part.webhook:
            reply = await self._call_webhook(turn, part, approved, comment)
            data = {"act": "approve" if approved else "reject", "via": "chat", "verdict": reply.verdict}
            await self._engine.audit(ACTED, who=by, actor=actor.as_json(), run_id=turn.run_id, data=data)
        elif (request := turn.requests.get(part.id)) is not None:
            choice: Literal["edit", "approve", "reject"] = "approve" if approved else "reject"
            if approved and arguments:
                choice = "edit"
            act = Vote(by, choice, comment=comment, via="chat", fields=dict(arguments or {}), digest=request.digest)
            act = replace(act, actor=actor)
            again = sum(vote.by == by for vote in request.votes)
            press = _digest(choice, comment, dict(arguments or {}), again)  # so a double click is one press
            reply = await perform(self._engine, request, act, press=press)
        else:
            reply = Reply("unknown")
        now = await self.turn(turn.run_id)
        return AnsweredCall(reply, now, now.view.tool(part.id) or part)

    async def _call_webhook(self, turn: Turn, part: ToolPart, approved: bool, comment: str) -> Reply:
        target = await self._engine.find(part.webhook)
        if target is None or part.state != "waiting":
            return TOO_LATE
        answer = {"approved": approved} | ({"comment": comment} if comment else {})
        resume_id = f"chat {'yes' if approved else 'no'}"
        try:
            await self._engine.resume_webhook(
                target, WebhookRequest.of_json(answer), timeout=WEBHOOK_WAIT, resume_id=resume_id
            )
        except (HookNotFoundError, IdempotencyConflictError):
            return TOO_LATE
        return await self._once_taken(turn, part, approved)

    async def _once_taken(self, turn: Turn, part: ToolPart, approved: bool) -> Reply:
        """Wait briefly until the run has taken the first call of its webhook, and say whether that was this one."""
        with Subscription(self._engine.notifier, turn.run_id, WEBHOOK_WAIT, self._engine.scheduler.poll) as changes:
            while True:
                now = (await self.turn(turn.run_id)).view.tool(part.id)
                if now is not None and now.decision is not None:
                    return Reply("decided", changed=True) if now.decision.approved is approved else TOO_LATE
                if not await changes.changed():
                    return Reply("received", changed=True)

    async def _turn_of(self, record: RunRecord) -> Turn:
        view = read_view(record.view)
        if view is None:  # it hasn't begun
            view = ChatView(turn=await self._input_of(record), is_writing=True)
        can_retry = record.status == "failed" and view.is_writing
        error = NO_MODEL if can_retry else ENDED_BADLY.get(record.status, "")
        return Turn(record.id, view, requests_by_call(requests_of(record)), record.has_ended, error, can_retry)

    async def _input_of(self, record: RunRecord) -> ChatTurn:
        log = await self._engine.events(record.id)
        given = next(iter(log[0].data["input"].values()), None)
        try:
            return ChatTurn.model_validate(given)
        except ValidationError:
            chat, owner, message = (str(record.attributes.get(name, "")) for name in (CHAT, OWNER, MESSAGE))
            return ChatTurn(chat=chat, message=message, text="", owner=owner)


def _digest(*given: JsonValue) -> str:
    return "chat " + hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()
