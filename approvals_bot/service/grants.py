"""Grants of the whole store: lists, counts, and the audit's lines of what becomes of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import get_args

from pydantic import JsonValue

from approvals_bot.approvals.acts import Actor
from approvals_bot.approvals.agent_policy import TOOL_CALL
from approvals_bot.approvals.card_model import GrantState
from approvals_bot.approvals.grant_life import GrantFact, GrantLines
from approvals_bot.approvals.published import ANY_GRANT, GRANT
from approvals_bot.approvals.request import Request
from approvals_bot.approvals.standing_grants import CountedGrant, StandingState
from approvals_bot.durable.core.attributes import Wanted, projected
from approvals_bot.durable.engine import Engine, RunRecord
from approvals_bot.durable.store.audit import AuditFilter
from approvals_bot.durable.store.protocol import Filter
from approvals_bot.service.read import request_of
from approvals_bot.service.revocations import counted_grant

ListedState = GrantState | StandingState
GRANT_STATES: tuple[ListedState, ...] = tuple(dict.fromkeys((*get_args(GrantState), *get_args(StandingState))))

MOST_COUNTED = 1_000_000

PAGE = 50  # grants


@dataclass(frozen=True, slots=True)
class GrantFilter:
    """What grants must have to be listed. `attributes` are those of the runs."""

    person: str | None = None
    workflow: str | None = None
    state: ListedState | None = None
    attributes: tuple[tuple[str, Wanted], ...] = ()


@dataclass(frozen=True, slots=True)
class ListedGrant:
    """What the approval of a request gave; for a standing grant, `counted` has its uses so far."""

    record: RunRecord
    request: Request
    counted: CountedGrant | None = None

    @property
    def is_allowance(self) -> bool:
        return self.counted is not None and self.counted.grant.is_allowance


async def list_grants(
    engine: Engine, which: GrantFilter, *, cursor: str | None = None, limit: int = PAGE
) -> tuple[list[ListedGrant], str | None]:
    """Return a page of grants, the newest run first, and the cursor of the next page.

    A page of one state may be short: the state of a standing grant is looked up for each. Raises ValueError for a
    cursor that no such page gave.
    """
    attributes: dict[str, Wanted] = {projected(GRANT): which.state or ANY_GRANT, **dict(which.attributes)}
    if which.person is not None:
        attributes[projected("requested_by")] = which.person
    page = await engine.list_runs(Filter(workflow=which.workflow, attributes=attributes, cursor=cursor, limit=limit))
    found = list[ListedGrant]()
    for record in page.records:
        request = request_of(record)
        if request is None:
            continue
        if request.grant is not None and which.state in (None, request.grant.state):
            found.append(ListedGrant(record, request))
        counted = None if request.standing is None else await counted_grant(engine, request.standing)
        if counted is not None and which.state in (None, counted.state(engine.now())):
            found.append(ListedGrant(record, request, counted))
    return found, page.cursor


async def allowances_given(engine: Engine, giver: str) -> list[ListedGrant]:
    """Return the allowances that this person has given and that still cover calls, the newest first."""
    attributes: dict[str, Wanted] = {projected(GRANT): ANY_GRANT, projected("ended_vote_of"): giver}
    page = await engine.list_runs(Filter(workflow=TOOL_CALL, attributes=attributes, limit=PAGE))
    found = list[ListedGrant]()
    for record in page.records:
        request = request_of(record)
        if request is None or request.standing is None or request.outcome is None or request.outcome.by != giver:
            continue
        counted = await counted_grant(engine, request.standing)
        if counted is not None and counted.grant.is_allowance and counted.state(engine.now()) == "active":
            found.append(ListedGrant(record, request, counted))
    return found


async def count_grants(engine: Engine, workflows: Iterable[str]) -> tuple[dict[str, int], int]:
    """Return how many grants of each workflow are active, without those that have none, and how many are overdue."""
    counts = {name: await _count(engine, "active", name) for name in workflows}
    return {name: count for name, count in counts.items() if count}, await _count(engine, "overdue")


async def _count(engine: Engine, state: GrantState, workflow: str | None = None) -> int:
    which = Filter(workflow=workflow, attributes={projected(GRANT): state}, is_open=True)
    return await engine.count_runs(which, MOST_COUNTED)


class StoredGrantLines(GrantLines):
    """Lines in the audit. Each is written once: a step that has died before its end is run again."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def write(self, what: GrantFact, run_id: str, who: str, data: dict[str, JsonValue]) -> None:
        known = await self._engine.audit_lines(AuditFilter(run_id=run_id, what=what))
        if not any(line.entry.data == data for line in known):
            actor = Actor("grant", run_id)
            await self._engine.audit(what, who=who, run_id=run_id, data=dict(data), actor=actor.as_json())
