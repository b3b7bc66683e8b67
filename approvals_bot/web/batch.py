"""`POST /inbox/votes`: several requests decided at once, each checked on its own, and as it was shown."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Literal, cast, get_args

from starlette.requests import Request as HttpRequest
from starlette.responses import RedirectResponse, Response

from approvals_bot.approvals import card_text
from approvals_bot.approvals.acts import REFUSALS, Reply, Vote
from approvals_bot.approvals.card import card_of
from approvals_bot.approvals.card_model import Card
from approvals_bot.approvals.request import Request
from approvals_bot.durable.core.events import to_micros
from approvals_bot.service.act import perform
from approvals_bot.service.attempts import change_counter
from approvals_bot.service.known import concerns_now
from approvals_bot.service.read import find_record, request_of
from approvals_bot.web.desk import WebDesk
from approvals_bot.web.responses import Problem
from approvals_bot.web.sessions import actor_at
from approvals_bot.web.validation import read_form_fields

MOST = 50  # requests at once; more would be a page that nobody has read
KEPT = timedelta(minutes=10)  # what came of a batch
LONGEST_COMMENT = 2_000  # characters

Choice = Literal["approve", "reject"]

NOT_OURS = "This didn't come from your own inbox, so nothing was counted. Load your inbox again, then choose."
NOTHING_CHOSEN = "Nothing was counted. Go back, select some requests, then press Approve or Reject."
TOO_MANY = f"Nothing was counted: at most {MOST} requests can be decided at once."
NEEDS_PROOF = "This one needs proof that it's you. Open it to decide."
TOO_LONG = f"Nothing was counted: a comment has at most {LONGEST_COMMENT:,} characters."


@dataclass(frozen=True, slots=True)
class BatchRow:
    """What came of one request of a batch."""

    request_id: str
    title: str
    text: str
    is_counted: bool


def can_be_batched(request: Request, card: Card) -> bool:
    """Return whether a check mark is enough to approve this request: it asks for nothing, and no proof of who it is."""
    approve = next((each for each in card.choices if each.choice == "approve"), None)
    return approve is not None and not approve.asks and approve.comment != "required" and request.link_auth == "link"


class InboxVotes:
    """`POST /inbox/votes`, and what came of a batch."""

    def __init__(self, desk: WebDesk) -> None:
        self._engine, self._metrics = desk.engine, desk.metrics
        self._sessions, self._forms, self._login, self._root = desk.sessions, desk.forms, desk.login, desk.root

    async def vote(self, request: HttpRequest) -> Response:
        """Vote on each chosen request: 303 to the inbox, which says what came of each. Raises Problem 403 or 422."""
        session, form = await self._sessions.find(request), await read_form_fields(request)
        if session is None:
            return await self._login.instead_of(request)
        if not self._forms.is_ours(request, "batch", form.text("form_token")):
            raise Problem(403, "Not from your inbox", NOT_OURS)
        chosen = [*dict.fromkeys(each for each in form.getlist("request") if isinstance(each, str))]
        choice, comment = form.text("choice"), form.text("comment").replace("\r\n", "\n").strip()
        if not chosen or choice not in get_args(Choice):
            raise Problem(422, "No request was selected", NOTHING_CHOSEN)
        if len(chosen) > MOST:
            raise Problem(422, "Too many requests", TOO_MANY)
        if len(comment) > LONGEST_COMMENT:
            raise Problem(422, "Comment too long", TOO_LONG)
        actor = actor_at(request, session)
        vote = Vote(by=session.person, choice=cast(Choice, choice), via="inbox", comment=comment, actor=actor)
        rows = await asyncio.gather(*(self._vote_on(each, vote) for each in chosen))
        batch = secrets.token_urlsafe(16)
        until = self._engine.now() + KEPT
        kept = {
            "by": session.person,
            "until": to_micros(until),
            "rows": [[row.request_id, row.text, row.is_counted] for row in rows],
        }
        await change_counter(self._engine, _counter(batch), until, lambda _: kept)
        return RedirectResponse(f"{self._root}/inbox?batch={batch}", 303)

    async def rows_of(self, batch: str, person: str) -> Sequence[BatchRow]:
        """Return what came of this batch; () for another person's, and once it is forgotten."""
        row = await self._engine.store.counter(_counter(batch))
        state: Mapping[str, Any] = row.state if row is not None else {}
        if state.get("by") != person or to_micros(self._engine.now()) >= state["until"]:
            return ()
        return [BatchRow(id, await self._title(id, person), text, counted) for id, text, counted in state["rows"]]

    async def _vote_on(self, chosen: str, vote: Vote) -> BatchRow:
        """Vote on one request, if it still has the digest, and has had the state, with which it was shown."""
        id, _, seen = chosen.partition(":")
        digest, _, state = seen.partition(":")
        record = await find_record(self._engine, id)
        found = request_of(record) if record is not None else None
        if found is None or not await concerns_now(self._engine, found, vote.by):
            return BatchRow(id, "", Reply("unknown").text, is_counted=False)
        if found.is_open and found.link_auth != "link":
            return BatchRow(id, "", NEEDS_PROOF, is_counted=False)
        card = card_of(found, vote.by, self._engine.now())
        shown = f"{card.title}\n{card_text.asked_by(card)}"  # all that a line of the inbox says of what is decided
        reply = await perform(self._engine, found, replace(vote, digest=digest), shown=shown, state=state)
        self._metrics.voted(reply.verdict, "inbox")
        return BatchRow(id, "", reply.text, reply.verdict not in REFUSALS)

    async def _title(self, id: str, person: str) -> str:
        record = await find_record(self._engine, id)
        found = request_of(record) if record is not None else None
        return found.title if found is not None and await concerns_now(self._engine, found, person) else id


def _counter(batch: str) -> str:
    return f"batch {batch[:64]}"
