"""`approvals-bot` at a time that is always the same: `python pictured_service.py dev …`.

Pictures show minutes and days. Seconds pass ten times as slowly as they do, so that all are of the same minute.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from approvals_bot.cli import common, main

STARTED = datetime(2026, 3, 3, 9, 41, tzinfo=UTC)  # a Tuesday
SLOWNESS = 10

began = time.monotonic()


class PictureClock(common.PlaygroundClock):
    """The playground's clock, from that time on. It can be moved, too."""

    def now(self) -> datetime:
        return STARTED + timedelta(seconds=(time.monotonic() - began) / SLOWNESS) + self._offset


if __name__ == "__main__":
    common.PlaygroundClock = PictureClock  # type: ignore[misc]  # `dev` makes its clock itself
    main()
