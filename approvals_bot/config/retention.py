"""`[retention]`: how long runs are kept after their end, and where they go before they are deleted."""

from __future__ import annotations

from pydantic import model_validator

from approvals_bot.approvals.base import Frozen, refuse
from approvals_bot.approvals.opening_policy import Retention
from approvals_bot.config.groups import FolderPath


class RetentionTable(Frozen):
    """How long runs are kept after their end. Without `ended`, only those of workflows that say so are deleted.

    `audit`: how long its lines are kept; never less than the runs that they are about.
    """

    ended: Retention | None = None
    audit: Retention | None = None
    archive: FolderPath | None = None

    @model_validator(mode="after")
    def _audit_outlives_runs(self) -> RetentionTable:
        if self.audit is not None and self.ended is not None and self.audit < self.ended:
            raise refuse("the audit is kept as long as the runs that it is about, or longer", at="audit")
        return self
