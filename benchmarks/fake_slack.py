"""A fake Slack API that accepts every call, for a separate process. Prints its URL and serves."""

from __future__ import annotations

import asyncio
from itertools import count

from aiohttp import web

_numbers = count(1)


async def answer(request: web.Request) -> web.Response:
    asked = {**request.query, **await request.post()}
    answer_body: dict[str, object]
    match request.match_info["method"]:
        case "auth.test":
            answer_body = {
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
            answer_body = {"user": {"id": user, "team_id": "T1", "profile": {"email": email}}}
        case "conversations.open":
            answer_body = {"channel": {"id": "D1"}}
        case _:
            answer_body = {"channel": "C1", "ts": f"1700000000.{next(_numbers):06}"}
    return web.json_response({"ok": True} | answer_body)


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
