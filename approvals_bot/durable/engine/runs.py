"""What the engine tells about runs and hooks."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar

from approvals_bot.durable.core.events import Event
from approvals_bot.durable.core.serialization import decode, decode_error
from approvals_bot.durable.store.protocol import ENDED, HookRow, RunRow, Status
from approvals_bot.errors import RunCancelledError, RunFailedError, RunNotFoundError

R = TypeVar("R")

NO_EVENTS = 1_000_000_000  # more than a log can have: who asks for what comes after it wants only the run's row


@dataclass(frozen=True, slots=True)
class HookInfo:
    """A hook, for those outside. `is_live`: it still takes payloads."""

    run_id: str
    hook_id: str
    token: str = field(repr=False)
    metadata: Any
    created_at: datetime
    is_webhook: bool
    is_live: bool = True
    generation: int = 1

    @classmethod
    def of(cls, row: HookRow) -> HookInfo:
        return cls(
            row.run_id,
            row.id,
            row.token,
            decode(row.metadata),
            row.created_at,
            row.is_webhook,
            row.is_live,
            row.generation,
        )


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as it stands.

    `kind` is what its workflow says that its runs are. `view` is what its author published last, `parts` what the run
    consists of for its readers, as a library on top of the engine shows it. `result` and `error` (its type and message)
    are of ended runs. What a damaged row can't tell is None, or empty.
    """

    id: str
    workflow: str
    kind: str
    status: Status
    created_at: datetime
    ended_at: datetime | None
    attributes: dict[str, str]
    view: Any = None
    parts: list[Any] = field(default_factory=list)
    result: Any = None
    error: dict[str, str] | None = None
    stalled: str | None = None

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED

    @classmethod
    def of(cls, row: RunRow) -> RunRecord:
        ending = row.ending or {}
        error: dict[str, str] | None
        match ending:
            case {"reason": reason} if row.status == "cancelled":
                error = {"type": "RunCancelled", "message": str(reason or "")}
            case {"error": {"type": str(type), "message": str(message)}}:
                error = {"type": type, "message": message}
            case _:
                error = None
        return cls(
            row.id, row.workflow, row.kind, row.status, row.created_at, row.ended_at, row.attributes, view=row.view,
            parts=row.parts, result=ending.get("result"), error=error, stalled=row.stalled,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Page:
    """Some runs, and where the next page starts."""

    records: list[RunRecord]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class Ending:
    """What ended a run: the type and data of its last event."""

    type: str
    data: dict[str, Any]


class Runs(Protocol):
    """What a handle on a run needs of the engine."""

    def decode_result(self, row: RunRow, result: Any) -> Any: ...
    async def record(self, run_id: str) -> RunRecord | None: ...
    async def wait(self, run_id: str, seconds: float | None = None) -> RunRecord: ...
    async def until_ended(self, run_id: str) -> tuple[RunRow, Ending]: ...
    async def events(self, run_id: str) -> list[Event]: ...
    async def cancel(self, run_id: str, reason: str | None = None) -> None: ...
    async def wake_up(self, run_id: str) -> int: ...


class Run(Generic[R]):
    """A handle on a run. Making one never fails, whether or not the run exists."""

    def __init__(self, engine: Runs, run_id: str, *, is_new: bool = False) -> None:
        self.id = run_id
        self.is_new = is_new
        self._engine = engine

    async def status(self) -> Status:
        """pending, running, completed, failed, cancelled or stalled. RunNotFoundError if there is no such run."""
        return (await self._record()).status

    async def return_value(self) -> R:
        """Wait until the run has ended and give its result, typed as the workflow says.

        RunFailedError (its cause is the workflow's error), RunCancelledError, RunNotFoundError.
        """
        row, ending = await self._engine.until_ended(self.id)
        match ending.type:
            case "run_completed":
                result: R = self._engine.decode_result(row, ending.data["result"])
                return result
            case "run_cancelled":
                raise RunCancelledError(self.id, ending.data.get("reason"))
            case _:
                error = ending.data["error"]
                raise RunFailedError(
                    self.id, error["type"], error["message"], error.get("traceback", "")
                ) from decode_error(error)

    async def wait(self, seconds: float | None) -> RunRecord:
        """The run's record once it has ended, or when the time is up. None: however long it takes."""
        return await self._engine.wait(self.id, seconds)

    async def cancel(self, reason: str | None = None) -> None:
        """End the run as cancelled: its tokens are freed, its waits gone. RunEndedError if it had ended."""
        await self._engine.cancel(self.id, reason)

    async def wake_up(self) -> int:
        """End the sleeps that the run is in. Gives how many; timeouts keep running."""
        return await self._engine.wake_up(self.id)

    async def events(self) -> list[Event]:
        """The run's log."""
        return await self._engine.events(self.id)

    async def _record(self) -> RunRecord:
        record = await self._engine.record(self.id)
        if record is None:
            raise RunNotFoundError(self.id)
        return record
