"""Where runs are kept. One protocol, and the promises that whoever implements it makes:

- **Durable before it returns.** When a call that writes returns, what it wrote survives the death of the process and
  of the machine.
- **All or nothing.** Each call is one transaction: events, the index rows they imply (tokens, status, wake time,
  attributes) and the wake itself are written together, or none of them.
- **Decisions are compare-and-append.** `append` writes only if the log has exactly the length that was read, and only
  for the owner of the current epoch. Otherwise it says so and writes nothing.
- **Facts are appended freely, each once.** `record` appends events whose key is new, drops those that are not, and
  wakes the run.
- **A token has one live owner**, whatever the concurrency. A `hook_created` that comes second becomes `hook_conflict`.
- **An ended run takes nothing more**, and its tokens are free.
- **Time is an argument.** A store never looks at a clock.
- **A list is a page over an index.** By time, workflow, status or attribute, in the order of creation, stable while
  runs are added. It costs what the page costs, however many other runs there are; a list of open runs looks at no
  others.
- **What a run is found by is as new as its log.** Kind and given attributes are written at its start, the projection's
  attributes with the events that they follow from, in the same transaction.
- **A damaged row damages nothing else.** It is listed with what can be read of it.

StoreUnavailableError: the call may or may not have been carried out (a lost answer). Every call may be repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple, Protocol

from approvals_bot.durable.core.events import Event, Log, NewEvent

Status = Literal["pending", "running", "completed", "failed", "cancelled", "stalled"]
ENDED: frozenset[Status] = frozenset({"completed", "failed", "cancelled"})


class RunRecord(NamedTuple):
    """A run as its row has it.

    `kind` is what its workflow says that its runs are. `view` is what the run's author published last, `parts` what the
    run consists of for its readers, as its projection has them. What a damaged row can't tell is None, or empty.
    """

    id: str
    workflow: str
    code: str
    version: str | None
    kind: str
    status: Status
    created_at: datetime
    ended_at: datetime | None
    attributes: dict[str, str]
    seq: int
    view: Any
    parts: list[Any]
    stalled: str | None
    wake_at: datetime | None
    epoch: int
    ending: dict[str, Any] | None  # data of the event that ended it

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED

    @property
    def result(self) -> Any:
        """What a completed run returned, encoded. None for all others."""
        return None if self.ending is None else self.ending.get("result")

    @property
    def error(self) -> dict[str, str] | None:
        """Type and message of what ended a run that failed or was cancelled."""
        match self.ending:
            case {"reason": reason} if self.status == "cancelled":
                return {"type": "RunCancelled", "message": str(reason or "")}
            case {"error": {"type": str(type), "message": str(message)}}:
                return {"type": type, "message": message}
            case _:
                return None

    @classmethod
    def new(
        cls,
        id: str,
        workflow: str,
        code: str,
        version: str | None,
        at: datetime,
        *,
        kind: str = "workflow",
        attributes: dict[str, str] | None = None,
    ) -> RunRecord:
        """A run as it is created."""
        return cls(
            id, workflow, code, version, kind, "pending", at, None, attributes or {}, 1, None, [], None, at, 0, None
        )  # fmt: skip


class NewRun(NamedTuple):
    """A run to be created: its row, and the data of its `run_created` event."""

    row: RunRecord
    data: dict[str, Any]
    idempotency_key: str | None = None


class HookRow(NamedTuple):
    """A hook as its index row has it."""

    id: str
    run_id: str
    number: int
    token: str
    is_webhook: bool
    has_schema: bool
    answer: dict[str, Any] | None
    metadata: Any
    created_at: datetime
    generation: int
    is_live: bool

    @classmethod
    def of(cls, run_id: str, created: Event) -> HookRow:
        """A hook as its `hook_created` opens it."""
        data = created.data
        answer, schema = data.get("answer"), bool(data.get("has_schema"))
        return cls(
            data["hook_id"], run_id, data["id"], data["token"], answer is not None, schema, answer,
            data.get("metadata"), created.at, 1, True,
        )  # fmt: skip


class Created(NamedTuple):
    """`is_new` is False if the idempotency key had been used: then nothing was written, and this is that run."""

    run_id: str
    is_new: bool
    data: dict[str, Any]  # of its run_created
    claimed: Claimed | None = None  # if a lease was given, and nobody held the run
    then: list[Event] | None = None  # what followed from it, if that could be written; instead of `claimed`


class Received(NamedTuple):
    """The payload as it stands in the log."""

    event: Event
    claimed: Claimed | None = None  # if a lease was given, and nobody held the run
    then: list[Event] | None = None  # what followed from it, if that could be written; instead of `claimed`


class Append(NamedTuple):
    """What an activation decided. `expected` is the length of the log it had read.

    As `then` of another write: what follows from that write, decided before it. `epoch` is the one that claiming the
    run would give, `expected` counts what that write adds. If the run is held, or its log is another, only the first
    write takes place, and what follows is decided anew.
    """

    run_id: str
    epoch: int
    expected: int
    events: list[NewEvent]
    at: datetime
    view: Any = None  # None: unchanged
    parts: list[Any] | None = None  # None: unchanged
    attributes: Mapping[str, Sequence[str]] | None = None  # all that the run is found by from now on; None: unchanged
    release: bool = False
    wake_at: datetime | None = None  # with `release`: when there is work again
    stalled: str | None = None  # with `release`: why this code can't go on


class Appended(NamedTuple):
    """The events as they now stand in the log (a lost token race shows as `hook_conflict`)."""

    events: list[Event]


@dataclass(frozen=True, slots=True)
class Stale:
    """The log has grown since it was read: read it again. Nothing was written."""


@dataclass(frozen=True, slots=True)
class Fenced:
    """Another owner has claimed the run, or it has ended: stop working on it. Nothing was written."""


class Claim(NamedTuple):
    """The right to work on a run, until the lease ends."""

    run_id: str
    epoch: int


class Claimed(NamedTuple):
    """A claim, and the run as it stands: who claims reads it anyway."""

    claim: Claim
    row: RunRecord
    log: Log


class Lease(NamedTuple):
    """Who asks for a claim at `at`, and until when it shall hold."""

    owner: str
    at: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class Filter:
    """Which runs to list, and in which order.

    `attributes`: the run has this value under this name, whether it was given at the start or is the projection's
    (whose names begin with `$`). `is_open`: whether the run has not ended.
    """

    workflow: str | None = None
    status: Status | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    is_open: bool | None = None
    oldest_first: bool = False
    cursor: str | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Something that happened outside any run's log."""

    what: str
    who: str | None = None
    run_id: str | None = None
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AuditLine:
    """One line of the audit. `hash` covers it and, through the line before, everything before."""

    seq: int
    at: datetime
    entry: AuditEntry
    hash: str


