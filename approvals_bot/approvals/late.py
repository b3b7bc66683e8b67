"""What somebody is told who comes after the end."""

from __future__ import annotations

from datetime import datetime

from approvals_bot.approvals import text as sentences
from approvals_bot.approvals.ballot import Word
from approvals_bot.approvals.request import Request


def late_verdict(view: Request, by: str, choice: str, now: datetime | None = None) -> tuple[Word, str]:
    """What somebody is told who acts after the end: the verdict's word and the sentence.

    `choice` may also be `edit` or `withdraw`. `now`: to say the day where it is not today's; without it, none is said.
    """
    ended = view.outcome
    if ended is None:
        return "already_decided", f"This request takes no votes any more. {sentences.UNCHANGED}"
    zone = view.people[by].zone if by in view.people else "UTC"
    who = view.acting(ended.by, ended.in_place_of).text if ended.via not in ("clock",) else ""
    text = sentences.ended(ended.state, who, ended.at, now or ended.at, zone)
    if ended.state == "expired":
        return "expired", text
    if ended.state == "withdrawn":
        return "withdrawn", text
    for vote in view.votes:
        if vote.stands and vote.by == by and vote.choice == choice:
            decided = f"decided{f' by {who}' if who else ''} {sentences.moment(ended.at, now or ended.at, zone)}"
            return "already_voted", sentences.already_voted(vote.choice, decided)
    return "already_decided", text
