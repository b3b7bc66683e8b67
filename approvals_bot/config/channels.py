"""Which channels are installed: those of the package, and those that other packages register.

A package registers one by an entry point of the group `approvals_bot.channels`, `name = "module:make"`, and a table
`[channels.<name>]` switches it on. `make(settings)` gets that table as a dict, with every `env:` and `file:` in it as a
pydantic SecretStr, and gives a `Channel` (`approvals/port.py`). It opens nothing, and raises ValueError or KeyError for
settings that can't be right.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from approvals_bot.approvals.port import Channel
from approvals_bot.errors import ConfigError

CHANNELS_GROUP = "approvals_bot.channels"

BUILT_IN = frozenset({"slack", "email"})
"""The channels whose settings are tables of their own, with models that check them."""


def installed_channels() -> Mapping[str, EntryPoint]:
    """Return the registered channels by name. None is imported yet."""
    return {each.name: each for each in entry_points(group=CHANNELS_GROUP)}


def make_channel(name: str, settings: Any) -> Channel:
    """Import the channel of this name and make it. Raises whatever its module or its `make` raises."""
    entry = installed_channels().get(name)
    if entry is None:
        raise ConfigError(f"The channel {name} is not registered: install the package again (`make run` does it).")
    channel: Channel = entry.load()(settings)
    return channel
