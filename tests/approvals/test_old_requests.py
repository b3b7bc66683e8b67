"""Requests that were opened before business time, delegates and handovers: their logs replay, each prefix of them.

The file was recorded by the code of that time (what steps were called with is left out; a replay doesn't look at it).
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from approvals_bot.approvals.request import Request
from approvals_bot.approvals.workflow import approval
from approvals_bot.durable.core.events import Event
from approvals_bot.durable.core.replay import replay

RECORDED = json.loads((Path(__file__).parents[1] / "data" / "requests_of_before.json").read_text())


def log_of(recorded: dict[str, Any]) -> list[Event]:
    return [
        Event(each["seq"], each["type"], datetime.fromisoformat(each["at"]), each["data"])
        for each in recorded["events"]
    ]


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda recorded: recorded["name"])
def test_a_request_of_before_replays_unchanged(recorded: dict[str, Any]) -> None:
    log = log_of(recorded)
    for end in range(1, len(log), 5):
        replay(approval, log[:end], link=str)  # NondeterminismError would name the event that doesn't fit
    outcome = replay(approval, log, link=str)
    assert outcome.commands == [] or outcome.ended
    assert outcome.projection is not None
    view = Request.model_validate(outcome.projection.parts[0])
    assert (view.handovers, view.reassign) == ((), "approvers")
    assert view.is_open == all(event.type != "run_completed" for event in log)
