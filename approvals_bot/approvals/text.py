"""Message texts: what people read after they act, the same on every channel.

Short, second person, no blame: what happened, whether anything changed, and what to do, if anything. Replies and faults
of values come as a code with parameters. The text is plain; each channel escapes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from approvals_bot.approvals.card_model import ChoiceName, Voted
from approvals_bot.approvals.zones import zone_of

UNCHANGED = "Nothing was changed."
NOTIFIED = "Everyone involved has been notified."
SHORT_DIGEST = 12  # hex digits: enough to compare by eye, small enough for a button's row

CHOSEN: dict[Voted, str] = {
    "approve": "approved this",
    "reject": "rejected this",
    "changes": "requested changes",
    "edit": "approved this with changes",
    "answer": "answered this",
    "take_back": "undone your vote",
    "justified": "found this justified",
    "not_justified": "found this not justified",
}
"""After "You have already …"."""

VOTE: dict[ChoiceName, str] = {
    "approve": "Approve",
    "reject": "Reject",
    "changes": "Request changes",
    "edit": "Approve with changes",
    "answer": "Answer",
    "take_back": "Undo vote",
}
"""The name of each choice, as on its button."""

DECIDED = {
    "filled": f"Approved. {NOTIFIED}",
    "rejected": f"Rejected. {NOTIFIED}",
    "answered": f"Answered. {NOTIFIED}",
}
"""By the status of the stage after the deciding vote."""

NOT_REQUESTED_YET = f"This run hasn't requested a decision yet. {UNCHANGED} Please try again in a moment."
NEVER_REQUESTED = f"This run has ended and takes no votes: it requested no decision. {UNCHANGED}"
"""Instead of a reply, where a run has no request: it may still make one, or it has ended."""

TO_CHANGE = "Changes were requested. It's your turn: edit your request or withdraw it."

REPLIES = {
    "own_request": "You can't approve your own request.",
    "group_unknown": (
        f"We couldn't check your group just now, so your vote wasn't counted. {UNCHANGED} Please try again."
    ),
    "not_an_approver": f"You're not an approver for this request. {UNCHANGED}",
    "not_picked": f"Others were picked to decide this request. {UNCHANGED}",
    "excluded": f"This request's policy excludes you from deciding it. {UNCHANGED}",
    "no_veto": "Only {people} can reject this. " + UNCHANGED,
    "needed_later": "Nobody could decide stage “{stage}” then: nobody decides in two stages here. " + UNCHANGED,
    "left": f"Nobody here knows you any more, so you can't act on this request. {UNCHANGED}",
    "sign_in_needed": (
        f"This request needs a sign-in before you decide. {UNCHANGED} Sign in and decide here: {{page}}"
    ),
    "not_yours": f"Only the requester can do this. {UNCHANGED}",
    "stage_is_over": "You've already voted, and your stage is complete.",
    "reviewed": f"Your review was recorded. {NOTIFIED}",
    "rule_decided": f"Saved. A rule decided the request as it is now. {NOTIFIED}",
    "edited": "Saved. The votes so far still count.",
    "edited_and_reset": "Saved. The votes were reset, and the approvers have been notified.",
    "changes_requested": "Counted: you requested changes. You'll be asked again once the request has been edited.",
    "withdrawal": f"Withdrawn. {NOTIFIED}",
    "cancellation": f"Cancelled. {NOTIFIED}",
    "received": "Your choice is saved and is being counted. Check again in a moment; you don't need to press twice.",
    "vote_kept": (
        "This request is waiting for a fix. Your vote is kept and counts once it is fixed; "
        "you don't need to press again."
    ),
    "act_kept": (
        "This request is waiting for a fix. What you did is kept and takes effect once it is fixed; "
        "you don't need to do it again."
    ),
    "unknown": "This request can't be found. Nothing was changed.",
    "put_back": (
        "The request isn't as you were shown it: it was put back to an earlier state, or is gone. Your vote wasn't "
        "counted. Open the request again and check it before you vote."
    ),
    "busy": f"Too much is waiting to be counted on this request. {UNCHANGED} Please try again in a few minutes.",
    "takes_no_votes": f"This request no longer takes votes. {UNCHANGED}",
    "bounced": "",
    "tried": "It is being tried now.",
    "not_tried": "There was nothing to try: it has arrived, or it is being tried.",
    "decided_before_trying": "The request is decided, so nothing was sent.",
    "notified": NOTIFIED,  # where the outcome is in sight
    # what is invalid about a message
    "unreadable": f"This message couldn't be read. {UNCHANGED}",
    "no_vote_to_take_back": f"You have no vote here to undo. {UNCHANGED}",
    "choice_not_offered": "“{choice}” isn't a choice here. " + UNCHANGED,
    "answer_missing": f"Please write your answer. {UNCHANGED}",
    "comment_missing": f"Please say why in a comment. {UNCHANGED}",
    # reassigning
    "own_reassignment": f"You can't choose who decides your own request. {UNCHANGED}",
    "may_not_reassign": (f"Only approvers, the workflow's owners and admins can reassign this request. {UNCHANGED}"),
    "not_your_place": (
        f"You can reassign only your own place. The workflow's owners and admins can reassign any. {UNCHANGED}"
    ),
    "rank_unknown": f"We couldn't check just now whether you may do this. {UNCHANGED} Please try again.",
    "no_person": f"Name one person by their email address. {UNCHANGED}",
    "address_refused": "{why}. " + UNCHANGED,
    "person_unknown": (
        "We don't know {name}: they aren't in the configuration, a group, the directory or Slack. " + UNCHANGED + " "
        "Choose somebody else, or ask your Approvals admin to add them."
    ),
    "person_unsure": f"We couldn't check just now whether we know this person. {UNCHANGED} Please try again.",
    "asked_for_it": "{name} can't decide their own request. " + UNCHANGED,
    "excluded_by_policy": "This request's policy excludes {name} from deciding it. " + UNCHANGED,
    "asked_already": "{name} is already an approver here. " + UNCHANGED,
    "no_place": "{name} isn't an approver here, so there's no place to reassign. " + UNCHANGED,
    "has_voted": "{name} has already voted. Their vote must be undone first. " + UNCHANGED,
    "added": "{person} was added as an approver and has been notified.",
    "reassigned": "{person} now decides instead of {instead_of} and has been notified.",
    # comments and what else decides nothing
    "comment_empty": f"There's no text in this comment. {UNCHANGED}",
    "comment_too_long": "A comment has at most {most:,} characters. " + UNCHANGED,
    "comments_full": "This request has {most} comments, and takes no more. " + UNCHANGED,
    "comments_often": "You've written {most} comments in the last hour. " + UNCHANGED + " Please try again later.",
    "not_concerned": f"You have nothing to do with this request, so you can't comment on it. {UNCHANGED}",
    "commented": "Your comment was added. The others involved will be notified.",
    "nothing_owed": f"Nobody is waiting for your vote here. {UNCHANGED}",
    "no_claim": f"You haven't said that you're on it. {UNCHANGED}",
    "claimed": "You're on it, and everybody can see that. It's no vote yet.",
    "claimed_already": f"You've already said that you're on it. {UNCHANGED}",
    "claimed_instead": "You're on it now, instead of {instead_of}. It's no vote yet.",
    "released": "You're no longer on it, and everybody can see that.",
    "all_reminded": "Reminded everybody whose vote is missing, but for those who have snoozed this.",
    "all_snoozed": f"Everybody who could vote now has snoozed their reminders. {UNCHANGED}",
    "nobody_to_remind": f"There's nobody to remind now. {UNCHANGED}",
    "snooze_over": "You'll get reminders again.",
    "snooze_range": "Name a time in the next {days} days. " + UNCHANGED,
    "snooze_unreadable": (
        'Write when your reminders should start again: "1h", "tomorrow", "now", or a time like '
        '"2026-11-05T14:00:00Z". ' + UNCHANGED
    ),
    "done_soon": "This is saved and shows in a moment; you don't need to do it again.",
    # grants
    "no_grant": f"This request has no grant that could end. {UNCHANGED}",
    "may_not_revoke": (
        f"Only the requester, approvers, the workflow's owners and operators can end this grant. {UNCHANGED}"
    ),
    "revoked": "The grant ends now and is being removed.",
    "standing_revoked": "It covers no further requests from now on.",
    "revoked_already": "{by} has ended this grant already; it is being removed.",
    "taking": "The grant is over and is being removed. It is tried until that succeeds.",
    "grant_over": "The grant is over already: {state}.",
    "never_extended": f"Grants of this workflow can't be extended. Please make a new request. {UNCHANGED}",
    "grant_not_active": "Only an active grant can be extended, and this one is {state}. " + UNCHANGED,
    "extension_open": f"An extension of this grant is waiting for a decision already. {UNCHANGED}",
    "extending": "The approvers are asked whether the grant may last longer. Until they approve, its end stays.",
    "review_stays": f"A review can't be edited, withdrawn or cancelled. {UNCHANGED}",
    "no_edits_of_extensions": f"An extension can't be edited. {UNCHANGED}",
    "held": "{outcome}: your vote takes effect in {grace}. Until then, you can undo it.",
}
"""Replies that are just templates for their parameters."""

FAULTS = {
    "not_text": "must be text",
    "broken_character": "contains a broken character (half of a surrogate pair)",
    "control_character": "contains a control character; only line breaks and tabs are allowed",
    "invisible_character": (
        "contains an invisible character, {character}, at position {at}; approvers must see all that they sign"
    ),
    "too_long": "is too long: {length:,} characters, and at most {longest:,} are allowed",
    "too_short": "is too short: at least {shortest:,} characters are needed",
    "required": "is required",
    "pattern": "does not have the form {pattern}",
    "not_person": "must be a person's email address, like ann@acme.eu",
    "person_unknown": "must be somebody who is known here: in the configuration, a group, the directory or Slack",
    "person_not_among": "must be one of {people}",
    "person_unsure": "can't be checked just now; please try again in a moment",
    "not_email": "must be an email address, like ann@acme.eu",
    "not_url": "must be a URL, like https://acme.eu/page",
    "not_boolean": "must be true or false",
    "not_integer": "must be a whole number",
    "integer_range": "must be between -{largest} and {largest}",
    "not_number": 'must be a number, like "1250.00"',
    "number_form": 'must be a number like "1250.00", of at most 15 digits and 9 decimals',
    "amount_form": 'must be an amount like "{example}", of at most 15 digits before the point',
    "ambiguous_amount": (
        "can be read in two ways, {given}: write {thousands} for the larger amount or {rounded} for the smaller one"
    ),
    "too_many_decimals": "has more decimals than the currency, {given}: write {rounded} if that is what you mean",
    "not_date": 'must be a date, like "2026-11-05"',
    "not_datetime": ('must be a time with its offset, like "2026-11-05T14:00:00Z" or "2026-11-05T15:00:00+01:00"'),
    "not_duration": 'must be a duration, like "1h30m", or a number of seconds',
    "below_min": "must be at least {min}",
    "above_max": "must be at most {max}",
    "no_bounds": "a field of type {type} has no bounds",
    "not_list": "must be a list",
    "too_few": "must have at least {min}",
    "too_many": "must have at most {max}",
    "twice": "is there twice",
    "not_one_line": "must be on one line, without blanks around it",
    "no_count": "must be a number of items, from 0 to {most:,}",
    "not_object": "must be an object",
    "not_json": "is not valid JSON: the mistake is at line {line}, column {column}",
    "not_finite": "contains a number that JSON doesn't have",
    "not_json_type": "contains a {type}, which JSON doesn't have",
    "not_text_key": "has a key that isn't text",
    "key_twice": "has the key {key} twice in one object",
    "too_deep": "is nested too deeply: at most {deepest} levels are allowed",
    "too_large": "the fields are too large: {size:,} bytes of JSON, and at most {most:,} are allowed",
    "value_too_large": "is too large: {size:,} bytes of JSON, and at most {most:,} are allowed",
    "not_a_number": "must be a number, like 12 or 12.5",
    "not_expected": "is not what the tool takes",
    "not_checkable": "can't be checked against what the tool takes, so it can't be edited",
    "no_schema": "is not a JSON Schema that can be checked: {why}",
    "not_a_file": "must be the id of an uploaded file",
    "file_unknown": (
        "is not the id of a file that this key uploaded, or the file wasn't used within an hour; upload it again"
    ),
    "file_empty": "is empty",
    "file_too_large": "has more than 10 MB",
    "file_name_missing": "is missing",
    "file_name_control": "contains a control character",
    "file_name_path": 'must be a file\'s name alone, like "plan.pdf", without a folder or blanks around it',
    "missing_key": "lacks {key}",
    "not_null": "is empty, and nothing says what else it may be",
    "not_of_the_type": "is not what the workflow takes: {why}",
    "unknown_field": "no such field",
    "not_editable": "“{name}” can't be changed here",
    "no_allowance": "a vote on this tool can't cover the next calls: the file's [allowance] doesn't name it",
    "other_tool": "names another tool than this call",
    "allowance_wider": "goes further than the file's [allowance]",
    "not_in_call": "isn't an argument of this call",
    "not_a_count": "must be a whole number, like 5",
    "no_duration": "must be a duration, like 30m or 2h",
    "allowance_without_yes": "goes with an approval only",
    "not_requestable": "Its requester can't request these values",
    "nobody_would_decide": "Nobody could decide it like this: {why}",
    "deadline_past": "has passed, and it is the request's deadline",
    "grant_impossible": "leaves the length of the grant unknown: {why}",
    "grant_no_duration": 'makes "{given}" the length of the grant, and that is no duration like "4h"',
    "grant_too_long": "is {given}, and a grant lasts at most {max} here",
    "extension_too_long": "would put the end more than {max} ahead; at most {left} can be added now",
    "same_as_before": "That's what it already says",
}
"""What is wrong with a value, to follow its field's name."""

