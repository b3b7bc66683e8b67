"""A run's log as history: what happened, and how long it took. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from approvals_bot.approvals.acts import passed_on_by, read_actor
from approvals_bot.approvals.card_text import CHOICE_WORDS, VIA_WORDS
from approvals_bot.durable.core.events import (
    CREATIONS,
    ENDINGS,
    Event,
    closed_by,
    from_micros,
    is_whole_step,
    number_of,
)
from approvals_bot.durable.core.serialization import decode

Kind = Literal["step", "hook", "wait", "child"]
Ending = Literal["open", "done", "failed", "cancelled"]

# What people chose, and by which way. A log may name others than those that there are now.
_HOOKS = ("hook", "webhook")
_CHOSE: Mapping[str, str] = {choice: word for choice, (_, word) in CHOICE_WORDS.items()}
_VIA = dict[str, str](VIA_WORDS.items())


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened. `detail`: an error or a reason, shown on demand."""

    at: datetime
    text: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Span:
    """A step, an open hook, a wait or a child, and how long it took. `end` is None while it lasts."""

    kind: Kind
    label: str
    start: datetime
    end: datetime | None
    ending: Ending


@dataclass(frozen=True, slots=True)
class RunHistory:
    """Everything that happened: entries in the log's order, spans in the order of their start."""

    entries: tuple[Entry, ...]
    spans: tuple[Span, ...]


def history_of(log: Sequence[Event]) -> RunHistory:
    """Return the history of this log."""
    names = {hook["id"]: _HOOKS["answer" in hook] for hook in log[0].data.get("hooks", ())} if log else {}
    names |= {number_of(event): _name(event) for event in log if _is_named(event)}
    return RunHistory(tuple(_entries(log, names)), tuple(_spans(log, names)))


def _entries(log: Sequence[Event], names: Mapping[int, str]) -> Iterable[Entry]:
    for event in log:
        entry = _entry(event, names.get(event.data.get("id", 0), ""))
        if entry is not None:
            yield entry
        if event.type in ("hook_disposed", "hook_responded"):
            closed = (names.get(number) for number in closed_by(event))
            yield from (Entry(event.at, f"The {name} closed.") for name in closed if name in _HOOKS)


def _is_named(event: Event) -> bool:
    return event.type in CREATIONS - {"hook_conflict", "attributes_set"} or is_whole_step(event)


def _name(event: Event) -> str:
    match event.type:
        case "child_started":
            return str(event.data["workflow"])
        case "step_created" | "step_completed":
            return str(event.data["name"])
        case "hook_created":
            return _HOOKS[event.data.get("answer") is not None]
        case "wait_created" if event.data.get("kind") == "timeout":
            return "time limit"
        case _:
            return "sleep"


def _entry(event: Event, name: str) -> Entry | None:
    """Return the event in words; None where another event says it better."""
    data, at = event.data, event.at
    match event.type:
        case "run_created":
            return Entry(at, _beginning(data))
        case "run_started" | "step_created" | "step_started" | "hook_conflict" | "wait_cancelled" | "hook_disposed":
            return None
        case "step_completed":
            return Entry(at, f"{name} finished.")
        case "step_retrying":
            return Entry(at, f"{name} failed and will be retried.", _cause(event))
        case "step_failed":
            return Entry(at, f"{name} failed.", _cause(event))
        case "step_cancelled":
            return Entry(at, f"{name} was cancelled.")
        case "hook_created":
            return Entry(at, f"Waiting for a call to a {name}.")
        case "hook_received":
            act = _act(data.get("payload"))
            return Entry(at, act or f"The {name} was called.", _words(data.get("payload")) if act else "")
        case "hook_refused":
            wrong = "; ".join(
                f"{'.'.join(str(p) for p in each['loc']) or 'payload'}: {each['msg']}" for each in data["errors"]
            )
            return Entry(at, f"A call to the {name} didn't fit its schema, so the workflow doesn't get it.", wrong)
        case "hook_responded":
            answer = _json(data.get("answer"))
            return Entry(
                at, f"Reply: {answer['text']}" if answer and "text" in answer else "The caller got its response."
            )
        case "wait_created":
            until = from_micros(data["resume_at"])
            return Entry(at, f"{name.capitalize()} until {until:%d %b %Y, %H:%M:%S} UTC.")
        case "wait_completed":
            return Entry(at, "Time limit reached." if name == "time limit" else "Sleep over.")
        case "attributes_set":
            values = decode(data["attributes"])
            said = (f"{name} = {value}" if value is not None else f"no {name}" for name, value in values.items())
            return Entry(at, f"Attributes set: {', '.join(said)}.")
        case "child_started":
            return Entry(at, f"Started {data['workflow']} as run {data['run_id']}, and waiting for it.")
        case "child_ended":
            return Entry(at, f"Run {data['run_id']} {data['status']}.", _cause(event))
        case "child_cancelled":
            return Entry(at, f"{name} is no longer waited for, and was asked to cancel.")
        case "run_completed":
            return Entry(at, "Run completed.")
        case "run_failed":
            return Entry(at, "Run failed.", _cause(event))
        case "cancel_requested":
            until = from_micros(data["until"])
            text = f"Run asked to cancel. It has until {until:%d %b %Y, %H:%M:%S} UTC to tidy up."
            return Entry(at, text, str(data["reason"] or ""))
        case "run_cancelled" if "error" in data:
            return Entry(at, "Run cancelled. Its clean-up failed.", _cause(event))
        case "run_cancelled":
            return Entry(at, "Run cancelled.", str(data.get("reason") or ""))
        case "run_reset":
            return Entry(at, f"Run reset to event {data['to']}. Run {data['next']} goes on in its place.")
        case "run_continued":
            return Entry(at, f"Run continued as {data['next']}.")


