"""What must hold when all is over: the tables say what the logs say, and the logs say what replays decide."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import groupby
from typing import Any, Literal

from approvals_bot.durable.core.commands import events_of
from approvals_bot.durable.core.events import ENDINGS, FACTS, Log, NewEvent, from_micros, to_micros
from approvals_bot.durable.core.registry import registry
from approvals_bot.durable.core.replay import ReplayResult, replay
from approvals_bot.durable.store.encoding import own_pairs
from tests.support.simulation.auditor import Line, RunHistory, Violation, is_lookup
from tests.support.simulation.world import World

LONG = 50  # events; of such a log only the prefixes are replayed that were followed by a decision

_ROWS = """
    SELECT id, code, version, status, seq, view, parts, stalled, wake_at, owner, lease_until, epoch, ended_at
    FROM runs"""
_RELATIVES = "SELECT id, parent, parent_number, on_parent_close, next_run, attributes, idempotency_key FROM runs"


Replayed = Literal["whole", "decided", "all"]
"""The whole log of each run; its beginnings, too, that were followed by a decision; or all of them. It costs more than
anything else here."""


UNDECIDED = ("run_started", "step_started", "run_reset")
"""Events that no replay asks for."""

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
        _attempts(run_id, log)
        _decided(run_id, row, log, history, replayed, pairs[run_id])
    _relatives(world, pairs)
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


def _attempts(run_id: str, log: Log) -> None:
    """Each attempt begins once, after the back-off of the one before, whichever process makes it. A crash counts none.

    The time of a log never goes back, so this holds although clocks differ.
    """
    failures, due, begun = Counter[int](), dict[int, datetime](), set[tuple[int, int]]()
    for event in log:
        if event.type == "step_retrying":
            failures[event.data["id"]] += 1
            due[event.data["id"]] = from_micros(event.data["retry_at"])
        elif event.type == "step_started":
            number, attempt = event.data["id"], event.data["attempt"]
            if attempt != failures[number] + 1 or (number, attempt) in begun:
                raise Violation(
                    f"{run_id}: attempt {attempt} of step {number} has begun after {failures[number]} failed"
                )
            if event.at < due.get(number, event.at):
                raise Violation(f"{run_id}: attempt {attempt} of step {number} began before {due[number]}")
            begun.add((number, attempt))


def _replay(row: tuple[Any, ...], log: Log) -> ReplayResult:
    return replay(registry.get(row[0], row[1]), log, link=lambda hook_id: hook_id)


def _decided(
    run_id: str, row: tuple[Any, ...], log: Log, history: RunHistory, replayed: Replayed, pairs: Pairs
) -> None:
    """Each decision in the log is what a replay of all before it decides; at the end nothing is left to decide."""
    own = history.lines[history.copied :]  # the others were decided in another run
    for batch in (list(lines) for _, lines in groupby(own, key=lambda line: line.batch)):
        for begins, decided in _rounds(batch):
            if (decided and replayed != "whole") or (replayed == "all" and len(log) < LONG):
                outcome = _replay_of_prefix(run_id, row, log[:begins])
                if decided and not _is_ended_where_it_was(history, batch):
                    _same_decisions(run_id, outcome, decided)
    outcome = _replay_of_prefix(run_id, row, log)
    if history.end is None or history.end.type in ("run_completed", "run_failed"):
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


def _rounds(batch: list[Line]) -> Iterator[tuple[int, list[Line]]]:
    """Yield how many events each replay of a batch had, and what it decided.

    A look-up is the last decision of a replay, and a fact for the next one.
    """
    begins, decided = batch[0].seq - 1, list[Line]()
    for line in batch:
        is_fact = line.type in FACTS - {"run_started"} or line.type == "run_created"
        if is_fact and not is_lookup(line):
            if decided:
                yield begins, decided
            begins, decided = line.seq, []
        elif line.type not in UNDECIDED:
            decided.append(line)
            if is_lookup(line):
                yield begins, decided
                begins, decided = line.seq, []
    yield begins, decided


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
    expected = [_essence(event.type, event.data) for event in events_of(outcome.commands, now)]
    found = [_essence(line.type, line.data) for line in decided]
    if is_lookup(decided[-1]) and len(expected) >= len(found):  # what else was asked for has heard of its outcome
        number = len(found) - 1
        expected = [*expected[:number], _asked_for(events_of(outcome.commands, now)[number])]
    if expected != found:
        raise Violation(f"{run_id}: from event {decided[0].seq} on the log has {found}, a replay decides {expected}")


def _asked_for(event: NewEvent) -> tuple[Any, ...]:
    """What of a step that was asked for is in the log once it is a look-up that has ended."""
    is_step = event.type == "step_created"
    return ("look-up", event.data["id"], event.data["name"]) if is_step else _essence(event.type, event.data)


def _essence(type: str, data: dict[str, Any]) -> tuple[Any, ...]:
    """What of a decision follows from the log: not the new secrets, and not the clock of who wrote it."""
    if type in ("hook_created", "hook_conflict"):
        return ("hook", data["id"])
    if type == "step_completed":
        return ("look-up", data["id"], data["name"])
    if type == "wait_created":
        return (type, data["id"], data["kind"])
    if type == "run_failed":
        return (type, data["error"]["type"], data["error"]["message"])
    if type in ("child_started", "run_continued"):
        data = {name: value for name, value in data.items() if name not in ("run_id", "next")}
    return (type, json.dumps(data, sort_keys=True))


def _relatives(world: World, pairs: Mapping[str, Pairs]) -> None:
    """Each row names the parent and the run in its place that the logs say, and its own attributes are the log's."""
    parents, keys = world.auditor.relatives.parents, dict[str, str]()
    for run_id, *parent, following, attributes, key in world.database.rows(_RELATIVES):
        history = world.auditor.runs[run_id]
        is_child = history.next is None and (parent[0] is not None or run_id in parents)
        if is_child and tuple(parent) != parents.get(run_id):
            raise Violation(f"{run_id} is the child of {parent}, and by the logs of {parents.get(run_id)}")
        if following != history.next:
            raise Violation(f"{run_id}: in its place is {following}, and by the logs {history.next}")
        own = dict(history.lines[0].data.get("attributes", {}))
        for line in history.lines:
            if line.type == "attributes_set":
                own |= line.data["attributes"]
        own = {name: value for name, value in own.items() if value is not None}
        found = {pair for pair in pairs[run_id] if pair[0][0] != "$"}
        if json.loads(attributes) != own or found != {(name, value) for name, value, _ in own_pairs(own)}:
            raise Violation(f"{run_id} has the attributes {attributes} and {pairs[run_id]}, and by its log {own}")
        if key is not None:
            keys[key] = run_id
    for key, run_id in world.keys.items():
        if keys.get(key) != world.auditor.last(run_id):
            raise Violation(f"the key {key!r} is {keys.get(key)}'s, and must be {world.auditor.last(run_id)}'s")


