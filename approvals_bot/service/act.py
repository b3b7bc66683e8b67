"""The one path by which a person's act reaches a request, from every channel.

The caller has identified the person (by Slack's signature, a signed link and its form token, an API key that may vote,
or a session). From here on, all channels are the same: the act becomes a message to the request's webhook, the
request's log orders it among all others, and the reply reads the same everywhere.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter, OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field, replace
from weakref import WeakKeyDictionary

from approvals_bot.approvals.acts import (
    REFUSALS,
    Act,
    Actor,
    ActorKind,
    Comment,
    Edit,
    Extend,
    Reassign,
    Remind,
    Reply,
    Revoke,
    Snooze,
    TakeOn,
    Vote,
    act_word,
    message_of,
    read_answer,
)
from approvals_bot.approvals.apply import late_reply
from approvals_bot.approvals.card_model import Via
from approvals_bot.approvals.request import Request, has_had
from approvals_bot.durable.core.events import Event
from approvals_bot.durable.core.hooks import WebhookRequest
from approvals_bot.durable.core.tracing import TRACEPARENT, link_to
from approvals_bot.durable.engine import Engine, HookTarget, KeptPayload, SentKey
from approvals_bot.durable.store.audit import Owes
from approvals_bot.errors import HookFullError, HookNotFoundError, IdempotencyConflictError, StoreUnavailableError
from approvals_bot.people import AddressError, IdentityRules, People, SourceUnavailable, is_mail
from approvals_bot.service.audited import audit_refusal
from approvals_bot.service.files import attach, claim_files
from approvals_bot.service.known import KnownPeople
from approvals_bot.service.log_fields import note
from approvals_bot.service.owed_lines import line_of_act, write_line
from approvals_bot.service.read import request_behind
from approvals_bot.service.revocations import revoke_standing

ANSWER_LIMIT = 3.5  # seconds that a page waits for its verdict. Its answer takes at most 6 in all: a store lookup of up
# to 2 comes before, and a glance after. The Slack channel passes less, because Slack gives up at 3
GLANCE = 0.5  # seconds to see whether an act without a verdict came too late, or what an edit led to
LOOK_EVERY = 0.02  # seconds

WITHOUT_RULES = People(rules=IdentityRules("different"))

RECEIVED = Reply("received")
BUSY = Reply("busy")
PUT_BACK = Reply("request_changed", code="put_back")
"""What was shown isn't in the log: a backup was restored, or the run was reset."""
CROWDED = 300  # events of a run, from which on each person's acts are counted; few approvals have as many
MOST_ACTS = 100  # of one person on one request in such a run
MOST_WAITING = 20  # of one person while the run has stalled: its hook keeps 100 altogether
COUNTED = 1_000  # requests whose counts a process keeps


@dataclass(frozen=True, slots=True)
class SentAct:
    """An act that is in its request's log. Its reply may still have to come from the run."""

    engine: Engine
    target: HookTarget
    act: Act
    kept: KeptPayload
    owed: Owes | None = None  # the audit's line of it; None for a repeat, which the audit has

    @property
    def is_repeat(self) -> bool:
        """Whether the log had this press already."""
        return self.owed is None

    async def reply(self, timeout: float) -> Reply:
        """Return the reply; `received` if it hasn't come within `timeout` seconds."""
        engine, target, act = self.engine, self.target, self.act
        answer = await engine.answer_to(self.kept, timeout)
        if answer.status_code == 504:
            shown = await _glance(engine, target)
            is_late = shown is not None and not shown.is_open and not isinstance(act, Revoke | Extend)
            if shown is not None and is_late and not _is_counted(shown, act):
                reply = late_reply(shown, act, engine.now())  # its message comes after the end in the log
                await self._write_line(reply, "act_refused")
                return reply
            reply = received(shown, act)
            await self._write_line(reply)
            return reply
        reply = read_answer(bytes(answer.body))
        await self._write_line(reply)
        if isinstance(act, Edit) and reply.changed:
            await _until_reopened(engine, target)
        return reply

    async def _write_line(self, reply: Reply, what: str | None = None) -> None:
        """Write what became of the act into the audit. If the store is away, that happens later."""
        if self.owed is not None:
            with suppress(StoreUnavailableError):
                await write_line(self.engine, self.owed, what, verdict=reply.verdict)


