"""A step in words: what it did, and to whom. Pure.

A log may hold steps of earlier versions and of anybody's code, so nothing about a step's input or result is taken for
granted. For what isn't understood, the step's name is enough.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from approvals_bot.approvals.port import EMAIL, SLACK

Ending = Literal["open", "done", "failed", "cancelled"]

CHANNELS = {SLACK: "Slack", EMAIL: "Email"}
LOOKUPS, STEPS = "People and groups", "Steps"
MOST_NAMED = 4  # people in one line

_NOUNS = {
    "request": "card",
    "reminder": "reminder",
    "escalation": "escalation",
    "change": "changed card",
    "comment": "comment",
    "reassigned": "reassignment",
    "vote": "confirmation of the vote",
    "code": "code",
    "outcome": "outcome",
}
_GRANT_FACTS = {
    "grant_given": "Grant given",
    "grant_not_given": "Grant not given",
    "grant_overdue": "Grant overdue",
    "grant_taken": "Grant removed",
    "grant_extended": "Grant extended",
}
_MODEL, _TOOL = "__model.request", "__call_tool:"


@dataclass(frozen=True, slots=True)
class StepWords:
    """A step in words. `actor`: who or what acted, as a heading. `went_wrong`: it ended, but not as it should."""

    text: str
    actor: str
    went_wrong: bool = False


def step_words(name: str, given: Any, result: Any, ending: Ending) -> StepWords:
    """Word a step. `given`: its input as the log has it; `result`: None until it is done."""
    match name, given:
        case "send_copy", {"dispatch": Mapping() as dispatch}:
            return _sent(dispatch, result, ending)
        case "update_copy", {"dispatch": Mapping() as dispatch}:
            return _updated(dispatch, result, ending)
        case "call_target", {"target": str(target)}:
            return _called(target, result, ending)
        case "look_up", _:
            return StepWords(_looked_up(result, ending), LOOKUPS)
        case "write_grant_line", {"what": str(what)}:
            return StepWords(f"{_GRANT_FACTS.get(what, 'Grant changed')}, in the audit", "Audit")
        case "look_up_rank", {"address": str(address), "person": str(person)}:
            return StepWords(f"Checked whether {address} may reassign to {person}", LOOKUPS)
        case "look_up_rank", _:
            return StepWords("Checked what an owner or admin may do", LOOKUPS)
        case "ask", _:
            return StepWords("Request recorded" if ending == "done" else "Recording the request", LOOKUPS)
        case "announce_decision", _:
            return StepWords("Notified the run that waits for the decision", STEPS)
        case "mail_link", {"address": str(address)}:
            return StepWords(f"Mailed a link to {address}" if ending == "done" else f"Link for {address}", "Email")
    return _authors(name, ending)


def _sent(dispatch: Mapping[str, Any], result: Any, ending: Ending) -> StepWords:
    noun = "message" if dispatch.get("text") else _NOUNS.get(str(dispatch.get("occasion", "request")), "card")
    to, channel = _destination(dispatch)
    actor = CHANNELS.get(channel, channel.capitalize())
    match result:
        case {"kind": "try_again", "held": True}:
            return StepWords(f"{noun.capitalize()} {_towards(to, channel)} held: its turn comes later", actor)
        case {"kind": "refused", "code": "no_account"} if channel == SLACK:
            return StepWords(f"{to} isn't a member in Slack: by email instead", actor)
        case {"kind": "refused", "code": "not_configured"} if channel == SLACK:
            return StepWords(f"Slack isn't set up here: by email instead to {to}", actor)
        case {"kind": "refused", "code": "too_late", "error": error}:
            return StepWords(f"Not sent {_towards(to, channel)}: {error}", actor)
    if (wrong := _wrong(result)) is not None:
        return StepWords(f"Not sent {_towards(to, channel)}: {wrong}", actor, went_wrong=True)
    match ending:
        case "done" if channel == EMAIL and noun == "card":
            return StepWords(f"Mailed {to}", actor)
        case "done":
            return StepWords(
                f"{noun.capitalize()} {'mailed' if channel == EMAIL else 'sent'} {_aim(to, channel)}", actor
            )
        case "open":
            return StepWords(f"Sending the {noun} {_aim(to, channel)}", actor)
        case _:
            return StepWords(f"{noun.capitalize()} {_towards(to, channel)}", actor)


def _updated(dispatch: Mapping[str, Any], result: Any, ending: Ending) -> StepWords:
    to, channel = _destination(dispatch)
    actor = CHANNELS.get(channel, channel.capitalize())
    where = f"in {to}" if to.startswith("#") else f"of {to}"
    if (wrong := _wrong(result)) is not None:
        return StepWords(f"Card {where} not updated: {wrong}", actor, went_wrong=True)
    return StepWords(f"Updating the card {where}" if ending == "open" else f"Card {where} updated", actor)


def _called(target: str, result: Any, ending: Ending) -> StepWords:
    match result:
        case {"kind": "called", "status": int(status)}:
            return StepWords(f"{target} called: {status}", target)
        case {"kind": "refused", "error": error}:
            return StepWords(f"{target} refused the call: {error}", target, went_wrong=True)
        case {"kind": "try_again", "error": error}:
            return StepWords(f"Call of {target} didn't succeed: {error}", target, went_wrong=True)
    return StepWords(f"Calling {target}" if ending == "open" else f"{target} called", target)


def _looked_up(result: Any, ending: Ending) -> str:
    if ending == "open":
        return "Looking up people"
    match result:
        case {"seats": [*seats], "people": Mapping() as people}:
            eligible = dict.fromkeys(address for seat in seats for address in seat.get("eligible", ()))
            names = [str((people.get(address) or {}).get("name") or address) for address in eligible]
            if names:
                more = [f"{len(names) - MOST_NAMED} more"] if len(names) > MOST_NAMED else []
                return f"Looked up {_joined([*names[:MOST_NAMED], *more])}"
            return "Looked up people: there is nobody"
    return "Looked up people"


def _authors(name: str, ending: Ending) -> StepWords:
    """Word a step of a workflow's author, or of an agent."""
    agent, is_model, _ = name.partition(_MODEL)
    if is_model:
        return StepWords("Asking the model" if ending == "open" else "Asked the model", agent)
    agent, is_tool, tool = name.partition(_TOOL)
    if is_tool:
        return StepWords(f"Calling the tool {tool}" if ending == "open" else f"Called the tool {tool}", agent)
    words = re.sub(r"[\W_]+", " ", name).strip() or name
    match ending:
        case "open":
            return StepWords(f"Running “{words}”", STEPS)
        case "done":
            return StepWords(f"Ran “{words}”", STEPS)
        case "failed":
            return StepWords(f"“{words}” failed", STEPS)
        case _:
            return StepWords(f"“{words}” was cancelled", STEPS)


def _destination(dispatch: Mapping[str, Any]) -> tuple[str, str]:
    """Return the place or person, and the channel."""
    match dispatch.get("to"):
        case {"channel": str(channel), "place": str(place)}:
            return place, channel
        case {"channel": str(channel), "person": {"name": str(name)}}:
            return name, channel
        case _:
            return "somebody", ""


def _aim(to: str, channel: str) -> str:
    return f"to {to} in Slack" if channel == SLACK and not to.startswith("#") else f"to {to}"


def _towards(to: str, channel: str) -> str:
    return f"to {to} by email" if channel == EMAIL else _aim(to, channel)


def _wrong(result: Any) -> str | None:
    """Return what a channel said instead of delivering; None if it delivered, or hasn't answered."""
    match result:
        case {"kind": "try_again" | "refused", "error": error}:
            return str(error)
    return None


def _joined(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
