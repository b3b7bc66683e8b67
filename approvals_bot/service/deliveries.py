"""Deliveries that operators look after: what has not arrived, found by an index, and what they do about it.

Of cards and messages, only open runs are listed. A run whose cards are all delivered isn't in the index, nor is one
that has ended: nothing is sent for it any more. A follow-up that failed stays listed: its work is still undone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from approvals_bot.approvals.acts import Actor, Reply, TryNow, message_of, read_answer
from approvals_bot.approvals.card_model import CardDelivery, FollowUp
from approvals_bot.approvals.published import (
    ANY_TROUBLE,
    FOLLOW_UP,
    IN_TROUBLE,
    Trouble,
    is_unfinished,
    newest_deliveries,
    trouble_of,
    trouble_word,
)
from approvals_bot.approvals.request import Request
from approvals_bot.durable.core.attributes import projected
from approvals_bot.durable.core.hooks import WebhookRequest
from approvals_bot.durable.engine import Engine, RunRecord
from approvals_bot.durable.store.protocol import Filter
from approvals_bot.errors import HookFullError, HookNotFoundError
from approvals_bot.service.act import ANSWER_LIMIT
from approvals_bot.service.owed_lines import line_of_operator, write_line
from approvals_bot.service.read import find_record, requests_of

Tried = Literal["tried", "not_tried", "decided", "busy", "unknown"]
"""What became of an operator's wish. `not_tried`: it has arrived, has a turn, or is being tried. `decided`: nothing is
sent for a request any more that people have decided. `busy`: its run takes no more messages now."""

ATTEMPTED = "delivery_attempted"
"""The audit's line of such a wish."""


@dataclass(frozen=True, slots=True)
class OpenDelivery:
    """A delivery that something can still come of. `may_be_tried`: an operator can have it tried now."""

    id: str
    record: RunRecord
    request: Request
    delivery: CardDelivery
    trouble: Trouble

    @property
    def may_be_tried(self) -> bool:
        return self.request.is_open and not self.request.is_stalled and self.trouble in ("not_delivered", "retrying")


@dataclass(frozen=True, slots=True)
class DeliveryPage:
    """A page of deliveries, and the cursor of the next one."""

    rows: list[OpenDelivery]
    cursor: str | None


async def list_deliveries(
    engine: Engine,
    *,
    trouble: Trouble | None = None,
    channel: str | None = None,
    workflow: str | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> DeliveryPage:
    """Return the deliveries of a page of runs, those of the oldest run first. Raises ValueError for a bad cursor."""
    which = Filter(
        workflow=workflow,
        attributes={projected(IN_TROUBLE): trouble_word(trouble, channel)},
        is_open=True,
        oldest_first=True,
        cursor=cursor,
        limit=limit,
    )
    page = await engine.list_runs(which)
    rows = [
        one
        for record in page.records
        for request in requests_of(record)
        for one in _open_deliveries(record, request)
        if trouble in (None, one.trouble) and channel in (None, one.delivery.channel)
    ]
    return DeliveryPage(rows, page.cursor)


@dataclass(frozen=True, slots=True)
class FollowUpPage:
    """A page of requests with the follow-ups that failed or are tried again, and the cursor of the next one."""

    rows: list[tuple[Request, FollowUp]]
    cursor: str | None


async def list_follow_ups(
    engine: Engine, *, workflow: str | None = None, cursor: str | None = None, limit: int = 50
) -> FollowUpPage:
    """Return the follow-ups of a page of runs, open and ended, the newest first. Raises ValueError for a bad cursor."""
    which = Filter(workflow=workflow, attributes={projected(FOLLOW_UP): ANY_TROUBLE}, cursor=cursor, limit=limit)
    page = await engine.list_runs(which)
    requests = [request for record in page.records for request in requests_of(record)]
    rows = [(request, one) for request in requests for one in request.follow_ups if is_unfinished(one)]
    return FollowUpPage(rows, page.cursor)


def _open_deliveries(record: RunRecord, request: Request) -> list[OpenDelivery]:
    """Return a request's deliveries in trouble; to one destination, the newest counts."""
    found = [(delivery_id(request, one), one, trouble_of(request, one)) for one in newest_deliveries(request)]
    return [OpenDelivery(id, record, request, one, trouble) for id, one, trouble in found if trouble is not None]


def delivery_id(request: Request, delivery: CardDelivery) -> str:
    """Return a name for a delivery that is good for URLs and says nobody's address: `run_0…-5d41402abc4b2a76`."""
    where = hashlib.sha256(f"{delivery.channel}\0{delivery.to}".encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{request.id}-{where}"


async def try_now(engine: Engine, id: str, *, who: str, actor: Actor) -> Tried:
    """Have a delivery tried now. The audit has the wish, whatever comes of it. Returns once the run has answered."""
    request_id, _, _ = id.rpartition("-")
    record = await find_record(engine, request_id) if request_id else None
    found = _find(() if record is None else requests_of(record), request_id, id)
    if found is None:
        return "unknown"
    request, delivery = found
    data = {"request_id": request.id, "channel": delivery.channel, "delivery": id}
    target = await engine.find(request.hook_id) if request.hook_id and request.is_open else None
    if target is None:
        await engine.audit(ATTEMPTED, who=who, run_id=request.run_id, actor=actor.as_json(), data=data | _as("decided"))
        return "decided"
    message = message_of(TryNow(who, delivery.channel, delivery.to, actor=actor))
    owed = line_of_operator(ATTEMPTED, who, actor, target.record.id, data)
    try:
        kept = await engine.send_to_webhook(target, WebhookRequest.of_json(message), owes=owed)
    except (HookNotFoundError, HookFullError) as error:
        became: Tried = "busy" if isinstance(error, HookFullError) else "decided"
        await engine.audit(ATTEMPTED, who=who, run_id=request.run_id, actor=actor.as_json(), data=data | _as(became))
        return became
    answer = await engine.answer_to(kept, ANSWER_LIMIT)
    became = "tried" if answer.status_code == 504 else _became(read_answer(bytes(answer.body)))
    await write_line(engine, owed, **_as(became))
    return became


def _find(requests: Sequence[Request], request_id: str, id: str) -> tuple[Request, CardDelivery] | None:
    for request in requests:
        for delivery in reversed(request.deliveries if request.id == request_id else ()):
            if delivery_id(request, delivery) == id:
                return request, delivery
    return None


def _became(reply: Reply) -> Tried:
    if reply.changed:
        return "tried"
    return "decided" if reply.code == "decided_before_trying" else "not_tried"


def _as(became: Tried) -> dict[str, str]:
    return {"became": became}
