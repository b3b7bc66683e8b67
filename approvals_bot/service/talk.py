"""Comments, claims, reminders and snoozes, as every entry point sends them.

They go to the request's log as votes do, by `service/act.py`. What is only here: how often one person may comment, over
all requests, and what they may write for the end of a snooze.
"""

from __future__ import annotations

from dataclasses import replace

from approvals_bot.approvals.acts import Actor, AfterDecision, Comment, Reply, Snooze, Talk
from approvals_bot.approvals.card_model import Via
from approvals_bot.approvals.plain_text import clip
from approvals_bot.approvals.request import Request
from approvals_bot.approvals.talk import LONGEST_COMMENT, snooze_end
from approvals_bot.durable.engine import Engine
from approvals_bot.people import People
from approvals_bot.service.act import ANSWER_LIMIT, WITHOUT_RULES, SentAct, perform, send_act
from approvals_bot.service.attempts import Attempts
from approvals_bot.service.read import await_request, request_of

MOST_COMMENTS = 20  # of one person in an hour, on all requests together

TOO_OFTEN = Reply("busy", code="comments_often", params={"most": MOST_COMMENTS})

IN_FULL_ELSEWHERE: tuple[Via, ...] = ("slack", "email")
"""Channels that keep what people wrote there, so that a long comment is cut and not refused."""


async def add_comment(
    engine: Engine,
    run_or_request_id: str,
    *,
    by: str,
    actor: Actor | None = None,
    text: str,
    via: Via,
    thread: str = "",
    press: str | None = None,
    timeout: float = ANSWER_LIMIT,
) -> Reply:
    """Add a comment to a request: the run's current one, or the one with this id.

    `thread`: the copy below which it was written, as `thread_of` names it: those who can write there can see the
    request. `press`: a name for this message, if its channel may deliver it twice. Returns the reply; `commented` if it
    was added, `busy` after 20 in an hour.
    """
    record = await await_request(engine, run_or_request_id)
    request = request_of(record) if record is not None else None
    if request is None:
        return Reply("unknown")
    if via in IN_FULL_ELSEWHERE:
        text = clip(text.strip(), LONGEST_COMMENT)
    return await talk(engine, request, Comment(by, text, via, thread, actor=actor), press=press, timeout=timeout)


async def talk(
    engine: Engine,
    request: Request,
    act: Talk | AfterDecision,
    *,
    press: str | None = None,
    timeout: float = ANSWER_LIMIT,
) -> Reply:
    """Perform an act that decides nothing, and return the reply. A comment counts towards its author's limit."""
    if not isinstance(act, Comment):
        return await perform(engine, request, act, press=press, timeout=timeout)
    act = replace(act, by=_people(engine).identity(act.by))
    attempts = Attempts(engine)
    if not await attempts.take_of_person("comment", act.by, MOST_COMMENTS):
        return TOO_OFTEN
    sent = await send_act(engine, request, act, press=press)
    reply = sent if isinstance(sent, Reply) else await sent.reply(timeout)
    if not reply.changed or (isinstance(sent, SentAct) and sent.is_repeat):
        await attempts.give_back_of_person("comment", act.by)
    return reply


def snooze_of(engine: Engine, by: str, until: str | None, *, via: Via, actor: Actor | None = None) -> Snooze | Reply:
    """Return the snooze that somebody asks for: `1h`, `tomorrow`, `now`, or a time; a Reply if that can't be read."""
    person = _people(engine).identity(by)
    try:
        end = snooze_end(until, engine.now(), _people(engine).person(person).zone)
    except ValueError:
        return Reply("invalid", code="snooze_unreadable")
    return Snooze(person, end, via, actor=actor)


def _people(engine: Engine) -> People:
    people: People = engine.resources.get(People, WITHOUT_RULES)
    return people
