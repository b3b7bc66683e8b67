"""Agents of three frameworks that ask over HTTP: without a yes to this very call, nothing runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest
from agents import Agent, RunConfig, SQLiteSession
from agents.testing import function_call
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.checkpoint.memory import InMemorySaver
from pydantic_ai import Agent as PydanticAgent
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from approvals_bot.client import Approvals, digest_of
from approvals_bot.client import langgraph as graphs
from approvals_bot.client import openai as openai_agents
from approvals_bot.client import pydantic_ai as people
from approvals_bot.client.interrupts import pause_of
from approvals_bot.client.words import NOT_ALLOWED, UNAVAILABLE
from approvals_bot.errors import ApprovalMismatchError, InvalidArgumentError
from tests.agents import langgraph_travel, openai_travel
from tests.agents.effects import happened
from tests.support.scripted_service import HANG_UP, Answer, Scripted, scripted_service

CALL = {"flight": "LH1", "price": 640}
YES = {"state": "approved", "by": "ann@acme.eu", "tool": "book", "arguments": CALL, "digest": digest_of("book", CALL)}

Run = Callable[[Approvals], Awaitable[list[str]]]


async def by_openai(ap: Approvals) -> list[str]:
    call = function_call("book", CALL, call_id="call_1")
    agent = Agent(name="travel", model=openai_travel.Scripted(call), tools=[openai_travel.book])
    result = await openai_agents.run_with_approvals(
        ap, agent, "to Oslo", key="trip", to="@ops", wait=0.3, run_config=RunConfig(tracing_disabled=True)
    )
    outputs: list[str] = json.loads(result.final_output)
    return outputs


async def by_pydantic_ai(ap: Approvals) -> list[str]:
    async def script(messages: list[ModelMessage], _: AgentInfo) -> ModelResponse:
        last = messages[-1]
        if len(messages) == 1 or not isinstance(last, ModelRequest):
            return ModelResponse([ToolCallPart("book", CALL, "call_1")])
        return ModelResponse(
            [TextPart(json.dumps([each.content for each in last.parts if each.part_kind == "tool-return"]))]
        )

    asking = people.approvals(ap, key=lambda ctx: "trip", to="@ops", wait=0.3)
    agent = PydanticAgent(FunctionModel(script), name="travel", capabilities=[asking])

    @agent.tool_plain(requires_approval=True)
    def book(flight: str, price: int) -> str:
        happened[f"book {flight} {price}"] += 1
        return f"booked {flight} for {price}"

    outputs: list[str] = json.loads((await agent.run("to Oslo")).output)
    return outputs


def by_langgraph(mode: Any) -> Run:
    async def run(ap: Approvals) -> list[str]:
        model = langgraph_travel.Scripted(bookings=langgraph_travel.BOOKINGS[:1])
        graph = langgraph_travel.travel_graph(model, mode, InMemorySaver())
        values = await graphs.run_with_approvals(
            ap, graph, {"messages": [("user", "to Oslo")]}, {"configurable": {"thread_id": "trip"}}, to="@ops", wait=0.3
        )
        outputs: list[str] = json.loads(values["messages"][-1].content)
        return outputs

    return run


every = pytest.mark.parametrize(
    "run",
    [by_openai, by_langgraph("batched"), by_langgraph("per_call"), by_pydantic_ai],
    ids=["openai", "langgraph batched", "langgraph per call", "pydantic-ai"],
)


@pytest.fixture(autouse=True)
def _nothing_has_happened() -> None:
    happened.clear()


def booked() -> list[str]:
    return [each for each in happened if each.startswith("book")]


def decided(**result: Any) -> Answer:
    """Answer whatever is asked: the request is there, and this came of it."""
    opened = {"run_id": "run_1", "url": "http://approvals.test/runs/run_1"}
    return 200, opened | {"id": "run_1", "status": "completed", "result": result, "error": None}


@every
async def test_a_yes_lets_the_tool_run(run: Run) -> None:
    with scripted_service(decided(**YES)) as service:
        async with Approvals(service.url, "key") as ap:
            assert await run(ap) == ["booked LH1 for 640"]
    sent = service.received[0]
    assert {name.lower(): value for name, value in sent.headers.items()}["idempotency-key"] == "trip:call_1"
    assert sent.body["input"]["tool"] == "book"
    assert sent.body["input"]["arguments"] == CALL
    assert sent.body["input"]["to"] == ["@ops"]
    assert booked() == ["book LH1 640"]


@every
@pytest.mark.agents(12)
async def test_the_tool_gets_what_an_approver_made_of_it(run: Run) -> None:
    edited = CALL | {"price": 600}
    result = YES | {"state": "edited", "arguments": edited, "digest": digest_of("book", edited)}
    with scripted_service(decided(**result)) as service:
        async with Approvals(service.url, "key") as ap:
            assert await run(ap) == ["booked LH1 for 600"]
    assert booked() == ["book LH1 600"]


@every
@pytest.mark.agents(13)
@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (decided(state="rejected", by="ann@acme.eu", comment="too dear"), 'Rejected by ann@acme.eu: "too dear"'),
        (decided(state="expired"), "Silence is not consent"),
        (decided(state="withdrawn"), "withdrawn or cancelled"),
        (decided(state="answered", name="Ann Ode", comment="by train"), 'Ann Ode answers: "by train"'),
        ((200, {"run_id": "run_1", "url": "", "id": "run_1", "status": "running"}), "Nobody has decided yet"),
        ((500, {}), UNAVAILABLE),
        (HANG_UP, UNAVAILABLE),
        ((403, {"type": "about:blank", "status": 403, "detail": "No."}), NOT_ALLOWED.format(comment=': "No."')),
    ],
    ids=["rejected", "expired", "withdrawn", "answered", "pending", "500", "hangs up", "403"],
)
async def test_without_a_yes_nothing_runs_and_the_model_reads_why(run: Run, answer: Answer, text: str) -> None:
    with scripted_service(answer) as service:
        async with Approvals(service.url, "key") as ap:
            (output,) = await run(ap)
    assert text in output
    assert booked() == []


@every
@pytest.mark.agents(13)
async def test_without_a_service_nothing_runs(run: Run) -> None:
    async with Approvals("http://nowhere.invalid", "key") as ap:
        (output,) = await run(ap)
    assert UNAVAILABLE in output
    assert booked() == []


@every
@pytest.mark.agents(11)
@pytest.mark.parametrize(
    "result",
    [
        YES | {"digest": digest_of("book", CALL | {"price": 1})},
        YES | {"digest": digest_of("pay", CALL), "tool": "pay"},
        YES | {"digest": None},
        YES | {"state": "edited", "arguments": CALL | {"price": 1}},
    ],
    ids=["other arguments", "another tool", "no digest", "edited"],
)
async def test_a_yes_to_another_call_runs_nothing(run: Run, result: dict[str, Any]) -> None:
    with scripted_service(decided(**result)) as service:
        async with Approvals(service.url, "key") as ap:
            with pytest.raises(ApprovalMismatchError):
                await run(ap)
    assert booked() == []


async def test_a_graph_that_has_no_session_or_checkpointer_is_refused() -> None:
    async with Approvals("http://nowhere.invalid", "key") as ap:
        graph = langgraph_travel.questions(None)
        with pytest.raises(InvalidArgumentError, match="thread_id"):
            await graphs.run_with_approvals(ap, graph, {}, {})
        with pytest.raises(InvalidArgumentError, match="checkpointer"):
            await graphs.run_with_approvals(ap, graph, {}, {}, key="trip")


async def test_answers_are_found_again_after_a_restart() -> None:
    """The thread is looked at first: what it waits for is requested under the same key."""
    graph = langgraph_travel.questions(InMemorySaver())
    config: Any = {"configurable": {"thread_id": "trip"}}
    await graph.ainvoke({"names": ["Ann"], "answers": []}, config)
    with scripted_service(decided(state="answered", comment="by train")) as service:
        async with Approvals(service.url, "key") as ap:
            values = await graphs.run_with_approvals(ap, graph, {"names": ["Bo"], "answers": []}, config)
    assert values["answers"] == [["Ann", "by train", None]]
    assert service.received[0].body["input"] == {"tool": "ask", "arguments": {"question": "May Ann travel?"}}


def test_ids_of_batched_calls_come_from_the_model_s_message() -> None:
    """An interrupt for all calls of a turn doesn't name them; calls without approval may be in between."""
    actions = [{"name": "pay", "args": {"n": n}} for n in (1, 1, 2, 3)]
    value = {"action_requests": actions, "review_configs": [{"allowed_decisions": ["approve"]}] * 4}
    said = [("a", "pay", 1), ("b", "look", 1), ("c", "pay", 1), (None, "pay", 2)]
    calls = [{"id": id, "name": name, "args": {"n": n}} for id, name, n in said]
    assert [call.id for call in pause_of("i", value, node="n", tool_calls=calls).calls] == ["a", "c", "", ""]


