"""Requests and runs by filters: on the page for viewers, as a table, and in the API."""

from __future__ import annotations

import csv
import re
from typing import Any

import httpx2
import pytest

from approvals_bot.approvals.policy import Definition, pinned
from approvals_bot.approvals.workflow import approval
from approvals_bot.durable.core.api import workflow
from approvals_bot.service import lists
from approvals_bot.service.catalog import Listed
from tests.web.test_pages import sound
from tests.web.test_roles_on_pages import House
from tests.web.test_roles_on_pages import house as house  # a fixture

ANN, BO, CY, DI = "ann@acme.eu", "bo@acme.eu", "cy@acme.eu", "di@acme.eu"


@workflow
async def counts_sheep() -> str:
    return "asleep"


@pytest.fixture
async def office(open_service: Any) -> Any:
    """Six requests, a minute apart, in different states, and a plain run."""
    async with open_service(open_pages=True) as service:
        outcomes = ["approve", "reject", "changes"]
        for name, stages, deadline in (
            ("lend", [{"id": "go", "from": [ANN, CY], "outcomes": outcomes}], "9h"),
            ("rush", [{"id": "first", "from": [ANN]}, {"id": "second", "from": [ANN]}], "8h55m"),
        ):
            about = {"id": name, "title": "Lend {{ what }}", "request": ["*"]}
            tables: dict[str, Any] = {"fields": {"what": "string"}, "stage": stages, "clock": {"deadline": deadline}}
            definition = Definition.model_validate({"workflow": about} | tables)
            service.workflows[name] = Listed(approval.under(name, pinned(definition)), definition)
        service.workflows[counts_sheep.name] = Listed(counts_sheep)
        service.ids = {}
        for what, requester in (
            ("a saw", BO),
            ("=1+1", BO),
            ("a drill", DI),
            ("a van", BO),
            ("a boat", BO),
            ("a rope", DI),
        ):
            service.ids[what] = await service.start("lend", {"what": what}, requester=requester)
            await service.clock.advance("1m")
        for what, by, choice in (("a saw", ANN, "approve"), ("=1+1", CY, "reject"), ("a drill", ANN, "changes")):
            body = {"by": by, "choice": choice, "comment": "So be it."}
            answer = await service.api.post(f"/api/runs/{service.ids[what]}/votes", json=body)
            assert answer.status_code == 201, answer.text
        answer = await service.api.post(f"/api/runs/{service.ids['a van']}/cancellation", json={"reason": "no"})
        assert answer.status_code == 202
        service.ids["sheep"] = await service.start(counts_sheep.name)
        await service.engine.settle()
        yield service


NAMES = ["a saw", "=1+1", "a drill", "a van", "a boat", "a rope", "sheep"]

FILTERS: list[tuple[dict[str, str], list[str]]] = [
    ({}, NAMES[::-1]),
    ({"state": "waiting"}, ["a rope", "a boat"]),
    ({"state": "approved"}, ["a saw"]),
    ({"state": "rejected"}, ["=1+1"]),
    ({"state": "changes"}, ["a drill"]),
    ({"state": "cancelled"}, ["a van"]),
    ({"state": "completed"}, ["sheep"]),
    ({"state": "expired"}, []),
    ({"state": "not_delivered"}, []),
    ({"status": "cancelled", "state": "waiting"}, []),
    ({"status": "completed"}, ["sheep", "=1+1", "a saw"]),
    ({"workflow": "lend", "status": "completed"}, ["=1+1", "a saw"]),
    ({"requester": "DI@acme.eu"}, ["a rope", "a drill"]),
    ({"requester": DI, "state": "waiting"}, ["a rope"]),
    ({"waiting_for": ANN}, ["a boat", "a rope"]),
    ({"waiting_for": ANN, "requester": DI, "q": "ROPE"}, ["a rope"]),
    ({"waiting_for": ANN, "opened_after": "2026-01-01T09:05:00Z"}, ["a rope"]),
    ({"q": "END A"}, ["a rope", "a boat", "a van", "a drill", "a saw"]),
    ({"opened_after": "2026-01-01T09:04:00Z"}, ["sheep", "a rope", "a boat"]),
    ({"opened_after": "2026-01-01T09:01:00+00:00", "opened_before": "2026-01-01 09:03:00"}, ["a drill", "=1+1"]),
    ({"opened_before": "2026-01-01"}, []),
    ({"delivery": "delivered"}, []),
    ({"delivery": "held"}, []),
    ({"order": "oldest"}, NAMES),
    ({"order": "newest", "status": "completed"}, ["sheep", "=1+1", "a saw"]),
    ({"order": "oldest", "status": "completed"}, ["a saw", "=1+1", "sheep"]),
    ({"order": "oldest", "state": "cancelled"}, ["a van"]),
    ({"order": "oldest", "requester": DI, "q": "end a"}, ["a drill", "a rope"]),
]


async def test_filters_find_the_same_in_the_api_page_and_table(office: Any) -> None:
    of = {run: what for what, run in office.ids.items()}
    for asked, expected in FILTERS:
        answer = await office.api.get("/api/runs", params=asked)
        assert [of[run["id"]] for run in answer.json()["runs"]] == expected, asked
        page = sound(await office.web.get("/runs", params=asked))
        assert [of[run] for run in re.findall(r'<a href="/runs/(run_\w+)">timeline</a>', page)] == expected, asked
        table = await office.web.get("/runs.csv", params=asked)
        assert [of[row["id"]] for row in csv.DictReader(table.text.splitlines())] == expected, asked


