"""Commands for what people do about a request besides deciding: `comment`, `claim`, `remind`, `snooze`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from approvals_bot.approvals.acts import Comment, Remind, Reply, TakeOn, Talk
from approvals_bot.cli.common import config_option, identity, json_option, run_argument, this_user, with_engine
from approvals_bot.cli.requests import CLI, print_reply, request_of_run, to_act_on
from approvals_bot.config.service import ServiceSettings
from approvals_bot.durable.engine import Engine
from approvals_bot.service.talk import snooze_of
from approvals_bot.service.talk import talk as perform_talk

by_option = click.option("--by", required=True, metavar="ADDRESS", help="The person's address.")


@click.command()
@run_argument
@click.option("--text", required=True, help="The comment.")
@config_option
@click.option("--by", metavar="ADDRESS", help="The person who comments; the operator by default.")
@json_option
def comment(run: str, text: str, config: Path, by: str | None, as_json: bool) -> None:
    """Add a comment to a request, without a vote.

    The people who have to do with the request are notified. Exits with 1 if it is refused.

    \b
    Example: approvals-bot comment RUN --by ann@acme.eu --text "Is the migration reversible?"
    """
    _talk(run, config, by, as_json, lambda _, person: Comment(person, text, "cli", actor=this_user()))


@click.command()
@run_argument
@by_option
@config_option
@click.option("--release", is_flag=True, help="They are no longer on it.")
@json_option
def claim(run: str, by: str, config: Path, release: bool, as_json: bool) -> None:
    """Say that an approver is on it, or no longer.

    Everybody can still decide. Exits with 1 if it is refused.

    \b
    Example: approvals-bot claim RUN --by ann@acme.eu
    """
    _talk(run, config, by, as_json, lambda _, person: TakeOn(person, release, "cli", actor=this_user()))


@click.command()
@run_argument
@by_option
@config_option
@json_option
def remind(run: str, by: str, config: Path, as_json: bool) -> None:
    """Remind everyone who still owes a vote, at the requester's wish.

    At most once an hour. Exits with 1 if it is refused.

    \b
    Example: approvals-bot remind RUN --by bo@acme.eu
    """
    _talk(run, config, by, as_json, lambda _, person: Remind(person, "cli", actor=this_user()))


@click.command()
@run_argument
@by_option
@config_option
@click.option("--until", default="1h", help="`1h`, `tomorrow`, a time with its offset, or `now`, which ends it.")
@json_option
def snooze(run: str, by: str, config: Path, until: str, as_json: bool) -> None:
    """Keep reminders from an approver for a while.

    They get one when it is over. Exits with 1 if it is refused.

    \b
    Example: approvals-bot snooze RUN --by ann@acme.eu --until tomorrow
    """
    _talk(
        run,
        config,
        by,
        as_json,
        lambda engine, person: snooze_of(engine, person, until, via="cli", actor=this_user()),
    )


def _talk(run: str, config: Path, by: str | None, as_json: bool, make: Callable[[Engine, str], Talk | Reply]) -> None:
    async def act(engine: Engine, service: ServiceSettings) -> None:
        made = make(engine, identity(by, service, "--by") if by else CLI)
        request = request_of_run(await to_act_on(engine, run))
        reply = made if isinstance(made, Reply) else await perform_talk(engine, request, made)
        said: dict[str, Any] = {"verdict": reply.verdict, "text": reply.text, "changed": reply.changed}
        print_reply(said, as_json)

    with_engine(config, act)
