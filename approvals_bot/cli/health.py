"""`approvals-bot health`: asks a running service how it is, for containers and scripts."""

from __future__ import annotations

import http.client
from urllib.parse import urlsplit

import click

from approvals_bot.cli.common import misuse

PATIENCE = 5.0  # seconds


@click.command()
@click.option("--url", default="http://127.0.0.1:8000", help="Where the service listens, not where people reach it.")
@click.option("--ready", is_flag=True, help="Ask whether it is ready for requests, not only whether it answers.")
def health(url: str, ready: bool) -> None:
    """Ask a running service on this machine how it is.

    Exits with 0 if it answers well, otherwise with 1. Reads no configuration.

    \b
    Example: approvals-bot health --ready
    """
    path, where = "/readyz" if ready else "/healthz", urlsplit(url).netloc
    if not url.startswith("http://") or not where:
        misuse("--url: write the address at which the service listens, like http://127.0.0.1:8000.")
    connection = http.client.HTTPConnection(where, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        status, said = answer.status, answer.read(2_000).decode(errors="replace")
    except OSError as error:
        click.echo(f"Nothing answers at {url}: {error.strerror or type(error).__name__}.", err=True)
        raise click.exceptions.Exit(1) from None
    except http.client.HTTPException as error:
        click.echo(f"What answers at {url} is no HTTP ({type(error).__name__}).", err=True)
        raise click.exceptions.Exit(1) from None
    finally:
        connection.close()
    click.echo(f"{path} {status} {said}", err=status != 200)
    if status != 200:
        raise click.exceptions.Exit(1)
