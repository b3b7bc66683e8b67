"""What callers of the API send, as models that refuse what they don't know."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue

from approvals_bot.channels import ChoiceName
from approvals_bot.web.fit import Strict

Status = Literal["pending", "running", "completed", "failed", "cancelled", "stalled"]

Address = Annotated[str, Field(min_length=1, max_length=320)]
Comment = Annotated[str, Field(max_length=5_000)]


class NewRun(Strict):
    """`POST /api/runs`."""

    workflow: Annotated[str, Field(min_length=1, max_length=200)]
    input: dict[str, JsonValue] = Field(default_factory=dict)
    requester: Address | None = None
    on_behalf_of: Address | None = None


class Cancellation(Strict):
    """`POST /api/runs/{id}/cancellation`. `by`: the person who takes it back, for keys that may vote."""

    reason: Comment = ""
    by: Address | None = None


class Edit(Strict):
    """`PATCH /api/runs/{id}/fields`."""

    fields: Annotated[dict[str, JsonValue], Field(min_length=1)]
    by: Address | None = None


class NewVote(Strict):
    """`POST /api/runs/{id}/votes`. `digest`: of what the person was shown; a vote on something else is refused."""

    by: Address
    choice: ChoiceName
    comment: Comment = ""
    answers: dict[str, JsonValue] = Field(default_factory=dict)
    fields: dict[str, JsonValue] = Field(default_factory=dict)
    digest: str | None = None


class NewApprover(Strict):
    """`POST /api/runs/{id}/approvers`. `instead_of`: whose place the person takes; without it, she is asked as well."""

    person: Address
    instead_of: Address | None = None
    by: Address | None = None
    reason: Annotated[str, Field(max_length=500)] = ""