class Repeating(langgraph_travel.Scripted):
    """A model that asks twice for the same call, with the same id."""

    async def _agenerate(self, messages: Any, *args: Any, **options: Any) -> ChatResult:
        answered = sum(isinstance(each, ToolMessage) for each in messages)
        calls = [{"name": "book", "args": CALL, "id": "call_0"}] if answered < 2 else []
        return ChatResult(generations=[ChatGeneration(message=AIMessage("", tool_calls=calls))])


@pytest.mark.agents(9)
@pytest.mark.parametrize("mode", ["batched", "per_call"])
async def test_an_old_yes_is_not_for_a_new_call_of_the_same_id(mode: Any) -> None:
    graph = langgraph_travel.travel_graph(Repeating(), mode, InMemorySaver())
    config: Any = {"configurable": {"thread_id": "trip"}}
    given = {"messages": [("user", "to Oslo")]}
    answers = [decided(**YES), decided(**YES), (500, {})]  # gets the first answer, and dies before the second
    with scripted_service(*answers) as service:
        async with Approvals(service.url, "key") as ap:
            dies = asyncio.create_task(graphs.run_with_approvals(ap, graph, given, config, wait=20))
            while len(service.received) < 3:
                await asyncio.sleep(0.01)
            dies.cancel()
    with scripted_service(decided(**YES)) as service:
        async with Approvals(service.url, "key") as ap:
            await graphs.run_with_approvals(ap, graph, given, config, wait=0.3)
    sent = {name.lower(): value for name, value in service.received[0].headers.items()}
    assert sent["idempotency-key"] == "trip:call_0.2"
    assert happened["book LH1 640"] == 2, "each with a yes of its own"


