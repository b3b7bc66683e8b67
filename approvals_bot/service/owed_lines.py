"""The audit's lines of acts: owed from the act on, written once it is known what became of it.

What a line says is stored with the act, in one transaction (`owed_lines` in the store). The process that has performed
the act replaces it by the line. If it dies before, or the store goes away, another one completes the line from the
run's log. Either way there is one line for each act.
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta
from typing import Any

from approvals_bot.approvals import card_text
from approvals_bot.approvals.acts import Act, Actor, Extend, Revoke, Stop, Vote, act_word, read_answer
from approvals_bot.approvals.card import card_of
from approvals_bot.approvals.request import Request
from approvals_bot.durable.engine import Engine
from approvals_bot.durable.engine.http import response_of
from approvals_bot.durable.store.audit import AuditEntry, AuditFilter, OwedLine, Owes

ACTED, SHOWN = "acted", "text_shown"
"""Lines of the audit: an act that came into its request's log, and the text that a voter saw."""

MOST_SHOWN = 100  # texts of one run that are looked through; each edit makes another
AT_ONCE = 100  # owed lines that are completed in one go
PATIENCE = timedelta(minutes=1)  # how long an act's verdict may take until its line is written without


def line_of_act(engine: Engine, act: Act, seen: Request, shown: str | None = None) -> Owes:
    """Return the line that an act on this request owes. `seen` is the request as it was right before.

    `shown`: the text that a voter saw, "" if nobody knows; None: what is pinned, and the rest of the card as it is now.
    """
    data: dict[str, Any] = {"act": act_word(act), "via": act.via, "request_id": seen.id}
    text = None
    if isinstance(act, Stop | Revoke | Extend) and act.reason:
        data["reason"] = act.reason
    if isinstance(act, Vote):
        data |= {"choice": act.choice} | ({"digest": act.digest} if act.digest else {})
        if shown is not None:
            text = shown
        elif act.digest in (None, seen.digest):
            text = card_text.whole(card_of(seen, None, engine.now()))
        if text:
            data["shown"] = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return _owes(ACTED, act.by, act.actor, seen.run_id, data, text or None)


def line_of_operator(what: str, who: str, actor: Actor, run_id: str, data: dict[str, Any]) -> Owes:
    """Return the line that an operator's act on this run owes. It is completed with the run that goes on."""
    return _owes(what, who, actor, run_id, data)


def line_of_start(what: str, who: str, actor: dict[str, str], data: dict[str, Any]) -> Owes:
    """Return the line that the start of a run owes. Which run that is, is known once it is stored."""
    return Owes(secrets.token_hex(8), {"what": what, "who": who, "actor": actor, "run_id": "", "data": data})


def _owes(what: str, who: str, actor: Actor | None, run_id: str, data: dict[str, Any], text: str | None = None) -> Owes:
    named = {"what": what, "who": who, "actor": None if actor is None else actor.as_json(), "run_id": run_id}
    return Owes(secrets.token_hex(8), named | {"data": data} | ({} if text is None else {"text": text}))


async def write_line(
    engine: Engine, owed: Owes | OwedLine, what: str | None = None, *, run_id: str = "", **became: Any
) -> bool:
    """Write the line of an act, with what became of it. The text that was shown is written once for each run.

    `what`: the line's kind, if it isn't the one that was expected. `run_id`: of the run that was started. Returns False
    if nobody owes it, or not any more.
    """
    about = owed.about
    data = about["data"] | became
    run_id = about["run_id"] or run_id
    entries = [AuditEntry(what or about["what"], about["who"], run_id, data, about["actor"])]
    if "text" in about:
        known = await engine.audit_lines(AuditFilter(run_id=run_id, what=SHOWN, limit=MOST_SHOWN))
        if data["shown"] not in [line.entry.data.get("sha256") for line in known]:
            text = {"sha256": data["shown"], "text": about["text"]}
            entries.insert(0, AuditEntry(SHOWN, None, run_id, text))
    return await engine.settle_line(owed.id, entries)


async def complete_lines(engine: Engine) -> int:
    """Write the lines that processes owed which have died. Returns how many.

    A line whose act has no verdict yet has a minute left: the process that performed it may be waiting for that.
    """
    written = 0
    for owed in await engine.store.owed_lines(AT_ONCE):
        became = await _became(engine, owed)
        if became is not None:
            await write_line(engine, owed, run_id=owed.run_id, **became)
            written += 1
    return written


async def _became(engine: Engine, owed: OwedLine) -> dict[str, Any] | None:
    """Return what became of an act, as its log says. None: nothing yet, and there is time."""
    match owed.about.get("what"):
        case "acted":
            verdict = await _verdict(engine, owed)
            if verdict is None and engine.now() < owed.at + PATIENCE:
                return None
            return {"verdict": verdict or "received"}
        case "run_reset" | "run_attempted" | "run_retried":
            return {"next_run": owed.run_id}
        case _:
            return {}


async def _verdict(engine: Engine, owed: OwedLine) -> str | None:
    found = await engine.store.read(owed.run_id, after=owed.seq, patient=True)
    for event in () if found is None else found[1]:
        if event.type == "hook_responded" and event.data["to"] == owed.seq:
            return read_answer(bytes(response_of(event.data["answer"]).body)).verdict
    return None
