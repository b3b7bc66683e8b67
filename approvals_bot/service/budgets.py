"""Budgets of agents: how many tool calls a session may ask about, what they add up to, and how many may be open.

A session is what a call's key begins with, up to the first colon, of one API key. Its counter is compared and set in
the store, so however many replicas take calls at once, none is let through above the budget. What is open is counted
from the runs themselves, so it is right whatever becomes of a request; a call that was let through counts as open until
its run is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from math import ceil
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from pydantic import JsonValue

from approvals_bot.approvals.agent_policy import MOST_CALLS, Budget, BudgetRate
from approvals_bot.approvals.call_limits import values_at
from approvals_bot.approvals.standing import amount_of
from approvals_bot.durable.core.events import from_micros, to_micros
from approvals_bot.durable.engine import Engine
from approvals_bot.durable.store.protocol import Filter, StateRow
from approvals_bot.service.read import is_decided

STARTING = timedelta(seconds=60)  # a call that was let through and has no run after this time never gets one
FEWEST_READ = 20  # open runs, of which some may be decided already
LAST = "\U0010ffff"  # comes after every character of a key


@dataclass(frozen=True, slots=True)
class BudgetSpent:
    """The refusal of a call. `what`: the budget's key in the file; `limit`: what the file says there.

    `again`: when the session may ask the next time; None if that depends on people, or never. `is_first`: nobody has
    been notified of it in this period.
    """

    session: str
    what: str
    limit: str
    again: datetime | None
    is_first: bool


@dataclass(frozen=True, slots=True)
class CountedCall:
    """A call that was let through: when, and its amounts by leaf."""

    at: datetime
    key: str
    amounts: Mapping[str, Decimal]

    @classmethod
    def read(cls, kept: Any) -> CountedCall:
        at, key, amounts = kept
        return cls(from_micros(at), key, {leaf: Decimal(text) for leaf, text in amounts.items()})

    def kept(self) -> list[Any]:
        return [to_micros(self.at), self.key, {leaf: str(amount) for leaf, amount in self.amounts.items()}]


def session_of(key: str) -> str:
    """Return the session of a call's key: `task-17` of `task-17:call_1`."""
    return key.partition(":")[0]


def amounts_of(budget: Budget, arguments: Mapping[str, JsonValue]) -> tuple[dict[str, Decimal], list[str]]:
    """Return the arguments that the budget adds up, and the leaves among them that are no amounts.

    An argument that the call doesn't have counts as nothing: other tools of a session have other arguments.
    """
    amounts, wrong = dict[str, Decimal](), list[str]()
    for leaf in budget.sum:
        for place, value in values_at(arguments, leaf.split(".")):
            amount = amount_of(value)
            if amount is None:
                wrong.append(place)
            else:
                amounts[leaf] = amounts.get(leaf, Decimal(0)) + amount
    return amounts, wrong


async def take_from_budget(
    engine: Engine, budget: Budget, opener: str, key: str, amounts: Mapping[str, Decimal]
) -> BudgetSpent | None:
    """Count this call, or return why it is one too many. Counted once, however often it comes with the same key."""
    session = session_of(key)
    name = f"budget {opener} {session}"
    locks = _locks.setdefault(engine, WeakValueDictionary())
    lock = locks.get(name)
    if lock is None:
        lock = locks[name] = asyncio.Lock()
    async with lock:  # calls of this process take turns, and don't outrun each other
        while True:
            is_decided, spent = await _try(engine, budget, name, (opener, session, key), amounts)
            if is_decided:
                return spent


_locks: WeakKeyDictionary[Engine, WeakValueDictionary[str, asyncio.Lock]] = WeakKeyDictionary()


async def _try(
    engine: Engine, budget: Budget, name: str, of: tuple[str, str, str], amounts: Mapping[str, Decimal]
) -> tuple[bool, BudgetSpent | None]:
    """Decide from the counter's newest state, and write the next one. Returns whether nobody else has written it.

    Whenever somebody has, a call of theirs was decided, so this ends.
    """
    opener, session, key = of
    now = engine.now()
    row = await engine.store.counter(name)
    state: dict[str, Any] = {} if row is None else row.state
    uses = [use for each in state.get("uses", ()) if (use := CountedCall.read(each)).at > now - _longest(budget)]
    notified = {what: at for what, at in state.get("notified", {}).items() if at > to_micros(now)}
    if any(use.key == key for use in uses):
        return True, None
    refused = _over(budget, session, uses, amounts, now)
    if refused is None and budget.open is not None and await _is_full(engine, budget.open, opener, session, uses, now):
        refused = BudgetSpent(session, "open", str(budget.open), None, is_first=True)
    if refused is None:
        uses.append(CountedCall(now, key, amounts))
    elif refused.what in notified:
        return True, BudgetSpent(session, refused.what, refused.limit, refused.again, is_first=False)
    else:
        notified[refused.what] = to_micros(refused.again or now + timedelta(hours=1))
    following = {"uses": [use.kept() for use in uses], "notified": notified}
    until = max([now + _longest(budget), *(from_micros(at) for at in notified.values())])
    written = StateRow(name, 1 if row is None else row.version + 1, following)
    return await engine.store.set_counter(written, now, until), refused


