"""Warnings at 40 % and 80 % of the limits that a run comes nearer to during its life."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from approvals_bot.durable.core.attributes import MAX_ATTRIBUTES, Attribute
from approvals_bot.durable.core.events import Event
from approvals_bot.durable.core.serialization import to_json
from approvals_bot.durable.engine.limits import MAX_EVENTS
from approvals_bot.durable.store.protocol import MAX_RECEIVED, MAX_UNREAD, Received, RunRecord

logger = logging.getLogger("approvals_bot.durable.runs")

Limit = Literal["events", "payload characters", "unread payloads of a hook", "attributes"]

SHARES = (80, 40)
"""Percent of a limit at which there is a warning, the highest first."""

NEAR_EVENTS = MAX_EVENTS * SHARES[-1] // 100
NEAR_RECEIVED = MAX_RECEIVED * SHARES[-1] // 100
NEAR_ATTRIBUTES = MAX_ATTRIBUTES * SHARES[-1] // 100
"""From here on there may be something to warn of. Comparing with these is all that a run far from its limits costs."""

MOST_SAID = 10_000
"""Warnings that one process remembers. A hook's unread payloads may grow, be taken, and grow again."""


class Use(NamedTuple):
    """How much a run uses of a limit."""

    limit: Limit
    used: int
    maximum: int

    @property
    def percent(self) -> int:
        return self.used * 100 // self.maximum

    def __str__(self) -> str:
        return f"{self.used:,} of {self.maximum:,} {self.limit} ({self.percent} %)"


def near_limits(run: RunRecord, max_waiting: int = MAX_UNREAD) -> list[Use]:
    """Return the limits of which an open run uses 40 % or more. An ended one comes no nearer.

    `max_waiting`: what a hook keeps, `Engine.max_waiting`.
    """
    uses = (
        Use("events", run.seq, MAX_EVENTS),
        Use("payload characters", run.payload_size, MAX_RECEIVED),
        Use("unread payloads of a hook", run.most_unread, max_waiting),
        Use("attributes", len(run.attributes), MAX_ATTRIBUTES),
    )
    return [] if run.has_ended else [use for use in uses if use.percent >= SHARES[-1]]


class LimitWatch:
    """The warnings of one process: a line each, once for a run, a limit and a share of it.

    A log only grows, and each event of it is written by one process, which is the one that warns. So there is one
    warning for events and for characters, over all processes and restarts, unless that process dies just then. Unread
    payloads and attributes come and go, so there each process warns once.
    """

    def __init__(self, watch: Callable[[str, int], None] | None = None, max_waiting: int = MAX_UNREAD) -> None:
        """`watch` is called with the limit and the percentage of each warning. `max_waiting`: what a hook keeps."""
        self._watch = watch
        self.max_waiting = max_waiting
        self.near_waiting = max_waiting * SHARES[-1] // 100
        self._said: dict[tuple[str, Limit, int], None] = {}  # the oldest first

    def grown(self, run_id: str, events: list[Event], own: Mapping[str, Attribute]) -> None:
        """Warn if a run is beyond a share of a limit now that its log has these events.

        `own`: all attributes of the run, if some of these events have set any.
        """
        self._crossed(run_id, Use("events", events[-1].seq, MAX_EVENTS), events[0].seq - 1)
        changed = {name for event in events if event.type == "attributes_set" for name in event.data["attributes"]}
        self._crossed(run_id, Use("attributes", len(own), MAX_ATTRIBUTES), len(own.keys() - changed))

    def begun_with(self, run_id: str, attributes: Mapping[str, Attribute]) -> None:
        """Warn if the attributes that a run is started with are beyond a share of the limit."""
        self._crossed(run_id, Use("attributes", len(attributes), MAX_ATTRIBUTES), 0)

    def received(self, run_id: str, payload: Received) -> None:
        """Warn if this payload is beyond a share of a limit."""
        before = payload.size - len(to_json(payload.event.data))
        self._crossed(run_id, Use("payload characters", payload.size, MAX_RECEIVED), before)
        self._crossed(run_id, Use("unread payloads of a hook", payload.kept, self.max_waiting), payload.kept - 1)

    def _crossed(self, run_id: str, use: Use, before: int) -> None:
        for share in SHARES:
            at = use.maximum * share // 100
            if before < at <= use.used and (run_id, use.limit, share) not in self._said:
                self._said[run_id, use.limit, share] = None
                if len(self._said) > MOST_SAID:
                    del self._said[next(iter(self._said))]
                said = {"event": "limit_near", "run_id": run_id}
                logger.warning("run %s is near a limit: %s", run_id, use, extra=said)
                if self._watch is not None:
                    self._watch(use.limit, share)
                return
