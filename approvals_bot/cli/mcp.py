"""`approvals-bot mcp`: MCP tools over stdio, for an agent on this machine and a service anywhere."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import click

from approvals_bot.client import Approvals
from approvals_bot.errors import ConfigError

if TYPE_CHECKING:
    from mcp.server.mcpserver import Context


@click.command()
@click.option("--url", envvar="APPROVALS_URL", show_envvar=True, help="The service, like https://approvals.acme.eu.")
@click.option("--workflow", default="tool-call", help="The workflow that opens the requests.")
def mcp(url: str | None, workflow: str) -> None:
    """Serve MCP tools over stdio, by which agents ask for approval.

    They are request_approval, get_approval and permission_prompt. The API key is taken from
    the environment variable APPROVALS_KEY.
    """
    try:
        from approvals_bot.client.mcp import approvals_server
    except ModuleNotFoundError as error:
        if error.name != "mcp":
            raise
        raise ConfigError("MCP isn't installed here. Install it with `pip install 'approvals-bot[mcp]'`.") from None
    approvals = Approvals(url, workflow=workflow)

    @asynccontextmanager
    async def same(_: Context) -> AsyncIterator[Approvals]:
        yield approvals

    approvals_server(same).run("stdio")
