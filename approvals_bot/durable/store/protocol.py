"""The store's protocol, and the promises that every implementation keeps:

- **Durable before it returns.** When a call that writes returns, what it wrote survives the death of the process and
  of the machine.
- **All or nothing.** Each call is one transaction. Events, the index rows they imply (tokens, status, wake time,
  attributes) and the wake itself are written together, or none of them is.
- **Decisions are compare-and-append.** `append` writes only if the log has exactly the length that was read, and only
  for the owner of the current epoch. Otherwise it says so and writes nothing.
- **Facts are appended freely, each once.** `record` appends events whose key is new, drops the others, and wakes the
  run.
- **A token has one live owner** under any concurrency. The second `hook_created` becomes a `hook_conflict`.
- **An ended run takes no more events**, and its tokens are free.
- **Time is an argument.** A store never reads a clock.
- **A list is a page over an index**: by workflow, status, openness or attribute and every combination of these, in the
  order of creation, stable while runs are added. By a range of an attribute's values, it is in the order of the values;
  a run whose value changes between two pages may be on both or on neither. Its cost depends on the page: not on the
  number of other runs, nor on how many of them share a status, a workflow, a person or a range, nor on the database's
  statistics. (A list by several attributes also reads the runs that have only the first, or the first with a range;
  one of the runs that ended lately reads all of those. A choice of several values reads a page of each.)
- **A list delays no click.** Lists, and logs that people read (`patient`), have a connection of their own, and hold no
  snapshot for longer than one call.
- **A run's index rows are as recent as its log.** Its kind and given attributes are written at its start, and the
  projection's attributes in the same transaction as the events they are derived from.
- **An act owes its line.** What the audit owes (`owes`) is written with the act, in one transaction, if that is new.
- **States of schedules and counters are compared and set.** Of several processes that decide from one version, one
  writes the next.
- **A damaged row damages nothing else.** It is listed with whatever can be read of it.

After a StoreUnavailableError the call may or may not have been carried out (its answer was lost). Every call may be
repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple, Protocol

from approvals_bot.durable.core.attributes import Attribute, Findable, Wanted
from approvals_bot.durable.core.commands import OnParentClose
from approvals_bot.durable.core.events import Event, Log, NewEvent, number_of
from approvals_bot.durable.store.audit import AuditStore, Owes
from approvals_bot.durable.store.bearers import Bearers
from approvals_bot.durable.store.documents import DocumentStore
from approvals_bot.durable.store.erasure import ErasureStore
from approvals_bot.durable.store.files import FileStore
from approvals_bot.durable.store.personal import PersonalStore
from approvals_bot.durable.store.replicas import ReplicaStore
from approvals_bot.durable.store.retention import RetentionStore
from approvals_bot.durable.store.sessions import SessionStore

Status = Literal["pending", "running", "completed", "failed", "cancelled", "reset", "continued", "stalled"]
ENDED: frozenset[Status] = frozenset({"completed", "failed", "cancelled", "reset", "continued"})
REPLACED: frozenset[Status] = frozenset({"reset", "continued"})
"""How a run ends that another one goes on in the place of: `next_run`."""


MAX_UNREAD = 100
"""Payloads that a hook keeps by default while its workflow takes none. More come only to one that nobody awaits."""

MAX_RECEIVED = 16_000_000
"""Characters of JSON that the payloads of one run may have. A replay reads them all."""

MAX_RECEIVING = 24_000
"""Events with which a run takes no more payloads. The last thousand below the engine's MAX_EVENTS are for its own
decisions, so callers can't end it."""

ENDED_HOOKS = 1_000
"""Hooks that had a token and ended, in which `look` searches for a `resume_id`. Sharing a token more often is rare."""


class Parent(NamedTuple):
    """The run that has started another as its child, and what becomes of the child when the parent ends."""

    run_id: str
    number: int  # of the command in the parent's log
    on_parent_close: OnParentClose


class RunRecord(NamedTuple):
    """A run as its row has it.

    `kind` is the workflow's word for its runs. `view` is the value its author published last; `parts` is what the run
    consists of, from its projection. `next_run` is the run in its place: it continued as that, or a reset has made it.
    Values that can't be read from a damaged row are None or empty.
    """

    id: str
    workflow: str
    code: str
    version: str | None
    kind: str
    status: Status
    created_at: datetime
    ended_at: datetime | None
    attributes: dict[str, Attribute]
    seq: int
    view: Any
    parts: list[Any]
    stalled: str | None
    wake_at: datetime | None
    epoch: int
    ending: dict[str, Any] | None  # data of the event that ended it
    next_run: str | None = None
    payload_size: int = 0  # characters of all its payloads
    most_unread: int = 0  # payloads that its body hasn't taken, of the hook that has most
    parent: Parent | None = None  # of a child
    key: str | None = None  # its idempotency key, in lists by key

    @property
    def begins_at(self) -> datetime | None:
        """When a run that was started for a later time begins. None for all others, and once it has begun."""
        is_later = self.status == "pending" and self.wake_at is not None and self.wake_at > self.created_at
        return self.wake_at if is_later else None

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED

    @property
    def result(self) -> Any:
        """The encoded return value of a completed run. None for all others."""
        return None if self.ending is None else self.ending.get("result")

    @property
    def error(self) -> dict[str, str] | None:
        """The type and message of the error or cancellation that ended the run. None for all others."""
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
        attributes: dict[str, Attribute] | None = None,
    ) -> RunRecord:
        """Return the record of a run that is being created."""
        return cls(
            id, workflow, code, version, kind, "pending", at, None, attributes or {}, 1, None, [], None, at, 0, None
        )  # fmt: skip


class NewRun(NamedTuple):
    """A run to be created: its row, and the data of its `run_created` event.

    That data names the hooks that the run has before its body creates any. `payload` is a `hook_received` of the first
    of them. If that is a repeat, a hook that had the same token took it; see `TokenTaken`.
    """

    row: RunRecord
    data: dict[str, Any]
    idempotency_key: str | None = None
    payload: NewEvent | None = None
    owes: Owes | None = None  # the audit's line of its start

    def events(self) -> list[NewEvent]:
        """Return the events that the run's log begins with."""
        created = NewEvent("run_created", self.data)
        return [created] if self.payload is None else [created, self.payload]


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
        """Return the row of a hook as its `hook_created` opens it."""
        data = created.data
        answer, schema = data.get("answer"), bool(data.get("has_schema"))
        return cls(
            data["hook_id"], run_id, number_of(created), data["token"], answer is not None, schema, answer,
            data.get("metadata"), created.at, 1, True,
        )  # fmt: skip


class Successor(NamedTuple):
    """A run that begins with a log, and takes the place of another one.

    The hooks in the log, open or not, move to it, and so do the children in the log that haven't ended. They keep their
    IDs, and have the numbers of this log. What a hook has taken in the run that had it stays taken: a repeat of it is
    answered, and isn't another payload. The idempotency key moves, too.
    """

    row: RunRecord
    log: Log
    holder: str  # the run that has the idempotency key
    unread: Mapping[int, int] | None = None  # payloads that a body hasn't taken, by hook


class Reset(NamedTuple):
    """A run that begins with the first events of another one, and takes its place.

    It was planned from a read of the old run: `expected` is the length of that log, and `next_run` is what its row had.
    """

    old: str
    expected: int
    next_run: str | None
    successor: Successor
    cancel_until: datetime | None = None  # as in `Append`: of children that don't move

    owes: Owes | None = None  # the audit's line of it

    def end(self) -> NewEvent:
        """Return the event that ends the old run, if it is open."""
        new = self.successor
        return NewEvent("run_reset", {"next": new.row.id, "to": new.log[0].data["reset_of"]["seq"]})


class WasReset(NamedTuple):
    """The old run's last event, if the reset has ended it."""

    events: list[Event]


class TokenTaken(NamedTuple):
    """The refusal of a start or a reset because a hook's token belongs to another run. Nothing was written.

    A start with a payload is also refused if a hook of that run, which has ended, has had this token and took it.
    """

    token: str
    owner: str


class Created(NamedTuple):
    """The run that was created, or the earlier one with this idempotency key.

    In the second case, `is_new` is False and nothing was written.
    """

    run_id: str
    is_new: bool
    data: dict[str, Any]  # of its run_created
    claimed: Claimed | None = None  # if a lease was given and nobody held the run
    then: list[Event] | None = None  # the events of the planned append, if it was written; instead of `claimed`


class Received(NamedTuple):
    """A payload as it is in the log."""

    event: Event
    claimed: Claimed | None = None  # if a lease was given and nobody held the run
    then: list[Event] | None = None  # the events of the planned append, if it was written; instead of `claimed`
    run_id: str | None = None  # the hook's run: another one than before if that was reset; None: as planned
    size: int = 0  # characters of all of the run's payloads now; 0 for a repeat
    kept: int = 0  # payloads of the hook that wait for the body, this one among them


class Full(NamedTuple):
    """The refusal of a payload, because its hook or run has too many. Nothing was written."""

    limit: str
    maximum: int


class ChildWrites(NamedTuple):
    """What a batch does to a run's children: those to create, one for each `child_started`, and those to cancel."""

    started: Sequence[NewRun]
    given_up: Sequence[int]  # by number


class Append(NamedTuple):
    """A batch of decisions to append. `expected` is the length of the log that they were made from.

    As `then` of another write, it holds the decisions planned for the log with that write in it: `epoch` is the one
    that claiming the run would give, and `expected` counts the events of that write. If somebody holds the run or its
    log has changed, only the first write takes place, and the decisions are made again.
    """

    run_id: str
    epoch: int
    expected: int
    events: list[NewEvent]
    at: datetime
    view: Any = None  # None: unchanged
    parts: list[Any] | None = None  # None: unchanged
    attributes: Mapping[str, Sequence[Findable]] | None = None  # all of the projection's; None: unchanged
    release: bool = False
    wake_at: datetime | None = None  # with `release`: when the run is due again
    stalled: str | None = None  # with `release`: why the run can't continue with this code
    unread: Mapping[int, int] | None = None  # payloads that the body hasn't taken, by hook; None: unchanged
    successor: Successor | None = None  # the run in its place, if the batch ends this one as continued
    own: Mapping[str, Attribute] | None = None  # the run's own attributes, all of them; None: unchanged
    children: ChildWrites | None = None  # what it does to the run's children, apart from ending the run
    cancel_until: datetime | None = None  # how long children that are cancelled by it may tidy up; None: not at all


class Appended(NamedTuple):
    """The events as they are in the log now (a hook that lost its token is a `hook_conflict`)."""

    events: list[Event]


@dataclass(frozen=True, slots=True)
class Stale:
    """The refusal of an append because the log has grown. Nothing was written; read the log again."""


@dataclass(frozen=True, slots=True)
class Fenced:
    """The refusal of an append because the run has another owner or has ended.

    Nothing was written; stop working on the run.
    """


class Claim(NamedTuple):
    """The right to work on a run, until the lease ends."""

    run_id: str
    epoch: int


class Claimed(NamedTuple):
    """A claim, and the run as it was when it was claimed. `taken_over`: another process had let its lease end."""

    claim: Claim
    row: RunRecord
    log: Log
    taken_over: bool = False


class Lease(NamedTuple):
    """A request for a claim: by this owner, at this time, valid until then."""

    owner: str
    at: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class Filter:
    """The runs to list, and their order.

    `attributes` must all match: be equal to a value, be one of several, or be within a range (`conditions_of`). Those
    of projections have names that start with `$`, the others are the runs' own. `is_open` is whether the run hasn't
    ended. With `ended_since`, the list has the runs that have ended since then, in the order of their ends. Else with
    `keys`, it has the runs with an idempotency key in one of these ranges, both ends included, by key, the greatest
    first. Else with a range, it has the order of the first attribute that has one, the greatest value first.
    `opened_after` (included) and `opened_before` (excluded) bound the time at which the runs began, in a list in that
    order.
    """

    workflow: str | None = None
    status: Status | None = None
    attributes: Mapping[str, Wanted] = field(default_factory=dict)
    is_open: bool | None = None
    ended_since: datetime | None = None
    oldest_first: bool = False
    cursor: str | None = None
    limit: int = 50
    keys: Sequence[tuple[str, str]] | None = None
    opened_after: datetime | None = None
    opened_before: datetime | None = None