def _longest(budget: Budget) -> timedelta:
    """Return how long a use counts."""
    return max([STARTING, *(rate.period for rate in (budget.calls, *budget.sum.values()) if rate is not None)])


def _over(
    budget: Budget, session: str, uses: Sequence[CountedCall], amounts: Mapping[str, Decimal], now: datetime
) -> BudgetSpent | None:
    """Return the limit that this call would exceed. Of several, the one that lasts longest."""
    found = list[BudgetSpent]()
    if len(uses) >= MOST_CALLS:
        again = uses[0].at + _longest(budget)
        found.append(BudgetSpent(session, "calls", f"{MOST_CALLS:,} at a time", again, is_first=True))
    if budget.calls is not None:
        counted = [(use.at, Decimal(1)) for use in uses]
        found += _exceeded("calls", budget.calls, session, counted, Decimal(1), now)
    for leaf, rate in budget.sum.items():
        if leaf in amounts:
            counted = [(use.at, use.amounts[leaf]) for use in uses if leaf in use.amounts]
            found += _exceeded(f"sum.{leaf}", rate, session, counted, amounts[leaf], now)
    never = [each for each in found if each.again is None]
    return next(iter(never), None) or max(found, key=lambda each: each.again or now, default=None)


def _exceeded(
    what: str, rate: BudgetRate, session: str, uses: Sequence[tuple[datetime, Decimal]], more: Decimal, now: datetime
) -> list[BudgetSpent]:
    recent = sorted((at, amount) for at, amount in uses if at > now - rate.period)
    over = sum((amount for _, amount in recent), more) - rate.most
    if over <= 0:
        return []
    for at, amount in recent:  # the oldest leave first
        over -= amount
        if over <= 0:
            return [BudgetSpent(session, what, rate.text, at + rate.period, is_first=True)]
    return [BudgetSpent(session, what, rate.text, None, is_first=True)]  # this call alone is more than the budget


async def _is_full(
    engine: Engine, most: int, opener: str, session: str, uses: Sequence[CountedCall], now: datetime
) -> bool:
    """Return whether as many requests of the session are open, or about to be, as may be."""
    let_in = [use.key for use in uses if use.at > now - STARTING]
    starting = await _without_run(engine, opener, let_in)
    while True:
        opened = await count_open(engine, opener, session, most)
        if opened >= most:
            return True
        still = await _without_run(engine, opener, starting)
        if still == starting or opened + len(starting) < most:
            return opened + len(still) >= most
        starting = still  # some runs were created meanwhile, and may have been counted twice


async def _without_run(engine: Engine, opener: str, keys: Sequence[str]) -> list[str]:
    return [key for key in keys if not await engine.count_runs(Filter(keys=[key_of(opener, key)]), 1)]


async def count_open(engine: Engine, opener: str, session: str, most: int) -> int:
    """Return how many requests of a session are undecided, or `most` if there are more.

    The run of a decided one goes on until its cards are updated, which may take as long as Slack is away.
    """
    which, undecided = Filter(keys=keys_of(opener, session), is_open=True, limit=max(most, FEWEST_READ)), 0
    while True:
        page = await engine.list_runs(which)
        undecided += sum(not is_decided(record) for record in page.records)
        if undecided >= most or page.cursor is None:
            return min(undecided, most)
        which = replace(which, cursor=page.cursor)


def key_of(opener: str, key: str) -> tuple[str, str]:
    """Return the range of idempotency keys, for a filter, that is just this caller's key."""
    return f"{opener} {key}", f"{opener} {key}"


def keys_of(opener: str, key: str) -> list[tuple[str, str]]:
    """Return the idempotency keys of a caller, for a filter: this key, and all that go on after it with a colon.

    Without a key, they are all of the caller's.
    """
    if not key:
        return [(f"{opener} ", f"{opener} {LAST}")]
    return [key_of(opener, key), (f"{opener} {key}:", f"{opener} {key}:{LAST}")]


def seconds_until(again: datetime | None, now: datetime) -> int:
    """Return what Retry-After says: whole seconds, a minute if nobody knows."""
    return 60 if again is None else max(1, ceil((again - now).total_seconds()))