async def perform(
    engine: Engine,
    request: Request | HookTarget | str,
    act: Act,
    *,
    timeout: float = ANSWER_LIMIT,
    press: str | None = None,
    shown: str | None = None,
    state: str | None = None,
) -> Reply:
    """Perform an act on the request, and return the reply. The act is durable before this returns, even as `received`.

    `request`: the request itself, its hook as the engine just found it, or the hook's id. `press`: a name for this
    press, if its channel may deliver it twice, perhaps to different replicas. `shown`, `state`: as in `send_act`.
    An act after the end changes nothing: the reply says how the request ended, and the audit records the act.
    """
    until = asyncio.get_running_loop().time() + timeout
    sent = await send_act(engine, request, act, press=press, shown=shown, state=state)
    return sent if isinstance(sent, Reply) else await sent.reply(until - asyncio.get_running_loop().time())


async def send_act(
    engine: Engine,
    request: Request | HookTarget | str,
    act: Act,
    *,
    press: str | None = None,
    shown: str | None = None,
    state: str | None = None,
) -> SentAct | Reply:
    """Perform an act, and return once it is durable, without waiting for the request's reply.

    `shown`: the text that the person saw where they acted, if that isn't the whole card; "" if that isn't known.
    `state`: the mark of the state that the page or card showed (`approvals/request.py`); None if it showed none.
    Returns a Reply if none is to come: the act changed nothing, or was repeated. Raises IdempotencyConflictError if
    `press` is a SentKey that came with something else before.
    """
    known = _with_identities(engine, act)
    if isinstance(known, Reply):
        return known
    act = with_actor(known)
    if isinstance(act, Revoke) and isinstance(request, Request) and request.standing is not None:
        reply = await revoke_standing(engine, request, request.standing, act)
        if reply.verdict in REFUSALS or request.grant is None or request.grant.is_over:
            return reply
    if isinstance(request, Request) and not request.hook_id:  # a rule decided before any stage opened
        return await _refuse_late(engine, request, act)
    hook_id = request.hook.id if isinstance(request, HookTarget) else _hook_of(request)
    target = request if isinstance(request, HookTarget) else await engine.find(hook_id)
    if target is None:
        is_lost = state is not None and await engine.store.stub(hook_id=hook_id) is None
        return PUT_BACK if is_lost else Reply("unknown")
    note(run_id=target.record.id, workflow=target.record.workflow)
    if (trace := target.record.attributes.get(TRACEPARENT)) is not None:
        link_to(trace)
    seen = request_behind(target)
    act = _as_voted_before(engine, seen, act)
    if (refusal := await _refuse(engine, target, seen, act, state)) is not None:
        return refusal
    if await has_had_their_share(engine, target, act.by):
        return BUSY
    if isinstance(act, Edit) and seen is not None and seen.files:
        with_files = await _with_files(engine, seen, act)
        if isinstance(with_files, Reply):
            return with_files
        act = with_files
    try:
        message = WebhookRequest.of_json(message_of(act))
        owed = None if seen is None else line_of_act(engine, act, seen, shown)
        kept = await engine.send_to_webhook(target, message, resume_id=press, owes=owed)
        is_repeat = kept.hook.run_id == target.record.id and kept.events[0].seq <= target.record.seq
        return SentAct(engine, target, act, kept, None if is_repeat else owed)
    except IdempotencyConflictError:
        if isinstance(press, SentKey):
            raise  # a program has used its key for something else
        return RECEIVED  # the same press with another message, perhaps after a reload: the first one counts
    except HookFullError:
        return BUSY
    except HookNotFoundError:
        return await _too_late(engine, target.hook.id, act)


