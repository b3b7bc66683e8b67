"""`@requires_approval`: people see all that the function gets, and one yes is for one call."""

from __future__ import annotations

import threading
from contextvars import copy_context
from typing import Any

import pytest
from pydantic import BaseModel
from typing_extensions import TypedDict

from approvals_bot.client import SyncApprovals, digest_of, requires_approval, scope
from approvals_bot.client.words import MISMATCH, decision_text
from tests.support.scripted_service import Answer, Scripted, scripted_service

OPENED = {"run_id": "run_1", "url": "", "id": "run_1", "status": "completed", "error": None}


class Order(BaseModel):
    item: str


class DearOrder(Order):
    price: int


class Note(TypedDict):
    text: str


def decided(tool: str, state: str, **arguments: Any) -> Answer:
    result = {"state": state, "by": "ann@acme.eu", "arguments": arguments, "digest": digest_of(tool, arguments)}
    return 200, OPENED | {"result": result}


def asked(service: Scripted) -> list[dict[str, Any]]:
    return [each.body["input"]["arguments"] for each in service.received if each.method == "POST"]


def keys(service: Scripted) -> list[str]:
    sent = [{name.lower(): value for name, value in each.headers.items()} for each in service.received]
    return [each["idempotency-key"] for each in sent if "idempotency-key" in each]


@pytest.mark.agents(11)
def test_people_see_what_objects_really_have() -> None:
    shown = {"order": {"item": "tea", "price": 900}, "note": {"text": "a", "pay_to": "NO93"}}
    with scripted_service(decided("buy", "rejected", **shown)) as service, SyncApprovals(service.url, "key") as ap:

        @requires_approval(ap=ap, key="one")
        def buy(order: Order, note: Note) -> None: ...

        note: Any = {"text": "a", "pay_to": "NO93"}
        buy(DearOrder(item="tea", price=900), note)
        assert asked(service) == [shown]


@pytest.mark.agents(11)
def test_an_argument_named_cls_is_shown() -> None:
    with scripted_service(decided("book", "rejected")) as service, SyncApprovals(service.url, "key") as ap:

        @requires_approval(ap=ap, key="one")
        def book(cls: str, flight: str) -> None: ...

        class Desk:
            @requires_approval(ap=ap, key="two")
            def cancel(self, flight: str) -> None: ...

        book("first", "LH 441")
        Desk().cancel("LH 441")
        assert asked(service) == [{"cls": "first", "flight": "LH 441"}, {"flight": "LH 441"}]


@pytest.mark.agents(11)
def test_an_edit_that_the_signature_cuts_does_not_run() -> None:
    ran: list[Order] = []
    edited = {"order": {"item": "tea", "price": 600}}
    with scripted_service(decided("buy", "edited", **edited)) as service, SyncApprovals(service.url, "key") as ap:

        @requires_approval(ap=ap, key="one")
        def buy(order: Order) -> None:
            ran.append(order)

        assert buy(DearOrder(item="tea", price=900)) == MISMATCH
    assert ran == []


@pytest.mark.agents(9)
def test_one_yes_is_for_one_call_of_a_block() -> None:
    ran: list[int] = []
    with scripted_service(decided("pay", "approved", price=1)) as service, SyncApprovals(service.url, "key") as ap:

        @requires_approval(ap=ap)
        def pay(price: int) -> None:
            ran.append(price)

        for _ in range(2):  # as after a restart
            with scope("task-17"):
                pay(1)
                pay(1)
        first, second, *again = keys(service)
        assert second == f"{first}.2"
        assert again == [first, second]
    assert ran == [1, 1, 1, 1]


@pytest.mark.agents(23)
def test_a_call_that_did_not_run_finds_its_request_again() -> None:
    with scripted_service(decided("pay", "rejected", price=1)) as service, SyncApprovals(service.url, "key") as ap:

        @requires_approval(ap=ap)
        def pay(price: int) -> None: ...

        with scope("task-17"):
            text: Any = [pay(1) for _ in range(10)]
        assert set(text) == {decision_text("rejected", name="ann@acme.eu")}
        assert len(set(keys(service))) == 1


def test_equal_calls_at_once_are_requests_of_their_own() -> None:
    meet = threading.Barrier(2, timeout=10)
    with scripted_service(decided("pay", "approved", price=1)) as service, SyncApprovals(service.url, "key") as ap:

        @requires_approval(ap=ap, when=lambda price: meet.wait() >= 0)
        def pay(price: int) -> None: ...

        with scope("task-17"):
            threads = [threading.Thread(target=copy_context().run, args=(pay, 1)) for _ in range(2)]
            for each in threads:
                each.start()
            for each in threads:
                each.join()
        assert len(set(keys(service))) == 2
