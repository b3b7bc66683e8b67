"""What an open run waits for, and hiding in it what would let a reader resume the run. Pure.

Anybody who has a hook's token or a webhook's URL can resume the run, so only callers that may start the run's workflow
see them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from pydantic import JsonValue

from approvals_bot.durable.core.events import ENDINGS, Event, closed_by, from_micros
from approvals_bot.durable.core.serialization import without_tags
from approvals_bot.durable.engine import RunRecord
from approvals_bot.durable.engine.lines import InLine
from approvals_bot.durable.tokens import WEBHOOK, Tokens
from approvals_bot.errors import InvalidTokenError
from approvals_bot.service.read import REDACTED, iso, requests_of

UNLIKELY = 16  # characters of a token that no other text contains by chance

_OVER = frozenset(
    {"step_completed", "step_failed", "step_cancelled", "wait_completed", "child_ended", "child_cancelled"}
)
_WEBHOOK = re.compile(r"(/webhooks/|%2[Ff]webhooks%2[Ff])([\w-]+\.[\w-]+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Wait:
    """Something that an open run waits for, since when, and what its author said of it.

    A "limit" is a step in line for a place of its limit; it hasn't begun. `token` and `hook_id`: of a hook or webhook
    that takes payloads from outside. `more`: a step's name and its attempts so far, and its place in line; when a
    sleep or time limit is over; a child's workflow and run.
    """

    kind: Literal["hook", "webhook", "step", "limit", "sleep", "timeout", "child"]
    since: datetime
    metadata: Any = None
    token: str = ""
    hook_id: str = ""
    more: dict[str, JsonValue] = field(default_factory=dict)

    def as_json(self, link: Callable[[str], str] | None) -> dict[str, Any]:
        """Return it as JSON. `link` makes a webhook's URL; None: the reader may not resume the run."""
        found: dict[str, Any] = {
            "kind": self.kind,
            "since": iso(self.since),
            "metadata": without_tags(self.metadata),
            **self.more,
        }
        if link is not None and self.token:
            found["token"] = self.token
            if self.kind == "webhook":
                found["url"] = link(self.hook_id)
        return found

    @property
    def in_words(self) -> str:
        """What a step in line waits for, as a sentence without its end."""
        said = f"{self.more['name']} waits for the limit {self.more['limit']}"
        if self.more["at_once"] is not None:
            said += f", which lets {self.more['at_once']} begin at a time"
        return said if self.more["place"] is None else f"{said}; it is number {self.more['place']} in line"


def waits_of(record: RunRecord, log: Sequence[Event], in_line: Mapping[int, InLine] | None = None) -> tuple[Wait, ...]:
    """Return what the run waits for, in the order in which it began. The webhook of a request has no token here.

    `in_line` are the steps that wait for a limit: `engine.steps_in_line(record, log)`.
    """
    if record.has_ended or (log and log[-1].type in ENDINGS):
        return ()
    over = {event.data["id"] for event in log if event.type in _OVER}
    over.update(number for event in log for number in closed_by(event))
    own = {request.hook_id for request in requests_of(record)}
    waits = ((event, _wait(event, log, own)) for event in log if _is_open(event, over))
    return tuple(_in_line(wait, in_line.get(event.data["id"])) if in_line else wait for event, wait in waits)


def cancellation_of(log: Sequence[Event]) -> dict[str, Any] | None:
    """Return the cancellation of an open run as JSON: when and why, and until when the run may tidy up."""
    for event in log:
        if event.type == "cancel_requested":
            until = iso(from_micros(event.data["until"]))
            return {"at": iso(event.at), "reason": event.data["reason"], "until": until}
    return None


def _is_open(event: Event, over: Collection[int]) -> bool:
    is_wait = event.type in ("step_created", "hook_created", "wait_created", "child_started")
    return is_wait and event.data["id"] not in over


def _wait(event: Event, log: Sequence[Event], own: Collection[str]) -> Wait:
    data = event.data
    match event.type:
        case "step_created":
            attempts = sum(one.type == "step_started" and one.data["id"] == data["id"] for one in log)
            return Wait("step", event.at, more={"name": data["name"], "attempts": attempts})
        case "wait_created":
            kind: Literal["sleep", "timeout"] = "timeout" if data.get("kind") == "timeout" else "sleep"
            return Wait(kind, event.at, more={"until": iso(from_micros(data["resume_at"]))})
        case "child_started":
            return Wait("child", event.at, more={"workflow": data["workflow"], "run_id": data["run_id"]})
        case _:
            is_own = data["hook_id"] in own
            return Wait(
                "hook" if data.get("answer") is None else "webhook",
                event.at,
                data.get("metadata"),
                "" if is_own else data["token"],
                "" if is_own else data["hook_id"],
            )


def _in_line(wait: Wait, line: InLine | None) -> Wait:
    if line is None:
        return wait
    more: dict[str, JsonValue] = {"limit": line.limit, "at_once": line.at_once, "place": line.place}
    return replace(wait, kind="limit", since=line.since, more=wait.more | more)


class Mask:
    """Hides what would let a reader resume a run: the URLs of this service's webhooks, and the tokens of its hooks.

    A webhook's URL is recognized by its route and its signature, anywhere in a text.
    """

    def __init__(self, tokens: Tokens, waits: Iterable[Wait] = ()) -> None:
        self._tokens = tokens
        self._hooks = [wait.token for wait in waits if wait.token]

    def __call__(self, value: Any) -> Any:
        """Return the same JSON without them."""
        match value:
            case dict():
                return {self(key): self(item) for key, item in value.items()}
            case list():
                return [self(item) for item in value]
            case str():
                return self._text(value)
        return value

    def _text(self, text: str) -> str:
        for token in self._hooks:
            if text == token:
                return REDACTED
            if len(token) >= UNLIKELY:
                text = text.replace(token, REDACTED)
        return _WEBHOOK.sub(lambda found: found[1] + REDACTED if self._is_signed(found[2]) else found[0], text)

    def _is_signed(self, token: str) -> bool:
        try:
            return bool(self._tokens.read(WEBHOOK, token))
        except InvalidTokenError:
            return False
