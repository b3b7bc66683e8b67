"""Look-ups: steps that only read, made while the batch that starts them is still being decided.

An effect must not come before its cause is durable, so other steps start after their batch. A look-up has no effect. If
it ends without waiting, its outcome and the next decisions join that batch: one commit and one round of the run
instead of two, and one event instead of three: nothing needs to be durable before a step that has no effect. (An
approval looks people up twice; see benchmarks/parts/approval.py.) A look-up that has to wait, fails or can't be made
here is left to the activation, like any step.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from contextvars import Context
from dataclasses import replace
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
        found = {state.id: fact for state in batch.starts if (fact := look_up(state, resources)) is not None}
        if len(found) < len(batch.starts) or not run.replayed:
            break
        joined = _joined(new, found)
        log = plan(log, joined, append.at)
        following = run.replayed.at_once(log)
        if following is None:
            return _to_be_replayed(batch, [*append.events, *joined])
        append = append._replace(events=[*append.events, *joined])
        batch = decide(run.index, append, following, **options)
    return batch


def _to_be_replayed(batch: Batch, events: list[NewEvent]) -> Batch:
    """Return a batch that keeps what was found. The activation replays it: that takes more time."""
    outcome = replace(batch.outcome, steps=[], replay_again=True)
    return Batch(outcome, batch.append._replace(events=events, release=False), starts=[], queued=[])


def _joined(events: list[NewEvent], found: dict[int, NewEvent]) -> list[NewEvent]:
    """Return the events with the outcome of each look-up in place of its creation. Its input isn't needed any more.

    In that place, the log's commands stay in the order of their numbers, and each of its beginnings is one that the
    code can go on from. A look-up that an earlier batch asked for has its outcome at the end.
    """
    whole = found.keys() & {event.data["id"] for event in events if event.type == "step_created"}
    joined = list[NewEvent]()
    for event in events:
        match event.type:
            case "step_created" if (number := event.data["id"]) in whole:
                joined.append(NewEvent("step_completed", {"name": event.data["name"], **found[number].data}))
            case "step_started" if event.data["id"] in whole:
                pass
            case _:
                joined.append(event)
    return [*joined, *(fact for number, fact in found.items() if number not in whole)]


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
