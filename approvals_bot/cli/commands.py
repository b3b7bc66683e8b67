"""What can be typed: every command, and the file that tells it."""

from __future__ import annotations

from typing import Annotated

import typer

from approvals_bot.cli import audit, requests, runs, slack
from approvals_bot.cli import check as checking
from approvals_bot.cli import serve as running
from approvals_bot.cli.errors import Commands

app = typer.Typer(
    name="approvals-bot",
    help="Approvals by Slack and email, on durable workflows.",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode=None,  # plain text: it is quicker by a tenth of a second, and reads the same everywhere
    pretty_exceptions_enable=False,  # a traceback with local variables would print secrets
)

app.command("init")(running.init)
app.command("dev")(running.dev)
app.command("serve")(running.serve_command)
app.command("migrate")(running.migrate)
app.command("copy")(running.copy_command)

app.command("check")(checking.check)
app.command("lint")(checking.lint)
app.command("doctor")(checking.doctor)
app.command("schema")(checking.schema)
app.command("simulate")(requests.simulate)

app.command("start")(requests.start)
app.command("vote")(requests.vote)
app.command("reassign")(requests.reassign)
app.command("cancel")(requests.cancel)
app.command("explain")(requests.explain)
app.command("runs")(runs.runs)
app.command("show")(runs.show_command)
app.command("resume")(runs.resume)

app.add_typer(audit.app, name="audit")
app.add_typer(slack.app, name="slack")


def _say_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"approvals-bot {version('approvals-bot')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass
