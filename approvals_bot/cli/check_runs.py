"""`check --runs`: which runs the code about to be deployed would stall or end. Reads pages of runs, keeps none.

Open runs show what a deployment would do at once; runs that have ended show what it would do with the next payloads.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

import click

import approvals_bot.approvals.workflow  # registers what approvals are replayed on
import approvals_bot.channels.slack.builder  # … and steps of Workflow Builder
import approvals_bot.channels.slack.late_replies  # noqa: F401  # … and replies that Slack has not taken yet
from approvals_bot.approvals.ballot import current_votes
from approvals_bot.approvals.plain_text import one_line
from approvals_bot.config.service import ServiceSettings
from approvals_bot.durable.engine import Engine
from approvals_bot.durable.engine.drift import Change, Drift, drift_of
from approvals_bot.durable.store.protocol import Filter, RunRecord
from approvals_bot.people import IdentityRules
from approvals_bot.service.read import requests_of

PAGE_SIZE = 50  # runs; a row may have 2 MB
MOST_SUGGESTED = 1_000  # ended runs of one workflow; more needn't be counted
PROGRESS_EVERY = 1.0  # seconds
LINE_EVERY = 10.0  # seconds, where standard error is no terminal

Kind = Literal["open", "ended"]

HEADINGS: dict[Change, str] = {
    "stalls": "would stall",
    "fails": "would fail",
    "ends": "would end",
    "refuses": "would refuse answers that it takes now",
    "differs": "would end otherwise",
}


@dataclass(frozen=True, slots=True)
class OnePerson:
    """Two addresses that `[identity]` makes one person, and that count as two on an open request."""

    request_id: str
    workflow: str
    addresses: tuple[str, str]

    def __str__(self) -> str:
        one, other = self.addresses
        return f"  {self.request_id}  {self.workflow}: {one} and {other} are one person, and count as two"


@dataclass(slots=True)
class Tally:
    """The runs of one kind, open or ended: how many were replayed, and those that drift, up to a limit."""

    checked: int = 0
    drifting: list[Drift] = field(default_factory=list)
    changes: Counter[Change] = field(default_factory=Counter)


class RunsReport:
    """What `check --runs` has found so far. `print_lines`: print each run as soon as it is found."""

    def __init__(self, limit: int, *, print_lines: bool) -> None:
        self.open, self.ended = Tally(), Tally()
        self.one_person: list[OnePerson] = []
        self.not_replayed: dict[str, int] = {}  # by workflow with open runs: its ended runs that weren't replayed
        self._limit = limit
        self._prints = print_lines
        self._progress = Progress("")

    @property
    def has_findings(self) -> bool:
        return bool(self.open.changes or self.ended.changes or self.one_person)

    def counted_twice(self, found: OnePerson) -> None:
        """Keep a person whom an open request takes for two."""
        self.one_person.append(found)
        if self._prints:
            self._progress.clear()
            click.echo(str(found))

    def add(self, kind: Kind, drift: Drift | None) -> None:
        """Count a replayed run. `drift`: what would change, if anything."""
        tally = self.open if kind == "open" else self.ended
        tally.checked += 1
        self._progress.show(tally.checked)
        if drift is None:
            return
        tally.changes[drift.change] += 1
        if len(tally.drifting) < self._limit:
            tally.drifting.append(drift)
            if self._prints:
                self._progress.clear()
                click.echo(_line(drift))

    def as_json(self) -> dict[str, Any]:
        """Return the report. `more` is how many drifting runs aren't listed."""
        return {
            "checked": self.open.checked,
            "would_stall": _rows(self.open, "stalls"),
            "would_end": _rows(self.open, "fails", "ends"),
            "would_refuse": _rows(self.open, "refuses"),
            "more": sum(self.open.changes.values()) - len(self.open.drifting),
            "one_person": [asdict(found) for found in self.one_person],
            "ended": {
                "checked": self.ended.checked,
                "would_differ": _rows(self.ended, "stalls", "fails", "differs"),
                "more": sum(self.ended.changes.values()) - len(self.ended.drifting),
                "not_replayed": sum(self.not_replayed.values()),
            },
        }

    def summary(self, *, with_ended: bool) -> str:
        """Return the closing lines."""
        lines = [_counted(self.open, "open", "continues", "continue")]
        if with_ended:
            lines.append(_counted(self.ended, "ended", "ends as before", "end as before"))
        elif self.not_replayed:
            number = sum(self.not_replayed.values())
            lines.append(
                f"{number:,} ended {'run' if number == 1 else 'runs'} of {', '.join(sorted(self.not_replayed))} could "
                "be replayed, too, which finds bugs in handling the next payload: add --ended 30d."
            )
        if self.one_person:
            lines.append("End these requests and open them again, or have one of the two votes undone.")
        if self.open.changes or self.ended.changes:
            lines.append("Mend this code before you deploy it, or give it another @workflow(version=…).")
        return "\n".join(lines)

    @contextmanager
    def progress(self, kind: Kind) -> Iterator[None]:
        """Show progress while runs of this kind are replayed."""
        self._progress = Progress(f"{kind} runs replayed")
        try:
            yield
        finally:
            self._progress.clear()


