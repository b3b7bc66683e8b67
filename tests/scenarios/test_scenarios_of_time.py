"""Scenarios 26, 28 to 32, and 39: time zones, weekends, deadlines, absent people; and two Python workflows."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from tests.support.acme import ANN, BERLIN, BO, CFO, CY, TOKYO, Acme, furnish
from tests.support.forked import run_command

AWAY = """
[[people."{who}".away]]
from = "{first}"
until = "{last}"
delegate = {delegates}
"""

WORKFLOWS = {
    "office-hours": """
[[stage]]
id = "go"
from = ["@managers"]
[deliver]
email = true
[clock]
deadline = "2 business days"
remind = ["1 business hour"]
[[escalate]]
after = "4 business hours"
to = ["cfo@acme.eu"]
""",
    "zones": """
[[stage]]
id = "go"
from = ["aki@acme.eu", "bea@acme.eu"]
[deliver]
email = true
[clock]
deadline = "200d"
""",
    "timed": """
[[stage]]
id = "go"
from = ["cfo@acme.eu"]
[deliver]
slack = "#deploys"
[clock]
deadline = "4h"
""",
    "ann": """
[[stage]]
id = "go"
from = ["ann@acme.eu"]
[deliver]
email = true
""",
    "tokyo": """
[[stage]]
id = "go"
from = ["aki@acme.eu"]
[deliver]
email = true
""",
}

PROGRAM = '''
"""An agent whose arguments change after the approval, and access that must be revoked."""

from pydantic import BaseModel

from approvals_bot import Approved, StepFailedError, now, request_approval, sleep, step, workflow


class Call(BaseModel):
    to: str
    cents: int
    sends: int


@workflow
async def pay(call: Call) -> str:
    outcome = await request_approval("Pay?", fields={"to": call.to, "cents": call.cents}, approvers="cfo@acme.eu")
    if not isinstance(outcome, Approved):
        return "no"
    outcome.require({"to": call.to, "cents": call.sends})
    return "paid"


@step(retries=0)
async def revoke(account: str) -> None:
    """The cloud's command. Here, a file makes it fail."""
    from pathlib import Path

    if Path("revoke-fails").exists():
        raise RuntimeError("the cloud is down")


class Grant(BaseModel):
    account: str


@workflow
async def give_back(grant: Grant) -> str:
    """Never give up revoking access; after a quarter of an hour, page the person on call."""
    import asyncio

    began, page = now(), None
    while True:
        try:
            await revoke(grant.account)
            return "paged, then revoked" if page else "revoked"
        except StepFailedError:
            if page is None and (now() - began).total_seconds() >= 900:
                page = asyncio.ensure_future(
                    request_approval(
                        f"Access to {grant.account} can't be revoked. Are you on it?",
                        approvers="oncall:ops",
                        outcomes=["approve"],
                    )
                )
            await sleep("1m")
