"""A request as the API shows it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from approvals_bot.approvals.request import RequestView


def api_request(view: RequestView) -> dict[str, Any]:
    """The `request` of a run, as the API shows it. Votes that were changed, taken back or reset are left out; one
    that was given in an absent person's place says whose.
    """
    stage = view.stage
    return {
        "title": view.title,
        "fields": view.fields,
        "digest": view.digest,
        "state": view.state,
        "stage": stage.id if stage else None,
        "votes": [
            {
                "by": vote.by,
                "choice": vote.choice,
                "comment": vote.comment,
                "at": _iso(vote.at),
                "via": vote.via,
            }
            | ({"in_place_of": vote.in_place_of} if vote.in_place_of else {})
            for vote in view.votes
            if vote.stands
        ],
        "waiting_for": list(view.waiting_for),
        "handovers": [
            {
                "by": done.by,
                "person": done.person,
                "instead_of": done.instead_of or None,
                "reason": done.reason,
                "at": _iso(done.at),
                "via": done.via,
                "stage": done.stage,
            }
            for done in view.handovers
        ],
        "deadline": _iso(view.deadline),
        "outcome": view.outcome.outcome if view.outcome else None,
        "deliveries": [
            {
                "to": copy.to,
                "channel": copy.channel,
                "state": copy.state,
                "attempts": copy.attempts,
                "error": copy.error or None,
                "uncertain": copy.uncertain,
            }
            for copy in view.deliveries
        ],
        "follow_ups": [
            {"what": one.what, "state": one.state, "attempts": one.attempts, "error": one.error or None}
            for one in view.follow_ups
        ],
    }


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat().replace("+00:00", "Z")
