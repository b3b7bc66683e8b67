"""The clients with a real service: asked once, decided by people, and found again whatever dies."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from approvals_bot.client import (
    Approvals,
    Decision,
    DeniedError,
    KeyReusedError,
    NotAllowedError,
    Request,
    RequestRefusedError,
    SyncApprovals,
    digest_of,
    requires_approval,
    scope,
)
from tests.client.conftest import AGENT_KEY

CALL = {"flight": "LH 441", "price": 640, "seats": [{"row": 12, "letter": None}], "note": "🛫 <!channel>"}

PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
from approvals_bot.client import SyncApprovals

with SyncApprovals() as ap:
    request = ap.request("ctrl-c:1", "book_flight", {"flight": "LH 441"})
    print(request.id, flush=True)
    decision = ap.ask("ctrl-c:1", "book_flight", {"flight": "LH 441"})
    print(decision.state, decision.comment, flush=True)
"""


def test_a_person_approves(desk: Any, aside: Any) -> None:
    with desk.client() as ap:
        asked: Future[Decision] = aside(ap.ask, "yes:1", "book_flight", CALL, agent="Travel agent", why="You asked.")
        run = desk.decide("yes", "approve", comment="Have a good trip")
        decision = asked.result(30)
    assert (decision.state, decision.approved, decision.via) == ("approved", True, "api")
    assert decision.by == run["request"]["waiting_for"][0]
    assert decision.comment == "Have a good trip"
    assert decision.name is not None
    assert decision.text == (f'Approved by {decision.name}: "Have a good trip". Go on with exactly these arguments.')
    assert decision.arguments == CALL
    assert decision.digest == digest_of("book_flight", CALL) == run["request"]["digest"]
    decision.require(CALL)


def test_a_person_rejects_answers_or_edits(desk: Any, aside: Any) -> None:
    with desk.client() as ap:
        rejected = aside(ap.ask, "no:1", "book_flight", CALL)
        desk.decide("no", "reject", comment="too dear")
        decision = rejected.result(30)
        assert (decision.state, decision.comment) == ("rejected", "too dear")
        with pytest.raises(DeniedError):
            decision.require(CALL)
        answered = aside(ap.ask, "hm:1", "book_flight", CALL)
        desk.decide("hm", "answer", comment="Which class?")
        assert (answered.result(30).state, answered.result(30).comment) == ("answered", "Which class?")
        edited = aside(ap.ask, "but:1", "book_flight", CALL)
        desk.decide("but", "edit", answers={"price": 600})
        decision = edited.result(30)
    assert decision.state == "edited"
    assert decision.arguments == CALL | {"price": 600}
    assert "price 640 → 600" in decision.text
    decision.require(CALL | {"price": 600})


@pytest.mark.agents(15)
def test_a_key_names_one_call(desk: Any) -> None:
    with desk.client() as ap:
        first = ap.request("one:1", "book_flight", CALL, why="because")
        assert ap.request("one:1", "book_flight", dict(reversed(CALL.items())), why="other words").id == first.id
        assert first.digest == digest_of("book_flight", CALL)
        assert first.expires_at is not None
        for tool, arguments in (
            ("book_flight", CALL | {"price": 641}),
            ("book_flight", CALL | {"seats": [{"row": 13, "letter": None}]}),
            ("book_train", CALL),
        ):
            with pytest.raises(KeyReusedError) as caught:
                ap.ask("one:1", tool, arguments, wait=0)
            assert caught.value.run_id == first.id
            leaf = "tool" if tool == "book_train" else "price" if arguments["price"] == 641 else "seats"
            assert leaf in caught.value.difference
        ap.stop("one", "the test is over")


@pytest.mark.agents(15)
def test_one_key_at_once_is_one_request(desk: Any, aside: Any) -> None:
    def ask(_: int) -> str:
        with desk.client() as ap:
            return str(ap.request("crowd:1", "book_flight", CALL).id)

    with ThreadPoolExecutor(50) as crowd:
        assert len(set(crowd.map(ask, range(50)))) == 1
    with desk.client() as ap:
        assert ap.stop("crowd", "the test is over") == 1


