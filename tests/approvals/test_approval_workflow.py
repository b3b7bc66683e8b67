"""An approval from opening to result, on a real engine and store, with channels that record."""

from __future__ import annotations

import asyncio
import tomllib
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from approvals_bot.approvals import card_text
from approvals_bot.approvals.acts import Vote
from approvals_bot.approvals.apply import late_reply
from approvals_bot.approvals.card import card_of
from approvals_bot.approvals.port import Dispatch, Refused, Result, TryAgain
from approvals_bot.approvals.request import Opening
from approvals_bot.approvals.workflow import approval
from approvals_bot.durable.core.api import WebhookRequest
from approvals_bot.durable.core.registry import registry
from approvals_bot.durable.core.replay import replay
from approvals_bot.service.read import api_request

ANN, BO, CY, DI, CFO = (f"{address}@acme.eu" for address in ("ann", "bo", "cy", "di", "cfo"))

RISKY = {"service": "api", "version": "2.1", "env": "prod", "risk": "high"}


def one_stage(stage: str, more: str = "") -> str:
    """Return a workflow with two fields and this stage."""
    return f"""
[workflow]
id = "small"
title = "Buy {{{{ what }}}}"
request = ["*"]
[fields]
what = {{ type = "string", pinned = true }}
note = {{ type = "string", required = false }}
[[stage]]
id = "go"
{stage}
{more}
"""


BUY = {"what": "a chair"}


# ── the main job ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_release_is_requested_approved_and_announced(office: Any) -> None:
    async with office.open():
        opened = await office.ask()
        view = await opened.view()
        assert (view.state, view.title, view.waiting_for) == ("waiting", "Deploy api 2.1 to prod", (ANN, BO, CY))
        assert [card.card.title for card in office.slack.to("#deploys")] == ["Deploy api 2.1 to prod"]
        assert {choice.choice for choice in office.slack.sent[0].card.choices} == {"approve", "reject"}
        assert [len(office.email.to(address)) for address in (ANN, BO, CY, DI)] == [1, 1, 1, 0]
        assert sorted(view.recipients.values()) == [ANN, BO, CY]

        assert await opened.act(kind="vote", by=ANN, choice="approve", via="slack") == {
            "verdict": "decided",
            "text": "Approved. Everyone involved has been notified.",
            "changed": True,
        }
        record = await opened.record()
        assert (record.status, record.result["approved"], record.result["by"]) == ("completed", True, ANN)
        shown = office.slack.newest("#deploys").card
        assert (shown.state, shown.outcome.by.text, shown.outcome.via, shown.choices) == (
            "approved",
            "Ann Ode",
            "slack",
            (),
        )
        for address in (ANN, BO, CY):
            assert [mail.occasion for mail in office.email.to(address)] == ["request", "outcome"]
            assert office.email.to(address)[1].thread.place == address
        assert [mail.occasion for mail in office.email.to(DI)] == ["outcome"]


async def test_the_api_shows_the_documented_request(office: Any) -> None:
    async with office.open():
        opened = await office.ask(fields=RISKY, by="app:ci")
        await opened.vote(BO, via="email", comment="fine")
        shown = api_request(await opened.view())
        assert list(shown) == [
            "title",
            "fields",
            "digest",
            "state",
            "stage",
            "votes",
            "waiting_for",
            "unresolved",
            "handovers",
            "comments",
            "claimed_by",
            "snoozes",
            "deadline",
            "outcome",
            "deliveries",
            "follow_ups",
        ]
        assert shown["votes"] == [
            {"by": BO, "choice": "approve", "comment": "fine", "at": "2026-03-02T09:00:00Z", "via": "email"}
        ]
        assert shown["waiting_for"] == [ANN, CY, DI]
        assert (shown["state"], shown["stage"], shown["outcome"]) == ("waiting", "go", None)
        assert shown["deadline"] == "2026-03-02T13:00:00Z"
        assert shown["deliveries"][0] == {
            "to": "#deploys",
            "channel": "slack",
            "state": "delivered",
            "attempts": 1,
            "error": None,
            "uncertain": False,
            "retried": None,
        }


async def test_a_rule_decides_without_people(office: Any) -> None:
    async with office.open():
        opened = await office.ask(fields={**RISKY, "env": "staging", "risk": "low"}, by="app:ci")
        record = await opened.record()
        assert record.status == "completed", record
        assert (record.result["by"], record.result["approved"]) == ("rule:1", True)
        assert office.slack.sent == office.email.sent == []
        view = await opened.view()
        assert view.rules[0].values == {"env": "staging", "risk": "low"}
        assert view.outcome.because == "the risk is low (staging, not high)"


