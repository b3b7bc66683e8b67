"""An agent of pydantic-ai with `Durable()`: its requests to a model and its tool calls are steps."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterable
from typing import Any

import pytest
from pydantic_ai import Agent, RunContext, UserError
from pydantic_ai.exceptions import ModelAPIError, ModelHTTPError, ModelRetry
from pydantic_ai.messages import (
    AgentStreamEvent,
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
)
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.test import TestModel

from approvals_bot import DefinitionError, create_hook, run_child, step, workflow
from approvals_bot.agents.pydantic_ai import Durable
from approvals_bot.durable.engine import Engine
from approvals_bot.errors import RunFailedError
from approvals_bot.testing.fixtures import OpenEngine

happened: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def _nothing_has_happened() -> None:
    happened.clear()


def calls(tool: str, *arguments: dict[str, Any]) -> ModelResponse:
    return ModelResponse([ToolCallPart(tool, each, f"{tool}-{n}") for n, each in enumerate(arguments or ({},), 1)])


def results(messages: list[ModelMessage]) -> list[Any]:
    """Return what the tools returned that the model called last."""
    last = messages[-1]
    assert isinstance(last, ModelRequest)
    return [part.content for part in last.parts if isinstance(part, ToolReturnPart)]


def says(*responses: ModelResponse) -> FunctionModel:
    """Return a model that gives these responses one after the other, and then the last tools' results as text."""

    async def script(messages: list[ModelMessage], _: AgentInfo) -> ModelResponse:
        turn = sum(isinstance(each, ModelResponse) for each in messages)
        happened[f"model {turn}"] += 1
        return responses[turn] if turn < len(responses) else ModelResponse([TextPart(str(results(messages)))])

    return FunctionModel(script)


async def steps_of(engine: Engine, run_id: str) -> list[str]:
    return [event.data["name"] for event in await engine.events(run_id) if event.type == "step_created"]


async def ends(engine: Engine, run_id: str) -> Any:
    return await asyncio.wait_for(engine.get_run(run_id).return_value(), 20)


# ── steps ─────────────────────────────────────────────────────────────────────────────────────────────────────────

searcher = Agent(says(calls("search", {"to": "OSL"}, {"to": "CPH"})), name="searcher", capabilities=[Durable()])


@searcher.instructions
def be_nice(ctx: RunContext[object]) -> str:
    return f"Be nice. {ctx.run_step}"


@searcher.tool_plain
def search(to: str) -> list[str]:
    happened[f"search {to}"] += 1
    return [f"{to} 1", f"{to} 2"]


@workflow(name="durable agents: search")
async def searches(question: str) -> str:
    return (await searcher.run(question)).output


