"""The two clients: `Approvals` for asyncio, `SyncApprovals` for everything else. The logic is in `exchange`."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack
from urllib.parse import urlsplit

from approvals_bot.client.decision import Decision
from approvals_bot.client.exchange import (
    Conversation,
    Heard,
    Rest,
    Sending,
    asking,
    cancelling,
    getting,
    heard_of,
    listing_open,
    requesting,
    stopping,
    waiting,
)
from approvals_bot.client.tool_request import (
    TOOL_CALL,
    AskOptions,
    OpenRequest,
    RequestOptions,
    ToolRequest,
    as_seconds,
    check_key,
    tool_request,
)
from approvals_bot.errors import ConfigError

if TYPE_CHECKING:
    import httpx2  # imported where it is used: only programs that call a service need it

URL_VARIABLE, KEY_VARIABLE = "APPROVALS_URL", "APPROVALS_KEY"
CONNECT = 5.0  # seconds for a connection

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ServiceAccess:
    """Where the service is, with which API key it is called, and how."""

    url: str
    key: str = field(repr=False)
    workflow: str = TOOL_CALL
    wait: float = 86_400.0  # seconds

    def call(self, key: str, tool: str, arguments: Mapping[str, Any], options: RequestOptions) -> ToolRequest:
        """Return the request for a tool call. Raises RequestRefusedError for arguments that aren't JSON."""
        return tool_request(key, tool, arguments, self.workflow, options)

    def seconds(self, options: AskOptions) -> float:
        """Return how long to wait."""
        wait = options.get("wait")
        return self.wait if wait is None else as_seconds(wait)

    @property
    def settings(self) -> dict[str, Any]:
        """What both kinds of HTTP clients are opened with."""
        import httpx2

        headers = {"Authorization": f"Bearer {self.key}", "Accept": "application/json"}
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=20)  # each waiting call holds one
        return {"base_url": self.url, "headers": headers, "limits": limits}


def service_access(url: str | None, key: str | None, workflow: str, wait: float | str) -> ServiceAccess:
    """Return how to reach the service, from the environment where it isn't given. Raises ConfigError or ImportError."""
    if find_spec("httpx2") is None:
        raise ImportError("The client needs one more package: pip install 'approvals-bot[client]'", name="httpx2")
    url, key = url or os.environ.get(URL_VARIABLE), key or os.environ.get(KEY_VARIABLE)
    if not url or not key:
        missing = f"url=… or {URL_VARIABLE}" if not url else f"key=… or {KEY_VARIABLE}"
        raise ConfigError(f"The approval service is unknown: give {missing}.")
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise ConfigError(f"{url!r} is not the URL of a service: write it like https://approvals.example.com.")
    return ServiceAccess(url.rstrip("/"), key, workflow, as_seconds(wait))


class Approvals:
    """Asks people about tool calls, with asyncio.

        async with Approvals("https://approvals.acme.eu", key) as ap:
            decision = await ap.ask("trip-17:call-1", "book_flight", {"flight": "LH 441", "price": 640}, to="@ops")
            if decision.approved:
                decision.require(arguments)
                …

    A key names one tool call: asking again with it, from whatever process, finds the same request and its answer. Lost
    connections and answers of 5xx are tried again; what the service refuses (4xx) is an `AgentError` at once.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        workflow: str = TOOL_CALL,
        wait: float | str = "24h",
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self.access = service_access(url, key, workflow, wait)
        self._transport = transport  # None: over the network
        self._http: tuple[asyncio.AbstractEventLoop, httpx2.AsyncClient] | None = None

    async def ask(self, key: str, tool: str, arguments: Mapping[str, Any], **options: Unpack[AskOptions]) -> Decision:
        """Request this tool call, or find its request, and wait for the decision.

        Returns a decision of state `pending` when the waiting time is over. Raises KeyReusedError, NotAllowedError,
        RequestRefusedError, or ServiceUnavailableError after the waiting time; then the tool must not run.
        """
        return await self._hold(asking(self.access.call(key, tool, arguments, options), self.access.seconds(options)))

    async def request(
        self, key: str, tool: str, arguments: Mapping[str, Any], **options: Unpack[RequestOptions]
    ) -> OpenRequest:
        """Request this tool call, or find its request, without waiting for the decision. Raises as `ask` does."""
        return await self._hold(requesting(self.access.call(key, tool, arguments, options)))

    async def wait(self, request: OpenRequest, seconds: float | str) -> Decision:
        """Wait for the decision; after so many seconds (or "24h"), its state is `pending`."""
        return await self._hold(waiting(request, as_seconds(seconds)))

    async def get(self, key: str) -> OpenRequest | Decision | None:
        """Return the request with this key while it is open, its decision afterwards, and None if there is none."""
        return await self._hold(getting(check_key(key)))

    async def cancel(self, key: str, reason: str) -> bool:
        """Withdraw the request with this key. Returns whether it was open."""
        return await self._hold(cancelling(check_key(key), reason))

    async def open(self, session: str | None = None) -> list[OpenRequest]:
        """Return this API key's open requests, or those of a session: of keys that begin with it and a colon."""
        return await self._hold(listing_open(session))

    async def stop(self, session: str, reason: str) -> int:
        """Withdraw all open requests of this session. Returns how many there were."""
        return await self._hold(stopping(check_key(session), reason))

    async def aclose(self) -> None:
        """Close the connections. Requests stay open."""
        if self._http is not None and self._http[0] is asyncio.get_running_loop():
            await self._http[1].aclose()
        self._http = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _hold(self, conversation: Conversation[T]) -> T:
        step = next(conversation)
        while True:
            try:
                step = conversation.send(await self._take(step))
            except StopIteration as end:
                result: T = end.value
                return result

    async def _take(self, step: Sending | Rest) -> Heard:
        if isinstance(step, Rest):
            if step.seconds:
                await asyncio.sleep(_spread(step.seconds))
            return Heard(time.monotonic())
        import httpx2

        try:
            answer = await self._client().request(step.method, step.path, **_options(step))
        except httpx2.RequestError as error:
            return _lost(error)
        return heard_of(time.monotonic(), answer.status_code, answer.content, answer.headers)

    def _client(self) -> httpx2.AsyncClient:
        """Return the pool of this event loop. A pool's connections belong to the loop that opened them."""
        import httpx2

        loop = asyncio.get_running_loop()
        if self._http is None or self._http[0] is not loop:
            self._http = (loop, httpx2.AsyncClient(**self.access.settings, transport=self._transport))
        return self._http[1]


