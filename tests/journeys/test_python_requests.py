"""A Python workflow that asks several things: each is found, shown, decided and cancelled by its own id."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.support.forked import run_command
from tests.support.journey import Json, Service

PROGRAM = """
import asyncio
from pydantic import BaseModel
from approvals_bot import logger, request_approval, workflow


class Trip(BaseModel):
    to: str


@workflow
async def trip(trip: Trip) -> list[str]:
    logger.info("a trip to %s", trip.to)
    asked = [
        request_approval(
            f"{what} to {trip.to}", fields=trip, approvers="ann@acme.eu", deliver={"dm": True, "email": True}
        )
        for what in ("Flight", "Hotel", "Car")
    ]
    return [type(outcome).__name__ for outcome in await asyncio.gather(*asked)]
"""


AUDITED = """
import asyncio
from approvals_bot import request_approval, workflow


@workflow
async def audited(seconds: int) -> None:
    def failed(_: object) -> None:
        raise ValueError("the budget is closed")

    asyncio.create_task(asyncio.sleep(seconds)).add_done_callback(failed)
    await request_approval(f"Buy in {seconds}", approvers="ann@acme.eu", deliver={"dm": True, "email": True})
"""


@pytest.fixture
def travelling(installed: Service) -> Service:
    (installed.folder / "workflows" / "trip.py").write_text(PROGRAM)
    return installed.start("--config", "config.example.toml")


def typed(service: Service, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_command(service.folder, *arguments, "--config", ".approvals/config.toml")


def opened(service: Service, to: str) -> str:
    body = {"workflow": "trip", "input": {"to": to}, "requester": "bo@acme.eu"}
    run_id = str(service.api("POST", "/runs", json=body).json()["run_id"])
    service.eventually(lambda: len([m for m in service.messages("D0ANN") if f"to {to}" in m["text"]]) == 3, seconds=30)
    return run_id


def test_each_request_of_a_run_is_decided_separately(travelling: Service) -> None:
    service = travelling
    run_id = opened(service, "Rome")
    ids = [request["id"] for request in service.run(run_id)["requests"]]
    assert ids == [f"{run_id}.{number}" for number in (1, 2, 3)]
    assert service.run(ids[1])["request"]["title"] == "Hotel to Rome"
    assert service.api("GET", f"/runs/{run_id}.4").status_code == 404

    unclear = service.vote(run_id, "ann@acme.eu", "approve")
    assert unclear.status_code == 409
    assert all(id in unclear.json()["detail"] for id in ids)
    assert service.vote(ids[0], "bo@acme.eu", "approve").status_code == 403, "who started the run asked"
    assert "Hotel to Rome" in service.page(f"/requests/{ids[1]}").text
    assert service.page(f"/runs/{run_id}").text.count(f"/requests/{run_id}.") == 3
    inbox = service.page("/inbox?person=ann@acme.eu").text
    assert [title in inbox for title in ("Flight to Rome", "Hotel to Rome", "Car to Rome")] == [True] * 3
    home = service.play("GET", "/slack/home?user=U0ANN")["text"]
    assert [title in home for title in ("Flight to Rome", "Hotel to Rome", "Car to Rome")] == [True] * 3

    explained = json.loads(typed(service, "explain", ids[2], "--json").stdout)
    assert [approver["person"] for approver in explained["waiting_for"]] == ["ann@acme.eu"]
    shown = typed(service, "show", run_id).stdout
    assert [title in shown for title in ("Flight to Rome", "Hotel to Rome", "Car to Rome")] == [True] * 3

    card = next(m for m in service.messages("D0ANN") if "Flight to Rome" in m["text"])
    assert "Everyone involved has been notified." in service.click("U0ANN", card, "Approve")["ephemeral"]
    link = mailed(service, "Hotel to Rome")
    assert "Rejected" in service.press(link, "reject", comment="Too dear.").text
    assert typed(service, "cancel", ids[2], "--reason", "by train").returncode == 0
    run = service.run(run_id, wait=10)
    assert run["result"] == ["Approved", "Rejected", "Withdrawn"]
    assert [request["state"] for request in run["requests"]] == ["approved", "rejected", "cancelled"]
    assert service.run(run_id)["status"] == "completed"
    assert service.page(link).status_code == 200


def test_cancelling_a_run_cancels_all_its_requests(travelling: Service) -> None:
    run_id = opened(travelling, "Oslo")
    assert travelling.api("POST", f"/runs/{run_id}/cancellation", json={"reason": "no trip"}).status_code == 202
    run = travelling.run(run_id, wait=10)
    assert run["status"] == "cancelled"
    assert [request["state"] for request in run["requests"]] == ["cancelled"] * 3
    for card in [m for m in travelling.messages("D0ANN") if "to Oslo" in m["text"]]:
        assert "Cancelled" in card["text"], "every copy says so"
    assert travelling.log().splitlines().count("INFO a trip to Oslo") == 1, "the log has what workflows log"


def test_cards_of_a_failed_run_close_even_after_a_kill(installed: Service) -> None:
    (installed.folder / "workflows" / "audited.py").write_text(AUDITED)
    service = installed.start("--config", "config.example.toml")

    def opened(seconds: int) -> str:
        body = {"workflow": "audited", "input": {"seconds": seconds}, "requester": "bo@acme.eu"}
        run_id = str(service.api("POST", "/runs", json=body).json()["run_id"])
        service.eventually(lambda: shown(seconds))
        return run_id

    def shown(seconds: int) -> str:
        return "".join(m["text"] for m in service.messages("D0ANN") if f"Buy in {seconds}" in m["text"])

    assert service.run(opened(2), wait=10)["status"] == "failed"
    link = mailed(service, "Buy in 2")
    service.eventually(lambda: "⚠ Failed" in shown(2))
    assert "Failed" in service.page(link).text
    assert service.run(opened(3), wait=10)["status"] == "failed"
    service.kill()
    service.start("--config", "config.example.toml")
    service.eventually(lambda: "⚠ Failed" in shown(3))


def mailed(service: Service, title: str) -> str:
    def found() -> list[Json]:
        return [m for m in service.mails("ann@acme.eu") if title in m["subject"]]

    text = str(service.eventually(found)[0]["text"])
    return next(word for word in text.split() if "/decisions/" in word)
