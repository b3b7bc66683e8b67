"""What somebody may do on her page with a request that she asked for herself: change it when changes are asked for, and
take it back. The request itself says whether it lets her.
"""

from __future__ import annotations

from collections.abc import Mapping

from approvals_bot.approvals.request import RequestView
from approvals_bot.channels import CardChoice
from approvals_bot.engine import Engine
from approvals_bot.web import votes
from approvals_bot.web.forms import changes
from approvals_bot.web.links import Link

LONGEST_REASON = 500


def asks_herself(view: RequestView, address: str) -> bool:
    """Whether this person asked for it, or it is asked for her."""
    return address in (view.requester, view.on_behalf_of)


def change_of(view: RequestView, address: str) -> CardChoice | None:
    """What she may change, as a form; None while there is nothing to change, or for others."""
    if not asks_herself(view, address) or view.state != "changes_requested":
        return None
    return CardChoice("edit", "Change the request", "Change the request", "link", asks=view.to_change)


async def act(engine: Engine, link: Link, form: Mapping[str, str]) -> votes.Verdict:
    """Do what her form says: `own` is `change` or `withdraw`."""
    if form["own"] == "withdraw":
        reason = form.get("reason", "").strip()[:LONGEST_REASON]
        return await votes.withdraw(engine, link.hook.id, by=link.address, via=link.via, reason=reason)
    fields = changes(link.view.to_change, form, "edit")
    return await votes.edit(engine, link.hook.id, by=link.address, via=link.via, fields=fields)