async def test_pages_of_any_filter_go_on_where_they_ended(office: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "AT_ONCE", 2)
    of = {run: what for what, run in office.ids.items()}
    for looked_at in (2, 100):
        monkeypatch.setattr(lists, "LOOKED_AT", looked_at)
        for asked, expected in FILTERS:
            found, cursor = list[str](), dict[str, str]()
            for _ in range(20):
                page = (await office.api.get("/api/runs", params=asked | cursor | {"limit": "1"})).json()
                found += [of[run["id"]] for run in page["runs"]]
                if page["cursor"] is None:
                    break
                cursor = {"cursor": page["cursor"]}
            assert found == expected, (asked, looked_at)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"state": "lost"}, "one of: answered, approved"),
        ({"status": "lost"}, "one of: cancelled, completed"),
        ({"delivery": "lost"}, "one of: delivered, held"),
        ({"workflow": "lost"}, "one of: counts_sheep"),
        ({"requester": "nobody"}, "not a person"),
        ({"waiting_for": "nobody"}, "not a person"),
        ({"opened_after": "yesterday"}, "not a day like 2026-11-28"),
        ({"opened_before": "2026-13-01"}, "not a day like 2026-11-28"),
        ({"colour": "red"}, "no such filter"),
        ({"order": "biggest"}, "one of: newest, oldest"),
        ({"q": "x" * 201}, "longer than 200 characters"),
    ],
)
async def test_what_no_filter_knows_is_refused_by_name(office: Any, asked: dict[str, str], said: str) -> None:
    answer = await office.api.get("/api/runs", params=asked)
    assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, ["query", *asked])
    assert said in answer.json()["errors"][0]["msg"]
    page = await office.web.get("/runs", params=asked)
    assert (page.status_code, said in sound(page)) == (422, True)
    assert (await office.web.get("/runs.csv", params=asked)).status_code == 422


async def test_some_filters_of_the_api_exclude_each_other(office: Any) -> None:
    for asked, name in (
        ({"key": "x", "state": "waiting"}, "state"),
        ({"attr.a.gte": "1", "q": "x"}, "attr"),
    ):
        answer = await office.api.get("/api/runs", params=asked)
        assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, ["query", name])


async def test_a_table_of_words_looks_through_so_many_runs(office: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "AT_ONCE", 2)
    monkeypatch.setattr(lists, "LOOKED_AT", 2)
    for most, found in ((100, 1), (4, 0)):
        monkeypatch.setattr(lists, "LOOKED_AT_IN_TABLE", most)
        table = await office.web.get("/runs.csv?q=saw")
        assert len(table.text.splitlines()) == 1 + found, "the oldest of seven"
        assert len((await office.web.get("/runs.csv")).text.splitlines()) == 8, "an index has them all"
    assert "looking through 20,000" in sound(await office.web.get("/runs?q=saw"))


async def test_the_table_has_no_formula(office: Any) -> None:
    table = await office.web.get("/runs.csv?state=rejected")
    assert table.headers["content-type"] == "text/csv; charset=utf-8"
    assert 'filename="runs.csv"' in table.headers["content-disposition"]
    (row,) = csv.DictReader(table.text.splitlines())
    assert [*row] == ["id", "workflow", "title", "state", "requester", "opened_at", "ended_at", "outcome", "by"]
    ended = row.pop("ended_at")
    assert [*row.values()][1:] == ["lend", "Lend =1+1", "rejected", BO, "2026-01-01T09:01:00Z", "rejected", CY]
    assert ended == "2026-01-01T09:06:00Z"
    (exported,) = [line for line in await office.engine.audit_lines() if line.entry.what == "runs_exported"][-1:]
    assert exported.entry.data == {"selected": {"state": "rejected"}}


async def test_the_inbox_begins_with_the_next_deadline(office: Any) -> None:
    soon = await office.start("rush", {"what": "a tent"}, requester=BO)
    page = (await office.web.get(f"/inbox?person={ANN}")).text.partition('id="shown"')[0]
    assert re.findall(r'href="/requests/(run_\w+)"', page) == [soon, office.ids["a boat"], office.ids["a rope"]]
    assert "3 requests are waiting for ann@acme.eu, the next deadline first." in page
    assert "<title>(3) Inbox" in page
    await office.clock.advance("5m")
    vote = {"by": ANN, "choice": "approve"}
    assert (await office.api.post(f"/api/runs/{soon}/votes", json=vote)).json()["text"].endswith("Next: Second.")
    await office.engine.settle()
    # The second stage has a deadline of its own.
    page = (await office.web.get(f"/inbox?person={ANN}")).text.partition('id="shown"')[0]
    assert re.findall(r'href="/requests/(run_\w+)"', page) == [office.ids["a boat"], office.ids["a rope"], soon]


async def test_lists_are_for_viewers(house: House) -> None:
    run = await house.open()
    for path in ("/runs", "/runs.csv"):
        for person, status in (("", 401), ("bo@acme.eu", 403), ("cy@acme.eu", 200), ("di@acme.eu", 200)):
            answer: httpx2.Response = await house.get(path, person)
            assert (answer.status_code, run in answer.text) == (status, status == 200), (path, person)
        assert "This page is for viewers" in (await house.get(path, "bo@acme.eu")).text
