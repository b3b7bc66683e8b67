"""`approvals-bot doctor`: checks now everything that a running service will need."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from approvals_bot.app.connections import open_channels
from approvals_bot.app.directory import directory_source, open_people, takes_pushes
from approvals_bot.approvals.clock import MORE
from approvals_bot.approvals.delivery_policy import SayInSlack
from approvals_bot.approvals.field_addresses import variants
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.port import EMAIL, SLACK, CheckUp, Diagnosis, DiagnosisState, WithCheck
from approvals_bot.approvals.templates import channels_of
from approvals_bot.cli.doctor_secrets import check_secrets
from approvals_bot.cli.doctor_service import check_service
from approvals_bot.cli.interpreter import known_holes
from approvals_bot.cli.terminal import bold
from approvals_bot.config.api_keys import ApiKeyEntry
from approvals_bot.config.groups import ScimGroupEntry, slack_handles
from approvals_bot.config.hosts import is_loopback
from approvals_bot.config.load import load_service, load_workflows
from approvals_bot.config.messages import ConfigErrors, ConfigProblem
from approvals_bot.config.service import ServiceSettings
from approvals_bot.durable.store import connect
from approvals_bot.durable.store.audit import RESTORED, AuditLine, last_backup_line
from approvals_bot.durable.store.replicas import ReplicaRow
from approvals_bot.durable.store.sqlite import refuse_read_only
from approvals_bot.errors import StoreUnavailableError
from approvals_bot.people import (
    GroupAddress,
    OnCall,
    People,
    PersonAddress,
    SlackGroupAddress,
    SourceUnavailable,
    parse_address,
)
from approvals_bot.service.catalog import check_configuration
from approvals_bot.service.keys import last_use
from approvals_bot.service.replicas import SILENT
from approvals_bot.service.store_mends import store_mend

ICONS: dict[DiagnosisState, str] = {"OK": "✅", "WARN": "⚠", "FAIL": "⛔"}
BUILT_IN_CHANNELS = {SLACK: "Slack", EMAIL: "mail"}
"""The channels that a report lists even if they aren't configured."""

LITTLE_SPACE = 500_000_000  # bytes on the database's disk, below which the operator is warned
EXPIRES_SOON = 30  # days
CLOCKS_DIFFER = 5.0  # seconds
OLD_BACKUP = timedelta(days=2)
MOST_NAMED = 10  # people in one line


async def examine(path: Path, env: Mapping[str, str], send: str | None = None) -> list[Diagnosis]:
    """Examine everything, in the order to fix it in. `send`: an address that gets a test mail."""
    problems = check_configuration(path, env).problems
    findings = [_check_configuration(path, problems)]
    try:
        service = load_service(path, env)
        workflows = load_workflows(service.server.workflows)
    except ConfigErrors as errors:
        if problems:
            return findings  # reported already; the rest depends on it
        return [*findings, Diagnosis("FAIL", "configuration", str(errors))]
    findings += [
        *_check_interpreter(),
        _check_base_url(service),
        *check_secrets(service, path),
        *await _check_store(service),
        *await _check_api_keys(service, datetime.now(UTC)),
        *await check_service(service, datetime.now(UTC)),
    ]
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
        return Diagnosis("FAIL", "configuration", f"{path} has {count}", "Fix these lines.", text)
    return Diagnosis("OK", "configuration", f"{path} and its workflows are valid")


def _check_interpreter() -> Iterator[Diagnosis]:
    if (holes := known_holes()) is not None:
        yield Diagnosis("WARN", "Python", holes, "Install a newer release of Python.")


def _check_base_url(service: ServiceSettings) -> Diagnosis:
    url = str(service.server.base_url)
    parts = urlsplit(url)
    if is_loopback(parts.hostname or ""):
        todo = "Set [server] base_url to the https URL at which people reach this service."
        return Diagnosis("WARN", "base_url", f"{url} is this machine, so links open nowhere else", todo)
    if parts.scheme != "https":
        todo = "Put TLS in front of the service, and write https:// in [server] base_url."
        what = f"{url} is not encrypted, so anybody on the network could use a decision link"
        return Diagnosis("WARN", "base_url", what, todo)  # insecure_http = true; otherwise nothing was loaded
    return Diagnosis("OK", "base_url", url)


