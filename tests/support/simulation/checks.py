"""What must hold when all is over: the tables say what the logs say, and the logs say what replays decide."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, Literal

from approvals_bot.durable.core.events import ENDINGS, FACTS, Log, from_micros, to_micros
from approvals_bot.durable.core.registry import registry
from approvals_bot.durable.core.replay import ReplayResult, replay
from tests.support.simulation.auditor import Line, RunHistory, Violation
from tests.support.simulation.world import World

LONG = 50  # events; of such a log only the prefixes are replayed that were followed by a decision

_ROWS = """
    SELECT id, code, version, status, seq, view, parts, stalled, wake_at, owner, lease_until, epoch, ended_at
    FROM runs"""


Replayed = Literal["whole", "decided", "all"]
"""The whole log of each run; its beginnings, too, that were followed by a decision; or all of them. It costs more than
anything else here."""


Pairs = dict[tuple[str, str], str]
"""The attributes that a run is found by, and with which status."""


def check(world: World, *, replayed: Replayed) -> None:
    """Raise Violation if anything is not as it must be."""
    rows = {row[0]: row[1:] for row in world.database.rows(_ROWS)}
    if set(rows) != set(world.auditor.runs):
        raise Violation(f"runs in the table: {sorted(rows)}, in the logs: {sorted(world.auditor.runs)}")
    pairs = defaultdict[str, Pairs](dict)
    for run_id, name, value, status in world.database.rows("SELECT run_id, name, value, status FROM attributes"):
        pairs[run_id][name, value] = status
    for run_id, row in rows.items():
        history = world.auditor.runs[run_id]
        log = world.database.log(run_id)
        _same_log(run_id, log, history)
        _row(run_id, row, log, history)
        _decided(run_id, row, log, history, replayed, pairs[run_id])
    _hooks(world)
    _acked(world)
    _taken_once(world)


def _same_log(run_id: str, log: Log, history: RunHistory) -> None:
    """Nothing was changed or taken out after it had been written."""
    there = [(event.seq, event.type, to_micros(event.at), event.data) for event in log]
    seen = [(line.seq, line.type, line.at, line.data) for line in history.lines]
    if there != seen:
        raise Violation(f"{run_id}: the log is {there}, but written was {seen}")


def _row(run_id: str, row: tuple[Any, ...], log: Log, history: RunHistory) -> None:
    _, _, status, seq, _, _, stalled, wake_at, owner, lease_until, epoch, ended_at = row
    types = {event.type for event in log}
    end = next(iter(types & ENDINGS), None)
    expected = end.removeprefix("run_") if end else "running" if "run_started" in types else "pending"
    if (status, seq, epoch) != (expected, len(log), history.epoch):
        raise Violation(f"{run_id}: status, seq, epoch are {(status, seq, epoch)}; log: {expected}, {len(log)}")
    if stalled is not None:
        raise Violation(f"{run_id} stalled: {stalled}")
    if owner is not None or lease_until is not None:
        raise Violation(f"{run_id} is at rest, but {owner} holds it until {lease_until}")
    if end and (wake_at is not None or ended_at != to_micros(log[-1].at)):
        raise Violation(f"{run_id} ended at {log[-1].at}; its row: wake_at {wake_at}, ended_at {ended_at}")


def _replay(row: tuple[Any, ...], log: Log) -> ReplayResult:
    return replay(registry.get(row[0], row[1]), log, link=lambda hook_id: hook_id)


def _decided(
    run_id: str, row: tuple[Any, ...], log: Log, history: RunHistory, replayed: Replayed, pairs: Pairs
) -> None:
    """Each decision in the log is what a replay of all before it decides; at the end nothing is left to decide."""
    seen = 0
    for batch in _rounds(history.lines):
        facts = sum(1 for line in batch if line.type in FACTS and line.type != "run_started")
        decided = [line for line in batch[facts:] if line.type not in ("run_started", "step_started")]
        begins = seen + facts
        seen += len(batch)
        if batch[0].type == "run_created":
            begins, decided = seen - len(batch) + 1, [line for line in decided if line.type != "run_created"]
        if (decided and replayed != "whole") or (replayed == "all" and len(log) < LONG):
            outcome = _replay_of_prefix(run_id, row, log[:begins])
            if decided and not _is_ended_where_it_was(history, batch):
                _same_decisions(run_id, outcome, decided)
    outcome = _replay_of_prefix(run_id, row, log)
    if history.end is None or history.end.type != "run_cancelled":
        _shown(run_id, row, outcome, pairs)
    if any(status != row[2] for status in pairs.values()):
        raise Violation(f"{run_id} is {row[2]}, and is found by {pairs}")
    if history.end is not None:
        return
    if outcome.commands or outcome.steps:
        raise Violation(f"{run_id} is at rest, but {outcome.commands or outcome.steps} is not done")
    wake_at = None if row[7] is None else from_micros(row[7])
    if wake_at != outcome.next_timer:
        raise Violation(f"{run_id} wakes at {wake_at}, its next timer is at {outcome.next_timer}")


def _rounds(lines: Iterable[Line]) -> Iterator[list[Line]]:
    """Yield what each replay decided, after the facts that it had: a look-up's outcome joins the batch that asked."""
    for _, batch in groupby(lines, key=lambda line: line.batch):
        together: list[Line] = []
        for line in batch:
            if together and line.type in FACTS - {"run_started"} and together[-1].type not in FACTS:
                yield together
                together = []
            together.append(line)
        yield together


