"""A service of nothing but webhooks, to be killed: `python clicked_service.py DATABASE RUNS`.

When it is ready, it prints `PORT` and the path of each run's webhook, one a line. Started again on the same database,
it serves the same webhooks.
"""

from __future__ import annotations

import asyncio
import socket
import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from approvals_bot import HookNotFoundError, create_webhook, step, workflow
from approvals_bot.durable.engine import Engine
from approvals_bot.durable.store.protocol import Filter

KEY = "a signing key of the tests, and of nothing else: 0123456789"


@step
async def note(click: str) -> str:
    return click


@workflow
async def takes_clicks() -> list[str]:
    """Until somebody clicks `stop`, one step a click."""
    noted = []
    async for request in create_webhook():
        click = (await request.json())["click"]
        if click == "stop":
            break
        noted.append(await note(click))
    return noted


async def serve(database: str, runs: int) -> None:
    async with Engine.open(f"sqlite:///{database}", signing_keys=[KEY], base_url="http://127.0.0.1") as engine:

        async def click(request: Request) -> Response:
            try:
                return await engine.resume_webhook(request.path_params["token"], request)
            except HookNotFoundError:
                return Response(status_code=404)

        for n in range(runs):
            await engine.start(takes_clicks, idempotency_key=str(n))
        await engine.settle()
        rows, _ = await engine.store.runs(Filter(limit=runs))
        logs = [await engine.events(row.id) for row in rows]
        tokens = [next(e.data["token"] for e in log if e.type == "hook_created") for log in logs]
        listening = socket.create_server(("127.0.0.1", 0))
        app = Starlette(routes=[Route("/{token}", click, methods=["POST"])])
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off"))
        sys.stdout.write("\n".join([str(listening.getsockname()[1]), *tokens, "ready", ""]))
        sys.stdout.flush()
        await server.serve(sockets=[listening])


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2])))