@pytest.mark.agents(9)
async def test_an_old_yes_is_not_for_a_later_run_of_the_session() -> None:
    call = function_call("book", CALL, call_id="call_0")
    with scripted_service(decided(**YES)) as service:
        async with Approvals(service.url, "key") as ap:
            given: Any = "to Oslo"
            for _ in range(2):
                model = openai_travel.Scripted(call)
                agent = Agent(name="travel", model=model, tools=[openai_travel.book])
                result = await openai_agents.run_with_approvals(
                    ap, agent, given, key="trip", run_config=RunConfig(tracing_disabled=True)
                )
                # Without the outputs, so that the scripted model calls again.
                given = [each for each in result.to_input_list() if each.get("type") != "function_call_output"]
                given += [{"role": "user", "content": "and again"}]
    first, later = keys_sent(service)
    assert first == "trip:call_0"
    assert later.startswith("trip:call_0.")


def keys_sent(service: Scripted) -> list[str]:
    sent = [{name.lower(): value for name, value in each.headers.items()} for each in service.received]
    return [each["idempotency-key"] for each in sent if "idempotency-key" in each]


Sessions = Callable[[type[SQLiteSession]], SQLiteSession]


@pytest.fixture
def session_of() -> Iterator[Sessions]:
    """Open sessions that are closed after the test."""
    with ExitStack() as stack:
        yield lambda kind: stack.enter_context(closing(kind("s")))


@pytest.mark.agents(9)
@pytest.mark.parametrize("kept", ["by a session", "by a trimmed list"])
async def test_an_old_yes_is_not_for_a_run_that_sees_no_old_call(kept: str, session_of: Sessions) -> None:
    session: Any = session_of(SQLiteSession) if kept == "by a session" else None

    async def run(ap: Approvals, given: Any, outputs: list[str]) -> None:
        model = openai_travel.Scripted(function_call("book", CALL, call_id="call_0"))
        agent = Agent(name="travel", model=model, tools=[openai_travel.book])
        options: dict[str, Any] = {"session": session, "run_config": RunConfig(tracing_disabled=True)}
        result = await openai_agents.run_with_approvals(ap, agent, given, key="trip", **options)
        outputs.append(result.final_output)

    def input_of(text: str) -> Any:
        trimmed: Any = [{"role": "assistant", "content": "Where to?"}, {"role": "user", "content": text}]
        return text if session is not None else trimmed

    with scripted_service(decided(**YES)) as service:
        async with Approvals(service.url, "key") as ap:
            outputs: list[str] = []
            await run(ap, input_of("to Oslo"), outputs)
            if session is not None:
                await session.clear_session()
            await run(ap, input_of("to Oslo"), outputs)  # as after a restart
            if session is not None:
                await session.clear_session()
            await run(ap, input_of("to Oslo, once more"), outputs)
    first, retried, later = keys_sent(service)
    assert first == retried != later


class Forgetful(SQLiteSession):
    """A session that trims itself: it keeps the last item only."""

    async def get_items(self, *args: Any, **options: Any) -> Any:
        return (await super().get_items(*args, **options))[-1:]


@pytest.mark.agents(9)
async def test_an_old_yes_is_not_for_the_same_words_later(session_of: Sessions) -> None:
    session = session_of(Forgetful)
    with scripted_service(decided(**YES)) as service:
        async with Approvals(service.url, "key") as ap:
            for _ in range(2):
                model = openai_travel.Scripted(function_call("book", CALL, call_id="call_0"))
                agent = Agent(name="travel", model=model, tools=[openai_travel.book])
                options: dict[str, Any] = {"session": session, "run_config": RunConfig(tracing_disabled=True)}
                await openai_agents.run_with_approvals(ap, agent, "to Oslo", key="trip", **options)
    first, later = keys_sent(service)
    assert first != later


def test_a_run_that_died_is_retried_with_its_own_keys() -> None:
    before: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Where to?"}]
    begun = [{"role": "user", "content": "to Oslo"}, {"type": "function_call", "call_id": "call_0"}]
    for kept in (before, before + begun, before + begun + begun):
        assert openai_agents._before("to Oslo", kept) == before
    ended = [*before, *begun, {"role": "assistant", "content": "Booked."}]
    assert openai_agents._before("to Oslo", ended) == ended