def _hooks(world: World) -> None:
    """The table of hooks is what the logs say. A hook is that of the run that has got it last."""
    rows = world.database.rows("SELECT id, run_id, number, token, is_live FROM hooks")
    there = {hook_id: (*row, bool(is_live)) for hook_id, *row, is_live in rows}
    said = {
        hook["hook_id"]: (run_id, hook["id"], hook["token"], hook["id"] in history.hooks)
        for run_id, history in world.auditor.runs.items()
        for hook in _hooks_of(history)
    }
    if there != said:
        differ = {hook_id for hook_id in there.keys() | said.keys() if there.get(hook_id) != said.get(hook_id)}
        raise Violation("hooks in the table, and in the logs: " + str([(there.get(i), said.get(i)) for i in differ]))


def _hooks_of(history: RunHistory) -> list[dict[str, Any]]:
    created = (line.data for line in history.lines if line.type == "hook_created" and "adopts" not in line.data)
    return [*history.lines[0].data.get("hooks", ()), *created]


def _acked(world: World) -> None:
    """Each acknowledged payload is in the log, once and unchanged."""
    for run_id, hook_id, resume_id, payload in world.acked:
        logs = [run_id]
        while (following := world.auditor.runs[logs[-1]].next) is not None:
            logs.append(following)
        found = [_payloads(world.auditor.runs[each], hook_id, resume_id) for each in logs]
        if not any(found) or any(each not in ([], [payload]) for each in found):
            raise Violation(f"{logs}: payload {payload} ({resume_id}) was acknowledged; the logs have {found}")


def _taken_once(world: World) -> None:
    """Each payload with a `resume_id` came to one run, though its token may have belonged to several. A run in the
    place of another has it only if that one had it, too: one that was dropped, or left behind, doesn't come again."""
    taken: dict[tuple[str, str], str] = {}
    for run_id, history in world.auditor.runs.items():
        tokens = {hook["id"]: hook["token"] for hook in _hooks_of(history)}
        for line in history.lines[history.copied :]:
            if line.type == "hook_received":
                name = tokens[line.data["id"]], line.data["resume_id"]
                if name in taken:
                    raise Violation(f"{name} was taken by {taken[name]}, and again by {run_id}")
                taken[name] = run_id


def _payloads(history: RunHistory, hook_id: str, resume_id: str) -> list[Any]:
    """Of one hook: a token may be used for one hook after another."""
    hooks = [hook["id"] for hook in _hooks_of(history) if hook["hook_id"] == hook_id]
    received = (line.data for line in history.lines if line.type == "hook_received")
    return [data["payload"] for data in received if data["id"] in hooks and data["resume_id"] == resume_id]