async def _refuse(
    engine: Engine, target: HookTarget, request: Request | None, act: Act, state: str | None
) -> Reply | None:
    """Refuse people whom nobody knows any more, and presses in Slack or a chat where a sign-in is needed.

    Also those on what the request has never been: it was put back since. The audit records each refusal.

    Slack itself knows those who press there: they are identified by its signature, and members of the workspace. That
    isn't enough for those whom the identity provider has deactivated.
    """
    refusal = None
    if act.via in ("slack", "chat") and request is not None and request.is_open and request.link_auth == "login":
        refusal = Reply("not_an_approver", code="sign_in_needed", params={"page": _page_of(engine, request)})
    elif (known := engine.resources.get(KnownPeople)) is not None and is_mail(act.by):
        try:
            by_slack = act.via == "slack" and not known.has_left(act.by)
            if not by_slack and not await known.may_act(act.by, target.record.workflow):
                refusal = Reply("not_an_approver", code="left")
        except SourceUnavailable:
            refusal = Reply("group_unknown", code="rank_unknown")
    is_put_back = state is not None and request is not None and request.is_open and not has_had(request, state)
    if refusal is None and is_put_back:
        refusal = PUT_BACK
    if refusal is not None:
        data = {"act": act_word(act), "via": act.via, "verdict": refusal.verdict, "because": refusal.code}
        await audit_refusal(engine, "act_refused", who=act.by, run_id=target.record.id, actor=actor_of(act), data=data)
    return refusal


async def _with_files(engine: Engine, view: Request, edit: Edit) -> Edit | Reply:
    """Return the edit with files in the place of their ids. Its app has uploaded them."""
    owner = edit.actor.id if edit.actor is not None and edit.actor.kind == "app" else edit.by
    attached = await attach(engine, view.files, edit.fields, owner)
    rejections = attached.rejections or await claim_files(engine, attached)
    if rejections:
        return Reply("invalid", rejections=rejections)
    return replace(edit, fields={**attached.fields})


def _page_of(engine: Engine, request: Request) -> str:
    return f"{engine.base_url}/requests/{request.id}"


KINDS: dict[Via, ActorKind] = {"slack": "slack", "email": "mail", "api": "app", "cli": "cli"}


def with_actor(act: Act) -> Act:
    """Return the act with its actor: the person it is by, unless its channel has named another."""
    return act if act.actor is not None else replace(act, actor=Actor(KINDS.get(act.via, "person"), act.by))


def actor_of(act: Act) -> dict[str, str]:
    """Return who acts, as the audit has it."""
    actor = with_actor(act).actor
    assert actor is not None, "with_actor() has named one"
    return actor.as_json()


def _with_identities(engine: Engine, act: Act) -> Act | Reply:
    """Return the act with the identity of each person in it, however their address was spelled.

    A message in a log has identities: what the configuration says of addresses may change before it is replayed.
    """
    people: People = engine.resources.get(People, WITHOUT_RULES)
    act = replace(act, by=people.identity(act.by))
    if not isinstance(act, Reassign):
        return act
    try:
        person = people.canonical(act.person.strip())
    except AddressError as error:
        if error.is_shapeless:
            return Reply("invalid", code="no_person")
        return Reply("invalid", code="address_refused", params={"why": str(error)})
    instead_of = act.instead_of and people.identity(act.instead_of.strip())
    return replace(act, person=person, instead_of=instead_of)


def _as_voted_before(engine: Engine, view: Request | None, act: Act) -> Act:
    """Return the act by the address under which this person has already voted on the request.

    `[identity]` may have made one person of two addresses since, and they must not vote twice.
    """
    voters = [] if view is None else [vote.by for vote in view.votes if vote.counts]
    if not voters or act.by in voters:
        return act
    people: People = engine.resources.get(People, WITHOUT_RULES)
    return next((replace(act, by=voter) for voter in voters if people.identity(voter) == act.by), act)


