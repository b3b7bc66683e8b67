"""The one way in which a person's act reaches a request, from every channel.

Whoever calls `cast`, `withdraw` or `edit` has established who the person is (Slack's signature, a signed link and its
form token, an API key that may vote, a session). From here on all ways are the same: the act becomes one payload of the
request's webhook, the request's own log orders it among all others, and the answer is a verdict with the sentence that
people read everywhere.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from approvals_bot.approvals.heard import EDITION
from approvals_bot.approvals.late import late_verdict
from approvals_bot.approvals.port import ChoiceName, Via
from approvals_bot.approvals.request import Request
from approvals_bot.durable.core.hooks import WebhookRequest
from approvals_bot.durable.engine import Engine, HookTarget
from approvals_bot.errors import HookNotFoundError, IdempotencyConflictError, StoreUnavailableError
from approvals_bot.service.read import request_behind

ANSWER_LIMIT = 3.5  # seconds; a page waits this long for its verdict, and all of its answer takes at most 6: a look
# into the store, which takes up to 2, comes before, and a glance after. Slack's room passes less: it drops clicks at 3
GLANCE = 0.5  # seconds to see whether an act without a verdict came too late

STATUS: dict[str, int] = {
    "counted": 201,
    "decided": 201,
    "changed": 201,
    "taken_back": 201,
    "edited": 201,
    "reassigned": 201,
    "added": 201,
    "received": 202,
    "already_voted": 200,
    "not_an_approver": 403,
    "own_request": 403,
    "group_unknown": 409,  # a source of groups is down: nothing was changed, and trying again may work
    "already_decided": 409,
    "expired": 409,
    "withdrawn": 409,
    "request_changed": 409,
    "invalid": 422,
    "unknown": 404,
}
"""What each verdict is in HTTP. Refusals change nothing but the audit."""

RECEIVED = "Your choice is saved and is being counted. Look again in a moment; there is no need to press twice."
UNKNOWN = "This request can't be found. Nothing was changed."


@dataclass(frozen=True, slots=True)
class VoteAct:
    """One person's choice, as the channel heard it. `digest` is the one she was shown; None: she was shown none."""

    by: str
    choice: ChoiceName
    via: Via
    comment: str = ""
    answers: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class ActVerdict:
    """What became of an act: the verdict's word, the sentence for the person, and whether anything changed."""

    verdict: str
    text: str
    changed: bool


async def cast(
    engine: Engine,
    hook: str | HookTarget,
    vote: VoteAct,
    *,
    timeout: float = ANSWER_LIMIT,
    said_once: str | None = None,
) -> ActVerdict:
    """Count this vote and say what became of it. The vote is durable before this returns, even as `received`.

    `hook`: of the request; its id, or as the engine has just found it.

    `said_once`: a name of the very press that this is, where its channel may bring it twice, to whichever replica.
    """
    message = {
        "kind": "vote",
        "by": vote.by,
        "choice": vote.choice,
        "comment": vote.comment,
        "answers": dict(vote.answers),
        "digest": vote.digest,
        "via": vote.via,
    }
    if vote.fields:
        message["fields"] = dict(vote.fields)
    return await _tell(engine, hook, message, timeout, said_once)


async def withdraw(
    engine: Engine, hook_id: str, *, by: str, via: Via, reason: str = "", timeout: float = ANSWER_LIMIT
) -> ActVerdict:
    """Take the request back, for its requester or an app that acts for her."""
    return await _tell(engine, hook_id, {"kind": "withdraw", "by": by, "reason": reason, "via": via}, timeout)


async def stop(
    engine: Engine, hook_id: str, *, by: str, via: Via, reason: str = "", timeout: float = ANSWER_LIMIT
) -> ActVerdict:
    """End the whole run that asked this, and with it everything else that it asks."""
    return await _tell(engine, hook_id, {"kind": "stop", "by": by, "reason": reason, "via": via}, timeout)


async def edit(
    engine: Engine, hook_id: str, *, by: str, via: Via, fields: Mapping[str, Any], timeout: float = ANSWER_LIMIT
) -> ActVerdict:
    """Change fields of an open request. Votes are reset as the workflow's policy says."""
    return await _tell(engine, hook_id, {"kind": "edit", "by": by, "fields": dict(fields), "via": via}, timeout)


async def hand_over(
    engine: Engine,
    hook: str | HookTarget,
    *,
    by: str,
    via: Via,
    person: str,
    instead_of: str | None,
    reason: str = "",
    timeout: float = ANSWER_LIMIT,
    said_once: str | None = None,
) -> ActVerdict:
    """Ask somebody else: instead of this person ("": of who says so), or, for None, besides all who are asked."""
    kind = "add" if instead_of is None else "reassign"
    message = {"kind": kind, "by": by, "via": via, "person": person, "instead_of": instead_of or "", "reason": reason}
    return await _tell(engine, hook, message, timeout, said_once)


async def _tell(
    engine: Engine, hook: str | HookTarget, message: dict[str, Any], timeout: float, said_once: str | None = None
) -> ActVerdict:
    target = await engine.find(hook) if isinstance(hook, str) else hook
    if target is None:
        return ActVerdict("unknown", UNKNOWN, changed=False)
    try:
        request = WebhookRequest.of_json({**message, "edition": EDITION})
        answer = await engine.resume_webhook(target, request, timeout=timeout, resume_id=said_once)
    except IdempotencyConflictError:  # the same press, read otherwise since: what it said first is what it said
        return ActVerdict("received", RECEIVED, changed=False)
    except HookNotFoundError:
        return await _too_late(engine, target.hook.id, message)
    if answer.status_code == 504:
        view = await _glance(engine, target)
        if view is not None and not view.is_open and not _is_counted(view, message):
            return await _too_late(engine, target.hook.id, message)  # it lies behind the end, and will be told so
        return ActVerdict("received", RECEIVED, changed=True)
    said = json.loads(bytes(answer.body))
    return ActVerdict(said["verdict"], said["text"], changed=said["changed"])


async def _glance(engine: Engine, target: HookTarget) -> Request | None:
    """None: it can't be told in time how the request stands."""
    with suppress(TimeoutError, StoreUnavailableError):
        async with asyncio.timeout(GLANCE):
            return request_behind(await engine.find(target.hook.id))
    return None


def _is_counted(view: Request, message: Mapping[str, Any]) -> bool:
    """Whether this act is one of those that led to the end."""
    if message["kind"] != "vote":
        return view.outcome is not None and view.outcome.by == message["by"]
    mine = ((vote.by, vote.choice) for vote in view.votes if vote.stands)
    return (message["by"], message["choice"]) in mine


async def _too_late(engine: Engine, hook_id: str, message: dict[str, Any]) -> ActVerdict:
    view = request_behind(await engine.find(hook_id))
    if view is None:
        return ActVerdict("unknown", UNKNOWN, changed=False)
    return await refuse_late(
        engine,
        view,
        by=message["by"],
        what=message.get("choice", message["kind"]),
        via=message["via"],
    )


async def refuse_late(engine: Engine, view: Request, *, by: str, what: str, via: Via) -> ActVerdict:
    """Say how the request ended. The log of an ended run does not grow, so the audit takes the refused act."""
    verdict, text = late_verdict(view, by, what, engine.now())
    await engine.audit("act_refused", who=by, run_id=view.run_id, data={"act": what, "via": via, "verdict": verdict})
    return ActVerdict(verdict, text, changed=False)


def asks_herself(view: Request, address: str) -> bool:
    """Whether this person asked for it, or it is asked for her."""
    return address in (view.requester, view.on_behalf_of)
