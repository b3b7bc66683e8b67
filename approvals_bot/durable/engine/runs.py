"""Runs and hooks as callers outside a workflow see them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar

from approvals_bot.durable.core.events import Event
from approvals_bot.durable.core.remote_errors import decode_error
from approvals_bot.durable.core.serialization import decode
from approvals_bot.durable.store.protocol import HookRow, RunRecord, Status
from approvals_bot.errors import RunCancelledError, RunFailedError, RunNotFoundError

R = TypeVar("R")

NO_EVENTS = 1_000_000_000  # `read(after=…)`: more than a log can have, so only the run's record is read


@dataclass(frozen=True, slots=True)
class HookInfo:
    """A hook as callers outside its workflow see it."""

    _row: HookRow = field(repr=False)  # it has the token, which is a secret

    @property
    def run_id(self) -> str:
        return self._row.run_id

    @property
    def hook_id(self) -> str:
        return self._row.id

    @property
    def token(self) -> str:
        return self._row.token

    @property
    def metadata(self) -> Any:
        return decode(self._row.metadata)

    @property
    def created_at(self) -> datetime:
        return self._row.created_at

    @property
    def is_webhook(self) -> bool:
        return self._row.is_webhook

    @property
    def is_live(self) -> bool:
        """Whether it still takes payloads."""
        return self._row.is_live

    @property
    def generation(self) -> int:
        """The generation of the hook's signed links. Links of any other generation are void."""
        return self._row.generation


@dataclass(frozen=True, slots=True)
class Page:
    """A page of runs, and the cursor of the next page."""

    records: list[RunRecord]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class Ending:
    """The event that ended a run: its type and data."""

    type: str
    data: dict[str, Any]


class Runs(Protocol):
    """The part of the engine that a handle on a run needs."""

    def decode_result(self, row: RunRecord, result: Any) -> Any: ...
    async def record(self, run_id: str) -> RunRecord | None: ...
    async def wait(self, run_id: str, seconds: float | None = None) -> RunRecord: ...
    async def until_ended(self, run_id: str) -> tuple[RunRecord, Ending]: ...
    async def last(self, run_id: str) -> str: ...
    async def events(self, run_id: str) -> list[Event]: ...
    async def cancel(self, run_id: str, reason: str | None = None) -> None: ...
    async def retry(self, run_id: str) -> None: ...
    async def attempt(self, run_id: str) -> Run[Any]: ...
    async def wake_up(self, run_id: str) -> int: ...


class Run(Generic[R]):
    """A handle on a run. Making one never fails, whether or not the run exists.

    run = await engine.start(expense, 420)
    paid = await run.return_value()
    """

    def __init__(self, engine: Runs, run_id: str, *, is_new: bool = False) -> None:
        self.id = run_id
        self.is_new = is_new
        self._engine = engine

    async def status(self) -> Status:
        """Return the run's status. Raises RunNotFoundError.

        It is "pending", "running", "stalled", or how it ended: "completed", "failed", "cancelled", "reset",
        "continued".
        """
        return (await self._record()).status

    async def return_value(self) -> R:
        """Wait until the run has ended, and return its result as the workflow's return type.

        If the run has continued as a new one, or was reset while it was open, this is the result of that run.
        Raises RunFailedError (its cause is the workflow's error), RunCancelledError or RunNotFoundError.
        """
        row, ending = await self._engine.until_ended(self.id)
        while ending.type in ("run_reset", "run_continued"):
            row, ending = await self._engine.until_ended(await self._engine.last(ending.data["next"]))
        match ending.type:
            case "run_completed":
                result: R = self._engine.decode_result(row, ending.data["result"])
                return result
            case "run_cancelled":
                raise RunCancelledError(row.id, ending.data.get("reason"))
            case _:
                error = ending.data["error"]
                raise RunFailedError(row.id, error["type"], error["message"], error["traceback"]) from decode_error(
                    error
                )

    async def wait(self, seconds: float | None) -> RunRecord:
        """Return the run's record once the run has ended or `seconds` are over. None waits without a limit.

        If another run goes on in its place, this is the record of that one.
        """
        return await self._engine.wait(self.id, seconds)

    async def cancel(self, reason: str | None = None) -> None:
        """Ask the run to end as cancelled. Returns once that is durable; its body may still tidy up.

            await run.cancel("the order was withdrawn")
            await run.wait(60)

        See `Engine.cancel`. Raises RunEndedError if it had ended, RunNotFoundError.
        """
        await self._engine.cancel(self.id, reason)

    async def retry(self) -> None:
        """Let the stalled run try again at once. Raises RunNotStalledError or RunEndedError if it isn't stalled."""
        await self._engine.retry(self.id)

    async def attempt(self) -> Run[R]:
        """Return a new run with the same input, if this one failed or was cancelled. A stalled run is retried.

        Raises RunEndedError if it has completed, RunNotStalledError if it is open; see `Engine.attempt`.
        """
        return await self._engine.attempt(self.id)

    async def wake_up(self) -> int:
        """End the sleeps that the run is in, and return their number. Timeouts keep running."""
        return await self._engine.wake_up(self.id)

    async def events(self) -> list[Event]:
        """Return the run's log. Raises RunNotFoundError."""
        return await self._engine.events(self.id)

    async def _record(self) -> RunRecord:
        record = await self._engine.record(self.id)
        if record is None:
            raise RunNotFoundError(self.id)
        return record