# ── eligibility ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_refused_and_repeated_votes_change_nothing(office: Any) -> None:
    async with office.open():
        opened = await office.ask(fields=RISKY, by=BO)
        before = await opened.view()
        assert await opened.vote("eve@else.eu") == "not_an_approver"
        assert await opened.act(kind="vote", by=BO, choice="approve") == {
            "verdict": "own_request",
            "text": "You can't approve your own request.",
            "changed": False,
        }
        assert await opened.vote(ANN, "reject", comment="") == "invalid"
        after = await opened.view()
        assert (after.votes, after.version) == (before.votes, before.version)
        said = await opened.act(kind="vote", by=ANN, choice="approve")
        assert said["text"] == "Counted: 1 of 3. Waiting for two more from SRE."
        assert await opened.vote(ANN) == "already_voted"
        assert await opened.vote(CY) == "counted"
        assert await opened.vote(CY, "take_back") == "taken_back"
        assert await opened.votes((CY, "approve"), (DI, "approve")) == ["counted", "decided"]


async def test_two_simultaneous_opposite_votes_have_one_winner(office: Any) -> None:
    async with office.open():
        opened = await office.ask()
        verdicts = await opened.votes((ANN, "approve"), (BO, "reject"), (CY, "approve"))
        assert sorted(verdicts) == ["already_decided", "already_decided", "decided"]
        assert (await opened.record()).status == "completed"


async def test_a_vote_is_refused_while_its_group_cannot_be_read(office: Any) -> None:
    stage = 'from = ["@live"]\nneed = 2'
    async with office.open():
        opened = await office.ask(one_stage(stage), BUY)
        office.live.people = [ANN, BO]
        assert await opened.vote(CY) == "not_an_approver"
        assert await opened.vote(ANN) == "counted"
        office.live.is_down = True
        assert await opened.vote(BO) == "group_unknown"
        assert (await opened.view()).stages[0].seats[0].known is False
        office.live.is_down = False
        assert await opened.vote(BO) == "decided"


async def test_a_former_members_vote_counts_only_with_at_click(office: Any) -> None:
    stage = 'from = ["@live"]\nneed = 2'
    for recheck, expected in (("at-click", "decided"), ("at-quorum", "counted")):
        office.live.people = [ANN, BO, CY]
        async with office.open():
            opened = await office.ask(one_stage(stage, f'[policy]\nrecheck = "{recheck}"'), BUY)
            assert await opened.vote(ANN) == "counted"
            office.live.people = [BO, CY]
            assert await opened.vote(BO) == expected


async def test_cards_go_out_once_unknown_people_are_resolved(office: Any) -> None:
    office.live.is_down = True
    async with office.open():
        opened = await office.ask(one_stage('from = ["@live"]', "[deliver]\nemail = true"), BUY)
        assert (await opened.view()).waiting_for == ()
        office.live.is_down = False
        await office.clock.advance("5s")
        assert [len(office.email.to(address)) for address in (BO, CY)] == [1, 1]
        assert await opened.vote(BO) == "decided"


async def test_an_undecidable_request_fails_at_once_with_the_reason(office: Any) -> None:
    async with office.open():
        opened = await office.ask(one_stage(f'from = ["{DI}"]'), BUY, by=DI)
        record = await opened.record()
        assert (record.status, record.error["type"]) == ("failed", "NobodyCanDecideError")
        assert "nobody can approve" in record.error["message"]


# ── content ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_edit_resets_votes_and_invalidates_old_cards(office: Any) -> None:
    async with office.open():
        opened = await office.ask(fields=RISKY, by="app:ci")
        old = (await opened.view()).digest
        assert await opened.vote(ANN, digest=old) == "counted"
        said = await opened.act(kind="edit", by="app:ci", fields={"version": "2.2"})
        assert (said["verdict"], said["changed"]) == ("edited", True)
        view = await opened.view()
        assert (view.title, view.waiting_for) == ("Deploy api 2.2 to prod", (ANN, BO, CY, DI))
        assert [vote.counts for vote in view.votes] == [False]
        assert await opened.vote(ANN, digest=old) == "request_changed"
        assert [mail.occasion for mail in office.email.to(ANN)] == ["request", "change"]
        assert [field.was for field in office.slack.newest("#deploys").card.fields if field.name == "version"] == [
            "2.1"
        ]
        assert await opened.vote(ANN, digest=view.digest) == "counted"


