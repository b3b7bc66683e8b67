"""A run's log as history: what happened, in sentences, and how long each thing took. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from approvals_bot.durable.core.events import Event, from_micros

Kind = Literal["step", "hook", "wait"]
Ending = Literal["open", "done", "failed", "withdrawn"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened. `detail`: what a machine said of it, shown on demand."""

    at: datetime
    text: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Span:
    """A step, an open hook or a wait, and how long it took. `end` is None while it lasts."""

    kind: Kind
    label: str
    start: datetime
    end: datetime | None
    ending: Ending


@dataclass(frozen=True, slots=True)
class RunHistory:
    """Everything that happened: entries in the order of the log, spans in the order in which they began."""

    entries: tuple[Entry, ...]
    spans: tuple[Span, ...]


def history_of(log: Sequence[Event]) -> RunHistory:
    """Tell what happened in this log."""
    names = {event.data["id"]: _name(event) for event in log if event.type.endswith("_created") and "id" in event.data}
    entries = tuple(entry for event in log if (entry := _entry(event, names.get(event.data.get("id"), ""))))
    return RunHistory(entries, tuple(_spans(log, names)))


def _name(event: Event) -> str:
    match event.type:
        case "step_created":
            return str(event.data["name"])
        case "hook_created":
            return "webhook" if event.data.get("answer") is not None else "hook"
        case "wait_created" if event.data.get("kind") == "timeout":
            return "time limit"
        case _:
            return "sleep"


def _entry(event: Event, name: str) -> Entry | None:
    """Say to a person what this event was; None where another event says it better."""
    data, at = event.data, event.at
    match event.type:
        case "run_created":
            return Entry(at, "The run was opened.")
        case "run_started" | "step_created" | "step_started" | "hook_conflict" | "wait_cancelled":
            return None
        case "step_completed":
            return Entry(at, f"{name} is done.")
        case "step_retrying":
            return Entry(at, f"{name} failed and is tried again.", _cause(event))
        case "step_failed":
            return Entry(at, f"{name} failed for good.", _cause(event))
        case "hook_created":
            return Entry(at, f"A {name} is open: the run can be resumed from outside.")
        case "hook_received":
            return Entry(at, _act(data.get("payload")) or f"The {name} was called.")
        case "hook_responded":
            answer = _json(data.get("answer"))
            return Entry(
                at, f"Answered: {answer['text']}" if answer and "text" in answer else "The caller was answered."
            )
        case "hook_disposed":
            return Entry(at, f"The {name} is closed.")
        case "wait_created":
            until = from_micros(data["resume_at"])
            return Entry(at, f"A {name} runs until {until:%d %b %Y, %H:%M:%S} UTC.")
        case "wait_completed":
            return Entry(at, "The time limit was reached." if name == "time limit" else "The sleep is over.")
        case "run_completed":
            return Entry(at, "The run is complete.")
        case "run_failed":
            return Entry(at, "The run failed.", _cause(event))
        case "run_cancelled":
            return Entry(at, "The run was cancelled.", str(data.get("reason") or ""))


def _act(payload: Any) -> str:
    """Say what a person did to a request, from the payload that the act became; "" for any other payload.

    Our own messages have no URL: what came to a webhook's URL can say whatever its sender likes.
    """
    match _json(payload) if isinstance(payload, dict) and payload.get("url") == "" else None:
        case {"kind": "vote", "by": str(by), "choice": str(choice), "via": str(via)}:
            return f"{by} chose “{choice.replace('_', ' ')}”, via {via}."
        case {"kind": "edit", "by": str(by), "via": str(via)}:
            return f"{by} edited the request, via {via}."
        case {"kind": "withdraw", "by": str(by), "via": str(via)}:
            return f"{by} took the request back, via {via}."
        case {"kind": "stop", "by": str(by), "via": str(via)}:
            return f"{by} ended the run, via {via}."
    return ""


def _json(carried: Any) -> dict[str, Any] | None:
    """Read the JSON object in a request's or an answer's body, as the log keeps it; None if there is none."""
    try:
        found = json.loads(carried["text"])
    except (TypeError, KeyError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _cause(event: Event) -> str:
    error = event.data.get("error") or {}
    return ": ".join(str(error[key]) for key in ("type", "message") if error.get(key))


_ENDINGS: dict[str, Ending] = {
    "step_completed": "done",
    "step_failed": "failed",
    "hook_disposed": "done",
    "wait_completed": "done",
    "wait_cancelled": "withdrawn",
}


def _spans(log: Sequence[Event], names: dict[int, str]) -> Iterable[Span]:
    ends = {event.data["id"]: event for event in log if event.type in _ENDINGS}
    over = next((event.at for event in reversed(log) if event.type.startswith("run_") and len(log) > 1), None)
    is_over = log[-1].type in ("run_completed", "run_failed", "run_cancelled") if log else False
    for event in log:
        kind = event.type.removesuffix("_created")
        if kind not in ("step", "hook", "wait") or kind == event.type:
            continue
        end = ends.get(event.data["id"])
        yield Span(
            kind=kind,  # type: ignore[arg-type]  # narrowed by the line above
            label=names[event.data["id"]],
            start=event.at,
            end=end.at if end else over if is_over else None,
            ending=_ENDINGS[end.type] if end else "withdrawn" if is_over else "open",
        )
