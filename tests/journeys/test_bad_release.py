"""A release with a bug in vote handling, beside open requests: every click is kept, and counts after the roll-back.

`make test` plays one case; `make test-all` plays each bug, on both stores, with every way to end.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import approvals_bot
from tests.support import dev_on_database
from tests.support.journey import Json, Service, comment_input, with_samples

TRIPS = """
from pydantic import BaseModel
from approvals_bot import request_approval, workflow


class Trip(BaseModel):
    to: str


@workflow
async def trip(trip: Trip) -> str:
    outcome = await request_approval(
        f"Trip to {trip.to}", fields=trip, approvers="ann@acme.eu", deliver={"dm": True, "email": True}
    )
    return type(outcome).__name__
"""

BUGS = {
    "votes": ("approvals/apply.py", "_vote", "act.no_such_attribute"),
    "counting": ("approvals/ballot.py", "cast", "None + 1"),
    "effects": ("approvals/deciding.py", "proceed", "{}['no such key']"),
}
"""Planted bugs: the file, the function whose first statement it becomes, and the statement."""

ENDS = {"kill": Service.kill, "stop": Service.stop}

EVERYTHING = [(bug, store, end) for bug in BUGS for store in ("sqlite", "postgres") for end in ENDS]
CASES = [pytest.param(case, id="-".join(case), marks=[pytest.mark.long] * bool(n)) for n, case in enumerate(EVERYTHING)]

KEPT = "Your vote is kept and counts once it is fixed"


def release_with(bug: str, folder: Path) -> tuple[Path, str]:
    """Copy the package and plant a bug. Returns the folder for PYTHONPATH, and `file:line` of the bug."""
    file, function, statement = BUGS[bug]
    package = folder / "approvals_bot"
    shutil.copytree(Path(approvals_bot.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    path = package / file
    lines = path.read_text().splitlines(keepends=True)
    defined = next(
        node
        for node in ast.walk(ast.parse("".join(lines)))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == function
    )
    first = defined.body[1] if isinstance(defined.body[0], ast.Expr) else defined.body[0]  # after the docstring
    lines.insert(first.lineno - 1, f"{' ' * first.col_offset}{statement}  # planted\n")
    path.write_text("".join(lines))
    return folder, f"approvals_bot/{file}:{first.lineno}"


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Service, str, str]]:
    """A service on this store that isn't started yet, the bug, and the way in which its processes end."""
    bug, store, end = request.param
    folder = with_samples(tmp_path / "site")
    (folder / "workflows" / "trip.py").write_text(TRIPS)
    for tests in (folder / "workflows").glob("*.test.toml"):
        tests.unlink()  # `check` plays them, and would find the bug before it is released
    service = Service(folder)
    if store == "postgres":
        service = Service(folder, (dev_on_database.__file__,))
        service.environment["DATABASE"] = request.getfixturevalue("postgres_url")
    yield service, bug, end
    if service.process is not None:
        service.kill()
    service.http.close()


def check_runs(service: Service, *options: str) -> tuple[int, Json]:
    """Run `check --runs` as the next release would."""
    line = [sys.executable, "-m", "approvals_bot", "check", "--runs", "--json", *options]
    environment = os.environ | service.environment
    done = subprocess.run(
        [*line, "--config", ".approvals/config.toml"],
        cwd=service.folder, capture_output=True, text=True, check=False, timeout=60, env=environment,
    )  # fmt: skip
    assert done.stdout, done.stderr
    found: Json = json.loads(done.stdout)["runs"]
    return done.returncode, found


def open_trip(service: Service, to: str) -> str:
    body = {"workflow": "trip", "input": {"to": to}, "requester": "bo@acme.eu"}
    return str(service.api("POST", "/runs", json=body).json()["run_id"])


def trip_card(service: Service, to: str) -> Json:
    found: list[Json] = service.eventually(
        lambda: [m for m in service.messages("D0ANN") if f"Trip to {to}" in m["text"]]
    )
    return found[-1]


def mailed(service: Service, to: str, about: str) -> str:
    """Return the decision link in this person's mail about a request."""
    mail = service.eventually(lambda: [m for m in service.mails(to) if about in m["subject"]])[-1]
    found = re.search(r"http://\S+/decisions/\S+", mail["text"])
    assert found
    return found[0]


def everything_shown(service: Service, runs: list[str]) -> str:
    """Return all that anybody can see: messages, mails, pages, and JSON."""
    shown = [json.dumps(service.play("GET", "/slack/messages")), json.dumps(service.mails())]
    for run_id in runs:
        shown += [json.dumps(service.run(run_id)), json.dumps(service.events(run_id))]
        shown += [service.page(f"/requests/{run_id}").text, service.page(f"/runs/{run_id}").text]
    for link in set(re.findall(r"/decisions/[\w.~%=-]+", shown[1])):
        shown.append(service.page(link).text)
    shown += [service.page("/runs").text, service.page("/inbox?person=ann@acme.eu").text]
    return "\n".join(shown)