async def test_only_the_requester_edits_and_only_with_valid_values(office: Any) -> None:
    async with office.open():
        opened = await office.ask(by=DI)
        for by, fields, verdict in (
            (ANN, {"version": "9"}, "not_an_approver"),
            (DI, {"env": "moon"}, "invalid"),
            (DI, {"nonsense": "9"}, "invalid"),
            (DI, {"version": "2.1"}, "invalid"),
        ):
            said = await opened.act(kind="edit", by=by, fields=fields)
            assert (said["verdict"], said["changed"]) == (verdict, False)
        assert (await opened.view()).version == (await opened.view()).version


async def test_a_rule_can_decide_an_edited_request(office: Any) -> None:
    async with office.open():
        opened = await office.ask(by=DI)
        assert (await opened.act(kind="edit", by=DI, fields={"env": "staging"}))["verdict"] == "edited"
        assert (await opened.record()).result["by"] == "rule:1"


# ── the end ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_withdrawn_request_is_cancelled_on_every_copy(office: Any) -> None:
    async with office.open():
        opened = await office.ask()
        assert (await opened.act(kind="withdraw", by=ANN))["verdict"] == "not_an_approver"
        said = await opened.act(kind="withdraw", by=DI, reason="not needed")
        assert (said["text"], said["changed"]) == ("Withdrawn. Everyone involved has been notified.", True)
        record, view = await opened.record(), await opened.view()
        assert (record.status, view.state, view.outcome.outcome) == ("cancelled", "withdrawn", "cancelled")
        assert office.slack.newest("#deploys").card.state == "withdrawn"
        assert late_reply(view, Vote(ANN), office.clock.now()).verdict == "withdrawn"


async def test_late_votes_are_answered_with_who_decided_and_when(office: Any) -> None:
    async with office.open():
        opened = await office.ask()
        await opened.vote(BO)
        view = await opened.view()
        reply = late_reply(view, Vote(ANN, "reject"), office.clock.now())
        assert reply.verdict == "already_decided"
        assert reply.text == "Already decided by Bo Lund at 10:00. Nothing was changed."
        again = late_reply(view, Vote(BO), office.clock.now())
        assert (again.verdict, "by Bo Lund at 09:00 UTC" in again.text) == ("already_voted", True)


async def test_a_deadline_rejects_and_leaves_no_timer(office: Any) -> None:
    async with office.open():
        opened = await office.ask()
        await office.clock.advance("4h")
        record = await opened.record()
        assert (record.status, record.result["decision"], record.result["by"]) == ("completed", "rejected", "deadline")
        outcome = (await opened.view()).outcome
        assert outcome is not None
        assert outcome.because == "Stage “Go” wasn't decided in time."
        await office.clock.advance("30d")
        assert (await opened.record()).result == record.result


async def test_a_timely_vote_cancels_the_deadline(office: Any) -> None:
    async with office.open():
        opened = await office.ask()
        await office.clock.advance("3h 59m")
        assert await opened.vote(ANN) == "decided"
        await office.clock.advance("1d")
        assert (await opened.record()).result["by"] == ANN


async def test_reminders_go_to_people_who_owe_a_vote(office: Any) -> None:
    async with office.open():
        opened = await office.ask(fields=RISKY)
        await opened.vote(ANN)
        await office.clock.advance("30m")
        reminded = [mail.to.person.address for mail in office.email.sent if mail.occasion == "reminder"]
        assert reminded == [BO, CY]
        assert [note.occasion for note in office.slack.to("#deploys")] == ["request", "reminder"]


async def test_an_escalation_adds_approvers(office: Any) -> None:
    stage = f'from = ["{ANN}"]'
    more = '[deliver]\nemail = true\n[[escalate]]\nafter = "1h"\nto = ["oncall:sre"]'
    async with office.open():
        opened = await office.ask(one_stage(stage, more), BUY, by=BO)
        assert await opened.vote(DI) == "not_an_approver"
        await office.clock.advance("1h")
        assert [mail.occasion for mail in office.email.to(DI)] == ["escalation"]
        assert (await opened.view()).waiting_for == (ANN, DI)
        assert await opened.vote(DI) == "decided"


