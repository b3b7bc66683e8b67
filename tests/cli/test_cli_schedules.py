"""`schedules`: the next times, and what became of the last one."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from approvals_bot.app import open_service, read_configuration
from approvals_bot.testing import FakeClock
from tests.support.small_site import LEAVE, Site

SCHEDULES = """
[[schedule]]
id        = "weekly"
cron      = "30 9 * * MON"
zone      = "Europe/Berlin"
input     = { days = 2 }
requester = "ann@acme.eu"
[[schedule]]
id       = "often"
cron     = "* * * * * *"
input    = { days = 3 }
overlap  = "queue"
catch_up = "5m"
requester = "bo@acme.eu"
"""


def work(site: Site) -> None:
    """Run the service for the last three seconds."""

    async def for_three_seconds() -> None:
        clock = FakeClock(datetime.now(UTC) - timedelta(seconds=3))
        async with open_service(read_configuration(site.config), clock=clock) as service:
            await service.engine.settle()
            await clock.advance("3 seconds")

    asyncio.run(for_three_seconds())


def test_schedules_that_no_service_has_seen_have_next_times(site: Site) -> None:
    site.type("migrate")
    site.write("workflows/leave.toml", LEAVE + SCHEDULES)
    found = site.json("schedules", "--next", "2")["schedules"]
    assert [(each["workflow"], each["id"], each["last"], len(each["next"])) for each in found] == [
        ("leave", "weekly", None, 2),
        ("leave", "often", None, 2),
    ]
    first, second = (datetime.fromisoformat(at.replace("Z", "+00:00")) for at in found[0]["next"])
    assert timedelta(days=6, hours=22) < second - first < timedelta(days=7, hours=2)
    del found[0]["next"]
    assert found[0] == {
        "workflow": "leave",
        "id": "weekly",
        "cron": "30 9 * * MON",
        "zone": "Europe/Berlin",
        "requester": "ann@acme.eu",
        "overlap": "skip",
        "catch_up": "1h",
        "last": None,
        "queued": None,
        "missed": None,
    }


def test_schedules_say_what_became_of_the_last_time(site_on_each_store: Site) -> None:
    site = site_on_each_store
    site.write("workflows/leave.toml", LEAVE + SCHEDULES)
    work(site)
    (run,) = site.json("runs")["runs"]
    weekly, often = site.json("schedules")["schedules"]
    assert weekly["last"] is None
    assert (often["last"]["outcome"], often["last"]["run_id"]) == ("skipped", run["id"])
    assert often["queued"] < often["last"]["at"]
    text = site.type("schedules").stdout
    assert "leave/weekly  Mon " in text
    assert ", 09:30 in " in text
    assert f"skipped: {run['id']} is open, and a start waits for its end" in text


def test_schedules_of_one_workflow(site: Site) -> None:
    site.type("migrate")
    assert site.type("schedules").stdout == "No schedules.\n"
    assert site.json("schedules", "--workflow", "leave") == {"schedules": []}
    assert "no workflow named 'nothing'" in site.type("schedules", "--workflow", "nothing", fails=True).stderr
