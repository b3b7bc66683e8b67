"""Ending what an approval covers of later requests: at once, by those whom the request concerns."""

from __future__ import annotations

from approvals_bot.approvals.acts import Actor, Reply, Revoke
from approvals_bot.approvals.card_model import Via
from approvals_bot.approvals.grants import LONGEST_REASON, refuse_revocation
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.reassignment import Rank
from approvals_bot.approvals.request import OPERATOR, GivenGrant, Request
from approvals_bot.approvals.resolution import is_among
from approvals_bot.approvals.rules import rules_of
from approvals_bot.approvals.stages import context_of
from approvals_bot.approvals.standing_grants import CountedGrant
from approvals_bot.durable.engine import Engine
from approvals_bot.people import People
from approvals_bot.service.audited import audit_refusal
from approvals_bot.service.standing import StoredGrants


async def revoke_standing(engine: Engine, request: Request, given: GivenGrant, act: Revoke) -> Reply:
    """End a standing grant now, if this person may. The run that gave it is over, so the store alone has it."""
    actor = (act.actor or Actor("person", act.by)).as_json()
    refused = refuse_revocation(request, act, await _rank(engine, request, act))
    if refused is not None:
        data = {"act": act.kind, "via": act.via, "verdict": refused.verdict, "because": refused.code}
        await audit_refusal(engine, "act_refused", who=act.by, run_id=request.run_id, actor=actor, data=data)
        return refused
    if await end_standing(engine, request, given, act.by, act.reason, actor=actor, via=act.via):
        return Reply("revoked", True, "standing_revoked")
    kept = await counted_grant(engine, given)
    return Reply("revoked", code="grant_over", params={"state": "ended" if kept is None else kept.state(engine.now())})


async def end_standing(
    engine: Engine, request: Request, given: GivenGrant, by: str, reason: str, *, actor: dict[str, str], via: Via
) -> bool:
    """End a standing grant now, and audit that. Returns False if it was over."""
    reason = reason.strip()[:LONGEST_REASON]
    if not await StoredGrants(engine).revoke(given.scope, given.grant.id, by, reason):
        return False
    data = {"grant": given.grant.id, "via": via, "reason": reason}
    await engine.audit("grant_revoked", who=by, run_id=request.run_id, actor=actor, data=data)
    return True


async def counted_grant(engine: Engine, given: GivenGrant) -> CountedGrant | None:
    """Return a standing grant with its uses so far; None once the store has dropped it, long after its end."""
    kept = await StoredGrants(engine).kept(given.scope)
    return next((each for each in kept if each.grant.id == given.grant.id), None)


async def _rank(engine: Engine, request: Request, act: Revoke) -> Rank:
    """Look up whether this person owns the workflow, by the file that the request followed, or is an admin."""
    _, log = await engine.read(request.run_id)
    definition = Definition.model_validate(log[0].data["settings"])
    people: People = engine.resources[People]
    about = context_of(request, rules_of(definition))
    owners = (*(definition.workflow.owners or ()), *(OPERATOR if act.via == "cli" else ()))
    owns, unsure = await is_among(act.by, owners, about, people)
    rules, unsure_admin = await is_among(act.by, people.admins, about, people)
    return Rank(owns, rules, errors=(*unsure, *unsure_admin))
