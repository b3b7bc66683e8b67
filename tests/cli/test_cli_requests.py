"""Requests on the command line: opened, voted on, explained and withdrawn, with a running service and without."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from house import House

from approvals_bot.service.act import perform

Eventually = Callable[[Callable[[], Any]], Any]


def test_started_request_is_listed_and_shown(house: House) -> None:
    run = house.start(days=3)
    house.work()
    listed = house.json("runs", "--waiting-for", "ANN@acme.eu")["runs"]
    assert [(one["id"], one["status"], one["request"]["state"]) for one in listed] == [(run, "running", "waiting")]
    text = house.type("show", run).stdout
    in_order = [
        "⏳ Waiting · 3 days off",
        "Asked by Bo Lund",
        "Days",
        "Managers: 0 of 2",
        "Due",
        "Digest",
        "Timeline",
    ]
    assert sorted(in_order, key=text.index) == in_order
    shown = house.json("show", run)
    assert shown["request"]["digest"]
    assert [event["seq"] for event in shown["events"]] == list(range(1, len(shown["events"]) + 1))


def test_show_redacts_tokens(house: House) -> None:
    run = house.start()
    house.work()
    created = [event for event in house.json("show", run)["events"] if event["type"] == "hook_created"]
    assert created[0]["data"]["token"] == "(redacted)"


def test_output_has_no_colour_off_a_terminal(house: House) -> None:
    assert "\x1b" not in house.type("runs").stdout


def test_same_key_returns_the_same_run(house: House) -> None:
    words = ("start", "leave", "--requester", "bo@acme.eu", "--key", "1", "--input")
    first = house.json(*words, '{"days": 3}')
    again = house.json(*words, '{"days": 3}')
    assert (again["run_id"], first["is_new"], again["is_new"]) == (first["run_id"], True, False)
    assert "days was 3, and is now 4" in house.type(*words, '{"days": 4}', fails=True).stderr


def test_start_refuses_wrong_requesters_and_input_in_a_sentence(house: House) -> None:
    refused = house.type("start", "leave", "--requester", "eve@acme.eu", "--input", '{"days": 3}', fails=True)
    assert "eve@acme.eu can't open 'leave'" in refused.stderr
    refused = house.type("start", "leave", "--requester", "bo@acme.eu", "--input", '{"day": 3}', fails=True)
    assert 'day: no such field (did you mean "days"?)' in refused.stderr
    assert "--input is not JSON" in house.type("start", "leave", "--input", "{", fails=True).stderr
    assert "must be a JSON object" in house.type("start", "leave", "--input", "[]", fails=True).stderr
    assert "No workflow named 'leaf'" in house.type("start", "leaf", fails=True).stderr
    assert house.json("runs")["runs"] == []


def test_vote_counts_while_the_service_runs(served: House) -> None:
    run = served.start(days=5)
    words = ("vote", run, "--choice", "approve", "--answer", "count=2", "--by")
    first = served.json(*words, "ann@acme.eu", "--answer", "paid=yes")
    assert (first["verdict"], first["text"]) == ("counted", "Counted: 1 of 2. Waiting for one more from Managers.")
    assert served.type(*words, "CY@acme.eu").stdout == "Approved. Everyone involved has been notified.\n"
    shown = served.json("show", run)
    assert shown["request"]["outcome"] == "approved"
    assert [(vote["by"], vote["via"]) for vote in shown["request"]["votes"]] == [
        ("ann@acme.eu", "cli"),
        ("cy@acme.eu", "cli"),
    ]


def test_show_includes_reassignments(served: House) -> None:
    run = served.start(days=7)
    served.type(
        "reassign", run, "--to", "di@acme.eu", "--from", "ann@acme.eu", "--by", "ann@acme.eu", "--reason", "ill"
    )
    assert "⇄ " in served.type("show", run).stdout
    assert "reassigned this to" in served.type("show", run).stdout


def test_refused_vote_says_why_and_exits_1(served: House) -> None:
    run = served.start(days=6)
    own = served.type("vote", run, "--by", "bo@acme.eu", "--choice", "approve", "--answer", "count=1", fails=True)
    assert own.stderr == "You can't approve your own request.\n"
    stranger = served.json("vote", run, "--by", "eve@acme.eu", "--choice", "approve", "--answer", "count=1", fails=True)
    assert (stranger["verdict"], stranger["changed"]) == ("not_an_approver", False)
    wordless = served.type("vote", run, "--by", "ann@acme.eu", "--choice", "reject", fails=True)
    assert "comment" in wordless.stderr
    changed = served.json(
        *("vote", run, "--by", "ann@acme.eu", "--choice", "approve", "--answer", "count=1", "--digest", "0" * 64),
        fails=True,
    )
    assert changed["verdict"] == "request_changed"
    assert served.json("show", run)["request"]["votes"] == []


def test_vote_without_a_service_is_counted_once_one_runs(house: House, monkeypatch: Any) -> None:
    monkeypatch.setitem(perform.__kwdefaults__, "timeout", 0.2)
    run = house.start()
    house.work()
    reply = house.json("vote", run, "--by", "ann@acme.eu", "--choice", "approve", "--answer", "count=1")
    assert reply["verdict"] == "received"
    house.work()
    assert house.json("show", run)["request"]["votes"][0]["by"] == "ann@acme.eu"


def test_vote_names_invalid_options(house: House) -> None:
    run = house.start()
    house.work()
    assert "no choice 'yes'" in house.type("vote", run, "--by", "a@b.eu", "--choice", "yes", fails=True).stderr
    words = ("vote", run, "--by", "a@b.eu", "--choice", "approve", "--answer", "count")
    assert "--answer name=value" in house.type(*words, fails=True).stderr
    unknown = house.type("vote", "run_0", "--by", "a@b.eu", "--choice", "approve", fails=True)
    assert "No run has the ID 'run_0'" in unknown.stderr


def test_explain_lists_people_rules_and_times(served: House, eventually: Eventually) -> None:
    run = served.start(days=7)
    eventually(lambda: served.json("show", run)["request"])
    found = served.json("explain", run)
    assert set(found) == {"waiting_for", "rules", "next"}
    assert {each["person"] for each in found["waiting_for"]} == {"ann@acme.eu", "cy@acme.eu"}
    assert all(set(rule) == {"rule", "values", "applies", "because"} for rule in found["rules"])
    assert [each["what"] for each in found["next"]] == [
        "a reminder to those who still owe a vote",
        "deadline: then it expires",
    ]
    text = served.type("explain", run).stdout
    in_order = [
        "⏳ Waiting · 7 days off",
        "Waiting for",
        "Ann Ode (ann@acme.eu)",
        "Rules",
        "days <= 1",
        "in 4 hours",
    ]
    assert sorted(in_order, key=text.index) == in_order


def test_explain_covers_runs_other_than_requests(served: House, eventually: Eventually) -> None:
    run = _hello(served, "explained")
    eventually(lambda: "hook_created" in str(served.json("show", run)["events"]))
    assert "Waiting for a hook" in served.type("explain", run).stdout
    assert "not a request" in served.type("vote", run, "--by", "a@b.eu", "--choice", "approve", fails=True).stderr
    served.type("resume", "hello-explained", "--payload", '{"text": "hi"}')
    found = eventually(lambda: served.json("explain", run)["next"])
    assert found[0]["what"] == "a sleep ends"
    assert "in 6 days" in served.type("explain", run).stdout or "in 7 days" in served.type("explain", run).stdout
    assert "was cancelled" in served.type("cancel", run, "--reason", "enough").stdout
    assert "isn't waiting for anything" in served.type("explain", run).stdout
    assert "already ended (cancelled)" in served.type("cancel", run, fails=True).stderr


def test_payload_that_fails_the_hooks_schema_is_not_written(served: House, eventually: Eventually) -> None:
    run = _hello(served, "typed")
    eventually(lambda: "hook_created" in str(served.json("show", run)["events"]))
    refused = served.type("resume", "hello-typed", "--payload", '{"txt": 1}', fails=True)
    assert "text" in refused.stderr
    assert "Hook not found" in served.type("resume", "nobody", fails=True).stderr
    assert "hook_received" not in str(served.json("show", run)["events"])


def test_cancel_withdraws_a_request(served: House, eventually: Eventually) -> None:
    run = served.start(days=8)
    eventually(lambda: served.json("show", run)["request"])
    assert served.type("cancel", run, "--reason", "not needed").stdout.startswith("Withdrawn.")
    assert served.json("show", run)["request"]["state"] == "withdrawn"


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


def test_late_withdrawal_says_so_and_exits_1(house: House) -> None:
    settings = house.config.read_text().replace("[server]", '[server]\nallow_private = ["127.0.0.1:9"]')
    house.write("config.toml", settings + TARGET)
    leave = house.folder / "workflows" / "leave.toml"
    house.write("workflows/leave.toml", leave.read_text() + ACTS)
    run = house.start(days=1)
    house.work()
    assert house.json("show", run)["status"] == "running", "the follow-up hasn't run yet"
    late = house.json("cancel", run, fails=True)
    assert late["verdict"] == "already_decided"
    assert "Nothing was changed" in house.type("cancel", run, fails=True).stderr


def _hello(house: House, name: str) -> str:
    return str(house.json("start", "hello", "--input", f'{{"name": "{name}"}}')["run_id"])


@pytest.mark.parametrize("parts", ["{", "[{}]", "7"])
def test_damaged_row_is_listed_and_shown_as_a_plain_run(
    either_house: House, request: pytest.FixtureRequest, parts: str
) -> None:
    whole, damaged = either_house.start(days=3), either_house.start(days=4)
    either_house.work()
    sql = f"UPDATE runs SET parts = '{parts}' WHERE id = '{damaged}'"  # noqa: S608  # the test's own
    if "sqlite:" in either_house.config.read_text():
        with closing(sqlite3.connect(either_house.folder / "approvals.db")) as db, db:
            db.execute(sql)
    else:
        request.getfixturevalue("postgres").execute(sql, request.getfixturevalue("postgres_url"))
    listed = {one["id"]: one["request"] for one in either_house.json("runs", "--waiting-for", "ann@acme.eu")["runs"]}
    assert set(listed) == {whole, damaged}
    assert listed[damaged] is None
    assert damaged in either_house.type("runs").stdout
    assert "running" in either_house.type("show", damaged).stdout
    assert either_house.json("show", damaged)["request"] is None
    assert either_house.json("check", "--runs")["runs"]["checked"] == 2
