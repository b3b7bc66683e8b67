"""Which workflows can be started here, by name. A reload of the configuration gives a new listing."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Protocol

from approvals_bot.approvals.policy import Definition
from approvals_bot.durable.core.api import Workflow


@dataclass(frozen=True, slots=True)
class Listed:
    """A workflow as it is offered now. `definition`: what its TOML file says, None for a plain Python workflow."""

    workflow: Workflow[Any, Any]
    definition: Definition | None = None

    @property
    def is_approval(self) -> bool:
        return self.definition is not None and self.definition.is_approval


class Workflows(Protocol):
    """The listing. Asked anew for every request, so that a reload touches new requests only."""

    def find(self, name: str) -> Listed | None:
        """The workflow of this name, None if there is none."""

    def names(self) -> Collection[str]:
        """Every name that is listed."""
