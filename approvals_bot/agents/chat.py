"""A chat: an agent that people talk to, and whose tool calls can wait for them.

A turn begins with a person's message and is a run. `Chat` lets an agent of pydantic-ai answer in the run's workflow and
publishes every part of the answer as soon as the log has it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import Context
from dataclasses import replace
from functools import cached_property
from importlib.util import find_spec
from types import FunctionType
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, JsonValue
from pydantic_core import to_jsonable_python

from approvals_bot.agents.chat_view import CALL, ChatTurn, ChatView, dumped_view, read_view
from approvals_bot.agents.tool_calls import DEADLINE, approve
from approvals_bot.approvals.card_model import Card, Name
from approvals_bot.approvals.port import EMAIL, Channels, Dispatch, ToPerson, TryAgain
from approvals_bot.client.decision import Decision
from approvals_bot.client.digests import digest_of
from approvals_bot.durable.core.api import (
    Webhook,
    create_webhook,
    get_step_metadata,
    now,
    publish,
    resource,
    set_attributes,
    step,
)
from approvals_bot.durable.core.context import open_engine
from approvals_bot.durable.core.durations import as_seconds
from approvals_bot.durable.core.threads import import_alone
from approvals_bot.durable.engine import Engine
from approvals_bot.errors import FatalError, RetryableError
from approvals_bot.people import People

if TYPE_CHECKING:
    from pydantic_ai import Agent
    from pydantic_ai.messages import ModelMessage, ModelResponse

FRAMEWORK, STREAMING = "pydantic_ai", "approvals_bot.agents.streaming"
CHOICES = ["approve", "edit", "reject"]
MOST_INDEXED = 20  # tool calls of a turn that can be found by their id alone; a run has 64 attributes
LONGEST_INDEXED = 200  # characters of such an id
WEBHOOK_MAIL = (
    '{subject} waits for your answer. POST JSON like {{"approved": true, "comment": "…"}} to {url}\n'
    "Anybody who has this address can answer, so don't forward it."
)
ID_REUSED = "another tool call of this answer had the same id"
MOST_REMEMBERED = 20  # earlier turns of the chat that the model gets


class Exchange(BaseModel):
    """An earlier turn, as the model gets it."""

    asked: str
    answered: str


class ChatContext:
    """The turn that the tools of a chat's agent belong to: their `ctx.deps`."""

    def __init__(self, turn: ChatTurn, agent: str = "agent") -> None:
        self.turn = turn
        self.agent = agent  # as people read it
        self.view = ChatView(turn=turn, is_writing=True)
        self._asked: set[str] = set()  # the ids of calls; a yes to one of them is for no other
        self._indexed = 0
        self._unused: list[str] = []  # the digests of approvals that nothing was done with yet

    async def ask(self, tool_call_id: str | None, tool: str, arguments: Mapping[str, JsonValue]) -> Decision:
        """Ask people about a tool call and wait for their decision, for minutes or days.

        It works in tools that run in the workflow itself (`metadata={"approvals_bot": False}`). The decision's
        `arguments` are those that were decided on.
        """
        assert tool_call_id is not None, "a tool runs for a call"
        if tool_call_id in self._asked:
            return Decision(state="withdrawn", at=now(), tool=tool, comment=ID_REUSED)
        self._asked.add(tool_call_id)
        self._index(tool_call_id)
        if self.turn.approval == "webhook":
            decision = await self._by_webhook(tool_call_id, tool, dict(arguments))
        else:
            decision = await self._by_request(tool_call_id, tool, dict(arguments))
        self.change(tool_call_id, state="running", decision=decision)
        if decision.approved and decision.arguments is not None:
            self._unused.append(digest_of(tool, decision.arguments))
        return decision

    def use_approval(self, tool: str, arguments: Mapping[str, JsonValue]) -> bool:
        """Use up the approval of exactly these arguments. Returns False if there is none (any more): then don't act."""
        digest = digest_of(tool, arguments)
        if digest not in self._unused:
            return False
        self._unused.remove(digest)
        return True

    def show(self, view: ChatView) -> None:
        """Publish what the turn shows now."""
        self.view = view
        publish(dumped_view(view))

    def returned(self, tool_call_id: str, output: Any, *, failed: bool) -> None:
        """Publish the output of a tool call. `failed`: the output says what the model has to do better."""
        part = self.view.tool(tool_call_id)
        if part is None:
            return
        denied = part.decision is not None and not part.decision.approved
        if failed:
            self.change(tool_call_id, state="failed", error=str(output))
        else:
            plain = to_jsonable_python(output, fallback=str)
            self.change(tool_call_id, state="denied" if denied else "done", output=plain)

    def change(self, tool_call_id: str, **changes: Any) -> None:
        """Publish these changes of a tool call."""
        self.show(self.view.with_tool(tool_call_id, **changes))

    async def _by_request(self, tool_call_id: str, tool: str, arguments: dict[str, JsonValue]) -> Decision:
        """Request a decision of the owner, then of the chat's approvers, in the chat, in Slack and by mail."""
        self.change(tool_call_id, state="waiting")
        return await approve(
            tool,
            arguments,
            tool_call_id=tool_call_id,
            agent=self.agent,
            stages=self._stages(),
            on_behalf_of=self.turn.person,
            deliver={"dm": True, "email": True},
        )

    def _stages(self) -> list[dict[str, Any]]:
        own = [{"id": "traveller", "from": ["on-behalf-of"]}] if self.turn.person is not None else []
        others = [{"id": "approvers", "from": list(self.turn.approvers)}] if self.turn.approvers else []
        return [stage | {"comment": "optional", "outcomes": CHOICES} for stage in (*own, *others)]

    async def _by_webhook(self, tool_call_id: str, tool: str, arguments: dict[str, JsonValue]) -> Decision:
        webhook = create_webhook(metadata={"tool": tool, "arguments": arguments})
        self.change(tool_call_id, state="waiting", webhook=webhook.hook_id)
        if self.turn.person is not None:
            await mail_link(self.turn.person, tool, self.agent, webhook.hook_id)
        answer = await self._answer(webhook)
        if answer is None:
            return Decision(state="expired", at=now(), tool=tool, arguments=arguments)
        return Decision(
            state="approved" if answer.approved else "rejected",
            at=now(),
            via="webhook",
            comment=answer.comment,
            tool=tool,
            arguments=arguments,
            digest=digest_of(tool, arguments),
        )

    async def _answer(self, webhook: Webhook) -> WebhookAnswer | None:
        """Return the first call of the webhook that says what to do; None at the deadline."""
        with suppress(TimeoutError):
            async with asyncio.timeout(as_seconds(DEADLINE, now())):
                async for request in webhook:
                    with suppress(ValueError):  # anybody who has the URL can send anything
                        return WebhookAnswer.model_validate(await request.json())
        return None

    def _index(self, tool_call_id: str) -> None:
        """Make the run findable by the id of this tool call, as far as there is room for attributes."""
        if self._indexed < MOST_INDEXED and len(tool_call_id) <= LONGEST_INDEXED:
            self._indexed += 1
            set_attributes({CALL + tool_call_id: True})


