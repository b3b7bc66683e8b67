"""The sample workflows, played through on a real engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from approvals_bot.approvals.card import card_of

ANN, BO, CY, DI, CFO = (f"{who}@acme.eu" for who in ("ann", "bo", "cy", "di", "cfo"))
FIN, CEO, COO = "fin@acme.eu", "ceo@acme.eu", "coo@acme.eu"

SAMPLES = Path(__file__).parents[2] / "workflows"


def sample(name: str) -> str:
    return (SAMPLES / f"{name}.toml").read_text()


# ── expense: levels by amount ─────────────────────────────────────────────────────────────────────────────────────


def claim(amount: str, team: str = "eng") -> dict[str, Any]:
    return {"amount": amount, "purpose": "a desk", "team": team}


async def test_a_small_expense_needs_the_manager_alone_and_shows_what_was_skipped(office: Any) -> None:
    async with office.open():
        asked = await office.ask(sample("expense"), claim("80"), by=BO)
        view = await asked.view()
        assert view.title == "80.00 EUR for a desk (Bo Lund)"
        assert [(stage.id, stage.state) for stage in view.stages] == [
            ("manager", "open"),
            ("finance", "skipped"),
            ("board", "skipped"),
        ]
        assert "amount" in view.stages[1].because
        assert view.waiting_for == (ANN,)
        assert await asked.vote(ANN) == "decided"
        assert (await asked.record()).result["approved"] is True
        assert office.targets.calls == [
            ("erp", f"{asked.run.id}-call-1", {"id": asked.run.id, "amount": "80.00", "code": ""})
        ]


async def test_a_large_expense_goes_through_three_stages_with_answers_and_comments(office: Any) -> None:
    async with office.open():
        asked = await office.ask(sample("expense"), claim("12000"), by=BO)
        said = await asked.tell(kind="vote", by=ANN, choice="approve")
        assert (said["verdict"], said["text"]) == ("counted", "Counted: 1 of 1. Next: Finance.")
        assert await asked.vote(ANN) == "already_voted"
        assert (await asked.view()).waiting_for == (CFO, FIN)
        said = await asked.tell(kind="vote", by=FIN, choice="approve", answers={"budget_code": "nonsense"})
        assert (said["verdict"], "budget_code" in said["text"]) == ("invalid", True)
        assert await asked.vote(FIN, answers={"budget_code": "EN-2041"}) == "counted"
        assert await asked.vote(CFO) == "invalid"  # the board always says why
        assert await asked.vote(CFO, comment="fine") == "counted"
        assert await asked.vote(CEO, comment="fine") == "decided"
        result = (await asked.record()).result
        assert (result["answers"], result["by"]) == ({"finance": {"budget_code": "EN-2041"}}, CEO)
        assert office.targets.calls[0][2]["code"] == "EN-2041"


async def test_changes_hand_the_request_back_until_it_is_edited(office: Any) -> None:
    async with office.open():
        asked = await office.ask(sample("expense"), claim("80"), by=BO)
        assert await asked.vote(ANN, "changes", comment="cheaper?") == "counted"
        view = await asked.view()
        assert (view.state, view.waiting_for) == ("changes_requested", (BO,))
        assert [(note.occasion, note.card.state) for note in office.slack.to(BO)] == [("change", "changes_requested")]
        assert await asked.vote(ANN) == "already_decided"
        assert (await asked.tell(kind="edit", by=BO, fields={"amount": "60"}))["verdict"] == "edited"
        view = await asked.view()
        assert (view.state, view.waiting_for, view.fields["amount"]) == ("waiting", (ANN,), "60.00")
        assert await asked.vote(ANN) == "decided"


async def test_who_is_told_of_a_change_reads_whose_turn_it_is_then(office: Any) -> None:
    """A mail can't be edited, so what it says of the state, of who is waited for and of the time has to be right."""
    async with office.open():
        asked = await office.ask(sample("expense"), claim("2000"), by=BO)
        await office.clock.advance("11m")  # the mails of this sample wait whether somebody votes without them
        await asked.vote(ANN)
        await office.clock.advance("11m")
        assert await asked.vote(FIN, "changes", comment="cheaper?") == "counted"
        await office.clock.advance("1h")
        await asked.tell(kind="edit", by=BO, fields={"amount": "1900"})
        view = await asked.view()
        assert (view.state, view.stage.id) == ("waiting", "finance")
        for news, who in ((office.email, FIN), (office.slack, CFO)):
            (change,) = [sent for sent in news.to(who) if sent.occasion == "change"]
            card = change.card
            assert (card.state, card.deadline, card.on_deadline) == ("waiting", view.deadline, view.on_deadline)
            assert [person.key for person in card.waiting_for] == [CFO, FIN]
            assert "approve" in [choice.choice for choice in card.choices]
        await asked.tell(kind="edit", by=BO, fields={"amount": "20000"})
        assert (await asked.view()).stage.id == "manager"
        sent = [sent for sent in office.slack.to(ANN) if sent.occasion == "change"][-1]
        assert [person.key for person in sent.card.waiting_for] == [ANN]
        assert "approve" in [choice.choice for choice in sent.card.choices]


async def test_a_lower_amount_keeps_votes_and_a_raised_one_resets_them(office: Any) -> None:
    async with office.open():
        asked = await office.ask(sample("expense"), claim("2000"), by=BO)
        await asked.vote(ANN)
        await asked.tell(kind="edit", by=BO, fields={"amount": "1500"})
        assert [vote.counts for vote in (await asked.view()).votes] == [True]
        assert (await asked.view()).stage.id == "finance"
        await asked.tell(kind="edit", by=BO, fields={"amount": "20000"})
        view = await asked.view()
        assert ([vote.counts for vote in view.votes], view.stage.id) == ([False], "manager")