async def _check_store(service: ServiceSettings) -> Sequence[Diagnosis]:
    """Look into the store. Nothing is written: not even the schema is updated."""
    url = service.server.database.get_secret_value()
    try:
        opened = await connect(url, to_read=True)
    except (StoreUnavailableError, ValueError, ModuleNotFoundError) as error:
        return [Diagnosis("FAIL", "store", str(error), f"{store_mend(str(error))}.")]
    try:
        if url.startswith("sqlite:///"):
            refuse_read_only(url.removeprefix("sqlite:///"))
        else:
            await opened.check()  # which only looks, there
        others = [*_check_replicas(await opened.replicas(), datetime.now(UTC))]
        others.append(_check_backup(await last_backup_line(opened), datetime.now(UTC)))
    except StoreUnavailableError as error:
        return [Diagnosis("FAIL", "store", str(error), f"{store_mend(str(error))}. Until then nothing is accepted.")]
    finally:
        await opened.close()
    return [*await _check_database(url), *others]


def _check_backup(last: AuditLine | None, now: datetime) -> Diagnosis:
    """Warn of a backup that is old. Of none nothing is said but that: the database may be backed up by other means."""
    todo = "Run `approvals-bot backup FILE` every night, and keep the file elsewhere."
    if last is None:
        return Diagnosis("OK", "backup", "`approvals-bot backup` hasn't written any yet")
    done = "one was restored" if last.entry.what == RESTORED else "the last one was written"
    what = f"{done} on {last.at:%Y-%m-%d %H:%M} UTC"
    return Diagnosis("WARN", "backup", what, todo) if now - last.at > OLD_BACKUP else Diagnosis("OK", "backup", what)


def _check_replicas(rows: Sequence[ReplicaRow], now: datetime) -> Iterator[Diagnosis]:
    """Warn of processes with different configurations: a second service, such as a copy, may use this database."""
    living = [row for row in rows if now - row.seen_at < timedelta(seconds=SILENT)]
    if len({row.config_digest for row in living}) > 1:
        listed = ", ".join(f"{row.id} (version {row.version})" for row in living)
        what = f"the processes that serve this installation have different configurations: {listed}"
        hint = "If no rollout is going on, two services claim it. Give a copy an ID of its own: copy --as-new."
        yield Diagnosis("WARN", "replicas", what, hint)


async def _check_database(url: str) -> Sequence[Diagnosis]:
    if not url.startswith("sqlite:///"):
        return await _check_postgres(url)
    found = [Diagnosis("OK", "store", "SQLite is writable; the schema is current")]
    return [*found, *_check_space(Path(url.removeprefix("sqlite:///")))]


async def _check_api_keys(service: ServiceSettings, now: datetime) -> Sequence[Diagnosis]:
    """Say when each key was used last, and which expire soon."""
    used: dict[str, datetime | None] = {}
    with suppress(StoreUnavailableError, ValueError, ModuleNotFoundError):  # the store's own check has reported it
        store = await connect(service.server.database.get_secret_value(), to_read=True)
        try:
            used = {name: await last_use(store, name) for name in service.api_keys}
        finally:
            await store.close()
    return [_check_api_key(name, entry, used.get(name), now) for name, entry in service.api_keys.items()]


def _check_api_key(name: str, entry: ApiKeyEntry, used: datetime | None, now: datetime) -> Diagnosis:
    about = f"API key {name}"
    said = f"last used {used:%Y-%m-%d %H:%M} UTC" if used is not None else "not used yet"
    days = (entry.expires - now.date()).days if entry.expires is not None else None
    todo = f"Make another value with `approvals-bot keys new {name}`, list both for a while, and move `expires`."
    if days is not None and days <= 0:
        return Diagnosis("FAIL", about, f"expired on {entry.expires}; {said}", todo)
    if days is not None and days <= EXPIRES_SOON:
        return Diagnosis(
            "WARN", about, f"expires on {entry.expires}, in {days} day{'' if days == 1 else 's'}; {said}", todo
        )
    return Diagnosis("OK", about, said)


