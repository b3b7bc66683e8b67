"""Starting runs."""

from __future__ import annotations

import platform
from functools import partial
from typing import Any

from approvals_bot.durable.core.api import Workflow
from approvals_bot.durable.core.events import Event, to_micros
from approvals_bot.durable.core.serialization import to_json
from approvals_bot.durable.engine.cache import CachedRun
from approvals_bot.durable.engine.receiving import together
from approvals_bot.durable.engine.scheduler import Scheduler
from approvals_bot.durable.store.protocol import Created, NewRun, RunRow
from approvals_bot.errors import IdempotencyConflictError

PYTHON = platform.python_version()


class Starter:
    """Creates runs, and lets them begin here where there is room."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    async def start(
        self, workflow: Workflow[Any, Any], input: dict[str, Any], key: str | None, attributes: dict[str, str]
    ) -> Created:
        """Write a run with this encoded input, or find the one that has this idempotency key.

        IdempotencyConflictError if that one has other input; LimitExceededError, SerializationError.
        """
        scheduler = self._scheduler
        now, replayer = scheduler.now(), scheduler.replayer
        run_id = f"run_{to_micros(now) // 1000:011x}{scheduler.entropy()[:8].hex()}"
        data = _facts(run_id, workflow, input, attributes)
        new = NewRun(run_id, workflow.name, workflow.code, workflow.version, data, key, attributes)
        row = RunRow.new(run_id, workflow.name, workflow.code, workflow.version, now, attributes)
        run = CachedRun(row, [Event(1, "run_created", now, data)], 0)
        lease = scheduler.ask()
        try:
            turn = None if lease is None else run.ahead(None, workflow, replayer, now, scheduler.entropy)
            then = None if turn is None else turn.append(run_id, 1, 1, now)
            created = await together(partial(scheduler.store.create, new, now, lease), then)
        except BaseException:
            run.close()
            raise
        scheduler.answered(lease)
        if turn is not None and created.then is not None:
            scheduler.go_on(run, turn, created.then)
        else:
            run.close()
            if created.claimed is not None:
                scheduler.begin(created.claimed)
            else:
                scheduler.nudge(created.run_id)
        if not created.is_new and (differs := difference(created.data, data)) is not None:
            raise IdempotencyConflictError(key or "", created.run_id, differs)
        return created


def _facts(
    run_id: str, workflow: Workflow[Any, Any], input: dict[str, Any], attributes: dict[str, str]
) -> dict[str, Any]:
    """What the log says of a run first."""
    data: dict[str, Any] = {"run_id": run_id, "workflow": workflow.name, "input": input, "python": PYTHON}
    if attributes:
        data["attributes"] = attributes
    if workflow.version is not None:
        data["version"] = workflow.version
    if workflow.signature.takes_bound:
        data["settings"] = workflow.settings
    to_json(data, "the input")
    return data


# ── Whether two starts under one idempotency key ask for the same. ──


def difference(before: Any, now: Any) -> str | None:
    """Where two starts with one key differ, by path and value. None: they don't."""
    for part in ("workflow", "input"):
        found = _first_difference(before.get(part), now.get(part), part)
        if found is not None:
            return found
    return None


def _first_difference(before: Any, now: Any, path: str) -> str | None:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*before, *(k for k in now if k not in before)]:
            found = _first_difference(before.get(key), now.get(key), f"{path}.{key}")
            if found is not None:
                return found
        return None
    return None if before == now else f"{path} was {_short(before)}, and is now {_short(now)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
