"""People: whether everybody who may be asked can be reached at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

from approvals_bot.app.directory import open_people
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.port import Diagnosis
from approvals_bot.config.service import ServiceSettings
from approvals_bot.people import GroupAddress, OnCall, People, PersonAddress, SlackGroupAddress, parse_address

MOST_NAMED = 10  # people in one line


async def examine(service: ServiceSettings, workflows: Sequence[Definition]) -> list[Diagnosis]:
    """Live sources are asked. Whom only a request can tell (somebody's manager, a field's owner) is left out."""
    approvals = [definition for definition in workflows if definition.is_approval]
    async with open_people(service, lambda: datetime.now(UTC)) as people:
        found = [await _reach(service, definition, people) for definition in approvals]
        found += _absences(people, datetime.now(UTC))
    return found or [Diagnosis("OK", "people", "no approval is configured")]


async def _reach(service: ServiceSettings, definition: Definition, people: People) -> Diagnosis:
    about, deliver = f"people of {definition.id}", definition.deliver
    asked: dict[str, str | None] = {}
    down: list[str] = []
    for text in dict.fromkeys(_addresses(definition)):
        if isinstance(parse_address(text), PersonAddress | GroupAddress | SlackGroupAddress | OnCall):
            resolved = await people.resolve(text, requester="app:doctor")
            asked |= {person.address: person.slack for person in resolved.persons}
            down += resolved.errors
    if down:
        return Diagnosis("FAIL", about, "; ".join(dict.fromkeys(down)), "Until it answers, their votes can't count.")
    by_mail = service.email is not None and (deliver.email is not None or deliver.dm)
    if deliver.slack or by_mail or deliver.channels:
        ways = [
            deliver.slack or "",
            "mail" if by_mail else "",
            "direct message" if deliver.dm else "",
            *deliver.channels,
        ]
        return Diagnosis("OK", about, f"{len(asked)} can be reached ({', '.join(way for way in ways if way)})")
    if not deliver.dm:
        todo = "Add slack, dm or email to its [deliver], unless people look into their inbox by themselves."
        return Diagnosis("WARN", about, "nobody is told of a request", todo)
    lost = [address for address, slack in asked.items() if slack is None]
    if lost:
        names = ", ".join(lost[:MOST_NAMED]) + (f" and {len(lost) - MOST_NAMED} more" if len(lost) > MOST_NAMED else "")
        todo = "Configure [email], or see that Slack knows them by this address."
        return Diagnosis("WARN", about, f"reached only if Slack knows their address: {names}", todo)
    return Diagnosis("OK", about, f"{len(asked)} can be reached (direct message)")


def _absences(people: People, now: datetime) -> Iterator[Diagnosis]:
    """Absences, now or to come, in which nobody could stand in though somebody is named."""
    for address, planned in people.absences.items():
        zone = people.person(address).zone
        for absence in planned:
            at = max(now, absence.begins(zone))
            away = people.away(address, at) if absence.stand_ins and at < absence.ends(zone) else None
            if away is None or (away.stand_ins and not away.trouble):
                continue
            what = away.trouble or "everyone who should stand in is away, too"
            todo = "She stays asked herself meanwhile; name somebody who is there as her delegate."
            yield Diagnosis("WARN", f"absence of {address}", f"from {absence.first}: {what}", todo)


def _addresses(definition: Definition) -> Iterable[str]:
    for stage in definition.stage:
        for seat in stage.seat:
            yield from seat.from_
    for escalation in definition.escalate:
        yield from escalation.to