async def test_an_escalation_can_replace_approvers_at_the_deadline(office: Any) -> None:
    stage = f'from = ["{BO}"]'
    more = """
[deliver]
dm = true
[clock]
deadline = "3d"
on_deadline = "escalate"
[[escalate]]
after = "3d"
to = ["manager-of:approver"]
mode = "replace"
"""
    async with office.open():
        opened = await office.ask(one_stage(stage, more), BUY, by=CY)
        await office.clock.advance("3d")
        view = await opened.view()
        assert (view.state, view.waiting_for, view.deadline - view.asked_at) == ("waiting", (ANN,), timedelta(days=6))
        assert office.slack.newest(BO).card.choices == ()
        assert await opened.vote(BO) == "not_an_approver"
        await office.clock.advance("3d")
        assert (await opened.record()).result["decision"] == "expired"


# ── channels ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_dead_channel_delays_neither_vote_nor_decision(office: Any) -> None:
    office.slack.answer = lambda dispatch: TryAgain("Slack is down")
    async with office.open():
        opened = await office.ask()
        assert await opened.vote(ANN) == "decided"
        record, view = await opened.record(), await opened.view()
        assert (record.status, view.state) == ("running", "approved")
        channel = view.deliveries[0]
        assert (channel.to, channel.state, channel.error) == ("#deploys", "retrying", "Slack is down")
        office.slack.answer = lambda dispatch: None
        await office.clock.advance("1m")
        assert [card.card.state for card in office.slack.to("#deploys")] == ["approved"]
        assert (await opened.record()).status == "completed"


async def test_retries_start_within_five_seconds_and_back_off(office: Any) -> None:
    tried: list[Any] = []

    def down(dispatch: Dispatch) -> Result:
        tried.append(office.clock.now())
        return TryAgain("Slack is down")

    office.slack.answer = down
    async with office.open():
        opened = await office.ask()
        await office.clock.advance("3h 50m")
        gaps = [(after - before).total_seconds() for before, after in pairwise(tried)]
        assert gaps[0] <= 5
        assert 400 <= max(gaps) <= 900
        assert gaps[-1] > gaps[0]
        await office.clock.advance("9m")
        channel = (await opened.view()).deliveries[0]
        assert channel.attempts == len(tried)


async def test_retry_after_is_respected(office: Any) -> None:
    wishes = [TryAgain("rate limited", timedelta(seconds=30))]
    office.slack.answer = lambda dispatch: wishes.pop() if wishes else None
    async with office.open():
        await office.ask()
        await office.clock.advance("29s")
        assert office.slack.sent == []
        await office.clock.advance("1s")
        assert len(office.slack.sent) == 1


async def test_a_refused_place_falls_back_to_its_people(office: Any) -> None:
    more = '[deliver]\nslack = "#deploys"'

    def refuse(dispatch: Dispatch) -> Result | None:
        return Refused("not_in_channel") if dispatch.to.kind == "place" else None

    office.slack.answer = refuse
    async with office.open():
        opened = await office.ask(one_stage('from = ["@release-managers"]', more), BUY)
        assert [len(office.slack.to(address)) for address in (ANN, BO, CY)] == [1, 1, 1]
        states = {copy.to: copy.state for copy in (await opened.view()).deliveries}
        assert states["#deploys"] == "not_delivered"
        assert any(copy.state == "not_delivered" for copy in office.slack.to(ANN)[0].card.deliveries)


async def test_people_without_slack_get_mail(office: Any) -> None:
    def nobody(dispatch: Dispatch) -> Result | None:
        return Refused("nobody has this address", "no_account") if dispatch.to.person.slack is None else None  # type: ignore[union-attr]

    office.slack.answer = nobody
    async with office.open():
        opened = await office.ask(one_stage(f'from = ["{ANN}", "{CY}"]', "[deliver]\ndm = true"), BUY)
        assert (len(office.slack.to(ANN)), len(office.email.to(ANN))) == (1, 0)
        assert (len(office.slack.to(CY)), len(office.email.to(CY))) == (0, 1)
        await opened.vote(ANN)
        assert [mail.occasion for mail in office.email.to(CY)] == ["request", "outcome"]


async def test_a_delayed_mail_is_sent_only_if_nobody_has_voted(office: Any) -> None:
    text = one_stage('from = ["@release-managers"]\nneed = 2', '[deliver]\ndm = true\nemail = "after 10m"')
    async with office.open():
        quiet, busy = await office.ask(text, BUY), await office.ask(text, {"what": "a desk"})
        await busy.vote(ANN)
        await office.clock.advance("10m")
        assert {mail.card.run_id for mail in office.email.sent} == {quiet.run.id}


