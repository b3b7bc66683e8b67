"""Whether two starts under one idempotency key ask for the same."""

from __future__ import annotations

from typing import Any


def difference(before: Any, now: Any) -> str | None:
    """Where two starts with one key differ, by path and value. None: they don't."""
    for part in ("workflow", "input"):
        found = _first_difference(before.get(part), now.get(part), part)
        if found is not None:
            return found
    return None


def _first_difference(before: Any, now: Any, path: str) -> str | None:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*before, *(k for k in now if k not in before)]:
            found = _first_difference(before.get(key), now.get(key), f"{path}.{key}")
            if found is not None:
                return found
        return None
    return None if before == now else f"{path} was {_short(before)}, and is now {_short(now)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
