"""The filters of lists of runs, the same in the addresses of pages and of the API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import cast, get_args

from approvals_bot.durable.store.protocol import Status
from approvals_bot.people import People
from approvals_bot.service.lists import DELIVERIES, RUN_STATES, Order, RunFilter, RunState
from approvals_bot.web.validation import bad_query, query_address, query_choice

FILTERS = (
    "workflow",
    "state",
    "status",
    "requester",
    "waiting_for",
    "delivery",
    "opened_after",
    "opened_before",
    "q",
    "order",
)
ORDERS: tuple[Order, ...] = get_args(Order)
STATUSES: tuple[Status, ...] = get_args(Status)
LONGEST_TEXT = 200  # characters to look for


def run_filter(asked: Mapping[str, str], people: People, workflows: Sequence[str]) -> RunFilter:
    """Return the filter that these parameters are. Raises Problem 422, which names what is allowed."""
    text = asked.get("q", "").strip()
    if len(text) > LONGEST_TEXT:
        raise bad_query([{"loc": ["query", "q"], "msg": f"longer than {LONGEST_TEXT} characters"}])
    return RunFilter(
        workflow=query_choice("workflow", asked.get("workflow"), workflows),
        state=cast(RunState | None, query_choice("state", asked.get("state"), RUN_STATES)),
        status=cast(Status | None, query_choice("status", asked.get("status"), STATUSES)),
        requester=_requester(asked.get("requester"), people),
        waiting_for=query_address("waiting_for", asked.get("waiting_for"), people),
        delivery=query_choice("delivery", asked.get("delivery"), DELIVERIES),
        opened_after=query_moment("opened_after", asked.get("opened_after")),
        opened_before=query_moment("opened_before", asked.get("opened_before")),
        text=text,
        order=cast(Order, query_choice("order", asked.get("order"), ORDERS) or "newest"),
    )


def _requester(given: str | None, people: People) -> str | None:
    is_app = given is not None and given.startswith("app:")
    return given if is_app else query_address("requester", given, people)


def query_moment(name: str, value: str | None) -> datetime | None:
    """Read a day, which is its first moment in UTC, or a time with its zone."""
    if value is None:
        return None
    try:
        if len(value) == len("2026-11-28"):
            return datetime.combine(date.fromisoformat(value), datetime.min.time(), UTC)
        moment = datetime.fromisoformat(value.replace(" ", "+"))  # a plus that wasn't encoded
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        message = "not a day like 2026-11-28, or a time like 2026-11-28T09:00:00Z"
        raise bad_query([{"loc": ["query", name], "msg": message}]) from None
