"""The Slack channel with the real slack_sdk against the fake Slack: posts, refusals, no duplicates."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from approvals_bot.approvals.card_model import Card, CardOutcome
from approvals_bot.approvals.port import Delivered, Dispatch, Place, Receipt, Refused, ToPerson, TryAgain
from approvals_bot.channels.slack.client import NeverError
from approvals_bot.channels.slack.post import NAME_MEMORY, SlackOut
from approvals_bot.channels.slack.reasons import NO_PERSON, OUTSIDER, REASONS, REFUSED, REVOKED, reason_of
from approvals_bot.channels.slack.updates import UPDATE_EVERY
from approvals_bot.people import Person, SourceUnavailable
from approvals_bot.playground import SeedChannel, User
from approvals_bot.playground.slack.calls import METHODS
from approvals_bot.playground.slack.shapes import Kind
from tests.support.fake_slack import Ticks

if TYPE_CHECKING:
    from tests.channels.conftest import Stage

DEPLOYS = Place("slack", "C0DEPLOYS")


async def test_a_card_is_posted_in_its_place_and_updated_there(stage: Stage, card: Card, outcome: CardOutcome) -> None:
    sent = await stage.out.send(Dispatch("d1", Place("slack", "#deploys"), card))
    assert sent == Delivered(Receipt("C0DEPLOYS", str(stage.messages[0]["ts"]), 3))
    decided = replace(card, state="approved", outcome=outcome, choices=(), version=4)
    assert isinstance(sent, Delivered)
    updated = await stage.out.update(sent.receipt, Dispatch("d1", Place("slack", "#deploys"), decided))
    assert updated == Delivered(replace(sent.receipt, version=4))
    (message,) = stage.messages
    assert "Approved by Ann Ode" in str(message["text"])
    assert '"actions"' not in json.dumps(message["blocks"])


async def test_links_are_not_unfurled_and_the_delivery_can_be_found_again(stage: Stage, card: Card) -> None:
    await stage.out.send(Dispatch("d1", DEPLOYS, card))
    history = await stage.client.ask("conversations.history", get=True, channel="C0DEPLOYS", include_all_metadata=True)
    metadata = history["messages"][0]["metadata"]
    assert metadata == {"event_type": "approvals_bot_delivery", "event_payload": {"delivery_id": "d1"}}


@pytest.mark.parametrize("slack", ["U0ANN", None])
async def test_a_person_gets_a_direct_message_by_id_or_by_address(stage: Stage, card: Card, slack: str | None) -> None:
    to = ToPerson("slack", Person("ann@acme.eu", "Ann Ode", slack))
    sent = await stage.out.send(Dispatch("d1", to, card))
    assert isinstance(sent, Delivered)
    assert sent.receipt.place == "D0ANN"


async def test_people_without_slack_are_refused_so_mail_can_take_over(stage: Stage, card: Card) -> None:
    answer = await stage.out.send(Dispatch("d1", ToPerson("slack", Person("fin@acme.eu", "Fin")), card))
    assert answer == Refused(NO_PERSON, "no_account")


@pytest.mark.parametrize("slack", [None, "U0CY"])
@pytest.mark.parametrize("kind", ["single_channel_guest", "stranger"])
async def test_a_guest_hears_the_outcome_in_slack_but_votes_by_mail(
    stage: Stage, card: Card, outcome: CardOutcome, monkeypatch: pytest.MonkeyPatch, slack: str | None, kind: Kind
) -> None:
    """A guest's press is refused, so their buttons would be no use, also if `[people]` has their Slack id."""
    space = stage.playground.workspace
    monkeypatch.setitem(space.users, "U0CY", replace(space.users["U0CY"], kind=kind))
    space.by_address["cy@acme.eu"] = space.users["U0CY"]
    cy = Person("cy@acme.eu", "Cy Rus", slack)
    if slack is None and kind == "stranger":
        return  # lookupByEmail doesn't know people of other workspaces
    assert await stage.out.send(Dispatch("d1", ToPerson("slack", cy), card)) == Refused(OUTSIDER, "no_account")
    asked = await stage.out.send(Dispatch("d2", DEPLOYS, card, mention=(cy,)))
    assert isinstance(asked, Delivered)
    assert asked.missed == ("cy@acme.eu",)
    decided = replace(card, state="approved", outcome=outcome, choices=())
    assert isinstance(await stage.out.send(Dispatch("d3", ToPerson("slack", cy), decided, "outcome")), Delivered)