class WebhookAnswer(BaseModel):
    """What a call of a tool call's webhook says."""

    model_config = ConfigDict(strict=True)

    approved: bool
    comment: str | None = None


def import_framework() -> None:
    """Import what chats need, if it is installed. It takes a second: call it in a thread, before the first message."""
    if find_spec(FRAMEWORK) is not None:
        import_alone(STREAMING)


class Chat:
    """An agent that answers a chat's messages.

        agent = Agent("openai:gpt-5.2", name="book_flight", deps_type=ChatContext, capabilities=[Durable()])
        chat = Chat(agent)

        @workflow
        async def book_flight_chat(turn: ChatTurn) -> str:
            return await chat.answer(turn)

    Tools get the turn as `ctx.deps`, a `ChatContext`, and ask people by its `ask`.
    """

    def __init__(
        self, agent: Agent[ChatContext, str] | Callable[[], Agent[ChatContext, str]], *, name: str | None = None
    ) -> None:
        """`name`: what people read instead of the agent's own name, where it asks them.

        `agent` may be a function that makes it, which is called for the first message: until then, its framework isn't
        imported. Raises ImportError if that isn't installed.
        """
        if find_spec(FRAMEWORK) is None:
            raise ImportError("a chat needs pydantic-ai: pip install 'approvals-bot[pydantic-ai]'", name=FRAMEWORK)
        self._given = agent
        self._name = name

    @cached_property
    def _agent(self) -> Agent[ChatContext, str]:
        return Context().run(self._made)  # outside of the run: what an import draws is no part of its log

    def _made(self) -> Agent[ChatContext, str]:
        return self._given() if isinstance(self._given, FunctionType) else self._given  # type: ignore[return-value]

    async def answer(self, turn: ChatTurn) -> str:
        """Answer a message, and return the agent's last words. Works in a workflow's body only.

        Raises FatalError if the model can't be reached or refuses to answer: then the run fails.
        """
        Context().run(import_framework)  # outside of the run: what an import draws is no part of its log
        context = ChatContext(turn, self._name or self._agent.name or "agent")
        from pydantic_ai.exceptions import ModelAPIError

        context.show(ChatView(turn=turn, is_writing=True))
        earlier = await earlier_exchanges(turn.follows) if turn.follows is not None else []
        try:
            return await self._answer(context, _messages(earlier))
        except ModelAPIError as error:
            raise FatalError(str(error)) from error

    async def _answer(self, context: ChatContext, history: list[ModelMessage]) -> str:
        from approvals_bot.agents.streaming import Streaming

        agent, streaming = self._agent, Streaming(lambda: len(context.view.parts))
        async with agent.iter(
            context.turn.text, deps=context, message_history=history, capabilities=[streaming]
        ) as run:
            async for node in run:
                if agent.is_model_request_node(node):
                    context.show(context.view.model_copy(update={"is_writing": True}))
                elif agent.is_call_tools_node(node):
                    context.show(_with_response(context.view, node.model_response))
                    async with node.stream(run.ctx) as events:
                        async for event in events:
                            if event.event_kind == "function_tool_result":
                                is_answer = event.part.part_kind == "tool-return"
                                context.returned(event.part.tool_call_id, event.part.content, failed=not is_answer)
        assert run.result is not None, "the agent has ended"
        return run.result.output


