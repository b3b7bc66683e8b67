"""Requests that are approved without a vote in an emergency, and reviewed afterwards."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from approvals_bot.approvals import card_text
from approvals_bot.approvals.acts import Actor, Edit, Stop, Vote, Withdraw
from approvals_bot.approvals.break_glass import review_definition
from approvals_bot.approvals.card import card_of
from approvals_bot.approvals.policy import Definition, digest, pinned
from approvals_bot.approvals.request import Opening, Request
from approvals_bot.approvals.standing_grants import StandingGrants
from approvals_bot.approvals.standing_policy import Emergency
from approvals_bot.approvals.workflow import approval
from approvals_bot.service.act import perform
from approvals_bot.service.emergencies import written_reason
from approvals_bot.service.read import request_of, requests_of
from approvals_bot.service.repairs import OwnReviewError, cancel_run
from approvals_bot.service.standing import StoredGrants
from tests.approvals.conftest import ANN, BO, CFO, CY, DI, Office, OpenedRequest

TEXT = """
[workflow]
id = "emergency-access"
title = "Access to {{ account }}"
request = ["*"]
owners = ["cfo@acme.eu"]
[fields]
account = "string"
[[auto]]
when = 'account == "frozen"'
decision = "reject"
[[stage]]
id = "go"
from = ["@release-managers"]
[break_glass]
who = ["@sre"]
review = { from = ["@live", "di@acme.eu"], within = "24h" }
[deliver]
email = true
[[on.approved]]
http = "grant"
json = { who = "{{ requester.email }}" }
"""
WHY = "The database is down, and customers can't pay"


def definition_of(text: str = TEXT) -> Definition:
    made = Definition.model_validate(tomllib.loads(text))
    return made.model_copy(update={"emergency": Emergency(reason=WHY, escalate_to=(CFO,))})


async def broken(office: Office, account: str = "prod", by: str = DI, text: str = TEXT) -> OpenedRequest:
    definition = definition_of(text)
    listed = approval.under(definition.id, pinned(definition))
    run = await office.engine.start(listed, Opening({"account": account}, by))
    await office.settle()
    return OpenedRequest(office, run)


async def parts(opened: OpenedRequest) -> tuple[Request, Request]:
    """Return the request, and its review."""
    request, review = requests_of(await opened.record())
    return request, review


async def review_vote(opened: OpenedRequest, by: str, choice: str = "approve", comment: str = "") -> Any:
    """Vote on the review. Returns the verdict."""
    _, review = await parts(opened)
    vote = Vote(by, choice, comment=comment)  # type: ignore[arg-type]
    reply = await perform(opened.office.engine, review, vote, timeout=60)
    await opened.office.settle()
    return reply.verdict


async def test_an_emergency_is_approved_at_once_and_reviewed(office: Office) -> None:
    async with office.open():
        opened = await broken(office)
        request, review = await parts(opened)
        assert (request.state, request.id) == ("approved", opened.run.id)
        assert request.outcome is not None
        assert (request.outcome.by, request.outcome.because) == (
            "break-glass",
            f"Opened without a vote by Di Ops: {WHY}",
        )
        assert request.outcome.actor is not None
        assert (request.outcome.actor.kind, request.outcome.actor.id) == ("person", DI)
        assert request.review is not None
        assert (request.review.state, request.review.request) == ("waiting", review.id)
        assert office.targets.calls[0][2] == {"who": DI}
        assert request_of(await opened.record()) == request, "the run is the request, not its review"
        assert {address for address in (ANN, BO, CY, CFO) if office.slack.to(address)} == {ANN, BO, CY, CFO}
        assert all(office.slack.to(address)[0].card.outcome is not None for address in (ANN, CFO))
        assert set(review.waiting_for) == {BO, CY}, "Di opened it"
        assert review.title == "Review: Access to prod"
        assert WHY in review.instructions
        assert [sent.occasion for sent in office.slack.to(BO) if sent.card.run_id == review.id] == ["request"]
        assert await review_vote(opened, DI) == "own_request"
        assert await review_vote(opened, ANN) == "not_an_approver"
        assert await review_vote(opened, CY) == "decided"
        request, review = await parts(opened)
        assert request.review is not None
        assert (request.review.state, request.review.by) == ("approved", CY)
        assert (await opened.record()).status == "completed"


async def test_a_late_review_escalates_and_waits_on(office: Office) -> None:
    async with office.open():
        opened = await broken(office)
        await office.clock.advance("23h")
        request, _ = await parts(opened)
        assert request.review is not None
        assert request.review.state == "waiting"
        await office.clock.advance("2h")
        request, review = await parts(opened)
        assert request.review is not None
        assert request.review.state == "late"
        assert CFO in review.waiting_for
        assert [sent.occasion for sent in office.slack.to(CFO) if sent.card.run_id == review.id] == ["escalation"]
        await office.clock.advance("60d")
        request, review = await parts(opened)
        assert (request.state, review.is_open) == ("approved", True), "silence undoes nothing, and ends nothing"
        assert await review_vote(opened, CFO, "reject", "the runbook says to call first") == "decided"
        request, review = await parts(opened)
        card = card_of(review, None, office.clock.now())
        assert card_text.state(card) == "⛔ Found not justified", "nobody rejected anything"
        assert [card_text.vote(cast) for cast in card.votes] == ["⛔ Fay Cash found it not justified via the API"]
        assert request.review is not None
        assert (request.review.state, request.review.by) == ("not_justified", CFO)
        assert request.review.comment == "the runbook says to call first"
        assert request.state == "approved"


async def test_a_rule_that_rejects_comes_first(office: Office) -> None:
    async with office.open():
        opened = await broken(office, "frozen")
        (request,) = requests_of(await opened.record())
        assert (request.state, request.review) == ("rejected", None)


async def test_with_nobody_to_review_it_waits_for_the_owners(office: Office) -> None:
    async with office.open():
        office.live.people = [DI]
        opened = await broken(office)
        _, review = await parts(opened)
        assert review.is_open
        assert review.waiting_for == ()
        await office.clock.advance("25h")
        _, review = await parts(opened)
        assert review.waiting_for == (CFO,)


async def test_a_cancelled_run_ends_its_review(office: Office) -> None:
    async with office.open():
        opened = await broken(office)
        with pytest.raises(OwnReviewError):
            await cancel_run(office.engine, opened.run.id, who=DI, actor=Actor("person", DI), reason="mine")
        await cancel_run(office.engine, opened.run.id, who=CFO, actor=Actor("person", CFO), reason="drill")
        await office.settle()
        request, review = await parts(opened)
        assert (request.state, review.state) == ("approved", "cancelled")
        assert request.review is not None
        assert (request.review.state, request.review.comment) == ("cancelled", "drill")
        assert (
            "⚑ Nobody reviewed it: the run was cancelled: “drill”" in card_of(request, None, office.clock.now()).notes
        )


@pytest.mark.parametrize("by", [DI, BO, "app:desk"])
async def test_nobody_gets_rid_of_the_review(office: Office, by: str) -> None:
    async with office.open():
        opened = await broken(office)
        request, review = await parts(opened)
        assert request.hook_id == "", "the request itself takes no votes"
        for act in (Withdraw(by, "x"), Edit(by, {"account": "dev"}), Stop(by, "x")):
            reply = await perform(office.engine, review, act)
            assert (reply.changed, reply.verdict) == (False, "not_an_approver"), act
        await office.settle()
        _, review = await parts(opened)
        assert (review.is_open, review.fields) == (True, {"account": "prod"})


GRANT = """
[standing]
match = ["account"]
lasts = "30d"
[grant]
lasts = "1h"
max = "8h"
give = { http = "grant" }
take = { http = "revoke" }
extend = "ask"
"""


@pytest.mark.parametrize("is_emergency", [True, False])
async def test_only_votes_extend_a_grant(office: Office, is_emergency: bool) -> None:
    text = TEXT.replace('account = "string"', 'account = { type = "string", pinned = true }') + GRANT
    async with office.open():
        office.engine.resources[StandingGrants] = StoredGrants(office.engine)
        if is_emergency:
            opened = await broken(office, text=text)
        else:
            opened = await office.ask(text, {"account": "prod"})
            assert await opened.vote(ANN) == "decided"
        assert (await opened.act(kind="extend", by=DI, lasts="1h"))["verdict"] == "extending"
        await office.settle()
        requests = requests_of(await opened.record())
        (extension,) = [one for one in requests if one.extends]
        assert extension.is_open, "neither the emergency nor the approval that it extends covers it"
        assert len([one for one in requests if one.reviews]) == is_emergency
        assert (await perform(office.engine, extension, Vote(ANN, "approve"), timeout=60)).verdict == "decided"
        await office.settle()
        (extension,) = [one for one in requests_of(await opened.record()) if one.extends]
        assert (extension.outcome is not None and extension.outcome.by, extension.standing) == (ANN, None)


def test_an_emergency_follows_the_version_of_its_file() -> None:
    plain = Definition.model_validate(tomllib.loads(TEXT))
    assert digest(definition_of()) == digest(plain)
    assert review_definition(definition_of()).stage[0].seats[0].from_ == ("@live", DI)


def test_a_reason_is_no_template() -> None:
    odd = Emergency(reason="{{ account }} " + "x" * 2_000, escalate_to=())
    made = review_definition(definition_of().model_copy(update={"emergency": odd})).workflow.instructions or ""
    assert "“{ { account }} xxx" in made
    assert len(made) <= 2_000


def test_a_reason_is_what_people_can_read() -> None:
    assert written_reason("  a\u200b\u2062b \n\n c\u202e  ") == "ab c"
    assert written_reason("\u200b" * 50) == ""