LISTED_VALUES = 12  # of an enum, in the message about another value


def reply_text(code: str, params: Mapping[str, Any], faults: Sequence[tuple[tuple[str, ...], str]] = ()) -> str:
    """Word a reply. `faults`: path and text of each invalid value."""
    match code:
        case "counted":
            return _counted(params)
        case "changed" if params["choice"] != "changes":
            return f"Changed: your vote is now “{VOTE[params['choice']]}”. {_so_far(params)}"
        case "changed":
            return REPLIES["changes_requested"]
        case "taken_back":
            return f"Undone: your vote no longer counts. {_so_far(params)}"
        case "decided":
            return DECIDED[params["status"]]
        case "already_voted":
            return f"You've already {CHOSEN[params['choice']]}, and your vote counts. {UNCHANGED}"
        case "voted_before_the_end":
            decided = f"decided{_by(params['by'])} {_moment(params)}"
            return f"You've already {CHOSEN[params['choice']]}, and it was {decided}. {UNCHANGED}"
        case "request_changed":
            return _request_changed(params)
        case "ended":
            return _ended(params)
        case "reminded":
            return f"Reminded {_names(params['people'])}."
        case "reminded_lately":
            return (
                f"The last reminder was less than an hour ago. You can send another one {_moment(params)}. {UNCHANGED}"
            )
        case "snoozed":
            return f"No reminders for you until {_clock(params)}. The deadline stays as it is."
        case "with_requester":
            return (
                f"{params['by']} requested changes {_moment(params)}. "
                f"You can vote once {params['requester']} has edited the request. {UNCHANGED}"
            )
        case "invalid":
            return f"{_faults(faults)} {UNCHANGED}"
        case _:
            return REPLIES[code].format_map(params)


