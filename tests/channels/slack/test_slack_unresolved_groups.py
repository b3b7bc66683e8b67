"""A group that can't be read: the request waits for it, says so everywhere, and goes on once it can."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from approvals_bot.approvals.explain import explain
from approvals_bot.approvals.request import Request
from approvals_bot.channels.slack.reasons import LATER, REASONS
from approvals_bot.people import People
from approvals_bot.playground.slack.shapes import UserGroup
from approvals_bot.service.read import api_request
from approvals_bot.web.metrics import Metrics
from tests.support.slack_office import DEPLOY, Office

GHOST = [DEPLOY["stage"][0] | {"from": ["slack:@ghost"]}]


def add_ghost(office: Office) -> None:
    office.playground.workspace.groups["S0GHOST"] = UserGroup("S0GHOST", "ghost", "Ghosts", ("U0ANN", "U0CY"))


def no_group(office: Office) -> Callable[[], None]:
    return lambda: add_ghost(office)


def no_scope(office: Office) -> Callable[[], None]:
    add_ghost(office)
    space = office.playground.workspace
    whole = space.app
    space.app = replace(whole, scopes=tuple(scope for scope in whole.scopes if scope != "usergroups:read"))

    def grant() -> None:
        space.app = whole

    return grant


def slack_down(office: Office) -> Callable[[], None]:
    add_ghost(office)
    office.fault("server_error", "usergroups.list", times=None)
    return office.playground.slack_faults.clear


KINDS = {
    "no such group": (no_group, "no such group"),
    "no scope": (no_scope, REASONS["missing_scope"]),
    "Slack is down": (slack_down, LATER),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_an_unreadable_group_is_said_everywhere_until_it_is_read(office: Office, kind: str) -> None:
    breaks, reason = KINDS[kind]
    mend = breaks(office)
    run_id = await office.ask(stage=GHOST)
    said = f"slack:@ghost can't be read ({reason})"
    assert f"Waiting: {said}" in json.dumps(office.card.blocks, ensure_ascii=False)
    record = await office.engine.record(run_id)
    assert record is not None
    view = Request.model_validate(record.parts[0])
    assert api_request(view)["unresolved"] == [{"source": "slack:@ghost", "reason": reason}]
    explained = explain(view)
    assert explained["unresolved"] == [{"source": "slack:@ghost", "reason": reason}]
    assert said in [rule["because"] for rule in explained["rules"]]
    assert metric(office) == b'approvals_groups_unresolved{source="slack:@ghost"} 1.0'
    for pause in ("6s", "11s"):
        await office.clock.advance(pause)
        await office.engine.settle()
    assert len(office.cards) == 1, "a look that finds nobody notifies nobody"

    mend()
    await office.clock.advance("25s")
    await office.until(lambda: len(office.cards) == 2)
    assert office.cards[1].notified == ("U0ANN", "U0CY")
    await office.until(lambda: "can't be read" not in json.dumps(office.card.blocks))
    assert metric(office) == b'approvals_groups_unresolved{source="slack:@ghost"} 0.0'
    await office.press("U0ANN", "Approve")
    assert (await office.ended(run_id))["by"] == "ann@acme.eu"


def metric(office: Office) -> bytes:
    people, metrics = office.engine.resources[People], Metrics()
    metrics.people_read(people.bad_entries, people.unreadable)
    lines = bytes(metrics.response().body).splitlines()
    return next(line for line in lines if line.startswith(b"approvals_groups_unresolved{"))


async def test_people_who_are_known_decide_while_a_group_is_unreadable(office: Office) -> None:
    run_id = await office.ask(stage=[DEPLOY["stage"][0] | {"from": ["slack:@ghost", "di@acme.eu"]}])
    assert office.card.notified == ("U0DI",)
    assert "; slack:@ghost can't be read (no such group)" in json.dumps(office.card.blocks)
    await office.press("U0DI", "Approve")
    assert (await office.ended(run_id))["by"] == "di@acme.eu"
