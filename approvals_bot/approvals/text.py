"""What people read after they acted: one table, the same sentence on every channel.

Second person, short, no blame. Each says what happened, whether anything changed, and what to do if there is
something to do. The text is plain; whoever shows it escapes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from approvals_bot.approvals.ballot import Missing, Standing, Verdict
from approvals_bot.approvals.fields import short_digest
from approvals_bot.approvals.port import ChoiceName, State

UNCHANGED = "Nothing was changed."

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

DECIDED: dict[Standing, str] = {
    "filled": "Approved. Your vote decided it, and everyone is told.",
    "rejected": "Rejected. Your vote decided it, and everyone is told.",
    "answered": "Answered. Your answer goes back, and nobody else is asked.",
}

NOT_AN_APPROVER = f"You are not one of the people who are asked here, so your vote can't count. {UNCHANGED}"
OWN_REQUEST = "You asked for this yourself, so somebody else decides."
GROUP_UNKNOWN = f"Your group could not be checked just now, so your vote could not count. {UNCHANGED} Please try again."
NOT_YOURS = f"Only the person who asked can do this. {UNCHANGED}"
RULE_DECIDED = "Saved. What it says now is decided by a rule, and everyone is told."
EDITED = "Saved. The votes so far stand."
EDITED_AND_RESET = "Saved. The votes were reset, and everyone who was asked is told."
CHANGES_ASKED = "Counted: you ask for changes. You are asked again once the request has been edited."
WITHDRAWN = "Withdrawn. Everyone who was asked is told."
TO_CHANGE = "You asked for this, and changes are asked for. Make them, or withdraw it, on your own page."
OWN_HANDOVER = "You asked for this yourself, so somebody else says who decides."
MAY_NOT_HAND_OVER = "Only people who are asked here, the workflow's owners and admins can say who else is asked."
NOT_YOUR_PLACE = "You can hand over your own place. Somebody else's is changed by the workflow's owners and admins."
NO_COLLEAGUE = "You can ask a colleague, with an address like yours. Owners and admins can ask anybody."
RANK_UNKNOWN = "Whether you may do this could not be checked just now. Please try again."
STAGE_IS_OVER = "You have already voted, and your stage is complete. "


def say(verdict: Verdict, next_stage: str = "") -> str:
    """The sentence for this verdict. `next_stage`: the title of the stage that this vote opened, if it did."""
    match verdict.word:
        case "counted":
            return _counted(verdict, next_stage)
        case "changed":
            if verdict.choice == "changes":
                return CHANGES_ASKED
            return f"Changed: your vote is now “{VOTE[verdict.choice]}”. {_so_far(verdict)}"
        case "taken_back":
            return f"Taken back: your vote no longer counts. {_so_far(verdict)}"
        case "decided":
            return DECIDED[verdict.standing]
        case "already_voted":
            return f"You have already {CHOSEN[verdict.choice]}, and it counts. {UNCHANGED}"
        case "own_request":
            return OWN_REQUEST
        case "group_unknown":
            return GROUP_UNKNOWN
        case "request_changed":
            return _request_changed(verdict)
        case "invalid":
            return f"{verdict.detail} {UNCHANGED}"
        case _:
            return NOT_AN_APPROVER


def already_voted(choice: ChoiceName, outcome: str) -> str:
    """Said to who presses the same button again after the end. `outcome`: `decided_by`, or another clause."""
    return f"You have already {CHOSEN[choice]}; it was {outcome}. {UNCHANGED}"


def ended(state: State, by: str, at: datetime, now: datetime, zone: str) -> str:
    """Said to who comes after the end."""
    when = moment(at, now, zone)
    match state:
        case "expired":
            return f"The time to decide this ended {when}. {UNCHANGED}"
        case "withdrawn":
            return f"Withdrawn{f' by {by}' if by else ''} {when}, so there is nothing left to decide. {UNCHANGED}"
        case _:
            return f"Already decided{f' by {by}' if by else ''} {when}. {UNCHANGED}"


def changes_asked(by: str, at: datetime, now: datetime, zone: str, requester: str) -> str:
    """Said to who votes while the request is back with the requester."""
    when = moment(at, now, zone)
    return f"{by} asked for changes {when}. You can vote once {requester} has edited the request. {UNCHANGED}"


def moment(at: datetime, now: datetime, zone: str) -> str:
    """`at 10:42`, with the day where it is not today's. In this zone; in UTC, and saying so, when there is none."""
    try:
        tz = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        tz = ZoneInfo("UTC")
    at, now = at.astimezone(tz), now.astimezone(tz)
    day = "" if at.date() == now.date() else f" on {at.day} {at:%B}" + ("" if at.year == now.year else f" {at.year}")
    return f"at {at:%H:%M}{' UTC' if tz.key == 'UTC' else ''}{day}"


def asked_for_it(name: str) -> str:
    """Said to who would make the requester an approver of her own request."""
    return f"{name} asked for this, or it is asked for her, so somebody else decides."


def handed_over(person: str, instead_of: str) -> str:
    """Said to who asked somebody else. `instead_of`: a name, or "" for somebody who is asked besides the others."""
    return f"{person} is asked {f'instead of {instead_of}' if instead_of else 'too'}, and told."


def held(state: Literal["approved", "rejected", "answered"], grace: str) -> str:
    """Said to whose vote decides, while it may still be taken back."""
    return f"{state.capitalize()}: your vote decides it in {grace}. Until then you can take it back."


def waiting(missing: Sequence[Missing]) -> str:
    """`Waiting for one more from SRE and two more from Finance.`, or nothing."""
    parts = [f"{_number(lack.count)} more from {lack.label}" for lack in missing]
    if not parts:
        return ""
    return "Waiting for " + (parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]) + "."


def _counted(verdict: Verdict, next_stage: str) -> str:
    if verdict.choice == "changes":
        return CHANGES_ASKED
    if verdict.choice == "reject":
        return f"Counted: {verdict.have} of {verdict.need} rejections that end it."
    count = f"Counted: {verdict.have} of {verdict.need}."
    if verdict.standing == "filled":
        return f"{count} Next: {next_stage}." if next_stage else count
    return f"{count} {waiting(verdict.missing)}".strip()


def _so_far(verdict: Verdict) -> str:
    if verdict.choice == "reject":
        return f"{verdict.have} of {verdict.need} rejections that end it."
    return f"{verdict.have} of {verdict.need} so far. {waiting(verdict.missing)}".strip()


def _request_changed(verdict: Verdict) -> str:
    change = f" ({short_digest(verdict.was)} → {short_digest(verdict.now)})" if verdict.was and verdict.now else ""
    return f"The request has changed since you looked{change}, so your vote was not counted. Look again, then vote."


def _number(count: int) -> str:
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    return words[count] if count < len(words) else str(count)
