"""Every command: where it is implemented, and its line in `--help`.

A command's module is imported when that command is called. So `--help`, `--version` and a mistyped name cost no more
than click itself.
"""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
from functools import partial
from importlib import import_module
from typing import Any

import click

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
    "extend": ("grants:extend", "Ask the approvers whether the grant of a request may last longer."),
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

VERSION = import_module("approvals_bot").__version__  # importlib.metadata takes half as long as all of `--help`

TRACEBACK = "APPROVALS_BOT_TRACEBACK"
"""The environment variable that makes commands print tracebacks, which may show secrets."""


def load(name: str) -> click.Command:
    """Import a command's module. Returns the command, with its options."""
    module, _, attribute = COMMANDS[name][0].partition(":")
    found: click.Command = getattr(import_module(f"approvals_bot.cli.{module}"), attribute)
    return found


class Commands(click.Group):
    """The commands. Their errors are printed as a sentence on standard error, never as a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return their names in the order of the table, not of the alphabet."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that these arguments name, imported now. The group itself has only names and lines."""
        name, found, rest = super().resolve_command(ctx, args)
        return name, load(name) if name in COMMANDS else found, rest

    def invoke(self, ctx: click.Context) -> Any:
        _replace_unprintable()
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise  # a closed pipe (`… | head`), after which click ends quietly
            if os.environ.get(TRACEBACK):
                traceback.print_exc()
            click.echo(error_text(error), err=True)
            raise click.exceptions.Exit(1) from None


def _replace_unprintable() -> None:
    """Print characters that the locale lacks as question marks instead of failing. JSON is ASCII then."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def error_text(error: Exception) -> str:
    """Say in a sentence what went wrong."""
    from approvals_bot.errors import ApprovalsBotError, StoreReadOnlyError

    match error:
        case StoreReadOnlyError():
            from approvals_bot.service.store_mends import store_mend

            return f"{error}. {store_mend(str(error))}."
        case ApprovalsBotError():
            return str(error)
        case OSError() if error.filename is not None:
            return f"{error.filename}: {error.strerror}"
        case OSError() if error.strerror:
            return f"The operating system reported an error: {error.strerror}."
        case _:
            what = f"{type(error).__name__}: {error}"
            return f"This is a bug in Approvals Bot: {what}\nPlease report it. {TRACEBACK}=1 prints the traceback."


def _install_completion(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        import_module("approvals_bot.cli.completion").install()
        ctx.exit()


def _show_completion(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(import_module("approvals_bot.cli.completion").script(app))
        ctx.exit()


eager_flag = partial(click.option, is_flag=True, is_eager=True, expose_value=False)


@click.group("approvals-bot", cls=Commands, context_settings={"show_default": True})
@click.version_option(VERSION, message="approvals-bot %(version)s", help="Print the version.")
@eager_flag("--install-completion", callback=_install_completion, help="Install completion for the current shell.")
@eager_flag("--show-completion", callback=_show_completion, help="Show completion for the current shell.")
def app() -> None:
    """Approvals in Slack and by email, on durable workflows."""


for _name, (_, _line) in COMMANDS.items():
    app.add_command(click.Command(_name, help=_line))  # `resolve_command` puts the implementation in its place
