"""`approvals-bot dev` on the database that DATABASE names, instead of its own SQLite file."""

from __future__ import annotations

import os
from typing import Any

from approvals_bot.cli import app, dev

on_this_machine = dev._on_this_machine


def on_database(*given: Any) -> dict[str, Any]:
    """Derive the configuration as `dev` does, with the other database."""
    made = on_this_machine(*given)
    made["server"]["database"] = os.environ["DATABASE"]
    return made


if __name__ == "__main__":
    dev._on_this_machine = on_database  # type: ignore[assignment]  # it passes on whatever it is given
    app()
