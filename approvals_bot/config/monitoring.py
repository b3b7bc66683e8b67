"""`[log]`, `[metrics]` and `[alerts]`: what the service says about itself, and to whom."""

from __future__ import annotations

from datetime import datetime, time, timedelta
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

from approvals_bot.approvals.base import Frozen, refuse
from approvals_bot.approvals.durations import Duration
from approvals_bot.config.mail import Listen, mail_address
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


class QuietHours(NamedTuple):
    """The hours of a day in which nobody is disturbed, in each person's time zone."""

    begin: time
    end: time

    def has(self, moment: datetime) -> bool:
        """Return whether it is quiet at this local time. Hours may go past midnight."""
        now = moment.time()
        return self.begin <= now < self.end if self.begin < self.end else now >= self.begin or now < self.end


def _quiet(value: object) -> object:
    if not isinstance(value, str):
        return value
    begin, _, end = value.partition("-")
    try:
        return QuietHours(time.fromisoformat(begin.strip()), time.fromisoformat(end.strip()))
    except ValueError:
        raise refuse('write hours like "22:00-07:00"') from None


def _recipient(value: str) -> str:
    return value if value.startswith("@") else mail_address(value)


class AlertsTable(Frozen):
    """The people to notify of what is wrong for a while, and when they are not disturbed."""

    to: tuple[Annotated[str, AfterValidator(_recipient)], ...] = ()
    after: Duration = timedelta(minutes=5)
    quiet: Annotated[Any, BeforeValidator(_quiet), WithJsonSchema({"type": "string"})] = None
