"""What the clients make of a service that is down, broken, or something else: never a yes."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from approvals_bot.client import (
    AgentError,
    Approvals,
    Decision,
    KeyReusedError,
    NotAllowedError,
    RequestRefusedError,
    ServiceUnavailableError,
    SyncApprovals,
    digest_of,
    requires_approval,
    scope,
)
from approvals_bot.client.exchange import LEAST_PATIENCE, Heard, Rest, waiting
from approvals_bot.client.tool_request import OpenRequest
from approvals_bot.client.words import KEY_REUSED, NOT_ALLOWED, UNAVAILABLE
from approvals_bot.errors import ConfigError, InvalidArgumentError, InvalidPayloadError
from tests.support.scripted_service import HANG_UP, Answer, scripted_service

CALL = {"flight": "LH 441", "price": 640}
OPENED = {"run_id": "run_1", "url": "http://approvals.test/runs/run_1"}
APPROVED = {"state": "approved", "by": "ann@acme.eu", "arguments": CALL, "digest": digest_of("book_flight", CALL)}


def run(status: str, result: Any = None, **more: Any) -> dict[str, Any]:
    return {"id": "run_1", "status": status, "result": result, "error": None} | more


def problem(status: int, type: str = "about:blank", **more: Any) -> Answer:
    return status, {"type": type, "title": "No", "status": status, "detail": "Not like this."} | more


def ask(url: str, wait: float | str = 1.0) -> Decision:
    with SyncApprovals(url, "key") as ap:
        return ap.ask("trip:1", "book_flight", CALL, wait=wait, to="@ops", deadline="15m")


def dead_url() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_the_request_says_everything() -> None:
    with scripted_service((202, OPENED), (200, run("completed", APPROVED))) as service:
        decision = ask(service.url + "/approve/")
    opening, looking = service.received
    assert (opening.method, opening.path) == ("POST", "/approve/api/runs")
    assert opening.headers["Idempotency-Key"] == "trip:1"
    assert opening.headers["Authorization"] == "Bearer key"
    assert opening.body == {
        "workflow": "tool-call",
        "input": {"tool": "book_flight", "arguments": CALL, "to": ["@ops"], "deadline": "15m"},
    }
    assert looking.path.startswith("/approve/api/runs/run_1?wait=")
    assert decision.approved
    assert (decision.tool, decision.requested, decision.request_id) == ("book_flight", CALL, "run_1")
    decision.require(CALL)


@pytest.mark.agents(16)
def test_lost_connections_and_5xx_are_tried_again() -> None:
    answers = [HANG_UP, (500, {}), (503, b"<html>"), (202, OPENED), HANG_UP, (502, b""), (200, run("running"))]
    with scripted_service(*answers, (200, run("completed", APPROVED))) as service:
        assert ask(service.url, wait=30).approved
    assert [received.method for received in service.received] == ["POST"] * 4 + ["GET"] * 4


@pytest.mark.agents(13)
@pytest.mark.parametrize("answer", [(500, {}), (503, b"down"), HANG_UP, (200, b"<html>Please sign in</html>")])
def test_a_broken_service_is_unavailable_in_the_end(answer: Answer) -> None:
    with scripted_service(answer) as service, pytest.raises(ServiceUnavailableError):
        ask(service.url, wait=0.4)
    assert len(service.received) >= 2


@pytest.mark.agents(13)
@pytest.mark.parametrize("url", [dead_url(), "http://no-such-host.invalid"], ids=["nobody listens", "no such host"])
async def test_no_service_is_unavailable_in_the_end(url: str) -> None:
    with pytest.raises(ServiceUnavailableError):
        await asyncio.to_thread(ask, url, 0.3)
    async with Approvals(url, "key") as ap:
        with pytest.raises(ServiceUnavailableError):
            await ap.ask("trip:1", "book_flight", CALL, wait=0.3)


@pytest.mark.agents(13)
def test_json_of_something_else_is_an_error_for_agents() -> None:
    with scripted_service((200, {"message": "OK"})) as service:
        with pytest.raises(AgentError, match="has no 'run_id'"):
            ask(service.url)
        with SyncApprovals(service.url, "key") as ap, pytest.raises(AgentError, match="has no 'runs'"):
            ap.get("trip:1")


@pytest.mark.agents(15)
def test_a_reused_key_names_the_difference() -> None:
    conflict = problem(409, "urn:approvals-bot:idempotency-conflict", difference="price was 1", run_id="run_0")
    with scripted_service(conflict) as service, pytest.raises(KeyReusedError) as caught:
        ask(service.url)
    assert (caught.value.key, caught.value.difference, caught.value.run_id) == ("trip:1", "price was 1", "run_0")
    assert len(service.received) == 1


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (problem(401), NotAllowedError),
        (problem(403), NotAllowedError),
        (problem(404), RequestRefusedError),
        (problem(409), RequestRefusedError),
        (problem(422, errors=[{"loc": ["input", "to"], "msg": "unknown"}]), RequestRefusedError),
        (problem(429), RequestRefusedError),
        ((404, b"nginx"), RequestRefusedError),
        ((308, b""), RequestRefusedError),
    ],
)
def test_a_refusal_is_never_tried_again(answer: Answer, kind: type[Exception]) -> None:
    with scripted_service(answer, headers=[("retry-after", "90")]) as service, pytest.raises(AgentError) as caught:
        ask(service.url)
    assert type(caught.value) is kind
    assert isinstance(caught.value, RequestRefusedError)
    assert (caught.value.status, caught.value.retry_after) == (answer[0], 90 if isinstance(answer[1], dict) else None)
    assert len(service.received) == 1


@pytest.mark.agents(13)
@pytest.mark.parametrize(
    ("ended", "state"),
    [
        (run("cancelled", error={"message": "not today"}), "withdrawn"),
        (run("failed", error={"message": "KeyError"}), "withdrawn"),
        (run("completed", {"state": "expired"}), "expired"),
        (run("completed", {"state": "withdrawn", "digest": APPROVED["digest"]}), "withdrawn"),
    ],
)
def test_a_run_that_ended_otherwise_is_no_yes(ended: dict[str, Any], state: str) -> None:
    with scripted_service((202, OPENED), (200, ended)) as service:
        decision = ask(service.url)
    assert (decision.state, decision.approved) == (state, False)
    assert decision.comment == ("not today" if ended["status"] == "cancelled" else None)


@pytest.mark.agents(13)
@pytest.mark.parametrize(
    "result", [None, "yes", {"approved": True}, {"state": "sort of"}, {"state": "edited", "at": 9e99}]
)
def test_a_result_of_another_kind_is_no_yes(result: Any) -> None:
    with scripted_service((202, OPENED), (200, run("completed", result))) as service, pytest.raises(AgentError):
        ask(service.url)


def test_a_run_in_the_place_of_another_is_followed() -> None:
    moved = (200, run("reset", next_run="run_2"))
    with scripted_service((202, OPENED), moved, (200, run("completed", APPROVED))) as service:
        assert ask(service.url, wait=20).approved
    assert service.received[-1].path.startswith("/api/runs/run_2?")


def test_waiting_over_is_pending_and_no_busy_loop() -> None:
    with scripted_service((202, OPENED), (200, run("running"))) as service:
        began = time.monotonic()
        decision = ask(service.url, wait=1.5)
    assert 1.4 < time.monotonic() - began < 6
    assert (decision.state, decision.request_id) == ("pending", "run_1")
    assert len(service.received) < 12, "each poll was answered at once"


@pytest.mark.parametrize("seconds", [0.0, 2.0, 20.0, 29.0, 86_400.0])
def test_the_last_answer_may_come_when_the_time_is_over(seconds: float) -> None:
    opened = OpenRequest("run_1", "trip:1", OPENED["url"], digest_of("book_flight", CALL))
    conversation = waiting(opened, seconds)
    step = next(conversation)
    while isinstance(step, Rest):
        step = conversation.send(Heard(0.0))
    assert step.patience >= float(step.query["wait"]) + LEAST_PATIENCE


def test_a_look_costs_one_poll() -> None:
    with scripted_service((202, OPENED), (200, run("running"))) as service:
        assert ask(service.url, wait=0).state == "pending"
    assert [received.path for received in service.received] == ["/api/runs", "/api/runs/run_1?wait=0.000"]


def test_arguments_that_are_not_json_are_never_sent() -> None:
    with scripted_service((202, OPENED)) as service, SyncApprovals(service.url, "key") as ap:
        for wrong in (float("nan"), 2**60, object(), "\ud800"):
            with pytest.raises(RequestRefusedError):
                ap.ask("trip:1", "book_flight", {"price": wrong})
        for key in ("", " ", "a\nb", "ä", "x" * 201):
            with pytest.raises(InvalidArgumentError):
                ap.ask(key, "book_flight", CALL)
    assert service.received == []


def test_where_the_service_is_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("APPROVALS_URL", raising=False)
    monkeypatch.setenv("APPROVALS_KEY", "secret-key")
    with pytest.raises(ConfigError, match="APPROVALS_URL"):
        Approvals()
    monkeypatch.setenv("APPROVALS_URL", "approvals.test")
    with pytest.raises(ConfigError, match="https://"):
        Approvals()
    monkeypatch.setenv("APPROVALS_URL", "https://approvals.test/")
    access = Approvals(wait="1h30m").access
    assert (access.url, access.key, access.wait) == ("https://approvals.test", "secret-key", 5_400)
    assert "secret-key" not in repr(access)
    for wait in ("", "soon", "1h x", -1, float("inf"), True):
        with pytest.raises(InvalidArgumentError):
            Approvals(wait=wait)


# ── guarded functions ──


@pytest.fixture
def guarded() -> Iterator[Callable[..., Any]]:
    """Makes a guarded function that appends what it was called with to a list."""
    with ExitStack() as stack:

        def make(url: str, ran: list[Any], **options: Any) -> Any:
            ap = stack.enter_context(SyncApprovals(url, "key", wait=0.3))

            guard: Callable[[Any], Callable[..., Any]] = requires_approval(ap=ap, **options)

            @guard
            def book_flight(flight: str, price: float = 640) -> str:
                ran.append((flight, price))
                return f"booked {flight}"

            return book_flight

        yield make


@pytest.mark.agents(13)
@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (HANG_UP, UNAVAILABLE),
        ((500, {}), UNAVAILABLE),
        (problem(403), NOT_ALLOWED.format(comment=': "Not like this."')),
        (
            problem(409, "urn:approvals-bot:idempotency-conflict", difference="d"),
            KEY_REUSED.format(comment=': "d"'),
        ),
    ],
)
def test_a_guarded_function_does_not_run_without_service(answer: Answer, text: str, guarded: Any) -> None:
    ran: list[Any] = []
    with scripted_service(answer) as service, scope("task-17"):
        assert guarded(service.url, ran)("LH 441") == text
        with pytest.raises(AgentError):
            guarded(service.url, ran, on_denied="raise")("LH 441")
    assert ran == []


@pytest.mark.agents(11)
@pytest.mark.parametrize(
    "decided",
    [
        APPROVED | {"digest": digest_of("book_flight", CALL | {"price": 1})},
        APPROVED | {"digest": None},
        APPROVED | {"digest": digest_of("other_tool", CALL)},
        APPROVED | {"state": "edited", "arguments": CALL | {"price": 1}},
    ],
)
def test_another_digest_keeps_a_guarded_function_from_running(decided: dict[str, Any], guarded: Any) -> None:
    ran: list[Any] = []
    with scripted_service((202, OPENED), (200, run("completed", decided))) as service, scope("task-17"):
        assert "not those that were approved" in guarded(service.url, ran)("LH 441")
    assert ran == []


@pytest.mark.agents(12)
def test_an_edit_that_does_not_fit_keeps_it_from_running(guarded: Any) -> None:
    edited = {"flight": "LH 441", "price": "a lot"}
    result = {"state": "edited", "arguments": edited, "digest": digest_of("book_flight", edited)}
    ran: list[Any] = []
    with scripted_service((202, OPENED), (200, run("completed", result))) as service, scope("task-17"):
        assert "changes that this tool doesn't take" in guarded(service.url, ran)("LH 441")
        service.answers[:] = [(202, OPENED), (200, run("completed", result))]
        with pytest.raises(InvalidPayloadError):
            guarded(service.url, ran, on_denied="raise")("LH 441")
    assert ran == []
