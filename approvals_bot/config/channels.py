"""The installed channels: our own, and those that other packages register.

A package registers a channel under the entry point group `approvals_bot.channels` as `name = "module:make"`, and a
table `[channels.<name>]` switches it on. `make(settings)` receives that table as a dict, in which every `env:` and
`file:` is already a pydantic SecretStr, and returns a `Channel` (`approvals/port.py`). It opens nothing, and raises
ValueError or KeyError for invalid settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from approvals_bot.approvals.port import Channel
from approvals_bot.errors import ConfigError

CHANNELS_GROUP = "approvals_bot.channels"

BUILT_IN = frozenset({"slack", "email"})
"""The channels with a top-level table of their own, which a model checks."""


def installed_channels() -> Mapping[str, EntryPoint]:
    """Return the registered channels by name, without importing any."""
    return {each.name: each for each in entry_points(group=CHANNELS_GROUP)}


def make_channel(name: str, settings: Any) -> Channel:
    """Import the channel of this name and make it. Raises anything that its module or its `make` raises."""
    entry = installed_channels().get(name)
    if entry is None:
        raise ConfigError(f"The channel {name} is not registered. Reinstall its package (`make run` reinstalls ours).")
    channel: Channel = entry.load()(settings)
    return channel