def rejection_text(code: str, params: Mapping[str, Any]) -> str:
    """Word what is wrong with a value. The text follows the field's name and quotes no value but digits."""
    near = params.get("near")
    meant = f' (did you mean "{near}"?)' if near else ""
    if code == "not_listed":
        values = params["values"]
        listed = ", ".join(f'"{value}"' for value in values[:LISTED_VALUES])
        return f"must be one of {listed}{', …' if len(values) > LISTED_VALUES else ''}{meant}"
    if code == "pattern" and (like := params.get("hint") or params.get("example")):
        return f"doesn't have the right form: {like}"  # a regular expression is for programs
    return FAULTS[code].format_map(params) + meant


def edit_text(name: str, kept: int, reset: int) -> str:
    """Word what an edit did to the votes: `Edited by Di Ops: 2 votes kept`."""
    parts = [
        f"{count} {'vote' if count == 1 else 'votes'} {what}"
        for count, what in ((kept, "kept"), (reset, "reset"))
        if count
    ]
    return f"Edited by {name}: {', '.join(parts)}"


def placed(place: Sequence[str], text: str) -> str:
    """Say which item of a list is wrong: `the second: must be one line`, counted from one."""
    return f"number {int(place[0]) + 1} {text}" if place and place[0].isdecimal() else text


def short_digest(whole: str) -> str:
    """Shorten a digest as cards show it."""
    return whole[:SHORT_DIGEST]


def clock_time(at: datetime, now: datetime, zone: str) -> str:
    """Format a time: `10:42`, `10:42 UTC on 3 May`."""
    tz = zone_of(zone)
    at, now = at.astimezone(tz), now.astimezone(tz)
    day = "" if at.date() == now.date() else f" on {at.day} {at:%B}" + ("" if at.year == now.year else f" {at.year}")
    return f"{at:%H:%M}{' UTC' if tz.key == 'UTC' else ''}{day}"


def waiting(missing: Iterable[tuple[str, int]]) -> str:
    """Word `Waiting for one more from SRE and two more from Finance.`; "" if nothing is missing."""
    parts = [f"{_number(count)} more from {label}" for label, count in missing]
    if not parts:
        return ""
    return "Waiting for " + (parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]) + "."


def _counted(params: Mapping[str, Any]) -> str:
    if params["choice"] == "changes":
        return REPLIES["changes_requested"]
    if params["choice"] == "reject":
        return f"Counted: {params['have']} of {params['need']} rejections needed to end it."
    if "any" in params and params["status"] == "open":
        return f"Counted: {_alternatives(params['any'])}."
    count = f"Counted: {params['have']} of {params['need']}."
    if params["status"] == "filled":
        following = params.get("next_stage")
        return f"{count} Next: {following}." if following else count
    return f"{count} {waiting(params['missing'])}".strip()


