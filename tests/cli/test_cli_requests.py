"""Requests on the command line: opened, voted on, explained and cancelled, with a running service and without."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from approvals_bot.service.act import perform
from tests.support.small_site import Site

Eventually = Callable[[Callable[[], Any]], Any]


def test_started_request_is_listed_and_shown(site: Site) -> None:
    run = site.start(days=3)
    site.work()
    listed = site.json("runs", "--waiting-for", "ANN@acme.eu")["runs"]
    assert [(one["id"], one["status"], one["request"]["state"]) for one in listed] == [(run, "running", "waiting")]
    text = site.type("show", run).stdout
    in_order = [
        "⏳ Waiting · 3 days off",
        "Requested by Bo Lund",
        "Days",
        "Managers: 0 of 2",
        "Due",
        "Digest",
        "Timeline",
    ]
    assert sorted(in_order, key=text.index) == in_order
    shown = site.json("show", run)
    assert shown["request"]["digest"]
    assert [event["seq"] for event in shown["events"]] == list(range(1, len(shown["events"]) + 1))


def test_show_redacts_tokens(site: Site) -> None:
    run = site.start()
    site.work()
    created = [event for event in site.json("show", run)["events"] if event["type"] == "hook_created"]
    assert created[0]["data"]["token"] == "(redacted)"


def test_output_has_no_colour_off_a_terminal(site: Site) -> None:
    site.type("migrate")
    assert "\x1b" not in site.type("runs").stdout


def test_same_key_returns_the_same_run(site: Site) -> None:
    words = ("start", "leave", "--requester", "bo@acme.eu", "--key", "1", "--input")
    first = site.json(*words, '{"days": 3}')
    again = site.json(*words, '{"days": 3}')
    assert (again["run_id"], first["is_new"], again["is_new"]) == (first["run_id"], True, False)
    assert "days was 3, and is now 4" in site.type(*words, '{"days": 4}', fails=True).stderr


def test_start_prints_the_page_of_what_it_started(running_site: Site) -> None:
    for workflow, page, given in (("hello", "runs", '{"name": "Ann"}'), ("leave", "requests", '{"days": 3}')):
        found = running_site.json("start", workflow, "--input", given, "--requester", "bo@acme.eu")
        assert found["url"].endswith(f"/{page}/{found['run_id']}")


def test_start_refuses_wrong_requesters_and_input_in_a_sentence(site: Site) -> None:
    refused = site.type("start", "leave", "--requester", "eve@acme.eu", "--input", '{"days": 3}', fails=True)
    assert "eve@acme.eu can't open 'leave'" in refused.stderr
    refused = site.type("start", "leave", "--requester", "bo@acme.eu", "--input", '{"day": 3}', fails=True)
    assert 'day: no such field (did you mean "days"?)' in refused.stderr
    assert "--input is not JSON" in site.type("start", "leave", "--input", "{", fails=2).stderr
    assert "must be a JSON object" in site.type("start", "leave", "--input", "[]", fails=2).stderr
    assert "No workflow named 'leaf'" in site.type("start", "leaf", fails=True).stderr
    assert site.json("runs")["runs"] == []


def test_vote_counts_while_the_service_runs(running_site: Site) -> None:
    run = running_site.start(days=5)
    words = ("vote", run, "--choice", "approve", "--answer", "count=2", "--by")
    first = running_site.json(*words, "ann@acme.eu", "--answer", "paid=yes")
    assert (first["verdict"], first["text"]) == ("counted", "Counted: 1 of 2. Waiting for one more from Managers.")
    assert running_site.type(*words, "CY@acme.eu").stdout == "Approved. Everyone involved has been notified.\n"
    shown = running_site.json("show", run)
    assert shown["request"]["outcome"] == "approved"
    assert [(vote["by"], vote["via"]) for vote in shown["request"]["votes"]] == [
        ("ann@acme.eu", "cli"),
        ("cy@acme.eu", "cli"),
    ]


def test_people_talk_about_a_request_from_the_terminal(running_site: Site) -> None:
    run = running_site.start(days=5)
    said = running_site.json("comment", run, "--by", "ann@acme.eu", "--text", "Who covers for you?")
    assert (said["verdict"], said["changed"]) == ("commented", True)
    assert running_site.json("comment", run, "--text", "From the terminal.")["changed"]  # by app:cli
    assert running_site.json("claim", run, "--by", "CY@acme.eu")["verdict"] == "claimed"
    shown = running_site.json("show", run)["request"]
    assert [(one["by"], one["text"], one["via"]) for one in shown["comments"]] == [
        ("ann@acme.eu", "Who covers for you?", "cli"),
        ("app:cli", "From the terminal.", "cli"),
    ]
    assert shown["claimed_by"] == "cy@acme.eu"
    assert running_site.json("claim", run, "--by", "cy@acme.eu", "--release")["verdict"] == "released"
    assert running_site.json("snooze", run, "--by", "cy@acme.eu", "--until", "tomorrow")["verdict"] == "snoozed"
    reminded = running_site.json("remind", run, "--by", "bo@acme.eu")
    assert "Ann" in reminded["text"]
    assert "Cy" not in reminded["text"]
    for words, why in (
        (("remind", run, "--by", "bo@acme.eu"), "less than an hour ago"),
        (("remind", run, "--by", "ann@acme.eu"), "requester"),
        (("claim", run, "--by", "bo@acme.eu"), "Nobody is waiting for your vote"),
        (("snooze", run, "--by", "ann@acme.eu", "--until", "soonish"), "1h"),
        (("comment", run, "--by", "eve@acme.eu", "--text", "Hi"), ""),
        (("comment", run, "--text", " "), ""),
    ):
        assert why in running_site.type(*words, fails=True).stderr


def test_show_includes_reassignments(running_site: Site) -> None:
    run = running_site.start(days=7)
    running_site.type(
        "reassign", run, "--to", "di@acme.eu", "--from", "ann@acme.eu", "--by", "ann@acme.eu", "--reason", "ill"
    )
    assert "⇄ " in running_site.type("show", run).stdout
    assert "reassigned this to" in running_site.type("show", run).stdout


def test_refused_vote_says_why_and_exits_1(running_site: Site) -> None:
    run = running_site.start(days=6)
    own = running_site.type("vote", run, "--by", "bo@acme.eu", "--choice", "approve", "--answer", "count=1", fails=True)
    assert own.stderr == "You can't approve your own request.\n"
    stranger = running_site.json(
        "vote", run, "--by", "eve@acme.eu", "--choice", "approve", "--answer", "count=1", fails=True
    )
    assert (stranger["verdict"], stranger["changed"]) == ("not_an_approver", False)
    wordless = running_site.type("vote", run, "--by", "ann@acme.eu", "--choice", "reject", fails=True)
    assert "comment" in wordless.stderr
    changed = running_site.json(
        *("vote", run, "--by", "ann@acme.eu", "--choice", "approve", "--answer", "count=1", "--digest", "0" * 64),
        fails=True,
    )
    assert changed["verdict"] == "request_changed"
    assert running_site.json("show", run)["request"]["votes"] == []


def test_vote_without_a_service_is_counted_once_one_runs(site: Site, monkeypatch: Any) -> None:
    monkeypatch.setitem(perform.__kwdefaults__, "timeout", 0.2)
    run = site.start()
    site.work()
    reply = site.json("vote", run, "--by", "ann@acme.eu", "--choice", "approve", "--answer", "count=1")
    assert reply["verdict"] == "received"
    site.work()
    assert site.json("show", run)["request"]["votes"][0]["by"] == "ann@acme.eu"


def test_vote_names_invalid_options(site: Site) -> None:
    run = site.start()
    site.work()
    assert "no choice 'yes'" in site.type("vote", run, "--by", "a@b.eu", "--choice", "yes", fails=2).stderr
    words = ("vote", run, "--by", "a@b.eu", "--choice", "approve", "--answer", "count")
    assert "--answer name=value" in site.type(*words, fails=2).stderr
    unknown = site.type("vote", "run_0", "--by", "a@b.eu", "--choice", "approve", fails=True)
    assert "No run has the ID 'run_0'" in unknown.stderr


def test_explain_lists_people_rules_and_times(running_site: Site, eventually: Eventually) -> None:
    run = running_site.start(days=7)
    eventually(lambda: running_site.json("show", run)["request"])
    found = running_site.json("explain", run)
    assert set(found) == {"waiting_for", "rules", "next", "acts", "unresolved", "reached", "stages"}
    assert {each["person"] for each in found["waiting_for"]} == {"ann@acme.eu", "cy@acme.eu"}
    assert all(set(rule) == {"rule", "values", "applies", "because"} for rule in found["rules"])
    assert [each["what"] for each in found["next"]] == [
        "a reminder to people who still owe a vote",
        "deadline: then it expires",
    ]
    assert found["acts"] == []
    text = running_site.type("explain", run).stdout
    in_order = [
        "⏳ Waiting · 7 days off",
        "Waiting for",
        "Ann Ode (ann@acme.eu)",
        "→ Ok: 0 of 2 votes, of 2 people, Managers",
        "bo@acme.eu can't decide: the requester",
        "Rules",
        "days <= 1",
        "in 4 hours",
    ]
    assert sorted(in_order, key=text.index) == in_order


def test_explain_covers_runs_other_than_requests(running_site: Site, eventually: Eventually) -> None:
    run = _hello(running_site, "explained")
    eventually(lambda: "hook_created" in str(running_site.json("show", run)["events"]))
    assert "Waiting for a hook" in running_site.type("explain", run).stdout
    vote = running_site.type("vote", run, "--by", "a@b.eu", "--choice", "approve", fails=True)
    assert "This run hasn't requested a decision yet." in vote.stderr
    assert "Waiting for a hook: hello-explained" in running_site.type("show", run).stdout
    (waiting,) = running_site.json("show", run)["waiting"]
    assert (waiting["kind"], waiting["token"]) == ("hook", "hello-explained")
    running_site.type("resume", "hello-explained", "--payload", '{"text": "hi"}')
    found = eventually(lambda: running_site.json("explain", run)["next"])
    assert found[0]["what"] == "a sleep ends"
    assert (
        "in 6 days" in running_site.type("explain", run).stdout
        or "in 7 days" in running_site.type("explain", run).stdout
    )
    assert "was cancelled" in running_site.type("cancel", run, "--reason", "enough").stdout
    assert "isn't waiting for anything" in running_site.type("explain", run).stdout
    assert "already ended (cancelled)" in running_site.type("cancel", run, fails=True).stderr


def test_payload_that_fails_the_hooks_schema_is_not_written(running_site: Site, eventually: Eventually) -> None:
    run = _hello(running_site, "typed")
    eventually(lambda: "hook_created" in str(running_site.json("show", run)["events"]))
    refused = running_site.type("resume", "hello-typed", "--payload", '{"txt": 1}', fails=True)
    assert "text" in refused.stderr
    assert "Hook not found" in running_site.type("resume", "nobody", fails=True).stderr
    assert "hook_received" not in str(running_site.json("show", run)["events"])


def test_cancel_cancels_a_request(running_site: Site, eventually: Eventually) -> None:
    run = running_site.start(days=8)
    eventually(lambda: running_site.json("show", run)["request"])
    assert running_site.type("cancel", run, "--reason", "not needed").stdout.startswith("Cancelled.")
    assert running_site.json("show", run)["request"]["state"] == "cancelled"


TARGET = """
[http.away]
url    = "http://127.0.0.1:9/"
secret = "file:signing.key"
"""

ACTS = """
[[on.approved]]
http = "away"
json = {}
"""


def test_revoke_and_extend_say_that_there_is_no_grant(running_site: Site) -> None:
    run = running_site.start()
    for act in (("revoke", run), ("extend", run, "1h")):
        refused = running_site.type(*act, "--reason", "done", fails=True)
        assert "This request has no grant that could end." in refused.stderr


def test_late_withdrawal_says_so_and_exits_1(site: Site) -> None:
    settings = site.config.read_text().replace("[server]", '[server]\nallow_private = ["127.0.0.1:9"]')
    site.write("config.toml", settings + TARGET)
    leave = site.folder / "workflows" / "leave.toml"
    site.write("workflows/leave.toml", leave.read_text() + ACTS)
    run = site.start(days=1)
    site.work()
    assert site.json("show", run)["status"] == "running", "the follow-up hasn't run yet"
    late = site.json("cancel", run, fails=True)
    assert late["verdict"] == "already_decided"
    assert "Nothing was changed" in site.type("cancel", run, fails=True).stderr


def _hello(site: Site, name: str) -> str:
    return str(site.json("start", "hello", "--input", f'{{"name": "{name}"}}')["run_id"])


@pytest.mark.parametrize("parts", ["{", "[{}]", "7"])
def test_damaged_row_is_listed_and_shown_as_a_plain_run(
    site_on_each_store: Site, request: pytest.FixtureRequest, parts: str
) -> None:
    whole, damaged = site_on_each_store.start(days=3), site_on_each_store.start(days=4)
    site_on_each_store.work()
    sql = f"UPDATE runs SET parts = '{parts}' WHERE id = '{damaged}'"  # noqa: S608  # the test's own
    if "sqlite:" in site_on_each_store.config.read_text():
        with closing(sqlite3.connect(site_on_each_store.folder / "approvals.db")) as db, db:
            db.execute(sql)
    else:
        request.getfixturevalue("postgres").execute(sql, request.getfixturevalue("postgres_url"))
    listed = {
        one["id"]: one["request"] for one in site_on_each_store.json("runs", "--waiting-for", "ann@acme.eu")["runs"]
    }
    assert set(listed) == {whole, damaged}
    assert listed[damaged] is None
    assert damaged in site_on_each_store.type("runs").stdout
    assert "running" in site_on_each_store.type("show", damaged).stdout
    assert site_on_each_store.json("show", damaged)["request"] is None
    assert site_on_each_store.json("check", "--runs")["runs"]["checked"] == 2
