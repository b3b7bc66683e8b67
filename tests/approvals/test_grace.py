"""The grace period: a decision that can be undone before it takes effect."""

from __future__ import annotations

from typing import Any

import pytest

from approvals_bot.approvals import card_text
from approvals_bot.approvals.card import card_of
from approvals_bot.approvals.explain import explain

ANN, BO, CY, DI = (f"{address}@acme.eu" for address in ("ann", "bo", "cy", "di"))

TEXT = f"""
[workflow]
id = "careful"
title = "Careful"
request = ["*"]
[policy]
grace = "30s"
[[stage]]
id = "ok"
need = 2
from = ["{ANN}", "{BO}", "{CY}"]
[deliver]
email = true
[clock]
deadline = "1h"
remind = ["30m"]
on_deadline = "reject"
"""


async def decided(office: Any) -> Any:
    """A request with its second approval just cast."""
    opened = await office.ask(TEXT, {}, by=DI)
    assert await opened.vote(ANN) == "counted"
    said = await opened.act(kind="vote", by=BO, choice="approve")
    assert (said["verdict"], said["text"]) == (
        "counted",
        "Approved: your vote takes effect in 30 s. Until then, you can undo it.",
    )
    return opened


async def test_a_held_rejection_waits_for_nobody(office: Any) -> None:
    """Cy hasn't voted but can't do so now, so no inbox and no card may wait for them."""
    async with office.open():
        opened = await office.ask(TEXT, {}, by=DI)
        assert await opened.vote(ANN) == "counted"
        assert await opened.vote(BO, "reject") == "counted"
        view = await opened.view()
        assert (view.held.state, view.waiting_for) == ("rejected", ())
        assert await opened.vote(CY) == "already_decided"
        assert await opened.vote(BO, "take_back") == "taken_back"
        assert (await opened.view()).waiting_for == (BO, CY)


async def test_a_held_decision_takes_effect_after_the_grace_period(office: Any) -> None:
    async with office.open():
        opened = await decided(office)
        view = await opened.view()
        assert (view.outcome, view.waiting_for) == (None, ())
        note = "⏳ Approved by Bo Lund. It takes effect in 30 s unless Bo Lund undoes it."
        assert card_text.notes(card_of(view, None, office.clock.now())) == (note,)
        assert explain(view)["next"][0]["what"] == "the decision takes effect"
        await office.clock.advance("29s")
        assert (await opened.record()).status == "running"
        await office.clock.advance("1s")
        result = (await opened.record()).result
        assert (result["decision"], result["by"], result["at"][:19]) == ("approved", BO, "2026-03-02T09:00:00")


@pytest.mark.parametrize("address", [ANN, BO])
async def test_undoing_the_vote_in_time_undoes_the_decision(office: Any, address: str) -> None:
    async with office.open():
        opened = await decided(office)
        await office.clock.advance("20s")
        assert await opened.vote(address, "take_back") == "taken_back"
        await office.clock.advance("5m")
        view = await opened.view()
        assert (view.outcome, view.held, len(view.waiting_for)) == (None, None, 2)
        assert await opened.vote(CY) == "counted"
        await office.clock.advance("30s")
        assert (await opened.record()).result["by"] == CY


async def test_changing_the_vote_restarts_the_grace_period(office: Any) -> None:
    async with office.open():
        opened = await decided(office)
        await office.clock.advance("20s")
        assert await opened.vote(BO, "reject") == "counted"
        await office.clock.advance("20s")
        assert (await opened.record()).status == "running"
        await office.clock.advance("10s")
        assert (await opened.record()).result["decision"] == "rejected"


async def test_nobody_else_can_change_a_held_decision(office: Any) -> None:
    async with office.open():
        opened = await decided(office)
        assert card_of(await opened.view(), CY, office.clock.now()).choices == ()
        assert [one.choice for one in card_of(await opened.view(), BO, office.clock.now()).choices] == [
            "reject",
            "take_back",
        ]
        assert await opened.vote(CY, "reject") == "already_decided"
        assert (await opened.act(kind="edit", by=DI, fields={}))["verdict"] == "already_decided"
        assert (await opened.act(kind="reassign", instead_of=None, by=CY, person="gil@acme.eu"))[
            "verdict"
        ] == "already_decided"
        assert (await opened.act(kind="withdraw", by=DI))["verdict"] == "taken_back"
        assert (await opened.record()).status == "cancelled"


async def test_a_deadline_waits_for_a_held_decision(office: Any) -> None:
    async with office.open():
        opened = await office.ask(TEXT, {}, by=DI)
        await opened.vote(ANN)
        await office.clock.advance("59m 50s")
        assert await opened.vote(BO) == "counted"
        await office.clock.advance("20s")  # the deadline has passed
        assert (await opened.record()).status == "running"
        assert await opened.vote(BO, "take_back") == "taken_back"
        assert (await opened.record()).result["by"] == "deadline"

        in_time = await office.ask(TEXT, {}, by=DI)
        await in_time.vote(ANN)
        await office.clock.advance("59m 50s")
        await in_time.vote(BO)
        await office.clock.advance("30s")
        assert (await in_time.record()).result["decision"] == "approved"


async def test_a_held_decision_survives_a_restart(office: Any) -> None:
    async with office.open():
        opened = await decided(office)
    async with office.open():
        await office.clock.advance("30s")
        assert (await opened.record()).result["decision"] == "approved"


async def test_only_the_last_stage_has_a_grace_period(office: Any) -> None:
    text = TEXT.replace("need = 2", "") + f'[[stage]]\nid = "then"\nfrom = ["{CY}"]\n'
    async with office.open():
        opened = await office.ask(text, {}, by=DI)
        assert await opened.vote(ANN) == "counted"
        stage = (await opened.view()).stage
        assert stage is not None
        assert stage.id == "then"
        await opened.vote(CY)
        assert (await opened.record()).status == "running"
        await office.clock.advance("30s")
        assert (await opened.record()).status == "completed"
