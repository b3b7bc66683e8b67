"""Standing grants, counted by several processes on both stores."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from approvals_bot.approvals.given_grants import GivenVote, StandingGrant
from approvals_bot.approvals.request import Opening
from approvals_bot.approvals.standing_grants import GrantUse, StandingGrants
from approvals_bot.approvals.workflow import approval
from approvals_bot.durable.engine import Engine
from approvals_bot.service.standing import StoredGrants
from approvals_bot.testing import FakeClock
from tests.approvals.conftest import DI, make_office
from tests.approvals.test_standing import ACCESS, PROD, given

SECOND = timedelta(seconds=1)


@pytest.fixture(params=["sqlite", "postgres"])
async def engines(request: pytest.FixtureRequest, tmp_path: Any) -> AsyncIterator[list[Engine]]:
    """Two processes' engines on one store, with one clock."""
    url = f"sqlite:///{tmp_path}/runs.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    async with AsyncExitStack() as stack:
        clock = FakeClock()
        yield [await stack.enter_async_context(Engine.open(url, clock=clock)) for _ in range(2)]


async def test_uses_at_once_never_exceed_the_grant(engines: list[Engine]) -> None:
    lists, now = [StoredGrants(engine) for engine in engines], engines[0].now()
    limits: dict[str, Any] = {"times": 8, "sums": {"price": Decimal(60)}}
    votes = (GivenVote("go", DI),)
    await lists[0].give("s", StandingGrant("grant:1", "run_1", "", votes, now, now + timedelta(days=1), **limits))
    uses = [GrantUse(f"run_{n}", now + SECOND, {}, {"price": Decimal(10)}) for n in range(2, 22)]
    found = await asyncio.gather(*(lists[n % 2].use("s", "grant:1", use) for n, use in enumerate(uses)))
    assert sorted(use.number for use in found if use is not None) == [1, 2, 3, 4, 5, 6], "60 is enough for six"
    again = await asyncio.gather(*(lists[n % 2].use("s", "grant:1", use) for n, use in enumerate(uses)))
    assert [use is not None for use in again] == [use is not None for use in found], "a repeat finds its own use"
    assert await lists[1].revoke("s", "grant:1", DI, "no longer")
    assert await lists[0].active("s") == ()


@pytest.mark.long
async def test_fifty_requests_at_once_get_twenty_uses(postgres_url: str) -> None:
    office = make_office(postgres_url)
    text = ACCESS.replace("times = 3", "times = 20").replace('max = "100"', 'max = "10000"')
    async with office.open():
        first = await given(office, text=text)
        gives = (await first.view()).standing
        assert gives is not None
        other = make_office(postgres_url)
        other.clock = office.clock
        async with other.open():
            other.engine.resources[StandingGrants] = StoredGrants(other.engine)
            await office.clock.advance("1s")
            record = await first.record()
            listed = approval.under(record.workflow, (await office.engine.events(first.run.id))[0].data["settings"])
            runs = await asyncio.gather(
                *((office, other)[n % 2].engine.start(listed, Opening(dict(PROD), DI)) for n in range(50))
            )
            await office.settle()
            records = [await office.engine.record(run.id) for run in runs]
            by = [record.parts[0].get("outcome", {}).get("by", "") for record in records if record is not None]
            assert by.count(gives.grant.id) == 20
            assert by.count("") == 30
