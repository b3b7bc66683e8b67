"""P9, for people: PostgreSQL restarts, goes silent or gets slow while they press buttons in Slack and on their pages.

Every press goes the whole way over HTTP: a signed payload through Bolt to `/slack/events`, a form with its token.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from approvals_bot.approvals.request import Request
from approvals_bot.channels.slack.bolt_app import LATE, NOT_SAVED
from approvals_bot.errors import StoreUnavailableError
from approvals_bot.testing import FakeClock
from tests.support.postgres_server import PostgresServer
from tests.support.slack_office import DEPLOY, Office, Open, open_office  # noqa: F401  # the fixture
from tests.support.slack_office_pages import Form, card_of, form_of, send, with_pages
from tests.support.tcp_proxy import Proxy, proxy

ACKNOWLEDGED = 2.5  # seconds within which Slack has an answer, whatever it says
ANSWERED = 6.0  # seconds within which a browser has one
HEALED = 10.0  # seconds after which votes are counted again
BUSY = 5.0  # seconds that a very busy machine may add
AT_ONCE = 3  # requests, each with one person in Slack and one on their page
CHANNELS = tuple(f"team-{number}" for number in range(AT_ONCE))  # each takes one card a second

pytestmark = pytest.mark.timeout(300)


class RunningClock(FakeClock):
    """Leases that nobody holds have to run out."""

    def now(self) -> datetime:
        return datetime.now(UTC)


@dataclass
class Seen:
    """What people saw while there was trouble."""

    acks: list[float] = field(default_factory=list)  # seconds
    pages: list[float] = field(default_factory=list)
    refused: int = 0
    counted: int = 0
    confirmed: list[tuple[str, str]] = field(default_factory=list)  # run and person of votes that were acknowledged


@pytest.fixture
def network(postgres: PostgresServer) -> Iterator[Proxy]:
    with proxy(postgres.dial) as made:
        yield made


@pytest.fixture
async def office(open_office: Open, postgres: PostgresServer, network: Proxy) -> AsyncIterator[Office]:  # noqa: F811
    database = postgres.url_by(network.port, await asyncio.to_thread(postgres.new_database))
    office = await open_office(channels=CHANNELS, settle=0.0, database=database, clock=RunningClock())
    with_pages(office)
    yield office
    network.silent, network.delay = False, 0.0


async def asked(office: Office) -> list[tuple[str, Form]]:
    """Requests that two people have to approve, and the form of one of them."""
    stage = [DEPLOY["stage"][0] | {"need": 2, "comment": "never"}]
    found = []
    for channel in CHANNELS:
        run_id = await office.ask(stage=stage, deliver={"slack": f"#{channel}"})
        async with asyncio.timeout(60):
            while card_of(office, run_id) is None:
                await asyncio.sleep(0.05)
        found.append((run_id, await form_of(office, run_id, "cy@acme.eu")))
    return found


async def press_in_slack(office: Office, run_id: str, seen: Seen) -> None:
    card = card_of(office, run_id)
    try:
        answer = await office.press("U0ANN", "Approve", channel=card.channel, ts=card.ts)
    except AssertionError:  # the buttons are gone, because an earlier press was counted meanwhile
        assert await is_decided(office, run_id)
        return
    seen.acks.append(answer["ack_ms"] / 1000)
    if answer["status"] == 200:
        seen.counted += 1
        seen.confirmed.append((run_id, "ann@acme.eu"))
    else:
        # None: the answer came after three seconds, when Slack has given up. `answered_in_time` judges that
        assert answer["status"] in (503, None), answer
        seen.refused += 1


async def is_decided(office: Office, run_id: str) -> bool:
    try:
        record = await office.engine.record(run_id)
    except StoreUnavailableError:
        return False
    return record is not None and bool(record.parts) and record.parts[0].get("state", "waiting") != "waiting"


async def press_on_the_page(office: Office, run_id: str, form: Form, seen: Seen) -> None:
    status, text = await send(office, form, "approve", seen.pages)
    if status < 300:
        seen.counted += 1
        seen.confirmed.append((run_id, "cy@acme.eu"))
    else:
        assert status == 503, (status, text)
        seen.refused += 1


async def everybody_presses(office: Office, requests: list[tuple[str, Form]], seen: Seen) -> None:
    async with asyncio.TaskGroup() as group:
        for run_id, form in requests:
            group.create_task(press_in_slack(office, run_id, seen))
            group.create_task(press_on_the_page(office, run_id, form, seen))


async def heals(office: Office, requests: list[tuple[str, Form]], seen: Seen) -> None:
    """Retry each press until it is confirmed; check that no confirmed vote is lost or counted twice."""
    began = time.monotonic()
    while True:
        again = Seen()
        # A press that could not be answered may have been saved, and then the cards have no buttons any more.
        await everybody_presses(
            office, [(run, form) for run, form in requests if not await is_decided(office, run)], again
        )
        seen.confirmed += again.confirmed
        if not again.refused:
            break
        assert time.monotonic() - began < HEALED + BUSY
    seconds = time.monotonic() - began
    sys.stdout.write(f"all are counted {seconds:.1f} s after it is over\n")
    assert seconds < HEALED + BUSY
    for run_id, _ in requests:
        record = await office.engine.wait(run_id, 60.0)
        assert (record.status, record.result["outcome"]) == ("completed", "approved")
        voted = [vote.by for vote in Request.model_validate(record.parts[0]).votes if vote.counts]
        assert sorted(voted) == ["ann@acme.eu", "cy@acme.eu"]
        log = await office.engine.events(run_id)
        assert sum(event.type == "run_completed" for event in log) == 1


def answered_in_time(seen: Seen) -> None:
    sys.stdout.write(
        f"slowest answer to Slack {max(seen.acks):.2f} s, to a browser {max(seen.pages):.2f} s; "
        f"{seen.counted} presses taken, {seen.refused} refused\n"
    )
    assert max(seen.acks, default=0.0) < ACKNOWLEDGED + BUSY, seen.acks
    assert max(seen.pages, default=0.0) < ANSWERED + BUSY, seen.pages


@pytest.mark.promise(9)
async def test_people_vote_while_postgres_is_silent(office: Office, network: Proxy) -> None:
    requests, seen = await asked(office), Seen()
    network.silent = True
    await everybody_presses(office, requests, seen)
    answered_in_time(seen)
    assert seen.refused == 2 * AT_ONCE, "nothing is acknowledged that nobody could write"
    async with asyncio.timeout(60):
        while not any(message.text in (LATE, NOT_SAVED) for message in office.ephemerals("U0ANN")):
            await asyncio.sleep(0.1)
    network.silent = False
    await heals(office, requests, seen)


@pytest.mark.promise(9)
async def test_people_vote_while_postgres_restarts(office: Office, postgres: PostgresServer) -> None:
    if not postgres.can_restart:
        pytest.skip("NOT TESTED: this PostgreSQL is somebody else's, so it can't be restarted")
    requests, seen = await asked(office), Seen()
    restarting = asyncio.create_task(asyncio.to_thread(postgres.restart))
    while not restarting.done():
        await everybody_presses(office, requests, seen)
    await restarting
    answered_in_time(seen)
    await heals(office, requests, seen)


@pytest.mark.parametrize("delay", [0.1, 0.5])
@pytest.mark.promise(9)
async def test_people_vote_while_the_network_is_slow(office: Office, network: Proxy, delay: float) -> None:
    requests, seen = await asked(office), Seen()
    network.delay = (
        delay  # seconds for each piece, there and back: of the second one a click's two round trips are too many
    )
    await everybody_presses(office, requests, seen)
    answered_in_time(seen)
    assert seen.acks
    network.delay = 0.0
    await heals(office, requests, seen)
