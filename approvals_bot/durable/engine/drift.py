"""Drift: what a run would do on the code of this process, before that code is deployed. Writes nothing.

An open run should go on: its replay raises nothing and doesn't end, and its hooks take what they took. A run that has
ended should end again as it did. Replaying ended runs finds a bug in handling the next payload, which no open log has.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import Any, Literal

from approvals_bot.durable.core.bugs import where_raised
from approvals_bot.durable.core.events import ENDINGS, FACTS, Event, Log, closed_by, is_whole_step
from approvals_bot.durable.core.payload_schemas import schema_of, stricter
from approvals_bot.durable.core.replay import ReplayResult
from approvals_bot.durable.core.serialization import decode
from approvals_bot.durable.engine.activation import FAILS_A_RUN
from approvals_bot.durable.engine.engine import Engine
from approvals_bot.durable.store.protocol import RunRecord
from approvals_bot.errors import ApprovalsBotError, WorkflowBugError

Change = Literal["stalls", "fails", "ends", "refuses", "differs"]
"""What would change. `ends`: an open run completes or is cancelled. `refuses`: an open hook no longer takes all that it
takes now. `differs`: an ended run ends in another way."""


@dataclass(frozen=True, slots=True)
class Drift:
    """A run that would not go on, or not end, as it does on the code that is deployed.

    `error` is the class of the error behind it, "" if there is none; `where` the line that raised it.
    """

    run_id: str
    workflow: str
    change: Change
    error: str
    where: str
    why: str


async def drift_of(engine: Engine, run_id: str) -> Drift | None:
    """Replay a run on the code of this process. Returns None if it goes on, or ends, as before."""
    found = await engine.store.read(run_id)
    if found is None:
        return None
    row, log = found
    if not row.has_ended:
        return await _drift_of_open(engine, row, log)
    return await _drift_of_ended(engine, row, log)


async def _drift_of_open(engine: Engine, row: RunRecord, log: Log) -> Drift | None:
    try:
        outcome = await _replayed(engine, row, log)
        _read_unread(outcome, log)
    except Exception as error:  # noqa: BLE001  # whatever a replay raises would stall or fail the run
        return _given_up(row, error)
    if not outcome.ended:
        why = _what_hooks_refuse(outcome, log)
        return Drift(row.id, row.workflow, "refuses", "", "", why) if why else None
    end = outcome.commands[-1].event(log[-1].at)
    if end.type == "run_failed":
        return _fails(row, end.data["error"])
    # A run that has yet to handle what came in may end because of that: a service that was stopped, or a stalled run.
    if row.status != "running" or (row.wake_at is not None and row.wake_at <= engine.now()):
        return None
    return Drift(row.id, row.workflow, "ends", "", "", f"it would end: {_described(end.type, end.data)}")


async def _drift_of_ended(engine: Engine, row: RunRecord, log: Log) -> Drift | None:
    ending = next((event for event in reversed(log) if event.type in ENDINGS), None)
    if ending is None:
        return None
    change = await _change_of_end(engine, row, log, ending)
    if change is not None and ending.type == "run_cancelled":
        # Cancelled from outside, perhaps before it could handle the last facts.
        handled = max((one.seq for one in log if one.type not in FACTS | ENDINGS or is_whole_step(one)), default=1)
        return await _change_of_end(engine, row, log[:handled], ending)
    return change


async def _change_of_end(engine: Engine, row: RunRecord, log: Log, ending: Event) -> Drift | None:
    try:
        outcome = await _replayed(engine, row, log)
    except Exception as error:  # noqa: BLE001  # whatever a replay raises would stall the run
        was = ending.data.get("error", {}).get("type") if ending.type == "run_failed" else None
        now = _given_up(row, error)
        return None if was == now.error else now
    before = _described(ending.type, ending.data)
    if not outcome.ended:
        if ending.type not in ("run_completed", "run_failed"):  # it was ended from outside
            return None
        return Drift(row.id, row.workflow, "differs", "", "", f"was: {before}; now: it would go on waiting")
    end = outcome.commands[-1].event(log[-1].at)
    if end.type == ending.type and _essence(end.data) == _essence(ending.data):
        return None
    if end.type == "run_failed" and ending.type != "run_failed":
        return _fails(row, end.data["error"])
    return Drift(row.id, row.workflow, "differs", "", "", f"was: {before}; now: {_described(end.type, end.data)}")


async def _replayed(engine: Engine, row: RunRecord, log: Log) -> ReplayResult:
    workflow = engine.registry.get(row.code, row.version)
    return await engine.replayer.replay(workflow, log, secrets.token_bytes(32))


def _read_unread(outcome: ReplayResult, log: Log) -> None:
    """Decode the payloads that typed hooks have taken, also those that nobody has awaited yet."""
    for event in log:
        schema = outcome.schemas.get(event.data["id"]) if event.type == "hook_received" else None
        if schema is not None:
            decode(event.data["payload"], schema)


def _what_hooks_refuse(outcome: ReplayResult, log: Log) -> str:
    """Return what an open hook no longer takes; "" if each takes all that it took when it opened."""
    closed = {number for event in log for number in closed_by(event)}
    for event in log:
        if event.type == "hook_created" and "schema" in event.data and event.data["id"] not in closed:
            annotation = outcome.schemas.get(event.data["id"])
            now = None if annotation is None else schema_of(annotation)
            if now is not None and (why := stricter(event.data["schema"], now)):
                return f"its hook is stricter: {why}"
    return ""


def _given_up(row: RunRecord, error: Exception) -> Drift:
    """Return what becomes of a run whose replay raises this, as `Activation` decides it."""
    change: Change = "fails" if isinstance(error, FAILS_A_RUN) else "stalls"
    match error:
        case WorkflowBugError():
            kind, where, why = error.cause_type, error.where, error.cause_message
        case ApprovalsBotError():  # the engine raised it, so its lines say nothing about the workflow's code
            kind, where, why = type(error).__name__, "", str(error)
        case _:
            kind, where, why = type(error).__name__, where_raised(error), str(error)
    return Drift(row.id, row.workflow, change, kind, where, why)


def _fails(row: RunRecord, error: dict[str, Any]) -> Drift:
    return Drift(row.id, row.workflow, "fails", error["type"], error.get("where", ""), error["message"])


def _essence(data: dict[str, Any]) -> Any:
    """Return what must be equal for two ends of one type to be the same: the result, or the error's class and text."""
    match data:
        case {"error": {"type": kind, "message": message}}:
            return kind, message
        case {"result": result}:
            return result
        case _:
            return None


SHOWN = 200  # characters of a result or reason


def _described(type: str, data: dict[str, Any]) -> str:
    """Say how a run ended: `completed with "paid"`."""
    match type, data:
        case "run_completed", {"result": result}:
            return f"completed with {_short(json.dumps(result, ensure_ascii=False))}"
        case "run_failed", {"error": error}:
            return f"failed with {error['type']}: {_short(error['message'])}"
        case "run_cancelled", {"reason": str(reason)} if reason:
            return f"cancelled: {_short(reason)}"
        case _:
            return "cancelled"


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