async def test_a_lower_amount_that_skips_the_open_stage_is_decided_by_the_votes_there_are(office: Any) -> None:
    async with office.open():
        asked = await office.ask(sample("expense"), claim("2000"), by=BO)
        await asked.vote(ANN)
        await asked.tell(kind="edit", by=BO, fields={"amount": "500"})
        assert (await asked.record()).result["by"] == ANN


async def test_the_manager_of_a_requester_who_would_be_asked_takes_her_place(office: Any) -> None:
    async with office.open():
        asked = await office.ask(sample("expense"), claim("2000"), by=ANN)
        await asked.vote(CFO)
        assert (await asked.view()).waiting_for == (CFO, FIN)
        own = await office.ask(sample("expense"), claim("2000"), by=BO)
        assert (await own.view()).waiting_for == (ANN,)


async def test_after_three_days_the_manager_of_the_approver_is_asked_instead(office: Any) -> None:
    async with office.open():
        asked = await office.ask(sample("expense"), claim("80"), by=BO)
        await office.clock.advance("3d")
        assert (await asked.view()).waiting_for == (CFO,)
        assert await asked.vote(CFO) == "decided"


# ── book-flight: an agent acts for a human ────────────────────────────────────────────────────────────────────────


def flight(price: str) -> dict[str, Any]:
    return {"tool_call_id": "call-1", "flight": "LH 1", "passenger": "Bo Lund", "price": price}


async def test_an_agent_asks_the_human_it_acts_for(office: Any) -> None:
    async with office.open():
        asked = await office.ask(sample("book-flight"), flight("200"), by="app:travel-agent", behalf=BO)
        assert (await asked.view()).waiting_for == (BO,)
        assert await asked.vote(ANN) == "not_an_approver"
        assert await asked.vote(BO) == "decided"
        assert (await asked.record()).result["approved"] is True


async def test_the_human_counts_as_the_requester_where_the_file_does_not_name_him(office: Any) -> None:
    async with office.open():
        asked = await office.ask(sample("book-flight"), flight("900"), by="app:travel-agent", behalf=BO)
        assert await asked.vote(BO) == "counted"
        assert (await asked.view()).waiting_for == (ANN,)
        assert await asked.vote(BO) == "already_voted"
        assert await asked.vote(ANN) == "decided"


async def test_an_edit_approves_what_the_approver_made_of_it(office: Any) -> None:
    async with office.open():
        asked = await office.ask(sample("book-flight"), flight("200"), by="app:travel-agent", behalf=BO)
        before = (await asked.view()).digest
        assert await asked.vote(BO, "edit", fields={"passenger": "Eve"}) == "invalid"
        assert await asked.vote(BO, "edit", fields={"flight": "LH 2"}, digest=before) == "decided"
        result = (await asked.record()).result
        assert (result["approved"], result["fields"]["flight"]) == (True, "LH 2")
        assert result["digest"] not in ("", before)


async def test_an_edit_can_make_another_stage_apply(office: Any) -> None:
    async with office.open():
        asked = await office.ask(sample("book-flight"), flight("200"), by="app:travel-agent", behalf=BO)
        assert await asked.vote(BO, "edit", fields={"price": "900"}, via="email") == "counted"
        assert (await asked.view()).waiting_for == (ANN,)


async def test_an_edit_that_a_rule_forbids_is_rejected_by_it(office: Any) -> None:
    async with office.open():
        asked = await office.ask(sample("book-flight"), flight("200"), by="app:travel-agent", behalf=BO)
        said = await asked.tell(kind="vote", by=BO, choice="edit", fields={"price": "6000"})
        assert (said["verdict"], "A rule decided" in said["text"]) == ("decided", True)
        assert (await asked.record()).result["by"] == "rule:1"


async def test_an_answer_goes_back_as_it_was_written(office: Any) -> None:
    async with office.open():
        asked = await office.ask(sample("book-flight"), flight("200"), by="app:travel-agent", behalf=BO)
        assert await asked.vote(BO, "answer", comment="take the train") == "decided"
        result = (await asked.record()).result
        assert (result["approved"], result["decision"], result["comment"]) == (False, "answered", "take the train")


async def test_a_dear_flight_is_rejected_by_rule(office: Any) -> None:
    async with office.open():
        asked = await office.ask(sample("book-flight"), flight("5001"), by="app:travel-agent", behalf=BO)
        record = await asked.record()
        assert (record.result["decision"], record.result["by"]) == ("rejected", "rule:1")


# ── prod-access: some may decide and are not pinged ───────────────────────────────────────────────────────────────


async def test_only_the_owner_is_told_and_sre_may_decide_as_well(office: Any) -> None:
    fields = {"account": "aws-prod", "role": "admin", "reason": "the database is on fire again"}
    async with office.open():
        asked = await office.ask(sample("prod-access"), fields, by=ANN)
        view = await asked.view()
        assert (view.waiting_for, view.link_auth) == ((CY, BO, DI), "code")
        assert {mail.to.person.address for mail in office.email.sent} == {CY}
        await office.clock.advance("15m")
        assert {mail.to.person.address for mail in office.email.sent} == {CY}
        assert await asked.vote(DI) == "decided"
        assert office.targets.calls[0][2]["seconds"] == "3600"


async def test_what_a_model_wrote_is_marked_on_every_card(office: Any) -> None:
    async with office.open():
        flight = {"tool_call_id": "c1", "flight": "LH 1", "passenger": "Bo", "price": "90", "why": "It is cheap."}
        asked = await office.ask(sample("book-flight"), flight, by="app:travel-agent", behalf=BO)
        card = card_of(await asked.view(), BO, office.clock.now())
        assert [field.name for field in card.fields if field.untrusted] == ["why"]
