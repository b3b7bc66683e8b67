"""`wake_up` ends sleeps, but not the timers of an approval: no deadline comes early."""

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


async def test_wake_up_triggers_no_timer_of_an_approval(office: Any) -> None:
    async with office.open():
        opened = await office.ask(TEXT, {}, by="di@acme.eu")
        run = office.engine.get_run(opened.run.id)
        assert await run.wake_up() == 0
        assert await opened.vote(ANN) == "counted"
        assert await run.wake_up() == 0
        view = await opened.view()
        assert (view.state, view.outcome) == ("waiting", None)
        assert view.held is not None
        await office.clock.advance("29s")
        assert (await opened.record()).status == "running"
        await office.clock.advance("1s")
        assert (await opened.record()).result["decision"] == "approved"
        waits = [event for event in await run.events() if event.type == "wait_created"]
        assert {event.data["kind"] for event in waits} == {"timeout"}
        assert len(waits) == 5


async def test_the_deadline_comes_on_time_after_a_wake_up(office: Any) -> None:
    async with office.open():
        opened = await office.ask(TEXT, {}, by="di@acme.eu")
        await office.engine.get_run(opened.run.id).wake_up()
        await office.clock.advance("59m")
        assert (await opened.view()).state == "waiting"
        await office.clock.advance("1m")
        assert (await opened.record()).result["decision"] == "rejected"
