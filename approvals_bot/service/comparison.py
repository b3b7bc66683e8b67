"""Compares a changed workflow file with the past: what would have come of each request under it.

Each request is played twice from its log, by the file that it was opened under and by the changed one, with the people
of today. So what differs is because of the file. Nothing is written, sent or called.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import get_args

from approvals_bot.approvals.acts import Change, Vote, read_message
from approvals_bot.approvals.ballot import eligible_voters, waiting_for
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.published import REQUEST
from approvals_bot.approvals.request import Opening
from approvals_bot.approvals.resolution import with_groups
from approvals_bot.approvals.workflow import approval
from approvals_bot.durable.core.events import Event
from approvals_bot.durable.core.hooks import decode_body
from approvals_bot.durable.engine import Engine, RunRecord
from approvals_bot.durable.store.protocol import Filter
from approvals_bot.errors import ApprovalsBotError, InvalidPayloadError
from approvals_bot.people import People
from approvals_bot.service.open import check_requester, permitted_opening
from approvals_bot.service.playing import played
from approvals_bot.service.refusals import OpeningRefused

PAGE_SIZE = 100


@dataclass(frozen=True, slots=True)
class Course:
    """What came of a request, as it was played. `by`: who or what decided; `why`: whom it waits for, or the reason."""

    outcome: str
    by: str
    why: str
    asked: tuple[str, ...]

    def differs_from(self, other: Course) -> bool:
        return (self.outcome, self.by, {*self.asked}) != (other.outcome, other.by, {*other.asked})


@dataclass(frozen=True, slots=True)
class Compared:
    """A past request under two files. `failure`: why it couldn't be played, if it couldn't."""

    run_id: str
    created_at: datetime
    was: Course | None = None
    would_be: Course | None = None
    failure: str = ""

    @property
    def differs(self) -> bool:
        return self.was is not None and self.would_be is not None and self.was.differs_from(self.would_be)


async def compare(
    engine: Engine, changed: Definition, people: People, since: datetime
) -> AsyncGenerator[Compared, None]:
    """Yield every request of the workflow that was opened since then, newest first, one at a time."""
    cursor = None
    while True:
        page = await engine.list_runs(Filter(changed.id, opened_after=since, limit=PAGE_SIZE, cursor=cursor))
        for record in page.records:
            if record.kind == REQUEST:
                yield await _compare(engine, record, changed, people)
        cursor = page.cursor
        if cursor is None:
            return


async def _compare(engine: Engine, record: RunRecord, changed: Definition, people: People) -> Compared:
    try:
        _, log = await engine.read(record.id)
        opening, before = _opened(log[0])
        acts, until = _acts(log), record.ended_at or engine.now()
        was = await _course(before, opening, people, log[0].at, acts, until)
        would_be = await _changed_course(changed, opening, people, log[0].at, acts, until)
    except (ApprovalsBotError, ValueError) as error:
        return Compared(record.id, record.created_at, failure=str(error))
    return Compared(record.id, record.created_at, was, would_be)


def _opened(created: Event) -> tuple[Opening, Definition]:
    """Return what opened a request, and the file that it was opened under."""
    (opening,), _ = approval.signature.decode_call(created.data["input"])
    return opening, Definition.model_validate(created.data["settings"])


def _acts(log: Sequence[Event]) -> list[tuple[datetime, Change]]:
    """Return what people did to a request, and when. A vote isn't bound to the digest that was shown: files differ."""
    acts = list[tuple[datetime, Change]]()
    for event in log:
        if event.type == "hook_received":
            act = read_message(json.loads(decode_body(event.data["payload"])))
            if isinstance(act, get_args(Change)):
                acts.append((event.at, replace(act, digest=None) if isinstance(act, Vote) else act))
    return acts


async def _changed_course(
    changed: Definition,
    opening: Opening,
    people: People,
    at: datetime,
    acts: Sequence[tuple[datetime, Change]],
    until: datetime,
) -> Course:
    try:
        await check_requester(changed, opening.requester, opening.requester, opening.on_behalf_of, people)
        given = {name: value for name, value in opening.fields.items() if value is not None}
        behalf = opening.on_behalf_of
        allowed = await permitted_opening(changed, given, opening.requester, behalf, people, at)
    except OpeningRefused as refused:
        return Course("refused", "", refused.detail, ())
    except InvalidPayloadError as invalid:
        return Course("refused", "", str(invalid), ())
    return await _course(changed, allowed, people, at, acts, until)


async def _course(
    definition: Definition,
    opening: Opening,
    people: People,
    at: datetime,
    acts: Sequence[tuple[datetime, Change]],
    until: datetime,
) -> Course:
    """Play a request with these acts, up to a time."""
    with played(definition, await with_groups(definition, opening, people), people, at) as play:
        await play.open()
        for moment, act in acts:
            await play.wait(moment)
            await play.act(act)
        await play.wait(until)
    opened = [stage for request in play.seen for stage in request.stages if stage.state == "open"]
    asked = tuple(dict.fromkeys(address for stage in opened for address in eligible_voters(stage)))
    ended = play.request.outcome
    if play.failure:
        return Course("failed", "", play.failure, asked)
    if ended is None:
        return Course("waiting", "", f"for {', '.join(waiting_for(play.request)) or 'nobody'}", asked)
    return Course(ended.outcome, ended.by, ended.because, asked)
