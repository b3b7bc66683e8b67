"""Tool calls of a pydantic-ai agent wait for a decision, and run only with what was decided on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, RunContext
from pydantic_ai.capabilities import AbstractCapability, ValidatedToolArgs
from pydantic_ai.exceptions import ApprovalRequired
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.tools import ToolDefinition

from approvals_bot.client import Approvals
from approvals_bot.client.decision import Decision
from approvals_bot.client.digests import digest_of
from approvals_bot.client.pydantic_ai import ApprovalsByPeople, _id_of, approvals, expected_arguments
from approvals_bot.client.words import SENTENCES, UNAVAILABLE
from approvals_bot.errors import ApprovalMismatchError, ServiceUnavailableError
from tests.support.scripted_service import scripted_service

Vote = Callable[[ToolCallPart], Decision]


class People(ApprovalsByPeople[object]):
    """People who vote by a function, and see what the calls ask for."""

    def __init__(self, vote: Vote) -> None:
        self.vote = vote
        self.asked: list[tuple[str, dict[str, Any], str | None, Any]] = []

    async def decide(self, ctx: RunContext[object], call: ToolCallPart, why: str | None) -> Decision:
        self.asked.append((call.tool_name, call.args_as_dict(), why, expected_arguments(ctx, call)))
        return self.vote(call)


def decided(call: ToolCallPart, state: Any = "approved", **more: Any) -> Decision:
    arguments = more.pop("arguments", call.args_as_dict())
    return Decision(
        state=state,
        by="ann@acme.eu",
        name="Ann Ode",
        tool=call.tool_name,
        requested=call.args_as_dict(),
        arguments=arguments,
        digest=digest_of(call.tool_name, arguments),
        **more,
    )


class Seat(BaseModel):
    row: int
    letter: str = "A"


@dataclass
class Bookings:
    """What was booked, by an agent whose model asks for these bookings in one turn."""

    people: People
    wanted: list[dict[str, Any]]
    more: list[AbstractCapability[object]] = field(default_factory=list)
    booked: list[tuple[str, float, Seat | None]] = field(default_factory=list)

    async def run(self) -> list[Any]:
        """Run the agent, and return what its model read."""
        read: list[Any] = []

        async def script(messages: list[ModelMessage], _: AgentInfo) -> ModelResponse:
            last = messages[-1]
            if len(messages) == 1:
                return ModelResponse([ToolCallPart("book", each, f"b{n}") for n, each in enumerate(self.wanted)])
            assert isinstance(last, ModelRequest)
            read.extend(part.content for part in last.parts if isinstance(part, ToolReturnPart))
            return ModelResponse([TextPart("done")])

        agent = Agent(FunctionModel(script), name="travel", capabilities=[*self.more, self.people])

        @agent.tool_plain(requires_approval=True)
        async def book(flight: str, price: float, seat: Seat | None = None) -> str:
            self.booked.append((flight, price, seat))
            return f"booked {flight} for {price:g}"

        await agent.run("book")
        return read


ONE = {"flight": "LH1", "price": 640}
TWO = {"flight": "LH2", "price": 120}


async def test_each_call_of_a_turn_gets_its_own_answer() -> None:
    def vote(call: ToolCallPart) -> Decision:
        cheap = call.args_as_dict()["price"] < 500
        return decided(call) if cheap else decided(call, "rejected", comment="too dear")

    bookings = Bookings(People(vote), [ONE, TWO])
    said = SENTENCES["rejected"].format(by=" by Ann Ode", comment=': "too dear"')
    assert await bookings.run() == [said, "booked LH2 for 120"]
    assert bookings.booked == [("LH2", 120, None)]
    assert [(tool, arguments) for tool, arguments, _, _ in bookings.people.asked] == [("book", ONE), ("book", TWO)]


@pytest.mark.agents(12)
async def test_a_tool_gets_what_the_approver_made_of_its_arguments() -> None:
    def vote(call: ToolCallPart) -> Decision:
        return decided(call, "edited", arguments={"flight": "LH1", "price": 600, "seat": {"row": 7}})

    bookings = Bookings(People(vote), [ONE])
    assert await bookings.run() == ["booked LH1 for 600"]
    assert bookings.booked == [("LH1", 600.0, Seat(row=7))]


@pytest.mark.agents(12)
async def test_an_edit_that_the_tool_refuses_runs_nothing() -> None:
    bookings = Bookings(People(lambda call: decided(call, "edited", arguments={"flight": "LH1"})), [ONE])
    await bookings.run()
    assert bookings.booked == []


@pytest.mark.agents(12)
async def test_edits_are_checked_against_the_schema_of_the_tool() -> None:
    bookings = Bookings(People(decided), [ONE])
    await bookings.run()
    schema = bookings.people.asked[0][3]
    assert schema["required"] == ["flight", "price"]
    assert schema["properties"]["price"] == {"type": "number"}


@pytest.mark.agents(13)
@pytest.mark.parametrize("state", ["rejected", "answered", "expired", "withdrawn", "pending"])
async def test_without_a_yes_the_model_reads_the_words_of_the_table(state: Any) -> None:
    made: list[Decision] = []

    def vote(call: ToolCallPart) -> Decision:
        made.append(decided(call, state, comment="no", at=datetime(2026, 1, 1, 15, 30, tzinfo=UTC)))
        return made[0]

    bookings = Bookings(People(vote), [ONE])
    assert await bookings.run() == [made[0].text]
    assert bookings.booked == []


@pytest.mark.agents(13)
async def test_an_unreachable_service_is_no_yes() -> None:
    def vote(call: ToolCallPart) -> Decision:
        raise ServiceUnavailableError("no route to https://approvals.test")

    bookings = Bookings(People(vote), [ONE])
    assert await bookings.run() == [UNAVAILABLE]
    assert bookings.booked == []


# ── what runs is what was approved ────────────────────────────────────────────────────────────────────────────────


class Changes(AbstractCapability[object]):
    """A hook that changes what a tool gets, after everybody has agreed."""

    def __init__(self, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self.change = change

    async def before_tool_execute(
        self, ctx: RunContext[object], *, call: ToolCallPart, tool_def: ToolDefinition, args: ValidatedToolArgs
    ) -> ValidatedToolArgs:
        return self.change(args)


CHANGES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "a value": lambda given: {**given, "price": 641.0},
    "a type": lambda given: {**given, "price": True},
    "one more": lambda given: {**given, "seat": Seat(row=1)},
    "one less": lambda given: {"flight": given["flight"]},
    "deep inside": lambda given: {**given, "seat": Seat(row=8)},
}


@pytest.mark.agents(11)
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("state", ["approved", "edited"])
async def test_changed_arguments_don_t_run(state: Any, change: str) -> None:
    def vote(call: ToolCallPart) -> Decision:
        return decided(call, state, arguments={"flight": "LH1", "price": 1, "seat": {"row": 7}})

    wanted = {"flight": "LH1", "price": 1, "seat": {"row": 7}}
    bookings = Bookings(People(vote), [wanted], [Changes(CHANGES[change])])
    with pytest.raises(ApprovalMismatchError):
        await bookings.run()
    assert bookings.booked == []


@pytest.mark.agents(11)
async def test_a_decision_about_other_arguments_doesn_t_count() -> None:
    bookings = Bookings(People(lambda call: decided(call, arguments=TWO)), [ONE])
    with pytest.raises(ApprovalMismatchError):
        await bookings.run()
    assert bookings.booked == []


@pytest.mark.agents(11)
async def test_a_decision_whose_digest_is_wrong_doesn_t_count() -> None:
    def vote(call: ToolCallPart) -> Decision:
        return decided(call).model_copy(update={"digest": digest_of("book", TWO)})

    bookings = Bookings(People(vote), [ONE])
    with pytest.raises(ApprovalMismatchError):
        await bookings.run()
    assert bookings.booked == []


# ── ApprovalRequired ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_tool_may_require_approval_and_say_why() -> None:
    async def script(messages: list[ModelMessage], _: AgentInfo) -> ModelResponse:
        if len(messages) == 1:
            return ModelResponse([ToolCallPart("pay", {"amount": 5}, "p1"), ToolCallPart("pay", {"amount": 50}, "p2")])
        return ModelResponse([TextPart("done")])

    people, paid = People(decided), list[int]()
    agent = Agent(FunctionModel(script), name="payer", capabilities=[people])

    @agent.tool
    async def pay(ctx: RunContext[object], amount: int) -> str:
        if amount > 10 and not ctx.tool_call_approved:
            raise ApprovalRequired({"why": "more than 10"})
        paid.append(amount)
        return "paid"

    await agent.run("pay")
    assert sorted(paid) == [5, 50]
    assert [(arguments, why) for _, arguments, why, _ in people.asked] == [({"amount": 50}, "more than 10")]


# ── keys ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_call_with_an_id_of_the_model_is_known_by_it() -> None:
    assert _id_of(ToolCallPart("pay", {"n": 1}, "call_7"), {"n": 1}, []) == "call_7"


@pytest.mark.parametrize("id", ["é", "x" * 101, "a\nb", " "])
def test_an_id_that_is_no_key_is_replaced_by_the_digest(id: str) -> None:
    call = ToolCallPart("book", {"flight": "LH 441"}, id)
    assert _id_of(call, call.args_as_dict(), [ModelResponse([call])]) == f"{digest_of('book', call.args_as_dict())}.1"


def test_an_id_that_a_model_repeats_is_another_call() -> None:
    parts = [ToolCallPart("pay", {"n": 1}, "call_7") for _ in range(2)]
    messages: list[ModelMessage] = [ModelResponse(parts[:1]), ModelRequest([]), ModelResponse(parts[1:])]
    assert _id_of(parts[1], {"n": 1}, messages) == "call_7.2"


def test_calls_without_an_id_are_known_by_digest_and_number() -> None:
    def history() -> list[ToolCallPart]:
        return [ToolCallPart("pay", {"n": n}) for n in (1, 2, 1)]

    def ids(parts: list[ToolCallPart]) -> list[str]:
        messages: list[ModelMessage] = [ModelResponse(parts[:2]), ModelRequest([]), ModelResponse(parts[2:])]
        return [_id_of(part, part.args_as_dict(), messages) for part in parts]

    one, two = digest_of("pay", {"n": 1}), digest_of("pay", {"n": 2})
    first, again = history(), history()
    assert [part.tool_call_id for part in first] != [part.tool_call_id for part in again]
    assert ids(first) == ids(again) == [f"{one}.1", f"{two}.1", f"{one}.2"]


@pytest.mark.agents(9)
async def test_an_old_yes_is_not_for_a_run_with_a_trimmed_history() -> None:
    async def script(messages: list[ModelMessage], _: AgentInfo) -> ModelResponse:
        last = messages[-1].parts[-1]
        called = last.part_kind == "tool-return"
        return ModelResponse([TextPart("done")] if called else [ToolCallPart("book", {"n": 1}, "call_0")])

    asked: list[str] = []
    history: list[ModelMessage] = [ModelRequest([UserPromptPart("hello")]), ModelResponse([TextPart("Where to?")])]
    with scripted_service((500, {})) as service:
        async with Approvals(service.url, "key") as ap:
            agent = Agent(FunctionModel(script), name="travel", capabilities=[approvals(ap, key="trip", wait=0.05)])
            agent.tool_plain(requires_approval=True)(book)
            runs: tuple[list[ModelMessage], ...] = ([], [], history, history, history[1:])
            for given in runs:
                await agent.run("to Oslo", message_history=given)
                asked.append({k.lower(): v for k, v in service.received[-1].headers.items()}["idempotency-key"])
    first, again, second, retried, trimmed = asked
    assert first == again == "trip:call_0"
    assert second == retried
    assert len({first, second, trimmed}) == 3


def book(n: int) -> str:
    return f"booked {n}"
