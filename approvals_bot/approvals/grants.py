"""Grants: what an approval gives, and how it ends. Pure.

    giving → active → ending → ended | revoked
       ↓                 ↓ ↑
    not_given          overdue

A grant is active from the moment at which its target has accepted it. At its end, or once somebody revokes it, it is
removed, which is tried until it succeeds: a grant that is overdue is never given up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from approvals_bot.approvals.acts import Extend, Rejection, Reply, Revoke
from approvals_bot.approvals.delivery import wait_before
from approvals_bot.approvals.durations import duration_text, parse_duration
from approvals_bot.approvals.grant_policy import Grant
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.reassignment import Rank
from approvals_bot.approvals.request import OVER, Request, RequestGrant
from approvals_bot.errors import ApprovalsBotError

if TYPE_CHECKING:  # cards, which commands show, need neither rules nor templates
    from approvals_bot.approvals.rules import Rules
    from approvals_bot.approvals.templates import Facts

OVERDUE_FROM = 3
"""A grant is overdue after so many failed tries to remove it."""

LONGEST_REASON = 500  # characters of a revocation's reason

FIRST_WAIT = 1.0  # seconds: what should have ended is removed again soon, so the third failure comes within four

_RARELY = ((100, timedelta()), (1_000, timedelta(hours=1)))
_MOST_RARELY = timedelta(hours=6)
"""After 100 tries, about a day, it is tried hourly, and after a month every six hours. So the tries of years fit into
the log of one run."""


class LengthError(ApprovalsBotError, ValueError):
    """A grant's length that can't be used. `code` and `params`: of the message about it."""

    def __init__(self, code: str, params: Mapping[str, JsonValue]) -> None:
        self.code = code
        self.params = params
        super().__init__(f"{code}: {dict(params)}")


def grant_length(grant: Grant, facts: Facts) -> timedelta:
    """Return how long the grant of a request with these facts lasts. Raises LengthError."""
    from approvals_bot.approvals.templates import TemplateError, render_key

    try:
        text = render_key(grant.lasts, facts).strip() if grant.is_templated else grant.lasts
    except TemplateError as error:
        raise LengthError("grant_impossible", {"why": str(error)}) from None
    return read_length(text, grant.longest)


def read_length(text: str, longest: timedelta) -> timedelta:
    """Parse the length of a grant. Raises LengthError if it is no duration, or longer than `longest`."""
    try:
        lasts = parse_duration(text)
    except ValueError:
        raise LengthError("grant_no_duration", {"given": text[:40]}) from None
    if lasts <= timedelta(0):
        raise LengthError("grant_no_duration", {"given": text[:40]})
    if lasts > longest:
        raise LengthError("grant_too_long", {"given": duration_text(lasts), "max": duration_text(longest)})
    return lasts


def length_fault(definition: Definition, facts: Facts) -> Rejection | None:
    """Return what is wrong with the length of the grant that these facts would have; None: nothing, or no grant.

    It is about the field that the length is made from, if that is one.
    """
    from approvals_bot.approvals.used_fields import names_in

    if definition.grant is None:
        return None
    try:
        grant_length(definition.grant, facts)
    except LengthError as error:
        named = [name for name in names_in(definition.grant.lasts) if name in definition.fields]
        return Rejection(tuple(named) if len(named) == 1 else (), error.code, error.params)
    return None


def fault_after_edit(request: Request, changed: dict[str, JsonValue], rules: Rules) -> Rejection | None:
    """Return what is wrong with the length of the grant if these are the fields; None: nothing."""
    from approvals_bot.approvals.rules import facts_of

    return length_fault(rules.definition, facts_of(request.but(fields=changed), rules))


@dataclass(frozen=True, slots=True)
class GrantTerms:
    """What a grant gives, as its file says it for one request: how long it lasts, and the bodies of its calls."""

    lasts: timedelta
    give: dict[str, JsonValue]
    take: dict[str, JsonValue]


def terms_of(grant: Grant, request: Request, rules: Rules) -> GrantTerms:
    """Return the terms of this request's grant. Raises LengthError or TemplateError.

    The call that removes it is rendered before anything is given, so that it can't fail afterwards.
    """
    from approvals_bot.approvals.rules import facts_of
    from approvals_bot.approvals.templates import render_json

    facts = facts_of(request, rules)
    give, take = render_json(grant.give.json_, facts), render_json(grant.take.json_, facts)
    assert isinstance(give, dict), "a table of the file stays a table"
    assert isinstance(take, dict), "a table of the file stays a table"
    return GrantTerms(grant_length(grant, facts), give, take)


def wait_before_taking(attempts: int, retry_after: timedelta | None, chance: float) -> timedelta:
    """Return the wait after so many failures to remove a grant. There is always one more try."""
    least = next((wait for most, wait in _RARELY if attempts <= most), _MOST_RARELY)
    return max(wait_before(attempts, retry_after, chance, first=FIRST_WAIT), least)


def keeps_grant(parts: Iterable[Any]) -> bool:
    """Return whether something that was given isn't removed yet, by the requests that a run has published."""
    grants = (part.get("grant") for part in parts if isinstance(part, dict))
    return any(isinstance(each, dict) and each.get("state") not in OVER for each in grants)


