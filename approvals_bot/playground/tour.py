"""The tour on the start page: samples to start, the newest run, how far it is, and what can be done about it there.

Everything is asked of the service's own API, as any program would.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import aiohttp

from approvals_bot.playground.slack.shapes import Message, User
from approvals_bot.playground.slack.workspace import Workspace

ANSWER_TIME = 10.0  # seconds for a call of the service's own API
FIRST_ANSWER = '{"answer": "yes"}'  # what a webhook's form begins with
MOST_SHOWN = 300  # characters of an answer that nobody expected


@dataclass(frozen=True, slots=True)
class Sample:
    """A request that the start page offers to open: `POST /api/runs` with this body and key.

    `form`: the page on which a person fills in the same request; "" if there is none. `body` is None where no example
    could be made: then there is only the form.
    """

    title: str
    body: Mapping[str, Any] | None
    api_key: str
    form: str = ""
    requester: str = ""  # who fills in the form


@dataclass(frozen=True, slots=True)
class OpenHook:
    """A webhook or hook that the newest run waits for: where it is answered, with which key, and the command for it."""

    kind: str
    url: str
    api_key: str
    answer: str = FIRST_ANSWER

    @property
    def curl(self) -> str:
        key = f" -H 'Authorization: Bearer {self.api_key}'" if self.api_key else ""
        return f"curl '{self.url}'{key} -H 'Content-Type: application/json' -d '{self.answer}'"


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest run, as the API shows it.

    `waiting_for`: the addresses of the people who may decide now.
    """

    id: str
    title: str
    path: str
    status: str
    state: str  # of its request; "" if it is none
    votes: Sequence[Mapping[str, Any]]
    deliveries: Sequence[Mapping[str, Any]]
    waiting_for: Sequence[str]
    outcome: str
    result: Any
    error: str
    answers: Sequence[OpenHook]

    @property
    def is_request(self) -> bool:
        return self.state != ""

    @property
    def has_ended(self) -> bool:
        return self.status in ("completed", "failed", "cancelled", "reset")

    @property
    def has_arrived(self) -> bool:
        """Whether a card is delivered, or the run waits for an answer; no step is left out once it is decided."""
        return self.is_decided or bool(self.answers) or any(one["state"] == "delivered" for one in self.deliveries)

    @property
    def is_decided(self) -> bool:
        return self.has_ended or bool(self.votes) or bool(self.outcome)


class ServiceApi:
    """The service's API, as the playground uses it. Without a key, nothing is asked of it."""

    def __init__(self, base_url: str, api_key: str) -> None:
        self._base_url = base_url
        self._key = api_key

    async def newest(self) -> Newest | None:
        """Return the newest run; None if there is none, or the service doesn't answer."""
        if not self._key:
            return None
        try:
            status, found = await self._call("GET", "/api/runs?limit=1", self._key)
            runs = json.loads(found)["runs"] if status == 200 else []
            if not runs:
                return None
            status, found = await self._call("GET", f"/api/runs/{quote(runs[0]['id'])}", self._key)
            return self._read(json.loads(found)) if status == 200 else None
        except (aiohttp.ClientError, TimeoutError, ValueError, KeyError):
            return None

    async def open(self, sample: Sample) -> tuple[bool, str]:
        """Open a sample. Returns whether that worked, and what to say."""
        try:
            status, text = await self._call("POST", "/api/runs", sample.api_key, json.dumps(sample.body))
        except (aiohttp.ClientError, TimeoutError) as lost:
            return False, f"The service can't be reached: {lost}"
        if status in (200, 202):
            return True, "Started. Everything about it is below."
        return False, f"The API answered {status}: {detail_of(text)}"

    async def answer(self, wait: OpenHook, text: str) -> tuple[bool, str]:
        """Answer a webhook or hook, as its caller would. Returns whether it took the answer, and what to say."""
        try:
            status, said = await self._call("POST", wait.url.removeprefix(self._base_url), wait.api_key, text)
        except (aiohttp.ClientError, TimeoutError) as lost:
            return False, f"The service can't be reached: {lost}"
        if status < 300:
            return True, f"The {wait.kind} took your answer ({status})."
        return False, f"The {wait.kind} answered {status}: {detail_of(said)}"

    async def _call(self, method: str, path: str, key: str, body: str | None = None) -> tuple[int, str]:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        timeout = aiohttp.ClientTimeout(ANSWER_TIME)
        async with (
            aiohttp.ClientSession(headers=headers, timeout=timeout) as session,
            session.request(method, f"{self._base_url}{path}", data=body) as answer,
        ):
            return answer.status, await answer.text()

    def _read(self, run: Mapping[str, Any]) -> Newest:
        request: Mapping[str, Any] = run["request"] or {}
        answers = [
            OpenHook("webhook", wait["url"], "")
            if wait["kind"] == "webhook"
            else OpenHook("hook", f"{self._base_url}/api/hooks/{quote(wait['token'], safe='')}", self._key)
            for wait in run["waiting"]
            if wait["kind"] in ("webhook", "hook") and wait.get("token")
        ]
        outcome = request.get("outcome")
        return Newest(
            id=run["id"],
            title=request.get("title") or run["workflow"],
            path=f"/{'requests' if request else 'runs'}/{run['id']}",
            status=run["status"],
            state=request.get("state", ""),
            votes=request.get("votes", ()),
            deliveries=request.get("deliveries", ()),
            waiting_for=request.get("waiting_for", ()),
            outcome=outcome if isinstance(outcome, str) else "",
            result=run["result"],
            error=str(run["error"] or ""),
            answers=answers,
        )


def newest_card(space: Workspace, run_id: str, reader: User) -> Message | None:
    """Return the newest card of this run that the reader can see in Slack."""
    found = None
    for message in space.messages.values():
        payload = (message.metadata or {}).get("event_payload", {})
        place = space.channels[message.channel]
        if (
            str(payload.get("delivery_id", "")).startswith(f"{run_id}-")
            and message.blocks
            and message.ephemeral_to in (None, reader.key)
            and reader.id in place.members
            and message.thread_ts in (None, message.ts)
            and (found is None or message.ts > found.ts)
        ):
            found = message
    return found


def detail_of(problem: str) -> str:
    """Return the detail of a problem document, or else the beginning of the response."""
    try:
        body = json.loads(problem)
    except ValueError:
        return problem[:MOST_SHOWN]
    return str(body.get("detail") or body.get("title") or body) if isinstance(body, dict) else problem[:MOST_SHOWN]
