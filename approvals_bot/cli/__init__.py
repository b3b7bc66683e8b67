"""The command line. Commands take `--config FILE`, and `--json` if they print anything."""

from __future__ import annotations

from approvals_bot.cli.commands import app


def main() -> None:
    """Run the console script `approvals-bot`."""
    app()


__all__ = ["app", "main"]
