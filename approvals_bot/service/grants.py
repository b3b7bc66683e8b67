"""Grants of the whole store: lists, counts, and the audit's lines of what becomes of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import get_args

from pydantic import JsonValue

from approvals_bot.approvals.acts import Actor
from approvals_bot.approvals.card_model import GrantState
from approvals_bot.approvals.grant_life import GrantFact, GrantLines
from approvals_bot.approvals.published import ANY_GRANT, GRANT
from approvals_bot.approvals.request import Request
from approvals_bot.durable.core.attributes import Wanted, projected
from approvals_bot.durable.engine import Engine, RunRecord
from approvals_bot.durable.store.audit import AuditFilter
from approvals_bot.durable.store.protocol import Filter
from approvals_bot.service.read import request_of

GRANT_STATES: tuple[GrantState, ...] = get_args(GrantState)

MOST_COUNTED = 1_000_000

PAGE = 50  # grants


@dataclass(frozen=True, slots=True)
class GrantFilter:
    """What grants must have to be listed. `attributes` are those of the runs."""

    person: str | None = None
    workflow: str | None = None
    state: GrantState | None = None
    attributes: tuple[tuple[str, Wanted], ...] = ()


async def list_grants(
    engine: Engine, which: GrantFilter, *, cursor: str | None = None, limit: int = PAGE
) -> tuple[list[tuple[RunRecord, Request]], str | None]:
    """Return a page of grants, each with its run and request, the newest run first, and the cursor of the next page.

    Raises ValueError for a cursor that no such page gave.
    """
    attributes: dict[str, Wanted] = {projected(GRANT): which.state or ANY_GRANT, **dict(which.attributes)}
    if which.person is not None:
        attributes[projected("requested_by")] = which.person
    page = await engine.list_runs(Filter(workflow=which.workflow, attributes=attributes, cursor=cursor, limit=limit))
    found = [(record, request_of(record)) for record in page.records]
    return [(record, one) for record, one in found if one is not None and one.grant is not None], page.cursor


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
