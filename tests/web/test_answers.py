"""Everything that a workflow keeps can be shown."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from approvals_bot.durable.core.serialization import encode
from approvals_bot.durable.engine import HookInfo
from approvals_bot.durable.store.protocol import HookRow
from approvals_bot.web.hooks import hook_json
from approvals_bot.web.responses import JsonResponse


def test_metadata_of_a_hook_is_shown_as_json_whatever_it_is() -> None:
    at = datetime(2026, 1, 1, 9, tzinfo=UTC)
    given = {"at": at, "amount": Decimal("1.50"), "half": "\ud800", "raw": b"\xff", "none": math.nan, "own": {"$": 1}}
    metadata = encode(given | {"days": timedelta(2), "some": {2, 1}})
    hook = HookInfo(HookRow("hook_1", "run_1", 1, "token", False, False, None, metadata, at, 1, True))
    body = JsonResponse(hook_json(hook)).body
    shown = json.loads(bytes(body))["metadata"]
    assert shown == {
        "at": "2026-01-01T09:00:00+00:00",
        "amount": "1.50",
        "half": "\ud800",
        "raw": "/w==",
        "none": "nan",
        "own": {"$": 1},
        "days": "P2D",
        "some": [1, 2],
    }
