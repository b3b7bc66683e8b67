"""A decision that can still be taken back for a while before anything follows."""

from __future__ import annotations

from typing import Any

import pytest

from approvals_bot.approvals import card_text
from approvals_bot.approvals.card import card_of
from approvals_bot.approvals.explain import explain

ANN, BO, CY, DI = (f"{who}@acme.eu" for who in ("ann", "bo", "cy", "di"))

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
    """A request whose second approval has just come."""
    asked = await office.ask(TEXT, {}, by=DI)
    assert await asked.vote(ANN) == "counted"
    said = await asked.tell(kind="vote", by=BO, choice="approve")
    assert (said["verdict"], said["text"]) == (
        "counted",
        "Approved: your vote takes effect in 30 s. Until then, you can undo it.",
    )
    return asked


async def test_while_a_rejection_may_be_taken_back_nobody_else_is_waited_for(office: Any) -> None:
    """Cy has not voted, but can't do so now, so no inbox and no card may say that it is her turn."""
    async with office.open():
        asked = await office.ask(TEXT, {}, by=DI)
        assert await asked.vote(ANN) == "counted"
        assert await asked.vote(BO, "reject") == "counted"
        view = await asked.view()
        assert (view.held.state, view.waiting_for) == ("rejected", ())
        assert await asked.vote(CY) == "already_decided"
        assert await asked.vote(BO, "take_back") == "taken_back"
        assert (await asked.view()).waiting_for == (BO, CY)


async def test_it_takes_effect_when_the_time_is_over(office: Any) -> None:
    async with office.open():
        asked = await decided(office)
        view = await asked.view()
        assert (view.outcome, view.waiting_for) == (None, ())
        note = "⏳ Approved by Bo Lund. It takes effect in 30 s unless Bo Lund undoes it."
        assert card_text.notes(card_of(view, None, office.clock.now())) == (note,)
        assert explain(view)["next"][0]["what"] == "the decision takes effect"
        await office.clock.advance("29s")
        assert (await asked.record()).status == "running"
        await office.clock.advance("1s")
        result = (await asked.record()).result
        assert (result["decision"], result["by"], result["at"][:19]) == ("approved", BO, "2026-03-02T09:00:00")


@pytest.mark.parametrize("who", [ANN, BO])
async def test_a_vote_that_is_taken_back_in_time_undoes_it(office: Any, who: str) -> None:
    async with office.open():
        asked = await decided(office)
        await office.clock.advance("20s")
        assert await asked.vote(who, "take_back") == "taken_back"
        await office.clock.advance("5m")
        view = await asked.view()
        assert (view.outcome, view.held, len(view.waiting_for)) == (None, None, 2)
        assert await asked.vote(CY) == "counted"
        await office.clock.advance("30s")
        assert (await asked.record()).result["by"] == CY


async def test_who_thinks_again_may_say_the_opposite_and_the_time_begins_anew(office: Any) -> None:
    async with office.open():
        asked = await decided(office)
        await office.clock.advance("20s")
        assert await asked.vote(BO, "reject") == "counted"
        await office.clock.advance("20s")
        assert (await asked.record()).status == "running"
        await office.clock.advance("10s")
        assert (await asked.record()).result["decision"] == "rejected"


async def test_nobody_else_changes_it_meanwhile(office: Any) -> None:
    async with office.open():
        asked = await decided(office)
        assert card_of(await asked.view(), CY, office.clock.now()).choices == ()
        assert [one.choice for one in card_of(await asked.view(), BO, office.clock.now()).choices] == [
            "reject",
            "take_back",
        ]
        assert await asked.vote(CY, "reject") == "already_decided"
        assert (await asked.tell(kind="edit", by=DI, fields={}))["verdict"] == "already_decided"
        assert (await asked.tell(kind="reassign", instead_of=None, by=CY, person="gil@acme.eu"))[
            "verdict"
        ] == "already_decided"
        assert (await asked.tell(kind="withdraw", by=DI))["verdict"] == "taken_back"
        assert (await asked.record()).status == "cancelled"


async def test_a_deadline_in_between_waits_for_what_becomes_of_it(office: Any) -> None:
    async with office.open():
        asked = await office.ask(TEXT, {}, by=DI)
        await asked.vote(ANN)
        await office.clock.advance("59m 50s")
        assert await asked.vote(BO) == "counted"
        await office.clock.advance("20s")  # the deadline has passed
        assert (await asked.record()).status == "running"
        assert await asked.vote(BO, "take_back") == "taken_back"
        assert (await asked.record()).result["by"] == "deadline"

        in_time = await office.ask(TEXT, {}, by=DI)
        await in_time.vote(ANN)
        await office.clock.advance("59m 50s")
        await in_time.vote(BO)
        await office.clock.advance("30s")
        assert (await in_time.record()).result["decision"] == "approved"


async def test_it_survives_a_restart(office: Any) -> None:
    async with office.open():
        asked = await decided(office)
    async with office.open():
        await office.clock.advance("30s")
        assert (await asked.record()).result["decision"] == "approved"


async def test_only_the_last_stage_waits(office: Any) -> None:
    text = TEXT.replace("need = 2", "") + f'[[stage]]\nid = "then"\nfrom = ["{CY}"]\n'
    async with office.open():
        asked = await office.ask(text, {}, by=DI)
        assert await asked.vote(ANN) == "counted"
        stage = (await asked.view()).stage
        assert stage is not None
        assert stage.id == "then"
        await asked.vote(CY)
        assert (await asked.record()).status == "running"
        await office.clock.advance("30s")
        assert (await asked.record()).status == "completed"