# ── who may revoke and extend ──


def approvers(request: Request) -> Iterator[str]:
    """Yield the people who may decide the request, or have voted."""
    for stage in request.stages:
        yield from (address for seat in stage.lists for address in seat.eligible)
        yield from (vote.by for vote in stage.votes)


def may_end(request: Request, person: str) -> bool:
    """Return whether this person may end the grant, as far as the request says: its requester or an approver."""
    return person in (request.requester, request.on_behalf_of, *approvers(request))


def is_revocable(grant: RequestGrant) -> bool:
    """Return whether this grant can still be revoked: whether nobody has begun to remove it."""
    return grant.state in ("giving", "active") and not grant.revoked_by


def refuse_revocation(request: Request, act: Revoke, rank: Rank) -> Reply | None:
    """Return why this person may not end the grant; None if they may."""
    if act.operates or rank.is_owner or rank.is_admin or may_end(request, act.by):
        return None
    if rank.errors:
        return Reply("group_unknown", code="rank_unknown")
    return Reply("not_an_approver", code="may_not_revoke")


def refuse_extension(
    request: Request, policy: Grant, act: Extend, at: datetime, *, is_asked: bool
) -> Reply | timedelta:
    """Return by how much the grant is to be extended, or why that can't be. `is_asked`: an extension is open."""
    grant = request.grant
    assert grant is not None, "the request has one"
    if act.by not in (request.requester, request.on_behalf_of):
        return Reply("not_an_approver", code="not_yours")
    if policy.extend == "never":
        return Reply("no_grant", code="never_extended")
    if grant.state != "active" or grant.until is None:
        return Reply("no_grant", code="grant_not_active", params={"state": grant.state})
    if is_asked:
        return Reply("no_grant", code="extension_open")
    try:
        lasts = read_length(act.lasts, policy.longest)
    except LengthError as error:
        return Reply("invalid", rejections=(Rejection(("lasts",), error.code, error.params),))
    if grant.until + lasts > at + policy.longest:
        left = max(at + policy.longest - grant.until, timedelta(0))
        params = {"max": duration_text(policy.longest), "left": duration_text(left)}
        return Reply("invalid", rejections=(Rejection(("lasts",), "extension_too_long", params),))
    return lasts


def reply_to_revocation(request: Request) -> Reply:
    """Reply to a revocation that its actor may make, before it takes effect."""
    grant = request.grant
    assert grant is not None, "the request has one"
    if grant.is_over:
        return Reply("revoked", code="grant_over", params={"state": grant.state})
    if grant.revoked_by:
        return Reply("revoked", code="revoked_already", params={"by": request.called(grant.revoked_by)})
    if grant.state in ("ending", "overdue"):
        return Reply("revoked", code="taking")
    return Reply("revoked", True)


def reply_without_grant(request: Request, act: Revoke | Extend) -> Reply:
    """Reply to what somebody does about a grant before the decision, or once the grant has ended."""
    if request.grant is None:
        return Reply("no_grant")
    if isinstance(act, Revoke):
        return reply_to_revocation(request)
    return Reply("no_grant", code="grant_not_active", params={"state": request.grant.state})