@pytest.mark.check(30)
@pytest.mark.parametrize(("channel", "said"), [("#nowhere", "there is no such channel"), ("#old", "is archived")])
async def test_a_conversation_closed_to_us_is_refused_for_good(
    stage: Stage, card: Card, channel: str, said: str
) -> None:
    answer = await stage.out.send(Dispatch("d1", Place("slack", channel), card))
    assert isinstance(answer, Refused)
    assert said in answer.error
    assert not answer.install


async def test_a_re_created_channel_is_found_by_its_name(stage: Stage, card: Card) -> None:
    to = Place("slack", "#deploys")
    assert isinstance(await stage.out.send(Dispatch("d1", to, card)), Delivered)
    stage.fault("error", "chat.postMessage", error="is_archived")  # the one whose id we know
    stage.monotonic.at += 1
    assert isinstance(await stage.out.send(Dispatch("d2", to, card)), Delivered)
    posts = [call.arguments["channel"] for call in stage.playground.web_api.seen if call.method == "chat.postMessage"]
    assert (posts[0], posts[1][:1], posts[2]) == ("#deploys", "C", "#deploys")
    stage.fault("error", "chat.postMessage", error="is_archived", times=None)
    stage.monotonic.at += 1
    assert await stage.out.send(Dispatch("d3", to, card)) == Refused("the channel is archived")


async def test_a_renamed_channels_name_may_mean_another(stage: Stage, card: Card) -> None:
    to = Place("slack", "#deploys")
    assert isinstance(await stage.out.send(Dispatch("d1", to, card)), Delivered)
    for wait in (1.0, NAME_MEMORY):
        stage.monotonic.at += wait
        assert isinstance(await stage.out.send(Dispatch(f"d{wait}", to, card)), Delivered)
    posts = [call.arguments["channel"] for call in stage.playground.web_api.seen if call.method == "chat.postMessage"]
    assert posts == ["#deploys", "C0DEPLOYS", "#deploys"]


async def test_a_closed_direct_conversation_is_opened_again(stage: Stage, card: Card) -> None:
    to = ToPerson("slack", Person("ann@acme.eu", "Ann Ode", "U0ANN"))
    assert isinstance(await stage.out.send(Dispatch("d1", to, card)), Delivered)
    stage.fault("error", "chat.postMessage", error="channel_not_found")
    stage.monotonic.at += 1
    assert isinstance(await stage.out.send(Dispatch("d2", to, card)), Delivered)
    assert [call.method for call in stage.playground.web_api.seen].count("conversations.open") == 2


@pytest.mark.check(31)
async def test_a_revoked_token_affects_the_whole_installation(stage: Stage, card: Card) -> None:
    stage.fault("error", "chat.postMessage", error="token_revoked")
    assert await stage.out.send(Dispatch("d1", DEPLOYS, card)) == Refused(REVOKED, "install")


@pytest.mark.check(27)
async def test_a_rate_limit_delays_only_its_method_and_channel(
    stage: Stage, card: Card, caplog: pytest.LogCaptureFixture
) -> None:
    stage.fault("rate_limited", "chat.postMessage", retry_after=60)
    assert await stage.out.send(Dispatch("d1", DEPLOYS, card)) == TryAgain(
        "Slack asks us to wait", timedelta(seconds=60)
    )
    assert "Slack limits chat.postMessage: nothing is sent by it for 60 s" in caplog.text
    calls = len(stage.playground.web_api.space.messages)
    again = await stage.out.send(Dispatch("d1", DEPLOYS, card))
    assert isinstance(again, TryAgain)
    assert len(stage.playground.web_api.space.messages) == calls
    other = await stage.out.send(Dispatch("d2", ToPerson("slack", Person("ann@acme.eu", "Ann", "U0ANN")), card))
    assert isinstance(other, Delivered)
    stage.monotonic.at += 61
    assert isinstance(await stage.out.send(Dispatch("d1", DEPLOYS, card)), Delivered)


@pytest.mark.check(29)
@pytest.mark.parametrize("kind", ["drop_after", "truncated"])
async def test_a_post_whose_answer_was_lost_is_found_not_repeated(stage: Stage, card: Card, kind: str) -> None:
    stage.fault(kind, "chat.postMessage")
    assert isinstance(await stage.out.send(Dispatch("d1", DEPLOYS, card)), TryAgain)
    stage.monotonic.at += 5
    again = await stage.out.send(Dispatch("d1", DEPLOYS, card))
    (message,) = stage.messages
    assert isinstance(again, Delivered)
    assert (again.receipt.id, again.uncertain) == (message["ts"], False)


async def test_a_dead_processs_lost_post_is_found_by_the_next_one(stage: Stage, card: Card) -> None:
    stage.fault("drop_after", "chat.postMessage")
    lost = await stage.out.send(Dispatch("d1", Place("slack", "#deploys"), card))
    assert isinstance(lost, TryAgain)
    assert lost.lost
    next_one = SlackOut(stage.client, stage.people, now=lambda: datetime.now(UTC))
    again = await next_one.send(Dispatch("d1", Place("slack", "#deploys"), card, lost_at=datetime.now(UTC)))
    assert again == Delivered(Receipt("C0DEPLOYS", str(stage.messages[0]["ts"]), 0))
    assert len(stage.messages) == 1


@pytest.mark.parametrize("kind", ["drop_before", "server_error"])
async def test_a_post_that_never_arrived_is_posted_once(stage: Stage, card: Card, kind: str) -> None:
    stage.fault(kind, "chat.postMessage")
    assert isinstance(await stage.out.send(Dispatch("d1", DEPLOYS, card)), TryAgain)
    stage.monotonic.at += 5
    again = await stage.out.send(Dispatch("d1", DEPLOYS, card))
    assert isinstance(again, Delivered)
    assert not again.uncertain
    assert len(stage.messages) == 1


async def test_a_lost_post_that_cannot_be_searched_is_sent_and_marked(stage: Stage, card: Card) -> None:
    stage.fault("drop_after", "chat.postMessage")
    stage.fault("error", "conversations.history", error="missing_scope")
    await stage.out.send(Dispatch("d1", DEPLOYS, card))
    stage.monotonic.at += 5
    again = await stage.out.send(Dispatch("d1", DEPLOYS, card))
    assert isinstance(again, Delivered)
    assert again.uncertain
    assert len(stage.messages) == 2


@pytest.mark.check(28)
async def test_a_hundred_to_one_channel_go_one_a_second_in_order(start: Any, card: Card) -> None:
    ticks = Ticks()
    began = datetime(2026, 11, 4, tzinfo=UTC)
    stage = await start(now=lambda: began + timedelta(seconds=ticks()))
    stage.playground.web_api.rates.on = True
    stage.client.monotonic = ticks
    out = SlackOut(stage.client, stage.people, now=lambda: datetime.now(UTC), patience=0.0)
    first = ticks.at
    due = {f"d{number}": first for number in range(100)}
    when: dict[str, float] = {}
    while due:
        key, ticks.at = min(due.items(), key=lambda one: one[1])
        match await out.send(Dispatch(key, DEPLOYS, card)):
            case Delivered():
                when[key] = ticks.at
                del due[key]
            case TryAgain(after=timedelta() as after, held=True):
                due[key] = ticks.at + after.total_seconds()
            case other:
                raise AssertionError(other)
    assert list(when) == [f"d{number}" for number in range(100)]
    assert [at - first for at in when.values()] == pytest.approx(list(range(100)), abs=0.2)
    assert "ratelimited" not in {seen.answer for seen in stage.playground.web_api.seen}


@pytest.mark.check(28)
async def test_posts_to_a_hundred_channels_go_out_together(start: Any, card: Card) -> None:
    channels = tuple(SeedChannel(f"team-{number}") for number in range(100))
    stage = await start(channels=channels)
    stage.playground.web_api.rates.on = True
    to = [Place("slack", f"#team-{number}") for number in range(100)]
    answers = await asyncio.gather(*(stage.out.send(Dispatch(f"d{n}", each, card)) for n, each in enumerate(to)))
    assert all(isinstance(answer, Delivered) for answer in answers)  # at once: the clock has not moved
    assert len(stage.messages) == 100


