"""A fake Slack API that accepts every call, for a separate process. Prints its URL and serves."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from itertools import count
from typing import Any

from aiohttp import web

from benchmarks.acme import PEOPLE

_numbers = count(1)


def answer_to(method: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return what Slack answers to a call, beside `ok`."""
    match method:
        case "auth.test":
            return {
                "team_id": "T1",
                "app_id": "A1",
                "user_id": "UBOT",
                "bot_id": "B1",
                "team": "acme",
                "url": "https://acme",
            }
        case "users.info":
            user = str(asked.get("user"))
            email = f"person-{int(user[1:])}@acme.eu"
            return {"user": {"id": user, "team_id": "T1", "profile": {"email": email}}}
        case "conversations.members":  # so nobody needs a message of their own
            return {"members": [f"U{number:08}" for number in range(PEOPLE)], "response_metadata": {"next_cursor": ""}}
        case "conversations.open":
            return {"channel": {"id": "D1"}}
        case _:
            return {"channel": "C1", "ts": f"1700000000.{next(_numbers):06}"}


async def answer(request: web.Request) -> web.Response:
    asked = {**request.query, **await request.post()}
    return web.json_response({"ok": True} | answer_to(request.match_info["method"], asked))


async def main() -> None:
    app = web.Application()
    app.router.add_route("*", "/api/{method}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}/api/", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
