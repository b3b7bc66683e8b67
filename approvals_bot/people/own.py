"""What people set themselves: their time zone, when they are away, and whether pages take keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from approvals_bot.people.absences import Absence


@dataclass(frozen=True, slots=True)
class OwnSettings:
    """One person's own settings. `zone`: "" for the one that the configuration has."""

    zone: str = ""
    away: tuple[Absence, ...] = ()
    has_keys: bool = True

    def as_json(self) -> dict[str, Any]:
        return {
            "zone": self.zone,
            "away": [[each.first.isoformat(), each.last.isoformat(), *each.delegates] for each in self.away],
            "keys": self.has_keys,
        }


UNSET = OwnSettings()


def own_settings(stored: Mapping[str, Any]) -> OwnSettings:
    """Parse stored settings. Raises ValueError, TypeError or LookupError for anything else."""
    away = [
        Absence(date.fromisoformat(first), date.fromisoformat(last), tuple(map(str, delegates)))
        for first, last, *delegates in stored["away"]
    ]
    return OwnSettings(str(stored["zone"]), tuple(away), bool(stored["keys"]))


@dataclass(slots=True)
class OwnPeople:
    """Everybody's own settings by address, as this process has last read them."""

    by_address: dict[str, OwnSettings] = field(default_factory=dict)

    def of(self, address: str) -> OwnSettings:
        return self.by_address.get(address, UNSET)
