"""Every sentence that somebody reads after they acted, on every channel the same.

Second person, short, no blame. Each says what happened, whether anything changed, and what to do if there is
something to do. A reply comes as a code and parameters, a fault of a value as well. The text is plain; each channel
escapes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from approvals_bot.approvals.port import ChoiceName

UNCHANGED = "Nothing was changed."
SHORT_DIGEST = 12  # hex digits: enough to compare by eye, small enough for a button's row

CHOSEN: dict[ChoiceName, str] = {
    "approve": "approved this",
    "reject": "rejected this",
    "changes": "asked for changes",
    "edit": "approved this with changes",
    "answer": "answered this",
    "take_back": "taken your vote back",
}
"""After "You have already …"."""

VOTE: dict[ChoiceName, str] = {
    "approve": "Approve",
    "reject": "Reject",
    "changes": "Ask for changes",
    "edit": "Approve with changes",
    "answer": "Answer",
    "take_back": "Take back",
}
"""The name of each choice, as on its button."""

DECIDED = {
    "filled": "Approved. Your vote decided it, and everyone is told.",
    "rejected": "Rejected. Your vote decided it, and everyone is told.",
    "answered": "Answered. Your answer goes back, and nobody else is asked.",
}
"""By how the stage stands after the vote that decided."""

TO_CHANGE = "You asked for this, and changes are asked for. Make them, or withdraw it, on your own page."

REPLIES = {
    "own_request": "You asked for this yourself, so somebody else decides.",
    "group_unknown": (
        f"Your group could not be checked just now, so your vote could not count. {UNCHANGED} Please try again."
    ),
    "not_an_approver": f"You are not one of the people who are asked here, so your vote can't count. {UNCHANGED}",
    "not_yours": f"Only the person who asked can do this. {UNCHANGED}",
    "stage_is_over": "You have already voted, and your stage is complete. ",
    "rule_decided": "Saved. What it says now is decided by a rule, and everyone is told.",
    "edited": "Saved. The votes so far stand.",
    "edited_and_reset": "Saved. The votes were reset, and everyone who was asked is told.",
    "changes_requested": "Counted: you ask for changes. You are asked again once the request has been edited.",
    "withdrawal": "Withdrawn. Everyone who was asked is told.",
    "received": "Your choice is saved and is being counted. Look again in a moment; there is no need to press twice.",
    "unknown": "This request can't be found. Nothing was changed.",
    "takes_no_votes": f"This request takes no votes any more. {UNCHANGED}",
    "bounced": "",
    # what is invalid about a message
    "unreadable": f"This message could not be read. {UNCHANGED}",
    "no_vote_to_take_back": f"You have no vote here to take back. {UNCHANGED}",
    "choice_not_offered": "“{choice}” is no choice here. " + UNCHANGED,
    "answer_missing": f"Please write your answer. {UNCHANGED}",
    "comment_missing": f"Please say why, in a comment. {UNCHANGED}",
    # reassigning
    "own_reassignment": f"You asked for this yourself, so somebody else says who decides. {UNCHANGED}",
    "may_not_reassign": (
        f"Only people who are asked here, the workflow's owners and admins can say who else is asked. {UNCHANGED}"
    ),
    "not_your_place": (
        f"You can hand over your own place. Somebody else's is changed by the workflow's owners and admins. {UNCHANGED}"
    ),
    "rank_unknown": f"Whether you may do this could not be checked just now. Please try again. {UNCHANGED}",
    "no_colleague": (
        f"You can ask a colleague, with an address like yours. Owners and admins can ask anybody. {UNCHANGED}"
    ),
    "no_person": f"Name one person, by her mail address. {UNCHANGED}",
    "asked_for_it": "{name} asked for this, or it is asked for her, so somebody else decides. " + UNCHANGED,
    "asked_already": "{name} is one of the people who are asked here already. " + UNCHANGED,
    "no_place": "{name} is not asked here, so there is no place to hand over. " + UNCHANGED,
    "has_voted": "{name} has voted already. Take the vote back first. " + UNCHANGED,
    "added": "{person} is asked too, and told.",
    "reassigned": "{person} is asked instead of {instead_of}, and told.",
    "held": "{outcome}: your vote decides it in {grace}. Until then you can take it back.",
}
"""Replies that need no more than their parameters."""

FAULTS = {
    "not_text": "must be a text",
    "broken_character": "holds a broken character (half of a surrogate pair)",
    "control_character": "holds a control character; only line breaks and tabs are allowed",
    "too_long": "is too long: {length:,} characters, and at most {longest:,} are allowed",
    "too_short": "is too short: at least {shortest:,} characters are needed",
    "required": "is required",
    "pattern": "does not have the form {pattern}",
    "not_email": "must be a mail address, like ann@acme.eu",
    "not_url": "must be a URL, like https://acme.eu/page",
    "not_boolean": "must be true or false",
    "not_integer": "must be a whole number",
    "integer_range": "must lie between -{largest} and {largest}",
    "not_number": 'must be a number, like "1250.00"',
    "number_form": 'must be a number like "1250.00", of at most 15 digits and 9 decimals',
    "not_date": 'must be a date, like "2026-11-05"',
    "not_datetime": ('must be a moment with its offset, like "2026-11-05T14:00:00Z" or "2026-11-05T15:00:00+01:00"'),
    "not_duration": 'must be a span of time, like "1h30m", or a number of seconds',
    "below_min": "must be at least {min}",
    "above_max": "must be at most {max}",
    "no_bounds": "a field of type {type} has no bounds",
    "unknown_field": "no such field",
    "not_editable": "“{name}” can't be changed here",
    "same_as_before": "That is what it says already",
}
"""What is wrong with a value, after its field's name."""