@pytest.mark.check(27)
async def test_a_rate_limit_of_updates_delays_all_updates_and_no_post(stage: Stage, card: Card) -> None:
    sent = await stage.out.send(Dispatch("d1", DEPLOYS, card))
    assert isinstance(sent, Delivered)
    stage.fault("rate_limited", "chat.update", retry_after=30)
    limited = await stage.out.update(sent.receipt, Dispatch("d1", DEPLOYS, card))
    assert isinstance(limited, TryAgain)
    assert limited.after is not None
    assert limited.error == "Slack asks us to wait"
    assert 30 <= limited.after.total_seconds() <= 30 + UPDATE_EVERY
    calls = len(stage.playground.web_api.seen)
    elsewhere = await stage.out.update(Receipt("C0SECRET", "1.0"), Dispatch("d2", DEPLOYS, card))
    assert isinstance(elsewhere, TryAgain)
    assert len(stage.playground.web_api.seen) == calls  # Slack counts updates by workspace, so it is not asked
    stage.monotonic.at += 5
    assert isinstance(await stage.out.send(Dispatch("d3", DEPLOYS, card)), Delivered)


@pytest.mark.check(32)
async def test_an_update_of_a_deleted_message_is_refused(stage: Stage, card: Card) -> None:
    answer = await stage.out.update(Receipt("C0DEPLOYS", "1700000000.000100"), Dispatch("d1", DEPLOYS, card))
    assert answer == Refused("the message has been deleted")


async def test_a_note_goes_into_the_cards_thread(stage: Stage, card: Card) -> None:
    sent = await stage.out.send(Dispatch("d1", DEPLOYS, card))
    assert isinstance(sent, Delivered)
    stage.monotonic.at += 2
    note = await stage.out.send(Dispatch("d2", DEPLOYS, card, "reminder", thread=sent.receipt))
    assert isinstance(note, Delivered)
    assert stage.messages[1]["thread_ts"] == sent.receipt.id


async def test_the_environments_proxy_is_not_used(monkeypatch: pytest.MonkeyPatch, card: Card, start: Any) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    stage = await start()
    assert isinstance(await stage.out.send(Dispatch("d1", DEPLOYS, card)), Delivered)


async def test_a_groups_members_are_cached_for_a_minute(stage: Stage) -> None:
    assert await stage.people.members("@sre") == ("bo@acme.eu", "cy@acme.eu")
    stage.playground.workspace.set_group("sre", ("ann@acme.eu",))
    assert await stage.people.members("sre") == ("bo@acme.eu", "cy@acme.eu")
    stage.monotonic.at += 61
    assert await stage.people.members("sre") == ("ann@acme.eu",)


async def test_people_without_an_account_are_looked_up_again(stage: Stage) -> None:
    """An address of an account is kept for an hour, none for two minutes."""
    assert await stage.people.id_of("new@acme.eu") is None
    stage.playground.workspace.add_people_and_channels([User(Person("new@acme.eu", "New", "U0NEW"))], ())
    stage.monotonic.at += 119
    assert await stage.people.id_of("new@acme.eu") is None
    stage.monotonic.at += 2
    assert await stage.people.id_of("new@acme.eu") == "U0NEW"
    asked = len(stage.playground.web_api.seen)
    stage.monotonic.at += 3_000
    assert await stage.people.id_of("new@acme.eu") == "U0NEW"
    assert len(stage.playground.web_api.seen) == asked


async def test_an_unreadable_group_is_an_error_and_never_empty(stage: Stage) -> None:
    stage.fault("error", "usergroups.users.list", error="internal_error")
    with pytest.raises(SourceUnavailable, match="sre"):
        await stage.people.members("sre")
    with pytest.raises(SourceUnavailable, match="no such group"):
        await stage.people.members("nobody")


async def test_guests_strangers_and_deactivated_people_are_no_members(stage: Stage) -> None:
    for user_id in ("U0GUEST", "U0STRANGER", "U0GONE"):
        user = await stage.people.user(user_id)
        assert user is not None
        assert not user.is_member
    assert await stage.people.user("U0NOBODY") is None


def test_no_slack_code_is_what_people_read() -> None:
    """Every code that Slack documents for what we send has words, or one sentence stands for it."""
    known = set().union(*(METHODS[name].errors for name in ("chat.postMessage", "chat.update", "conversations.open")))
    said = {reason_of(code, REFUSED) for code in known | set(REASONS)}
    assert not [text for text in said if "_" in text or ":" in text]
    assert NeverError("chat.postMessage", "brand_new_code", "needs x").reason == REFUSED
