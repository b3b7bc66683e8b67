"""Comments, claims, reminders and snoozes from Slack: a card's buttons, and replies in its thread."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from approvals_bot.approvals.grant_life import GrantLines
from approvals_bot.approvals.port import Targets
from approvals_bot.approvals.request import Request
from approvals_bot.channels.slack.talk import HELP, is_from_people, plain_of
from approvals_bot.people import People
from tests.support.slack_office import PEOPLE, Office
from tests.web.test_grants_api import Recording

ANN, BO = "ann@acme.eu", "bo@acme.eu"


async def view_of(office: Office, run_id: str) -> Request:
    record = await office.engine.record(run_id)
    assert record is not None
    return Request.model_validate(record.parts[0])


async def reply(office: Office, user: str, text: str, **more: Any) -> dict[str, Any]:
    """Write below the card."""
    where = {"channel": office.card.channel, "thread_ts": office.card.ts} | more
    return dict(await office.call("/slack/write", {"user": user, "text": text, **where}))


async def comments(office: Office, run_id: str) -> list[tuple[str, str]]:
    await office.engine.settle()
    return [(made.act.by, made.act.text) for made in (await view_of(office, run_id)).comments]


async def test_a_reply_in_the_thread_is_a_comment(office: Office) -> None:
    run_id = await office.ask()
    text = "Why <@U0BO>? See <https://acme.eu/x|the plan> &amp; <!channel>"
    assert (await reply(office, "U0ANN", text))["status"] == 200
    shown = "Why @Bo Lund? See the plan (https://acme.eu/x) & @channel"
    assert await comments(office, run_id) == [(ANN, shown)]
    await office.until(lambda: shown in json.dumps(office.card.blocks, ensure_ascii=False))
    in_thread = [one for one in office.cards if one.thread_ts == office.card.ts]
    assert [one.user for one in in_thread] == ["U0ANN"], "it isn't said twice where it was written"
    direct = [one for one in office.cards if one.channel != office.card.channel]
    await office.until(lambda: any(one.channel != office.card.channel for one in office.cards))
    direct = [one for one in office.cards if one.channel != office.card.channel]
    assert shown in json.dumps(direct[0].blocks, ensure_ascii=False), "Bo asked, so they get it directly"
    assert "<!channel>" not in json.dumps([one.blocks for one in direct])


async def test_a_colleague_who_sees_the_card_comments(office: Office) -> None:
    run_id = await office.ask()
    await reply(office, "U0DI", "I know that service.")
    assert await comments(office, run_id) == [("di@acme.eu", "I know that service.")]


async def test_a_repeated_event_is_one_comment(office: Office) -> None:
    run_id = await office.ask()
    sent = await reply(office, "U0ANN", "Why?")
    payloads = office.playground.person.payloads
    user = office.playground.person.screen.user("U0ANN")
    message = office.playground.workspace.messages[sent["channel"], sent["ts"]]
    for _ in range(2):
        again = payloads.written(user, message, office.card)
        assert (await office.playground.person.outbound.deliver("events_api", again)).ok
    assert await comments(office, run_id) == [(ANN, "Why?")]


async def test_other_messages_are_no_comments(office: Office) -> None:
    run_id = await office.ask()
    await reply(office, "U0ANN", "At the top", thread_ts="")
    top = next(one for one in office.cards if one.text == "At the top")
    await reply(office, "U0BO", "In its thread", thread_ts=top.ts)
    for guest in ("U0GUEST", "U0STRANGER"):
        office.invite(guest)
        await reply(office, guest, "Let me in")
    assert await comments(office, run_id) == []
    assert office.ephemerals("U0GUEST") == [], "nobody asked them anything"


async def test_a_direct_message_is_answered_with_help(office: Office) -> None:
    await office.ask()
    await reply(office, "U0ANN", "approve", channel="U0ANN", thread_ts="")
    await office.until(lambda: bool(office.ephemerals("U0ANN")))
    assert office.ephemerals("U0ANN")[-1].text == HELP


async def test_a_reply_after_the_end_is_left_alone(office: Office) -> None:
    run_id = await office.ask()
    await office.press("U0ANN", "Approve")
    await office.ended(run_id)
    before = len(office.ephemerals("U0ANN"))
    assert (await reply(office, "U0ANN", "Thanks!"))["status"] == 200
    assert await comments(office, run_id) == []
    assert len(office.ephemerals("U0ANN")) == before


async def test_twenty_replies_an_hour_are_comments(office: Office) -> None:
    run_id = await office.ask()
    for number in range(21):
        await reply(office, "U0ANN", f"Thought {number}")
    assert len(await comments(office, run_id)) == 20
    await office.until(lambda: bool(office.ephemerals("U0ANN")))
    assert office.ephemerals("U0ANN")[-1].text.startswith("You've written 20 comments in the last hour.")


async def test_slack_repeats_a_reply_it_couldnt_explain(office: Office) -> None:
    run_id = await office.ask()
    office.fault("error", "conversations.replies", error="internal_error", times=1)
    assert (await reply(office, "U0ANN", "Why?"))["status"] == 503
    async with asyncio.timeout(60):
        while await comments(office, run_id) != [(ANN, "Why?")]:
            await asyncio.sleep(0.01)


async def test_a_card_has_the_other_buttons(office: Office) -> None:
    run_id = await office.ask()
    answer = await office.press("U0ANN", "I'm on it")
    assert answer["ephemeral"] == "You're on it, and everybody can see that. It's no vote yet."
    await office.until(lambda: "✋ Ann Ode is on it." in json.dumps(office.card.blocks, ensure_ascii=False))
    said = (await office.press("U0ANN", "Snooze 1 h"))["ephemeral"]
    assert said.startswith("No reminders for you until ")
    assert (await office.press("U0BO", "Snooze until tomorrow"))["ephemeral"].startswith("Nobody is waiting for your")
    assert (await office.press("U0ANN", "Remind now"))["ephemeral"].startswith("Only the requester can do this.")
    assert (await office.press("U0BO", "Remind now"))["ephemeral"] == "Reminded Cy Rus."
    view = await view_of(office, run_id)
    assert (view.claimed_by, [*view.snoozes]) == (ANN, [ANN])
    await office.press("U0ANN", "Approve")
    await office.ended(run_id)


async def test_a_grant_ends_by_a_button_of_its_card(office: Office) -> None:
    office.engine.resources |= {Targets: Recording(), GrantLines: GrantLines()}
    call = {"http": "aws"}
    run_id = await office.ask(grant={"lasts": "2h", "max": "4h", "give": call, "take": call, "extend": "ask"})
    await office.press("U0ANN", "Approve")
    await office.until(lambda: "End it now" in json.dumps(office.card.blocks))
    assert (await office.press("U0DI", "End it now"))["ephemeral"].startswith("Only the requester, approvers,")
    assert (await office.press("U0ANN", "Extend 1 h"))["ephemeral"].startswith("Only the requester can do this.")
    assert (await office.press("U0BO", "Extend 1 h"))["ephemeral"].startswith("The approvers are asked")
    assert (await office.press("U0ANN", "End it now"))["ephemeral"] == "The grant ends now and is being removed."
    await office.until(lambda: "Revoked by Ann Ode" in json.dumps(office.card.blocks))
    await office.ended(run_id)


@pytest.mark.parametrize(
    ("event", "is_ours"),
    [
        ({"user": "U0ANN"}, True),
        ({"user": "U0ANN", "subtype": "thread_broadcast"}, True),
        ({"user": "U0ANN", "subtype": "message_changed"}, False),
        ({"user": "U0ANN", "subtype": "message_deleted"}, False),
        ({"user": "U0ANN", "subtype": "channel_join"}, False),
        ({"user": "U0ANN", "edited": {"user": "U0ANN"}}, False),
        ({"user": "U0ANN", "hidden": True}, False),
        ({"user": "U0APP", "bot_id": "B0APP"}, False),
        ({"subtype": "bot_message", "bot_id": "B0APP"}, False),
        ({}, False),
    ],
)
def test_only_what_people_write_counts(event: dict[str, Any], is_ours: bool) -> None:
    assert is_from_people(event) is is_ours


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("<@U0ANN> and <@U0XX|xx> and <@U0YY>", "@Ann Ode and @xx and @U0YY"),
        ("<#C1|deploys> <#C2>", "#deploys #C2"),
        ("<!here> <!subteam^S1|@sre> <!date^1^{date}|today>", "@here @sre today"),
        ("<https://acme.eu> <mailto:a@b.eu|a@b.eu>", "https://acme.eu a@b.eu (mailto:a@b.eu)"),
        ("1 &lt; 2 &amp;&amp; &lt;!channel&gt;", "1 < 2 && <!channel>"),
        ("a < b <", "a < b <"),
    ],
)
def test_slacks_text_is_read_as_people_see_it(text: str, plain: str) -> None:
    assert plain_of(text, People(PEOPLE, {})) == plain
