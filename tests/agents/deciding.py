"""What people do about the tool calls of an agent in the office."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from approvals_bot.approvals.request import Request
from approvals_bot.durable.core.api import WebhookRequest
from approvals_bot.durable.engine import Run
from approvals_bot.service.read import requests_of
from tests.approvals.conftest import ANN


async def open_calls(office: Any, run: Run[Any], count: int) -> dict[str, Request]:
    """Wait until this many tool calls are open. Returns the requests by the calls' ids."""
    for _ in range(400):
        await office.settle()
        record = await office.engine.record(run.id)
        assert record.status == "running", (record.status, record.error, record.stalled)
        views = {tool_call_id(view): view for view in requests_of(record) if view.state == "waiting"}
        if len(views) == count:
            return views
        await asyncio.sleep(0.01)
    raise AssertionError(f"{len(views)} calls are open, not {count}")


async def all_calls(office: Any, run: Run[Any]) -> list[Request]:
    """Return the run's requests, in order."""
    return list(requests_of(await office.engine.record(run.id)))


def tool_call_id(view: Request) -> str:
    return str(view.fields["tool_call_id"])


async def decide(office: Any, view: Request, choice: str, **more: Any) -> dict[str, Any]:
    """Let Ann decide. Returns the reply; {} if the run is stalled and keeps their vote."""
    hook = await office.engine.find_hook(view.hook_id)
    given = {"kind": "vote", "by": ANN, "choice": choice, "via": "api"} | more
    answer = await office.engine.resume_webhook(hook.token, WebhookRequest.of_json(given), timeout=20)
    found: dict[str, Any] = json.loads(bytes(answer.body)) if "json" in answer.headers.get("content-type", "") else {}
    return found


async def end_of(run: Run[Any]) -> Any:
    return await asyncio.wait_for(run.return_value(), 20)