async def _check_postgres(url: str) -> Sequence[Diagnosis]:
    """Check whether the server's settings keep every acknowledged decision."""
    from approvals_bot.durable.store.postgres_schema import examine  # its driver is an extra

    found = await examine(url)
    findings = [Diagnosis("OK", "store", f"PostgreSQL {found.version} is writable; the schema is current")]
    if not found.fsync:
        todo = "Set fsync = on; without it, a power cut can destroy the whole database."
        findings.append(Diagnosis("FAIL", "store", "the server has fsync=off", todo))
    if abs(found.ahead) > CLOCKS_DIFFER:
        what = f"the clocks of this machine and of the server differ by {abs(found.ahead):,.0f} seconds"
        findings.append(Diagnosis("WARN", "clock", what, "Synchronise both by NTP: leases and deadlines go by them."))
    if found.asynchronous_standbys and not found.synchronous_standbys:
        names = ", ".join(found.asynchronous_standbys)
        todo = "Set synchronous_standby_names, or accept that a failover may lose the last decisions."
        findings.append(Diagnosis("WARN", "store", f"the standby {names} is asynchronous", todo))
    if not found.hears:
        todo = "Connect to the server itself or to a pool in session mode (PgBouncer: pool_mode = session)."
        what = "NOTIFY doesn't arrive, as behind a pool in transaction mode, so replicas learn of changes late"
        findings.append(Diagnosis("WARN", "store", what, todo))
    return findings


def _check_space(database: Path) -> Iterator[Diagnosis]:
    free = shutil.disk_usage(database.absolute().parent).free
    if free < LITTLE_SPACE:
        what = f"only {free / 1e6:,.0f} MB are free on the database's disk"
        yield Diagnosis("WARN", "store", what, "Free some space; clicks are refused once the disk is full.")


async def examine_channels(
    service: ServiceSettings, workflows: Sequence[Definition], send: str | None
) -> list[Diagnosis]:
    """Examine the configured channels. `send`: an address that gets a test mail."""
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
        found.append(Diagnosis("FAIL", "test mail", "email is not configured", "Add [email] to the configuration."))
    return found


def places_of(channel: str, workflows: Sequence[Definition]) -> dict[str, str]:
    """Return every place of this channel that workflows write to, with the first such workflow."""
    found: dict[str, str] = {}
    for definition in workflows:
        for deliver in definition.deliveries:
            to = deliver.slack if channel == SLACK else deliver.channels.get(channel)
            for place in channels_of(to, definition.fields) if isinstance(to, str) else ():
                found.setdefault(place, definition.id)
        for action in definition.follow_ups() if channel == SLACK else ():
            if isinstance(action, SayInSlack):
                for place in channels_of(action.slack, definition.fields):
                    found.setdefault(place, definition.id)
    return found


def groups_of(service: ServiceSettings, workflows: Sequence[Definition]) -> list[str]:
    """List every Slack user group that the files name, by its handle without the @."""
    found = slack_handles(service.groups)
    for definition in workflows:
        seats = [seat for stage in definition.stage for seat in stage.seats]
        texts = [
            *definition.workflow.request,
            *(text for seat in seats for text in (*seat.from_, *(seat.notify or ()))),
            *(text for escalation in definition.escalate for text in escalation.to),
        ]
        for text in texts:
            for each, _ in variants(text, definition.fields):
                if each.startswith("slack:") and isinstance(group := parse_address(each), SlackGroupAddress):
                    found.append(group.handle)
    return list(dict.fromkeys(found))


async def examine_people(service: ServiceSettings, workflows: Sequence[Definition]) -> list[Diagnosis]:
    """Check whether each workflow's people can be reached, reading live sources.

    People who depend on a request (the requester's manager, a field's owner) are left out.
    """
    approvals = [definition for definition in workflows if definition.workflow.run is None]
    async with open_people(service, lambda: datetime.now(UTC)) as people:
        found = [await _check_reach(service, definition, people) for definition in approvals]
        found += [*_check_absences(people, datetime.now(UTC)), *await _check_delegates(people)]
        directory = directory_source(service, None)
        found += await _check_sources(people, "" if directory is None else directory.name)
        found += () if directory is None else _check_directory(directory.name, people)
        found += _check_pushed(service, people) if takes_pushes(service) else ()
    return found or [Diagnosis("OK", "people", "there is no approval workflow")]


async def _check_reach(service: ServiceSettings, definition: Definition, people: People) -> Diagnosis:
    about, deliver = f"people of {definition.id}", definition.to_requester
    asked: dict[str, str | None] = {}
    down: list[str] = []
    for text in dict.fromkeys(_addresses(definition)):
        if isinstance(parse_address(text), PersonAddress | GroupAddress | SlackGroupAddress | OnCall):
            resolved = await people.resolve(text, requester="app:doctor")
            asked |= {person.address: person.slack for person in resolved.persons}
            down += map(str, resolved.errors)
    if down:
        return Diagnosis(
            "FAIL", about, "; ".join(dict.fromkeys(down)), "Fix the source; until then, its members' votes can't count."
        )
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
        todo = "Add slack, dm or email to its [deliver], unless people check their inbox page anyway."
        return Diagnosis("WARN", about, "nobody is notified of a request", todo)
    lost = [address for address, slack in asked.items() if slack is None]
    if lost:
        names = ", ".join(lost[:MOST_NAMED]) + (f" and {len(lost) - MOST_NAMED} more" if len(lost) > MOST_NAMED else "")
        todo = "Configure [email], or make sure that Slack knows these addresses."
        return Diagnosis("WARN", about, f"reachable only if Slack knows their addresses: {names}", todo)
    return Diagnosis("OK", about, f"{len(asked)} can be reached (direct message)")