def _is_ended_where_it_was(history: RunHistory, batch: list[Line]) -> bool:
    """Whether the engine has ended a cancelled run here: its time was over, it had never begun, or was stalled."""
    end, asked = batch[-1], history.cancellation
    if end.type != "run_cancelled" or asked is None:
        return False
    has_begun = any(line.type == "run_started" and line.seq < end.seq for line in history.lines)
    return asked in batch or not has_begun or end.at >= asked.data["until"]


def _shown(run_id: str, row: tuple[Any, ...], outcome: ReplayResult, pairs: Pairs) -> None:
    """What people are shown of a run, and by what it is found, is what its log means."""
    view, parts = (None if text is None else json.loads(text) for text in row[4:6])
    meant = outcome.projection
    if view != outcome.view or parts != (None if meant is None else meant.parts):
        raise Violation(f"{run_id}: it shows {view} and {parts}, its log means {outcome.view} and {meant}")
    found = {pair for pair in pairs if pair[0].startswith("$")}
    expected = (
        set() if meant is None else {(name, each) for name, values in meant.attributes.items() for each in values}
    )
    if found != expected:
        raise Violation(f"{run_id} is found by {found}, its log means {expected}")


def _replay_of_prefix(run_id: str, row: tuple[Any, ...], prefix: Log) -> ReplayResult:
    try:
        return _replay(row, prefix)
    except Exception as error:
        raise Violation(f"{run_id}: replaying its first {len(prefix)} events: {error}") from error


def _same_decisions(run_id: str, outcome: ReplayResult, decided: list[Line]) -> None:
    now = from_micros(decided[0].at)
    expected = [_essence(event.type, event.data) for event in (command.event(now) for command in outcome.commands)]
    found = [_essence(line.type, line.data) for line in decided]
    if expected != found:
        raise Violation(f"{run_id}: from event {decided[0].seq} on the log has {found}, a replay decides {expected}")


def _essence(type: str, data: dict[str, Any]) -> tuple[Any, ...]:
    """What of a decision follows from the log: not the new secrets, and not the clock of who wrote it."""
    if type in ("hook_created", "hook_conflict"):
        return ("hook", data["id"])
    if type == "wait_created":
        return (type, data["id"], data["kind"])
    if type == "run_failed":
        return (type, data["error"]["type"], data["error"]["message"])
    return (type, json.dumps(data, sort_keys=True))


def _hooks(world: World) -> None:
    """The table of hooks is what the logs say."""
    rows = world.database.rows("SELECT run_id, number, token, is_live FROM hooks")
    there = {(run_id, number, token, bool(is_live)) for run_id, number, token, is_live in rows}
    said = {
        (run_id, line.data["id"], line.data["token"], line.data["id"] in history.hooks)
        for run_id, history in world.auditor.runs.items()
        for line in history.lines
        if line.type == "hook_created"
    }
    if there != said:
        raise Violation(f"hooks in the table, but not in the logs: {there - said}; the other way: {said - there}")


def _acked(world: World) -> None:
    """Each acknowledged payload is in the log, once and unchanged."""
    for run_id, hook_id, resume_id, payload in world.acked:
        found = _payloads(world.auditor.runs[run_id].lines, hook_id, resume_id)
        if found != [payload]:
            raise Violation(f"{run_id}: payload {payload} ({resume_id}) was acknowledged; the log has {found}")


def _taken_once(world: World) -> None:
    """Each payload with a `resume_id` is in one log, though its token may have belonged to several runs."""
    taken: dict[tuple[str, str], str] = {}
    for run_id, history in world.auditor.runs.items():
        tokens = {line.data["id"]: line.data["token"] for line in history.lines if line.type == "hook_created"}
        for line in history.lines:
            if line.type == "hook_received":
                name = tokens[line.data["id"]], line.data["resume_id"]
                if name in taken:
                    raise Violation(f"{name} was taken by {taken[name]}, and again by {run_id}")
                taken[name] = run_id


def _payloads(lines: Sequence[Line], hook_id: str, resume_id: str) -> list[Any]:
    """Of one hook: a token may be used for one hook after another."""
    (hook,) = [line.data["id"] for line in lines if line.data.get("hook_id") == hook_id]
    received = (line.data for line in lines if line.type == "hook_received")
    return [data["payload"] for data in received if (data["id"], data["resume_id"]) == (hook, resume_id)]
