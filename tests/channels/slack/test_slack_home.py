"""The Home tab under races: an older state never replaces a newer one, whichever replica publishes."""

from __future__ import annotations

import asyncio
import json
from typing import cast

import pytest

from approvals_bot.approvals.request import Request
from approvals_bot.channels.slack import home
from approvals_bot.durable.core.events import NewEvent
from approvals_bot.durable.store.sqlite import SqliteStore
from tests.support.slack_office import DEPLOY, Office

STAGE = [DEPLOY["stage"][0] | {"comment": "never"}]


def home_of(office: Office, user: str) -> str:
    view = office.playground.person.home_of(office.playground.workspace.users[user])
    return json.dumps(view.blocks) if view else ""


def published(office: Office) -> list[str]:
    return [seen.answer for seen in office.playground.web_api.seen if seen.method == "views.publish"]


@pytest.mark.check(36)
async def test_changes_while_a_tab_is_published_are_shown_after_it(office: Office) -> None:
    run_id = await office.ask(stage=STAGE)
    office.fault("slow", "views.publish", seconds=0.5)
    opened = asyncio.create_task(office.slack.home.opened("U0ANN", "T0PLAY"))
    await office.until(lambda: office.playground.slack_faults.pending() == [])
    await office.press("U0ANN", "Approve")
    await office.ended(run_id)
    await opened
    await office.until(lambda: "Approved by Ann Ode" in home_of(office, "U0ANN"))
    await asyncio.gather(*(office.slack.home.voted("U0ANN") for _ in range(20)))
    assert len(published(office)) <= 4  # simultaneous changes are shown together


@pytest.mark.check(36)
async def test_a_replica_that_was_overtaken_reads_again(office: Office) -> None:
    await office.ask()
    await office.slack.home.opened("U0ANN", "T0PLAY")
    space = office.playground.workspace
    elsewhere = {"type": "home", "blocks": [{"type": "section", "text": {"type": "plain_text", "text": "older"}}]}
    space.change_view(space.views[space.homes["U0ANN"]], elsewhere)  # another replica of ours
    await office.slack.home.voted("U0ANN")
    assert published(office)[-2:] == ["hash_conflict", "ok"]
    assert "Deploy api 2.1" in home_of(office, "U0ANN")


async def test_the_home_tab_confirms_decisions_and_shows_pinned_fields(office: Office) -> None:
    await office.ask(stage=STAGE)
    await office.slack.home.opened("U0ANN", "T0PLAY")
    view = office.playground.person.home_of(office.playground.workspace.users["U0ANN"])
    assert view is not None
    (buttons,) = [block["elements"] for block in view.blocks if str(block.get("block_id")).startswith("home0:")]
    assert "This decides it." in buttons[0]["confirm"]["text"]["text"]
    assert "Version: 2.1" in json.dumps(view.blocks)


@pytest.mark.parametrize(
    ("pinned", "value", "is_whole"),
    [("string", "2.1", True), ("string", "x" * 151, False), ("text", "Ships\nall of it", False)],
)
async def test_nobody_approves_what_the_tab_does_not_show(
    office: Office, pinned: str, value: str, is_whole: bool
) -> None:
    fields = DEPLOY["fields"] | {"what": {"type": pinned, "pinned": True}}
    run_id = await office.ask(stage=STAGE, fields=fields, given={"what": value})
    await office.slack.home.opened("U0ANN", "T0PLAY")
    view = office.playground.person.home_of(office.playground.workspace.users["U0ANN"])
    assert view is not None
    (buttons,) = [block["elements"] for block in view.blocks if str(block.get("block_id")).startswith("home0:")]
    shown = [button["action_id"] for button in buttons]
    assert ("vote:approve" in shown) is is_whole
    assert any(f"/requests/{run_id}" in str(button.get("url")) for button in buttons) is not is_whole
    assert "Version: 2.1" in json.dumps(view.blocks)


