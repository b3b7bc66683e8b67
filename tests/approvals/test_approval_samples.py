"""The sample workflows, end to end on a real engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from approvals_bot.approvals.card import card_of

ANN, BO, CY, DI, CFO = (f"{address}@acme.eu" for address in ("ann", "bo", "cy", "di", "cfo"))
FIN, CEO, COO = "fin@acme.eu", "ceo@acme.eu", "coo@acme.eu"

SAMPLES = Path(__file__).parents[2] / "workflows"


def sample(name: str) -> str:
    return (SAMPLES / f"{name}.toml").read_text()


# ── expense: levels by amount ─────────────────────────────────────────────────────────────────────────────────────


def claim(amount: str, team: str = "eng") -> dict[str, Any]:
    return {"amount": amount, "purpose": "a desk", "team": team}


async def test_a_small_expense_needs_only_the_manager(office: Any) -> None:
    async with office.open():
        opened = await office.ask(sample("expense"), claim("80"), by=BO)
        view = await opened.view()
        assert view.title == "80.00 EUR for a desk (Bo Lund)"
        assert [(stage.id, stage.state) for stage in view.stages] == [
            ("manager", "open"),
            ("finance", "skipped"),
            ("board", "skipped"),
        ]
        assert "amount" in view.stages[1].because
        assert view.waiting_for == (ANN,)
        assert await opened.vote(ANN) == "decided"
        assert (await opened.record()).result["approved"] is True
        assert office.targets.calls == [
            ("erp", f"{opened.run.id}-call-1", {"id": opened.run.id, "amount": "80.00", "code": ""})
        ]


async def test_a_large_expense_goes_through_three_stages(office: Any) -> None:
    async with office.open():
        opened = await office.ask(sample("expense"), claim("12000"), by=BO)
        said = await opened.act(kind="vote", by=ANN, choice="approve")
        assert (said["verdict"], said["text"]) == ("counted", "Counted: 1 of 1. Next: Finance.")
        assert await opened.vote(ANN) == "already_voted"
        assert (await opened.view()).waiting_for == (CFO, FIN)
        said = await opened.act(kind="vote", by=FIN, choice="approve", answers={"budget_code": "nonsense"})
        assert (said["verdict"], "budget_code" in said["text"]) == ("invalid", True)
        assert await opened.vote(FIN, answers={"budget_code": "EN-2041"}) == "counted"
        assert await opened.vote(CFO) == "invalid"  # the board always says why
        assert await opened.vote(CFO, comment="fine") == "counted"
        assert await opened.vote(CEO, comment="fine") == "decided"
        result = (await opened.record()).result
        assert (result["answers"], result["by"]) == ({"finance": {FIN: {"budget_code": "EN-2041"}}}, CEO)
        assert office.targets.calls[0][2]["code"] == "EN-2041"


async def test_requested_changes_return_the_request_until_edited(office: Any) -> None:
    async with office.open():
        opened = await office.ask(sample("expense"), claim("80"), by=BO)
        assert await opened.vote(ANN, "changes", comment="cheaper?") == "counted"
        view = await opened.view()
        assert (view.state, view.waiting_for) == ("changes_requested", (BO,))
        assert [(note.occasion, note.card.state) for note in office.slack.to(BO)] == [("change", "changes_requested")]
        assert await opened.vote(ANN) == "already_decided"
        assert (await opened.act(kind="edit", by=BO, fields={"amount": "60"}))["verdict"] == "edited"
        view = await opened.view()
        assert (view.state, view.waiting_for, view.fields["amount"]) == ("waiting", (ANN,), "60.00")
        assert await opened.vote(ANN) == "decided"


async def test_a_change_notification_says_whose_turn_it_is(office: Any) -> None:
    """A mail can't be edited, so its state, the people it waits for and its times must be right when it is sent."""
    async with office.open():
        opened = await office.ask(sample("expense"), claim("2000"), by=BO)
        await office.clock.advance("11m")  # this sample delays its mails
        await opened.vote(ANN)
        await office.clock.advance("11m")
        assert await opened.vote(FIN, "changes", comment="cheaper?") == "counted"
        await office.clock.advance("1h")
        await opened.act(kind="edit", by=BO, fields={"amount": "1900"})
        view = await opened.view()
        assert (view.state, view.stage.id) == ("waiting", "finance")
        for outbox, address in ((office.email, FIN), (office.slack, CFO)):
            (change,) = [sent for sent in outbox.to(address) if sent.occasion == "change"]
            card = change.card
            assert (card.state, card.deadline, card.on_deadline) == ("waiting", view.deadline, view.on_deadline)
            assert [person.key for person in card.waiting_for] == [CFO, FIN]
            assert "approve" in [choice.choice for choice in card.choices]
        await opened.act(kind="edit", by=BO, fields={"amount": "20000"})
        assert (await opened.view()).stage.id == "manager"
        sent = [sent for sent in office.slack.to(ANN) if sent.occasion == "change"][-1]
        assert [person.key for person in sent.card.waiting_for] == [ANN]
        assert "approve" in [choice.choice for choice in sent.card.choices]


async def test_a_lower_amount_keeps_votes_and_a_raised_one_resets_them(office: Any) -> None:
    async with office.open():
        opened = await office.ask(sample("expense"), claim("2000"), by=BO)
        await opened.vote(ANN)
        await opened.act(kind="edit", by=BO, fields={"amount": "1500"})
        assert [vote.counts for vote in (await opened.view()).votes] == [True]
        assert (await opened.view()).stage.id == "finance"
        await opened.act(kind="edit", by=BO, fields={"amount": "20000"})
        view = await opened.view()
        assert ([vote.counts for vote in view.votes], view.stage.id) == ([False], "manager")


