"""Stages to vote in, made by hand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from approvals_bot.approvals.request import RequestSeat, RequestStage


def people(*who: str) -> dict[str, str]:
    """Those who may fill a seat; why doesn't matter."""
    return dict.fromkeys(who, "")


def seat_of(id: int, label: str, need: Any, eligible: Iterable[str]) -> RequestSeat:
    return RequestSeat(id, label, need, people(*eligible))


def stage_of(*seats: RequestSeat, **rules: Any) -> RequestStage:
    return RequestStage("go", seats=seats, **rules)
