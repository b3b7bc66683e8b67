"""A store whose calls are timed, and that says when it stops answering and when it answers again."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from approvals_bot.durable.store.protocol import OpenStore
from approvals_bot.errors import StoreUnavailableError

WRITES = frozenset(
    {"create", "create_with_hooks", "append", "record", "receive", "reset", "claim", "check", "announce"}
)
CALLS = (*sorted(WRITES), "audit_lines", "count", "hook", "look", "next_wake", "read", "runs", "taken")


def measure(
    store: OpenStore,
    *,
    answered: Callable[[str, float], None],
    failed: Callable[[StoreUnavailableError], None],
    worked: Callable[[], None],
) -> None:
    """Call `answered` with each call and its seconds, `failed` with each error, `worked` after a write.

    The methods are replaced in this one object: a class around it would have to repeat the whole protocol.
    """
    for name in CALLS:
        setattr(
            store, name, _measured(getattr(store, name), name, answered, failed, worked if name in WRITES else None)
        )


def _measured(
    call: Callable[..., Awaitable[Any]],
    name: str,
    answered: Callable[[str, float], None],
    failed: Callable[[StoreUnavailableError], None],
    worked: Callable[[], None] | None,
) -> Callable[..., Awaitable[Any]]:
    async def measured(*args: Any, **kwargs: Any) -> Any:
        begun = time.perf_counter()
        try:
            result = await call(*args, **kwargs)
        except StoreUnavailableError as error:
            failed(error)
            raise
        answered(name, time.perf_counter() - begun)
        if worked is not None:
            worked()
        return result

    return measured