async def check_runs(engine: Engine, service: ServiceSettings, *, report: RunsReport, ended: timedelta | None) -> None:
    """Replay the open runs and, with `ended`, those that ended within that time. Writes nothing, runs no step."""
    workflows = await _replay_all(engine, report, "open", rules=service.rules)
    if ended is not None:
        await _replay_all(engine, report, "ended", engine.now() - ended)
        return
    for workflow in workflows:
        number = await engine.count_runs(Filter(workflow, is_open=False), MOST_SUGGESTED)
        if number:
            report.not_replayed[workflow] = number


async def _replay_all(
    engine: Engine, report: RunsReport, kind: Kind, since: datetime | None = None, rules: IdentityRules | None = None
) -> set[str]:
    """Replay all runs of a kind, page by page, and compare the people of their requests. Returns their workflows."""
    workflows, cursor = set[str](), None
    with report.progress(kind):
        while True:
            page = await engine.list_runs(
                Filter(is_open=kind == "open", ended_since=since, limit=PAGE_SIZE, cursor=cursor)
            )
            for record in page.records:
                workflows.add(record.workflow)
                report.add(kind, await drift_of(engine, record.id))
                for found in () if rules is None else _counted_twice(record, rules):
                    report.counted_twice(found)
            cursor = page.cursor
            if cursor is None:
                return workflows


def _counted_twice(record: RunRecord, rules: IdentityRules) -> Iterator[OnePerson]:
    """Find people who have voted by two addresses, or on their own request, in each open request of the run."""
    for view in requests_of(record):
        if view.stage is None or not view.is_open:
            continue
        seen = {rules.identity_of(address): address for address in view.stage.requesters}
        for vote in current_votes(view.stage):
            other = seen.setdefault(rules.identity_of(vote.by), vote.by)
            if other != vote.by:
                yield OnePerson(view.id, view.workflow, (other, vote.by))


class Progress:
    """A line on the terminal that says how far it is. In a pipe or a file, it is a new line now and then."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._began = self._shown_at = time.monotonic()
        self._is_shown = False

    def show(self, done: int) -> None:
        """Update the line, at most once a second."""
        at, terminal = time.monotonic(), sys.stderr.isatty()
        if at - self._shown_at < (PROGRESS_EVERY if terminal else LINE_EVERY):
            return
        self._shown_at, self._is_shown = at, terminal
        rate = done / (at - self._began)
        text = f"{done:,} {self._what}, {rate:,.0f} a second …"
        sys.stderr.write(f"\r{text}\x1b[K" if terminal else f"{text}\n")
        sys.stderr.flush()

    def clear(self) -> None:
        if self._is_shown:
            self._is_shown = False
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def _rows(tally: Tally, *changes: Change) -> list[dict[str, Any]]:
    return [asdict(drift) for drift in tally.drifting if drift.change in changes]


def _line(drift: Drift) -> str:
    """Return `run_0…  deploy: would fail: AttributeError at workflows/deploy.py:12: …`."""
    error = f"{drift.error} at {drift.where}: " if drift.where else f"{drift.error}: " if drift.error else ""
    return f"  {drift.run_id}  {drift.workflow}: {HEADINGS[drift.change]}: {error}{one_line(drift.why)}"


def _counted(tally: Tally, kind: Kind, verb: str, verbs: str) -> str:
    """Return `12 open runs continue with this code.` or `Of 12 open runs, 2 would stall and 1 would fail …`."""
    runs = f"{tally.checked:,} {kind} {'run' if tally.checked == 1 else 'runs'}"
    if not tally.changes:
        return f"{runs} {verb if tally.checked == 1 else verbs} with this code."
    parts = [f"{number:,} {HEADINGS[change]}" for change, number in tally.changes.most_common()]
    rest = sum(tally.changes.values()) - len(tally.drifting)
    more = f" {rest:,} more {'is' if rest == 1 else 'are'}n't listed." if rest else ""
    return f"Of {runs}, {' and '.join(parts)} on this code.{more}"