class Store(Protocol):
    """See the module's docstring for what each call promises."""

    async def create(
        self, run: NewRun, at: datetime, lease: Lease | None = None, then: Append | None = None
    ) -> Created:
        """Create a run that is due at once, with its `run_created`; in the same breath claim it if a lease is given,
        and append what follows from it."""

    async def read(self, run_id: str, after: int = 0) -> tuple[RunRecord, Log] | None:
        """A run and its events with `seq > after`, in one consistent look. None: no such run."""

    async def append(self, batch: Append) -> Appended | Stale | Fenced:
        """Append decisions (and facts found on the way), update view and wake time, release the lease if asked to."""

    async def record(self, run_id: str, facts: list[NewEvent], at: datetime) -> list[Event]:
        """Append facts whose key is new, and wake the run. A repeat gives the event that is there already. An ended or
        unknown run takes nothing: the list is empty, or lacks those."""

    async def receive(
        self,
        hook_id: str,
        resume_id: str,
        payload: Any,
        at: datetime,
        lease: Lease | None = None,
        then: Append | None = None,
    ) -> Received | None:
        """Append a `hook_received` if the hook is live, wake its run, claim it if a lease is given and nobody holds it,
        and append what follows. A repeated `resume_id` gives the first event. None: the hook is not live."""

    async def claim(self, lease: Lease, limit: int = 1, run_id: str | None = None) -> list[Claimed]:
        """Take over up to `limit` due runs (or this one, due or not) that nobody holds."""

    async def renew(self, claims: list[Claim], lease_until: datetime) -> None:
        """Extend the leases of these claims, as far as nobody has taken over. A claim whose answer was lost is not
        among them, so it runs out by itself."""

    async def hook(self, *, token: str | None = None, hook_id: str | None = None) -> HookRow | None:
        """The live hook of this token, or the hook of this id, live or not."""

    async def look(
        self, most: int, *, token: str | None = None, hook_id: str | None = None
    ) -> tuple[HookRow, RunRecord, Log | None] | None:
        """The hook as `hook` finds it and its run, in one consistent look; its events too, if there are no more than
        `most`. None: no such hook."""

    async def runs(self, which: Filter) -> tuple[list[RunRecord], str | None]:
        """Return a page of runs, the newest first unless asked otherwise, and the cursor of the next page if there is
        one. ValueError for a cursor that no page gave."""

    async def count(self, which: Filter, most: int) -> int:
        """Return how many runs match, or `most` if there are as many or more. The filter's cursor and limit don't
        count."""

    async def next_wake(self, owner: str, at: datetime) -> datetime | None:
        """When there is something to claim: the next run that nobody holds is due, or a lease of somebody else ends.
        None: nothing is planned."""

    async def audit(self, entry: AuditEntry | None, at: datetime) -> list[AuditLine]:
        """Add a line and return it; without an entry, return them all."""


SCHEMA_IS_OLDER = (
    "it has schema {version}, but this program works with {current}, and was asked to leave it as it is. "
    "`approvals-bot migrate` brings it up to date; a service that is running on it goes on"
)
"""Why a command that only looks refuses a database that it would have to migrate first."""


class OpenStore(Store, Protocol):
    """A store with its connections."""

    async def begin_work(self) -> None:
        """This process is going to work on runs, not only to look and write (as commands do). Where it can be known
        that no other does, the leases of dead ones end at once."""

    def listen(self, heard: Callable[[frozenset[str] | None], None]) -> None:
        """Call `heard` with the runs that another process has written to, as soon as it is known; with None if it may
        be any. A store that is told nothing never calls it: that is what `changed` is for."""

    async def changed(self) -> bool:
        """Whether another process may have written since the last call. Cheap: it is asked several times a second."""

    async def check(self) -> None:
        """StoreUnavailableError unless it can be written to and its schema is current."""

    async def close(self) -> None: ...
