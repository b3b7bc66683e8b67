"""`wake_up` ends sleeps. The times of an approval are none: no deadline comes before its time."""

from __future__ import annotations

from typing import Any

ANN = "ann@acme.eu"

TEXT = f"""
[workflow]
id = "timed"
title = "Timed"
request = ["*"]
[policy]
grace = "30s"
[[stage]]
id = "ok"
from = ["{ANN}"]
[deliver]
email = "after 10m"
[clock]
deadline = "1h"
remind = ["30m"]
on_deadline = "reject"
[[escalate]]
after = "20m"
to = ["bo@acme.eu"]
"""


async def test_waking_up_an_approval_ends_no_deadline_reminder_escalation_or_grace(office: Any) -> None:
    async with office.open():
        asked = await office.ask(TEXT, {}, by="di@acme.eu")
        run = office.engine.get_run(asked.run.id)
        assert await run.wake_up() == 0
        assert await asked.vote(ANN) == "counted"
        assert await run.wake_up() == 0
        view = await asked.view()
        assert (view.state, view.outcome) == ("waiting", None)
        assert view.held is not None
        await office.clock.advance("29s")
        assert (await asked.record()).status == "running"
        await office.clock.advance("1s")
        assert (await asked.record()).result["decision"] == "approved"
        waits = [event for event in await run.events() if event.type == "wait_created"]
        assert {event.data["kind"] for event in waits} == {"timeout"}
        assert len(waits) == 5


async def test_the_deadline_comes_at_its_time_though_somebody_woke_the_run(office: Any) -> None:
    async with office.open():
        asked = await office.ask(TEXT, {}, by="di@acme.eu")
        await office.engine.get_run(asked.run.id).wake_up()
        await office.clock.advance("59m")
        assert (await asked.view()).state == "waiting"
        await office.clock.advance("1m")
        assert (await asked.record()).result["decision"] == "rejected"
