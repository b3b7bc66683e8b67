"""Where every error of a command ends: one sentence on standard error and exit 1, never a traceback."""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
from typing import Any

import typer
from typer.core import TyperGroup

from approvals_bot.errors import ApprovalsBotError

TRACEBACK = "APPROVALS_BOT_TRACEBACK"
"""Set in the environment, it shows where an error of ours was raised. It may show secrets."""


class Commands(TyperGroup):
    """The commands, with this edge around them."""

    def invoke(self, ctx: Any) -> Any:
        _bear_with_the_terminal()
        try:
            return super().invoke(ctx)
        except Exception as error:
            if _is_typers(error):
                raise
            if os.environ.get(TRACEBACK):
                traceback.print_exc()
            typer.echo(sentence(error), err=True)
            raise typer.Exit(1) from None


def _bear_with_the_terminal() -> None:
    """Where the locale knows no icons, they become question marks, and no error. (JSON is then written in ASCII.)"""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def sentence(error: Exception) -> str:
    """What is said of this error."""
    match error:
        case ApprovalsBotError():
            return str(error)
        case OSError() if error.filename is not None:
            return f"{error.filename}: {error.strerror}"
        case OSError() if error.strerror:
            return f"The system refuses what this needs: {error.strerror}."
        case _:
            what = f"{type(error).__name__}: {error}"
            return f"Something went wrong that should not have: {what}\n({TRACEBACK}=1 shows where. Please report it.)"


def _is_typers(error: Exception) -> bool:
    """Usage errors, the end by Exit or Abort, and a reader that has gone (`… | head`): typer knows what to do."""
    is_gone = isinstance(error, OSError) and error.errno == errno.EPIPE
    return is_gone or isinstance(error, typer.Exit | typer.Abort) or hasattr(error, "exit_code")
