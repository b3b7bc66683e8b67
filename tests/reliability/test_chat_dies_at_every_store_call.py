"""A turn of the booking chat comes to the same end whichever call of the store its process dies at."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from approvals_bot.agents.chats import ChatForm, Chats
from approvals_bot.approvals.business_time import Calendars
from approvals_bot.approvals.port import Channels
from approvals_bot.durable.engine import Engine, activation
from approvals_bot.durable.engine import scheduler as scheduling
from approvals_bot.people import People, Person
from approvals_bot.service.catalog import Catalog, Listed
from approvals_bot.service.python_workflows import import_programs
from approvals_bot.testing import FakeClock
from tests.support.dying_acts import Act, How, play_acts
from tests.support.histories import SAMPLES
from tests.support.thorough import places

ASK = "Book LH 441 for Ann Ode and LH 442 for Bo Lund"

RESOURCES: dict[type, Any] = {
    People: People([Person("ann@acme.eu", "Ann Ode")], {}),
    Calendars: Calendars({}),
    Channels: Channels({}, "https://example.test", None),
}


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    programs, problems = import_programs(SAMPLES)
    assert problems == []
    found = {program.workflow.name: program.workflow for program in programs}
    return Catalog({"book_flight_chat": Listed(found["book_flight_chat"])})


async def play(catalog: Catalog, path: Path, at: int | None, how: How) -> tuple[Any, int]:
    """What the turn shows, how often each step ran, and how many calls of the store the first process made."""
    clock = FakeClock()
    run_id = ""

    def chats(engine: Engine) -> Chats:
        return Chats(engine, catalog, ChatForm())

    async def begin(engine: Engine) -> None:
        nonlocal run_id
        run_id = await chats(engine).begin([], "c", "ann@acme.eu", "m", ASK)

    async def settle(engine: Engine) -> None:
        await engine.settle()
        await clock.advance("40s")  # a run whose store call was not answered is tried again by then

    def answer(at: int, approved: bool) -> Act:
        async def act(engine: Engine) -> None:
            turn = await chats(engine).turn(run_id)
            await chats(engine).decide(turn, turn.view.tools[at], "ann@acme.eu", approved, "window" if approved else "")

        return act

    async def see(engine: Engine) -> Any:
        await engine.settle()
        await clock.advance("40s")  # a run whose store call was not answered is tried again by then
        turn, log = await chats(engine).turn(run_id), await engine.events(run_id)
        names = {event.data["id"]: event.data["name"] for event in log if "name" in event.data}  # of steps
        ran = Counter(names[event.data["id"]] for event in log if event.type == "step_completed")
        attempts = Counter(names[event.data["id"]] for event in log if event.type == "step_started")
        shown = [(part.tool, part.state, part.output) for part in turn.view.tools]
        return turn.has_ended, shown, ran["book_flight__model.request"], ran["reserve"], max(attempts.values())

    acts: list[Act] = [begin, settle, answer(0, True), settle, answer(1, False), settle, see]
    return await play_acts(acts, path, clock, at, how, RESOURCES)


@pytest.mark.agents(5)
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "how",
    [
        "dies after",
        *(pytest.param(how, marks=pytest.mark.long) for how in ("dies before", "no answer before", "no answer after")),
    ],
)
async def test_a_chat_ends_the_same_whichever_store_call_fails(
    catalog: Catalog, tmp_path: Path, how: How, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activation, "RETRY_STORE", 0.005)
    monkeypatch.setattr(scheduling, "RETRY_STORE", 0.005)
    shown = [
        ("bookingApproval", "done", "Booking approved for Ann Ode on flight LH 441 - Note: window"),
        ("bookingApproval", "denied", "Booking rejected: No reason provided"),
        ("bookFlight", "done", "Booked LH 441 for Ann Ode: $640."),
    ]
    seen, calls = await play(catalog, tmp_path / "calm.db", None, how)
    assert seen == (True, shown, 3, 1, seen[-1])
    assert calls >= 10
    for k in places(calls, how):
        seen, _ = await play(catalog, tmp_path / f"{k}.db", k, how)
        assert seen[:4] == (True, shown, 3, 1), f"{how} store call {k}"
        assert seen[4] <= 4  # three requests to the model, and one more where the process died in it