LISTED_VALUES = 12  # of an enum, in the fault of a value that is none of them


def reply_text(code: str, params: Mapping[str, Any], faults: Sequence[tuple[tuple[str, ...], str]] = ()) -> str:
    """The sentence of a reply. `faults`: paths and texts of what is wrong with what was filled in."""
    match code:
        case "counted":
            return _counted(params)
        case "changed" if params["choice"] != "changes":
            return f"Changed: your vote is now “{VOTE[params['choice']]}”. {_so_far(params)}"
        case "changed":
            return REPLIES["changes_requested"]
        case "taken_back":
            return f"Taken back: your vote no longer counts. {_so_far(params)}"
        case "decided":
            return DECIDED[params["standing"]]
        case "already_voted":
            return f"You have already {CHOSEN[params['choice']]}, and it counts. {UNCHANGED}"
        case "voted_before_the_end":
            decided = f"decided{_by(params['by'])} {_moment(params)}"
            return f"You have already {CHOSEN[params['choice']]}; it was {decided}. {UNCHANGED}"
        case "request_changed":
            return _request_changed(params)
        case "ended":
            return _ended(params)
        case "with_requester":
            return (
                f"{params['by']} asked for changes {_moment(params)}. "
                f"You can vote once {params['requester']} has edited the request. {UNCHANGED}"
            )
        case "invalid":
            return f"{_faults(faults)} {UNCHANGED}"
        case _:
            return REPLIES[code].format_map(params)


def rejection_text(code: str, params: Mapping[str, Any]) -> str:
    """What is wrong with a value. It goes on after the field's name and quotes no value."""
    near = params.get("near")
    meant = f' (did you mean "{near}"?)' if near else ""
    if code == "not_listed":
        values = params["values"]
        listed = ", ".join(f'"{value}"' for value in values[:LISTED_VALUES])
        return f"must be one of {listed}{', …' if len(values) > LISTED_VALUES else ''}{meant}"
    return FAULTS[code].format_map(params) + meant


def short_digest(whole: str) -> str:
    """The digest as cards show it."""
    return whole[:SHORT_DIGEST]


def time_of_day(at: datetime, now: datetime, zone: str) -> str:
    """`at 10:42`, with the day where it is not today's. In this zone; in UTC, and saying so, when there is none."""
    try:
        tz = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        tz = ZoneInfo("UTC")
    at, now = at.astimezone(tz), now.astimezone(tz)
    day = "" if at.date() == now.date() else f" on {at.day} {at:%B}" + ("" if at.year == now.year else f" {at.year}")
    return f"at {at:%H:%M}{' UTC' if tz.key == 'UTC' else ''}{day}"


def waiting(missing: Iterable[tuple[str, int]]) -> str:
    """`Waiting for one more from SRE and two more from Finance.`, or nothing. `missing`: labels and counts."""
    parts = [f"{_number(count)} more from {label}" for label, count in missing]
    if not parts:
        return ""
    return "Waiting for " + (parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]) + "."


def _counted(params: Mapping[str, Any]) -> str:
    if params["choice"] == "changes":
        return REPLIES["changes_requested"]
    if params["choice"] == "reject":
        return f"Counted: {params['have']} of {params['need']} rejections that end it."
    count = f"Counted: {params['have']} of {params['need']}."
    if params["standing"] == "filled":
        following = params.get("next_stage")
        return f"{count} Next: {following}." if following else count
    return f"{count} {waiting(params['missing'])}".strip()


def _so_far(params: Mapping[str, Any]) -> str:
    if params["choice"] == "reject":
        return f"{params['have']} of {params['need']} rejections that end it."
    return f"{params['have']} of {params['need']} so far. {waiting(params['missing'])}".strip()


def _request_changed(params: Mapping[str, Any]) -> str:
    was, now = params["was"], params["now"]
    change = f" ({short_digest(was)} → {short_digest(now)})" if was and now else ""
    return f"The request has changed since you looked{change}, so your vote was not counted. Look again, then vote."


def _ended(params: Mapping[str, Any]) -> str:
    """Said to somebody who comes after the end."""
    by, when = _by(params["by"]), _moment(params)
    match params["state"]:
        case "expired":
            return f"The time to decide this ended {when}. {UNCHANGED}"
        case "withdrawn":
            return f"Withdrawn{by} {when}, so there is nothing left to decide. {UNCHANGED}"
        case _:
            return f"Already decided{by} {when}. {UNCHANGED}"


def _by(name: str) -> str:
    return f" by {name}" if name else ""


def _moment(params: Mapping[str, Any]) -> str:
    at, now = (datetime.fromisoformat(params[each]) for each in ("at", "now"))
    return time_of_day(at, now, params["zone"])


def _faults(faults: Sequence[tuple[tuple[str, ...], str]]) -> str:
    """`budget_code: is required; …`, as one sentence."""
    said = "; ".join(f"{'.'.join(path)}: {text}" if path else text for path, text in faults)
    return said.rstrip(".") + "."


def _number(count: int) -> str:
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    return words[count] if count < len(words) else str(count)
