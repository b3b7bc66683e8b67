"""Slack messages from before a restore: a press on what the restored log doesn't have counts for nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from approvals_bot.durable.store.backups import back_up, restore
from tests.support.slack_office import DEPLOY, Open


async def test_a_press_on_a_lost_state_shows_what_is_true(open_office: Open, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/old.db"
    old = await open_office(database=url)
    run_id = await old.ask("di@acme.eu", stage=[DEPLOY["stage"][0] | {"need": 2}])
    await old.engine.settle()
    untouched = list(old.card.blocks)
    await back_up(url, tmp_path / "backup.db", lambda _: None)
    await old.press("U0ANN", "Approve")
    await old.until(lambda: old.card.blocks != untouched)
    await restore(tmp_path / "backup.db", f"sqlite:///{tmp_path}/new.db", lambda _: None, at=old.clock.now())

    await old.clock.advance("1m")  # the other fake Slack numbers its messages by the time
    new = await open_office(database=f"sqlite:///{tmp_path}/new.db", clock=old.clock)
    messages: dict[Any, Any] = new.playground.workspace.messages
    messages.update(old.playground.workspace.messages)
    answer = await new.press("U0BO", "Reject")
    assert answer["view"] is None, "no form for a vote that can't count"
    assert answer["ephemeral"].startswith("The request isn't as you were shown it")
    assert await new.votes(run_id) == []
    await new.until(lambda: "1 of 2" not in str(new.card.blocks))
    assert (await new.press("U0BO", "Approve"))["ephemeral"].startswith("Counted: 1 of 2.")
