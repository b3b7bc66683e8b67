"""Looking people up, as a step: what was found is in the log."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime

from approvals_bot.approvals import eligibility as electorate
from approvals_bot.approvals.eligibility import Found, RequestContext, SeatAsk, SeatFound
from approvals_bot.approvals.reassignment import Rank
from approvals_bot.durable.core.api import resource, step
from approvals_bot.errors import StepFailedError
from approvals_bot.people import People

logger = logging.getLogger("approvals_bot.approvals")

LOOKUP_LIMIT = 2.0  # seconds; Slack drops a click at 3, so by then she must have been told


@step(retries=0, timeout=LOOKUP_LIMIT)
async def look_up(
    asks: tuple[SeatAsk, ...],
    about: RequestContext,
    also: tuple[str, ...] = (),
    at: datetime | None = None,
    people: People = resource(People),
) -> Found:
    """Resolve every seat now. `at`: to tell who is away then."""
    found = await electorate.find(asks, about, people, also, at)
    if any(each.trouble for each in found.away.values()):
        logger.warning("stand-ins of somebody who is away lead nowhere; `approvals-bot doctor` says whose")
    return found


@step(retries=0, timeout=LOOKUP_LIMIT)
async def look_up_rank(
    who: str, person: str, owners: tuple[str, ...], about: RequestContext, people: People = resource(People)
) -> Rank:
    """Whether this person is an owner of the workflow or an admin, and whether the service knows the other one."""
    owns, unsure_owner = await electorate.is_among(who, owners, about, people)
    rules, unsure_admin = await electorate.is_among(who, people.admins, about, people)
    knows = person.lower() in [each.address for each in people.known()]
    return Rank(owns, rules, knows, (*unsure_owner, *unsure_admin))


async def find_rank(who: str, person: str, owners: Sequence[str], about: RequestContext) -> Rank:
    """As `look_up_rank`; a look-up that failed leaves it open."""
    try:
        return await look_up_rank(who, person, tuple(owners), about)
    except StepFailedError as failure:
        return Rank(errors=(f"looking it up failed: {failure.cause_message}",))


async def find_people(
    asks: Sequence[SeatAsk], about: RequestContext, also: Sequence[str] = (), at: datetime | None = None
) -> Found:
    """As `look_up`. A look-up that failed or took too long makes every seat unknown; it never fails the request."""
    try:
        return await look_up(tuple(asks), about, tuple(also), at)
    except StepFailedError as failure:
        error = f"looking people up failed: {failure.cause_message}"
        return Found(tuple(SeatFound(ask.id, {}, (), (error,)) for ask in asks), {})
