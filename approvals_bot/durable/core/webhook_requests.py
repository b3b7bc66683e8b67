"""What a webhook's caller sent, and what she is answered: plain values that the log can keep."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol
from urllib.parse import parse_qsl

MAX_ANSWER_BYTES = 256_000
"""An answer's body: it lies in the log, and is replayed with it."""


class ResponseLike(Protocol):
    """Starlette's `Response`, or an `Answer`."""

    status_code: int

    @property
    def headers(self) -> Any: ...


class Headers(Mapping[str, str]):
    """Header fields; names are case-insensitive, repeated ones are kept in `items_list`."""

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
    """A response without a web framework: enough for a workflow to answer its caller."""

    def __init__(self, body: bytes | str = b"", status_code: int = 200, headers: Mapping[str, str] | None = None):
        self.status_code = status_code
        self.headers: dict[str, str] = {name.lower(): value for name, value in (headers or {}).items()}
        self.body = body.encode() if isinstance(body, str) else bytes(body)

    @classmethod
    def json(cls, value: Any, status_code: int = 200) -> Answer:
        return cls(json.dumps(value), status_code, {"content-type": "application/json"})


def encode_response(response: Any) -> dict[str, Any]:
    """A response as the log keeps it. TypeError for anything else, ValueError for one that HTTP does not allow."""
    status, body = getattr(response, "status_code", None), getattr(response, "body", None)
    if not isinstance(status, int) or not isinstance(body, bytes | bytearray | memoryview):
        raise TypeError(f"answer with a Response whose body is at hand, not with {type(response).__name__}")
    if not 200 <= status <= 599:
        raise ValueError(f"{status} is not a final HTTP status")
    if status in (204, 205, 304) and len(body):
        raise ValueError(f"a {status} response can't have a body")
    if len(body) > MAX_ANSWER_BYTES:
        raise ValueError(f"an answer's body can have {MAX_ANSWER_BYTES:,} bytes at most, not {len(body):,}")
    headers = [[k, v] for k, v in response.headers.items() if k.lower() != "content-length"]
    return {"status": status, "headers": headers, **encode_body(bytes(body))}


def encode_body(body: bytes) -> dict[str, str]:
    """Readable in the log where it is text."""
    try:
        return {"text": body.decode()}
    except UnicodeDecodeError:
        return {"base64": b64encode(body).decode()}


def decode_body(encoded: Mapping[str, Any]) -> bytes:
    if "base64" in encoded:
        return b64decode(encoded["base64"])
    return str(encoded.get("text", "")).encode()


class WebhookRequest:
    """A call of a webhook's URL, as it arrived. The readers may be called as often as you like."""

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
        """A request that carries a JSON value."""
        return cls("POST", url, [("content-type", "application/json")], json.dumps(value).encode())

    async def body(self) -> bytes:
        return self._body

    async def text(self) -> str:
        return self._body.decode(errors="replace")

    async def json(self) -> Any:
        """The body as JSON. ValueError if it isn't."""
        return json.loads(self._body)

    async def form(self) -> dict[str, str]:
        """The fields of an urlencoded form; of a repeated one, the last."""
        return dict(parse_qsl(self._body.decode(errors="replace"), keep_blank_values=True))

    async def respond_with(self, response: Any) -> None:
        """Answer this caller: once, and only if the webhook was created with `respond_with="manual"`."""
        if self._respond is None:
            raise RuntimeError('only a webhook created with respond_with="manual" lets the workflow answer')
        self._respond(encode_response(response))

    def encode(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "url": self.url,
            "headers": [list(field) for field in self.headers.items_list],
            **encode_body(self._body),
        }

    @classmethod
    def decode(cls, encoded: dict[str, Any], respond: Callable[[dict[str, Any]], None] | None) -> WebhookRequest:
        fields = [(name, value) for name, value in encoded["headers"]]
        return cls(encoded["method"], encoded["url"], fields, decode_body(encoded), respond=respond)
