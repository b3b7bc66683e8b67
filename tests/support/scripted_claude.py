"""Claude Code as the Agent SDK sees it, scripted: it asks for permission, runs hooks, and says what came of that."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from claude_agent_sdk import Transport

Call = tuple[str, str, Mapping[str, Any]]
"""A tool call: its id, the tool, its input."""

END = {
    "type": "result",
    "subtype": "success",
    "duration_ms": 1,
    "duration_api_ms": 1,
    "is_error": False,
    "num_turns": 1,
    "session_id": "claude-1",
    "result": "done",
}


class ScriptedClaude(Transport):
    """Makes these calls at once, and ends when each has its answer. `answers`: what the SDK answered, by call."""

    def __init__(self, calls: Sequence[Call], *, by_hook: bool = False) -> None:
        self.calls = {call[0]: call for call in calls}
        self.by_hook = by_hook
        self.answers: dict[str, Any] = {}
        self.hooks: dict[str, Any] = {}
        self.prompts: list[Any] = []
        self._out: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    async def connect(self) -> None:
        if self.by_hook:
            return

    async def write(self, data: str) -> None:
        message = json.loads(data)
        match message:
            case {"type": "control_request", "request": {"subtype": "initialize"} as request}:
                self.hooks = request["hooks"] or {}
                response = {"hook_on_failure_supported": True, "hooks_applied": True}
                await self._respond(message["request_id"], response)
                if self.by_hook:
                    await self._ask()
            case {"type": "control_request"}:
                await self._respond(message["request_id"], {})
            case {"type": "user"}:
                self.prompts.append(message)
                if not self.by_hook:
                    await self._ask()
            case {"type": "control_response", "response": response}:
                self.answers[response["request_id"]] = response.get("response", response)
                if self.answers.keys() >= self.calls.keys():
                    await self._out.put(END | self._deferred())
                    await self._out.put(None)

    async def _respond(self, request_id: str, response: Mapping[str, Any]) -> None:
        answer = {"subtype": "success", "request_id": request_id, "response": dict(response)}
        await self._out.put({"type": "control_response", "response": answer})

    async def _ask(self) -> None:
        for id, tool, input in self.calls.values():
            about = {"tool_name": tool, "tool_use_id": id}
            if self.by_hook:
                hook = self.hooks["PreToolUse"][0]["hookCallbackIds"][0]
                given = {"hook_event_name": "PreToolUse", "session_id": "claude-1", "tool_input": input, **about}
                request = {"subtype": "hook_callback", "callback_id": hook, "input": given, "tool_use_id": id}
            else:
                request = {"subtype": "can_use_tool", "input": input, "permission_suggestions": [], **about}
            await self._out.put({"type": "control_request", "request_id": id, "request": request})

    def _deferred(self) -> dict[str, Any]:
        for id, answer in self.answers.items():
            if answer.get("hookSpecificOutput", {}).get("permissionDecision") == "defer":
                _, tool, input = self.calls[id]
                return {"deferred_tool_use": {"id": id, "name": tool, "input": dict(input)}}
        return {}

    async def read_messages(self) -> AsyncIterator[dict[str, Any]]:
        while (message := await self._out.get()) is not None:
            yield message

    async def close(self) -> None:
        pass

    def is_ready(self) -> bool:
        return True

    async def end_input(self) -> None:
        pass
