"""Look-ups: steps that only read, made while the batch that starts them is still being decided.

An effect must not come before its cause is durable, so other steps start after their batch. A look-up has no effect. If
it ends without waiting, its outcome and the next decisions join that batch: one commit and one round of the run
instead of two. (An approval looks people up twice; see benchmarks/parts/approval.py.) The log is the same either way,
so a look-up that has to wait, fails or can't be made here is left to the activation, like any step.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from contextvars import Context
from typing import Any

from approvals_bot.durable.core.events import Log, NewEvent
from approvals_bot.durable.core.open_work import OpenStep
from approvals_bot.durable.core.replay import ReplayResult
from approvals_bot.durable.core.serialization import to_json
from approvals_bot.durable.engine.batch import Batch, decide, plan
from approvals_bot.durable.engine.cache import CachedRun
from approvals_bot.durable.store.protocol import Append


def decide_with_lookups(
    run: CachedRun, append: Append, log: Log, outcome: ReplayResult, resources: Mapping[type, Any], **options: Any
) -> Batch:
    """Decide as `decide` does, and go on for as long as that starts nothing but look-ups that end at once.

    `outcome` is that of the run's replay for `log`, which ends with the facts of `append`. `options` are for `decide`.
    """
    batch = decide(run.index, append, outcome, **options)
    while batch.starts and _may_go_on(batch, new := batch.append.events[len(append.events) :]):
        facts = [fact for state in batch.starts if (fact := look_up(state, resources)) is not None]
        log = plan(log, [*new, *facts], append.at)
        following = run.replayed.at_once(log) if run.replayed and len(facts) == len(batch.starts) else None
        if following is None:
            break
        append = append._replace(events=[*batch.append.events, *facts])
        batch = decide(run.index, append, following, **options)
    return batch


def _may_go_on(batch: Batch, events: list[NewEvent]) -> bool:
    """Return whether only look-ups start, and the batch is nothing but these events, which the log will have.

    A hook with a token of the author's may turn out to be taken.
    """
    if batch.queued or batch.append.children is not None or not batch.starts[0].step.only_reads:
        return False  # nearly always, so without a generator
    are_lookups = all(state.step.only_reads for state in batch.starts)
    return are_lookups and all(event.type != "hook_created" or "answer" in event.data for event in events)


def look_up(state: OpenStep, resources: Mapping[type, Any]) -> NewEvent | None:
    """Make a look-up. Returns its `step_completed`; None if it has to wait, or fails."""
    step, signature = state.step, state.step.signature
    with suppress(Exception):  # made again as any other step, it has the same error, which is then recorded
        args, kwargs = signature.decode_call(state.input)
        looking = step.function(*args, **kwargs, **{name: resources[kind] for name, kind in signature.needs.items()})
        try:
            Context().run(looking.send, None)
        except StopIteration as found:
            encoded = signature.result.encode(found.value, "result")
            to_json(encoded, "result")
            return NewEvent("step_completed", {"id": state.id, "result": encoded})
        looking.close()
    return None
