"""The commands. Each takes `--config FILE`; those that print take `--json`."""

from __future__ import annotations

from approvals_bot.cli.commands import app


def main() -> None:
    """The console script `approvals-bot`."""
    app()


__all__ = ["app", "main"]
