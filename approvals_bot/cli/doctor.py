"""`approvals-bot doctor`: everything that a running service will need, tried now."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from approvals_bot.app.connections import open_channels
from approvals_bot.app.directory import open_people
from approvals_bot.approvals.policy import Definition, SayInSlack
from approvals_bot.approvals.port import EMAIL, SLACK, CheckUp, Diagnosis, DiagnosisState, WithCheck
from approvals_bot.cli.show import bold
from approvals_bot.config.load import load_service, load_workflows
from approvals_bot.config.mail import is_loopback
from approvals_bot.config.messages import ConfigErrors, ConfigProblem
from approvals_bot.config.service import ServiceSettings, SlackGroupEntry
from approvals_bot.durable.store import connect
from approvals_bot.errors import StoreUnavailableError
from approvals_bot.people import GroupAddress, OnCall, People, PersonAddress, SlackGroupAddress, parse_address
from approvals_bot.service.catalog import find_problems

ICONS: dict[DiagnosisState, str] = {"OK": "✅", "WARN": "⚠", "FAIL": "⛔"}
BUILT_IN_CHANNELS = {SLACK: "Slack", EMAIL: "mail"}
"""The channels that a report names even where they are not configured."""

LITTLE_SPACE = 500_000_000  # bytes on the database's disk; below, an operator wants to know
FEW_SIGNS = 12  # different characters in a key; a random one of 32 bytes has about 20 at least
MOST_NAMED = 10  # people in one line


async def examine(path: Path, env: Mapping[str, str], send: str | None = None) -> list[Diagnosis]:
    """Examine everything, in the order in which one would mend it. `send`: an address that gets a test mail."""
    problems = find_problems(path, env)
    findings = [_check_configuration(path, problems)]
    try:
        service = load_service(path, env)
        workflows = load_workflows(service.server.workflows)
    except ConfigErrors as errors:
        if problems:
            return findings  # said already; the rest can't be tried without it
        return [*findings, Diagnosis("FAIL", "configuration", str(errors))]
    findings += [_check_base_url(service), *_check_signing_keys(service), *await _check_store(service)]
    findings += await examine_channels(service, workflows, send)
    findings += await examine_people(service, workflows)
    return findings


def report(findings: Sequence[Diagnosis]) -> str:
    """Return the findings as lines for a terminal."""
    lines: list[str] = []
    for finding in findings:
        lines.append(f"{finding.state:4}  {ICONS[finding.state]} {finding.about}: {finding.what}")
        if finding.todo:
            lines.append(f"         → {finding.todo}")
        lines += [f"         {line}" for line in finding.text.splitlines()]
    counts = [f"{sum(each.state == state for each in findings)} {state}" for state in ICONS]
    return "\n".join([*lines, "", bold(", ".join(counts))])


def _check_configuration(path: Path, problems: Sequence[ConfigProblem]) -> Diagnosis:
    if problems:
        count = f"{len(problems)} problem{'' if len(problems) == 1 else 's'}"
        text = "\n".join(str(problem) for problem in problems)
        return Diagnosis("FAIL", "configuration", f"{path} has {count}", "Mend these lines.", text)
    return Diagnosis("OK", "configuration", f"{path} and its workflows")


def _check_base_url(service: ServiceSettings) -> Diagnosis:
    url = str(service.server.base_url)
    parts = urlsplit(url)
    if is_loopback(parts.hostname or ""):
        todo = "Set [server] base_url to the https address that people reach this service by."
        return Diagnosis("WARN", "base_url", f"{url} is this machine: links open nowhere else", todo)
    if parts.scheme != "https":
        todo = "Put TLS in front of the service, and write https:// in [server] base_url."
        return Diagnosis("FAIL", "base_url", f"{url} is not encrypted: whoever listens could decide by a link", todo)
    return Diagnosis("OK", "base_url", url)


def _check_signing_keys(service: ServiceSettings) -> Iterator[Diagnosis]:
    keys = [key.get_secret_value() for key in service.server.signing_keys]
    for number, key in enumerate(keys, 1):
        if len(set(key)) < FEW_SIGNS:
            todo = "Make one with: python -c 'import secrets; print(secrets.token_urlsafe(48))'"
            yield Diagnosis("WARN", "signing keys", f"key {number} looks as if a person had made it up", todo)
    if len(set(keys)) < len(keys):
        yield Diagnosis("WARN", "signing keys", "one stands there twice", "Take the second out.")
    yield Diagnosis("OK", "signing keys", f"{len(keys)}; the first signs, all are accepted")


async def _check_store(service: ServiceSettings) -> Sequence[Diagnosis]:
    """Opening it applies what its schema lacks, and fails where SQLite can't be made to keep WAL and FULL."""
    url = service.server.database.get_secret_value()
    try:
        opened = await connect(url)
    except (StoreUnavailableError, ValueError, ModuleNotFoundError) as error:
        return [Diagnosis("FAIL", "store", str(error), "Look at [server] database, and who may write there.")]
    try:
        await opened.check()
    except StoreUnavailableError as error:
        return [Diagnosis("FAIL", "store", str(error), "Nothing can be accepted until it can be written to.")]
    finally:
        await opened.close()
    if not url.startswith("sqlite:///"):
        return await _check_postgres(url)
    found = [Diagnosis("OK", "store", "SQLite is writable, in WAL with synchronous=FULL, its schema is current")]
    return [*found, *_check_space(Path(url.removeprefix("sqlite:///")))]


