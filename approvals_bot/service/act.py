"""The one way in which a person's act reaches a request, from every channel.

The caller has established who the person is (Slack's signature, a signed link and its form token, an API key that may
vote, a session). From here on all ways are the same: the act becomes one message to the request's webhook, the
request's own log orders it among all others, and the reply is the same everywhere.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from approvals_bot.approvals.acts import Act, Edit, Reply, Vote, act_word, message_of, read_answer
from approvals_bot.approvals.apply import late_reply
from approvals_bot.approvals.request import Request
from approvals_bot.durable.core.hooks import WebhookRequest
from approvals_bot.durable.engine import Engine, HookTarget
from approvals_bot.errors import HookNotFoundError, IdempotencyConflictError, StoreUnavailableError
from approvals_bot.service.read import request_behind

ANSWER_LIMIT = 3.5  # seconds; a page waits this long for its verdict, and all of its answer takes at most 6: a look
# into the store, which takes up to 2, comes before, and a glance after. Slack's room passes less: it drops clicks at 3
GLANCE = 0.5  # seconds to see whether an act without a verdict came too late, or what an edit has led to
LOOK_EVERY = 0.02  # seconds

RECEIVED = Reply("received")


async def perform(
    engine: Engine,
    request: Request | HookTarget | str,
    act: Act,
    *,
    timeout: float = ANSWER_LIMIT,
    press: str | None = None,
) -> Reply:
    """Do this to the request, and say what became of it. The act is durable before this returns, even as `received`.

    `request`: as it is shown, its hook as the engine has just found it, or its hook's id. `press`: a name of the very
    press that this is, where its channel may bring it twice, to whichever replica. An act that comes after the end
    changes nothing: the reply says how the request ended, and the audit keeps that it came.
    """
    if isinstance(request, Request) and not request.hook_id:  # a rule decided before anybody was asked
        return await _refuse_late(engine, request, act)
    target = request if isinstance(request, HookTarget) else await engine.find(_hook_of(request))
    if target is None:
        return Reply("unknown")
    try:
        message = WebhookRequest.of_json(message_of(act))
        answer = await engine.resume_webhook(target, message, timeout=timeout, resume_id=press)
    except IdempotencyConflictError:  # the same press, read otherwise since: what it said first is what it said
        return RECEIVED
    except HookNotFoundError:
        return await _too_late(engine, target.hook.id, act)
    if answer.status_code == 504:
        shown = await _glance(engine, target)
        if shown is not None and not shown.is_open and not _is_counted(shown, act):
            return await _too_late(engine, target.hook.id, act)  # it lies behind the end, and will be told so
        return Reply("received", changed=True)
    reply = read_answer(bytes(answer.body))
    if isinstance(act, Edit) and reply.changed:
        await _until_reopened(engine, target)
    return reply


def _hook_of(request: Request | str) -> str:
    return request.hook_id if isinstance(request, Request) else request


async def _glance(engine: Engine, target: HookTarget) -> Request | None:
    """None: it can't be told in time how the request stands."""
    with suppress(TimeoutError, StoreUnavailableError):
        async with asyncio.timeout(GLANCE):
            return request_behind(await engine.find(target.hook.id))
    return None


async def _until_reopened(engine: Engine, target: HookTarget) -> None:
    """Wait, if only for a glance, until the stage that an edit has reset is open again, with its new deadline."""
    with suppress(TimeoutError, StoreUnavailableError):
        async with asyncio.timeout(GLANCE):
            while (shown := request_behind(await engine.find(target.hook.id))) and shown.is_open and shown.is_reset:
                await engine.wait(target.record.id, LOOK_EVERY)


def _is_counted(request: Request, act: Act) -> bool:
    """Whether this act is one of those that led to the end."""
    if not isinstance(act, Vote):
        return request.outcome is not None and request.outcome.by == act.by
    return (act.by, act.choice) in ((vote.by, vote.choice) for vote in request.votes if vote.counts)


async def _too_late(engine: Engine, hook_id: str, act: Act) -> Reply:
    request = request_behind(await engine.find(hook_id))
    return Reply("unknown") if request is None else await _refuse_late(engine, request, act)


async def _refuse_late(engine: Engine, request: Request, act: Act) -> Reply:
    """Say how the request ended. The log of an ended run does not grow, so the audit takes the refused act."""
    reply = late_reply(request, act, engine.now())
    data = {"act": act_word(act), "via": act.via, "verdict": reply.verdict}
    await engine.audit("act_refused", who=act.by, run_id=request.run_id, data=data)
    return reply


def asks_herself(view: Request, address: str) -> bool:
    """Whether this person asked for it, or it is asked for her."""
    return address in (view.requester, view.on_behalf_of)
