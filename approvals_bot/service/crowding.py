"""One person's acts on one request, limited where they would leave no room for those of others.

Each act is an event of the request's run, and a run takes a limited number. Somebody with a link could press until
nobody else gets through. So once a log is long, or nothing is taken because the run has stalled, each person has a
share.
"""

from __future__ import annotations

import json
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from approvals_bot.durable.core.events import Event
from approvals_bot.durable.engine import Engine, HookTarget

CROWDED = 300  # events of a run, from which on each person's acts are counted; few approvals have as many
MOST_ACTS = 100  # of one person on one request in such a run
MOST_WAITING = 20  # of one person while the run has stalled: its hook keeps 100 altogether
COUNTED = 1_000  # requests whose counts a process keeps


@dataclass(slots=True)
class ActCounts:
    """How often each person has acted on a request, up to an event of its log."""

    seq: int = 0
    by: Counter[str] = field(default_factory=Counter)


_counts: WeakKeyDictionary[Engine, OrderedDict[str, ActCounts]] = WeakKeyDictionary()


async def has_had_their_share(engine: Engine, target: HookTarget, address: str) -> bool:
    """Return whether one more act of this person would be taken from the others."""
    is_stalled = target.record.status == "stalled"
    if not is_stalled and target.record.seq <= CROWDED:
        return False
    kept = _counts.setdefault(engine, OrderedDict())
    counts = kept.pop(target.hook.id, None) or ActCounts()
    kept[target.hook.id] = counts
    if len(kept) > COUNTED:
        kept.popitem(last=False)
    found = await engine.store.read(target.record.id, counts.seq)
    for event in [] if found is None else found[1]:
        if event.seq > counts.seq:  # another call may have counted it meanwhile
            counts.seq = event.seq
            if event.type == "hook_received" and event.data["id"] == target.hook.number:
                counts.by[_actor(event)] += 1
    return counts.by[address] >= (MOST_WAITING if is_stalled else MOST_ACTS)


def _actor(event: Event) -> str:
    try:
        return str(json.loads(event.data["payload"]["text"])["by"])
    except (ValueError, LookupError, TypeError):
        return ""
