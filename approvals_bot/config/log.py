"""`[log]`: what the service's log looks like."""

from __future__ import annotations

from typing import Literal

from approvals_bot.approvals.base import Frozen

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]


class LogTable(Frozen):
    """The format of the log's lines, and the level from which on they are written."""

    format: LogFormat = "text"
    level: LogLevel = "info"
