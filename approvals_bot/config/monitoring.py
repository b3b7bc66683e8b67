"""`[log]` and `[metrics]`: what the service says about itself."""

from __future__ import annotations

from typing import Literal

from approvals_bot.approvals.base import Frozen
from approvals_bot.config.mail import Listen
from approvals_bot.config.secret import Secret

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]


class LogTable(Frozen):
    """The format of the log's lines, and the level from which on they are written."""

    format: LogFormat = "text"
    level: LogLevel = "info"


class MetricsTable(Frozen):
    """Where `/metrics` is read, and what has to be shown for it."""

    listen: Listen | None = None
    token: Secret | None = None

    @property
    def place(self) -> tuple[str, int] | None:
        """The host and port to listen on; None for those of the service."""
        host, _, port = (self.listen or "").rpartition(":")
        return (host.strip("[]"), int(port)) if port else None
