"""A relay with a rate limit: waiting mails say so, and go out in turn."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from approvals_bot.channels.email.smtp import Turns
from tests.support.posting import a_posting_service


async def test_mails_wait_their_turn_visibly_and_hold_nothing_up(open_service: Any) -> None:
    turns = Turns(5, timedelta(minutes=1))
    async with a_posting_service(open_service, "https://approve.acme.eu", turns) as (service, mailbox):
        runs = [await service.start("deploy", {"version": f"2.{n}"}, requester="di@acme.eu") for n in range(4)]
        assert len(mailbox.mails) == 5
        waiting = [copy for run in runs for copy in (await service.view(run))["deliveries"] if not copy["attempts"]]
        assert [copy["state"] for copy in waiting] == ["held"] * 7
        assert {copy["error"] for copy in waiting} == {
            "waiting its turn: the relay takes no more than 5 mails a minute"
        }
        for person in ("ann@acme.eu", "bo@acme.eu"):  # the people who have their mails decide
            body = {"by": person, "choice": "approve"}
            assert (await service.api.post(f"/api/runs/{runs[3]}/votes", json=body)).status_code == 201
        await service.engine.settle()
        assert (await service.run(runs[3]))["request"]["outcome"] == "approved"
        for minute in range(1, 5):
            await service.clock.advance("1m")
            assert len(mailbox.mails) <= 5 * (minute + 1)
        copies = [copy for run in runs[:3] for copy in (await service.view(run))["deliveries"]]
        assert [(copy["state"], copy["attempts"]) for copy in copies] == [("delivered", 1)] * 9
        asked = [mail for mail in mailbox.mails if mail.subject.startswith("Please decide")]
        assert len(asked) == 9
