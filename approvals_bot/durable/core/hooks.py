"""Hooks and webhooks: how a workflow waits for the outside world, and the requests and responses they carry."""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar

from approvals_bot.durable.core.forms import (
    MULTIPART,
    URL_ENCODED,
    FormFields,
    known_charset,
    parse_form,
    parse_header,
    parse_json,
)
from approvals_bot.durable.core.loop import WorkflowLoop, is_continuation
from approvals_bot.errors import (
    CannotAnswerError,
    HookConflictError,
    HookDisposedError,
    InvalidArgumentError,
)

if TYPE_CHECKING:
    import asyncio


T = TypeVar("T")

MAX_ANSWER_BYTES, MAX_ANSWER_HEADERS = 256_000, 16_000
"""Bytes of an answer's body, which is kept in the log and replayed with it, and of its headers, which proxies limit."""

KEPT_HEADERS = frozenset({"content-type", "user-agent"})
KEPT_PREFIXES: tuple[str, ...] = ("webhook-",)
"""Headers of a call that the log keeps. Others may be credentials (cookies, keys), and many people read logs."""

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"([!-~\x80-\xff]([ \t!-~\x80-\xff]*[!-~\x80-\xff])?)?")
_PATTERN = re.compile(r"[!#$%&'+.^_`|~0-9a-z-]+\*?")
_OF_THE_SERVER = frozenset({"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"})
"""Headers that say how a message is sent, which the web server decides."""


class ResponseLike(Protocol):
    """Starlette's `Response`, or an `Answer`."""

    status_code: int

    @property
    def headers(self) -> Any: ...


class Headers(Mapping[str, str]):
    """Header fields with case-insensitive names. `items_list` keeps repeated ones."""

    def __init__(self, fields: Iterable[tuple[str, str]]) -> None:
        self.items_list = [(name.lower(), value) for name, value in fields]

    def __getitem__(self, name: str) -> str:
        for key, value in self.items_list:
            if key == name.lower():
                return value
        raise KeyError(name)

    def __iter__(self) -> Any:
        return iter(dict(self.items_list))

    def __len__(self) -> int:
        return len(dict(self.items_list))

    def getlist(self, name: str) -> list[str]:
        return [value for key, value in self.items_list if key == name.lower()]


class Answer:
    """A response without a web framework: enough for a workflow to answer its caller.

    Give `headers` as pairs if a name is repeated, as with two cookies.
    """

    def __init__(
        self,
        body: bytes | str = b"",
        status_code: int = 200,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    ) -> None:
        self.status_code = status_code
        self.headers = Headers(headers.items() if isinstance(headers, Mapping) else headers)
        self.body = body.encode() if isinstance(body, str) else bytes(body)

    @classmethod
    def json(cls, value: Any, status_code: int = 200) -> Answer:
        return cls(json.dumps(value), status_code, {"content-type": "application/json"})


def encode_response(response: Any) -> dict[str, Any]:
    """Return a response as the log keeps it.

    Raises TypeError for anything else, InvalidArgumentError for a response that HTTP can't carry.
    """
    status, body = getattr(response, "status_code", None), getattr(response, "body", None)
    if not isinstance(status, int) or not isinstance(body, bytes | bytearray | memoryview):
        raise TypeError(f"answer with a Response that has its whole body, not with {type(response).__name__}")
    if not 200 <= status <= 599:
        raise InvalidArgumentError(f"{status} is not a final HTTP status")
    if status in (204, 205, 304) and len(body):
        raise InvalidArgumentError(f"a {status} response can't have a body")
    if len(body) > MAX_ANSWER_BYTES:
        raise InvalidArgumentError(_too_long(len(body)))
    if getattr(response, "background", None) is not None:
        raise InvalidArgumentError("an answer's background task would never run: call a @step instead")
    return {"status": int(status), "headers": _answer_headers(response.headers), **encode_body(bytes(body))}


def _too_long(size: int) -> str:
    return f"an answer's body can have at most {MAX_ANSWER_BYTES:,} bytes, not {size:,}"


def _answer_headers(headers: Any) -> list[list[str]]:
    """Return an answer's headers, repeated ones too. Raises InvalidArgumentError if HTTP can't carry one."""
    kept: list[list[str]] = []
    for name, value in headers.items_list if isinstance(headers, Headers) else headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"the header {name!r}: names and values must be strings")
        if not _NAME.fullmatch(name):
            raise InvalidArgumentError(f"{name!r} can't be the name of an HTTP header")
        if not _VALUE.fullmatch(value):
            raise InvalidArgumentError(
                f"HTTP can't carry the header {name!r} with this value: it may have characters of Latin-1, but no line "
                "break or other control character, and no space at either end"
            )
        if name.lower() in _OF_THE_SERVER:
            raise InvalidArgumentError(f"the header {name!r} is the web server's to set")
        if name.lower() != "content-length":
            kept.append([name, value])
    if (size := sum(len(name) + len(value) + 4 for name, value in kept)) > MAX_ANSWER_HEADERS:
        raise InvalidArgumentError(f"an answer's headers can have at most {MAX_ANSWER_HEADERS:,} bytes, not {size:,}")
    return kept


