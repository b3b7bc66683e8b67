"""Decisions without a vote: by a rule, by an earlier approval, or in an emergency; and the review of an emergency."""

from __future__ import annotations

from functools import partial

from approvals_bot.approvals.allowances import allowance_of, is_permitted, scope_of_calls, use_of_call
from approvals_bot.approvals.break_glass import approved_in_emergency, owner_queries, review_definition
from approvals_bot.approvals.granted import Granting
from approvals_bot.approvals.notifications import emergency_notifications
from approvals_bot.approvals.request import BREAK_GLASS, Request
from approvals_bot.approvals.resolution import find_people
from approvals_bot.approvals.rules import Rules
from approvals_bot.approvals.stages import context_of, seat_queries, with_people, with_recipients
from approvals_bot.approvals.standing import covered_by_grants, covered_by_standing, given_by
from approvals_bot.approvals.standing_grants import give_grant
from approvals_bot.durable.core.api import now
from approvals_bot.durable.core.context import cancellation_reason, is_cancelled


async def decided_without_votes(request: Request, rules: Rules) -> Request:
    """Return the request as it is decided before anybody is asked; unchanged if people decide it.

    `request`: as the file's rules have left it. They come first, so neither an earlier approval nor an emergency gets
    around one that rejects.
    """
    definition = rules.definition
    if request.outcome is not None or definition.emergency is not None:
        found = await find_people([], context_of(request, rules))
        request = with_people(request, rules, found.people)
    if request.outcome is not None:
        return request
    if definition.emergency is not None:
        return approved_in_emergency(request, definition.emergency, now())
    if definition.standing is not None:
        return await covered_by_standing(request, rules, definition.standing)
    if definition.allowance is not None:
        return await covered_by_grants(
            request,
            rules,
            scope_of_calls(request),
            partial(use_of_call, request),
            partial(is_permitted, ceilings=definition.allowance, request=request),
        )
    return request


async def with_standing(request: Request, rules: Rules) -> Request:
    """Give what the approval of this request covers of later ones, from now on."""
    rule = rules.definition.standing
    given = allowance_of(request) if rule is None else given_by(request, rule)
    if given is None:
        return request
    await give_grant(given.scope, given.grant)
    return request.but(standing=given)


async def with_deciders(request: Request, rules: Rules) -> tuple[Request, tuple[str, ...]]:
    """Look up everybody who would have decided this request, and its owners and admins."""
    about, found = context_of(request, rules), dict[str, None]()
    asks = [seat_queries(request, rules, stage) for stage in request.stages if stage.state != "skipped"]
    for ask in (*asks, owner_queries(rules.definition)):
        resolution = await find_people(ask, about)
        request = with_people(request, rules, resolution.people)
        found |= dict.fromkeys(address for seat in resolution.seats for address in seat.eligible)
    return request, tuple(found)


async def ask_for_review(pending: Granting) -> Granting | None:
    """Notify everybody concerned that this was approved in an emergency, and ask for its review. None: a rule decided.

    If nobody can review it, it waits for those who are asked once it is late.
    """
    if pending.request.outcome is None or pending.request.outcome.by != BREAK_GLASS:
        return None
    request, people = await with_deciders(pending.request, pending.rules)
    pending.copies.send(emergency_notifications(request, pending.definition.to_requester, people))
    pending.request = with_recipients(request, people)
    review = pending.another(review_definition(pending.definition))
    review.has_opened, review.request = True, review.request.but(reviews=True)
    pending.tasks.create_task(review.run())
    if is_cancelled():  # while these people were looked up
        review.abandon(cancellation_reason() or "")
    return review