def _beginning(data: Mapping[str, Any]) -> str:
    match data:
        case {"reset_of": {"run_id": run, "seq": seq}}:
            return f"Run started from event {seq} of run {run}."
        case {"continues": {"run_id": run}}:
            return f"Run started, as the continuation of run {run}."
        case {"attempt_of": run}:
            return f"Run started, as another attempt at run {run}."
        case _:
            return "Run started."


def _act(payload: Any) -> str:
    """Return what a person did to a request, from the act's payload; "" for any other payload.

    Our own messages have no URL: what is sent to a webhook's URL can say anything.
    """
    match _json(payload) if isinstance(payload, dict) and payload.get("url") == "" else None:
        case {"kind": "vote", "by": str(by), "choice": str(choice), **more}:
            return f"{by} {_CHOSE.get(choice, choice)}{_by_way(by, more)}."
        case {"kind": "edit", "by": str(by), **more}:
            return f"{by} edited the request{_by_way(by, more)}."
        case {"kind": "withdraw", "by": str(by), **more}:
            return f"{by} withdrew the request{_by_way(by, more)}."
        case {"kind": "stop", "by": str(by), **more}:
            return f"{by} cancelled the run{_by_way(by, more)}."
        case {"kind": "comment", "by": str(by), **more}:
            return f"{by} commented{_by_way(by, more)}."
        case {"kind": "claim", "by": str(by), "ends": True, **more}:
            return f"{by} is no longer on it{_by_way(by, more)}."
        case {"kind": "claim", "by": str(by), **more}:
            return f"{by} is on it{_by_way(by, more)}."
        case {"kind": "remind", "by": str(by), **more}:
            return f"{by} asked for a reminder{_by_way(by, more)}."
        case {"kind": "snooze", "by": str(by), "until": str(until), **more}:
            return f"{by} snoozed their reminders until {until}{_by_way(by, more)}."
        case {"kind": "snooze", "by": str(by), **more}:
            return f"{by} ended their snooze{_by_way(by, more)}."
    return ""


def _words(payload: Any) -> str:
    """Return what somebody wrote in a comment; "" for another act."""
    act = _json(payload) or {}
    return str(act.get("text", "")) if act.get("kind") == "comment" else ""


def _by_way(by: str, act: Mapping[Any, Any]) -> str:
    """Return ` via the API, passed on by app desk`, as far as the act says so."""
    via = str(act.get("via", ""))
    words = _VIA.get(via, f"via {via}")
    actor = read_actor(act.get("actor"))
    passed_on = actor.id if actor is not None and actor.kind == "cli" else passed_on_by(by, actor)
    return (f" {words}" if words else "") + (f", passed on by {passed_on}" if passed_on else "")


def _json(carried: Any) -> dict[str, Any] | None:
    """Read the JSON object in a logged body; None if there is none."""
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
    "step_cancelled": "cancelled",
    "hook_disposed": "done",
    "hook_responded": "done",  # of what it closes
    "wait_completed": "done",
    "wait_cancelled": "cancelled",
    "child_ended": "done",
    "child_cancelled": "cancelled",
}


def _ending(end: Event, kind: str) -> Ending:
    """Return how a span ended. A child may have failed or been cancelled. An answer cancels the timers it closes."""
    match end.data.get("status"):
        case "failed":
            return "failed"
        case "cancelled":
            return "cancelled"
        case _ if kind == "wait" and end.type == "hook_responded":
            return "cancelled"
        case _:
            return _ENDINGS[end.type]


def _spans(log: Sequence[Event], names: dict[int, str]) -> Iterable[Span]:
    ends = {event.data["id"]: event for event in log if event.type in _ENDINGS and event.type != "hook_responded"}
    ends |= {number: event for event in log for number in closed_by(event)}
    over = next((event.at for event in reversed(log) if event.type.startswith("run_") and len(log) > 1), None)
    is_over = log[-1].type in ENDINGS if log else False
    for event in log:
        kind = event.type.removesuffix("_created").removesuffix("_started")
        if is_whole_step(event):
            kind = "step"
        elif kind not in ("step", "hook", "wait", "child") or event.type == "step_started":
            continue
        end = ends.get(event.data["id"])
        yield Span(
            kind=kind,  # type: ignore[arg-type]  # narrowed by the line above
            label=names[event.data["id"]],
            start=event.at,
            end=end.at if end else over if is_over else None,
            ending=_ending(end, kind) if end else "cancelled" if is_over else "open",
        )