async def test_the_home_tab_lists_oldest_first_and_counts_the_rest(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(home, "PENDING_SHOWN", 2)
    for number in range(8):
        await office.ask(given={"version": f"1.{number}"})
        await office.clock.advance("1m")
    await office.slack.home.opened("U0ANN", "T0PLAY")
    await office.slack.home.opened("U0BO", "T0PLAY")
    waiting, asked = home_of(office, "U0ANN"), home_of(office, "U0BO")
    assert [f"Deploy api 1.{number}" in waiting for number in range(8)] == [True, True, *[False] * 6]
    assert r"\u2026 and at least 6 more" in waiting
    assert [f"Deploy api 1.{number}" in asked.partition("Your requests")[2] for number in range(8)] == [
        *[False] * 3,
        *[True] * 5,
    ]
    assert r"\u2026 and at least 3 more" in asked


async def test_cancelled_requests_are_among_the_recently_decided(office: Office) -> None:
    run_id = await office.ask(stage=[STAGE[0] | {"need": 2}])
    await office.press("U0ANN", "Approve")
    await office.engine.settle()
    await office.engine.store.record(run_id, [NewEvent("run_cancelled", {"reason": None})], office.clock.now())
    await office.slack.home.opened("U0ANN", "T0PLAY")
    lately = home_of(office, "U0ANN").partition("Recently decided")[2]
    assert "Deploy api 2.1" in lately
    assert "Cancelled" in lately


async def test_a_damaged_row_is_a_plain_line_of_the_home_tab(office: Office) -> None:
    damaged = await office.ask()
    await office.ask(given={"version": "2.2"})
    await office.engine.settle()  # nothing writes the row again
    writer = cast(SqliteStore, office.engine.store)._writer
    await writer.run(lambda db: db.execute("UPDATE runs SET parts = '[{}]' WHERE id = ?", (damaged,)))
    for user, heading in (("U0ANN", "Waiting for you"), ("U0BO", "Your requests")):
        await office.slack.home.opened(user, "T0PLAY")
        home = home_of(office, user).partition(heading)[2]
        assert "Deploy api 2.2" in home
        assert f"deploy: running ({damaged})" in home


async def test_people_claim_snooze_and_remind_from_the_home_tab(office: Office) -> None:
    run_id = await office.ask(requester="di@acme.eu")
    space = office.playground.workspace

    async def opened(user: str) -> str:
        await office.slack.home.opened(user, "T0PLAY")
        view = office.playground.person.home_of(space.users[user])
        assert view is not None
        return view.id

    def labels(user: str) -> list[str]:
        view = office.playground.person.home_of(space.users[user])
        assert view is not None
        rows = [block["elements"] for block in view.blocks if block["type"] == "actions"]
        return [button["text"]["text"] for row in rows for button in row if button["action_id"] != "open:"]

    tab = await opened("U0ANN")
    assert labels("U0ANN") == ["Approve", "Reject", "I'm on it", "Snooze 1 h", "Snooze until tomorrow"]
    await office.call("/slack/click", {"user": "U0ANN", "view_id": tab, "button": "I'm on it"})
    await office.until(lambda: "Ann Ode is on it" in home_of(office, "U0ANN"))
    assert "No longer on it" in labels("U0ANN")
    await office.call("/slack/click", {"user": "U0ANN", "view_id": tab, "button": "Snooze until tomorrow"})
    tab = await opened("U0DI")
    assert labels("U0DI") == ["Remind now"]
    await office.call("/slack/click", {"user": "U0DI", "view_id": tab, "button": "Remind now"})
    await office.engine.settle()
    record = await office.engine.record(run_id)
    assert record is not None
    request = Request.model_validate(record.parts[0])
    assert request.claim is not None
    assert (request.claim.act.by, [*request.snoozes], request.reminded_at is not None) == (
        "ann@acme.eu",
        ["ann@acme.eu"],
        True,
    )
    await office.until(lambda: any("Reminded" in one.text for one in office.cards))  # said directly to Di
