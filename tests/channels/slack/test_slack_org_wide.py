"""An app that is installed in a whole organisation: its token has to name a workspace where it lists something."""

from __future__ import annotations

from aiohttp import web
from aiohttp.test_utils import TestServer

from approvals_bot.channels.slack.client import slack_client

LISTS = {"conversations.list": "channels", "usergroups.list": "usergroups", "usergroups.users.list": "users"}


async def test_a_token_of_an_organisation_names_a_workspace() -> None:
    asked = list[str]()

    async def answer(request: web.Request) -> web.Response:
        method, team = request.match_info["method"], request.query.get("team_id", "")
        asked.append(f"{method} {team}".strip())
        if method == "auth.teams.list":
            return web.json_response({"ok": True, "teams": [{"id": "T0ACME", "name": "Acme"}]})
        if method in LISTS and not team:
            return web.json_response({"ok": False, "error": "missing_argument"})
        return web.json_response({"ok": True, LISTS.get(method, "x"): []})

    app = web.Application()
    app.router.add_get("/api/{method}", answer)
    app.router.add_post("/api/{method}", answer)
    async with TestServer(app) as server, slack_client(token="xoxb-x", api_url=str(server.make_url("/api/"))) as client:
        for method in LISTS:
            await client.ask(method, get=True)
        assert [one async for one in client.pages("conversations.list", "channels")] == []
        await client.ask("chat.postMessage", channel="C0X", text="hello")
    assert asked == [
        "conversations.list",
        "auth.teams.list",
        *(f"{method} T0ACME" for method in (*LISTS, "conversations.list")),
        "chat.postMessage",
    ]