def _with_response(view: ChatView, response: ModelResponse) -> ChatView:
    """Return the view with the parts of a model's response."""
    shown = view.model_copy(update={"is_writing": False})
    for part in response.parts:
        if part.part_kind == "text" and part.content.strip():
            shown = shown.with_text(part.content)
        elif part.part_kind == "tool-call":
            shown = shown.with_call(part.tool_call_id, part.tool_name, part.args_as_dict(raise_if_invalid=False))
    return shown


def _messages(exchanges: list[Exchange]) -> list[ModelMessage]:
    """Return earlier turns as a history for the model."""
    if not exchanges:
        return []
    from pydantic_ai.messages import ModelRequest, ModelResponse, TextPart, UserPromptPart

    found: list[ModelMessage] = []
    for one in exchanges:
        found.append(ModelRequest([UserPromptPart(one.asked)]))
        found.append(ModelResponse([TextPart(one.answered or "…")]))
    return found


@step(retries=3)
async def earlier_exchanges(run_id: str) -> list[Exchange]:
    """Read the turns before this one, the oldest first."""
    engine = _engine()
    found: list[Exchange] = []
    following: str | None = run_id
    while following is not None and len(found) < MOST_REMEMBERED:
        record = await engine.record(following)
        view = read_view(record.view) if record is not None else None
        if view is None:
            break
        outputs = [f"[{part.tool}: {part.output}]" for part in view.tools if part.is_over]
        found.append(Exchange(asked=view.turn.text, answered="\n".join([*outputs, view.texts])))
        following = view.turn.follows
    return found[::-1]


@step(retries=3)
async def mail_link(
    address: str,
    subject: str,
    agent: str,
    hook_id: str,
    channels: Channels = resource(Channels),
    people: People = resource(People),
) -> None:
    """Mail a webhook's URL to a person, if the service sends mail. The URL is a key, so the log has the hook's id."""
    mail = channels.by_name.get(EMAIL)
    if mail is None:
        return
    person = people.person(address)
    about = get_step_metadata()
    card = Card("", "", "", 0, "waiting", subject, Name(agent, agent), about.first_started_at, "")
    to = ToPerson(EMAIL, replace(person, slack=None))
    text = WEBHOOK_MAIL.format(url=_engine().link(hook_id), subject=subject)
    match await mail.send(Dispatch(about.step_id, to, card, text=text)):  # no request has a page to link to
        case TryAgain(error=error, after=after):
            raise RetryableError(error, retry_after=after)


def _engine() -> Engine:
    engine = open_engine()
    assert isinstance(engine, Engine)
    return engine
