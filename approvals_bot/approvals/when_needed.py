"""Arguments of steps that are made only when they are needed.

A step that is in the log takes the input that the log has. Making a card for it anew on every replay would cost more
than all the rest of the replay.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from pydantic import BeforeValidator

T = TypeVar("T")


class NotMadeError(Exception):
    """Making it raised `cause`: a ValueError, which pydantic would take for a complaint of its own."""

    def __init__(self, cause: ValueError) -> None:
        super().__init__(str(cause))
        self.cause = cause


class _Recipe:
    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make


def when_needed(make: Callable[[], T]) -> T:
    """An argument for a parameter that is `Annotated[…, MADE_WHEN_NEEDED]`: made at the call, unless it is recorded.

    Only for calls of steps inside a workflow. The call raises NotMadeError where `make` raises ValueError. Nothing else
    that the workflow does may depend on whether it was made.
    """
    return cast(T, _Recipe(make))


def _made(value: Any) -> Any:
    if not isinstance(value, _Recipe):
        return value
    try:
        return value.make()
    except ValueError as error:
        raise NotMadeError(error) from error


MADE_WHEN_NEEDED = BeforeValidator(_made)