def test_the_parts_of_asking(desk: Any) -> None:
    with desk.client() as ap:
        assert ap.get("parts:0") is None
        first, second = (ap.request(f"parts:{n}", "book_flight", CALL | {"price": n}) for n in (1, 2))
        found = ap.get("parts:1")
        assert isinstance(found, Request)
        assert (found.id, found.key, found.digest) == (first.id, "parts:1", first.digest)
        assert found.url == first.url
        assert {request.key for request in ap.open("parts")} == {"parts:1", "parts:2"}
        assert {"parts:1", "parts:2"} <= {request.key for request in ap.open()}
        assert ap.wait(second, 0.2).state == "pending"
        assert ap.cancel("parts:1", "not needed") is True
        assert ap.cancel("parts:1", "not needed") is False
        assert ap.cancel("parts:0", "never was") is False
        gone = ap.get("parts:1")
        assert isinstance(gone, Decision)
        assert gone.state == "withdrawn"
        assert ap.stop("parts", "all of them") == 1
        assert ap.open("parts") == []
        assert ap.wait(second, 10).state == "withdrawn"


@pytest.mark.agents(13)
def test_silence_is_no_yes(desk: Any, aside: Any) -> None:
    with desk.client() as ap:
        asked = aside(ap.ask, "silence:1", "book_flight", CALL, deadline="5m")
        desk.request("silence")
        desk.advance("6m")
        decision = asked.result(30)
    assert (decision.state, decision.approved) == ("expired", False)
    assert decision.text.startswith("Nobody decided by ")


def test_who_may_not_ask_gets_an_error(desk: Any) -> None:
    with desk.client() as ap:
        with pytest.raises(RequestRefusedError) as caught:
            ap.ask("refused:1", "book_flight", CALL, workflow="no-such-workflow")
        assert caught.value.status == 404
    with SyncApprovals(desk.url, "wrong") as ap, pytest.raises(NotAllowedError):
        ap.ask("refused:1", "book_flight", CALL)


@pytest.mark.agents(16)
def test_ctrl_c_and_a_restart_get_the_same_answer(desk: Any, environment: None) -> None:
    command = [sys.executable, "-c", PROGRAM]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert first.stdout is not None
    run_id = first.stdout.readline().strip()
    time.sleep(0.3)
    first.send_signal(signal.SIGINT)
    assert first.wait(20) != 0
    first.stdout.close()
    desk.decide("ctrl-c", "approve", comment="fine")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == [run_id, "approved", "fine"]


@pytest.mark.agents(16)
def test_a_restart_of_the_service_is_not_noticed(desk: Any, aside: Any) -> None:
    with desk.client() as ap:
        asked = aside(ap.ask, "restart:1", "book_flight", CALL)
        desk.request("restart")
        desk.service.kill()
        during = aside(ap.ask, "restart:2", "book_flight", CALL)
        time.sleep(0.5)
        desk.service.start()
        for _ in range(2):
            desk.decide("restart", "approve")
        assert (asked.result(40).state, during.result(40).state) == ("approved", "approved")


@pytest.mark.agents(16)
async def test_the_blocking_client_works_in_a_loop_and_in_a_thread(desk: Any) -> None:
    with desk.client() as ap:
        request = ap.request("loop:1", "book_flight", CALL)  # blocks the loop, and works
        asked = asyncio.create_task(asyncio.to_thread(ap.wait, request, 30))
        await asyncio.to_thread(desk.decide, "loop", "approve")
        assert (await asked).approved


