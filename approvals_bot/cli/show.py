"""The commands' output: the same card as in every channel, in the same order; bold only on a terminal."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any, get_args

from approvals_bot.approvals import card_text
from approvals_bot.approvals.card import card_of
from approvals_bot.approvals.card_model import STALLED, STATE_WORDS, Card, CardField
from approvals_bot.approvals.plain_text import clean, clip_value, one_line
from approvals_bot.approvals.request import Request, plain_name
from approvals_bot.cli.terminal import bold
from approvals_bot.durable.core.events import Event
from approvals_bot.durable.core.serialization import without_tags
from approvals_bot.durable.engine import Page, RunRecord
from approvals_bot.durable.engine.near_limits import near_limits
from approvals_bot.durable.store.protocol import MAX_UNREAD, Status
from approvals_bot.service.history import failure_of, history_of
from approvals_bot.service.read import api_request, iso, redact, request_of, requests_of
from approvals_bot.service.waiting import Wait

STATUSES: tuple[str, ...] = get_args(Status)
Link = Callable[[str], str]
"""Makes a webhook's URL from its hook's id."""

ZONE = "UTC"  # on a terminal, because output that is pasted into a ticket must mean the same to its readers
WIDEST = 96  # columns of a paragraph


def columns(rows: Sequence[Sequence[str]], indent: str = "") -> list[str]:
    """Align rows in columns; the last column may have any width."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]) - 1)] if rows else []
    return [
        indent + "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in rows
    ]


def record_json(record: RunRecord) -> dict[str, Any]:
    """Return a run as JSON, as in the API."""
    request = request_of(record)
    several = [one for one in requests_of(record) if one.number]
    return {
        "id": record.id,
        "workflow": record.workflow,
        "status": record.status,
        "result": without_tags(record.result),
        "error": record.error,
        "stalled": record.stalled,
        "created_at": iso(record.created_at),
        "request": None if request is None else api_request(request),
        **({"next_run": record.next_run} if record.next_run else {}),
    } | ({"requests": [{"id": one.id} | api_request(one) for one in several]} if several else {})


def run_json(record: RunRecord, waits: Sequence[Wait], events: Sequence[Event], link: Link) -> dict[str, Any]:
    """Return a run as JSON, with what it published and waits for, and its log."""
    lines = [{"seq": e.seq, "type": e.type, "at": iso(e.at), "data": redact(e.data)} for e in events]
    waiting = [wait.as_json(link) for wait in waits]
    return record_json(record) | {"view": without_tags(record.view), "waiting": waiting, "events": lines}


def table(page: Page) -> str:
    if not page.records:
        return "No runs."
    rows = [("RUN", "WORKFLOW", "STATUS", "OPENED (UTC)", "WHAT"), *map(_row, page.records)]
    header, *lines = columns(rows)
    more = [f"More with --cursor {page.cursor}"] if page.cursor else []
    return "\n".join([bold(header), *lines, *more])


def _row(record: RunRecord) -> tuple[str, ...]:
    request = request_of(record)
    what = ""
    if record.next_run:
        what = f"goes on as {record.next_run}"
    elif request is not None:
        words = STALLED if request.is_stalled else STATE_WORDS[request.state]
        what = f"{' '.join(words)}: {one_line(request.title, 80)}"
    elif record.begins_at is not None:
        what = f"begins {record.begins_at:%Y-%m-%d %H:%M}"
    elif record.stalled:
        what = f"⚠ Stalled: {one_line(record.stalled, 80)}"
    elif record.error is not None:
        what = one_line(record.error["message"] or record.error["type"], 80)
    return (record.id, record.workflow, record.status, f"{record.created_at:%Y-%m-%d %H:%M}", what)


def history_text(
    record: RunRecord,
    waits: Sequence[Wait],
    events: Sequence[Event],
    link: Link,
    now: datetime,
    *,
    max_waiting: int = MAX_UNREAD,
) -> str:
    """Return the card, if the run is a request, and the timeline."""
    request = request_of(record)
    lines = [*_program(record), *_published(record), *_calls(waits, link)] if request is None or request.number else []
    for one in requests_of(record):
        lines += ["", bold(one.id)] if one.number else []
        lines += card_lines(card_of(one, None, now), now)
    if record.stalled:
        lines += ["", f"⚠ Stalled: {clean(record.stalled)}"]
    lines += [f"⚠ Near a limit: {use}" for use in near_limits(record, max_waiting)]
    if (failure := failure_of(events)) is not None:
        lines += ["", f"⚠ {clean(str(failure))}"]
    if record.next_run:
        how = "continued" if record.status == "continued" else "was reset"
        lines += ["", f"It {how}: run {record.next_run} goes on in its place."]
    lines += ["", bold("Timeline (UTC)")]
    day = ""
    for entry in history_of(events, requests={one.hook_id: one.title for one in requests_of(record)}).entries:
        if f"{entry.at:%a %d %b %Y}" != day:
            day = f"{entry.at:%a %d %b %Y}"
            lines.append(f"  {day}")
        lines.append(f"    {entry.at:%H:%M:%S}  {entry.text}")
        if entry.detail:
            lines.append(f"              {one_line(entry.detail, WIDEST)}")
    return "\n".join(lines)