def _so_far(params: Mapping[str, Any]) -> str:
    if params["choice"] == "reject":
        return f"{params['have']} of {params['need']} rejections needed to end it."
    if "any" in params:
        return f"{_alternatives(params['any'])} so far."
    return f"{params['have']} of {params['need']} so far. {waiting(params['missing'])}".strip()


def _alternatives(alternatives: Iterable[Iterable[tuple[str, int, int]]]) -> str:
    """Word how far each alternative is: `1 of 2 from SRE and 0 of 1 from Finance, or 1 of 3 from Managers`."""
    return ", or ".join(
        " and ".join(f"{have} of {need} from {label}" for label, have, need in seats) for seats in alternatives
    )


def _request_changed(params: Mapping[str, Any]) -> str:
    was, now = params["was"], params["now"]
    change = f" ({short_digest(was)} → {short_digest(now)})" if was and now else ""
    return (
        f"The request has changed since you opened it{change}, so your vote wasn't counted. Check it, then vote again."
    )


def _ended(params: Mapping[str, Any]) -> str:
    """Word the reply to an act after the end."""
    by, when = _by(params["by"]), _moment(params)
    match params["state"]:
        case "expired":
            return f"This request expired {when}. {UNCHANGED}"
        case "withdrawn":
            return f"This request was withdrawn{by} {when}. {UNCHANGED}"
        case "cancelled":
            return f"This request was cancelled{by} {when}. {UNCHANGED}"
        case "failed":
            return f"An error ended this request {when}, and nobody decided it. {UNCHANGED}"
        case _:
            return f"Already decided{by} {when}. {UNCHANGED}"


def _by(name: str) -> str:
    return f" by {name}" if name else ""


def _moment(params: Mapping[str, Any]) -> str:
    return f"at {_clock(params)}"


def _clock(params: Mapping[str, Any]) -> str:
    at, now = (datetime.fromisoformat(params[each]) for each in ("at", "now"))
    return clock_time(at, now, params["zone"])


def _names(names: Sequence[str], most: int = 6) -> str:
    """Join names: `Ann and Bo`; of a long list, the first and the number of others."""
    shown = [*names[:most], *([f"{len(names) - most} more"] if len(names) > most else [])]
    return shown[0] if len(shown) == 1 else ", ".join(shown[:-1]) + " and " + shown[-1]


def _faults(faults: Sequence[tuple[tuple[str, ...], str]]) -> str:
    """Join faults to one sentence: `budget_code: is required; …`."""
    said = "; ".join(f"{'.'.join(path)}: {text}" if path else text for path, text in faults)
    return said.rstrip(".") + "."


def _number(count: int) -> str:
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    return words[count] if count < len(words) else str(count)
