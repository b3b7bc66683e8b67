"""What people do about an open request besides deciding it: comments, claims, reminders and snoozes. Pure.

None of it counts as a vote or changes what is decided. A comment is for everyone who has to do with the request. A
claim says that one approver is on it. The requester may send a reminder once an hour, and an approver may put off their
own reminders; the deadline and escalations stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, time, timedelta
from typing import assert_never
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from approvals_bot.approvals.acts import Comment, Remind, Reply, Snooze, TakeOn, Talk
from approvals_bot.approvals.apply import held_reply, not_now
from approvals_bot.approvals.ballot import missing, owed
from approvals_bot.approvals.delivery_policy import Deliver
from approvals_bot.approvals.durations import parse_duration
from approvals_bot.approvals.notifications import Copy, Notification, best_copy, requester_notifications
from approvals_bot.approvals.port import Place, Receipt, ToPerson
from approvals_bot.approvals.request import RecordedClaim, RecordedComment, Request

MOST_COMMENTS = 200  # on one request
LONGEST_COMMENT = 2_000  # characters; a request is stored whole with each of its changes
REMIND_EVERY = timedelta(hours=1)
CLAIM_HOLDS = timedelta(hours=24)
"""How long a claim keeps reminders from the others: who said "I'm on it" may have forgotten."""

LONGEST_SNOOZE = timedelta(days=30)
FIRST_SNOOZE = timedelta(hours=1)  # where nobody says how long
TICK = timedelta(seconds=1)  # by which a timer may come before the time it was set for
MORNING = time(9)  # when a snooze until tomorrow ends, in the person's zone


def talked(request: Request, act: Talk, at: datetime) -> tuple[Request, Reply]:
    """Apply an act that decides nothing to an open request. Returns the next request, and the reply."""
    if isinstance(act, Comment):
        return _comment(request, act, at)
    if request.held is not None:
        return request, held_reply(request, request.held, act, at)
    if request.state == "changes_requested":
        return request, not_now(request, act, at)
    match act:
        case TakeOn():
            return _claim(request, act, at)
        case Remind():
            return _remind(request, act, at)
        case Snooze():
            return _snooze(request, act, at)
        case _:
            assert_never(act)


def _comment(request: Request, act: Comment, at: datetime) -> tuple[Request, Reply]:
    text = act.text.strip()
    if not text:
        return request, Reply("invalid", code="comment_empty")
    if len(text) > LONGEST_COMMENT:
        return request, Reply("invalid", code="comment_too_long", params={"most": LONGEST_COMMENT})
    if not (act.thread or may_comment(request, act.by)):
        return request, Reply("not_an_approver", code="not_concerned")
    if len(request.comments) >= MOST_COMMENTS:
        return request, Reply("busy", code="comments_full", params={"most": MOST_COMMENTS})
    made = RecordedComment(replace(act, text=text), at)
    request = request.but(comments=(*request.comments, made), version=request.version + 1)
    return request, Reply("commented", True)


def may_comment(request: Request, person: str) -> bool:
    """Return whether this person has to do with the request, or is an app.

    An app has proved that it reaches the request; somebody who writes in a card's thread, that they see the card.
    """
    return person.startswith("app:") or person in {
        request.requester,
        request.on_behalf_of,
        *request.recipients.values(),
        *(address for stage in request.stages for seat in stage.lists for address in seat.eligible),
        *(vote.by for vote in request.votes),
        *(made.act.by for made in request.comments),
    }


def _claim(request: Request, act: TakeOn, at: datetime) -> tuple[Request, Reply]:
    assert request.stage is not None, "a stage is open"
    now_by = request.claim.act.by if request.claim is not None else None
    if act.ends:
        if now_by != act.by:
            return request, Reply("invalid", code="no_claim")
        return request.but(claim=None, version=request.version + 1), Reply("released", True)
    if act.by not in owed(request):
        return request, Reply("not_an_approver", code="nothing_owed")
    if now_by == act.by:
        return request, Reply("claimed", code="claimed_already")
    instead_of = request.called(now_by) if now_by in owed(request) and now_by else ""
    request = request.but(claim=RecordedClaim(act, at, request.stage.id), version=request.version + 1)
    return request, Reply("claimed", True, "claimed_instead" if instead_of else "", {"instead_of": instead_of})


def _remind(request: Request, act: Remind, at: datetime) -> tuple[Request, Reply]:
    if act.by not in (request.requester, request.on_behalf_of):
        return request, Reply("not_an_approver", code="not_yours")
    if request.reminded_at is not None and at < request.reminded_at + REMIND_EVERY:
        params = _time(request, act.by, request.reminded_at + REMIND_EVERY, at)
        return request, Reply("busy", code="reminded_lately", params=params)
    people = to_be_reminded(request, at)
    if not people:
        snoozed = any(is_snoozed(request, address, at) for address in owed(request))
        return request, Reply("already_decided", code="all_snoozed" if snoozed else "nobody_to_remind")
    names = [request.called(address) for address in people]
    return request.but(reminded_at=at), Reply("reminded", True, params={"people": names})


def _snooze(request: Request, act: Snooze, at: datetime) -> tuple[Request, Reply]:
    if act.by not in owed(request):
        return request, Reply("not_an_approver", code="nothing_owed")
    others = {address: until for address, until in request.snoozes.items() if address != act.by}
    if act.until is None:
        return request.but(snoozes=others), Reply("snoozed", True, "snooze_over")
    if not at < act.until <= at + LONGEST_SNOOZE:
        return request, Reply("invalid", code="snooze_range", params={"days": LONGEST_SNOOZE.days})
    params = _time(request, act.by, act.until, at)
    return request.but(snoozes={**others, act.by: act.until}), Reply("snoozed", True, params=params)


def talk_result(request: Request, reader: str, done: str, now: datetime) -> Reply | None:
    """Return the reply on the page that an act of this reader led to; None if they did nothing of the kind."""
    match done:
        case "commented" if any(made.act.by == reader for made in request.comments):
            return Reply("commented", True)
        case "claimed" if request.claim is not None and request.claim.act.by == reader:
            return Reply("claimed", True)
        case "released" if request.claim is None:
            return Reply("released", True)
        case "reminded" if request.reminded_at is not None and reader in (request.requester, request.on_behalf_of):
            return Reply("reminded", True, "all_reminded")
        case "snoozed" if is_snoozed(request, reader, now):
            return Reply("snoozed", True, params=_time(request, reader, request.snoozes[reader], now))
        case "snoozed":
            return Reply("snoozed", True, "snooze_over")
        case "revoked" if request.grant is not None and request.grant.revoked_by == reader:
            return Reply("revoked", True)
        case "extending" if reader in (request.requester, request.on_behalf_of):
            return Reply("extending", True)
        case _:
            return None


def _time(request: Request, reader: str, at: datetime, now: datetime) -> dict[str, str]:
    """Return a time, as parameters of a reply to this reader."""
    zone = request.people[reader].zone if reader in request.people else "UTC"
    return {"at": at.isoformat(), "now": now.isoformat(), "zone": zone}


# ── Whom to notify. ──


def to_be_reminded(request: Request, now: datetime) -> tuple[str, ...]:
    """Return the people whom a reminder goes to now: those who are notified, owe a vote, and haven't snoozed it.

    If one of them is on it, and their vote is all that is missing, it goes to them alone, for a day.
    """
    stage = request.stage
    if stage is None:
        return ()
    awake = [address for address in owed(request) if not is_snoozed(request, address, now)]
    claim = request.claim
    is_enough = sum(lack.count for lack in missing(stage)) == 1
    if claim is not None and is_enough and claim.act.by in awake and now < claim.at + CLAIM_HOLDS:
        return (claim.act.by,)
    return tuple(address for address in awake if address in stage.notified)


def is_snoozed(request: Request, address: str, now: datetime) -> bool:
    """Return whether this person wants no reminders now."""
    until = request.snoozes.get(address)
    return until is not None and now < until


def snoozes_over(request: Request, now: datetime) -> tuple[Request, tuple[str, ...]]:
    """End the snoozes that are over. Returns also the people to remind: those who still owe a vote."""
    over = [address for address, until in request.snoozes.items() if until <= now + TICK]
    request = request.but(snoozes={each: until for each, until in request.snoozes.items() if each not in over})
    return request, tuple(address for address in owed(request) if address in over)


def readers_of(request: Request, comment: Comment) -> tuple[str, ...]:
    """Return the people to notify of a comment: all who have to do with the request now, but its author."""
    stage = request.stage
    concerned = (
        request.requester,
        request.on_behalf_of,
        *(stage.notified if stage is not None else ()),
        *owed(request),
        *(vote.by for vote in request.votes if vote.counts),
        *(made.act.by for made in request.comments),
    )
    return tuple(dict.fromkeys(address for address in concerned if address and address != comment.by))


def thread_of(receipt: Receipt) -> str:
    """Name the thread below a copy, as `Comment.thread` has it."""
    return f"{receipt.place}/{receipt.id}"


def comment_copies(request: Request, copies: Sequence[Copy], comment: Comment) -> list[Copy]:
    """Return the copies whose readers are notified of a comment: each person's best one, and each place.

    In the thread in which it was written, it can be read already.
    """
    arrived = [copy for copy in copies if copy.receipt is not None and not copy.text]
    best = [best_copy(arrived, address) for address in readers_of(request, comment)]
    return [
        copy
        for copy in arrived
        if (copy in best or isinstance(copy.to, Place))
        and copy.receipt is not None
        and thread_of(copy.receipt) != comment.thread
    ]


def comment_cards(
    request: Request, deliver: Deliver, copies: Sequence[Copy], comment: Comment
) -> Iterator[Notification]:
    """Yield the card for a requester who has none yet, and of whose request somebody else speaks."""
    for sent in requester_notifications(request, deliver, copies, "comment"):
        reader = sent.to.person.address if isinstance(sent.to, ToPerson) else None
        mine = [copy for copy in copies if copy.reader == reader and not copy.text]
        if reader is not None and reader != comment.by and not mine:
            yield sent


# ── What people write for the end of a snooze. ──

_NOW, _TOMORROW = "now", "tomorrow"


def snooze_end(given: str | None, now: datetime, zone: str) -> datetime | None:
    """Read `1h`, `tomorrow` (at nine, in this zone), a time with its offset, or `now`, which ends a snooze: None.

    Nothing means an hour. Raises ValueError for anything else.
    """
    match (given or "").strip().lower():
        case "":
            return now + FIRST_SNOOZE
        case word if word == _NOW:
            return None
        case word if word == _TOMORROW:
            return _tomorrow(now, zone)
        case word if re.fullmatch(r"(\d{1,4}[dhms])+", word):
            return now + parse_duration(word)
        case word:
            until = datetime.fromisoformat(word.upper())
            if until.tzinfo is None:
                raise ValueError("a time needs its offset")
            return until


def _tomorrow(now: datetime, zone: str) -> datetime:
    try:
        local = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        local = ZoneInfo("UTC")
    day = now.astimezone(local).date() + timedelta(days=1)
    return datetime.combine(day, MORNING, local).astimezone(now.tzinfo)