def _program(record: RunRecord) -> list[str]:
    lines = [bold(f"{record.workflow}: {record.status}"), f"Opened {card_text.moment(record.created_at, ZONE)}"]
    if record.parent is not None:
        lines.append(f"Child of run {record.parent.run_id}")
    if record.begins_at is not None:
        lines.append(f"Begins {card_text.moment(record.begins_at, ZONE)}")
    if record.result is not None:
        lines.append(f"Result: {one_line(json.dumps(redact(without_tags(record.result)), ensure_ascii=False), 200)}")
    return lines


def _published(record: RunRecord) -> list[str]:
    if record.view is None:
        return []
    return [
        "Published:",
        *(
            f"  {line}"
            for line in clean(json.dumps(without_tags(record.view), indent=2, ensure_ascii=False)).splitlines()
        ),
    ]


def _calls(waits: Sequence[Wait], link: Link) -> list[str]:
    """List the hooks and webhooks that take payloads, each with what resumes it."""
    children = [f"Waiting for child {w.more['workflow']}: run {w.more['run_id']}" for w in waits if w.kind == "child"]
    lines = [f"Waiting for a place: {wait.in_words}" for wait in waits if wait.kind == "limit"]
    return [*children, *lines] + [
        f"Waiting for a {wait.kind}: {link(wait.hook_id) if wait.kind == 'webhook' else one_line(wait.token)}"
        for wait in waits
        if wait.token
    ]


def card_lines(card: Card, now: datetime) -> list[str]:
    """Return the card for a terminal, in the same order as in every channel."""
    lines = [bold(f"{card_text.state(card)} · {one_line(card.title)}")]
    lines.append(f"{card_text.asked_by(card)}, {card_text.moment(card.asked_at, ZONE)}")
    lines += [text] if (text := card_text.by_model(card)) else []
    if card.instructions:
        lines += ["", *(f"  {line}" for line in clean(card.instructions).splitlines())]
    if card.fields:
        lines += ["", *_fields(card.fields)]
    lines += ["", *_progress(card)]
    if card.deadline is not None:
        then = f", {card.on_deadline}" if card.on_deadline else ""
        lines.append(f"Due {card_text.moment(card.deadline, ZONE)}, {card_text.until(card.deadline, now)}{then}")
    lines += card_text.troubles(card)
    if card.digest:
        lines += ["", f"Digest {card.digest}"]
    return lines


def _fields(fields: Sequence[CardField]) -> Iterator[str]:
    width = max(len(field.label) for field in fields)
    for field in fields:
        is_quoted = field.untrusted and field.value and field.kind not in ("json", "code")
        text = f"“{field.value}”" if is_quoted else field.value
        first, *rest = clean(text).splitlines() or [""]
        mark = "  (pinned)" if field.pinned else ""
        was = (
            f"  (was {clip_value(one_line(field.was), 40, is_signed=field.pinned)})"
            if field.was is not None and field.is_short
            else ""
        )
        yield f"  {field.label.ljust(width)}  {first}{mark}{was}".rstrip()
        yield from (f"  {' ' * width}  {line}".rstrip() for line in rest)


def _progress(card: Card) -> Iterator[str]:
    """Yield the stages, the votes and the outcome."""
    if row := card_text.steps(card):
        yield row
    for stage in card.stages:
        if stage.state == "open":
            yield from card_text.seats(stage)
        elif stage.state == "skipped":
            yield f"{stage.title} was skipped because {stage.because}."
    for vote in card.votes:
        yield f"{card_text.vote(vote)}, {card_text.moment(vote.at, ZONE)}"
        if vote.comment:
            yield f"  “{one_line(vote.comment)}”"
    yield from map(one_line, card_text.notes(card))
    for made in card.comments:
        yield f"{card_text.comment(made)}, {card_text.moment(made.at, ZONE)}"
        yield f"  “{one_line(made.comment)}”"
    if claimed := card_text.claimed(card):
        yield one_line(claimed)
    if card.outcome is not None:
        yield f"{card_text.outcome(card.outcome)}, {card_text.moment(card.outcome.at, ZONE)}"
        if card.outcome.because:
            yield f"  {one_line(card.outcome.because)}"
        if card.grant is not None:
            at = f" {card_text.moment(card.grant.at, ZONE)}" if card.grant.at is not None else ""
            yield f"{one_line(card_text.grant(card.grant))}{at}"
    elif waiting := card_text.waiting_for(card):
        yield f"{card_text.progress(card)}. {waiting}."