'''


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Acme]:
    """A separate service, whose clock moves by weeks and some of whose people are absent."""
    folder = furnish(tmp_path_factory.mktemp("acme"), WORKFLOWS)
    (folder / "workflows" / "paying.py").write_text(PROGRAM)
    today = datetime.now(ZoneInfo("Europe/Berlin")).date()
    with (folder / "config.toml").open("a") as config:
        for person, delegates in ((ANN, [BO, CY]), (TOKYO, [BERLIN]), (BERLIN, [TOKYO])):
            span = {"first": today - timedelta(days=1), "last": today + timedelta(days=1)}
            config.write(AWAY.format(who=person, delegates=json.dumps(delegates), **span))
    acme = Acme(folder)
    acme.start("--config", "config.toml")
    yield acme
    acme.kill()
    acme.http.close()


# ── who is away, while the clock is still today's ──


@pytest.mark.scenario(31)
def test_a_delegate_who_is_the_requester_is_skipped(house: Acme) -> None:
    run_id = house.asks("ann", "Scenario 31", by=BO)
    assert house.request(run_id)["waiting_for"] == [CY]
    house.link_of(CY, "Scenario 31")
    assert not [mail for mail in house.mails(BO) if "Scenario 31" in mail["subject"]]
    house.press(house.link_of(CY, "Scenario 31"), "approve")
    assert house.ended(run_id)["result"]["by"] == CY
    other = house.asks("ann", "Scenario 31, asked by another", by=CFO)
    assert house.request(other)["waiting_for"] == [BO]


@pytest.mark.scenario(32)
def test_circular_delegates_fall_back_to_the_absent_and_doctor_warns(house: Acme) -> None:
    run_id = house.asks("tokyo", "Scenario 32")
    assert house.request(run_id)["waiting_for"] == [TOKYO]
    examined = run_command(house.folder, "doctor", "--json", "--config", ".approvals/config.toml")
    warned = [found["what"] for found in json.loads(examined.stdout)["findings"] if found["state"] == "WARN"]
    assert any("form a circle" in what for what in warned), warned
    house.press(house.link_of(TOKYO, "Scenario 32"), "approve")
    assert house.ended(run_id)["result"]["by"] == TOKYO


# ── Python workflows ──


@pytest.mark.scenario(26)
def test_arguments_changed_after_approval_need_a_new_one(house: Acme) -> None:
    def pay(sends: int) -> str:
        body = {"workflow": "pay", "input": {"to": "Bo", "cents": 900, "sends": sends}, "requester": "bo@acme.eu"}
        run_id = str(house.api("POST", "/runs", json=body).json()["run_id"])
        house.eventually(lambda: house.run(run_id)["request"])
        assert house.vote(run_id, CFO, "approve").status_code == 201
        return run_id

    changed = house.run(pay(sends=90_000), wait=10)
    assert changed["status"] == "failed"
    assert changed["error"]["type"] == "ApprovalMismatchError"
    assert "Open a new request." in changed["error"]["message"]
    assert house.run(pay(sends=900), wait=10)["result"] == "paid"


@pytest.mark.scenario(39)
def test_a_failed_revocation_pages_the_on_call_and_is_retried(house: Acme) -> None:
    failing = house.folder / "revoke-fails"
    failing.touch()
    answer = house.api("POST", "/runs", json={"workflow": "give_back", "input": {"account": "aws-prod"}})
    run_id = str(answer.json()["run_id"])
    for _ in range(14):
        house.advance("1m")
    assert house.run(run_id)["request"] is None, "nobody is paged before a quarter of an hour"
    house.advance("1m")
    house.advance("1m")
    page = house.eventually(lambda: house.run(run_id)["request"])
    assert page["waiting_for"] == [CFO]
    failing.unlink()
    house.advance("2m")
    run = house.run(run_id, wait=10)
    assert (run["status"], run["result"]) == ("completed", "paged, then revoked")
    assert run["request"]["state"] == "cancelled", "the page is closed with it"


# ── time ──


@pytest.mark.scenario(28)
def test_a_deadline_is_in_each_readers_zone_across_dst(house: Acme) -> None:
    run_id = house.asks("zones", "Scenario 28")
    deadline = datetime.fromisoformat(house.request(run_id)["deadline"])
    asked = deadline - timedelta(days=200)
    berlin = ZoneInfo("Europe/Berlin")
    assert asked.astimezone(berlin).utcoffset() != deadline.astimezone(berlin).utcoffset() or 3 < asked.month < 10
    for person, zone in ((TOKYO, ZoneInfo("Asia/Tokyo")), (BERLIN, berlin)):
        local = deadline.astimezone(zone)
        page = house.page(house.link_of(person, "Scenario 28")).text
        assert f"{local:%H:%M}" in page, (person, local)
        (mail,) = [mail for mail in house.mails(person) if "Scenario 28" in mail["subject"]]
        assert f"{local:%H:%M}" in mail["text"], (person, local)
    house.vote(run_id, TOKYO, "approve")
    house.ended(run_id)


@pytest.mark.scenario(29)
def test_a_weekend_sends_no_reminder_and_uses_no_escalation(house: Acme) -> None:
    zone = ZoneInfo("Europe/Berlin")
    probe = house.asks("ann", "Scenario 29, what time is it", by=CFO)
    now = datetime.fromisoformat(house.run(probe)["created_at"]).astimezone(zone)
    friday = now.replace(hour=17, minute=30, second=30, microsecond=0) + timedelta(days=(4 - now.weekday()) % 7)
    friday = friday if friday > now else friday + timedelta(days=7)
    house.advance(f"{int((friday.astimezone(UTC) - now.astimezone(UTC)).total_seconds())}s")

    run_id = house.asks("office-hours", "Scenario 29")
    house.link_of(CY, "Scenario 29")
    monday = (friday + timedelta(days=3)).replace(hour=9, minute=0, second=0)
    house.advance(f"{int((monday.astimezone(UTC) - friday.astimezone(UTC)).total_seconds()) - 600}s")
    request = house.request(run_id)
    assert len(mails(house)) == 1, "no reminder"
    assert CFO not in request["waiting_for"], "no escalation"
    house.advance("1h20m")
    house.eventually(lambda: len(mails(house)) == 2)
    house.advance("3h30m")
    house.eventually(lambda: CFO in house.request(run_id)["waiting_for"])
    deadline = datetime.fromisoformat(house.request(run_id)["deadline"]).astimezone(zone)
    assert (deadline.weekday(), f"{deadline:%H:%M}") == (2, "09:00"), "after all of Monday and Tuesday"


def mails(house: Acme) -> list[str]:
    return [mail["subject"] for mail in house.mails(CY) if re.search(r"Scenario 29$", mail["subject"])]


@pytest.mark.scenario(30)
def test_of_a_click_and_a_simultaneous_deadline_one_wins(house: Acme) -> None:
    for round in range(3):
        what = f"Scenario 30, {round}"
        run_id = house.asks("timed", what)
        card = house.card(what)
        house.advance("3h59m50s")
        together = threading.Barrier(2)

        def click() -> str:
            together.wait()  # noqa: B023  # called in this very round
            return str(house.click("U0CFO", card, "Approve")["ephemeral"])  # noqa: B023

        def deadline() -> None:
            together.wait()  # noqa: B023
            house.advance("11s")

        with ThreadPoolExecutor(2) as pool:
            clicked, passed = pool.submit(click), pool.submit(deadline)
            passed.result()
            reply = clicked.result()
        ended = house.ended(run_id)["result"]["decision"]
        assert ended in ("approved", "expired")
        if ended == "approved":
            assert "Everyone involved has been notified." in reply
        else:
            assert "This request expired" in reply
