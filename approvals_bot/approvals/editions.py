"""An edition: a workflow's file as it was when a request began, and what follows from it alone.

Every replay of a request needs it, so each edition is read and compiled once in a process.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import Annotated, Any

from pydantic import WrapValidator

from approvals_bot.approvals import policy as config
from approvals_bot.approvals.conditions import Condition
from approvals_bot.approvals.policy import Definition

KEPT = 256  # editions; those of the requests that were replayed last


class Edition:
    """One version of a workflow's file."""

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self._conditions: dict[str, Condition] = {}

    @cached_property
    def digest(self) -> str:
        return config.digest(self.definition)

    def condition(self, when: str) -> Condition:
        """Compiling one takes longer than a whole replay."""
        known = self._conditions.get(when)
        if known is None:
            known = self._conditions[when] = Condition(when, self.definition.fields)
        return known


def edition_of(definition: Definition) -> Edition:
    return _edition(_Same(definition))


class _Same:
    """Equal only to the very same definition: comparing what they say takes too long."""

    def __init__(self, definition: Definition) -> None:
        self.definition = definition

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.definition is self.definition

    def __hash__(self) -> int:
        return id(self.definition)


@lru_cache(maxsize=KEPT)
def _edition(same: _Same) -> Edition:
    return Edition(same.definition)


def _known(value: Any, read: Callable[[Any], Definition]) -> Definition:
    return _read(json.dumps(value)) if isinstance(value, dict) else read(value)


@lru_cache(maxsize=KEPT)
def _read(text: str) -> Definition:
    return Definition.model_validate(json.loads(text))


KeptDefinition = Annotated[Definition, WrapValidator(_known)]
"""A definition as logs keep it: of the same JSON, the same object."""