class SyncApprovals:
    """Asks people about tool calls, blocking: for scripts, threads, and code that no event loop runs.

        with SyncApprovals() as ap:  # APPROVALS_URL and APPROVALS_KEY
            decision = ap.ask("trip-17:call-1", "book_flight", {"flight": "LH 441", "price": 640})

    All methods are those of `Approvals`. Threads may share one.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        workflow: str = TOOL_CALL,
        wait: float | str = "24h",
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        self.access = service_access(url, key, workflow, wait)
        import httpx2

        self._http = httpx2.Client(**self.access.settings, transport=transport)

    def ask(self, key: str, tool: str, arguments: Mapping[str, Any], **options: Unpack[AskOptions]) -> Decision:
        """Request this tool call, or find its request, and wait for the decision. As `Approvals.ask`."""
        return self._hold(asking(self.access.call(key, tool, arguments, options), self.access.seconds(options)))

    def request(
        self, key: str, tool: str, arguments: Mapping[str, Any], **options: Unpack[RequestOptions]
    ) -> OpenRequest:
        """Request this tool call, or find its request, without waiting for the decision."""
        return self._hold(requesting(self.access.call(key, tool, arguments, options)))

    def wait(self, request: OpenRequest, seconds: float | str) -> Decision:
        """Wait for the decision; after so many seconds (or "24h"), its state is `pending`."""
        return self._hold(waiting(request, as_seconds(seconds)))

    def get(self, key: str) -> OpenRequest | Decision | None:
        """Return the request with this key while it is open, its decision afterwards, and None if there is none."""
        return self._hold(getting(check_key(key)))

    def cancel(self, key: str, reason: str) -> bool:
        """Withdraw the request with this key. Returns whether it was open."""
        return self._hold(cancelling(check_key(key), reason))

    def open(self, session: str | None = None) -> list[OpenRequest]:
        """Return this API key's open requests, or those of a session: of keys that begin with it and a colon."""
        return self._hold(listing_open(session))

    def stop(self, session: str, reason: str) -> int:
        """Withdraw all open requests of this session. Returns how many there were."""
        return self._hold(stopping(check_key(session), reason))

    def close(self) -> None:
        """Close the connections. Requests stay open."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _hold(self, conversation: Conversation[T]) -> T:
        step = next(conversation)
        while True:
            try:
                step = conversation.send(self._take(step))
            except StopIteration as end:
                result: T = end.value
                return result

    def _take(self, step: Sending | Rest) -> Heard:
        if isinstance(step, Rest):
            if step.seconds:
                time.sleep(_spread(step.seconds))
            return Heard(time.monotonic())
        import httpx2

        try:
            answer = self._http.request(step.method, step.path, **_options(step))
        except httpx2.RequestError as error:
            return _lost(error)
        return heard_of(time.monotonic(), answer.status_code, answer.content, answer.headers)


def _options(step: Sending) -> dict[str, Any]:
    return {
        "json": step.body,
        "params": dict(step.query),
        "headers": dict(step.headers),
        "timeout": (min(CONNECT, step.patience), step.patience, step.patience, None),  # connect, read, write, pool
        "follow_redirects": step.method == "GET",
    }


def _lost(error: httpx2.RequestError) -> Heard:
    return Heard(time.monotonic(), detail=type(error).__name__)


def _spread(seconds: float) -> float:
    """Return between half of the pause and all of it: a service that comes up again isn't met by all at once."""
    return seconds * random.uniform(0.5, 1.0)  # noqa: S311  # it decides nothing secret