async def test_lowering_below_the_open_stage_decides_by_present_votes(office: Any) -> None:
    async with office.open():
        opened = await office.ask(sample("expense"), claim("2000"), by=BO)
        await opened.vote(ANN)
        await opened.act(kind="edit", by=BO, fields={"amount": "500"})
        assert (await opened.record()).result["by"] == ANN


async def test_a_requesters_manager_takes_their_place(office: Any) -> None:
    async with office.open():
        opened = await office.ask(sample("expense"), claim("2000"), by=ANN)
        await opened.vote(CFO)
        assert (await opened.view()).waiting_for == (CFO, FIN)
        own = await office.ask(sample("expense"), claim("2000"), by=BO)
        assert (await own.view()).waiting_for == (ANN,)


async def test_after_three_days_it_escalates_to_the_manager(office: Any) -> None:
    async with office.open():
        opened = await office.ask(sample("expense"), claim("80"), by=BO)
        await office.clock.advance("3d")
        assert (await opened.view()).waiting_for == (CFO,)
        assert await opened.vote(CFO) == "decided"


# ── book-flight: an agent acts for a person ────────────────────────────────────────────────────────────────────────


def flight(price: str) -> dict[str, Any]:
    return {"tool_call_id": "call-1", "flight": "LH 1", "passenger": "Bo Lund", "price": price}


async def test_an_agents_request_goes_to_the_person_it_acts_for(office: Any) -> None:
    async with office.open():
        opened = await office.ask(sample("book-flight"), flight("200"), by="app:travel-agent", behalf=BO)
        assert (await opened.view()).waiting_for == (BO,)
        assert await opened.vote(ANN) == "not_an_approver"
        assert await opened.vote(BO) == "decided"
        assert (await opened.record()).result["approved"] is True


async def test_on_behalf_of_counts_as_requester_unless_named(office: Any) -> None:
    async with office.open():
        opened = await office.ask(sample("book-flight"), flight("900"), by="app:travel-agent", behalf=BO)
        assert await opened.vote(BO) == "counted"
        assert (await opened.view()).waiting_for == (ANN,)
        assert await opened.vote(BO) == "already_voted"
        assert await opened.vote(ANN) == "decided"


async def test_edit_approves_the_edited_fields(office: Any) -> None:
    async with office.open():
        opened = await office.ask(sample("book-flight"), flight("200"), by="app:travel-agent", behalf=BO)
        before = (await opened.view()).digest
        assert await opened.vote(BO, "edit", fields={"passenger": "Eve"}) == "invalid"
        assert await opened.vote(BO, "edit", fields={"flight": "LH 2"}, digest=before) == "decided"
        result = (await opened.record()).result
        assert (result["approved"], result["fields"]["flight"]) == (True, "LH 2")
        assert result["digest"] not in ("", before)


async def test_an_edit_can_make_another_stage_apply(office: Any) -> None:
    async with office.open():
        opened = await office.ask(sample("book-flight"), flight("200"), by="app:travel-agent", behalf=BO)
        assert await opened.vote(BO, "edit", fields={"price": "900"}, via="email") == "counted"
        assert (await opened.view()).waiting_for == (ANN,)


async def test_a_rule_rejects_an_edit_it_forbids(office: Any) -> None:
    async with office.open():
        opened = await office.ask(sample("book-flight"), flight("200"), by="app:travel-agent", behalf=BO)
        said = await opened.act(kind="vote", by=BO, choice="edit", fields={"price": "6000"})
        assert (said["verdict"], "A rule decided" in said["text"]) == ("decided", True)
        assert (await opened.record()).result["by"] == "rule:1"


async def test_an_answer_is_returned_as_written(office: Any) -> None:
    async with office.open():
        opened = await office.ask(sample("book-flight"), flight("200"), by="app:travel-agent", behalf=BO)
        assert await opened.vote(BO, "answer", comment="take the train") == "decided"
        result = (await opened.record()).result
        assert (result["approved"], result["decision"], result["comment"]) == (False, "answered", "take the train")


async def test_an_expensive_flight_is_rejected_by_a_rule(office: Any) -> None:
    async with office.open():
        opened = await office.ask(sample("book-flight"), flight("5001"), by="app:travel-agent", behalf=BO)
        record = await opened.record()
        assert (record.result["decision"], record.result["by"]) == ("rejected", "rule:1")


# ── prod-access: approvers without a notification ───────────────────────────────────────────────────────────────


async def test_only_the_owner_is_notified_and_sre_may_decide_too(office: Any) -> None:
    fields = {"account": "aws-prod", "role": "admin", "reason": "the database is on fire again"}
    async with office.open():
        opened = await office.ask(sample("prod-access"), fields, by=ANN)
        view = await opened.view()
        assert (view.waiting_for, view.link_auth) == ((CY, BO, DI), "code")
        assert {mail.to.person.address for mail in office.email.sent} == {CY}
        await office.clock.advance("15m")
        assert {mail.to.person.address for mail in office.email.sent} == {CY}
        assert await opened.vote(DI) == "decided"
        assert office.targets.calls[0][2]["seconds"] == "3600"


async def test_untrusted_text_is_marked_on_every_card(office: Any) -> None:
    async with office.open():
        flight = {"tool_call_id": "c1", "flight": "LH 1", "passenger": "Bo", "price": "90", "why": "It is cheap."}
        opened = await office.ask(sample("book-flight"), flight, by="app:travel-agent", behalf=BO)
        card = card_of(await opened.view(), BO, office.clock.now())
        assert [field.name for field in card.fields if field.untrusted] == ["why"]
