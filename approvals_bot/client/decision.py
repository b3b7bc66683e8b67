"""What came of a tool call that people were asked about."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel, JsonValue

from approvals_bot.client.digests import changes_between, digest_of
from approvals_bot.client.words import DecisionState, decision_text
from approvals_bot.errors import ApprovalMismatchError, DeniedError

YES = ("approved", "edited")
"""The states in which the tool may run."""


# No twin of Ended, CardVote, CardOutcome, RequestOutcome: those stay in the service, while this one goes over the wire
# to programs that have none of it.
class Decision(BaseModel, frozen=True):
    """What came of a tool call: the state, who decided, and the arguments that were decided on.

    Only a person's (or a rule's) vote is `rejected`: silence is `expired`, a cancelled run `withdrawn`; `pending` means
    that the waiting time is over and the request still open. As JSON, it is the result of a `tool-call` run.
    """

    state: DecisionState
    by: str | None = None  # an address, `rule:<n>` or `app:<name>`
    name: str | None = None  # of `by`, as people know them
    at: datetime | None = None  # aware, UTC; of an expired request, the deadline
    via: str | None = None
    comment: str | None = None
    tool: str | None = None
    requested: dict[str, JsonValue] | None = None  # the arguments as they were requested; needed only if edited
    arguments: dict[str, JsonValue] | None = None  # as decided, with what approvers changed
    digest: str | None = None  # of the tool and `arguments`
    allowance: str | None = None
    request_id: str | None = None

    @property
    def approved(self) -> bool:
        """Whether the tool may run, with `arguments`: approved or edited."""
        return self.state in YES

    @property
    def text(self) -> str:
        """What the model reads, ending in what to do."""
        changes = changes_between(self.requested, self.arguments) if self.requested and self.arguments else ()
        return decision_text(
            self.state, name=self.name or self.by, at=self.at, comment=self.comment, changes=list(changes)
        )

    def require(self, arguments: Mapping[str, Any]) -> None:
        """Check, right before the tool runs, that these arguments are the ones that were decided on.

        Raises DeniedError unless this is a yes, and ApprovalMismatchError if the arguments differ. Then don't run it.
        """
        if not self.approved:
            raise DeniedError(self)
        tool = self.tool or ""
        # Without the tool's name, the digest can't be made again, so the decided arguments are what is compared.
        expected = self.digest if self.tool is not None else digest_of(tool, self.arguments or {})
        try:
            got = digest_of(tool, arguments)
        except ValueError:
            got = ""  # not JSON, so nobody was shown it
        if not expected or got != expected:
            raise ApprovalMismatchError(self.request_id or "this request", expected or "", got)
