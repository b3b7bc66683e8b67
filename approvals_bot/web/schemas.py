"""What goes over the wire: the bodies that programs send, as strict models, and all bodies as JSON schemas."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue
from pydantic.json_schema import models_json_schema

from approvals_bot.approvals.acts import Reassign, Vote
from approvals_bot.approvals.port import ChoiceName, State, Via
from approvals_bot.web.validation import StrictBody

Status = Literal["pending", "running", "completed", "failed", "cancelled", "stalled"]

Address = Annotated[str, Field(min_length=1, max_length=320)]
Comment = Annotated[str, Field(max_length=5_000)]


class RunBody(StrictBody):
    """`POST /api/runs`."""

    workflow: Annotated[str, Field(min_length=1, max_length=200)]
    input: dict[str, JsonValue] = Field(default_factory=dict)
    requester: Address | None = None
    on_behalf_of: Address | None = None


class Cancellation(StrictBody):
    """`POST /api/runs/{id}/cancellation`. `by`: the person who takes it back, for keys that may vote."""

    reason: Comment = ""
    by: Address | None = None


class FieldChanges(StrictBody):
    """`PATCH /api/runs/{id}/fields`."""

    fields: Annotated[dict[str, JsonValue], Field(min_length=1)]
    by: Address | None = None


# No twin of Vote or Ended: it is what a caller sends, and becomes a Vote once it is read and the way is known.
class NewVote(StrictBody):
    """`POST /api/runs/{id}/votes`. `digest`: of what the person was shown; a vote on something else is refused."""

    by: Address
    choice: ChoiceName
    comment: Comment = ""
    answers: dict[str, JsonValue] = Field(default_factory=dict)
    fields: dict[str, JsonValue] = Field(default_factory=dict)
    digest: str | None = None

    def act(self, via: Via) -> Vote:
        return Vote(via=via, **{**self.model_dump(), "by": self.by.lower()})


# No twin of Reassign: it is what a caller sends, and becomes one once it is read and the way is known.
class NewApprover(StrictBody):
    """`POST /api/runs/{id}/approvers`. `instead_of`: whose place the person takes; without it, she is asked as well."""

    person: Address
    instead_of: Address | None = None
    by: Address | None = None
    reason: Annotated[str, Field(max_length=500)] = ""

    def act(self, by: str, via: Via) -> Reassign:
        return Reassign(via=via, **{**self.model_dump(), "by": by})


def schemas() -> dict[str, Any]:
    """Each by its name: what may be sent, as the models that check it say, and what is answered."""
    _, found = models_json_schema(
        [(model, "validation") for model in (RunBody, Cancellation, FieldChanges, NewVote, NewApprover)],
        ref_template="#/components/schemas/{model}",
    )
    sent: dict[str, Any] = found["$defs"]
    return sent | RESPONSES


def ref(name: str) -> dict[str, Any]:
    """The schema of this name."""
    return {"$ref": f"#/components/schemas/{name}"}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _words(literal: Any) -> dict[str, Any]:
    return {"type": "string", "enum": list(literal.__args__)}


TEXT = {"type": "string"}
OPTIONAL_TEXT = {"type": ["string", "null"]}
TIME = {"type": "string", "format": "date-time"}
OPTIONAL_TIME = {"type": ["string", "null"], "format": "date-time"}

RESPONSES: dict[str, Any] = {
    "Status": _words(Status),
    "StartedRun": _object(run_id=TEXT, url=TEXT),
    "Run": _object(
        id=TEXT,
        workflow=TEXT,
        status=ref("Status"),
        result={"description": "What the workflow returned."},
        error={"oneOf": [{"type": "null"}, _object(type=TEXT, message=TEXT)]},
        created_at=TIME,
        ended_at=OPTIONAL_TIME,
        stalled=OPTIONAL_TEXT,
        request={"oneOf": [{"type": "null"}, ref("Request")]},
    )
    | {"description": "`requests` is there where a Python workflow asks people: each with its `id`, `run_0….2`."},
    "RunPage": _object(runs={"type": "array", "items": ref("Run")}, cursor=OPTIONAL_TEXT),
    "StandingVote": {
        "type": "object",
        "properties": {"by": TEXT, "in_place_of": TEXT, "choice": TEXT, "comment": TEXT, "at": TIME, "via": TEXT},
        "required": ["by", "choice", "comment", "at", "via"],
        "description": "`in_place_of`: the absent person for whom `by` stood in, where somebody did.",
    },
    "Handover": _object(by=TEXT, person=TEXT, instead_of=OPTIONAL_TEXT, reason=TEXT, at=TIME, via=TEXT, stage=TEXT)
    | {"description": "`by` had `person` asked in the place of `instead_of`; null: besides all who are asked."},
    "Request": _object(
        title=TEXT,
        fields={"type": "object"},
        digest=TEXT,
        state=_words(State),
        stage=OPTIONAL_TEXT,
        votes={"type": "array", "items": ref("StandingVote")},
        waiting_for={"type": "array", "items": TEXT},
        handovers={"type": "array", "items": ref("Handover")},
        deadline=OPTIONAL_TIME,
        outcome=OPTIONAL_TEXT,
        deliveries={
            "type": "array",
            "items": _object(
                to=TEXT,
                channel=TEXT,
                state=TEXT,
                attempts={"type": "integer"},
                error=OPTIONAL_TEXT,
                uncertain={"type": "boolean", "description": "A confirmation was lost: it may have arrived twice."},
            ),
        },
        follow_ups={
            "type": "array",
            "description": "The calls and messages that follow the decision, and how far they are.",
            "items": _object(
                what=TEXT,
                state={"enum": ["sending", "done", "retrying", "failed"]},
                attempts={"type": "integer"},
                error=OPTIONAL_TEXT,
            ),
        },
    ),
    "Events": _object(
        events={
            "type": "array",
            "items": _object(seq={"type": "integer"}, type=TEXT, at=TIME, data={"type": "object"}),
        }
    ),
    "Verdict": _object(verdict=TEXT, text=TEXT),
    "Hook": _object(
        run_id=TEXT,
        hook_id=TEXT,
        token=TEXT,
        metadata={"description": "What the workflow said of it."},
        created_at=TIME,
        is_webhook={"type": "boolean"},
    ),
    "Problem": {
        "type": "object",
        "description": "RFC 9457.",
        "properties": {
            "type": TEXT,
            "title": TEXT,
            "status": {"type": "integer"},
            "detail": TEXT,
            "errors": {
                "type": "array",
                "items": _object(loc={"type": "array", "items": {"type": ["string", "integer"]}}, msg=TEXT),
            },
        },
        "required": ["type", "title", "status", "detail"],
    },
}