@pytest.mark.agents(7)
async def test_answers_in_any_order_go_to_their_calls(desk: Any) -> None:
    async with Approvals(desk.url, AGENT_KEY) as ap:
        asked = [asyncio.create_task(ap.ask(f"many{n}:1", "book_flight", {"n": n})) for n in range(8)]
        for n in (5, 0, 7, 2, 6, 1, 4, 3):
            choice = "reject" if n % 3 == 0 else "approve"
            await asyncio.to_thread(desk.decide, f"many{n}", choice, comment=f"about {n}")
        decisions = await asyncio.gather(*asked)
    assert [decision.comment for decision in decisions] == [f"about {n}" for n in range(8)]
    assert [decision.approved for decision in decisions] == [n % 3 != 0 for n in range(8)]


def test_one_client_serves_several_event_loops(desk: Any) -> None:
    ap = Approvals(desk.url, AGENT_KEY)

    async def look() -> None:
        async with ap:
            assert await ap.get("loops:1") is None

    for _ in range(2):
        asyncio.run(look())


@pytest.mark.agents(12)
def test_a_guarded_function_runs_with_what_was_approved(desk: Any, aside: Any, environment: None) -> None:
    ran: list[Any] = []

    @requires_approval(when=lambda flight, price: price > 100)
    def book_flight(flight: str, price: float = 640) -> str:
        ran.append((flight, price))
        return f"booked {flight}"

    def call(session: str, *given: Any) -> str:
        with scope(session):
            return book_flight(*given)

    assert call("guard-0", "LH 1", 99) == "booked LH 1"
    approved = aside(call, "guard-1", "LH 2")
    desk.decide("guard-1", "approve")
    assert approved.result(30) == "booked LH 2"
    assert call("guard-1", "LH 2") == "booked LH 2", "the same call in the same session was approved"
    edited = aside(call, "guard-2", "LH 3")
    refused = desk.service.vote(desk.request("guard-2")["id"], "ann@acme.eu", "edit", answers={"price": "a lot"})
    assert refused.status_code == 422, refused.text
    desk.decide("guard-2", "edit", answers={"price": 600.5})
    assert edited.result(30) == "booked LH 3"
    rejected = aside(call, "guard-3", "LH 4")
    desk.decide("guard-3", "reject", comment="no")
    assert rejected.result(30).startswith("Rejected by ")
    assert ran == [("LH 1", 99), ("LH 2", 640), ("LH 2", 640), ("LH 3", 600.5)]


@pytest.mark.agents(11)
async def test_arguments_that_change_meanwhile_do_not_run(desk: Any) -> None:
    ran: list[Any] = []
    async with Approvals(desk.url, AGENT_KEY) as ap:

        @requires_approval(ap=ap, on_denied="raise", key=lambda items: "mutated:1")
        async def order(items: list[str]) -> int:
            ran.append(items)
            return len(items)

        items = ["tea"]
        asked = asyncio.create_task(order(items))
        await asyncio.to_thread(desk.request, "mutated")
        items.append("gold")
        await asyncio.to_thread(desk.decide, "mutated", "approve")
        with pytest.raises(Exception, match="not what is about to be done"):
            await asked
    assert ran == []


def test_a_scope_is_needed_where_no_key_is_given(environment: None) -> None:
    @requires_approval()
    def book_flight(flight: str) -> str:
        return flight

    with pytest.raises(ValueError, match="needs a session or a key"):
        book_flight("LH 441")
    for wrong in ("", "a:b"):
        with pytest.raises(ValueError, match="without a colon"), scope(wrong):
            pass


@pytest.mark.agents(15)
@pytest.mark.long
def test_one_key_from_fifty_processes_is_one_request(desk: Any, environment: None, tmp_path: Path) -> None:
    program = "from approvals_bot.client import SyncApprovals\n"
    program += 'with SyncApprovals() as ap: print(ap.request("processes:1", "book_flight", {}).id)'
    command = [sys.executable, "-c", program]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(50)]
    assert len({process.communicate(timeout=100)[0] for process in started}) == 1
