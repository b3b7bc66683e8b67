"""The Home tab under races: an older state never covers a newer one, whoever publishes meanwhile."""

from __future__ import annotations

import asyncio
import json

from slack_office import DEPLOY, Office

STAGE = [DEPLOY["stage"][0] | {"comment": "never"}]


def home_of(office: Office, user: str) -> str:
    view = office.playground.person.home_of(office.playground.workspace.users[user])
    return json.dumps(view.blocks) if view else ""


def published(office: Office) -> list[str]:
    return [seen.answer for seen in office.playground.web_api.seen if seen.method == "views.publish"]


async def test_check_36_what_happens_while_a_tab_is_published_is_shown_after_it(office: Office) -> None:
    run_id = await office.ask(stage=STAGE)
    office.fault("slow", "views.publish", seconds=0.5)
    opened = asyncio.create_task(office.slack.home.opened("U0ANN", "T0PLAY"))
    await office.until(lambda: office.playground.slack_faults.pending() == [])
    await office.press("U0ANN", "Approve")
    await office.ended(run_id)
    await opened
    await office.until(lambda: "Approved by Ann Ode" in home_of(office, "U0ANN"))
    await asyncio.gather(*(office.slack.home.voted("U0ANN") for _ in range(20)))
    assert len(published(office)) <= 4  # whatever comes together is shown together


async def test_check_36_who_was_overtaken_by_another_replica_reads_anew(office: Office) -> None:
    await office.ask()
    await office.slack.home.opened("U0ANN", "T0PLAY")
    space = office.playground.workspace
    elsewhere = {"type": "home", "blocks": [{"type": "section", "text": {"type": "plain_text", "text": "older"}}]}
    space.change_view(space.views[space.homes["U0ANN"]], elsewhere)  # another replica of ours
    await office.slack.home.voted("U0ANN")
    assert published(office)[-2:] == ["hash_conflict", "ok"]
    assert "Deploy api 2.1" in home_of(office, "U0ANN")


async def test_the_home_tab_asks_once_before_what_decides_and_shows_what_is_pinned(office: Office) -> None:
    await office.ask(stage=STAGE)
    await office.slack.home.opened("U0ANN", "T0PLAY")
    view = office.playground.person.home_of(office.playground.workspace.users["U0ANN"])
    assert view is not None
    (buttons,) = [block["elements"] for block in view.blocks if str(block.get("block_id")).startswith("home0:")]
    assert "This decides it." in buttons[0]["confirm"]["text"]["text"]
    assert "Version: 2.1" in json.dumps(view.blocks)