def _hook_of(request: Request | str) -> str:
    return request.hook_id if isinstance(request, Request) else request


async def _glance(engine: Engine, target: HookTarget) -> Request | None:
    """Return the request's current state; None if the store doesn't answer in time."""
    with suppress(TimeoutError, StoreUnavailableError):
        async with asyncio.timeout(GLANCE):
            return request_behind(await engine.find(target.hook.id))
    return None


async def _until_reopened(engine: Engine, target: HookTarget) -> None:
    """Wait briefly until the stage that an edit has reset is open again, with its new deadline."""
    with suppress(TimeoutError, StoreUnavailableError):
        async with asyncio.timeout(GLANCE):
            while (shown := request_behind(await engine.find(target.hook.id))) and shown.is_open and shown.is_reset:
                await engine.wait(target.record.id, LOOK_EVERY)


def _is_counted(request: Request, act: Act) -> bool:
    """Return whether this act is among those that led to the end."""
    if isinstance(act, Comment):
        return (act.by, act.text.strip()) in ((made.act.by, made.act.text) for made in request.comments)
    if not isinstance(act, Vote):
        return request.outcome is not None and request.outcome.by == act.by
    return (act.by, act.choice) in ((vote.by, vote.choice) for vote in request.votes if vote.counts)


async def _too_late(engine: Engine, hook_id: str, act: Act) -> Reply:
    request = request_behind(await engine.find(hook_id))
    return Reply("unknown") if request is None else await _refuse_late(engine, request, act)


async def _refuse_late(engine: Engine, request: Request, act: Act) -> Reply:
    """Reply how the request ended. An ended run's log no longer grows, so the audit records the refused act."""
    reply = late_reply(request, act, engine.now())
    data = {"act": act_word(act), "via": act.via, "verdict": reply.verdict}
    await audit_refusal(engine, "act_refused", who=act.by, actor=actor_of(act), run_id=request.run_id, data=data)
    return reply


def received(request: Request | None, act: Act) -> Reply:
    """Reply that an act is saved and hasn't taken effect yet. If its run has stalled, it will once that is fixed."""
    if request is None or not request.is_stalled:
        return Reply("received", True, "done_soon" if isinstance(act, Comment | TakeOn | Remind | Snooze) else "")
    return Reply("received", True, "vote_kept" if isinstance(act, Vote) else "act_kept")


def is_requester(view: Request, address: str) -> bool:
    """Return whether this person requested it, or it was requested for them. Nobody owns the review of an emergency."""
    return address in (view.requester, view.on_behalf_of) and not view.reviews


# One person's acts on one request, limited where they would leave no room for those of others.


@dataclass(slots=True)
class ActCounts:
    """How often each person has acted on a request, up to an event of its log."""

    seq: int = 0
    by: Counter[str] = field(default_factory=Counter)


_counts: WeakKeyDictionary[Engine, OrderedDict[str, ActCounts]] = WeakKeyDictionary()


async def has_had_their_share(engine: Engine, target: HookTarget, address: str) -> bool:
    """Return whether one more act of this person would be taken from the others."""
    is_stalled = target.record.status == "stalled"
    if not is_stalled and target.record.seq <= CROWDED:
        return False
    kept = _counts.setdefault(engine, OrderedDict())
    counts = kept.pop(target.hook.id, None) or ActCounts()
    kept[target.hook.id] = counts
    if len(kept) > COUNTED:
        kept.popitem(last=False)
    found = await engine.store.read(target.record.id, counts.seq)
    for event in [] if found is None else found[1]:
        if event.seq > counts.seq:  # another call may have counted it meanwhile
            counts.seq = event.seq
            if event.type == "hook_received" and event.data["id"] == target.hook.number:
                counts.by[_actor(event)] += 1
    return counts.by[address] >= (MOST_WAITING if is_stalled else MOST_ACTS)


def _actor(event: Event) -> str:
    try:
        return str(json.loads(event.data["payload"]["text"])["by"])
    except (ValueError, LookupError, TypeError):
        return ""
