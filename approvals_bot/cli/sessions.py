"""`sessions list` and `sessions end`: where somebody is signed in to the pages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from approvals_bot.approvals import card_text
from approvals_bot.cli.common import config_option, fail, json_option, this_user, with_engine
from approvals_bot.config.service import ServiceSettings
from approvals_bot.durable.engine import Engine
from approvals_bot.durable.store.sessions import SessionRow
from approvals_bot.people import AddressError
from approvals_bot.service.read import iso

address_argument = click.argument("address", help="A person's email address.")

app = click.Group("sessions", help="List or end a person's sessions.")


@app.command("list")
@address_argument
@config_option
@json_option
def list_sessions(address: str, config: Path, as_json: bool) -> None:
    """List where this person is signed in: since when, how, and in which browser.

    \b
    Example: approvals-bot sessions list ann@acme.eu
    """

    async def read(engine: Engine, service: ServiceSettings) -> list[SessionRow]:
        from approvals_bot.service.sessions import Sessions

        sessions = Sessions(engine, idle=service.login.idle, lifetime=service.login.lifetime)
        return list(await sessions.list(_canonical(address, service)))

    rows = with_engine(config, read, to_read=True)
    if as_json:
        click.echo(json.dumps([_as_json(row) for row in rows], indent=2))
        return
    if not rows:
        click.echo(f"{address} isn't signed in anywhere.")
    for row in rows:
        since, seen = (card_text.moment(at, "UTC") for at in (row.created_at, row.seen_at))
        click.echo(f"{row.browser or 'unknown browser'}: signed in {since} with {row.method}, last seen {seen}")


@app.command("end")
@address_argument
@config_option
def end_sessions(address: str, config: Path) -> None:
    """Sign this person out everywhere, at once. They can sign in again, unless nobody knows them any more.

    \b
    Example: approvals-bot sessions end ann@acme.eu
    """

    async def end(engine: Engine, service: ServiceSettings) -> int:
        person = _canonical(address, service)
        ended = await engine.store.end_sessions(person=person)
        data = {"sessions": ended}
        await engine.audit("signed_out_everywhere", who=person, actor=this_user().as_json(), data=data)
        return ended

    ended = with_engine(config, end, upgrade=False)
    click.echo(f"Ended {ended} session{'' if ended == 1 else 's'} of {address}.")


def _canonical(address: str, service: ServiceSettings) -> str:
    from approvals_bot.app.directory import build_plain_people

    try:
        return build_plain_people(service).canonical(address)
    except AddressError as error:
        fail(str(error))


def _as_json(row: SessionRow) -> dict[str, Any]:
    times = {"signed_in_at": iso(row.created_at), "seen_at": iso(row.seen_at)}
    return {"id": row.id[:12], "person": row.person, "method": row.method, "browser": row.browser} | times
