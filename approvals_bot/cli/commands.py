"""Every command, with the function that implements it."""

from __future__ import annotations

from typing import Annotated

import typer

from approvals_bot.cli import audit, check, requests, serve
from approvals_bot.cli.common import Commands

app = typer.Typer(
    name="approvals-bot",
    help="Approvals in Slack and by email, on durable workflows.",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode=None,  # plain text starts a tenth of a second sooner and reads the same everywhere
    pretty_exceptions_enable=False,  # a traceback with local variables would print secrets
)

app.command("init")(serve.init)
app.command("dev")(serve.dev)
app.command("serve")(serve.serve_command)
app.command("migrate")(serve.migrate)
app.command("copy")(serve.copy_command)

app.command("check")(check.check)
app.command("lint")(check.lint)
app.command("doctor")(check.doctor)
app.command("schema")(check.schema)
app.command("simulate")(requests.simulate)

app.command("start")(requests.start)
app.command("vote")(requests.vote)
app.command("reassign")(requests.reassign)
app.command("cancel")(requests.cancel)
app.command("explain")(requests.explain)
app.command("runs")(requests.runs)
app.command("show")(requests.show_command)
app.command("resume")(requests.resume)

app.add_typer(audit.app, name="audit")
app.add_typer(serve.slack_app, name="slack")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"approvals-bot {version('approvals-bot')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass
