"""Hooks: where a workflow waits for the world."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar

from approvals_bot.durable.core.loop import WorkflowLoop
from approvals_bot.durable.core.webhook_requests import WebhookRequest
from approvals_bot.errors import HookConflictError, HookDisposedError

if TYPE_CHECKING:
    import asyncio


T = TypeVar("T")


class Waiting(Protocol):
    """What a hook needs of the run that waits on it."""

    @property
    def loop(self) -> WorkflowLoop: ...
    @property
    def link(self) -> Callable[[str], str]: ...
    def dispose_hook(self, number: int) -> None: ...


class Owner(str):
    """The id of the run that owns a token."""

    @property
    def run_id(self) -> str:
        return str(self)


class Hook(Generic[T]):
    """Waits for payloads from outside. Each `await` takes the next one; `async for` takes them all.

    Payloads that come while nobody waits are kept in order. Who stops waiting (lost a race, timed out) takes nothing.
    """

    def __init__(self, run: Waiting, number: int, hook_id: str, token: str, metadata: Any, read: Callable[..., T]):
        self.token = token
        self.hook_id = hook_id
        self.metadata = metadata
        self._run = run
        self._number = number
        self._read = read
        self._inbox: deque[tuple[int, Any]] = deque()
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._registered: asyncio.Future[None] | None = None
        self._owner: Owner | None = None
        self._is_registered = False
        self._is_disposed = False

    def __await__(self) -> Generator[Any, None, T]:
        return self._next().__await__()

    def __aiter__(self) -> AsyncIterator[T]:
        return _Payloads(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.dispose()

    async def conflict(self) -> Owner | None:
        """None once the token is ours; else the id of the run that owns it. Takes no payload."""
        if not self._is_registered and self._owner is None:
            if self._registered is None:
                self._registered = self._run.loop.create_future()
            await _shielded(self._run, self._registered)
        return self._owner

    def dispose(self) -> None:
        """Close the hook and free its token. Payloads that had already come can still be taken. Repeatable."""
        if self._is_disposed or self._run.loop.closing:
            return
        self._is_disposed = True
        if self._owner is None:
            self._run.dispose_hook(self._number)
        self._wake_all()

    # ── what the replay asks and delivers ──

    @property
    def is_disposed(self) -> bool:
        return self._is_disposed

    @property
    def is_open(self) -> bool:
        """Payloads may still come."""
        return not self._is_disposed and self._owner is None

    @property
    def waits_for_token(self) -> bool:
        """Somebody waits to hear whether this hook got its token."""
        return self._registered is not None and not self._registered.done()

    def registered(self, owner: str | None) -> None:
        self._is_registered = owner is None
        self._owner = None if owner is None else Owner(owner)
        if self._registered is not None and not self._registered.done():
            self._registered.set_result(None)
        if owner is not None:
            self._wake_all()

    def receive(self, seq: int, payload: Any) -> None:
        if not self._is_disposed:
            self._inbox.append((seq, payload))
            self._wake_one()

    async def _next(self) -> T:
        """As `asyncio.Queue.get`: a payload leaves the inbox only in the hands of a waiter that runs."""
        while not self._inbox:
            if self._owner is not None:
                raise HookConflictError(self.token, self._owner)
            if self._is_disposed:
                raise HookDisposedError()
            waiter: asyncio.Future[None] = self._run.loop.create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except BaseException:
                if not waiter.done():
                    waiter.cancel()
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
                if self._inbox and not waiter.cancelled():
                    self._wake_one()  # the payload that woke us goes to the next in line
                raise
        seq, payload = self._inbox.popleft()
        return self._read(seq, payload)

    def _wake_one(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _wake_all(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()


class Webhook(Hook[WebhookRequest]):
    """A hook with a signed URL. Awaiting it gives the request that came."""

    @property
    def url(self) -> str:
        """The public address: whoever has it can resume this run with a POST, so send it only to whom it concerns."""
        return self._run.link(self.hook_id)


class _Payloads(AsyncIterator[T]):
    """All payloads until the hook is disposed. `break` leaves the hook open."""

    def __init__(self, hook: Hook[T]) -> None:
        self._hook = hook

    async def __anext__(self) -> T:
        try:
            return await self._hook._next()
        except HookDisposedError:
            raise StopAsyncIteration from None


async def _shielded(run: Waiting, future: asyncio.Future[None]) -> None:
    """Wait for a future that others wait for too: who is cancelled must not cancel it for them."""
    if future.done():
        return
    mine: asyncio.Future[None] = run.loop.create_future()
    future.add_done_callback(lambda _: None if mine.done() else mine.set_result(None))
    await mine
