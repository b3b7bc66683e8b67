"""Agents of OpenAI's SDK in workflows: `hold` between two pauses, `durable` call by call."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from agents import Agent, ModelResponse, RunHooks, WebSearchTool, function_tool
from agents.testing import function_call
from openai import BadRequestError
from pydantic import BaseModel

import approvals_bot.agents.openai as adapter
from approvals_bot import workflow
from approvals_bot.agents.openai import durable, hold
from approvals_bot.client.decision import Decision
from approvals_bot.client.digests import digest_of
from approvals_bot.client.openai import ToolGuard, calls_of
from approvals_bot.client.paused_calls import CallKeys, DecidedCall, PausedCall
from approvals_bot.errors import ApprovalMismatchError, InvalidArgumentError, RunFailedError
from tests.agents.deciding import all_calls, decide, end_of, open_calls
from tests.agents.openai_travel import Scripted, book, happened, travel
from tests.approvals.conftest import ANN, BO, office

__all__ = ["office"]

KINDS = {"held": travel, "durable": durable(travel)}
both = pytest.mark.parametrize("kind", list(KINDS))


@pytest.fixture(autouse=True)
def _nothing_has_happened() -> Iterator[None]:
    happened.clear()
    yield
    KINDS.update(held=travel, durable=durable(travel))


@workflow(name="openai agents: travel")
async def travels(kind: str, options: dict[str, Any] | None = None) -> Any:
    return await hold(KINDS[kind], "to Oslo", to=[ANN, BO], **(options or {}))


@both
@pytest.mark.agents(12)
async def test_each_call_gets_its_own_answer_in_any_order(office: Any, kind: str) -> None:
    async with office.open():
        run = await office.engine.start(travels, kind)
        calls = await open_calls(office, run, 3)
        assert calls["call_1"].fields["arguments"] == {"flight": "LH1", "price": 640}
        await decide(office, calls["call_3"], "answer", comment="Take the train")
        await decide(office, calls["call_2"], "reject", comment="too early")
        refused = await decide(office, calls["call_1"], "edit", answers={"price": "dear"})
        assert refused["verdict"] == "invalid"
        assert set(happened) == {"model"}, "the agent waits for all calls of its turn"
        await decide(office, calls["call_1"], "edit", answers={"price": 600})
        booked, rejected, answered = json.loads(await end_of(run))
    assert booked == "booked LH1 for 600"
    assert rejected.startswith('Rejected by Ann Ode: "too early"')
    assert answered.startswith('Ann Ode answers: "Take the train"')
    assert happened == {"model": 1, "book LH1 600": 1, "model again": 1}


@both
@pytest.mark.agents(6)
async def test_a_week_and_a_restart_between_question_and_answer(office: Any, kind: str) -> None:
    async with office.open():
        run = await office.engine.start(travels, kind, {"deadline": "30 days"})
        await open_calls(office, run, 3)
    await office.clock.advance("7 days")
    async with office.open():
        run = office.engine.get_run(run.id)
        for view in (await open_calls(office, run, 3)).values():
            await decide(office, view, "approve")
        assert json.loads(await end_of(run)) == ["booked LH1 for 640", "booked LH2 for 120", "booked LH3 for 30"]
    assert set(happened.values()) == {1}


@both
@pytest.mark.agents(13)
async def test_silence_and_withdrawal_run_nothing(office: Any, kind: str) -> None:
    async with office.open():
        run = await office.engine.start(travels, kind)
        await open_calls(office, run, 3)
        await office.clock.advance("16m")
        outputs = json.loads(await end_of(run))
        assert all("Silence is not consent" in each for each in outputs)
        cancelled = await office.engine.start(travels, kind)
        await open_calls(office, cancelled, 3)
        await cancelled.cancel(reason="not needed")
        await office.settle()
    assert not [each for each in happened if each.startswith("book")]


class Tampering(RunHooks[Any]):
    """Changes the arguments in front of the tool."""

    async def on_tool_start(self, context: Any, agent: Any, tool: Any) -> None:
        context.tool_call.arguments = json.dumps({"flight": "LH1", "price": 6400})


@workflow(name="openai agents: tampered")
async def tampered(kind: str) -> Any:
    return await hold(KINDS[kind], "to Oslo", to=ANN, hooks=Tampering())


@both
@pytest.mark.agents(11)
async def test_other_arguments_than_those_decided_on_run_nothing(office: Any, kind: str) -> None:
    async with office.open():
        run = await office.engine.start(tampered, kind)
        for view in (await open_calls(office, run, 3)).values():
            await decide(office, view, "approve")
        with pytest.raises(RunFailedError) as failed:
            await end_of(run)
    assert failed.value.cause_type.endswith("ApprovalMismatchError")
    assert set(happened) == {"model"}


@pytest.mark.agents(11)
async def test_a_state_that_waits_for_other_calls_is_a_mismatch() -> None:
    guard = ToolGuard(travel)
    result = await guard.run("to Oslo", {})
    state = result.to_state()
    call = calls_of(result.interruptions)[0]
    other = PausedCall(call.id, call.tool, call.arguments | {"price": 1}, call.agent)
    decision = Decision(state="approved", tool="book", arguments=other.arguments)
    with pytest.raises(ApprovalMismatchError):
        guard.apply(state, [DecidedCall(other, decision)])


@pytest.mark.drifts
async def test_a_state_of_another_version_stalls_the_run(office: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with office.open():
        run = await office.engine.start(travels, "held")
        await open_calls(office, run, 3)
    monkeypatch.setattr(adapter, "CURRENT_SCHEMA_VERSION", "9.9")
    async with office.open():
        await office.settle()
        calls = await all_calls(office, run)
        await decide(office, calls[0], "approve")
        record = await office.engine.record(run.id)
        assert record.status == "stalled"
        assert "9.9" in str(record.stalled)
    monkeypatch.undo()
    async with office.open():
        run = office.engine.get_run(run.id)
        for view in calls[1:]:
            await decide(office, view, "approve")
        assert len(json.loads(await end_of(run))) == 3
    assert happened["model"] == 1


@both
@pytest.mark.drifts
async def test_a_renamed_tool_stalls_and_a_new_one_does_not(office: Any, kind: str) -> None:
    @function_tool(needs_approval=True, name_override="reserve")
    async def renamed(flight: str, price: int) -> str:
        return "reserved"

    @function_tool
    async def hotels(city: str) -> str:
        return "none"

    def changed(*tools: Any) -> Agent[Any]:
        agent = Agent(name="travel", model=Scripted(), tools=list(tools), instructions="Be nice.")
        return durable(agent) if kind == "durable" else agent

    async with office.open():
        run = await office.engine.start(travels, kind)
        await open_calls(office, run, 3)
    KINDS[kind] = changed(renamed)
    async with office.open():
        for view in await all_calls(office, run):
            await decide(office, view, "approve")
        record = await office.engine.record(run.id)
        assert record.status == "stalled", record.error
        assert "book" in str(record.stalled)
    KINDS[kind] = changed(book, hotels)
    async with office.open():
        await office.settle()
        assert len(json.loads(await end_of(office.engine.get_run(run.id)))) == 3
    assert happened["model"] == 1
    assert happened["book LH1 640"] == 1


# ── handoffs, outputs, policies ───────────────────────────────────────────────────────────────────────────────────


class Trip(BaseModel):
    flight: str
    price: int


class Booker(Scripted):
    async def get_response(self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any) -> Any:
        response: Any = await super().get_response(system_instructions, input, *args, **kwargs)
        circles = sum("transfer_to" in str(one.get("name")) for one in input)
        outputs = [one for one in input if one.get("type") == "function_call_output"]
        if circles and len(outputs) == 1:
            response.output = list(self.first)
        elif len(outputs) > 1:
            response.output[0].content[0].text = '{"flight": "LH1", "price": 640}'
        return response


clerk = Agent(
    name="clerk",
    model=Booker(function_call("book", {"flight": "LH1", "price": 640}, call_id="call_c")),
    tools=[book, WebSearchTool()],
    output_type=Trip,
)
front = Agent(name="front", model=Scripted(function_call("transfer_to_clerk", {}, call_id="call_h")), handoffs=[clerk])
clerk.handoffs = [front]  # agents may hand off in a circle
DESKS = {"held": front, "durable": durable(front)}


@workflow(name="openai agents: circle")
async def circles(kind: str) -> dict[str, Any]:
    trip = await hold(DESKS[kind], "to Oslo", to=ANN)
    assert isinstance(trip, Trip)
    return trip.model_dump()


@both
async def test_an_agent_reached_by_handoff_waits_as_well(office: Any, kind: str) -> None:
    async with office.open():
        run = await office.engine.start(circles, kind)
        calls = await open_calls(office, run, 1)
        assert calls["call_c"].fields["agent"] == "clerk"
        await decide(office, calls["call_c"], "approve")
        assert await end_of(run) == {"flight": "LH1", "price": 640}
        steps = [e.data["name"] for e in await office.engine.events(run.id) if e.type == "step_created"]
    assert happened["book LH1 640"] == 1
    if kind == "durable":
        asked = [each for each in steps if "__" in each]
        assert asked == [
            "front__model.request",
            "clerk__model.request",
            "clerk__call_tool:book",
            "clerk__model.request",
        ]


async def test_a_policy_sees_what_the_tool_gets() -> None:
    @function_tool(needs_approval=lambda context, arguments, call_id: _is_dear(arguments))
    async def pay(price: int, currency: str = "EUR") -> str:
        return f"paid {price} {currency}"

    async def paused(**arguments: Any) -> int:
        call = function_call("pay", arguments, call_id="call_p")
        result = await ToolGuard(Agent(name="payer", model=Scripted(call), tools=[pay])).run("pay", {})
        return len(result.interruptions)

    assert await paused(price=700, currency="EUR") == 1
    assert await paused(price=7, currency="EUR") == 0
    assert await paused(price="7", currency="EUR") == 1, "validation changes it, so the policy has not seen it"


async def _is_dear(arguments: dict[str, Any]) -> bool:
    return bool(arguments["price"] > 100)


async def test_arguments_that_are_no_json_are_refused_unasked() -> None:
    broken: Any = function_call("book", {}, call_id="call_x")
    broken.arguments = '{"flight": '
    guard = ToolGuard(Agent(name="travel", model=Scripted(broken), tools=[book]))
    result = await guard.run("to Oslo", {})
    assert calls_of(result.interruptions) == []
    state = result.to_state()
    guard.apply(state, [])
    assert "not a JSON object" in (await guard.run(state, {})).final_output
    assert not happened["book"]


def test_calls_without_an_id_are_known_by_their_digest() -> None:
    keys, call = CallKeys(), PausedCall("", "book", {"flight": "LH1"})
    digest = digest_of("book", {"flight": "LH1"})
    assert [keys.key_of(call), keys.key_of(call)] == [f"{digest}.1", f"{digest}.2"]
    again = PausedCall("call_1", "book", {})
    assert [keys.key_of(again), keys.key_of(again)] == ["call_1", "call_1.2"], "some models number each answer from 0"


def test_what_can_not_be_recorded_call_by_call_is_refused() -> None:
    nested = Agent(name="nested", model=Scripted(), tools=[book])
    with pytest.raises(InvalidArgumentError, match="nested"):
        durable(Agent(name="outer", tools=[nested.as_tool("ask_nested", "asks")]))
    assert durable(Agent(name="outer", tools=[durable(nested).as_tool("ask_nested", "asks")]))


@workflow(name="openai agents: nested")
async def asks_nested(kind: str) -> Any:
    inner = durable(travel) if kind == "durable" else travel
    call = function_call("ask_travel", {"input": "to Oslo"}, call_id="call_n")
    outer = Agent(name="outer", model=Scripted(call), tools=[inner.as_tool("ask_travel", "asks")])
    return await hold(durable(outer) if kind == "durable" else outer, "to Oslo", to=ANN)


@both
async def test_tools_of_an_agent_that_is_a_tool_wait_as_well(office: Any, kind: str) -> None:
    async with office.open():
        run = await office.engine.start(asks_nested, kind)
        calls = await open_calls(office, run, 3)
        await decide(office, calls["call_1"], "approve")
        await decide(office, calls["call_2"], "edit", answers={"price": 1})
        await decide(office, calls["call_3"], "reject", comment="no")
        (said,) = json.loads(await end_of(run))
    assert "booked LH1 for 640" in said
    assert "this kind of tool can't take" in said
    assert {each for each in happened if each.startswith("book")} == {"book LH1 640"}


KEY = "sk-proj-Of4The2Author"


class Refusing(Scripted):
    """A model whose provider refuses the key, and quotes it."""

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        said = {"error": {"message": f"Incorrect API key provided: {KEY}", "code": "invalid_api_key"}}
        response = httpx2.Response(400, request=httpx2.Request("POST", "https://models.test"))
        raise BadRequestError(f"Error code: 400 - {said}", response=response, body=said)


REFUSED: dict[str, Agent[Any]] = {"held": Agent(name="refused", model=Refusing())}
REFUSED["durable"] = durable(REFUSED["held"])


@workflow(name="openai agents: refused")
async def refused_travel(kind: str) -> Any:
    return await hold(REFUSED[kind], "to Oslo", to=ANN)


@both
async def test_a_key_that_a_provider_quotes_is_not_logged(office: Any, kind: str) -> None:
    async with office.open():
        run = await office.engine.start(refused_travel, kind)
        with pytest.raises(RunFailedError, match="invalid_api_key") as failed:
            await end_of(run)
        assert KEY not in str(failed.value) + str(await run.events())
