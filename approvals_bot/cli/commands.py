"""Every command: where it is implemented, and its line in `--help`.

A command's module is imported when that command is called. So `--help`, `--version` and a mistyped name cost no more
than typer itself.
"""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

COMMANDS = {
    "init": ("serve:init", "Create config.toml, a first workflow and signing keys."),
    "dev": ("serve:dev", "Try everything on this machine, with a fake Slack and mailbox."),
    "serve": ("serve:serve_command", "Run the service."),
    "health": ("health:health", "Ask a running service on this machine how it is."),
    "migrate": ("serve:migrate", "Update the database's schema."),
    "copy": ("serve:copy_command", "Copy a stopped service's database to another one."),
    "backup": ("backup:backup", "Write a backup of the database, while the service runs."),
    "restore": ("backup:restore", "Restore a backup into the configured database."),
    "fsck": ("fsck:fsck", "Check the database: its logs, what is derived from them, and the chains."),
    "check": ("check:check", "Check config.toml and all workflows."),
    "test": ("policy_tests:play", "Play the policy tests: deploy.test.toml beside deploy.toml."),
    "compare": ("compare:compare", "Play past requests through a changed workflow file, and list what would differ."),
    "lint": ("check:lint", "Find workflow code that can't be replayed."),
    "doctor": ("check:doctor", "Check everything a running service needs."),
    "schema": (
        "check:schema",
        "Print the JSON Schema of config.toml, of workflow files, of their tests or of what they extend.",
    ),
    "simulate": ("requests:simulate", "Show who a request would notify, when and how."),
    "start": ("requests:start", "Open a request, or start any other workflow."),
    "vote": ("requests:vote", "Cast a person's vote."),
    "reassign": ("requests:reassign", "Replace an approver, or add one."),
    "comment": ("talk:comment", "Add a comment to a request, without a vote."),
    "claim": ("talk:claim", "Say that an approver is on it, or no longer."),
    "remind": ("talk:remind", "Remind everyone who still owes a vote, at the requester's wish."),
    "snooze": ("talk:snooze", "Keep reminders from an approver for a while."),
    "cancel": ("requests:cancel", "Withdraw a request, or cancel any other run."),
    "revoke": ("grants:revoke", "End the grant of an approved request now."),
    "retry": ("repairs:retry", "Let a stalled run go on, or start a failed or cancelled one again."),
    "reset": ("repairs:reset", "Let a new run go on from an event of another one, in its place."),
    "explain": ("requests:explain", "Explain what a run is waiting for."),
    "runs": ("requests:runs", "List runs, newest first."),
    "erase": (
        "erase:erase",
        "Erase a person from ended runs, the audit and archives: their address, their name and what they wrote.",
    ),
    "prune": ("prune:prune", "Delete runs that ended long ago, archived first. What stays of each says how it ended."),
    "schedules": ("schedules:schedules", "List schedules: their next times, and what became of the last one."),
    "show": ("requests:show_command", "Show a run: its card and its timeline."),
    "resume": ("requests:resume", "Resume a run that waits for a hook."),
    "keys": ("keys:keys", "Make API keys."),
    "sessions": ("sessions:app", "List or end a person's sessions."),
    "audit": ("audit:app", "Export the audit log, or verify an export."),
    "evidence": ("evidence:app", "Write the signed evidence of a request, or verify such a file."),
    "mcp": ("mcp:mcp", "Serve MCP tools over stdio, by which agents ask for approval."),
    "slack": ("serve:slack_app", "Set up the Slack app."),
}
"""For each command, in the order of `--help`: its module and function below `approvals_bot.cli`, and its first line."""

PLAIN: dict[str, Any] = {
    "rich_markup_mode": None,  # plain text starts a tenth of a second sooner and reads the same everywhere
    "pretty_exceptions_enable": False,  # a traceback with local variables would print secrets
}

TRACEBACK = "APPROVALS_BOT_TRACEBACK"
"""The environment variable that makes commands print tracebacks, which may show secrets."""


def load(name: str) -> Any:
    """Import a command's module. Returns the command as typer runs it, with its options."""
    module, _, attribute = COMMANDS[name][0].partition(":")
    found = getattr(import_module(f"approvals_bot.cli.{module}"), attribute)
    alone = typer.Typer(add_completion=False, **PLAIN)
    if isinstance(found, typer.Typer):
        alone.add_typer(found, name=name)
        return get_command(alone).commands[name]  # type: ignore[attr-defined]  # of a group, which it is
    alone.command(name)(found)
    return get_command(alone)


class Commands(TyperGroup):
    """The commands. Their errors are printed as a sentence on standard error, never as a traceback."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the command that these arguments name, imported now. The group itself has only names and lines."""
        name, found, rest = super().resolve_command(ctx, args)
        return name, load(name) if name in COMMANDS else found, rest

    def invoke(self, ctx: Any) -> Any:
        _replace_unprintable()
        try:
            return super().invoke(ctx)
        except Exception as error:
            if _is_for_typer(error):
                raise
            if os.environ.get(TRACEBACK):
                traceback.print_exc()
            typer.echo(error_text(error), err=True)
            raise typer.Exit(1) from None


def _replace_unprintable() -> None:
    """Print characters that the locale lacks as question marks instead of failing. JSON is ASCII then."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def error_text(error: Exception) -> str:
    """Say in a sentence what went wrong."""
    from approvals_bot.errors import ApprovalsBotError

    match error:
        case ApprovalsBotError():
            return str(error)
        case OSError() if error.filename is not None:
            return f"{error.filename}: {error.strerror}"
        case OSError() if error.strerror:
            return f"The operating system reported an error: {error.strerror}."
        case _:
            what = f"{type(error).__name__}: {error}"
            return f"This is a bug in Approvals Bot: {what}\nPlease report it. {TRACEBACK}=1 prints the traceback."


def _is_for_typer(error: Exception) -> bool:
    """Check whether typer handles this: usage errors, Exit, Abort, and a closed pipe (`… | head`)."""
    is_gone = isinstance(error, OSError) and error.errno == errno.EPIPE
    return is_gone or isinstance(error, typer.Exit | typer.Abort) or hasattr(error, "exit_code")


def _print_version(wanted: bool) -> None:
    if wanted:
        version = import_module("approvals_bot").__version__  # importlib.metadata takes half as long again as typer
        typer.echo(f"approvals-bot {version}")
        raise typer.Exit


app = typer.Typer(
    name="approvals-bot",
    help="Approvals in Slack and by email, on durable workflows.",
    cls=Commands,
    no_args_is_help=True,
    **PLAIN,
)


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


for _name, (_, _line) in COMMANDS.items():
    app.command(_name, help=_line)(lambda: None)  # `resolve_command` puts the implementation in its place
