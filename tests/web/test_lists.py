"""Lists on both stores survive whatever workflows publish, and damaged rows."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from approvals_bot.approvals.business_time import Calendars
from approvals_bot.approvals.policy import Definition, pinned
from approvals_bot.approvals.published import NO_DEADLINE, concerns, found_by, place_for
from approvals_bot.approvals.request import Request
from approvals_bot.approvals.request_approval import request_approval
from approvals_bot.approvals.workflow import approval
from approvals_bot.durable.core.api import create_hook, publish, workflow
from approvals_bot.durable.core.attributes import Placed
from approvals_bot.service.catalog import Listed
from approvals_bot.web import list_pages
from approvals_bot.web.run_filters import STATUSES
from tests.support.thorough import examples

ANN, BO, CY = "ann@acme.eu", "bo@acme.eu", "cy@acme.eu"

LOOKS_LIKE_A_REQUEST: dict[str, Any] = {"hook_id": "h", "recipients": {"x": ANN}, "digest": "d", "waiting_for": [ANN]}
ODD: dict[str, Any] = {
    "a list": [1, ANN],
    "a text": "waiting_for",
    "a number": 7,
    "false": False,
    "what requests had": LOOKS_LIKE_A_REQUEST,
    "what several had": {"requests": [LOOKS_LIKE_A_REQUEST], "waiting_for": [ANN], "published": None},
    "a list of requests": [LOOKS_LIKE_A_REQUEST],
    "our keys, other types": {"requests": "no", "waiting_for": {"a": 1}, "number": "x", "state": [], "parts": None},
    "names of attributes": {"$waiting_for": [ANN], "requested_by": [ANN], "attributes": {"waiting_for": ANN}},
    "what can't be a text": {"text": "a\x00b \ud800"},
}
"""What an author may publish: any JSON."""


@workflow
async def publishes(name: str) -> None:
    publish(ODD[name])
    await create_hook(f"shows/{name}")


@workflow
async def shows_a_whole_request(given: str) -> None:
    publish(json.loads(given))
    await create_hook("whole")


@workflow
async def asks_and_shows() -> str:
    publish({"waiting_for": [CY], "requests": [], "hook_id": "h"})
    outcome = await request_approval("Buy a chair", approvers=ANN, deliver={})
    return type(outcome).__name__


SPEND = {
    "workflow": {"id": "spend", "title": "Spend {{ amount }}", "request": ["*"]},
    "fields": {"amount": "integer"},
    "stage": [{"id": "go", "from": [ANN, CY], "need": 2}],
}


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest, tmp_path: Any) -> str:
    """A store of this test's own, of either kind."""
    return f"sqlite:///{tmp_path}/runs.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


@pytest.fixture
async def office(open_service: Any) -> AsyncIterator[Any]:
    async with open_service(open_pages=True) as service:
        service.engine.resources[Calendars] = Calendars({})
        for each in (publishes, shows_a_whole_request, asks_and_shows):
            service.workflows[each.name] = Listed(each)
        definition = Definition.model_validate(SPEND)
        service.workflows["spend"] = Listed(approval.under("spend", pinned(definition)), definition)
        yield service