def explained(record: RunRecord, request: Request, found: Mapping[str, Any], now: datetime) -> str:
    """Explain what this request is waiting for."""
    card = card_of(request, None, now)
    lines = [bold(f"{card_text.state(card)} · {one_line(card.title)}")]
    if record.stalled:
        lines += [f"⚠ Stalled: {one_line(record.stalled)}"]
    if card.outcome is not None:
        lines.append(f"It isn't waiting for anybody: {card_text.outcome(card.outcome)}.")
    if found["waiting_for"]:
        rows = [(_named(request, each["person"]), each["stage"], each["why"]) for each in found["waiting_for"]]
        lines += ["", bold("Waiting for"), *columns(rows, "  ")]
    if found["reached"]:
        rows = [(_named(request, each["person"]), each["channel"], each["state"]) for each in found["reached"]]
        lines += ["", bold("Their cards"), *columns([(*row[:2], row[2].replace("_", " ")) for row in rows], "  ")]
    if found["stages"]:
        lines += ["", bold("Stages"), *(f"  {line}" for stage in found["stages"] for line in _explained_stage(stage))]
    if request.unresolved:
        lines += ["", bold("Waiting for groups that can't be read"), *(f"  {fault}" for fault in request.unresolved)]
    if found["rules"]:
        lines += ["", bold("Rules and their results")]
        for rule in found["rules"]:
            lines += _rule(rule)
    if found["next"]:
        lines += ["", bold("Next, if nobody decides"), *_times(found["next"], now)]
    return "\n".join(lines)


_MARKS = {"done": "✓", "open": "→", "ahead": "·", "skipped": "–"}


def _explained_stage(stage: Mapping[str, Any]) -> Iterator[str]:
    """Yield how far a stage is, who is asked instead of whom, and who can't decide there."""
    if stage["state"] == "skipped":
        yield f"– {one_line(stage['title'])}: skipped, because {one_line(stage['because'])}"
        return
    every = groupby(stage["seats"], key=lambda seat: seat.get("alternative"))
    seats = ("; ".join(f"{_so_far(seat)}, {one_line(seat['label'])}" for seat in each) for _, each in every)
    yield f"{_MARKS[stage['state']]} {one_line(stage['title'])}: {' or '.join(seats)}"
    for each in stage["delegates"]:
        yield f"    {each['person']} is asked instead of {each['instead_of']}"
    for each in stage["left_out"]:
        yield f"    {each['person']} can't decide: {each['why']}"


def _so_far(seat: Mapping[str, Any]) -> str:
    if seat["of"] is None:
        return f"needs {seat['need']}"
    of = f" of {seat['of']} people" if not seat["unread"] else ""
    return f"{seat['have']} of {seat['need']} votes{of and ','}{of}"


def explained_program(
    record: RunRecord, waits: Sequence[Wait], link: Link, now: datetime
) -> tuple[dict[str, Any], str]:
    """Explain what a run other than a request is waiting for, as JSON and as text."""
    upcoming = [{"at": wait.more["until"], "what": _ENDS[wait.kind]} for wait in waits if wait.kind in _ENDS]
    found = {"waiting_for": [], "unresolved": [], "rules": [], "next": upcoming}
    lines = [bold(f"{record.workflow}: {record.status}")]
    if record.stalled:
        lines.append(f"⚠ Stalled: {one_line(record.stalled)}")
    if record.has_ended:
        lines.append("It has ended and isn't waiting for anything.")
    lines += [f"Waiting for a step: {wait.more['name']}" for wait in waits if wait.kind == "step"]
    lines += _calls(waits, link)
    if upcoming:
        lines += ["", bold("Next"), *_times(upcoming, now)]
    return found, "\n".join(lines)


_ENDS = {"sleep": "a sleep ends", "timeout": "a time limit ends"}


def simulated(workflow: str, found: Mapping[str, Any], now: datetime, when: str = "now") -> str:
    """Say who a request would notify, and when. `when`: it is opened."""
    skipped = [line for stage in found["stages"] if stage["state"] == "skipped" for line in _skipped(stage)]
    if found["auto"] is not None:
        auto = found["auto"]
        word = "approved" if auto["decision"] == "approve" else "rejected"
        by = plain_name(f"rule:{auto['rule']}")
        return "\n".join([bold(f"{workflow}: {word} by {by}, without approvers"), f"  {auto['because']}", *skipped])
    lines, first = [bold(f"{workflow}: if a request were opened {when}")], True
    for stage in found["stages"]:
        if stage["state"] == "skipped":
            lines += _skipped(stage)
            continue
        asked = [each for each in found["who"] if each["stage"] == stage["id"]]
        lines += _simulated_stage(stage, asked, now, is_first=first)
        first = False
    if not found["who"]:
        return "\n".join([*lines, "", "  There are no approvers."])
    lines += ["", *(f"  {text}" for text in found["besides"])] if "besides" in found else []
    return "\n".join([*lines, "", "Nothing was sent."])


