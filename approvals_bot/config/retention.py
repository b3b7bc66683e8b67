"""`[retention]`: how long runs are kept after their end, and where they go before they are deleted."""

from __future__ import annotations

from approvals_bot.approvals.base import Frozen
from approvals_bot.approvals.opening_policy import Retention
from approvals_bot.config.groups import FolderPath


class RetentionTable(Frozen):
    """How long runs are kept after their end. Without `ended`, only those of workflows that say so are deleted."""

    ended: Retention | None = None
    archive: FolderPath | None = None
