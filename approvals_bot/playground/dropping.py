"""Answers that break off, as a network does: no answer at all, or half of one."""

from __future__ import annotations

from starlette.responses import Response
from starlette.types import Receive, Scope, Send


class Dropped(Response):
    """The connection is cut without an answer."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # ASGI has no word for this. uvicorn's `receive` is a method of the object that holds the transport.
        transport = getattr(getattr(receive, "__self__", None), "transport", None)
        if transport is not None:
            transport.abort()
            await until_disconnected(receive)
            return
        # Behind a middleware that wraps `receive`: promise a body and let the server find out that none comes.
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        raise ConnectionAbortedError("scripted fault: the connection breaks here")


class TruncatedResponse(Response):
    """The length says so much, and half of it comes before the connection is cut."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        whole = bytes(self.body)
        length = str(len(whole)).encode()
        headers = [(b"content-type", b"application/json; charset=utf-8"), (b"content-length", length)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": whole[: len(whole) // 2], "more_body": True})
        transport = getattr(getattr(receive, "__self__", None), "transport", None)
        if transport is None:
            raise ConnectionAbortedError("scripted fault: the connection breaks here")
        transport.close()  # after what was written has left
        await until_disconnected(receive)


async def until_disconnected(receive: Receive) -> None:
    message = await receive()
    while message["type"] != "http.disconnect":
        message = await receive()