async def _check_delegates(people: People) -> list[Diagnosis]:
    """Warn of delegates whom nobody knows: they can't decide."""
    found = []
    for address, planned in people.absences.items():
        for delegate in dict.fromkeys(one for absence in planned for one in absence.delegates):
            with suppress(SourceUnavailable):
                if not await people.knows(delegate):
                    todo = "Add them to [people] or to a group; until then, they aren't asked."
                    found.append(Diagnosis("WARN", f"absence of {address}", f"nobody knows {delegate}", todo))
    return found


async def _check_sources(people: People, directory: str) -> list[Diagnosis]:
    """Read every live source but the directory of everybody, and warn of entries that are no addresses."""
    await people.read_sources()
    todo = "Correct them in that source: they are left out, and the people they mean can't vote."
    return [
        Diagnosis("WARN", f"people of {source}", f"{count} of its entries aren't email addresses", todo)
        for source, count in people.bad_entries.items()
        if count and source != directory
    ]


def _check_pushed(service: ServiceSettings, people: People) -> Iterator[Diagnosis]:
    """Say whom an identity provider has pushed, and which groups it hasn't."""
    pushed = people.rosters.pushed
    if find_spec("scim2_server") is None:
        todo = "pip install 'approvals-bot[scim]'"
        yield Diagnosis("FAIL", "SCIM", "what the identity provider sends is refused: SCIM isn't installed", todo)
        return
    named = {group.scim for group in service.groups.values() if isinstance(group, ScimGroupEntry)}
    if missing := sorted(name for name in named if name not in pushed.groups):
        todo = "Push them, or correct the name in [groups]; until then, nobody is in them."
        yield Diagnosis("WARN", "SCIM", f"no group with this name was pushed: {', '.join(missing[:MOST_NAMED])}", todo)
    else:
        counted = f"{len(pushed.rows):,} people and {len(pushed.groups):,} groups, {len(pushed.barred):,} deactivated"
        yield Diagnosis("OK", "SCIM", counted)


def _check_directory(name: str, people: People) -> Iterator[Diagnosis]:
    """Say whom the directory lists, whether it can be read, and what is wrong in it."""
    about, listed = f"the directory {name}", people.rosters.listed
    if why := people.unreadable.get(name):
        todo = "Make it readable; until then, those whom it listed last count, and after a start nobody does."
        yield Diagnosis("FAIL", about, f"can't be read: {why}", todo)
    elif listed.bad:
        first = "; ".join(f"line {one.line}, {one.key}: {one.message}" for one in listed.faults[:MOST_NAMED])
        todo = "Correct them there: what is wrong in an entry is left out."
        yield Diagnosis("WARN", about, f"{listed.bad} of its entries have faults ({first})", todo)
    else:
        yield Diagnosis("OK", about, f"{len(listed.rows):,} people and {len(listed.groups):,} groups")


def _check_absences(people: People, now: datetime) -> Iterator[Diagnosis]:
    """Yield current and future absences whose delegates are all unavailable."""
    for address, planned in people.absences.items():
        zone = people.person(address).zone
        for absence in planned:
            at = max(now, absence.begins(zone))
            away = people.away(address, at) if absence.delegates and at < absence.ends(zone) else None
            if away is None or (away.delegates and not away.trouble):
                continue
            what = away.trouble or "all delegates are away too"
            todo = "They stay an approver while away. Name a delegate who isn't away."
            yield Diagnosis("WARN", f"absence of {address}", f"from {absence.first}: {what}", todo)


def _addresses(definition: Definition) -> Iterable[str]:
    addresses = [address for stage in definition.stage for seat in stage.seats for address in seat.from_]
    addresses += [address for escalation in definition.escalate for address in escalation.to if address != MORE]
    yield from (each for address in addresses for each, _ in variants(address, definition.fields))
