"""The command `revoke`, which ends what an approval gave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from approvals_bot.cli.common import CONFIG, Config, Json, RunId, identity, this_user, with_engine
from approvals_bot.cli.requests import CLI, print_reply, request_of_run, to_act_on

if TYPE_CHECKING:
    from approvals_bot.config.service import ServiceSettings
    from approvals_bot.durable.engine import Engine


def revoke(
    run: RunId,
    config: Config = CONFIG,
    by: Annotated[
        str | None, typer.Option(help="The person who revokes it; without it, you as an operator.", metavar="ADDRESS")
    ] = None,
    reason: Annotated[str, typer.Option(help="The reason, shown to everyone involved.")] = "",
    as_json: Json = False,
) -> None:
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
