"""Opening a request without a vote, in an emergency: who may, and what the run keeps of it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from approvals_bot.approvals.break_glass import LONGEST_REASON, SHORTEST_REASON, review_definition
from approvals_bot.approvals.policy import Definition, pinned
from approvals_bot.approvals.request import Opening
from approvals_bot.approvals.resolution import find_undecidable_stage, is_named
from approvals_bot.approvals.standing_policy import Emergency
from approvals_bot.durable.core.registry import Workflow
from approvals_bot.durable.store.sessions import SessionRow
from approvals_bot.people import People, SourceUnavailable
from approvals_bot.service.catalog import Listed
from approvals_bot.service.refusals import OpeningRefused, nobody_decides

FRESH = timedelta(minutes=10)
"""How old the sign-in of a person who breaks the glass may be."""


def is_fresh(session: SessionRow, now: datetime) -> bool:
    """Return whether this person proved who they are a moment ago."""
    return session.proved and now - session.created_at < FRESH


def written_reason(text: str) -> str:
    """Return a reason without characters that nobody sees, so that its length is what people read."""
    seen = "".join(each if each.isprintable() else " " if each.isspace() else "" for each in text)
    return " ".join(seen.split())[:LONGEST_REASON]


async def may_break_glass(definition: Definition, person: str, people: People) -> bool:
    """Return whether this person may open the request without a vote. Raises SourceUnavailable."""
    rule, unavailable = definition.break_glass, None
    for entry in rule.who if rule is not None else ():
        try:
            if await is_named(person, entry, people):
                return True
        except SourceUnavailable as error:
            unavailable = error
    if unavailable is not None:
        raise unavailable
    return False


async def in_emergency(
    listed: Listed, opening: Opening, reason: str, people: People, at: datetime
) -> Workflow[..., Any]:
    """Return the workflow of a request that this person opens without a vote. Raises OpeningRefused."""
    assert listed.definition is not None, "it is an approval"
    definition = await emergency_definition(listed.definition, opening, reason, people, at)
    return listed.workflow.under(definition.id, pinned(definition))


async def emergency_definition(
    definition: Definition, opening: Opening, reason: str, people: People, at: datetime
) -> Definition:
    """Return the definition of a request that this person opens without a vote. Raises OpeningRefused.

    What nobody could review is refused, so that no emergency goes by unseen.
    """
    reason = written_reason(reason)
    try:
        if opening.requester.startswith("app:") or not await may_break_glass(definition, opening.requester, people):
            raise OpeningRefused("emergency_not_allowed", who=opening.requester, workflow=definition.id)
    except SourceUnavailable as error:
        raise OpeningRefused("group_unknown", error=str(error)) from None
    if len(reason) < SHORTEST_REASON:
        raise OpeningRefused("reason_too_short", ("reason",), least=str(SHORTEST_REASON))
    owners = [entry for entry in definition.workflow.owners or () if not entry.startswith("app:")]
    emergency = Emergency(reason=reason, escalate_to=tuple(dict.fromkeys((*owners, *people.admins))))
    definition = definition.model_copy(update={"emergency": emergency})
    if (problem := await find_undecidable_stage(review_definition(definition), opening, people, at)) is not None:
        raise nobody_decides(*problem)
    return definition