def header_patterns(keep_headers: Iterable[str]) -> list[str]:
    """Return names of headers to keep, in lower case. One that ends in `*` stands for all that begin like it.

    Raises TypeError or InvalidArgumentError for what can't be the name of a header.
    """
    if isinstance(keep_headers, str):
        raise TypeError(f"keep_headers must be a list of names, not {keep_headers!r}")
    found = []
    for name in keep_headers:
        if not isinstance(name, str) or not _PATTERN.fullmatch(name.lower()):
            raise InvalidArgumentError(
                f"{name!r} in keep_headers can't be the name of a header, or the beginning of one and a *"
            )
        found.append(name.lower())
    return found


def encode_body(body: bytes) -> dict[str, str]:
    """Return a body as the log keeps it: as text if it is UTF-8, so people can read it; otherwise as base64."""
    try:
        return {"text": body.decode()}
    except UnicodeDecodeError:
        return {"base64": b64encode(body).decode()}


def decode_body(encoded: Mapping[str, Any]) -> bytes:
    if "base64" in encoded:
        return b64decode(encoded["base64"])
    return str(encoded.get("text", "")).encode()


class WebhookRequest:
    """A request to a webhook's URL. `json`, `text`, `body` and `form` may be called any number of times.

    request = await webhook
    order = await request.json()

    `headers` has those that the webhook keeps (`create_webhook(keep_headers=…)`).
    """

    def __init__(
        self,
        method: str = "POST",
        url: str = "",
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        *,
        respond: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self.method = method.upper()
        self.url = url
        self.headers = Headers(headers)
        self._body = body
        self._respond = respond

    @classmethod
    def of_json(cls, value: Any, url: str = "") -> WebhookRequest:
        """Make a POST request that carries a JSON value."""
        return cls("POST", url, [("content-type", "application/json")], json.dumps(value).encode())

    async def body(self) -> bytes:
        return self._body

    async def text(self) -> str:
        """Return the body as text, in the charset of its content type (UTF-8 by default). Never raises."""
        declared = parse_header(self.headers.get("content-type", ""))[1].get("charset")
        return self._body.decode(known_charset(declared) or "utf-8", errors="replace")

    async def json(self) -> Any:
        """Return the body, parsed as JSON. Raises MalformedBodyError, a ValueError, if it isn't JSON.

        NaN and Infinity aren't, nor are numbers beyond the largest float or more than 100 levels.
        """
        return parse_json(self._body)

    async def form(self) -> FormFields:
        """Return the fields of a form, URL-encoded or multipart. Repeated fields are lists, files are FormFiles.

        Raises MalformedBodyError, a ValueError, if the body isn't a form.
        """
        return parse_form(self.headers.get("content-type", ""), self._body)

    def check_form(self) -> None:
        """Raise MalformedBodyError if the content type announces a form that the body isn't."""
        content_type = self.headers.get("content-type", "")
        if parse_header(content_type)[0] in (URL_ENCODED, MULTIPART):
            parse_form(content_type, self._body)

    async def respond_with(self, response: Any) -> None:
        """Answer this caller, once. The webhook must have been created with `respond_with="manual"`.

        await request.respond_with(Response("Thanks!", 200))
        """
        self._answer(encode_response(response))

    async def respond_json(self, value: Any) -> None:
        """Answer this caller with a JSON value, once, as `respond_with` does with a Response.

        await request.respond_json({"booked": True})
        """
        text = json.dumps(value)
        if len(text) > MAX_ANSWER_BYTES:
            raise InvalidArgumentError(_too_long(len(text)))
        self._answer({"status": 200, "headers": [["content-type", "application/json"]], "text": text})

    def _answer(self, encoded: dict[str, Any]) -> None:
        if self._respond is None:
            raise CannotAnswerError(
                'the workflow can\'t answer this caller: create the webhook with respond_with="manual" for that'
            )
        self._respond(encoded)

    def encode(self, keep_headers: Iterable[str] = ()) -> dict[str, Any]:
        """Return the request as the log keeps it: with the usual headers, and those that `keep_headers` names."""
        names, prefixes = KEPT_HEADERS, KEPT_PREFIXES
        if keep_headers:
            names = names.union(keep_headers)
            prefixes += tuple(name[:-1] for name in keep_headers if name.endswith("*"))
        kept = [[name, value] for name, value in self.headers.items_list if name in names or name.startswith(prefixes)]
        return {"method": self.method, "url": self.url, "headers": kept, **encode_body(self._body)}

    @classmethod
    def decode(cls, encoded: dict[str, Any], respond: Callable[[dict[str, Any]], None] | None) -> WebhookRequest:
        fields = [(name, value) for name, value in encoded["headers"]]
        return cls(encoded["method"], encoded["url"], fields, decode_body(encoded), respond=respond)


class Waiting(Protocol):
    """The part of a run that its hooks need."""

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
    """A place where a workflow waits for payloads. Each `await` takes the next one; `async for` takes them all.

    Payloads that arrive while nothing waits are kept in order. A waiter that is cancelled (it lost a race or timed
    out) takes none.
    """

    answer: dict[str, Any] | None = None  # how a webhook answers its callers

    def __init__(self, run: Waiting, number: int, hook_id: str, token: str, metadata: Any, read: Callable[..., T]):
        self.token = token
        self.hook_id = hook_id
        self.metadata = metadata
        self._run = run
        self._number = number
        self._read = read
        self.inbox: deque[tuple[int, Any]] = deque()
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._registered: asyncio.Future[None] | None = None
        self._owner: Owner | None = None
        self._is_registered = False
        self.is_disposed = False

    def __await__(self) -> Generator[Any, None, T]:
        return self._next().__await__()

    def __aiter__(self) -> AsyncIterator[T]:
        return _Payloads(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or not is_continuation(error):  # else it moves to the next run, with its unread payloads
            self.dispose()

    async def conflict(self) -> Owner | None:
        """Wait until the token is claimed. Takes no payload.

        Returns None if this hook has the token, otherwise the id of the run that owns it.
        """
        if not self._is_registered and self._owner is None:
            if self._registered is None:
                self._registered = self._run.loop.create_future()
            await _shielded(self._run, self._registered)
        return self._owner

    def dispose(self) -> None:
        """Close the hook and free its token. Payloads that have arrived can still be taken. Repeats do nothing."""
        if self.is_disposed or self._run.loop.closing:
            return
        self.is_disposed = True
        if self._owner is None:
            self._run.dispose_hook(self._number)
        self._wake_all()

    @property
    def is_open(self) -> bool:
        """Whether payloads may still arrive."""
        return not self.is_disposed and self._owner is None

    @property
    def waits_for_token(self) -> bool:
        """Whether the workflow waits to learn if this hook got its token."""
        return self._registered is not None and not self._registered.done()

    def registered(self, owner: str | None) -> None:
        self._is_registered = owner is None
        self._owner = None if owner is None else Owner(owner)
        if self._registered is not None and not self._registered.done():
            self._registered.set_result(None)
        if owner is not None:
            self._wake_all()

    def receive(self, seq: int, payload: Any) -> None:
        if not self.is_disposed:
            self.inbox.append((seq, payload))
            self._wake_one()

    async def _next(self) -> T:
        """Take the next payload. As in `asyncio.Queue.get`, only a waiter that is running takes it from the inbox."""
        while not self.inbox:
            if self._owner is not None:
                raise HookConflictError(self.token, self._owner)
            if self.is_disposed:
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
                if self.inbox and not waiter.cancelled():
                    self._wake_one()  # the payload that woke this waiter goes to the next one
                raise
        seq, payload = self.inbox.popleft()
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
    """A hook with a signed URL. Awaiting it gives the next `WebhookRequest`."""

    @property
    def url(self) -> str:
        """The public URL. Anybody who has it can resume this run with a POST, so treat it as a secret."""
        return self._run.link(self.hook_id)


class _Payloads(AsyncIterator[T]):
    """The payloads until the hook is disposed. `break` leaves the hook open."""

    def __init__(self, hook: Hook[T]) -> None:
        self._hook = hook

    async def __anext__(self) -> T:
        try:
            return await self._hook._next()
        except HookDisposedError:
            raise StopAsyncIteration from None


class _Appearance(Generic[T]):
    """A hook at one place among several awaitables."""

    def __init__(self, hook: Hook[T]) -> None:
        self._hook = hook

    def __await__(self) -> Generator[Any, None, T]:
        return self._hook.__await__()


def each_appearance(awaitables: Iterable[Any]) -> list[Any]:
    """Give each appearance of a hook an identity of its own.

    Each `await hook` takes a payload, but asyncio waits once for an object that it is given twice:
    `gather(hook, hook)` would return one payload twice, so one click would count as two votes. Tasks and coroutines
    stay as they are: given twice, they are one result, as everywhere in Python.
    """
    return [_Appearance(each) if isinstance(each, Hook) else each for each in awaitables]


async def _shielded(run: Waiting, future: asyncio.Future[None]) -> None:
    """Wait for a future that has other waiters. Cancelling this wait must not cancel theirs."""
    if future.done():
        return
    mine: asyncio.Future[None] = run.loop.create_future()
    future.add_done_callback(lambda _: None if mine.done() else mine.set_result(None))
    await mine
