"""What somebody is told who comes after the end."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from approvals_bot.approvals.acts import Act, Reply, act_word
from approvals_bot.approvals.request import Request


def late_reply(request: Request, act: Act, now: datetime) -> Reply:
    """What somebody is told who acts after the end. `now`: to say the day where it is not today's."""
    ended = request.outcome
    if ended is None:
        return Reply("already_decided", code="takes_no_votes")
    zone = request.people[act.by].zone if act.by in request.people else "UTC"
    who = request.acting(ended.by, ended.in_place_of).text if ended.via != "clock" else ""
    params: dict[str, Any] = {"by": who, "at": ended.at.isoformat(), "now": now.isoformat(), "zone": zone}
    if ended.state in ("expired", "withdrawn"):
        return Reply(ended.state, code="ended", params={**params, "state": ended.state})
    for vote in request.votes:
        if vote.stands and vote.by == act.by and vote.choice == act_word(act):
            return Reply("already_voted", code="voted_before_the_end", params={**params, "choice": vote.choice})
    return Reply("already_decided", code="ended", params={**params, "state": ended.state})
