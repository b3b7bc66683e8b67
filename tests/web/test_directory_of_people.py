"""A directory under a running service: what people may do follows it, whatever a request was opened with."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from approvals_bot.app.service import open_service
from approvals_bot.approvals.acts import Vote
from approvals_bot.cli.doctor import examine_people
from approvals_bot.service.act import perform
from approvals_bot.service.catalog import check_configuration
from approvals_bot.service.directory import DirectoryReader
from approvals_bot.testing import FakeClock
from tests.web.test_me import change
from tests.web.test_pages import sound
from tests.web.test_roles_on_pages import BASE, CONFIG, DESK, KEY, House, configured

ANN, BO, CY, DI = "ann@acme.eu", "bo@acme.eu", "cy@acme.eu", "di@acme.eu"
STAFF: list[dict[str, Any]] = [
    {"address": ANN, "name": "Ann Ode", "zone": "Europe/Berlin"},
    {"address": BO, "manager": ANN},
    {"address": CY, "groups": ["sre"]},
]
SHIP = """
[workflow]
id = "ship"
title = "Deploy"
request = ["*"]
owners = ["di@acme.eu"]
[[stage]]
id = "go"
from = ["manager-of:requester"]
[deliver]
email = "after 23h"
[clock]
deadline = "1d"
on_deadline = "escalate"
[[escalate]]
after = "4h"
to = ["@sre"]
"""


def write_staff(folder: Path, people: object) -> None:
    (folder / "people.json").write_text(people if isinstance(people, str) else json.dumps({"people": people}))


def write_site(folder: Path) -> None:
    head, _, rest = CONFIG.partition('[people."ann@acme.eu"]')
    config = head + '[people."di@acme.eu"]\nname = "Di Oz"\n' + rest[rest.index("[groups]") :]
    config = config.replace('sre = { file = "sre.json" }', 'sre = { directory = "sre" }')
    (folder / "config.toml").write_text(config + '[directory]\npeople = { file = "people.json" }\n')
    (folder / "workflows").mkdir()
    (folder / "workflows" / "ship.toml").write_text(SHIP)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    write_site(tmp_path)
    write_staff(tmp_path, STAFF)
    clock = FakeClock()
    async with open_service(configured(tmp_path), clock=clock) as service:
        transport = httpx2.ASGITransport(service.app, client=("192.0.2.7", 5000))
        async with httpx2.AsyncClient(transport=transport, base_url=BASE) as http:
            yield House(tmp_path, service, http, clock)


async def list_staff(house: House, people: object) -> None:
    write_staff(house.folder, people)
    await house.service.engine.resources[DirectoryReader].read()


async def vote(house: House, run: str, person: str) -> str:
    reply = await perform(house.service.engine, await house.request(run), Vote(person, "approve", via="inbox"))
    return f"{reply.verdict} {reply.code}".strip()


async def test_who_is_no_longer_listed_may_nothing_any_more(house: House) -> None:
    """Not on what was opened before, either. Their request escalates, and its owner reassigns it."""
    run, other = await house.open(), await house.open()
    link, cookie = await house.link(run, ANN), await house.cookie(ANN)
    assert (await house.request(run)).waiting_for == (ANN,)
    assert (await house.get(link)).status_code == 200
    assert (await house.http.get("/inbox", headers=cookie)).status_code == 200

    await list_staff(house, STAFF[1:])
    assert (await house.get(link)).status_code == 404
    assert (await house.http.get("/inbox", headers=cookie)).status_code == 401
    assert await vote(house, run, ANN) == "not_an_approver left"
    handed = await house.api(f"/api/runs/{other}/approvers", {"by": DI, "person": CY})
    assert handed.status_code == 201, handed.text
    assert await vote(house, other, CY) == "decided"
    await house.clock.advance("5h")
    await house.service.engine.settle()
    assert (await house.request(run)).waiting_for == (CY,)
    assert await vote(house, run, CY) == "decided"


async def diagnosed(house: House) -> list[tuple[str, str]]:
    known = configured(house.folder)
    found = await examine_people(known.service, known.workflows)
    return [(one.state, one.what) for one in found if one.about == "the directory people.json"]


async def test_an_unreadable_directory_keeps_what_it_listed(house: House, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "approvals_bot.service")
    run = await house.open()
    assert await diagnosed(house) == [("OK", "3 people and 1 groups")]
    await list_staff(house, '{"people": [')
    assert await vote(house, run, ANN) == "decided"
    assert (await diagnosed(house))[0][0] == "FAIL"
    page = sound(await house.get("/operations", DI))
    assert "3 people and 1 group from <code>people.json</code>" in page
    assert "It can't be read: it is not JSON" in page.replace("&#39;", "'")
    await list_staff(house, [*STAFF, {"address": "eve@acme.eu", "zone": "Mars"}])
    page = sound(await house.get("/operations", DI)).replace("&#39;", "'")
    assert "4 people" in page
    assert "can't be read" not in page
    logged = [str(record.__dict__.get("event")) for record in caplog.records]
    assert {event for event in logged if event.startswith("directory")} == {"directory_down", "directory_back"}
    assert await diagnosed(house) == [
        ("WARN", '1 of its entries have faults (line 1, people[3].zone: is not a time zone like "Europe/Berlin")')
    ]
    assert "line 1: <code>people[3].zone</code> is not a time zone" in page
    metrics = (await house.http.get("/metrics")).text
    assert 'approvals_people_bad_entries{source="people.json"} 1.0' in metrics
    assert 'approvals_groups_unresolved{source="people.json"} 0.0' in metrics


async def test_a_persons_own_absence_counts_before_the_directorys(house: House) -> None:
    """On days that both have, the delegate is the one whom the person has named; /me shows both."""
    away = {"from": "2026-01-01", "until": "2026-01-05", "delegate": CY}
    await list_staff(house, [STAFF[0] | {"away": [away]}, *STAFF[1:]])
    assert (await house.request(await house.open())).waiting_for == (CY,)
    page = sound(await house.get("/me", ANN))
    assert "In your company's directory." in page.replace("&#39;", "'")
    assert "5 Jan 2026</time>, cy in your place" in page
    await change(house, ANN, act="away", first="2026-01-01", last="2026-01-02", delegate=DI)
    assert (await house.request(await house.open())).waiting_for == (DI,)
    page = sound(await house.get("/me", ANN))
    assert "2 Jan 2026</time>, Di Oz in your place" in page
    assert page.count("in your place</li>") == 1  # the directory's has no button


async def test_a_reload_keeps_the_directory(house: House) -> None:
    house.reconfigure("config.toml", 'name = "Di Oz"', 'name = "Di Ops"')
    assert (await house.request(await house.open())).waiting_for == (ANN,)
    config = house.folder / "config.toml"
    config.write_text(config.read_text().replace('{ directory = "sre" }', '["cy@acme.eu"]'))
    house.reconfigure("config.toml", 'people = { file = "people.json" }\n')
    refused = await house.api("/api/runs", {"workflow": "ship", "requester": BO, "input": {}})
    assert (refused.status_code, refused.json()["title"]) == (422, "Nobody could decide")


async def test_a_directory_that_was_never_read_decides_nothing(tmp_path: Path) -> None:
    write_site(tmp_path)
    async with open_service(configured(tmp_path), clock=FakeClock()) as service:
        transport = httpx2.ASGITransport(service.app, client=("192.0.2.7", 5000))
        async with httpx2.AsyncClient(transport=transport, base_url=BASE) as http:
            house = House(tmp_path, service, http, FakeClock())
            page = sound(await house.get("/operations", DI))
            assert "was never read since the start" in page
            assert (await house.get("/inbox", BO)).status_code == 503
            await list_staff(house, STAFF)
            assert (await house.get("/inbox", BO)).status_code == 200


def test_check_names_what_is_wrong_in_the_directory(tmp_path: Path) -> None:
    env = {"KEY": KEY, "DESK": DESK}
    write_site(tmp_path)

    def warned() -> list[str]:
        checked = check_configuration(tmp_path / "config.toml", env)
        assert not checked.problems
        found = [one for one in checked.warnings if not one.file.endswith("ship.toml")]
        return [f"{Path(one.file).name}:{one.line} {one.key}: {one.message}" for one in found]

    assert warned() == ["people.json:1 file: No such file or directory"]
    write_staff(tmp_path, '{"people": [\n{"address": "ann@acme.eu"},\n{"address": "bo", "groups": ["sre"]}]}')
    first, second = warned()
    assert first.startswith('people.json:3 people[1].address: "bo" is not an email address')
    assert second == "people.json:1 people: nobody is in the group sre, which [groups] sre means"
    write_staff(tmp_path, STAFF)
    assert warned() == []
