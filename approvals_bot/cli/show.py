"""What the commands print: the same card as everywhere, in the same order; colour only on a terminal."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import typer
from pydantic import ValidationError

from approvals_bot.approvals.card import card_of
from approvals_bot.approvals.request import RequestView, api_request
from approvals_bot.channels import NOT_DELIVERED, STATE_WORDS, Card
from approvals_bot.core.events import Event
from approvals_bot.engine import RunRecord
from approvals_bot.web.problems import Problem
from approvals_bot.web.story import tell

STATUSES = ("pending", "running", "completed", "failed", "cancelled", "stalled")


def quiet_logs() -> None:
    """Warnings and errors of ours, on standard error, without the libraries' chatter (which may name paths and
    people).
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    for noisy in ("slack_bolt", "slack_sdk", "aiohttp", "uvicorn.error", "mail.log"):
        logging.getLogger(noisy).setLevel(logging.ERROR)


def say(value: Any, text: str, as_json: bool) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str) if as_json else text)


def record_json(record: RunRecord) -> dict[str, Any]:
    """A run as the API has it."""
    view = request_view(record)
    return {
        "id": record.id,
        "workflow": record.workflow,
        "status": record.status,
        "result": record.result,
        "error": record.error,
        "created_at": record.created_at.isoformat(),
        "request": None if view is None else api_request(view),
    }


def run_json(record: RunRecord, events: Sequence[Event]) -> dict[str, Any]:
    from approvals_bot.web.redact import redact

    lines = [{"seq": e.seq, "type": e.type, "at": e.at.isoformat(), "data": redact(e.data)} for e in events]
    return record_json(record) | {"events": lines}


def request_view(record: RunRecord) -> RequestView | None:
    """The request that a run is, None for other workflows."""
    try:
        return RequestView.model_validate(record.view) if record.view is not None else None
    except ValidationError:
        return None


def table(records: Sequence[RunRecord]) -> str:
    if not records:
        return "No runs."
    rows = [("RUN", "WORKFLOW", "STATUS", "OPENED", "WHAT")]
    for record in records:
        view = request_view(record)
        what = ""
        if view is not None:
            icon, word = STATE_WORDS[view.state]
            what = f"{icon} {word}: {view.title}"
        rows.append((record.id, record.workflow, record.status, f"{record.created_at:%Y-%m-%d %H:%M}", what))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]).rstrip()
        for row in rows
    )


def story(record: RunRecord, events: Sequence[Event], now: datetime) -> str:
    """The card, if the run is a request, then what happened."""
    view = request_view(record)
    lines = card_lines(card_of(view, None, now)) if view is not None else [f"{record.workflow}: {record.status}"]
    if record.stalled:
        lines.append(f"⚠ Stalled: {record.stalled}")
    if record.error:
        lines.append(f"{record.error['type']}: {record.error['message']}")
    lines += ["", "What happened:"]
    lines += [f"  {m.at:%Y-%m-%d %H:%M:%S}  {m.text}" for m in tell(events).moments]
    return "\n".join(lines)


def card_lines(card: Card) -> list[str]:
    """The card for a terminal, in the order in which it is shown everywhere."""
    icon, word = STATE_WORDS[card.state]
    lines = [typer.style(f"{icon} {word}  {card.title}", bold=True)]
    asked = f"asked by {card.requester.text}"
    if card.on_behalf_of is not None:
        asked += f" for {card.on_behalf_of.text}"
    lines.append(f"{asked}, {card.asked_at:%Y-%m-%d %H:%M} UTC")
    for field in card.fields:
        mark = " (pinned)" if field.pinned else ""
        lines.append(f"  {field.label}{mark}: {field.value}")
    lines += [
        f"  {vote.by.text}: {vote.choice} by {vote.via}, {vote.at:%H:%M}"
        + (f" — {vote.comment}" if vote.comment else "")
        for vote in card.votes
        if vote.stands
    ]
    if card.outcome is not None:
        ended = f"{word} by {card.outcome.by.text}, {card.outcome.at:%Y-%m-%d %H:%M} UTC, by {card.outcome.via}"
        lines.append(ended + (f": {card.outcome.comment}" if card.outcome.comment else ""))
    elif card.need:
        waiting = ", ".join(name.text for name in card.waiting_for)
        lines.append(f"{card.have} of {card.need}" + (f", waiting for {waiting}" if waiting else ""))
    if card.deadline is not None and card.outcome is None:
        lines.append(f"until {card.deadline:%Y-%m-%d %H:%M} UTC, {card.on_deadline}".rstrip(", "))
    lines += [
        f"{NOT_DELIVERED[0]} {NOT_DELIVERED[1]} to {d.to}: {d.error}"
        for d in card.deliveries
        if d.state == "not_delivered"
    ]
    if card.digest:
        lines.append(f"digest {card.digest}")
    return lines


def problem_text(problem: Problem) -> str:
    errors = [f"  {_place(error)}: {error['msg']}" for error in problem.errors]
    return "\n".join([f"{problem.title}. {problem.detail}".strip(), *errors])


def _place(error: Mapping[str, Any]) -> str:
    return ".".join(str(part) for part in error["loc"])