def shows(service: Service, title: str, text: str) -> None:
    """Wait until the newest card with this title says so."""
    service.eventually(lambda: text in service.card(title)["text"])


def withdrawals(shown: str) -> list[str]:
    """Return the places that say that something was withdrawn. (Mails have a style for it, lists a filter.)"""
    said = re.findall(r".{0,40}withdrawn.{0,40}", shown, re.IGNORECASE)
    return [each for each in said if not re.search(r'\.withdrawn\b|<option value="withdrawn"', each)]


def test_clicks_on_a_bad_release_count_after_the_roll_back(case: tuple[Service, str, str], tmp_path: Path) -> None:
    service, bug, end = case
    bad, place = release_with(bug, tmp_path / "release")
    service.start("--config", "config.example.toml")
    before = service.open(version="1.0", service="api", env="prod")
    service.settled(before)
    service.vote(before, "ann@acme.eu", "approve")
    service.ended(before)
    paged, called, pressed, refused = (
        service.open(version=version, service="api", env="prod") for version in ("2.1", "2.2", "2.3", "2.4")
    )
    runs = {paged: "2.1", called: "2.2", pressed: "2.3", refused: "2.4"}
    for run_id in runs:
        service.settled(run_id)
    link = mailed(service, "ann@acme.eu", "api 2.1")
    rome, oslo = open_trip(service, "Rome"), open_trip(service, "Oslo")
    rome_card, oslo_link = trip_card(service, "Rome"), mailed(service, "ann@acme.eu", "Trip to Oslo")
    for run_id in (rome, oslo):
        service.settled(run_id)  # on PostgreSQL, a run at work keeps the lease of a killed process for 15 s
    everyone = [*runs, rome, oslo]
    ENDS[end](service)

    service.environment["PYTHONPATH"] = str(bad)
    assert check_runs(service)[0] == 0, "no open log shows the bug"
    status, found = check_runs(service, "--ended", "30d")
    (drift,) = found["ended"]["would_differ"]
    assert (status, drift["run_id"], drift["change"], drift["where"]) == (1, before, "stalls", place)

    service.start("--config", "config.example.toml")
    page = service.press(link, "approve")
    assert page.status_code == 200
    assert "Votes are kept meanwhile, and count once it is fixed" in page.text
    assert "Waiting for a fix" in page.text
    answer = service.vote(called, "cy@acme.eu", "approve")
    assert (answer.status_code, answer.json()["verdict"]) == (202, "received")
    assert KEPT in answer.json()["text"]
    assert KEPT in service.click("U0ANN", service.card("api 2.3"), "Approve")["ephemeral"]
    view = service.click("U0ANN", service.card("api 2.4"), "Reject")["view"]
    block_id, action_id = comment_input(view)
    values = {block_id: {action_id: "Not on a Friday."}}
    service.play("POST", "/slack/submit", json={"user": "U0ANN", "view_id": view["id"], "values": values})
    assert KEPT in service.click("U0ANN", rome_card, "Approve")["ephemeral"]
    assert KEPT in service.press(oslo_link, "reject", comment="Too far.").text
    service.eventually(lambda: {service.run(run_id)["status"] for run_id in everyone} == {"stalled"})
    for version in runs.values():
        shows(service, f"api {version}", "Waiting for a fix")
    service.eventually(lambda: "Waiting for a fix" in trip_card(service, "Rome")["text"])
    listed = service.page("/inbox?person=ann@acme.eu").text.partition('id="shown"')[0]
    assert listed.count("Waiting for a fix") == len(everyone)
    logged = [line for line in service.log().splitlines() if "stalled" in line]
    assert len(logged) == len(everyone), logged
    assert all(place in line for line in logged), logged
    ENDS[end](service)
    service.start("--config", "config.example.toml")
    assert {service.run(run_id)["status"] for run_id in everyone} == {"stalled"}
    assert withdrawals(everything_shown(service, everyone)) == []
    ENDS[end](service)

    del service.environment["PYTHONPATH"]
    service.start("--config", "config.example.toml")
    decided = {run_id: service.ended(run_id)["result"] for run_id in everyone}
    assert [(decided[run_id]["decision"], decided[run_id]["by"], decided[run_id]["via"]) for run_id in runs] == [
        ("approved", "ann@acme.eu", "email"),
        ("approved", "cy@acme.eu", "api"),
        ("approved", "ann@acme.eu", "slack"),
        ("rejected", "ann@acme.eu", "slack"),
    ]
    assert (decided[rome], decided[oslo]) == ("Approved", "Rejected")
    outcomes = ("Approved by Ann Ode", "Approved by Cy Rus", "Approved by Ann Ode", "Rejected by Ann Ode")
    for version, outcome in zip(runs.values(), outcomes, strict=True):
        shows(service, f"api {version}", outcome)
    service.eventually(lambda: "Approved by Ann Ode" in trip_card(service, "Rome")["text"])
    assert "Approved by Ann Ode" in service.page(link).text
    assert withdrawals(everything_shown(service, everyone)) == []