async def test_an_uneditable_message_gets_a_reply_in_its_thread(office: Any) -> None:
    office.slack.answer_update = lambda dispatch: Refused("cant_update_message")
    async with office.open():
        opened = await office.ask()
        await opened.vote(ANN)
        _, reply = office.slack.to("#deploys")
        assert (reply.thread.place, reply.card.state, reply.occasion) == ("#deploys", "approved", "outcome")
        assert (await opened.record()).status == "completed"


async def test_a_deleted_message_is_posted_again(office: Any) -> None:
    def gone(dispatch: Dispatch) -> Result | None:
        return Refused("message_not_found") if dispatch.thread is not None else None

    office.slack.answer = gone
    office.slack.answer_update = lambda dispatch: Refused("message_not_found")
    async with office.open():
        opened = await office.ask(fields=RISKY)
        await opened.vote(ANN)
        assert [card.card.have for card in office.slack.to("#deploys")] == [0, 1]


async def test_a_slow_channel_does_not_delay_the_others(office: Any) -> None:
    answered = asyncio.Event()
    send = office.slack.send

    async def slow(dispatch: Dispatch) -> Result:
        await answered.wait()
        return await send(dispatch)  # type: ignore[no-any-return]

    office.slack.send = slow
    async with office.open():
        run = await office.engine.start(*_listed(office))
        while (record := await office.engine.record(run.id)) is None or not record.parts or not office.email.sent:
            await asyncio.sleep(0.01)
        hook = await office.engine.find_hook(record.parts[0]["hook_id"])
        answer = await office.engine.resume_webhook(
            hook.token, WebhookRequest.of_json({"kind": "vote", "by": ANN, "choice": "approve"}), timeout=10
        )
        assert b'"decided"' in bytes(answer.body)
        assert (await office.engine.record(run.id)).parts[0]["state"] == "approved"
        answered.set()
        assert (await run.wait(10)).status == "completed"


def _listed(office: Any) -> Any:
    text = one_stage('from = ["@release-managers"]', '[deliver]\nslack = "#buys"\nemail = true')
    return approval.under("small", tomllib.loads(text)), Opening(BUY, DI)  # type: ignore[arg-type]


# ── follow-ups ──────────────────────────────────────────────────────────────────────────────────────────────────

WITH_FOLLOW_UPS = """
[deliver]
email = true
[[on.approved]]
http = "shop"
json = { what = "{{ what }}", digest = "{{ request.digest }}", by = "{{ decision.by }}" }
[[on.rejected]]
slack = "#releases"
text = "{{ decision.by }} said no: {{ decision.comment }}"
[[on.ended]]
dm = "requester"
text = "{{ request.title }}: {{ decision.outcome }}"
"""


async def test_calls_are_retried_with_the_same_event_id(office: Any) -> None:
    office.targets.answers = [TryAgain("it answered 503"), TryAgain("it answered 503")]
    async with office.open():
        opened = await office.ask(one_stage(f'from = ["{ANN}"]', WITH_FOLLOW_UPS), BUY)
        await opened.vote(ANN)
        assert (await opened.view()).follow_ups[0].state == "retrying"
        await office.clock.advance("30s")
        record, view = await opened.record(), await opened.view()
        assert (record.status, view.follow_ups[0].state, view.follow_ups[0].attempts) == ("completed", "done", 3)
        assert card_text.follow_up(view.follow_ups[0]) == "✓ shop called: 200, third try"
        assert len({event for _, event, _ in office.targets.calls}) == 1
        assert office.targets.calls[0][2] == {"what": "a chair", "digest": view.digest, "by": ANN}


async def test_a_follow_up_that_fails_is_shown_on_the_request(office: Any) -> None:
    office.targets.answers = [TryAgain("it answered 503"), Refused("it answered 404")]
    async with office.open():
        opened = await office.ask(one_stage(f'from = ["{ANN}"]', WITH_FOLLOW_UPS), BUY)
        await opened.vote(ANN)
        wait = card_text.troubles(card_of(await opened.view(), None, office.clock.now()))
        assert wait == ["⚠ Follow-up will be retried: call shop: it answered 503"]
        await office.clock.advance("30s")
        view = await opened.view()
        troubles = card_text.troubles(card_of(view, None, office.clock.now()))
        assert troubles == ["⚠ Follow-up failed: call shop: it answered 404"]
        assert api_request(view)["follow_ups"][0] == {
            "what": "call shop",
            "state": "failed",
            "attempts": 2,
            "error": "it answered 404",
        }


