"""What operators see of an installation: replicas, store, waits, channels, anchors, configurations."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import date
from html import unescape
from pathlib import Path

import pytest

from approvals_bot.playground.faults import Fault
from approvals_bot.service.channel_watch import ChannelWatch
from approvals_bot.service.operations import growth_of, measure
from approvals_bot.testing import FakeClock
from approvals_bot.web.operations_page import bytes_in_words
from tests.support.posting import a_kept_port
from tests.support.staffed_house import StaffedHouse, a_staffed_house

DI = "di@acme.eu"
SHIP = """
[workflow]
id = "ship"
title = "Ship {{ version }}"
request = ["*"]
[fields]
version = "string"
[[stage]]
id = "go"
from = ["ann@acme.eu"]
[deliver]
email = true
"""


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[StaffedHouse]:
    with a_kept_port() as port:
        async with a_staffed_house(tmp_path, {"ship": SHIP}, port, '[audit]\nkey = "env:AUDIT"') as house:
            yield house


async def shown(house: StaffedHouse) -> str:
    page = await house.get("/operations", DI)
    assert page.status_code == 200
    return unescape(" ".join(re.sub(r"<[^>]+>", " ", page.text).split()))


async def test_operations_say_how_everything_is(house: StaffedHouse) -> None:
    engine = house.service.engine
    before = await shown(house)
    for said in (
        "Nothing is wrong",
        "No request is open.",
        "No run has stalled.",
        "Nothing was sent yet all delivered",
        "no anchor yet",
    ):
        assert said in before, said
    await house.open("ship", version="1")
    await measure(engine)
    await measure(engine)
    await house.clock.advance("2d")
    house.mailbox.faults.add(Fault("error", "RCPT", times=None, code=451, error="4.7.1 greylisted"))
    await house.open("ship", version="2")
    file = house.folder / "workflows" / "ship.toml"
    file.write_text(SHIP.replace('"ann@acme.eu"', '"bo@acme.eu"'))
    config = house.folder / "config.toml"
    config.write_text(
        config.read_text().replace('operator = ["di@acme.eu"]', 'operator = ["di@acme.eu", "cy@acme.eu"]')
    )
    house.service.reload(house.configured())
    troubles = house.service.monitoring.troubles
    troubles.begin("anchor file:a", "anchor_failed", "file:a took no anchor", "Let the service write to `a`")
    troubles.begin("channel email", "channel_down", "the relay <b>can't be reached", "Check [email]")
    page = await shown(house)
    for _ in range(1_000):  # the audit is written in the background
        if "added cy@acme.eu" in page:
            break
        await asyncio.sleep(0.02)
        page = await shown(house)
    (row,) = await engine.store.replicas()
    for said in (
        "What is wrong now The relay <b>can't be reached. What to do: Check [email]. Since Sat 3 Jan 2026, 09:00 UTC. "
        "File:a took no anchor.",
        "What to do: Let the service write to a .",
        "The oldest wait: Ship 1 , opened 2 days ago.",
        "email ✅ Delivering since Thu 1 Jan 2026, 09:00 UTC 1 request affected "
        "the relay asks to try later: 451 4.7.1 greylisted",
        f"{row.id} this one {row.version} schema {row.schema}",
        f"{row.signs_with} signs",
        row.config_digest,
        "a day.",
        "config.toml, ship.toml",
        "added cy@acme.eu",
    ):
        assert said in page, (said, page)
    assert '<a href="/operations" aria-current="page">Operations</a>' in (await house.get("/operations", DI)).text
    for person, status in (("", 401), ("bo@acme.eu", 403), ("audit@acme.eu", 403)):
        answer = await house.get("/operations", person)
        assert (answer.status_code, row.id in answer.text) == (status, False)


def test_a_channel_is_up_or_down_since_it_became_so(clock: FakeClock) -> None:
    watch, began = ChannelWatch(clock.now), clock.now()
    assert watch.of("email") == (None, None, "")
    for outcome, is_up in (("refused", None), ("delivered", True), ("held", True), ("uncertain", True)):
        watch.saw("email", "send", outcome)
        assert watch.of("email")[0] is is_up
    assert watch.of("email") == (True, began, "")
    for _ in range(3):
        watch.saw("email", "send", "try_again")
    assert watch.of("email") == (False, began, "")


@pytest.mark.parametrize(
    ("sizes", "growth"),
    [({}, None), ({"2026-03-08": 9}, None), ({"2026-03-01": 100, "2026-03-05": 5, "2026-03-08": 9}, 100.0)],
)
def test_growth_is_of_a_day_since_the_first_that_is_noted(sizes: dict[str, int], growth: float | None) -> None:
    assert growth_of(sizes, date(2026, 3, 8), 800) == growth
    assert [bytes_in_words(each) for each in (3, 4_200, 1_250_000, 3e9)] == ["3 bytes", "4.2 kB", "1.2 MB", "3.0 GB"]
