"""A run's log as history: what happened, and how long it took. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
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
from approvals_bot.service.step_words import Ending, StepWords, step_words

Kind = Literal["step", "hook", "wait", "child"]

TIMERS, CHILDREN, CALLS = "Timers", "Child runs", "Calls from outside"
"""Headings of what no step does, in the timeline by actor."""

Called = Callable[[str], str]
"""Returns what people call the person with this address."""

# What people chose, and by which way. A log may name others than those that there are now.
_HOOKS = ("hook", "webhook")
_CHOSE: Mapping[str, str] = {choice: word for choice, (_, word) in CHOICE_WORDS.items()}
_VIA = dict[str, str](VIA_WORDS.items())


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened. `detail`: an error or a reason, shown on demand.

    `by_people`: somebody did it, or it is a turning point of the run; the others are the machine's own work.
    `is_cause`: the detail is an error's, which may hold values of steps.
    """

    at: datetime
    text: str
    detail: str = ""
    by_people: bool = False
    is_cause: bool = False


@dataclass(frozen=True, slots=True)
class StepAttempt:
    """One attempt at a step. `error`: what it failed with, as the log has it."""

    number: int
    start: datetime
    end: datetime | None
    error: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class RunFailure:
    """Why a run failed: the exception, where it was raised, and of a step's failure its name and last attempt."""

    type: str
    message: str
    where: str = ""
    step: str = ""
    attempt: int = 0

    def __str__(self) -> str:
        said = ": ".join(text for text in (self.type, self.message) if text)
        place = [self.where, f"step {self.step}, attempt {self.attempt}" if self.step else ""]
        found = ", ".join(text for text in place if text)
        return f"{said} ({found})" if found else said


@dataclass(frozen=True, slots=True)
class Span:
    """A step, an open hook, a wait or a child, and how long it took. `end` is None while it lasts.

    `actor`: who or what did it. Of a step there are also its name, its input and result as the log has them, and its
    attempts.
    """

    kind: Kind
    label: str
    start: datetime
    end: datetime | None
    ending: Ending
    actor: str = ""
    name: str = ""
    given: Any = None
    result: Any = None
    attempts: tuple[StepAttempt, ...] = ()

    @property
    def error(self) -> Mapping[str, Any] | None:
        """What its last attempt failed with."""
        return self.attempts[-1].error if self.attempts else None


@dataclass(frozen=True, slots=True)
class RunHistory:
    """Everything that happened: entries in the log's order, spans in the order of their start."""

    entries: tuple[Entry, ...]
    spans: tuple[Span, ...]


def history_of(log: Sequence[Event], *, called: Called = str, requests: Mapping[str, str] | None = None) -> RunHistory:
    """Return the history of this log. `requests`: titles of the run's requests, by their hooks' IDs."""
    own = requests or {}
    names = {hook["id"]: _HOOKS["answer" in hook] for hook in log[0].data.get("hooks", ())} if log else {}
    names |= {number_of(event): _name(event, own) for event in log if _is_named(event)}
    spans = tuple(_spans(log, names))
    return RunHistory(tuple(_entries(log, names, _worded(log), called)), spans)


def failure_of(log: Sequence[Event]) -> RunFailure | None:
    """Return why the run failed, or its clean-up; None if neither did."""
    end = log[-1] if log and log[-1].type in ("run_failed", "run_cancelled") else None
    error = end.data.get("error") if end is not None else None
    if error is None:
        return None
    found = RunFailure(str(error.get("type", "")), str(error.get("message", "")), str(error.get("where") or ""))
    match error.get("attributes"):
        case {"step": str(step), "attempts": int(attempts)}:
            names = {event.data["id"]: event.data.get("name") for event in log if event.type == "step_created"}
            failed = [e for e in log if e.type == "step_failed" and names.get(e.data["id"]) == step]
            cause = failed[-1].data.get("error") or {} if failed else {}
            where = str(cause.get("where") or "") or found.where
            return RunFailure(
                str(cause.get("type") or found.type), str(cause.get("message") or found.message), where, step, attempts
            )
    return found


