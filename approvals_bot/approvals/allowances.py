"""Allowances: a yes to an agent's tool call that also covers the next calls of that tool, within limits. Pure.

An allowance is a standing grant of one person's vote. It may go no further than `[allowance]` of the file, then and
later, and covers a call only while its giver alone could approve that call.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from pydantic import JsonValue

from approvals_bot.approvals.agent_policy import Allowance, CallLimits
from approvals_bot.approvals.call_limits import arguments_of, values_at, wider_places
from approvals_bot.approvals.given_grants import GivenVote, StandingGrant
from approvals_bot.approvals.request import GivenGrant, Request
from approvals_bot.approvals.standing import LARGEST_AMOUNT, named_scope
from approvals_bot.approvals.standing_grants import GrantUse
from approvals_bot.approvals.tool_call import TOOL


def scope_of_calls(request: Request) -> str:
    """Name the list of the allowances for calls of this tool by this agent."""
    return named_scope("allowance", [request.requester, request.on_behalf_of, request.fields[TOOL]])


def allowance_of(request: Request) -> GivenGrant | None:
    """Return the allowance that the vote which approved this call gives; None if it gives none."""
    ended = request.outcome
    if ended is None or ended.state != "approved" or ended.via in ("rule", "clock"):
        return None
    for stage in request.stages:
        for vote in stage.votes:
            given = vote.vote.allowance
            if given is not None and vote.counts and (vote.by, vote.at) == (ended.by, ended.at):
                at, values = (GivenVote(stage.id, vote.place),), _values(request, given.same)
                limits = given.count, dict(given.sum), dict(given.at_most), values
                id, until = f"allowance:{request.id}", ended.at + given.until
                grant = StandingGrant(id, request.id, request.title, at, ended.at, until, *limits)
                return GivenGrant(scope_of_calls(request), grant)
    return None


def is_permitted(grant: StandingGrant, ceilings: Allowance | None, request: Request) -> bool:
    """Return whether the file as it is for this call still permits such an allowance: it may be narrower by now."""
    if ceilings is None or request.fields[TOOL] not in ceilings.tools:
        return False
    given = CallLimits(
        same=tuple(grant.same),
        at_most=grant.at_most,
        count=grant.times,
        sum=grant.sums,
        until=grant.until - grant.given_at,
    )
    return not any(wider_places(ceilings, given))


def use_of_call(request: Request, grant: StandingGrant) -> GrantUse:
    """Return this call as a use of an allowance: with the arguments that the allowance limits."""
    amounts = dict[str, Decimal]()
    for leaf in (*grant.sums, *grant.at_most):
        found = [_number(value) for _, value in values_at(arguments_of(request), leaf.split("."))]
        if found and None not in found:
            amounts[leaf] = sum((each for each in found if each is not None), Decimal(0))
    return GrantUse(request.id, request.asked_at, _values(request, tuple(grant.same)), amounts)


def _values(request: Request, leaves: Sequence[str]) -> dict[str, JsonValue]:
    """Return what these leaves are in a call: the value, or all of them in a list for `items.*.price`."""
    found = {leaf: [value for _, value in values_at(arguments_of(request), leaf.split("."))] for leaf in leaves}
    return {leaf: [*values] for leaf, values in found.items() if values}


def _number(value: JsonValue) -> Decimal | None:
    """Return an argument that may be added up. One that an agent writes as text is of another type."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < LARGEST_AMOUNT:
        return None
    return Decimal(str(value))
