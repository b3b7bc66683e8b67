"""Alerts: what is wrong for a while is sent to people by direct message or mail, once, and once more when it is over.

Of several replicas, one sends. What has been sent is in the store, so another goes on after a crash. While the store
itself is away, the replica with the lowest ID sends.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from approvals_bot.approvals.card_text import moment, span
from approvals_bot.approvals.plain_text import one_line
from approvals_bot.approvals.port import Channels
from approvals_bot.config.monitoring import AlertsTable, QuietHours
from approvals_bot.durable.core.events import from_micros, to_micros
from approvals_bot.durable.engine import Engine
from approvals_bot.errors import StoreUnavailableError
from approvals_bot.people import People, Person
from approvals_bot.service.attempts import change_counter
from approvals_bot.service.notices import is_notified, persons_of
from approvals_bot.service.troubles import LastingTrouble, Troubles, urgency

NAME = "alerts"  # the counter that has what was sent
LOOK_EVERY = 15.0  # seconds
KEPT = timedelta(days=30)
REFRESH = timedelta(seconds=20)  # after which a replica says again that something is still wrong
SILENT = timedelta(seconds=60)  # after which it is over, if no replica says so any more
SENDING = timedelta(seconds=60)  # after which another replica sends what one wanted to send
SENT = -1
TITLE_LIMIT = 80  # characters of what is wrong in a title

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Alert:
    """A message to one person: that something is wrong since then, or over."""

    trouble: LastingTrouble
    address: str
    is_over: bool

    @property
    def id(self) -> str:
        """The same at each attempt."""
        return f"{self.trouble.key}\0{to_micros(self.trouble.since)}\0{self.is_over}\0{self.address}"


@dataclass(frozen=True, slots=True)
class AlertPlan:
    """What to send now, and the state to write before. None: the state stays."""

    state: dict[str, Any] | None
    alerts: tuple[Alert, ...]


def plan_alerts(
    state: Mapping[str, Any],
    troubles: Sequence[LastingTrouble],
    people: Sequence[Person],
    now: datetime,
    after: timedelta,
    quiet: QuietHours | None,
) -> AlertPlan:
    """Decide what to send. `troubles`: what this replica sees.

    An entry of the state has `since` and `seen`, when a replica saw it last, in microseconds; `text` and `mend`; and
    `sent`: for each person SENT, or until when somebody is sending it. `over` has the same for the second message.
    """
    at = to_micros(now)
    entries: dict[str, dict[str, Any]] = {key: {**entry} for key, entry in state.items()}
    for trouble in troubles:
        entry = entries.setdefault(
            trouble.key,
            {"since": to_micros(trouble.since), "seen": at, "text": trouble.text, "mend": trouble.mend, "sent": {}},
        )
        if at - entry["seen"] >= REFRESH / timedelta(microseconds=1):
            entry["seen"] = at
            entry["text"], entry["mend"] = trouble.text, trouble.mend  # the reason may be another one by now
    alerts = list[Alert]()
    for key, entry in [*entries.items()]:
        since = from_micros(entry["since"])
        is_over = now - from_micros(entry["seen"]) >= SILENT
        if not is_over and now - since < after:
            continue
        sent = {**entry["sent"]}
        if is_over:
            reached = {address for address, until in sent.items() if until == SENT}
            ended = {**entry.get("over", {})}
            due = [person for person in people if person.address in reached]
        else:
            ended, due = sent, [*people]
        known = LastingTrouble(key, "", str(entry["text"]), str(entry["mend"]), since, since)
        for person in due:
            until = ended.get(person.address, 0)
            if until != SENT and until <= at and not (quiet is not None and quiet.has(now.astimezone(_zone(person)))):
                ended[person.address] = at + SENDING // timedelta(microseconds=1)
                alerts.append(Alert(known, person.address, is_over))
        if is_over and all(ended.get(person.address) == SENT for person in due):
            del entries[key]
        else:
            entries[key] = {**entry, "over" if is_over else "sent": ended}
    return AlertPlan(None if entries == state else entries, tuple(alerts))


def _zone(person: Person) -> ZoneInfo:
    return ZoneInfo(person.zone or "UTC")


def confirmed(state: Mapping[str, Any], together: Iterable[Alert]) -> dict[str, Any] | None:
    """Return the state once these alerts were sent; None if nobody needs to know any more."""
    after = {**state}
    for alert in together:
        key = alert.trouble.key
        entry = after.get(key)
        if entry is not None and entry["since"] == to_micros(alert.trouble.since):
            which = "over" if alert.is_over else "sent"
            after[key] = {**entry, which: {**entry.get(which, {}), alert.address: SENT}}
    return None if after == state else after


def words_of(together: Sequence[Alert], now: datetime, zone: str, page: str) -> tuple[str, str]:
    """Return the title, which becomes a subject, and the text for a reader in this zone: the most urgent first.

    `page`: where to see more. All of them begin, or all are over.
    """
    troubles = sorted((each.trouble for each in together), key=lambda each: urgency(each.key))
    several = len(troubles) > 1
    about = f"{len(troubles)} things at once" if several else one_line(troubles[0].text, TITLE_LIMIT)
    if together[0].is_over:
        lines = [f"Resolved after {span(now - each.since)}. It was: “{each.text}.”" for each in troubles]
        return f"Resolved: {about}", "\n\n".join(lines)
    lines = [f"Since {moment(each.since, zone)}: {each.text}.\nWhat to do: {each.mend}." for each in troubles]
    lines = [f"{number}. {line}" for number, line in enumerate(lines, 1)] if several else lines
    first = ["Begin with the first one: others may follow from it."] if several else []
    return f"Alert: {about}", "\n\n".join([*first, *lines, f"How everything is: {page}"])


class Alerts:
    """The task that sends alerts, in one replica."""

    def __init__(
        self,
        engine: Engine,
        troubles: Troubles,
        table: Callable[[], AlertsTable],
        *,
        is_first: Callable[[], bool],
    ) -> None:
        """`is_first`: whether this replica sends while the store is away."""
        self._engine = engine
        self._troubles = troubles
        self._table = table
        self._is_first = is_first
        self._alone: dict[str, Any] = {}  # the state while the store is away
        self._last: dict[str, Sequence[Person]] = {}  # whom each entry of the table has meant last
        self._said = ""

    async def keep_sending(self, look: Callable[[], Awaitable[None]]) -> None:
        """Send what is due until cancelled. `look` is awaited before, to take note of what is wrong in the store."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            if self._table().to:
                try:
                    await look()
                    await self.send_due()
                except Exception as error:  # noqa: BLE001  # this task must outlive whatever it reports
                    log.error("%s while alerts were sent", type(error).__name__)

    async def send_due(self) -> None:
        """Send what is due now."""
        people = await self._recipients()
        alerts = list[Alert]()

        def decide(state: Mapping[str, Any]) -> dict[str, Any] | None:
            plan = self._plan(state, people)
            alerts[:] = plan.alerts
            return plan.state

        try:
            await self._change(decide)
        except StoreUnavailableError:
            plan = self._plan(self._alone, people)
            self._alone = plan.state or self._alone
            alerts = [*plan.alerts] if self._is_first() else []
        for person in people:
            for is_over in (False, True):
                together = [each for each in alerts if (each.address, each.is_over) == (person.address, is_over)]
                if together and await self._is_sent(together, person):
                    await self._confirm(together)

    async def _recipients(self) -> list[Person]:
        """Return whom to notify.

        While a source can't be read, those whom it gave last are notified; if that is nobody at all, the admins who can
        be found. The source itself may be what they have to know of.
        """
        people, found, lost = self._engine.resources[People], dict[str, Person](), list[str]()
        for entry in self._table().to:
            resolved = await people.resolve(entry, requester="")
            if resolved.errors or resolved.missing:
                lost.append(entry)
                found |= {person.address: person for person in (*self._last.get(entry, ()), *resolved.persons)}
            else:
                self._last[entry] = resolved.persons
                found |= {person.address: person for person in resolved.persons}
        recipients = [*found.values()] or await persons_of(people, people.admins)
        self._say(lost, is_instead=not found, is_nobody=not recipients)
        return recipients

    def _say(self, lost: Sequence[str], *, is_instead: bool, is_nobody: bool) -> None:
        """Log once that alerts go to others than those who are listed, or to nobody."""
        if is_nobody:
            to = "nobody; name somebody by their address there, or in [server] admins"
        elif is_instead:
            to = "the admins instead"
        else:
            to = "those whom they gave last"
        why = f"{', '.join(lost)} can't be read" if lost else "nobody is in these groups"
        said = f"[alerts] to: {why}, so alerts go to {to}" if lost or is_instead else ""
        if said and said != self._said:
            log.log(logging.ERROR if is_nobody else logging.WARNING, "%s", said)
        self._said = said

    def _plan(self, state: Mapping[str, Any], people: Sequence[Person]) -> AlertPlan:
        table = self._table()
        return plan_alerts(state, [*self._troubles], people, self._engine.now(), table.after, table.quiet)

    async def _change(self, decide: Callable[[Mapping[str, Any]], dict[str, Any] | None]) -> None:
        await change_counter(self._engine, NAME, self._engine.now() + KEPT, decide)

    async def _confirm(self, together: Sequence[Alert]) -> None:
        self._alone = confirmed(self._alone, together) or self._alone
        try:
            await self._change(lambda state: confirmed(state, together))
        except StoreUnavailableError:
            log.info("an alert was sent that the store doesn't know of")

    async def _is_sent(self, together: Sequence[Alert], person: Person) -> bool:
        channels, now = self._engine.resources.get(Channels), self._engine.now()
        if channels is None:
            return False
        title, text = words_of(together, now, person.zone, f"{channels.base_url}/operations")
        id = f"alert-{hashlib.sha256(chr(0).join(each.id for each in together).encode()).hexdigest()[:32]}"
        return await is_notified(channels, person, title, text, id, now)
