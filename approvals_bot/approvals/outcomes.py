"""How a request that a workflow made ended: one frozen value per way, made for `match`.

Nothing but `Approved` and `Edited` is a yes, and they are two: who handles only `Approved` never acts on arguments that
an approver has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import JsonValue

from approvals_bot.approvals.port import DatedRemark
from approvals_bot.approvals.request import Request
from approvals_bot.errors import ApprovalMismatchError


@dataclass(frozen=True, slots=True)
class Ended(DatedRemark):
    """What every outcome knows.

    `by`: an address, `deadline`, or `app:<workflow>`. `in_place_of`: the absent person for whom `by` stood in; "" for
    nobody. `at`: an aware UTC datetime. `fields`: what was decided on, as
    typed values. `answers`: what approvers filled in, by the question's name; of two people's, the later.
    `digest`: of the pinned fields; "" when none is pinned. `request_id`: what pages and the API call the request.
    """

    request_id: str
    by: str
    fields: Mapping[str, Any]
    answers: Mapping[str, Any]
    digest: str
    _digest_of: Callable[[Mapping[str, Any]], str] = field(repr=False, compare=False)
    in_place_of: str = ""

    def require(self, fields: Mapping[str, Any]) -> None:
        """Call it right before acting, with what you are about to act on.

        Raises ApprovalMismatchError when the pinned fields are not those that were decided on: somebody has to be asked
        again.
        """
        digest = self._digest_of(fields)
        if digest != self.digest:
            raise ApprovalMismatchError(self.request_id, self.digest, digest)


@dataclass(frozen=True, slots=True)
class Approved(Ended):
    """Yes, to exactly the fields that were asked about."""


@dataclass(frozen=True, slots=True)
class Edited(Ended):
    """Yes, to other fields than were asked about: `fields` has them as they were approved."""


@dataclass(frozen=True, slots=True)
class Rejected(Ended):
    """No. `by` is `deadline` where silence means no."""


@dataclass(frozen=True, slots=True)
class ChangesRequested(Ended):
    """Not like this: `comment` says what to change. Ask anew when it is done."""


@dataclass(frozen=True, slots=True)
class Answered(Ended):
    """Neither yes nor no: `comment` is the answer."""


@dataclass(frozen=True, slots=True)
class Expired(Ended):
    """Nobody decided in time."""


@dataclass(frozen=True, slots=True)
class Withdrawn(Ended):
    """Taken back by whoever asked, before there was a decision."""


Outcome = Approved | Edited | Rejected | ChangesRequested | Answered | Expired | Withdrawn
"""What `request_approval` returns."""


def answers_of(request: Request) -> dict[str, dict[str, JsonValue]]:
    """What approvers filled in, by stage; of two people's answers to one question, the later."""
    found: dict[str, dict[str, JsonValue]] = {}
    for stage in request.stages:
        for vote in stage.votes:
            if vote.counts and vote.vote.answers:
                found.setdefault(stage.id, {}).update(vote.vote.answers)
    return found


def result_of(request: Request) -> dict[str, Any]:
    """The result of a run that is one request, as JSON: what the waiting caller is handed.

    `by`: an address, `rule:<n>`, or `deadline`. `in_place_of`: the absent person for whom `by` stood in; "" for nobody.
    `answers`: by stage, then by name. `digest`: of the pinned fields as they were decided on; "" when none is pinned.
    `version`: the digest of the workflow file that was in force.
    """
    ended = request.outcome
    assert ended is not None, "it is decided"
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
