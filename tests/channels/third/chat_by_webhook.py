"""A chat that takes messages by webhook: a channel that isn't part of the package."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import aiohttp
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from approvals_bot.approvals.port import (
    CheckUp,
    Delivered,
    Diagnosis,
    Dispatch,
    Receipt,
    Refused,
    Result,
    TryAgain,
    place_name,
)

HEARTBEAT = 0.05  # seconds between two signs of life
LIMIT = aiohttp.ClientTimeout(total=10)


def make(settings: Mapping[str, Any]) -> Chat:
    """Make the channel of `[channels.chat]`: `url`, and `secret` by reference."""
    if not str(settings["url"]).startswith("http"):
        raise ValueError('url is a URL like "https://chat.acme.eu"')
    return Chat(str(settings["url"]), settings["secret"].get_secret_value())


class Chat:
    """One chat server."""

    def __init__(self, url: str, secret: str) -> None:
        self._url = url
        self._secret = secret
        self._session: aiohttp.ClientSession | None = None

    async def send(self, dispatch: Dispatch) -> Result:
        return await self._deliver("POST", "/messages", dispatch)

    async def update(self, receipt: Receipt, dispatch: Dispatch) -> Result:
        return await self._deliver("PUT", f"/messages/{receipt.id}", dispatch)

    async def _deliver(self, method: str, path: str, dispatch: Dispatch) -> Result:
        card = dispatch.card
        message = {
            "to": place_name(dispatch.to),
            "title": card.title,
            "state": card.state,
            "fields": {field.label: field.value for field in card.fields},
            "text": dispatch.text or dispatch.occasion,
            "link": dispatch.url,
            "thread": dispatch.thread.id if dispatch.thread else None,
            "key": dispatch.delivery_id,
        }
        try:
            status, said, headers = await self._call(method, path, message)
        except (aiohttp.ClientError, TimeoutError) as failure:
            return TryAgain(f"no answer ({type(failure).__name__})", lost=True)
        if status in (429, 503):
            return TryAgain(f"it answered {status}", timedelta(seconds=int(headers.get("Retry-After", "1"))))
        if status == 404:
            return Refused(str(said["error"]), "no_account")
        if status >= 400:
            return Refused(str(said["error"]))
        return Delivered(Receipt(place_name(dispatch.to), str(said["id"]), card.version))

    async def _call(
        self, method: str, path: str, body: object = None
    ) -> tuple[int, Mapping[str, Any], Mapping[str, str]]:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=LIMIT)
        headers = {"Authorization": f"Bearer {self._secret}"}
        async with self._session.request(method, self._url + path, json=body, headers=headers) as answer:
            return answer.status, await answer.json(), answer.headers

    def routes(self) -> Sequence[Route]:
        async def hello(request: Request) -> JSONResponse:
            return JSONResponse({"hello": request.query_params.get("name", "")})

        return [Route("/chat/hello", hello)]

    async def run(self) -> None:
        while True:
            await self._call("POST", "/heartbeat")
            await asyncio.sleep(HEARTBEAT)

    async def check(self, asked: CheckUp) -> Sequence[Diagnosis]:
        try:
            _, said, _ = await self._call("GET", "/places")
        except aiohttp.ClientError as failure:
            return [Diagnosis("FAIL", "chat", f"{self._url} can't be reached ({type(failure).__name__})")]
        lost = [place for place in asked.places if place not in said["places"]]
        found = [Diagnosis("FAIL", "chat", f"{place} (of {asked.places[place]}) doesn't exist") for place in lost]
        return [Diagnosis("OK", "chat", f"{self._url} answers"), *found]

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()
