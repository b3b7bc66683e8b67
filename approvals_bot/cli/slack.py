"""`approvals-bot slack …`: what the Slack app needs."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from approvals_bot.channels.slack.manifest import manifest as manifest_of
from approvals_bot.cli import show
from approvals_bot.cli.options import CONFIG, Config, Json, fail

app = typer.Typer(help="Show what the Slack app needs.", no_args_is_help=True)

HOW = """\
Paste this at https://api.slack.com/apps → Create New App → From a manifest, install the app, and put its tokens into
[slack] of config.toml: {tokens}."""
TOKENS = {
    True: "bot_token (xoxb-…) and app_token (xapp-…, with the scope connections:write)",
    False: "bot_token (xoxb-…) and signing_secret",
}


@app.callback()
def _group() -> None:
    """Keeps `manifest` a command of its own."""


@app.command()
def manifest(
    config: Config = CONFIG,
    base_url: Annotated[str | None, typer.Option(help="The service's URL, instead of the file's.")] = None,
    socket: Annotated[
        bool | None, typer.Option("--socket/--http", help="Socket Mode, or HTTP. Default: as the file says.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print the manifest to make the Slack app from. Tokens need not be set yet."""
    given = _table(config) if base_url is None or socket is None else {}
    url = base_url or given.get("server", {}).get("base_url")
    if not isinstance(url, str) or not url.startswith(("https://", "http://")):
        fail(f"{config} names no [server] base_url. Name one with --base-url https://….")
    of_file = given.get("slack", {})
    by_socket = socket if socket is not None else "app_token" in of_file and "signing_secret" not in of_file
    if not as_json:
        typer.echo(HOW.format(tokens=TOKENS[by_socket]), err=True)
        if not by_socket and not url.startswith("https://"):
            typer.echo(f"Slack posts to https URLs only, and {url} is none; --socket needs no public URL.", err=True)
    show.say(manifest_of(url, socket=by_socket), "", as_json=True)


def _table(config: Path) -> dict[str, Any]:
    """The file as it is, unchecked: it may name secrets that are not known before the app is made."""
    try:
        given = tomllib.loads(config.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        fail(f"{config} can't be read: {error}")
    return {name: table for name, table in given.items() if isinstance(table, dict)}