def _worded(log: Sequence[Event]) -> dict[int, StepWords]:
    """Return each step in words, as far as it has come, by its number."""
    return {event.data["id"]: _step_in_words(event, end) for event, end in _steps(log)}


def _steps(log: Sequence[Event]) -> Iterable[tuple[Event, Event | None]]:
    """Yield the steps, each with the event that ended it."""
    ends = {e.data["id"]: e for e in log if e.type in ("step_completed", "step_failed", "step_cancelled")}
    for event in log:
        if event.type == "step_created" or is_whole_step(event):
            yield event, ends.get(event.data["id"])


def _step_in_words(event: Event, end: Event | None) -> StepWords:
    ending = "open" if end is None else _ENDINGS[end.type]
    result = None if end is None else end.data.get("result")
    return step_words(str(event.data["name"]), event.data.get("input"), result, ending)


def _entries(
    log: Sequence[Event], names: Mapping[int, str], words: Mapping[int, StepWords], called: Called
) -> Iterable[Entry]:
    again = _tries_again(log)
    for event in log:
        number = event.data.get("id", 0)
        entry = (
            None
            if event.type in _WAITS and number in again
            else _entry(event, names.get(number, ""), words.get(number), called)
        )
        if entry is not None and event.type == "step_completed" and number in again:
            entry = replace(entry, text=f"{entry.text.removesuffix('.')}; again at {again[number]:%H:%M}.")
        if entry is not None:
            yield entry
        if event.type in ("hook_disposed", "hook_responded"):
            closed = (names.get(number) for number in closed_by(event))
            yield from (Entry(event.at, f"The {name} closed.") for name in closed if name in _HOOKS)


_WAITS = ("wait_created", "wait_completed", "wait_cancelled")


def _tries_again(log: Sequence[Event]) -> dict[int, datetime]:
    """Return when something is tried again, by the number of the step that tried, and of the wait in between."""
    found: dict[int, datetime] = {}
    for event, then in pairwise(log):
        match event.data.get("result"):
            case {"kind": "try_again"} if event.type == "step_completed" and then.type == "wait_created":
                if then.at == event.at and then.data.get("kind") == "timeout":
                    at = from_micros(then.data["resume_at"])
                    found |= {event.data["id"]: at, then.data["id"]: at}
    return found


def _is_named(event: Event) -> bool:
    return event.type in CREATIONS - {"hook_conflict", "attributes_set"} or is_whole_step(event)


def _name(event: Event, own: Mapping[str, str]) -> str:
    match event.type:
        case "hook_created" if event.data.get("hook_id") in own:
            return "request"
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


def _entry(event: Event, name: str, step: StepWords | None, called: Called) -> Entry | None:
    """Return the event in words; None where another event says it better."""
    data, at = event.data, event.at
    match event.type:
        case "run_created":
            return Entry(at, _beginning(data, called), by_people=True)
        case "run_started" | "step_created" | "step_started" | "hook_conflict" | "wait_cancelled" | "hook_disposed":
            return None
        case "step_completed":
            return Entry(at, f"{step.text if step is not None else name}.")
        case "step_retrying":
            text = f"Attempt {data['attempt']} of {name} failed; it will be tried again."
            return Entry(at, text, _cause(event), is_cause=True)
        case "step_failed":
            attempts = data.get("attempts", 1)
            text = f"{name} failed{f' on attempt {attempts}' if attempts > 1 else ''}."
            return Entry(at, text, _cause(event), is_cause=True)
        case "step_cancelled":
            return Entry(at, f"{name} was cancelled.")
        case "hook_created" if name == "request":
            return Entry(at, "Open for votes.")
        case "hook_created":
            return Entry(at, f"Waiting for a call to a {name}.")
        case "hook_received":
            act = _act(data.get("payload"), called)
            wrote = _words(data.get("payload")) if act else ""
            return Entry(at, act or _called_by(name, data, called), wrote, by_people=True)
        case "hook_refused":
            wrong = "; ".join(
                f"{'.'.join(str(p) for p in each['loc']) or 'payload'}: {each['msg']}" for each in data["errors"]
            )
            text = f"A call to the {name} didn't fit its schema, so the workflow doesn't get it."
            return Entry(at, text, wrong, by_people=True, is_cause=True)
        case "hook_responded":
            answer = _json(data.get("answer"))
            is_reply = answer is not None and "text" in answer
            text = f"Reply: {answer['text']}" if answer is not None and is_reply else "The caller got its response."
            return Entry(at, text, by_people=is_reply)
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
            return Entry(at, f"Run {data['run_id']} {data['status']}.", _cause(event), is_cause=True)
        case "child_cancelled":
            return Entry(at, f"{name} is no longer waited for, and was asked to cancel.")
        case "run_completed":
            return Entry(at, "Run completed.", by_people=True)
        case "run_failed":
            return Entry(at, "Run failed.", _cause(event), by_people=True, is_cause=True)
        case "cancel_requested":
            until = from_micros(data["until"])
            text = (
                f"Run asked to cancel{_acted_by(data, called)}. It has until {until:%d %b %Y, %H:%M:%S} UTC to tidy up."
            )
            return Entry(at, text, str(data["reason"] or ""), by_people=True)
        case "run_cancelled" if "error" in data:
            return Entry(at, "Run cancelled. Its clean-up failed.", _cause(event), by_people=True, is_cause=True)
        case "run_cancelled":
            return Entry(at, "Run cancelled.", str(data.get("reason") or ""), by_people=True)
        case "run_reset":
            text = f"Run reset to event {data['to']}. Run {data['next']} goes on in its place."
            return Entry(at, text, by_people=True)
        case "run_continued":
            return Entry(at, f"Run continued as {data['next']}.", by_people=True)


def _called_by(name: str, data: Mapping[str, Any], called: Called) -> str:
    """Say that a hook was called, and by whom if the log knows."""
    actor = read_actor(data.get("actor"))
    return f"The {name} was called{'' if actor is None else f' by {called(actor.id)}'}."


def _acted_by(data: Mapping[str, Any], called: Called = str) -> str:
    actor = read_actor(data.get("actor"))
    return "" if actor is None else f" by {called(actor.id)}"


def _beginning(data: Mapping[str, Any], called: Called) -> str:
    match data:
        case {"reset_of": {"run_id": run, "seq": seq}}:
            return f"Run started from event {seq} of run {run}."
        case {"continues": {"run_id": run}}:
            return f"Run started, as the continuation of run {run}."
        case {"attempt_of": run}:
            return f"Run started{_acted_by(data, called)}, as another attempt at run {run}."
        case {"input": {"opening": {"requester": str(requester), "on_behalf_of": str(behalf)}}}:
            return f"{called(requester)} opened the request for {called(behalf)}."
        case {"input": {"opening": {"requester": str(requester)}}}:
            return f"{called(requester)} opened the request."
        case _:
            return f"Run started{_acted_by(data, called)}."


def _act(payload: Any, called: Called) -> str:
    """Return what a person did to a request, from the act's payload; "" for any other payload.

    Our own messages have no URL: what is sent to a webhook's URL can say anything.
    """
    match _json(payload) if isinstance(payload, dict) and payload.get("url") == "" else None:
        case {"kind": "vote", "by": str(by), "choice": str(choice), **more}:
            return f"{called(by)} {_CHOSE.get(choice, choice)}{_by_way(by, more)}."
        case {"kind": "edit", "by": str(by), **more}:
            return f"{called(by)} edited the request{_by_way(by, more)}."
        case {"kind": "withdraw", "by": str(by), **more}:
            return f"{called(by)} withdrew the request{_by_way(by, more)}."
        case {"kind": "reassign", "by": str(by), "person": str(person), **more}:
            instead = more.get("instead_of")
            whose = "" if instead is None else f" instead of {called(str(instead or by))}"
            return f"{called(by)} asked {called(person)} to decide{whose}{_by_way(by, more)}."
        case {"kind": "stop", "by": str(by), **more}:
            return f"{called(by)} cancelled the run{_by_way(by, more)}."
        case {"kind": "comment", "by": str(by), **more}:
            return f"{called(by)} commented{_by_way(by, more)}."
        case {"kind": "claim", "by": str(by), "ends": True, **more}:
            return f"{called(by)} is no longer on it{_by_way(by, more)}."
        case {"kind": "claim", "by": str(by), **more}:
            return f"{called(by)} is on it{_by_way(by, more)}."
        case {"kind": "remind", "by": str(by), **more}:
            return f"{called(by)} asked for a reminder{_by_way(by, more)}."
        case {"kind": "snooze", "by": str(by), "until": str(until), **more}:
            return f"{called(by)} snoozed their reminders until {until}{_by_way(by, more)}."
        case {"kind": "snooze", "by": str(by), **more}:
            return f"{called(by)} ended their snooze{_by_way(by, more)}."
    return ""


def _words(payload: Any) -> str:
    """Return what somebody wrote: a comment, or why they did something; "" if nothing."""
    act = _json(payload) or {}
    return str(act.get("text" if act.get("kind") == "comment" else "comment") or act.get("reason") or "")


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
    said = ": ".join(str(error[key]) for key in ("type", "message") if error.get(key))
    return f"{said} ({error['where']})" if error.get("where") else said


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
    attempts = _attempts(log)
    for event in log:
        kind = event.type.removesuffix("_created").removesuffix("_started")
        if is_whole_step(event):
            kind = "step"
        elif kind not in ("step", "hook", "wait", "child") or event.type == "step_started":
            continue
        number = event.data["id"]
        end = ends.get(number)
        span = Span(
            kind=kind,  # type: ignore[arg-type]  # narrowed by the line above
            label=names[number],
            start=event.at,
            end=end.at if end else over if is_over else None,
            ending=_ending(end, kind) if end else "cancelled" if is_over else "open",
        )
        yield _with_actor(span, event) if kind != "step" else _step(span, event, end, attempts.get(number, ()))


def _step(span: Span, event: Event, end: Event | None, attempts: tuple[StepAttempt, ...]) -> Span:
    words = _step_in_words(event, end)
    return replace(
        span,
        label=words.text,
        ending="failed" if words.went_wrong else span.ending,
        actor=words.actor,
        name=str(event.data["name"]),
        given=event.data.get("input"),
        result=None if end is None else end.data.get("result"),
        attempts=attempts,
    )


def _with_actor(span: Span, event: Event) -> Span:
    match span.kind, span.label:
        case "hook", "request":
            return replace(span, label="Open for votes", actor="Approvers")
        case "hook", _:
            return replace(span, actor=CALLS)
        case "child", _:
            return replace(span, actor=CHILDREN)
        case _:
            until = from_micros(event.data["resume_at"])
            label = f"{span.label.capitalize()} until {until.day} {until:%b, %H:%M} UTC"
            return replace(span, label=label, actor=TIMERS)


def _attempts(log: Sequence[Event]) -> dict[int, tuple[StepAttempt, ...]]:
    """Return the attempts at each step, by its number."""
    found: dict[int, list[StepAttempt]] = {}
    for event in log:
        match event.type:
            case "step_started":
                found.setdefault(event.data["id"], []).append(StepAttempt(event.data["attempt"], event.at, None))
            case "step_retrying" | "step_completed" | "step_failed" | "step_cancelled":
                tries = found.get(event.data["id"])
                if tries and tries[-1].end is None:
                    tries[-1] = replace(tries[-1], end=event.at, error=event.data.get("error"))
    return {number: tuple(tries) for number, tries in found.items()}
