"""Which press of a button, or which submission of a modal, a request of Slack's is about.

The guard remembers signatures in its own process. Another replica has never seen them, so a request that comes again
there is known by what it says: each press has a trigger of its own, each modal an id, and Slack signs the whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def press_of(payload: Mapping[str, Any]) -> str | None:
    """A name for this press: the same for the same request, wherever it arrives. None: nothing tells it from others."""
    if not payload.get("trigger_id") and not (payload.get("view") or {}).get("id"):
        return None
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"))
    return f"slack-{hashlib.sha256(text.encode()).hexdigest()[:40]}"
