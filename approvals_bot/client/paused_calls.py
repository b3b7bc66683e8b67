"""Tool calls on which a framework pauses, and what came of them: values that the adapters share."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import JsonValue

from approvals_bot.client.decision import Decision
from approvals_bot.client.digests import digest_of
from approvals_bot.client.tool_request import is_usable_key
from approvals_bot.client.words import error_text
from approvals_bot.errors import ApprovalMismatchError


@dataclass(frozen=True, slots=True)
class PausedCall:
    """A tool call that waits for people. `id` is the model's own; "" where the framework doesn't say it.

    `number`: which of the session's calls with this id it is, as far as the framework's history says.
    """

    id: str
    tool: str
    arguments: dict[str, JsonValue]
    agent: str | None = None
    number: int = 1


LONGEST_ID = 100  # characters, which leaves some for the session in front of it


class CallKeys:
    """The keys of a session's tool calls: the model's id, else the call's digest and how often it came before.

    An id that comes again is another call: some models number those of each answer from 0. `nameless` is put in front
    of the digests where one session has several of these objects. `earlier`: the ids of calls before the first.
    `history`: what the agent goes on from. A retry goes on from the same, and finds its calls. Any later run doesn't,
    so none of its calls finds an old yes, also where the history is too short to show that an id comes again.
    """

    def __init__(self, nameless: str = "", earlier: Iterable[str] = (), history: Any = None) -> None:
        self._prefix = nameless
        self._of_history = history_mark(history)
        self._times: Counter[str] = Counter(earlier)

    def key_of(self, call: PausedCall) -> str:
        """Return the call's key, which no other call of the session has. Ask once for each call, in their order."""
        has_id = is_usable_key(call.id) and len(call.id) <= LONGEST_ID
        key = call.id if has_id else f"{self._prefix}{digest_of(call.tool, call.arguments)}"
        # The history knows of calls before a restart, and of those of earlier runs of the same session.
        self._times[key] = max(self._times[key] + 1, call.number if has_id else 1)
        named = f"{key}{self._of_history}"
        return named if has_id and self._times[key] == 1 else f"{named}.{self._times[key]}"


def history_mark(history: Any) -> str:
    """Return what the keys of calls have after their ids where the agent goes on from a history; "" without one."""
    if not history:
        return ""
    return "." + hashlib.sha256(json.dumps(history, sort_keys=True, default=str).encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class DecidedCall:
    """What came of a paused call: a decision, or the error for which there is none. An error is never a yes."""

    call: PausedCall
    outcome: Decision | Exception

    @property
    def approved(self) -> bool:
        """Whether the tool may run."""
        return isinstance(self.outcome, Decision) and self.outcome.approved

    @property
    def text(self) -> str:
        """What the model reads."""
        return self.outcome.text if isinstance(self.outcome, Decision) else error_text(self.outcome)

    def check_unchanged(self, call: PausedCall) -> None:
        """Raise ApprovalMismatchError if the framework now pauses on another call than the one people were shown."""
        shown, now = digest_of(self.call.tool, self.call.arguments), digest_of(call.tool, call.arguments)
        if shown != now:
            raise ApprovalMismatchError(call.id or "this request", shown, now)

    def arguments_for(self, tool: str, arguments: Mapping[str, Any]) -> dict[str, JsonValue]:
        """Return what the tool runs with, given what it is about to get: the same, or what an approver made of it.

        Raises DeniedError where there is no yes, and ApprovalMismatchError where the yes was to another call.
        """
        given = dict(arguments)
        match self.outcome:
            case Decision(state="edited", arguments=dict(edited)) if self._is_as_shown(tool, given):
                given = edited
        self.require(tool, given)
        return given

    def _is_as_shown(self, tool: str, arguments: Mapping[str, Any]) -> bool:
        return _digest(tool, arguments) == _digest(self.call.tool, self.call.arguments)

    def require(self, tool: str, arguments: Mapping[str, Any]) -> None:
        """Check, right before the tool runs, that this very call was approved. Raises as `arguments_for` does."""
        if not isinstance(self.outcome, Decision):
            raise self.outcome
        self.outcome.require(arguments)
        if tool != self.call.tool:
            raise ApprovalMismatchError(
                self.call.id or "this request", self.outcome.digest or "", _digest(tool, arguments)
            )


def _digest(tool: str, arguments: Mapping[str, Any]) -> str:
    """Return the call's digest; "" for arguments that aren't JSON, so nobody was shown them."""
    try:
        return digest_of(tool, arguments)
    except ValueError:
        return ""


T = TypeVar("T")


async def all_of(asked: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Return what these give, asked at once. If one raises an error, the others are no longer waited for."""
    tasks = [asyncio.create_task(each) for each in asked]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
