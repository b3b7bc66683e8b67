"""A turn of the booking chat from its message to the end; its log is kept in tests/histories."""

from __future__ import annotations

from approvals_bot.agents.chats import ChatForm, Chats
from approvals_bot.approvals.business_time import Calendars
from approvals_bot.approvals.port import Channels
from approvals_bot.people import People, Person
from approvals_bot.service.catalog import Catalog, Listed
from approvals_bot.service.python_workflows import import_programs
from approvals_bot.testing.fixtures import OpenEngine
from tests.support.histories import SAMPLES

ASK = "Book LH 441 for Ann Ode and LH 442 for Bo Lund"


async def test_a_booking_with_one_yes_and_one_no(open_engine: OpenEngine) -> None:
    workflow = next(each.workflow for each in import_programs(SAMPLES)[0] if each.workflow.name == "book_flight_chat")
    resources = [
        People([Person("ann@acme.eu", "Ann Ode")], {}),
        Calendars({}),
        Channels({}, "https://example.test", None),
    ]
    async with open_engine(
        resources=resources, signing_keys=["a test's key, 32 bytes and longer"], base_url="https://example.test"
    ) as engine:
        chats = Chats(engine, Catalog({"book_flight_chat": Listed(workflow)}), ChatForm())
        run_id = await chats.begin([], "c", "ann@acme.eu", "m", ASK)
        for number, is_yes in enumerate((True, False)):
            await engine.settle()
            turn = await chats.turn(run_id)
            await chats.decide(turn, turn.view.tools[number], "ann@acme.eu", is_yes, "window" if is_yes else "")
        await engine.settle()
        turn = await chats.turn(run_id)
        assert turn.has_ended
        assert [(part.tool, part.state) for part in turn.view.tools] == [
            ("bookingApproval", "done"),
            ("bookingApproval", "denied"),
            ("bookFlight", "done"),
        ]