async def test_requests_and_tool_calls_are_steps_of_their_names(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        run = await engine.start(searches, "to Oslo")
        assert await ends(engine, run.id) == "[['OSL 1', 'OSL 2'], ['CPH 1', 'CPH 2']]"
        assert await steps_of(engine, run.id) == [
            "searcher__model.request",
            "searcher__function_toolset__<agent>.call_tool:search",
            "searcher__function_toolset__<agent>.call_tool:search",
            "searcher__model.request",
        ]
    assert set(happened.values()) == {1}


async def test_outside_a_workflow_nothing_changes() -> None:
    assert (await searcher.run("to Oslo")).output == "[['OSL 1', 'OSL 2'], ['CPH 1', 'CPH 2']]"


# ── tools in the workflow ─────────────────────────────────────────────────────────────────────────────────────────

asker = Agent(says(calls("ask", {"what": "a"}, {"what": "b"})), name="asker", capabilities=[Durable()])


@step
async def note(what: str) -> str:
    happened[f"note {what}"] += 1
    return what.upper()


@asker.tool_plain(metadata={"approvals_bot": False})
async def ask(what: str) -> str:
    answer: str = await create_hook(token=f"asks-{what}")
    return f"{await note(what)}: {answer}"


@asker.tool_plain(metadata={"approvals_bot": False})
def pure(what: str) -> str:
    return what


@workflow(name="durable agents: ask")
async def asks() -> str:
    return (await asker.run("?")).output


async def test_a_tool_may_run_in_the_workflow_and_wait_there(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        run = await engine.start(asks)
        await engine.settle()
        await engine.resume_hook("asks-b", "second")
    async with open_engine() as engine:
        await engine.resume_hook("asks-a", "first")
        assert await ends(engine, run.id) == "['A: first', 'B: second']"
        assert sorted(await steps_of(engine, run.id)) == ["asker__model.request"] * 2 + ["note"] * 2
    assert set(happened.values()) == {1}


async def test_a_plain_function_may_run_in_the_workflow(open_engine: OpenEngine) -> None:
    agent = Agent(says(calls("pure", {"what": "a"})), name="purist", capabilities=[Durable()])
    agent.tool_plain(metadata={"approvals_bot": False})(pure)

    @workflow(name="durable agents: pure")
    async def purely() -> str:
        return (await agent.run("?")).output

    async with open_engine() as engine:
        run = await engine.start(purely)
        assert await ends(engine, run.id) == "['a']"
        assert await steps_of(engine, run.id) == ["purist__model.request"] * 2


# ── attempts ──────────────────────────────────────────────────────────────────────────────────────────────────────

shaky = Agent(
    says(calls("once"), calls("often")),
    name="shaky",
    capabilities=[Durable(model_step={"retry_delay": 1}, tool_step={"retry_delay": 1})],
)


@shaky.tool_plain(metadata={"approvals_bot": {"retries": 2}})
async def often() -> str:
    happened["often"] += 1
    if happened["often"] < 3:
        raise OSError("not yet")
    return "done"


@shaky.tool_plain
async def once() -> str:
    happened["once"] += 1
    if happened["may fail"]:
        raise OSError("it may have been paid")
    return "paid"


@workflow(name="durable agents: attempts")
async def tries() -> str:
    return (await shaky.run("?")).output


async def test_a_tool_is_attempted_as_its_metadata_says(open_engine: OpenEngine, clock: Any) -> None:
    async with open_engine() as engine:
        run = await engine.start(tries)
        await clock.advance("1m")
        assert await ends(engine, run.id) == "['done']"
    assert happened["often"] == 3


async def test_a_tool_is_attempted_once_by_default(open_engine: OpenEngine, clock: Any) -> None:
    happened["may fail"] = 1
    async with open_engine() as engine:
        run = await engine.start(tries)
        await clock.advance("1h")
        with pytest.raises(RunFailedError, match="it may have been paid"):
            await ends(engine, run.id)
    assert happened["once"] == 1


@pytest.mark.parametrize(("status", "attempts"), [(401, 1), (429, 4), (503, 4)])
async def test_a_request_is_repeated_where_that_may_help(
    open_engine: OpenEngine, clock: Any, status: int, attempts: int
) -> None:
    async def fails(messages: list[ModelMessage], _: AgentInfo) -> ModelResponse:
        happened["model"] += 1
        raise ModelHTTPError(status, "a-model", "no")

    agent = Agent(FunctionModel(fails), name="failing", capabilities=[Durable(model_step={"retry_delay": 1})])

    @workflow(name=f"durable agents: status {status}")
    async def requests() -> str:
        try:
            return (await agent.run("?")).output
        except ModelHTTPError as error:
            return f"{error.status_code} {error.model_name}"

    async with open_engine() as engine:
        run = await engine.start(requests)
        await clock.advance("1h")
        assert await ends(engine, run.id) == f"{status} a-model"
    assert happened["model"] == attempts


KEY = "sk-proj-Of4The2Author"
QUOTES_KEY = (
    ModelHTTPError(503, "a-model", {"error": {"message": f"{KEY} has no quota left", "code": "overloaded"}}),
    ModelHTTPError(401, "a-model", {"error": {"message": f"Incorrect API key: {KEY}"}}),
    ModelAPIError("a-model", f"Illegal header value b'Bearer {KEY}'"),
    UnicodeEncodeError("ascii", f"Bearer {KEY}…", 28, 29, "ordinal not in range(128)"),
)


@pytest.mark.parametrize("error", QUOTES_KEY, ids=lambda error: type(error).__name__ + str(error)[:16])
async def test_a_provider_that_is_down_fails_the_run(open_engine: OpenEngine, clock: Any, error: Exception) -> None:
    async def fails(messages: list[ModelMessage], _: AgentInfo) -> ModelResponse:
        raise error

    agent = Agent(FunctionModel(fails), name="down", capabilities=[Durable()])

    @workflow(name=f"durable agents: down {QUOTES_KEY.index(error)}")
    async def requests() -> str:
        return (await agent.run("?")).output

    async with open_engine() as engine:
        run = await engine.start(requests)
        await clock.advance("1h")
        with pytest.raises(RunFailedError) as failed:
            await ends(engine, run.id)
        assert KEY not in str(await engine.events(run.id)) + str(failed.value)
        if isinstance(error, ModelHTTPError):
            assert f"status_code: {error.status_code}, model_name: a-model" in str(failed.value)


async def test_a_model_that_answers_nonsense_fails_the_run(open_engine: OpenEngine) -> None:
    agent = Agent(says(*(calls("no such tool") for _ in range(5))), name="nonsense", capabilities=[Durable()])

    @workflow(name="durable agents: nonsense")
    async def answers() -> str:
        return (await agent.run("?")).output

    async with open_engine() as engine:
        run = await engine.start(answers)
        with pytest.raises(RunFailedError, match="no such tool"):
            await ends(engine, run.id)


async def test_a_retry_that_a_tool_asks_for_is_no_failed_step(open_engine: OpenEngine) -> None:
    agent = Agent(says(calls("picky", {"n": 1}), calls("picky", {"n": 2})), name="picky", capabilities=[Durable()])

    @agent.tool_plain
    async def picky(n: int) -> str:
        happened[f"picky {n}"] += 1
        if n == 1:
            raise ModelRetry("two, please")
        return f"got {n}"

    @workflow(name="durable agents: picky")
    async def picks() -> str:
        return (await agent.run("?")).output

    async with open_engine() as engine:
        run = await engine.start(picks)
        assert await ends(engine, run.id) == "['got 2']"
        assert "step_failed" not in [event.type for event in await engine.events(run.id)]
    assert set(happened.values()) == {1}


# ── identity ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_run_and_conversation_come_from_the_run(open_engine: OpenEngine) -> None:
    agent = Agent(TestModel(), name="twins", capabilities=[Durable()])

    @workflow(name="durable agents: ids")
    async def names() -> list[str]:
        first, second = await asyncio.gather(agent.run("?"), agent.run("!"))
        return [first.run_id, first.conversation_id, second.run_id, second.conversation_id]

    async with open_engine() as engine:
        run = await engine.start(names)
        first, conversation, second, other = await ends(engine, run.id)
    assert (first, second) == (f"{run.id}:1", f"{run.id}:2")
    assert conversation != other


def test_an_agent_without_a_name_is_refused() -> None:
    with pytest.raises(UserError, match="needs to have a unique `name`"):
        Agent(TestModel(), capabilities=[Durable()])


@pytest.mark.parametrize("options", [{"retries": -1}, {"timeout": 0}, {"backoff": 0.5}])
def test_options_that_make_no_sense_are_refused_at_once(options: Any) -> None:
    with pytest.raises(DefinitionError):
        Durable(model_step=options)
    with pytest.raises(DefinitionError):
        Durable(tool_step=options)


# ── models and events ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_run_chooses_one_of_the_models(open_engine: OpenEngine) -> None:
    cheap = TestModel(custom_output_text="cheap")
    agent = Agent(TestModel(custom_output_text="dear"), name="chooser", capabilities=[Durable(models={"cheap": cheap})])

    @workflow(name="durable agents: models")
    async def chooses() -> list[str]:
        return [(await agent.run("?")).output, (await agent.run("?", model="cheap")).output]

    async with open_engine() as engine:
        run = await engine.start(chooses)
        assert await ends(engine, run.id) == ["dear", "cheap"]
        assert await steps_of(engine, run.id) == ["chooser__model.request", "chooser__model.request.cheap"]


async def test_a_handler_gets_the_events_of_a_run(open_engine: OpenEngine) -> None:
    async def handle(ctx: RunContext[None], events: AsyncIterable[AgentStreamEvent]) -> None:
        async for event in events:
            happened[type(event).__name__] += 1

    agent = Agent(TestModel(), name="streamer", capabilities=[Durable(event_stream_handler=handle)])

    @agent.tool_plain
    async def look() -> str:
        return "seen"

    @workflow(name="durable agents: events")
    async def streams() -> str:
        return (await agent.run("?")).output

    async with open_engine() as engine:
        run = await engine.start(streams)
        assert await ends(engine, run.id) == '{"look":"seen"}'
        assert (await steps_of(engine, run.id))[0] == "streamer__model.request_stream"
    assert happened["FunctionToolCallEvent"] == happened["FunctionToolResultEvent"] == 1
    assert happened["PartStartEvent"] >= 2


async def test_an_agent_may_work_in_a_child_or_in_a_tool(open_engine: OpenEngine) -> None:
    outer = Agent(says(calls("delegate")), name="outer", capabilities=[Durable()])

    @outer.tool_plain
    async def delegate() -> str:
        return (await searcher.run("to Oslo")).output  # in the step of this tool

    @workflow(name="durable agents: delegates")
    async def delegates() -> list[str]:
        return [(await outer.run("?")).output, await run_child(searches, "to Oslo")]

    async with open_engine() as engine:
        run = await engine.start(delegates)
        found = "[['OSL 1', 'OSL 2'], ['CPH 1', 'CPH 2']]"
        assert await ends(engine, run.id) == [str([found]), found]
    assert happened["search OSL"] == 2