def _skipped(stage: Mapping[str, Any]) -> Iterator[str]:
    yield from ("", bold(f"Stage {stage['id']} is skipped"), f"  {one_line(stage['because'])}")
    for seat in stage["skipped_seats"]:
        yield f"  {one_line(seat['label'])}: {one_line(seat['because'])}"


def _simulated_stage(
    stage: Mapping[str, Any], asked: Sequence[Mapping[str, Any]], now: datetime, *, is_first: bool
) -> Iterator[str]:
    """Yield who is asked in a stage and who isn't, and what happens if nobody decides."""
    yield from ("", bold(f"Approvers of stage {stage['id']} ({_needed(stage['seats'])})"))
    yield from columns([(each["person"], each["via"], each["why"]) for each in asked], "  ")
    if not asked and not any(seat.get("unread") for seat in stage["seats"]):
        yield "  nobody"
    yield from (f"  {line}" for line in _notes(stage))
    if stage["timers"]:
        when = "Next, if nobody decides" if is_first else f"Once stage {stage['id']} is open, counted from now"
        yield from ("", bold(when), *_times(stage["timers"], now))
    for each in stage["escalations"]:
        at = card_text.until(datetime.fromisoformat(each["at"].replace("Z", "+00:00")), now)
        how = "instead of those before" if each["mode"] == "replace" else "besides those before"
        yield from ("", bold(f"Asked {at}, {how} ({', '.join(each['to'])})"))
        reached = [(one["person"], one["via"], one["why"]) for one in each["who"]]
        yield from columns(reached, "  ") if reached else ["  nobody"]


def _needed(seats: Sequence[Mapping[str, Any]]) -> str:
    """Return `1 of 3, Release managers; 2 of 4, SRE`; of alternatives, `1 of 3, SRE and 1 of 2, Finance; or …`."""
    texts = [
        [f"{share_text(seat)}, {one_line(seat['label'])}" for seat in each]
        for _, each in groupby(seats, key=lambda seat: seat.get("alternative"))
    ]
    return "; or ".join((" and " if len(texts) > 1 else "; ").join(each) for each in texts)


def share_text(seat: Mapping[str, Any]) -> str:
    """Write how many of how many people are needed: `2 of 3 (50%)`."""
    if "unread" in seat:
        return f"{seat.get('share', seat['need'])} of people that aren't known"
    asked = min(seat.get("pick", seat["of"]), seat["of"])
    picked = f" picked from {seat['of']} when it opens" if asked < seat["of"] else ""
    return f"{seat['need']} of {asked}{picked}" + (f" ({seat['share']})" if "share" in seat else "")


def _notes(stage: Mapping[str, Any]) -> Iterator[str]:
    """Yield why the stage applies, who may reject, who is away or left out, and which seats fall away."""
    if stage["because"]:
        yield f"It applies because {one_line(stage['because'])}."
    if (veto := stage["veto"]) is not None:
        yield f"Only {one_line(veto['label'])} can reject ({share_text(veto)})."
    for each in stage["away"]:
        instead = f"{each['delegate']} is asked instead" if each["delegate"] else "there is no delegate"
        yield f"Out of office: {each['person']}, back on {each['back']}; {each['trouble'] or instead}."
    if carried := stage.get("carries_over"):
        yield f"An approval in an earlier stage counts here, too: {', '.join(carried)}."
    for each in stage["left_out"]:
        yield f"Can't decide: {each['person']}, {one_line(each['why'])}."
    for seat in stage["skipped_seats"]:
        yield f"Not needed: {one_line(seat['label'])}, because {one_line(seat['because'])}."
    for fault in dict.fromkeys(fault for seat in stage["seats"] for fault in seat.get("unread", ())):
        yield f"Unknown: {one_line(fault)}."


def _rule(rule: Mapping[str, Any]) -> Iterator[str]:
    yield f"  {'✓' if rule['applies'] else '–'} {one_line(rule['rule'])}"
    if rule["because"]:
        yield f"      {one_line(rule['because'])}"


def _times(times: Sequence[Mapping[str, Any]], now: datetime) -> list[str]:
    moments = [datetime.fromisoformat(each["at"].replace("Z", "+00:00")) for each in times]
    rows = [
        (card_text.moment(at, ZONE), card_text.until(at, now), one_line(each["what"]))
        for at, each in zip(moments, times, strict=True)
    ]
    return columns(rows, "  ")


def _named(request: Request, address: str) -> str:
    name = request.name(address).text
    return name if name == address else f"{name} ({address})"
