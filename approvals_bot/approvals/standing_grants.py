"""Standing grants: approvals that also cover later requests, within limits and until a time.

Two kinds share this: `[standing]` of a workflow's file, given by the votes of its stages, and the allowance of one
person for the next calls of an agent's tool. Each is a `StandingGrant` in a list of the store, which replicas change
one at a time, so no limit is ever exceeded. The rules are pure functions over the list; `StandingGrants` keeps it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, Protocol

from pydantic import ConfigDict, JsonValue, TypeAdapter

from approvals_bot.approvals.given_grants import StandingGrant
from approvals_bot.approvals.json_values import same_json
from approvals_bot.durable.core.api import resource, step
from approvals_bot.durable.core.serialization import Proven

MOST_GRANTS = 50
"""Grants in one list, those that are over included. The oldest of those are dropped first."""

StandingState = Literal["active", "ended", "used_up", "revoked"]
"""`ended`: its time is over; `used_up`: it has covered as many requests as it may."""


@dataclass(frozen=True, slots=True)
class GrantUse:
    """A request that a grant may cover: when it opened, and its values that limits name.

    What a request doesn't have, or what is no amount, is missing; a grant that limits it doesn't cover the request.
    """

    request: str
    opened_at: datetime
    values: dict[str, JsonValue] = field(default_factory=dict)
    amounts: dict[str, Decimal] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Revoked:
    """The end of a grant before its time."""

    by: str
    at: datetime
    reason: str = ""


@dataclass(frozen=True, slots=True)
class CountedGrant:
    """A grant, the requests that it has covered, and its end before its time, if that came."""

    grant: StandingGrant
    uses: tuple[GrantUse, ...] = ()
    revoked: Revoked | None = None

    def state(self, at: datetime) -> StandingState:
        if self.revoked is not None:
            return "revoked"
        if at >= self.grant.until:
            return "ended"
        return "used_up" if len(self.uses) >= self.grant.times else "active"

    def total(self, name: str) -> Decimal:
        """Return what this field of all covered requests adds up to."""
        return sum((use.amounts.get(name, Decimal(0)) for use in self.uses), Decimal(0))

    def covers(self, use: GrantUse, at: datetime) -> bool:
        """Return whether the limits leave room for this request."""
        grant = self.grant
        if self.state(at) != "active" or use.opened_at <= grant.given_at:
            return False
        if any(name not in use.values or not same_json(use.values[name], value) for name, value in grant.same.items()):
            return False
        for name, most in grant.at_most.items():
            if name not in use.amounts or use.amounts[name] > most:
                return False
        for name, most in grant.sums.items():
            if name not in use.amounts or self.total(name) + use.amounts[name] > most:
                return False
        return True


@dataclass(frozen=True, slots=True)
class CountedUse:
    """A use that was counted: of which grant, and as which of how many."""

    grant: StandingGrant
    number: int


# ── the list, as the store keeps it ──

_KEPT: TypeAdapter[tuple[CountedGrant, ...]] = TypeAdapter(
    tuple[CountedGrant, ...], config=ConfigDict(defer_build=True)
)


def grants_in(state: Mapping[str, Any]) -> tuple[CountedGrant, ...]:
    """Return the grants of a list."""
    return _KEPT.validate_python(state.get("grants", ()))


def _state(grants: Sequence[CountedGrant]) -> dict[str, Any]:
    return {"grants": _KEPT.dump_python(tuple(grants), mode="json")}


def with_grant(state: Mapping[str, Any], grant: StandingGrant) -> dict[str, Any] | None:
    """Add a grant to the list. None: the list has had it before; it may even be over by now."""
    kept = list(grants_in(state))
    if any(each.grant.id == grant.id for each in kept):
        return None
    while len(kept) >= MOST_GRANTS:
        over = next((each for each in kept if each.state(grant.given_at) != "active"), kept[0])
        kept.remove(over)
    return _state([*kept, CountedGrant(grant)])


def with_use(
    state: Mapping[str, Any], id: str, use: GrantUse, at: datetime
) -> tuple[CountedUse | None, dict[str, Any] | None]:
    """Count a use of this grant, if there is room for it. Counted once, however often it comes."""
    kept = grants_in(state)
    for number, each in enumerate(kept):
        if each.grant.id != id:
            continue
        for place, before in enumerate(each.uses, 1):
            if before.request == use.request:
                return CountedUse(each.grant, place), None
        if not each.covers(use, at):
            return None, None
        after = replace(each, uses=(*each.uses, use))
        return CountedUse(each.grant, len(after.uses)), _state([*kept[:number], after, *kept[number + 1 :]])
    return None, None


def with_revocation(state: Mapping[str, Any], id: str, revoked: Revoked) -> dict[str, Any] | None:
    """End a grant now. None: there is none that could be ended."""
    kept = grants_in(state)
    found = [each for each in kept if each.grant.id == id and each.state(revoked.at) in ("active", "used_up")]
    if not found:
        return None
    return _state([replace(each, revoked=revoked) if each in found else each for each in kept])


class StandingGrants(Protocol):
    """The lists of grants, kept for all requests and replicas. A list is named by what its requests have in common."""

    async def give(self, scope: str, grant: StandingGrant) -> None:
        """Add a grant to the list. The same one again changes nothing."""
        ...

    async def active(self, scope: str) -> tuple[StandingGrant, ...]:
        """Return the grants that aren't over, the oldest first."""
        ...

    async def use(self, scope: str, id: str, use: GrantUse) -> CountedUse | None:
        """Count a use, if the grant has room for it. The same one again finds its own use."""
        ...


@step
async def give_grant(scope: str, grant: StandingGrant, grants: StandingGrants = resource(StandingGrants)) -> None:
    """Give a grant, from now on."""
    await grants.give(scope, grant)


@step
async def find_grants(
    scope: str, grants: StandingGrants = resource(StandingGrants)
) -> Proven[tuple[StandingGrant, ...]]:
    """Return the grants that might cover a request."""
    return await grants.active(scope)


@step
async def use_grant(
    scope: str, id: str, use: GrantUse, grants: StandingGrants = resource(StandingGrants)
) -> Proven[CountedUse | None]:
    """Count a request as covered by a grant, if it still has room for it."""
    return await grants.use(scope, id, use)


find_grants.only_reads = True


def covers_text(grant: StandingGrant, until: str) -> str:
    """Return what a grant covers, as people read it. `until`: its end, as this reader has it."""
    limits = [f"at most {grant.times:,} of them"]
    limits += [f"{name} up to {most:f} in all" for name, most in grant.sums.items()]
    limits += [f"{name} up to {most:f} in each" for name, most in grant.at_most.items()]
    of = "requests like this one" if grant.id.startswith("grant:") else "calls like this one"
    return f"The approval also covers later {of} until {until}: {', '.join(limits)}."
