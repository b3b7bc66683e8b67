"""What `explain` and `simulate` say to people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from approvals_bot.approvals.card import card_of
from approvals_bot.approvals.request import RequestView
from approvals_bot.channels import phrases
from approvals_bot.channels.text import one_line
from approvals_bot.cli.show import ZONE, bold, columns, iso
from approvals_bot.core.events import Event, from_micros
from approvals_bot.engine import RunRecord
from approvals_bot.web.story import tell


def explained(record: RunRecord, view: RequestView, found: Mapping[str, Any], now: datetime) -> str:
    """Why this request waits."""
    card = card_of(view, None, now)
    lines = [bold(f"{phrases.state(card)} · {one_line(card.title)}")]
    if record.stalled:
        lines += [f"⚠ Stalled: {one_line(record.stalled)}"]
    if card.outcome is not None:
        lines.append(f"It waits for nobody: {phrases.outcome(card.outcome)}.")
    if found["waiting_for"]:
        rows = [(_called(view, who["person"]), who["stage"], who["why"]) for who in found["waiting_for"]]
        lines += ["", bold("It waits for"), *columns(rows, "  ")]
    if found["rules"]:
        lines += ["", bold("The rules, and what they said")]
        for rule in found["rules"]:
            lines += _rule(rule)
    if found["next"]:
        lines += ["", bold("What comes next, if nobody decides"), *_times(found["next"], now)]
    return "\n".join(lines)


def explained_program(record: RunRecord, events: Sequence[Event], now: datetime) -> tuple[dict[str, Any], str]:
    """Why a run that is no request waits, as JSON and as text."""
    story = tell(events)
    open_ones = [stretch for stretch in story.stretches if stretch.ending == "open"]
    timers = [event for event in events if event.type == "wait_created"]
    over = {event.data["id"] for event in events if event.type in ("wait_completed", "wait_cancelled")}
    upcoming = [event for event in timers if event.data["id"] not in over] if not record.has_ended else []
    found = {"waiting_for": [], "rules": [], "next": [_timer(event) for event in upcoming]}
    lines = [bold(f"{record.workflow}: {record.status}")]
    if record.stalled:
        lines.append(f"⚠ Stalled: {one_line(record.stalled)}")
    if record.has_ended:
        lines.append("It waits for nothing any more.")
    else:
        lines += [f"It waits for a {stretch.kind}: {stretch.label}" for stretch in open_ones if stretch.kind != "wait"]
    if found["next"]:
        lines += ["", bold("What comes next"), *_times(found["next"], now)]
    return found, "\n".join(lines)


def simulated(workflow: str, found: Mapping[str, Any], now: datetime) -> str:
    """Who would be asked, and when."""
    if found["auto"] is not None:
        auto = found["auto"]
        word = "approved" if auto["decision"] == "approve" else "rejected"
        lines = [bold(f"{workflow}: {word} by rule {auto['rule']}, and nobody is asked"), f"  {auto['because']}"]
        return "\n".join(lines)
    lines = [bold(f"{workflow}: if it were opened now")]
    for stage in dict.fromkeys(who["stage"] for who in found["who"]):
        rows = [(who["person"], who["via"], who["why"]) for who in found["who"] if who["stage"] == stage]
        lines += ["", bold(f"Stage {stage} asks"), *columns(rows, "  ")]
    if not found["who"]:
        return "\n".join([*lines, "", "  It asks nobody."])
    if found["timers"]:
        lines += ["", bold("What comes by itself, until the stage is decided"), *_times(found["timers"], now)]
    return "\n".join([*lines, "", "Nothing was sent."])


def _rule(rule: Mapping[str, Any]) -> Iterator[str]:
    yield f"  {'✓' if rule['applies'] else '–'} {one_line(rule['rule'])}"
    if rule["because"]:
        yield f"      {one_line(rule['because'])}"


def _times(times: Sequence[Mapping[str, Any]], now: datetime) -> list[str]:
    moments = [datetime.fromisoformat(each["at"].replace("Z", "+00:00")) for each in times]
    rows = [
        (phrases.moment(at, ZONE), phrases.until(at, now), one_line(each["what"]))
        for at, each in zip(moments, times, strict=True)
    ]
    return columns(rows, "  ")


def _timer(event: Event) -> dict[str, str]:
    what = "a time limit is over" if event.data.get("kind") == "timeout" else "a sleep is over"
    return {"at": iso(from_micros(event.data["resume_at"])), "what": what}


def _called(view: RequestView, address: str) -> str:
    name = view.name(address).text
    return name if name == address else f"{name} ({address})"