class StateRow(NamedTuple):
    """The state of a schedule or a counter, as it was written last. `version` counts its writes."""

    name: str
    version: int
    state: dict[str, Any]


def why_full(unread: int, received: int, seq: int, most: int = MAX_UNREAD) -> Full | None:
    """Return why a hook takes no payload: how many are unread, or how many characters or events the run would have."""
    if unread >= most:
        return Full("unread payloads of a hook", most)
    if received > MAX_RECEIVED:
        return Full("characters of payloads of a run", MAX_RECEIVED)
    if seq >= MAX_RECEIVING:
        return Full("events of a run that takes payloads", MAX_RECEIVING)
    return None


class Store(AuditStore, Protocol):
    """A store of runs, and of the audit. The module's docstring says what each call promises."""

    async def create(
        self, run: NewRun, at: datetime, lease: Lease | None = None, then: Append | None = None
    ) -> Created:
        """Create a run that is due at once, or at its row's `wake_at` if that is later, with its `run_created`.

        In the same transaction, claim it if a lease is given, and append the planned batch `then`.
        """

    async def create_with_hooks(
        self, run: NewRun, at: datetime, lease: Lease | None = None, then: Append | None = None
    ) -> Created | TokenTaken:
        """Create a run as `create` does, with the hooks that it has before its body creates any.

        Their tokens are claimed in the same transaction, and nothing is written if another live hook has one.
        """

    async def read(self, run_id: str, after: int = 0, *, patient: bool = False) -> tuple[RunRecord, Log] | None:
        """Return a run and its events with `seq > after`, from one consistent read. None if there is no such run.

        A `patient` caller lets the work on runs go first.
        """

    async def last(self, run_id: str) -> str:
        """Return the ID of the run that goes on in the place of this one now.

        It is the same run if that hasn't ended as `reset` or `continued`, or if there is none.
        """

    async def append(self, batch: Append) -> Appended | Stale | Fenced:
        """Append a batch, update the run's row, and release its lease if the batch says so.

        A batch that ends the run as continued creates its successor in the same transaction, due at once.
        """

    async def record(self, run_id: str, facts: list[NewEvent], at: datetime, owes: Owes | None = None) -> list[Event]:
        """Append the facts whose key is new, and wake the run. Without facts, wake it.

        Returns the events of all these facts; for a repeat, the one that is already in the log. An ended or unknown run
        takes no new facts, and they are missing from the list.
        """

    async def receive(
        self,
        hook_id: str,
        resume_id: str,
        payload: Any,
        at: datetime,
        lease: Lease | None = None,
        then: Append | None = None,
        also: dict[str, Any] | None = None,
        owes: Owes | None = None,
        most: int = MAX_UNREAD,
    ) -> Received | Full | None:
        """Append a `hook_received` if the hook is live, and wake its run. `also` is more data for that event.

        In the same transaction, claim the run if a lease is given and nobody holds it, and append the planned batch
        `then`. A repeated `resume_id` returns the first event, also when the hook is no longer live, and when the hook
        took it in a run that has continued as this one. Returns None if
        the hook isn't live and hasn't taken this `resume_id`; Full, if the payload would be one too many: one more
        than `most` that are unread, or see `why_full`. Payloads count as unread until a decision says otherwise
        (`Append.unread`).
        """

    async def reset(self, reset: Reset, at: datetime) -> WasReset | Stale | TokenTaken:
        """Create a run with this log that is due at once, and give it the old run's hooks and idempotency key.

        In the same transaction, the old run names it, and ends as `reset` if it hasn't ended. Its hooks keep their IDs
        and tokens; those that the log leaves open are live again. The new run's epoch is higher than the old one's, so
        whatever was planned for the old run doesn't fit it. Repeats do nothing.
        """

    async def claim(self, lease: Lease, limit: int = 1, run_id: str | None = None) -> list[Claimed]:
        """Claim up to `limit` due runs that nobody holds; with `run_id`, that run, due or not."""

    async def renew(self, claims: list[Claim], lease_until: datetime) -> None:
        """Extend the leases of these claims, except where another owner has claimed the run since.

        A claim whose answer was lost isn't among them, so its lease ends on its own.
        """

    async def hook(self, *, token: str | None = None, hook_id: str | None = None) -> HookRow | None:
        """Return the live hook with this token, or the hook with this id, live or not."""

    async def look(
        self, most: int, *, token: str | None = None, hook_id: str | None = None, resume_id: str | None = None
    ) -> tuple[HookRow, RunRecord, Log | None] | None:
        """Return the hook that `hook` would find, and its run, from one consistent read. None if there is no such hook.

        With a token and a `resume_id`, a hook that has had the token and taken this `resume_id` comes first: it is
        looked for among the last ENDED_HOOKS that are no longer live. The run's log is included if it has no more than
        `most` events.
        """

    async def taken(self, hook_id: str, resume_id: str) -> Received | None:
        """Return the payload that a hook took under this `resume_id`, live or not, perhaps in an earlier run."""

    async def runs(self, which: Filter) -> tuple[list[RunRecord], str | None]:
        """Return a page of runs, and the cursor of the next page if there is one.

        Raises ValueError for a cursor that came with no page.
        """

    async def count(self, which: Filter, most: int) -> int:
        """Return how many runs match, or `most` if there are more. Ignores the filter's cursor and limit."""

    async def next_wake(self, owner: str, at: datetime) -> datetime | None:
        """Return when there is something to claim: a run that nobody holds is due, or another owner's lease ends.

        Returns None if nothing is scheduled.
        """

    async def schedules(self) -> list[StateRow]:
        """Return the state of every schedule that has one. A state that can't be read is empty."""

    async def set_schedule(self, row: StateRow) -> bool:
        """Write a schedule's state if it has the version before this one; 0 stands for none.

        Returns whether it was written. After an error, or for a repeat, read the state to know.
        """

    async def counter(self, name: str) -> StateRow | None:
        """Return the state of what several processes count together. None if it has none. Unreadable, it is empty."""

    async def set_counter(self, row: StateRow, at: datetime, until: datetime) -> bool:
        """Write a counter's state as `set_schedule` writes a schedule's. Nobody needs it from `until` on.

        Some counters that nobody needs any more at `at` are deleted with it.
        """


