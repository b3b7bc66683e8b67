"""Sessions of signed-in people: at every replica, until they end; and rights that end when a person leaves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import httpx2
import pytest

from approvals_bot.app.service import Service, open_service
from approvals_bot.config.load import Configuration
from approvals_bot.service.attempts import MOST_OF_ADDRESS, Attempts
from approvals_bot.service.audited import AUDITED_OF_PEER
from approvals_bot.service.catalog import read_configuration
from approvals_bot.service.sessions import Sessions, browser_of
from approvals_bot.testing import FakeClock

OURS = {"Sec-Fetch-Site": "same-origin", "Origin": "https://approve.acme.eu"}
BASE = "https://approve.acme.eu"
CONFIG = """
[server]
base_url = "https://approve.acme.eu"
database = "{database}"
signing_keys = ["env:KEY"]
[people."ann@acme.eu"]
name = "Ann Ode"
[people."cy@acme.eu"]
name = "Cy Rus"
[groups]
away = {{ file = "away.json" }}
"""
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


@dataclass
class Replicas:
    """Two replicas on one database, each with the browser that talks to it."""

    folder: Path
    services: list[Service]
    browsers: list[httpx2.AsyncClient]
    clock: FakeClock

    async def sign_in(self, person: str = "ann@acme.eu", at: int = 0) -> dict[str, str]:
        token = await Sessions(self.services[at].engine).begin(person, method="code", browser="Firefox on Linux")
        return {"cookie": f"__Host-approvals={token}"}

    async def statuses(self, cookie: dict[str, str], path: str = "/inbox") -> list[int]:
        return [(await each.get(path, headers=cookie)).status_code for each in self.browsers]

    def reconfigure(self, change: str, to: str = "") -> None:
        file = self.folder / "config.toml"
        file.write_text(file.read_text().replace(change, to))
        for service in self.services:
            service.reload(configured(self.folder))


def configured(folder: Path) -> Configuration:
    return read_configuration(folder / "config.toml", {"KEY": "a signing key of the tests: 0123456789abcdef"})


@pytest.fixture
async def replicas(tmp_path: Path, store_url: str) -> AsyncIterator[Replicas]:
    (tmp_path / "workflows").mkdir()
    (tmp_path / "away.json").write_text('["di@acme.eu"]')
    (tmp_path / "config.toml").write_text(CONFIG.format(database=store_url))
    clock = FakeClock()
    async with replica(tmp_path, clock) as one, replica(tmp_path, clock) as two:
        yield Replicas(tmp_path, [one[0], two[0]], [one[1], two[1]], clock)


@asynccontextmanager
async def replica(folder: Path, clock: FakeClock) -> AsyncIterator[tuple[Service, httpx2.AsyncClient]]:
    async with open_service(configured(folder), clock=clock) as service:
        transport = httpx2.ASGITransport(service.app)
        async with httpx2.AsyncClient(transport=transport, base_url=BASE) as http:
            yield service, http


async def test_a_copied_cookie_ends_everywhere_with_its_sign_out(replicas: Replicas) -> None:
    here, there = await replicas.sign_in(), await replicas.sign_in()
    assert await replicas.statuses(here) == [200, 200]
    left = await replicas.browsers[0].post("/logout", headers=OURS | here)
    assert left.status_code == 303
    assert await replicas.statuses(here) == [401, 401]
    assert await replicas.statuses(there) == [200, 200]  # another browser's session goes on
    lines = await replicas.services[0].engine.audit_lines()
    assert [(line.entry.what, line.entry.who) for line in lines if line.entry.what == "signed_out"] == [
        ("signed_out", "ann@acme.eu")
    ]


async def test_sessions_end_after_idleness_and_their_lifetime(replicas: Replicas) -> None:
    idle, used = await replicas.sign_in(), await replicas.sign_in()
    await replicas.clock.advance("11h")
    assert await replicas.statuses(used) == [200, 200]
    await replicas.clock.advance("2h")
    assert await replicas.statuses(idle) == [401, 401]
    for _ in range(14):
        assert await replicas.statuses(used) == [200, 200]
        await replicas.clock.advance("11h")
    await replicas.clock.advance("3h")
    assert await replicas.statuses(used) == [401, 401]
    assert await replicas.services[0].engine.store.sessions("ann@acme.eu") == []


async def test_a_session_is_marked_as_seen_once_a_minute(replicas: Replicas) -> None:
    cookie, store = await replicas.sign_in(), replicas.services[0].engine.store
    [begun] = await store.sessions("ann@acme.eu")
    await replicas.clock.advance("59s")
    await replicas.statuses(cookie)
    assert await store.sessions("ann@acme.eu") == [begun]
    await replicas.clock.advance("1s")
    await replicas.statuses(cookie)
    assert await store.sessions("ann@acme.eu") == [begun._replace(seen_at=begun.created_at + timedelta(minutes=1))]


async def test_a_session_ends_when_its_person_is_known_no_more(replicas: Replicas) -> None:
    ann, cy = await replicas.sign_in(), await replicas.sign_in("cy@acme.eu")
    assert await replicas.statuses(cy) == [200, 200]
    replicas.reconfigure('[people."cy@acme.eu"]\nname = "Cy Rus"\n')
    assert await replicas.statuses(cy) == [401, 401]
    assert await replicas.statuses(ann) == [200, 200]


async def test_an_unreadable_source_lets_nobody_in_by_it(replicas: Replicas) -> None:
    ann, di = await replicas.sign_in(), await replicas.sign_in("di@acme.eu")
    assert await replicas.statuses(di) == [200, 200]
    (replicas.folder / "away.json").write_text("oops")
    page = await replicas.browsers[0].get("/inbox", headers=di)
    assert page.status_code == 503
    assert "can&#39;t be read" in page.text
    assert await replicas.statuses(ann) == [200, 200]  # the configuration itself names Ann
    (replicas.folder / "away.json").write_text("[]")
    assert await replicas.statuses(di) == [401, 401]


async def test_the_store_holds_only_digests_of_cookies(replicas: Replicas) -> None:
    token = (await replicas.sign_in())["cookie"].partition("=")[2]
    [row] = await replicas.services[0].engine.store.sessions("ann@acme.eu")
    assert token not in repr(row)
    assert await replicas.statuses({"cookie": f"__Host-approvals={row.id}"}) == [401, 401]


async def test_attempts_are_counted_by_address_and_peer(replicas: Replicas) -> None:
    here, there = (Attempts(each.engine) for each in replicas.services)
    ann, bo = "ann@acme.eu", "bo@acme.eu"
    assert [await here.take("guess", ann, "192.0.2.1") for _ in range(6)] == [True] * 6
    assert [await there.take("guess", ann, "192.0.2.1") for _ in range(6)] == [True] * 4 + [False] * 2
    assert await there.take("guess", ann, "192.0.2.2")  # from elsewhere
    assert await there.take("guess", bo, "192.0.2.1")  # somebody else
    assert await there.take("code", ann, "192.0.2.1")  # another kind
    await here.give_back("guess", ann, "192.0.2.1")
    assert [await here.take("guess", ann, "192.0.2.1") for _ in range(2)] == [True, False]
    await replicas.clock.advance("61m")
    assert await there.take("guess", ann, "192.0.2.1")


async def test_one_peer_has_a_hundred_attempts_an_hour(replicas: Replicas) -> None:
    attempts = Attempts(replicas.services[0].engine)
    of_v6 = [f"2001:db8::{n:x}" for n in range(1, 102)]  # all of one subscriber
    taken = [await attempts.take("code", f"p{n}@acme.eu", peer) for n, peer in enumerate(of_v6)]
    assert taken == [True] * 100 + [False]
    assert await attempts.take("code", "p1@acme.eu", "2001:db8:0:1::1")
    rows = [name for name in await names(replicas) if name.startswith("attempts ")]
    assert len(rows) <= 204
    await replicas.clock.advance("2h")
    for n in range(30):
        await attempts.take("code", "ann@acme.eu", f"192.0.2.{n}")
    assert len(await names(replicas)) <= 61  # what is over goes, ten for each that comes


async def test_no_mailbox_is_filled_from_many_places(replicas: Replicas) -> None:
    here, there = (Attempts(each.engine) for each in replicas.services)
    ann = "ann@acme.eu"
    assert await here.take("code", ann, "203.0.113.1")
    await here.give_back("code", ann, "203.0.113.1")
    await here.welcome(ann, "203.0.113.1")  # they have signed in there
    taken = [await (here, there)[n % 2].take("code", ann, f"192.0.2.{n % 40}") for n in range(100)]
    assert sum(taken) == MOST_OF_ADDRESS
    assert await there.take("code", ann, "203.0.113.1")
    assert not await there.take("code", ann, "203.0.113.2")
    assert await there.take("code", "bo@acme.eu", "203.0.113.2")
    assert await there.take("guess", ann, "203.0.113.2")  # guessing locks nobody out
    await replicas.clock.advance("61m")
    assert await here.take("code", ann, "203.0.113.2")


async def test_refusals_that_cost_nothing_fill_no_audit(replicas: Replicas) -> None:
    tries = [{"address": f"p{n}@acme.eu", "code_token": "forged", "code": "123456"} for n in range(30)]
    for each in tries:
        assert (await replicas.browsers[0].post("/login", headers=OURS, data=each)).status_code == 403
    engine = replicas.services[0].engine
    lines = [line for line in await engine.audit_lines() if line.entry.what == "sign_in_refused"]
    assert len(lines) == AUDITED_OF_PEER
    await replicas.clock.advance("61s")
    await replicas.browsers[0].post("/login", headers=OURS, data=tries[0])
    lines = [line for line in await engine.audit_lines() if line.entry.what == "sign_in_refused"]
    assert len(lines) == AUDITED_OF_PEER + 1


async def names(replicas: Replicas) -> list[str]:
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(replicas.folder / "runs.db")) as db:
        return [name for (name,) in db.execute("SELECT name FROM counters")]


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        (FIREFOX, "Firefox on Linux"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) Version/19.0 Mobile Safari/604.1", "Safari on iPhone"),
        ("Mozilla/5.0 (Windows NT 10.0) Chrome/143.0.0.0 Safari/537.36 Edg/143.0.0.0", "Edge on Windows"),
        ("curl/8.5.0", "curl"),
        ("\x00é", ""),
        ("", ""),
        ("x" * 500, "x" * 60),
    ],
)
def test_people_recognize_their_browsers(sent: str, shown: str) -> None:
    assert browser_of(sent) == shown
