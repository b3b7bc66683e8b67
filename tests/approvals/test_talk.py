"""Comments, claims, reminders and snoozes: what people do about a request without deciding it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from approvals_bot.approvals.card import card_of
from approvals_bot.approvals.port import Receipt
from approvals_bot.approvals.talk import LONGEST_COMMENT, MOST_COMMENTS, snooze_end, thread_of
from approvals_bot.channels.email import letter
from approvals_bot.cli.show import card_lines
from approvals_bot.service.history import history_of
from approvals_bot.service.read import api_request
from approvals_bot.service.talk import add_comment

from .conftest import ANN, BO, CY, DI, START

TALK = f"""
[workflow]
id = "talk"
title = "Talk about it"
request = ["*", "app:ci"]
[[stage]]
id = "ok"
from = ["{ANN}", "{BO}"]
[deliver]
slack = "#deploys"
email = true
[clock]
deadline = "8h"
remind = ["30m", "2h", "3h"]
"""
TWO = TALK.replace('id = "ok"\n', 'id = "ok"\nneed = 2\n').replace('id = "talk"', 'id = "talk-two"')


def reminded(office: Any) -> list[str]:
    return sorted(dispatch.to.person.address for dispatch in office.email.sent if dispatch.occasion == "reminder")


async def test_a_comment_shows_and_notifies_all_but_its_author(office: Any) -> None:
    async with office.open():
        opened = await office.ask(TALK, {}, by=DI)
        said = await opened.act(kind="comment", by=ANN, text="  Why today?\n")
        assert (said["verdict"], said["changed"]) == ("commented", True)
        assert said["text"] == "Your comment was added. The others involved will be notified."
        [comment] = api_request(await opened.view())["comments"]
        assert comment == {"by": ANN, "text": "Why today?", "at": "2026-03-02T09:00:00Z", "via": "api"}
        assert [one.occasion for one in office.email.to(ANN)] == ["request"], "its author"
        [_, sent] = office.email.to(BO)
        assert (sent.occasion, [one.comment for one in sent.comments]) == ("comment", ["Why today?"])
        assert sent.thread is not None
        [card] = office.email.to(DI)
        assert (card.occasion, card.thread, card.card.comments[0].by.text) == ("comment", None, "Ann Ode")
        [_, in_thread] = office.slack.to("#deploys")
        assert in_thread.comments[0].comment == "Why today?"
        assert office.slack.newest("#deploys").card.comments[0].comment == "Why today?"
        assert (await opened.view()).state == "waiting"


async def test_mails_and_the_terminal_show_comments(office: Any) -> None:
    async with office.open():
        opened = await office.ask(TALK, {}, by=DI)
        await opened.act(kind="claim", by=BO, via="api")
        await opened.act(kind="comment", by=ANN, via="api", text="Why <b>today</b>?\nAnd why at all?\u202e")
        [_, mail] = office.email.to(BO)
        written = letter.write(replace(mail, link="http://127.0.0.1/decisions/x"), office.clock.now())
        assert written.text.startswith(
            "Ann Ode commented:\n\n  “Why <b>today</b>?\n  And why at all?⟨U+202E⟩”\n\n⏳ Waiting · 0 of 1\n"
        )
        line = "💬 Ann Ode via the API, Mon 2 Mar 2026, 09:00 UTC: “Why <b>today</b>? ⏎ And why at all?⟨U+202E⟩”"
        assert f"{line}\n✋ Bo Lund is on it.\n" in written.text
        assert "<b>today" not in written.html
        assert written.html.count("Why &lt;b&gt;today&lt;/b&gt;?") == 2, "why it comes, and on the card"
        [card] = office.email.to(DI)
        first = letter.write(replace(card, link="http://127.0.0.1/decisions/x"), office.clock.now())
        assert first.text.startswith("Ann Ode commented:\n\n  “Why <b>today")
        assert first.subject == "Talk about it"
        shown = "\n".join(card_lines(card_of(await opened.view(), None, office.clock.now()), office.clock.now()))
        assert "💬 Ann Ode via the API, Mon 2 Mar 2026, 09:00 UTC\n  “Why <b>today</b>? And why at all?" in shown
        assert "✋ Bo Lund is on it." in shown
        entries = history_of(await office.engine.events(opened.run.id)).entries
        said = [(entry.text, entry.detail) for entry in entries if "comment" in entry.text or "is on it" in entry.text]
        assert said[0] == ("bo@acme.eu is on it via the API.", "")
        assert said[1][0] == "ann@acme.eu commented via the API."
        assert said[1][1].startswith("Why <b>today</b>?")


async def test_the_author_hears_of_the_answer(office: Any) -> None:
    async with office.open():
        opened = await office.ask(TALK, {}, by=DI)
        await opened.act(kind="comment", by=ANN, text="Why today?")
        await opened.act(kind="comment", by=DI, text="The customer leaves.")
        assert [one.comments[0].comment for one in office.email.to(ANN) if one.comments] == ["The customer leaves."]
        assert [one.occasion for one in office.email.to(DI)] == ["comment"], "not of their own answer"


async def test_a_comment_in_a_thread_isnt_repeated_there(office: Any) -> None:
    async with office.open():
        opened = await office.ask(TALK, {}, by=DI)
        thread = thread_of(Receipt("#deploys", "slack-1"))
        eve = "eve@elsewhere.example"  # no approver, but they can see the card
        assert (await opened.act(kind="comment", by=eve, text="Hi", thread=thread, via="slack"))["changed"]
        assert len(office.slack.to("#deploys")) == 1
        assert [one.occasion for one in office.email.to(ANN)] == ["request", "comment"]
        assert (await opened.act(kind="comment", by=eve, text="More"))["changed"], "they have to do with it now"


async def test_comments_that_wait_go_together(office: Any) -> None:
    from approvals_bot.approvals.port import TryAgain

    async with office.open():
        opened = await office.ask(TALK, {}, by=DI)
        office.email.answer = lambda dispatch: TryAgain("busy") if dispatch.occasion == "comment" else None
        for text in ("one", "two", "three"):
            await opened.act(kind="comment", by=DI, text=text)
        office.email.answer = lambda dispatch: None
        await office.clock.advance("1m")
        sent = [[each.comment for each in one.comments] for one in office.email.to(ANN) if one.comments]
        assert sent == [["one"], ["two", "three"]]


@pytest.mark.parametrize(
    ("by", "text", "verdict", "said"),
    [
        (ANN, " \n", "invalid", "There's no text in this comment. Nothing was changed."),
        (ANN, "x" * (LONGEST_COMMENT + 1), "invalid", "A comment has at most 2,000 characters. Nothing was changed."),
        (CY, "Hi", "not_an_approver", "You have nothing to do with this request, so you can't comment on it."),
    ],
)
async def test_a_comment_is_refused(office: Any, by: str, text: str, verdict: str, said: str) -> None:
    async with office.open():
        opened = await office.ask(TALK, {}, by=DI)
        answer = await opened.act(kind="comment", by=by, text=text)
        assert (answer["verdict"], answer["changed"]) == (verdict, False)
        assert answer["text"].startswith(said)
        assert (await opened.view()).comments == ()


async def test_a_request_takes_so_many_comments(office: Any) -> None:
    from approvals_bot.approvals.acts import Comment
    from approvals_bot.approvals.request import RecordedComment
    from approvals_bot.approvals.talk import talked

    async with office.open():
        view = await (await office.ask(TALK, {}, by=DI)).view()
    full = view.but(comments=(RecordedComment(Comment(ANN, "Hm."), START),) * MOST_COMMENTS)
    same, reply = talked(full, Comment(ANN, "One more"), START)
    assert (same, reply.verdict) == (full, "busy")
    assert reply.text == "This request has 200 comments, and takes no more. Nothing was changed."


async def test_a_comment_after_the_end_is_refused(office: Any) -> None:
    async with office.open():
        opened = await office.ask(TALK, {}, by=DI)
        await opened.vote(ANN)
        said = await opened.act(kind="comment", by=BO, text="Too late?")
        assert said["text"] == "Already decided by Ann Ode at 09:00 UTC. Nothing was changed."


async def test_comments_survive_a_restart(office: Any) -> None:
    async with office.open():
        opened = await office.ask(TALK, {}, by=DI)
        await opened.act(kind="comment", by=ANN, text="Why today?")
        await opened.act(kind="claim", by=BO, via="api")
        await opened.act(kind="snooze", by=ANN, until=(START + timedelta(hours=1)).isoformat())
    async with office.open():
        await office.settle()
        view = api_request(await opened.view())
        assert [one["text"] for one in view["comments"]] == ["Why today?"]
        assert view["claimed_by"] == BO
        await office.clock.advance("61m")
        assert reminded(office) == [ANN, BO], "Bo at 30 minutes, Ann as their snooze ended"


async def test_a_person_comments_twenty_times_an_hour(office: Any) -> None:
    async with office.open():
        runs = [(await office.ask(TALK, {}, by=DI)).run.id for _ in range(2)]
        texts = [f"Comment {number}" for number in range(21)]
        said = [
            await add_comment(office.engine, runs[number % 2], by=ANN, actor=None, text=text, via="api")
            for number, text in enumerate(texts)
        ]
        assert [reply.verdict for reply in said] == ["commented"] * 20 + ["busy"]
        assert said[-1].text.startswith("You've written 20 comments in the last hour. Nothing was changed.")
        assert (await add_comment(office.engine, runs[0], by=BO, text="I can", via="api")).changed
        await office.clock.advance("61m")
        assert (await add_comment(office.engine, runs[0], by=ANN, text="Again", via="api")).changed


async def test_a_refused_comment_doesnt_count(office: Any) -> None:
    async with office.open():
        run = (await office.ask(TALK, {}, by=DI)).run.id
        said = [await add_comment(office.engine, run, by=ANN, text=" ", via="api") for _ in range(21)]
        assert {reply.verdict for reply in said} == {"invalid"}
        long = await add_comment(office.engine, run, by=ANN, text="x" * 9_000, via="email")
        assert long.changed, "the whole is in their mail"
        assert (await add_comment(office.engine, "run_0", by=ANN, text="Hi", via="api")).verdict == "unknown"


async def test_a_claim_shows_and_keeps_reminders_from_others(office: Any) -> None:
    async with office.open():
        opened = await office.ask(TALK, {}, by=DI)
        said = await opened.act(kind="claim", by=ANN)
        assert said["text"] == "You're on it, and everybody can see that. It's no vote yet."
        assert api_request(await opened.view())["claimed_by"] == ANN
        assert office.slack.newest("#deploys").card.claimed_by.text == "Ann Ode"
        assert len(office.email.sent) == 2, "nobody is notified of a claim"
        await office.clock.advance("31m")
        assert reminded(office) == [ANN]
        again = await opened.act(kind="claim", by=ANN)
        assert (again["verdict"], again["changed"]) == ("claimed", False)
        assert (await opened.act(kind="claim", by=BO))["text"] == (
            "You're on it now, instead of Ann Ode. It's no vote yet."
        )
        assert (await opened.act(kind="claim", by=ANN, ends=True))["verdict"] == "invalid"
        assert (await opened.act(kind="claim", by=BO, ends=True))["verdict"] == "released"
        assert (await opened.act(kind="claim", by=DI))["verdict"] == "not_an_approver"
        await office.clock.advance("90m")
        assert reminded(office) == [ANN, ANN, BO]


async def test_a_claim_of_one_of_two_spares_nobody(office: Any) -> None:
    async with office.open():
        opened = await office.ask(TWO, {}, by=DI)
        await opened.act(kind="claim", by=ANN)
        await office.clock.advance("31m")
        assert reminded(office) == [ANN, BO], "both votes are needed"
        assert await opened.vote(ANN) == "counted"
        assert api_request(await opened.view())["claimed_by"] is None, "they have voted"


async def test_who_claims_and_snoozes_spares_nobody(office: Any) -> None:
    async with office.open():
        opened = await office.ask(TALK, {}, by=DI)
        await opened.act(kind="claim", by=ANN)
        await opened.act(kind="snooze", by=ANN, until=(START + timedelta(hours=1)).isoformat())
        await office.clock.advance("31m")
        assert reminded(office) == [BO]


async def test_a_snooze_silences_one_person_until_it_ends(office: Any) -> None:
    async with office.open():
        opened = await office.ask(TALK, {}, by=DI)
        said = await opened.act(kind="snooze", by=ANN, until=(START + timedelta(minutes=150)).isoformat())
        assert said["text"] == "No reminders for you until 12:30. The deadline stays as it is."  # in Berlin
        view = await opened.view()
        assert api_request(view)["snoozes"] == [{"by": ANN, "until": "2026-03-02T11:30:00Z"}]
        assert "a reminder to Ann Ode, who snoozed it" in [timer.what for timer in view.timers]
        await office.clock.advance("149m")
        assert reminded(office) == [BO, BO]
        await office.clock.advance("2m")
        assert reminded(office) == [ANN, BO, BO], "that is what they asked for"
        await office.clock.advance("30m")
        assert reminded(office) == [ANN, ANN, BO, BO, BO]
        await office.clock.advance("5h")
        assert (await opened.view()).state == "expired", "the deadline never waits"


async def test_a_snooze_can_be_ended(office: Any) -> None:
    async with office.open():
        opened = await office.ask(TALK, {}, by=DI)
        await opened.act(kind="snooze", by=ANN, until=(START + timedelta(hours=1)).isoformat())
        assert (await opened.act(kind="snooze", by=ANN, until=None))["text"] == "You'll get reminders again."
        await office.clock.advance("70m")
        assert reminded(office) == [ANN, BO], "and none at its old end"


@pytest.mark.parametrize("hours", [-1, 0, 31 * 24])
async def test_a_snooze_ends_within_a_month(office: Any, hours: int) -> None:
    async with office.open():
        opened = await office.ask(TALK, {}, by=DI)
        said = await opened.act(kind="snooze", by=ANN, until=(START + timedelta(hours=hours)).isoformat())
        assert said["text"] == "Name a time in the next 30 days. Nothing was changed."
        assert (await opened.act(kind="snooze", by=DI, until=None))["verdict"] == "not_an_approver"


async def test_the_requester_reminds_once_an_hour(office: Any) -> None:
    async with office.open():
        opened = await office.ask(TALK, {}, by=DI)
        assert (await opened.act(kind="remind", by=ANN))["text"] == (
            "Only the requester can do this. Nothing was changed."
        )
        assert (await opened.act(kind="remind", by=DI))["text"] == "Reminded Ann Ode and Bo Lund."
        assert reminded(office) == [ANN, BO]
        assert [one.occasion for one in office.slack.to("#deploys")] == ["request", "reminder"]
        again = await opened.act(kind="remind", by=DI)
        assert (again["verdict"], again["text"]) == (
            "busy",
            "The last reminder was less than an hour ago. You can send another one at 10:00 UTC. Nothing was changed.",
        )
        await office.clock.advance("61m")
        assert (await opened.act(kind="remind", by=DI))["verdict"] == "reminded"


async def test_a_reminder_respects_snoozes(office: Any) -> None:
    async with office.open():
        opened = await office.ask(TALK, {}, by=DI)
        until = (START + timedelta(hours=1)).isoformat()
        await opened.act(kind="snooze", by=ANN, until=until)
        assert (await opened.act(kind="remind", by=DI))["text"] == "Reminded Bo Lund."
        assert reminded(office) == [BO]
        await office.clock.advance("59m")
        await opened.act(kind="snooze", by=BO, until=(START + timedelta(hours=3)).isoformat())
        await opened.act(kind="snooze", by=ANN, until=(START + timedelta(hours=3)).isoformat())
        await office.clock.advance("2m")
        said = await opened.act(kind="remind", by=DI)
        assert said["text"] == "Everybody who could vote now has snoozed their reminders. Nothing was changed."


@pytest.mark.parametrize(
    ("given", "end"),
    [
        (None, "2026-03-02T10:00:00+00:00"),
        ("2h", "2026-03-02T11:00:00+00:00"),
        ("1d12h", "2026-03-03T21:00:00+00:00"),
        ("tomorrow", "2026-03-03T08:00:00+00:00"),
        ("2026-03-02T12:00:00+01:00", "2026-03-02T11:00:00+00:00"),
        ("2026-03-02t11:00:00z", "2026-03-02T11:00:00+00:00"),
    ],
)
def test_a_snooze_s_end_is_read(given: str | None, end: str) -> None:
    found = snooze_end(given, START, "Europe/Berlin")
    assert found is not None
    assert found.astimezone(START.tzinfo).isoformat() == end
    assert snooze_end("now", START, "UTC") is None


@pytest.mark.parametrize("given", ["soon", "2026-03-02T12:00:00", "9999999999999d", "1e9h", "-1h", "12:00", "٣h"])
def test_another_end_of_a_snooze_is_refused(given: str) -> None:
    with pytest.raises(ValueError):  # whatever it says, the caller words it
        snooze_end(given, START, "UTC")