SCHEMA_IS_OLDER = (
    "it has schema {version}, but this program works with {current}, and this command doesn't change it. "
    "`approvals-bot migrate` brings it up to date; a service that uses it keeps running"
)
"""The reason why a command that only reads refuses a database that it would have to migrate first."""


class OpenStore(
    Store,
    SessionStore,
    PersonalStore,
    DocumentStore,
    ReplicaStore,
    FileStore,
    RetentionStore,
    ErasureStore,
    Protocol,
):
    """A store with its connections.

    `installation` was made with the database and is held in it. It is no secret. `is_shared` is whether several
    processes are meant to serve it, `schema` the version of the schema that this program works with. `bearers`
    keeps signed URLs out of the database.
    """

    installation: str
    is_shared: bool
    bearers: Bearers

    @property
    def schema(self) -> int: ...

    async def begin_work(self) -> None:
        """Prepare for working on runs, which commands don't do.

        If it is certain that no other process works on runs, the leases of dead processes end at once.
        """

    def listen(
        self, heard: Callable[[frozenset[str] | None], None], seen: Callable[[frozenset[str]], None] | None = None
    ) -> None:
        """Call `heard` with the runs that another process has written to, as soon as this is known.

        It is called with None if any run may have changed. `seen` gets runs in which only what they show has changed:
        there is no work in that. A store that isn't notified never calls either; use `changed`.
        """

    async def changed(self) -> bool:
        """Return whether another process may have written since the last call. Cheap: called several times a second."""

    async def check(self) -> None:
        """Raise StoreUnavailableError unless the store can be written to and its schema is current."""

    async def close(self) -> None: ...
