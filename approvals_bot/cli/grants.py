"""The commands about what an approval gave: `revoke` ends it, `extend` asks whether it may last longer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from approvals_bot.cli.common import (
    config_option,
    identity,
    json_option,
    run_argument,
    shown_reason_option,
    this_user,
    with_engine,
)
from approvals_bot.cli.requests import CLI, print_reply, request_of_run, to_act_on

if TYPE_CHECKING:
    from approvals_bot.config.service import ServiceSettings
    from approvals_bot.durable.engine import Engine


@click.command()
@run_argument
@config_option
@click.option("--by", metavar="ADDRESS", help="The person who revokes it; without it, you as an operator.")
@shown_reason_option
@json_option
def revoke(run: str, config: Path, by: str | None, reason: str, as_json: bool) -> None:
    """End the grant of an approved request now.

    It is removed at once, or as soon as its target can be reached. Exits with 1 if it is refused, for example because
    the request has no grant.

    \b
    Example: approvals-bot revoke RUN --reason "Not needed any more"
    """
    from approvals_bot.approvals.acts import Revoke
    from approvals_bot.service.act import perform

    async def end(engine: Engine, service: ServiceSettings) -> None:
        person = CLI if by is None else identity(by, service, "--by")
        request = request_of_run(await to_act_on(engine, run))
        act = Revoke(person, reason, "cli", actor=this_user(), operates=by is None)
        reply = await perform(engine, request, act)
        print_reply({"run_id": run, "verdict": reply.verdict, "text": reply.text}, as_json)

    with_engine(config, end)


@click.command()
@run_argument
@click.argument("lasts")
@config_option
@click.option("--by", metavar="ADDRESS", help="The person who extends it; without it, the requester.")
@shown_reason_option
@json_option
def extend(run: str, lasts: str, config: Path, by: str | None, reason: str, as_json: bool) -> None:
    """Ask the approvers whether the grant of a request may last longer.

    LASTS is added to its end, as in 1h or 90m. Until they approve, the end stays. Exits with 1 if it is refused, for
    example because the grant has ended.

    \b
    Example: approvals-bot extend RUN 1h --reason "The rollback takes longer"
    """
    from approvals_bot.approvals.acts import Extend
    from approvals_bot.service.act import perform

    async def ask(engine: Engine, service: ServiceSettings) -> None:
        request = request_of_run(await to_act_on(engine, run))
        person = request.requester if by is None else identity(by, service, "--by")
        reply = await perform(engine, request, Extend(person, lasts, reason, "cli", actor=this_user()))
        print_reply({"run_id": run, "verdict": reply.verdict, "text": reply.text}, as_json)

    with_engine(config, ask)
