"""Outcomes of `request_approval`: one frozen class for each, made for `match`.

Only `Approved` and `Edited` are a yes. They are separate so that code handling just `Approved` never acts on values
that an approver has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import JsonValue

from approvals_bot.approvals.agent_policy import TOOL_CALL
from approvals_bot.approvals.card_model import DatedRemark
from approvals_bot.approvals.request import Request
from approvals_bot.approvals.tool_call import ARGUMENTS, decision_of
from approvals_bot.errors import ApprovalMismatchError


@dataclass(frozen=True, slots=True)
class Ended(DatedRemark):
    """What all outcomes have in common.

    `by`: an address, `deadline`, or `app:<workflow>`. `in_place_of`: the absent person whose delegate `by` is; "" if
    there is none. `at`: an aware UTC datetime. `fields`: the typed values that were decided on. `answers`: what
    approvers filled in, by the question's name; of two people's answers, the later. `all_answers`: those of everybody,
    by stage, then by person. `digest`: of the pinned fields; "" if none is pinned. `request_id`: the id on pages and in
    the API.
    """

    request_id: str
    by: str
    fields: Mapping[str, Any]
    answers: Mapping[str, Any]
    digest: str
    _digest_of: Callable[[Mapping[str, Any]], str] = field(repr=False, compare=False)
    in_place_of: str = ""
    all_answers: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)

    def require(self, fields: Mapping[str, Any]) -> None:
        """Check, right before acting, that these fields are the ones that were decided on.

        Raises ApprovalMismatchError if the pinned fields differ: the workflow then has to request approval again.
        """
        digest = self._digest_of(fields)
        if digest != self.digest:
            raise ApprovalMismatchError(self.request_id, self.digest, digest)


@dataclass(frozen=True, slots=True)
class Approved(Ended):
    """Yes, to exactly the fields that were requested."""


@dataclass(frozen=True, slots=True)
class Edited(Ended):
    """Yes, to fields that an approver changed: `fields` has them as approved."""


@dataclass(frozen=True, slots=True)
class Rejected(Ended):
    """No. `by` is `deadline` if nobody decided in time and the clock says `reject`."""


@dataclass(frozen=True, slots=True)
class ChangesRequested(Ended):
    """Not like this: `comment` says what to change. Request approval again after that."""


@dataclass(frozen=True, slots=True)
class Answered(Ended):
    """Neither yes nor no: `comment` is the answer."""


@dataclass(frozen=True, slots=True)
class Expired(Ended):
    """Nobody decided in time."""


@dataclass(frozen=True, slots=True)
class Withdrawn(Ended):
    """Withdrawn by the requester, or cancelled by an operator or app, before there was a decision."""


Outcome = Approved | Edited | Rejected | ChangesRequested | Answered | Expired | Withdrawn
"""What `request_approval` returns."""


def answers_of(request: Request) -> dict[str, dict[str, dict[str, JsonValue]]]:
    """Return what approvers filled in, by stage, then by person."""
    found: dict[str, dict[str, dict[str, JsonValue]]] = {}
    for stage in request.stages:
        for vote in stage.votes:
            if vote.counts and vote.vote.answers:
                found.setdefault(stage.id, {})[vote.by] = vote.vote.answers
    return found


def last_answers_of(request: Request) -> dict[str, dict[str, JsonValue]]:
    """Return what approvers filled in, by stage; of two answers to one question, the later."""
    return {
        stage: {name: answer for given in by_person.values() for name, answer in given.items()}
        for stage, by_person in answers_of(request).items()
    }


def result_of(request: Request, opened: Mapping[str, JsonValue]) -> dict[str, Any]:
    """Return the JSON result of a run that is one request, as its caller gets it. `opened`: its fields at first.

    That of a tool call is its `Decision`. `by`: an address, `rule:<n>`, or `deadline`. `in_place_of`: the absent person
    whose delegate `by` is, or "". `answers`: by stage, then by person, then by name. `digest`: of the pinned fields
    that were decided on; "" if none is pinned. `version`: the digest of the workflow file that applied.
    """
    ended = request.outcome
    assert ended is not None, "it is decided"
    if request.workflow == TOOL_CALL:
        return decision_of(request, opened[ARGUMENTS]).model_dump(mode="json")
    return {
        "approved": ended.state == "approved",
        "decision": ended.outcome,
        "by": ended.by,
        "comment": ended.comment,
        "fields": request.fields,
        "answers": answers_of(request),
        "digest": request.digest,
        "outcome": ended.outcome,
        "at": ended.at.isoformat().replace("+00:00", "Z"),
        "via": ended.via,
        "version": request.definition,
        "in_place_of": ended.in_place_of,
    }