async def _check_postgres(url: str) -> Sequence[Diagnosis]:
    """What a PostgreSQL server's own settings mean for what people were told is taken."""
    from approvals_bot.durable.store.postgres_schema import examine  # psycopg is an extra

    found = await examine(url)
    findings = [Diagnosis("OK", "store", f"PostgreSQL {found.version} is writable, its schema is current")]
    if not found.fsync:
        todo = "Set fsync = on: without it, a power cut may take the whole database along."
        findings.append(Diagnosis("FAIL", "store", "the server has fsync=off", todo))
    if found.asynchronous_standbys and not found.synchronous_standbys:
        names = ", ".join(found.asynchronous_standbys)
        todo = "Set synchronous_standby_names, or accept that a failover may forget the last decisions."
        findings.append(Diagnosis("WARN", "store", f"the standby {names} is asynchronous", todo))
    if not found.hears:
        todo = "Connect to the server itself or to a pool in session mode (PgBouncer: pool_mode = session)."
        what = "NOTIFY does not arrive, as behind a pool in transaction mode: replicas hear of each other late"
        findings.append(Diagnosis("WARN", "store", what, todo))
    return findings


def _check_space(database: Path) -> Iterator[Diagnosis]:
    free = shutil.disk_usage(database.absolute().parent).free
    if free < LITTLE_SPACE:
        what = f"only {free / 1e6:,.0f} MB are free where the database lies"
        yield Diagnosis("WARN", "store", what, "Make room: without it, clicks are refused.")


async def examine_channels(
    service: ServiceSettings, workflows: Sequence[Definition], send: str | None
) -> list[Diagnosis]:
    """Examine what is configured. `send`: an address that gets a test mail."""
    found: list[Diagnosis] = []
    async with AsyncExitStack() as stack:
        channels = open_channels(stack, service)
        for name in dict.fromkeys((*BUILT_IN_CHANNELS, *channels)):
            channel = channels.get(name)
            if channel is None:
                found.append(Diagnosis("OK", BUILT_IN_CHANNELS[name], "not configured"))
            elif isinstance(channel, WithCheck):
                groups = groups_of(service, workflows) if name == SLACK else ()
                asked = CheckUp(places_of(name, workflows), groups, send if name == EMAIL else None)
                found += await channel.check(asked)
    if send is not None and EMAIL not in channels:
        found.append(Diagnosis("FAIL", "test mail", "no [email] is configured", "Add it."))
    return found


def places_of(channel: str, workflows: Sequence[Definition]) -> dict[str, str]:
    """Every place of this channel that a workflow writes to, and which one does."""
    found: dict[str, str] = {}
    for definition in workflows:
        to = definition.deliver.slack if channel == SLACK else definition.deliver.channels.get(channel)
        if isinstance(to, str):
            found.setdefault(to, definition.id)
        for _, actions in definition.on if channel == SLACK else ():
            for action in actions:
                if isinstance(action, SayInSlack) and "{" not in action.slack:
                    found.setdefault(action.slack, definition.id)
    return found


def groups_of(service: ServiceSettings, workflows: Sequence[Definition]) -> list[str]:
    """Every Slack user group that is named, by its handle without the @."""
    found = [of.slack.removeprefix("@") for of in service.groups.values() if isinstance(of, SlackGroupEntry)]
    for definition in workflows:
        seats = [seat for stage in definition.stage for seat in stage.seat]
        texts = [
            *definition.workflow.request,
            *(text for seat in seats for text in (*seat.from_, *(seat.notify or ()))),
            *(text for escalation in definition.escalate for text in escalation.to),
        ]
        for text in texts:
            if text.startswith("slack:") and isinstance(group := parse_address(text), SlackGroupAddress):
                found.append(group.handle)
    return list(dict.fromkeys(found))


async def examine_people(service: ServiceSettings, workflows: Sequence[Definition]) -> list[Diagnosis]:
    """Live sources are asked. Whom only a request can tell (somebody's manager, a field's owner) is left out."""
    approvals = [definition for definition in workflows if definition.is_approval]
    async with open_people(service, lambda: datetime.now(UTC)) as people:
        found = [await _check_reach(service, definition, people) for definition in approvals]
        found += _check_absences(people, datetime.now(UTC))
    return found or [Diagnosis("OK", "people", "no approval is configured")]


async def _check_reach(service: ServiceSettings, definition: Definition, people: People) -> Diagnosis:
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


def _check_absences(people: People, now: datetime) -> Iterator[Diagnosis]:
    """Absences, now or to come, in which nobody could stand in though somebody is named."""
    for address, planned in people.absences.items():
        zone = people.person(address).zone
        for absence in planned:
            at = max(now, absence.begins(zone))
            away = people.away(address, at) if absence.delegates and at < absence.ends(zone) else None
            if away is None or (away.delegates and not away.trouble):
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
