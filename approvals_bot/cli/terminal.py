"""How every command prints and logs. Imports nothing of the service, so that commands start quickly."""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import Any

import click


def quiet_logs() -> None:
    """Log our own warnings and errors to standard error, and what workflows log from INFO on.

    Libraries stay silent, since they may log paths and people.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    for shown in ("approvals_bot.cli", "approvals_bot.workflow"):
        logging.getLogger(shown).setLevel(logging.INFO)
    for noisy in ("slack_bolt", "slack_sdk", "aiohttp", "uvicorn.error", "mail.log"):
        logging.getLogger(noisy).setLevel(logging.ERROR)


def say(value: Any, text: str, as_json: bool) -> None:
    in_ascii = (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "") != "utf8"
    click.echo(json.dumps(value, indent=2, ensure_ascii=in_ascii, default=str) if as_json else text)


def bold(text: str) -> str:
    """Format a heading. It is plain if NO_COLOR is set or, thanks to `click.echo`, off a terminal."""
    return text if os.environ.get("NO_COLOR") else click.style(text, bold=True)
