"""`simulate`: who a request would notify, and when, without opening one."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from approvals_bot.durable.store import connect
from approvals_bot.durable.store.personal import PersonalRow
from approvals_bot.people.absences import Absence
from approvals_bot.people.own import OwnSettings
from tests.support.small_site import LEAVE, Site


def test_simulation_json_has_who_auto_and_timers(site: Site) -> None:
    found = site.json("simulate", "leave", "--input", '{"days": 3}', "--requester", "bo@acme.eu")
    assert set(found) == {"who", "auto", "timers", "stages"}
    assert [(seat["need"], seat["of"]) for stage in found["stages"] for seat in stage["seats"]] == [(2, 2)]
    assert found["auto"] is None
    assert [set(one) for one in found["who"]] == [{"person", "stage", "why", "via"}] * 2
    assert [one["person"] for one in found["who"]] == ["ann@acme.eu", "cy@acme.eu"]
    assert [set(one) for one in found["timers"]] == [{"at", "what"}] * 2
    site.type("migrate")
    assert site.json("runs")["runs"] == []


def test_simulation_text_goes_stage_by_stage(site: Site) -> None:
    text = site.type("simulate", "leave", "--input", '{"days": 3}', "--requester", "bo@acme.eu").stdout
    in_order = [
        "leave: if a request were opened now",
        "Approvers of stage ok",
        "ann@acme.eu",
        "in 1 hour",
        "in 4 hours",
        "Nothing was",
    ]
    assert sorted(in_order, key=text.index) == in_order


def test_simulation_names_the_rule_that_would_decide(site: Site) -> None:
    found = site.json("simulate", "leave", "--input", '{"days": 1}', "--requester", "bo@acme.eu")
    assert (found["who"], found["auto"]["rule"], found["auto"]["decision"]) == ([], 1, "approve")
    text = site.type("simulate", "leave", "--input", '{"days": 1}', "--requester", "bo@acme.eu").stdout
    assert text.startswith("leave: approved by rule 1, without approvers\n  the days is 1 (1 or less)")


def test_simulation_fails_for_a_requester_without_permission(site: Site) -> None:
    refused = site.type("simulate", "leave", "--input", '{"days": 3}', "--requester", "eve@acme.eu", fails=True)
    assert "Approvers of stage ok" in refused.stdout
    assert "eve@acme.eu can't open 'leave'" in refused.stderr


def test_simulation_fails_if_nobody_could_decide(site: Site) -> None:
    site.write(
        "workflows/leave.toml", LEAVE.replace('from = ["@managers"]\nneed = 2', 'from = ["manager-of:requester"]')
    )
    refused = site.type("simulate", "leave", "--input", '{"days": 3}', "--requester", "ann@acme.eu", fails=True)
    assert "There are no approvers." in refused.stdout
    assert "Ann Ode has no manager" in refused.stderr


def test_simulation_plays_at_another_time(site: Site) -> None:
    late = LEAVE.replace('from = ["@managers"]', "when = 'now.hour >= 18'\nfrom = [\"@managers\"]", 1)
    site.write("workflows/leave.toml", late.replace("[clock]\n", '[clock]\nzone = "Europe/Berlin"\n'))
    words = ("simulate", "leave", "--input", '{"days": 3}', "--requester", "bo@acme.eu", "--at")
    assert "Approvers of stage ok" in site.type(*words, "2026-12-24T18:30").stdout
    refused = site.type(*words, "2026-12-24T16:30Z", fails=True)
    assert "the hour is 17 (before 18)" in refused.stderr
    assert "is not a time" in site.type(*words, "tomorrow", fails=2).stderr
    assert "too far from today" in site.type(*words, "9999-12-31T23:59", fails=2).stderr


def test_simulation_reads_live_sources_only_with_live(site: Site) -> None:
    site.write(
        "config.toml",
        site.config.read_text() + 'far = { http = "hr" }\n[http.hr]\nurl = "http://127.0.0.1:9"\n',
    )
    site.write("workflows/leave.toml", LEAVE.replace('from = ["@managers"]', 'from = ["@far"]'))
    words = ("simulate", "leave", "--input", '{"days": 3}', "--requester", "bo@acme.eu")
    assert site.json(*words)["who"] == []  # its members are unknown, which is no reason to call it empty
    assert site.json(*words, "--live")["who"] == []


def test_simulation_names_invalid_fields(site: Site) -> None:
    refused = site.type("simulate", "leave", "--input", '{"days": "three"}', fails=True)
    assert "input.days" in refused.stderr


def test_python_workflows_cannot_be_simulated(site: Site) -> None:
    site.write("workflows/one.py", "from approvals_bot import workflow\n\n@workflow\nasync def one() -> None: ...\n")
    assert "can't be simulated" in site.type("simulate", "one", fails=True).stderr


def test_simulation_knows_absences_that_people_have_set(site: Site) -> None:
    """They are read from the store, which is left as it is; without one, none is made."""
    words = ("simulate", "leave", "--input", '{"days": 3}', "--requester", "bo@acme.eu")
    before = {file.name for file in site.folder.iterdir()}
    assert site.json(*words)["stages"][0]["away"] == []
    assert {file.name for file in site.folder.iterdir()} == before
    today = datetime.now(UTC).date()
    away = OwnSettings(away=(Absence(today - timedelta(days=2), today + timedelta(days=2), ("di@acme.eu",)),))

    async def leave() -> None:
        store = await connect(f"sqlite:///{site.folder / 'approvals.db'}")
        await store.set_personal(PersonalRow("cy@acme.eu", away.as_json(), datetime.now(UTC)))
        assert {one["person"] for one in await asyncio.to_thread(asked)} == {"ann@acme.eu", "di@acme.eu"}
        await store.close()

    def asked() -> list[dict[str, Any]]:
        return list(site.json(*words)["who"])

    asyncio.run(leave())
    files = {file.name: file.stat().st_mtime_ns for file in site.folder.iterdir()}
    assert {one["person"] for one in asked()} == {"ann@acme.eu", "di@acme.eu"}
    assert {file.name: file.stat().st_mtime_ns for file in site.folder.iterdir()} == files