@pytest.fixture
def damage(store_url: str, request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Changes rows without the program knowing."""

    def execute(sql: str) -> None:
        if store_url.startswith("sqlite"):
            with closing(sqlite3.connect(store_url.removeprefix("sqlite:///"))) as db, db:
                db.execute(sql)
        else:
            request.getfixturevalue("postgres").execute(sql, store_url)

    return execute


async def spend(office: Any, amount: int = 1) -> str:
    """Open requests a minute apart, so lists have a known order."""
    await office.clock.advance("1m")
    return str(await office.start("spend", {"amount": amount}, requester=BO))


async def look_everywhere(office: Any, run_id: str) -> dict[str, Any]:
    """Check that every list has this run. Returns it as the API lists it."""
    (listed,) = [run for run in (await office.api.get("/api/runs")).json()["runs"] if run["id"] == run_id]
    assert listed.items() <= (await office.run(run_id)).items()
    assert f'href="/runs/{run_id}"' in (await office.web.get("/runs")).text
    for path in (f"/runs/{run_id}", f"/inbox?person={ANN}", f"/inbox?person={BO}", "/metrics"):
        assert (await office.web.get(path)).status_code == 200, path
    found: dict[str, Any] = listed
    return found


async def waiting(office: Any, person: str) -> list[str]:
    found = (await office.api.get("/api/runs", params={"waiting_for": person})).json()["runs"]
    return [run["id"] for run in found]


# ── what an author publishes ──


async def test_published_values_are_never_taken_for_requests(office: Any) -> None:
    asked = await spend(office)
    for name, value in ODD.items():
        run_id = await office.start("publishes", {"name": name})
        assert (await look_everywhere(office, run_id))["request"] is None, name
        assert await waiting(office, ANN) == [asked], name
        await office.clock.advance("3s")  # a young run is given a moment to make its request
        assert (await office.web.get(f"/requests/{run_id}")).status_code == 404, name
        vote = await office.api.post(f"/api/runs/{run_id}/votes", json={"by": ANN, "choice": "approve"})
        assert (vote.status_code, vote.json()["title"]) == (409, "Not requested yet"), name
        record = await office.engine.record(run_id)
        assert (record.kind, record.view, record.parts) == ("workflow", value, [])


async def test_a_copy_of_a_whole_request_is_still_only_a_published_value(office: Any) -> None:
    asked = await spend(office)
    part = (await office.engine.record(asked)).parts[0]
    run_id = await office.start("shows_a_whole_request", {"given": json.dumps(part)})
    assert (await look_everywhere(office, run_id))["request"] is None
    assert await waiting(office, ANN) == [asked]
    assert (await office.web.get(f"/inbox?person={ANN}")).text.count(">Spend 1</a>") == 1


async def test_what_a_workflow_publishes_leaves_its_requests_alone(office: Any) -> None:
    run_id = await office.start("asks_and_shows", requester="cfo@acme.eu")
    found = await look_everywhere(office, run_id)
    assert [one["id"] for one in found["requests"]] == [f"{run_id}.1"]
    assert (await waiting(office, ANN), await waiting(office, CY)) == ([run_id], [])
    answer = await office.api.post(f"/api/runs/{run_id}/votes", json={"by": ANN, "choice": "approve"})
    assert answer.json()["verdict"] == "decided"
    ended = (await office.api.get(f"/api/runs/{run_id}?wait=20")).json()
    assert (ended["result"], await waiting(office, ANN)) == ("Approved", [])
    record = await office.engine.record(run_id)
    assert (record.kind, record.view["waiting_for"], len(record.parts)) == ("workflow", [CY], 1)


async def test_an_attribute_of_the_starter_lists_no_request(office: Any) -> None:
    await office.engine.start(publishes, "a number", attributes={"waiting_for": ANN, "team": "red"})
    await office.engine.settle()
    assert await waiting(office, ANN) == []
    (record,) = (await office.engine.records(attributes={"team": "red"})).records
    assert record.attributes == {"waiting_for": ANN, "team": "red"}
    assert (await office.engine.records(attributes={"team": "blue"})).records == []
    with pytest.raises(ValueError, match="reserved"):
        await office.engine.start(publishes, "a number", attributes={"$waiting_for": ANN})


# ── rows that are damaged ──

DAMAGES = {
    "parts that are no JSON": "UPDATE runs SET parts = '{{'",
    "parts that are something else": "UPDATE runs SET parts = '[1, null, {{}}]'",
    "parts that are no list": "UPDATE runs SET parts = '\"waiting_for\"'",
    "no parts": "UPDATE runs SET parts = NULL",
    "a view that is no JSON": "UPDATE runs SET view = 'x', parts = NULL",
    "attributes that are no JSON": "UPDATE runs SET attributes = 'x', parts = '[]'",
    "attributes that are something else": "UPDATE runs SET attributes = '[1]', parts = '[]'",
    "another kind": "UPDATE runs SET kind = 'bill', parts = '[[]]'",
    "a time of no calendar": "UPDATE runs SET parts = '[]', ended_at = 9000000000000000000",
    "a number that is no time": "UPDATE runs SET parts = '[]', wake_at = -9000000000000000000",
}


async def test_damaged_rows_are_listed_as_plain_and_break_no_list(office: Any, damage: Callable[[str], None]) -> None:
    whole = await spend(office, 1)
    runs = {how: await office.run(await spend(office, 2)) for how in DAMAGES}
    for how, sql in DAMAGES.items():
        damage(sql.format() + f" WHERE id = '{runs[how]['id']}'")

    async def look(how: str, before: dict[str, Any]) -> None:
        found = await look_everywhere(office, before["id"])
        assert (found["request"], found["workflow"], found["status"]) == (None, "spend", "running"), how
        assert found["created_at"] == before["created_at"], how
        assert (await office.run(whole))["request"]["title"] == "Spend 1", how
        inbox = (await office.web.get(f"/inbox?person={ANN}")).text
        assert "Spend 1" in inbox, how
        assert f'href="/runs/{before["id"]}"' in inbox, f"its attributes say that it waits for them, with {how}"

    await asyncio.gather(*(look(how, before) for how, before in runs.items()))  # a page waits for its request


async def test_an_unknown_status_and_an_odd_end_break_no_list(office: Any, damage: Callable[[str], None]) -> None:
    run_id = await spend(office)
    await office.engine.cancel(run_id)
    for data in ("x", "[]", "null", '{"error": 1, "reason": {}}', '{"error": {"type": 1}}'):
        damage(f"UPDATE events SET data = '{data}' WHERE type = 'run_cancelled'")  # noqa: S608  # the test's own
        answer = await office.api.get("/api/runs")
        assert answer.status_code == 200
    damage(f"UPDATE runs SET status = 'odd', parts = '[]' WHERE id = '{run_id}'")  # noqa: S608
    (run,) = (await office.api.get("/api/runs")).json()["runs"]
    assert run["status"] == "odd"
    assert "odd" in (await office.web.get("/runs")).text.lower()


async def test_a_text_that_is_no_text_breaks_no_list(
    office: Any, store_url: str, damage: Callable[[str], None]
) -> None:
    if not store_url.startswith("sqlite"):
        pytest.skip("PostgreSQL refuses it")
    whole, damaged = await spend(office, 1), await spend(office, 2)
    damage(f"UPDATE runs SET parts = CAST(x'5bff5d' AS TEXT) WHERE id = '{damaged}'")  # noqa: S608
    assert (await look_everywhere(office, damaged))["request"] is None
    answer = await office.api.post(f"/api/runs/{whole}/votes", json={"by": ANN, "choice": "approve"})
    assert answer.json()["verdict"] == "counted", "other runs are unaffected"
    mended = await office.api.post(f"/api/runs/{damaged}/votes", json={"by": ANN, "choice": "approve"})
    assert mended.status_code == 409


LEAVES: list[Any] = [None, "", 0, -1, True, [], {}, "x" * 300, "2026-99-99", [None], {"a": {}}]


@st.composite
def damaged_part(draw: st.DrawFn, part: dict[str, Any]) -> Any:
    """The part with one of its values replaced."""
    whole = json.loads(json.dumps(part))
    place: Any = whole
    while True:
        key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not (isinstance(place[key], dict | list) and place[key]) or draw(st.booleans()):
            place[key] = draw(st.sampled_from(LEAVES))
            return whole
        place = place[key]


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
async def test_whatever_stands_in_a_part_every_list_answers(office: Any, damage: Callable[[str], None]) -> None:
    run_id, whole = await spend(office, 2), await spend(office, 1)
    await office.api.post(f"/api/runs/{run_id}/votes", json={"by": CY, "choice": "approve", "comment": "Yes."})
    part = (await office.engine.record(run_id)).parts[0]

    damages: list[Any] = []

    @settings(max_examples=examples(150), deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(damaged_part(part))
    def collect(damaged: Any) -> None:
        damages.append(damaged)

    collect()
    for damaged in damages:
        text = json.dumps([damaged]).replace("'", "''")
        damage(f"UPDATE runs SET parts = '{text}' WHERE id = '{run_id}'")  # noqa: S608
        answer = await office.api.get("/api/runs")
        assert answer.status_code == 200, damaged
        assert [run["id"] for run in answer.json()["runs"]] == [whole, run_id]
        for path in ("/runs", f"/inbox?person={ANN}", f"/inbox?person={BO}"):
            assert (await office.web.get(path)).status_code == 200, (path, damaged)


# ── pages ──


async def test_an_inbox_begins_with_the_oldest_and_goes_on_to_the_newest(
    office: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(list_pages, "PAGE", 3)
    asked = []
    for amount in range(7):
        asked.append(await spend(office, amount))
    seen, path = list[str](), f"/inbox?person={ANN}"
    while path:
        text = (await office.web.get(path)).text
        seen += re.findall(r'href="/requests/(run_\w+)"', text.partition('id="shown"')[0])
        assert f"7 requests are waiting for {ANN}, the next deadline first." in text
        more = re.search(r'<a href="([^"]+)" rel="next">More requests', text)
        path = more[1].replace("&amp;", "&") if more else ""
    assert seen == asked
    assert (await office.web.get("/inbox?person=ann@acme.eu&cursor=x")).status_code == 404
    assert (await office.web.get("/runs?cursor=x")).status_code == 404


async def test_lists_of_the_api_are_filtered_and_paged(office: Any) -> None:
    asked = [await spend(office, amount) for amount in range(5)]
    await office.start("publishes", {"name": "a list"})
    await office.api.post(f"/api/runs/{asked[0]}/cancellation", json={"reason": "no"})
    await office.engine.settle()

    async def ids(**query: Any) -> list[str]:
        found, cursor = list[str](), dict[str, str]()
        while True:
            page = (await office.api.get("/api/runs", params=query | cursor)).json()
            found += [run["id"] for run in page["runs"]]
            if page["cursor"] is None:
                return found
            cursor = {"cursor": page["cursor"]}

    assert await ids(waiting_for=ANN, limit=2) == asked[1:]
    assert await ids(waiting_for=ANN, workflow="publishes") == []
    assert await ids(workflow="spend", status="cancelled") == asked[:1]
    assert await ids(workflow="spend", status="running", limit=1) == asked[:0:-1]


# ── the people whose lists have a run ──


def test_a_run_is_found_by_everyone_in_its_requests() -> None:
    base = {"run_id": "r", "hook_id": "h", "workflow": "w", "definition": "", "version": 1, "title": "t"}
    base |= {"requester": BO, "asked_at": "2026-01-01T00:00:00Z"}
    vote = {"vote": {"by": CY, "choice": "approve", "via": "api"}, "at": "2026-01-01T00:00:00Z"}
    stages = [{"id": "go", "state": "open", "votes": [vote]}]
    ended = {"state": "approved", "by": CY, "at": "2026-01-01T00:00:00Z", "via": "api"}
    waits = Request.model_validate(base | {"state": "waiting", "waiting_for": [ANN], "stages": stages})
    done = Request.model_validate(base | {"state": "approved", "stages": stages, "outcome": ended, "on_behalf_of": ANN})
    assert found_by([waits]) == {
        "waiting_for": [Placed(ANN, NO_DEADLINE + 1_767_225_600_000_000)],
        "requested_by": [BO],
        "voted_by": [CY],
        "open_vote_of": [CY],
        "ended_vote_of": [],
        "state": [],
    }
    soon = waits.model_copy(update={"deadline": datetime(2026, 1, 2, tzinfo=UTC)})
    assert found_by([waits, soon, done])["waiting_for"][1] == Placed(ANN, 1_767_312_000_000_000)
    assert place_for([waits, soon], ANN) == 1_767_312_000_000_000
    assert found_by([done, waits])["requested_by"] == [BO, ANN]
    assert (found_by([done])["ended_vote_of"], found_by([done])["state"]) == ([CY], ["approved"])
    assert (concerns(waits, "waiting_for", ANN), concerns(done, "waiting_for", ANN)) == (True, False)


# ── how they are read ──


async def test_every_list_and_page_reads_along_an_index(office: Any, no_scans: list[str]) -> None:
    """The fixture explains each statement. Here, all that the service can be asked for is asked for."""
    run_id = await spend(office)
    await office.engine.cancel(await office.start("publishes", {"name": "a list"}))
    cursor = ""
    for name, status, person, limit in itertools.product(("", "spend"), ("", *STATUSES), ("", ANN), ("1", "9")):
        asked = {"workflow": name, "status": status, "waiting_for": person, "limit": limit, "cursor": cursor}
        answer = await office.api.get("/api/runs", params={name: value for name, value in asked.items() if value})
        assert answer.status_code == 200
        cursor = answer.json()["cursor"] or cursor
    for status in ("", *STATUSES):
        assert (await office.web.get("/runs", params={"status": status, "cursor": cursor})).status_code == 200
    for path in (*PAGES, f"/runs/{run_id}", f"/requests/{run_id}", f"/api/runs/{run_id}", f"/api/runs/{run_id}/events"):
        assert (await office.api.get(path)).status_code == 200, path
    assert no_scans == []


PAGES = ("/inbox", f"/inbox?person={ANN}", f"/inbox?person={BO}", "/metrics", "/readyz", "/healthz")


async def test_a_scan_would_be_found(office: Any, no_scans: list[str], store_url: str) -> None:
    if not store_url.startswith("sqlite"):
        pytest.skip("only SQLite's statements are explained")
    await office.engine.store._lists.run(lambda db: db.execute("SELECT id FROM runs WHERE view IS NULL").fetchall())
    assert [line.partition(":")[0] for line in no_scans] == ["SCAN runs"]
    no_scans.clear()
