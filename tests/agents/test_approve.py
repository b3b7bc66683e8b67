"""`approve` in workflows: what a person decides is what the agent gets, call by call."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from approvals_bot import workflow
from approvals_bot.agents import ChatContext, ChatTurn, approve
from approvals_bot.approvals.card import shown_of
from approvals_bot.approvals.request import Request
from approvals_bot.client.decision import Decision
from approvals_bot.client.digests import digest_of
from approvals_bot.durable.core.api import WebhookRequest
from approvals_bot.durable.engine import Run
from approvals_bot.errors import ApprovalMismatchError, RunFailedError
from approvals_bot.service.read import requests_of
from tests.approvals.conftest import ANN, BO, office

__all__ = ["office"]

BOOKING: dict[str, Any] = {
    "flightNumber": "LH 441",
    "price": 640,
    "seats": [{"row": 12, "letter": "A"}],
    "note": None,
}
TAKES: dict[str, Any] = {
    "type": "object",
    "properties": {
        "price": {"type": "integer", "minimum": 1, "maximum": 900},
        "note": {"type": ["string", "null"], "maxLength": 10},
    },
    "required": ["price"],
}


@workflow
async def books_by_agent(calls: list[dict[str, Any]], options: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    decisions = await asyncio.gather(
        *(
            approve(
                call.get("tool", "bookFlight"),
                call["arguments"],
                tool_call_id=call["id"],
                **({"to": [ANN, BO], "agent": "travel", "expects": TAKES} | (options or {})),
            )
            for call in calls
        )
    )
    return [decision.model_dump(mode="json") | {"text": decision.text} for decision in decisions]


async def started(office: Any, *arguments: dict[str, Any], **options: Any) -> tuple[Run[Any], list[Request]]:
    calls = [{"id": f"call_{number}", "arguments": each} for number, each in enumerate(arguments)]
    run = await office.engine.start(books_by_agent, calls, options)
    await office.settle()
    return run, await open_requests(office, run)


async def open_requests(office: Any, run: Run[Any]) -> list[Request]:
    record = await office.engine.record(run.id)
    assert record.status in ("running", "completed", "cancelled"), record.error
    return list(requests_of(record))


async def send(office: Any, view: Request, **message: Any) -> dict[str, Any]:
    hook = await office.engine.find_hook(view.hook_id)
    given = {"kind": "vote", "by": ANN, "choice": "approve", "via": "api"} | message
    answer = await office.engine.resume_webhook(hook.token, WebhookRequest.of_json(given), timeout=20)
    await office.settle()
    found: dict[str, Any] = json.loads(bytes(answer.body))
    return found


async def test_an_approved_call_comes_back_with_its_digest(office: Any) -> None:
    async with office.open():
        run, (view,) = await started(office, BOOKING)
        assert view.title == "travel: bookFlight"
        assert view.digest == digest_of("bookFlight", BOOKING)
        assert [(field.label, field.value, field.kind) for field in shown_of(view)] == [
            ("Tool", "bookFlight", "code"),
            ("Flight number", "LH 441", "short"),
            ("Price", "640", "short"),
            ("Seats", 'seats.0.letter: "A"\nseats.0.row: 12', "json"),
            ("Note", "empty", "short"),
            ("Agent", "travel", "short"),
        ]
        assert (await send(office, view))["verdict"] == "decided"
        (found,) = await run.return_value()
        decision = Decision.model_validate({key: found[key] for key in Decision.model_fields})
        assert (decision.state, decision.by, decision.name) == ("approved", ANN, "Ann Ode")
        decision.require(BOOKING)
        with pytest.raises(ApprovalMismatchError):
            decision.require(BOOKING | {"price": 641})


async def test_no_and_answers_and_silence_are_different_states(office: Any) -> None:
    async with office.open():
        run, views = await started(office, BOOKING, BOOKING | {"price": 2}, BOOKING | {"price": 3})
        assert [view.number for view in views] == [1, 2, 3]
        assert (await send(office, views[0], choice="reject"))["verdict"] == "decided", "a comment is optional"
        refused = await send(office, views[1], choice="answer")
        assert refused["text"].startswith("Please write your answer.")
        assert (await send(office, views[1], choice="answer", comment="Take the train"))["verdict"] == "decided"
        await office.clock.advance(15 * 60)
        found = await run.return_value()
        assert [one["state"] for one in found] == ["rejected", "answered", "expired"]
        assert found[1]["comment"] == "Take the train"
        assert (found[2]["by"], found[2]["via"]) == (None, "clock")
        assert "Ann Ode" in found[0]["text"]
        assert "Silence is not consent" in found[2]["text"]


async def test_a_withdrawn_request_lets_no_tool_run(office: Any) -> None:
    async with office.open():
        run = await office.engine.start(
            books_by_agent, [{"id": "a", "arguments": BOOKING}], {"on_behalf_of": "di@acme.eu"}
        )
        await office.settle()
        (view,) = await open_requests(office, run)
        await send(office, view, kind="withdraw", by="di@acme.eu", reason="not needed")
        (found,) = await run.return_value()
        assert (found["state"], found["comment"]) == ("withdrawn", "not needed")


async def test_an_approver_edits_leaves_and_the_digest_follows(office: Any) -> None:
    async with office.open():
        run, (view,) = await started(office, BOOKING)
        for answers, why in [
            ({"price": "600"}, "price: must be a number, like 12 or 12.5."),
            ({"price": 950}, "price: must be at most 900."),
            ({"price": 600.5}, "price: must be a whole number."),
            ({"note": "much too long a note"}, "note: is too long: 20 characters, and at most 10 are allowed."),
            ({"seats.0.row": True}, "seats.0.row: must be a number"),
            ({"seats": {}}, "seats: must be a list."),
            ({"seats.1.row": 1}, "seats.1.row: no such field"),
            ({"tool": "other"}, "“tool” can't be changed here"),
            ({"price": 2**53}, "price: must be between"),
        ]:
            reply = await send(office, view, choice="edit", answers=answers)
            assert (reply["verdict"], reply["changed"]) == ("invalid", False), answers
            assert why in reply["text"], (answers, reply["text"])
        (view,) = await open_requests(office, run)
        assert view.is_open
        edits = {"price": 600, "seats.0.row": 14, "note": "window"}
        assert (await send(office, view, choice="edit", answers=edits))["verdict"] == "decided"
        (found,) = await run.return_value()
        edited = BOOKING | {"price": 600, "seats": [{"row": 14, "letter": "A"}], "note": "window"}
        assert (found["state"], found["arguments"]) == ("edited", edited)
        assert found["digest"] == digest_of("bookFlight", edited)
        assert "price 640 → 600" in found["text"]
        (view,) = await open_requests(office, run)
        shown = {field.name: (field.value, field.was) for field in shown_of(view)}
        assert shown["price"] == ("600", "640")
        assert shown["seats"][0] == 'seats.0.letter: "A"\nseats.0.row: 14 (was 12)'


async def test_typed_text_becomes_the_leafs_type(office: Any) -> None:
    async with office.open():
        run, (view,) = await started(office, {"price": 5, "ok": True, "name": "x", "note": None, "list": []})
        reply = await send(office, view, choice="edit", via="inbox", fields={"price": "five"})
        assert "price: must be a number" in reply["text"]
        edits = {"price": "7", "ok": "no", "name": " 12 ", "note": "hi", "list": "[1]"}
        reply = await send(office, view, choice="edit", via="inbox", fields=edits)
        assert reply["verdict"] == "decided", reply["text"]
        (found,) = await run.return_value()
        assert found["arguments"] == {"price": 7, "ok": False, "name": " 12 ", "note": "hi", "list": [1]}


async def test_arguments_may_be_named_like_our_own_fields(office: Any) -> None:
    async with office.open():
        arguments = {"tool": "hammer", "arguments": {"why": "x"}, "why": "y", "agent": None, "a.b": 1}
        run, (view,) = await started(office, arguments, expects=None)
        edits = {"tool": "saw", "arguments.why": "z", '"a.b"': 2}
        assert (await send(office, view, choice="edit", answers=edits))["verdict"] == "decided"
        (found,) = await run.return_value()
        assert found["arguments"] == arguments | {"tool": "saw", "arguments": {"why": "z"}, "a.b": 2}
        assert found["tool"] == "bookFlight"


async def test_the_same_call_waits_for_the_same_decision(office: Any) -> None:
    async with office.open():
        same = [{"id": "a", "arguments": BOOKING}, {"id": "a", "arguments": dict(reversed(BOOKING.items()))}]
        run = await office.engine.start(books_by_agent, same)
        await office.settle()
        (view,) = await open_requests(office, run)
        await send(office, view)
        one, other = await run.return_value()
        assert one == other | {"requested": one["requested"], "arguments": one["arguments"]}
        other_values = [{"id": "a", "arguments": BOOKING}, {"id": "a", "arguments": BOOKING | {"price": 1}}]
        with pytest.raises(RunFailedError, match=r"KeyReusedError.*price"):
            await (await office.engine.start(books_by_agent, other_values)).return_value()


def nested(levels: int) -> Any:
    value: Any = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


@pytest.mark.agents(14)
@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (nested(21), "arguments.a.a.a.*nested too deeply"),
        ({"text": "x" * 65_527}, "arguments: is too large: 65,538 bytes"),
        ({"items": [{"n": 2**53}]}, "arguments.items.0.n: must be between"),
        ({"bad": ["\ud800"]}, "arguments.bad.0: contains a broken character"),
    ],
)
async def test_too_much_is_refused_with_its_place(office: Any, arguments: Any, why: str) -> None:
    @workflow
    async def asks_too_much_of_people() -> None:
        await approve("tool", arguments, tool_call_id="a", to=ANN)

    async with office.open():
        run = await office.engine.start(asks_too_much_of_people)
        with pytest.raises(RunFailedError, match=why):
            await run.return_value()
        assert [event.type for event in await run.events()] == ["run_created", "run_started", "run_failed"]


@pytest.mark.agents(14)
@pytest.mark.parametrize("arguments", [nested(20), {}, {"text": "x" * 65_525}, {"a": [None, [], {}]}])
async def test_as_much_as_is_allowed_is_asked(office: Any, arguments: Any) -> None:
    async with office.open():
        run, (view,) = await started(office, arguments, expects=None)
        assert view.digest == digest_of("bookFlight", arguments)
        await send(office, view)
        (found,) = await run.return_value()
        assert (found["state"], found["arguments"]) == ("approved", arguments)
        if not arguments:
            assert view.shown[1].value == "no arguments"


async def test_a_schema_that_leads_elsewhere_is_refused(office: Any) -> None:
    async with office.open():
        calls = [{"id": "a", "arguments": {}}]
        for expects, why in [({"$ref": "http://acme.eu/x"}, "leads out"), ({"type": "strin"}, "type is wrong")]:
            run = await office.engine.start(books_by_agent, calls, {"expects": expects})
            with pytest.raises(RunFailedError, match=why):
                await run.return_value()


@pytest.mark.agents(13)
async def test_no_stage_that_applies_is_no_yes(office: Any) -> None:
    async with office.open():
        stages = [{"id": "dear", "from": [ANN], "when": 'tool == "pay"'}]
        options = {"stages": stages, "to": None}
        run = await office.engine.start(books_by_agent, [{"id": "a", "arguments": BOOKING}], options)
        with pytest.raises(RunFailedError, match="no stage applies to this request"):
            await run.return_value()


@workflow
async def repeats_an_id(turn: ChatTurn) -> list[dict[str, Any]]:
    context = ChatContext(turn)
    decisions = [await context.ask("call_0", "bookFlight", {"price": price}) for price in (640, 640, 9000)]
    return [decision.model_dump(mode="json") for decision in decisions]


@pytest.mark.agents(11)
async def test_one_yes_of_a_chat_is_for_one_call_of_an_id(office: Any) -> None:
    async with office.open():
        turn = ChatTurn(chat="c", message="m", text="", owner=ANN)
        run = await office.engine.start(repeats_an_id, turn)
        await office.settle()
        (view,) = await open_requests(office, run)
        await send(office, view)
        states = [decision["state"] for decision in await run.return_value()]
        assert states == ["approved", "withdrawn", "withdrawn"]