async def test_follow_up_messages_name_people(office: Any) -> None:
    async with office.open():
        opened = await office.ask(one_stage(f'from = ["{ANN}"]', WITH_FOLLOW_UPS), BUY)
        await opened.vote(ANN, "reject", comment="too dear")
        assert [note.text for note in office.slack.to("#releases")] == ["Ann Ode said no: too dear"]
        assert [note.text for note in office.slack.to(DI)] == ["Buy a chair: rejected"]
        assert office.targets.calls == []


# ── crashes ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_simultaneous_withdrawal_and_vote_both_get_replies(office: Any) -> None:
    async with office.open():
        opened = await office.ask()
        said = await asyncio.gather(
            opened.act(kind="withdraw", by=DI), opened.act(kind="vote", by=ANN, choice="approve")
        )
        words = [one["verdict"] for one in said]
        assert words in (["taken_back", "withdrawn"], ["already_decided", "decided"])


async def test_a_vote_at_the_deadline_is_answered_with_the_outcome(office: Any) -> None:
    async with office.open():
        opened = await office.ask()
        _, word = await asyncio.gather(office.clock.advance("4h"), opened.vote(ANN))
        result = (await opened.record()).result
        assert (word, result["by"]) in (("decided", ANN), ("already_decided", "deadline"))


async def test_people_without_slack_get_mail_in_every_stage(office: Any) -> None:
    office.slack.answer = lambda dispatch: Refused("nobody has this address", "no_account")
    more = f'[[stage]]\nid = "again"\nfrom = ["{CY}"]\n[deliver]\ndm = true'
    async with office.open():
        opened = await office.ask(one_stage(f'from = ["{CY}"]', more), BUY)
        assert await opened.vote(CY) == "counted"
        assert [mail.occasion for mail in office.email.to(CY)] == ["request", "request"]
        assert [(copy.to, copy.channel, copy.state) for copy in (await opened.view()).deliveries] == [
            (CY, "email", "delivered")
        ]
        assert await opened.vote(CY) == "decided"


async def test_every_prefix_of_a_log_replays_to_its_next_events(office: Any) -> None:
    async with office.open():
        opened = await office.ask(fields=RISKY, by="app:ci")
        await opened.vote(ANN)
        await office.clock.advance("31m")
        await opened.act(kind="edit", by="app:ci", fields={"version": "2.2"})
        await opened.votes((ANN, "approve"), (BO, "approve"), (CY, "approve"))
        log = await opened.run.events()
        code = registry.get("approval", None)
        assert log[-1].type == "run_completed"
        for length in range(1, len(log) + 1):
            replay(code, log[:length], link=lambda hook_id: hook_id)


async def test_a_restart_between_card_and_click_changes_nothing(office: Any) -> None:
    async with office.open():
        opened = await office.ask(fields=RISKY)
        await opened.vote(ANN)
    async with office.open():
        assert await opened.vote(ANN) == "already_voted"
        assert await opened.votes((CY, "approve"), (BO, "approve")) == ["counted", "decided"]
        assert (await opened.record()).status == "completed"
    assert len(office.slack.to("#deploys")) == 1


async def test_every_reader_has_their_own_choices(office: Any) -> None:
    async with office.open():
        opened = await office.ask(fields=RISKY, by=BO)
        view, now = await opened.view(), office.clock.now()
        assert [choice.choice for choice in card_of(view, ANN, now).choices] == ["approve", "reject"]
        assert card_of(view, BO, now).choices == ()
        assert card_of(view, ANN, now).why_me == "You're an approver because you're in Release managers."
        await opened.vote(ANN)
        assert [choice.choice for choice in card_of(await opened.view(), ANN, now).choices] == ["reject", "take_back"]


@pytest.mark.parametrize("text", ["", "[]", '{"kind": "vote"}', '{"kind": "dance", "by": "ann@acme.eu"}'])
async def test_an_unreadable_message_changes_nothing(office: Any, text: str) -> None:
    async with office.open():
        opened = await office.ask()
        hook = await office.engine.find_hook((await opened.view()).hook_id)
        answer = await office.engine.resume_webhook(hook.token, WebhookRequest("POST", "", [], text.encode()))
        assert b'"invalid"' in bytes(answer.body)
        assert (await opened.view()).state == "waiting"
