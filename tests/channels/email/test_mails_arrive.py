"""Many mails through a relay that rejects, disconnects and restarts: all arrive, and few arrive twice."""

from __future__ import annotations

import os
from collections import Counter
from random import Random
from typing import Any

import pytest

from approvals_bot.playground.faults import Fault, FaultKind
from approvals_bot.playground.mailbox import MailServer
from tests.support.posting import a_posting_service

MAILS = int(os.environ.get("APPROVALS_BOT_TEST_MAILS", "120"))  # 1,000 for the long run
EACH = 3  # approvers of a request
LONG = 300.0 + MAILS / 2  # seconds; pytest's own limit is for one test of a usual size

LATER = {"RCPT": (450, 451, 452), "MAIL": (421, 451), "DATA": (421, 451, 452)}


def script(mailbox: MailServer, chance: Random) -> None:
    """Give one mail in three a fault."""
    for nth in range(1, MAILS * 2):
        if chance.random() > 1 / 3:
            continue
        kind: FaultKind = chance.choice(("error", "error", "drop_before", "drop_after"))
        method = "DATA" if kind == "drop_after" else chance.choice(tuple(LATER))
        mailbox.faults.add(Fault(kind, method, nth=nth, code=chance.choice(LATER[method])))


def ids(mailbox: MailServer) -> Counter[tuple[str, str]]:
    return Counter((mail.headers["Message-ID"], mail.to) for mail in mailbox.mails)


@pytest.mark.check(57)
@pytest.mark.timeout(LONG)
async def test_every_mail_arrives_and_twice_only_after_a_lost_answer(open_service: Any, record_property: Any) -> None:
    chance = Random(57)  # noqa: S311
    async with a_posting_service(open_service, "https://approve.acme.eu") as (service, mailbox):
        script(mailbox, chance)
        runs = [
            await service.start("deploy", {"version": f"2.{number}"}, requester="di@acme.eu")
            for number in range(-(-MAILS // EACH))
        ]
        expected = len(runs) * EACH
        await mailbox.__aexit__()  # the relay goes down in the middle …
        cut_off = len(mailbox.mails)
        assert 0 < cut_off < expected
        await service.clock.advance("2m")
        await service.engine.settle()
        assert len(mailbox.mails) == cut_off
        await mailbox.__aenter__()  # … and comes back
        for _ in range(180):
            if await undelivered(service, runs) == 0:
                break
            await service.clock.advance("1m")  # on a busy machine, some mails are still in progress when it is back
        assert await undelivered(service, runs) == 0
        struck = [fault.kind for fault, seen in mailbox.faults.script if seen >= fault.nth]
        results = [event.data.get("result") for run in runs for event in await service.engine.events(run)]

    arrived = ids(mailbox)
    assert len(arrived) == expected  # none lost, and each mail has one id
    twice = len(mailbox.mails) - expected
    delivered = [one for one in results if isinstance(one, dict) and one.get("kind") == "delivered"]
    retried = [one for one in results if isinstance(one, dict) and one.get("kind") == "try_again"]
    in_doubt = sum(one["lost"] for one in retried)  # by a scripted fault, or because the relay went down
    marked = sum(one["uncertain"] for one in delivered)
    figures = {"mails": expected, "twice": twice, "in doubt": in_doubt, "marked": marked, "retries": len(retried)}
    record_property("figures", figures)  # for long runs, with --junitxml
    assert len(delivered) == expected
    assert twice <= in_doubt
    assert min(twice, 1) <= marked <= in_doubt
    # the floor: a run without faults would prove nothing
    assert len(retried) > MAILS / 5
    assert struck.count("drop_after") > MAILS / 50
    assert twice > 0


@pytest.mark.check(55)
async def test_a_relay_that_rejected_everything_loses_no_mail(open_service: Any) -> None:
    async with a_posting_service(open_service, "https://approve.acme.eu") as (service, mailbox):
        mailbox.faults.add(Fault("error", "MAIL", times=None, code=553))
        run = await service.start("deploy", {"version": "2.1"}, requester="di@acme.eu")
        await service.clock.advance("10m")
        copies = (await service.view(run))["deliveries"]
        assert [(copy["channel"], copy["state"]) for copy in copies] == [("email", "retrying")] * EACH
        assert all("rejects our sender address" in copy["error"] for copy in copies)
        assert max(copy["attempts"] for copy in copies) <= 12, "a relay is not hammered"
        mailbox.faults.clear()
        await service.clock.advance("10m")
        assert await undelivered(service, [run]) == 0
        assert len(mailbox.mails) == EACH


async def undelivered(service: Any, runs: list[str]) -> int:
    views = [await service.view(run) for run in runs]
    states = [copy["state"] for view in views for copy in view["deliveries"]]
    assert "not_delivered" not in states
    return len(runs) * EACH - states.count("delivered")
