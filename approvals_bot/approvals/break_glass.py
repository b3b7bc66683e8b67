"""Break-glass: a request that is approved without a vote in an emergency, and reviewed afterwards. Pure.

The review is a request of its own in the same run, with one stage, so it has cards, reminders and votes like any other.
It has no deadline: once it is late, owners and admins are asked, too, and it waits on. Whatever it says, what was
approved stays approved; taking something back is for people to do.
"""

from __future__ import annotations

from datetime import datetime

from approvals_bot.approvals.acts import Actor
from approvals_bot.approvals.apply import decided
from approvals_bot.approvals.base import refuse
from approvals_bot.approvals.eligibility import PeopleSource, SeatQuery
from approvals_bot.approvals.plain_text import clip
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.request import BREAK_GLASS, Request, RequestReview, ReviewState
from approvals_bot.approvals.standing_policy import Emergency

SHORTEST_REASON = 20  # characters
LONGEST_REASON = 2_000
REVIEW = "review"
"""The id of the stage of a review."""


def approved_in_emergency(request: Request, emergency: Emergency, at: datetime) -> Request:
    """Return the request as approved without a vote, with the reason its requester gave."""
    because = f"Opened without a vote by {request.called(request.requester)}: {emergency.reason}"
    actor = Actor("person", request.requester)
    return decided(request, "approved", BREAK_GLASS, at, "rule", because=because, actor=actor)


def owner_queries(definition: Definition) -> list[SeatQuery]:
    """Return the look-up of those who are asked once a review is late: the workflow's owners, and the admins."""
    emergency = definition.emergency
    to = emergency.escalate_to if emergency is not None else ()
    return [SeatQuery(0, (PeopleSource(to),))] if to else []


def review_definition(definition: Definition) -> Definition:
    """Return the definition of the request that asks whether an emergency was justified."""
    rule, emergency = definition.break_glass, definition.emergency
    if rule is None or emergency is None:
        raise refuse("there is nothing to review")
    kept = {"id", "title", "request", "owners", "viewers", "on_behalf_of"}
    about = definition.workflow.model_dump(mode="json", include=kept, exclude_none=True)
    review = {"id": REVIEW, "title": "Review", "from": [*rule.review.from_], "comment": "on-reject"}
    late = {"after": rule.review.model_dump(mode="json")["within"], "to": [*emergency.escalate_to]}
    deliver = definition.deliver.model_dump(mode="json", exclude_none=True) | {"dm": True}
    policy = {"reassign": "owners"} | ({"exclude": [*definition.policy.exclude]} if definition.policy.exclude else {})
    made = {
        "workflow": about
        | {"title": f"Review: {definition.workflow.title}", "instructions": _instructions(emergency.reason)},
        "fields": {name: spec.model_dump(mode="json", exclude_none=True) for name, spec in definition.fields.items()},
        "policy": policy,
        "stage": [review],
        "deliver": {name: value for name, value in deliver.items() if name not in ("builder", "email_replies")},
        "clock": {"none": True},
        "escalate": [late] if emergency.escalate_to else [],
        "labels": {"approve": "Justified", "reject": "Not justified"},
    }
    return Definition.model_validate(made).model_copy(update={"group_names": definition.group_names})


INSTRUCTIONS = (
    "This was approved without a vote, in an emergency. Was it justified? Your answer is recorded; it takes nothing "
    "back. Why it couldn't wait: "
)
MOST_OF_REASON = 1_700  # characters; instructions have 2,000 at most


def _instructions(reason: str) -> str:
    """Return what reviewers read. The reason is what somebody typed, so no part of it is a template."""
    return f"{INSTRUCTIONS}“{clip(reason, MOST_OF_REASON).replace('{{', '{ {')}”"


_REVIEWED: dict[str, ReviewState] = {"approved": "approved", "rejected": "not_justified"}


def review_of(review: Request, definition: Definition) -> RequestReview:
    """Return the state of a review."""
    rule = definition.break_glass
    assert rule is not None, "there is a review"
    until, ended = review.asked_at + rule.review.within, review.outcome
    if ended is not None:
        state = _REVIEWED.get(ended.state, "cancelled")
        return RequestReview(state, until, review.id, ended.by, ended.comment, review.called(ended.by))
    is_late = any(stage.escalations for stage in review.stages)
    return RequestReview("late" if is_late else "waiting", until, review.id)
