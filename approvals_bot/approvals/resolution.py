"""Resolution: steps that look up the addresses of a workflow's file, so that the log holds what was found.

A stage is resolved when it opens and again at every click. The requester and the person they act for are left out
here, once for all channels.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from approvals_bot.approvals.agent_policy import EVERY_APP
from approvals_bot.approvals.eligibility import SELF, PeopleSource, RequestContext, Resolution, ResolvedSeat, SeatQuery
from approvals_bot.approvals.field_addresses import fields_of, filled
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.reassignment import Rank
from approvals_bot.approvals.request import VETO, Opening, RequestStage
from approvals_bot.approvals.rules import rules_of
from approvals_bot.approvals.stages import (
    TOO_FEW,
    context_of,
    different_people,
    judged,
    request_of,
    seat_queries,
    uncovered,
    why_undecidable,
)
from approvals_bot.durable.core.api import resource, step
from approvals_bot.durable.core.serialization import Proven
from approvals_bot.errors import StepFailedError
from approvals_bot.people import AddressError, People, Person, Resolved, SourceFault, SourceUnavailable, is_mail
from approvals_bot.people.absences import Away

T = TypeVar("T")

logger = logging.getLogger("approvals_bot.approvals")

LOOKUP_LIMIT = 2.0  # seconds; Slack gives up on a click after 3, and the reply must be there by then


@step(retries=0, timeout=LOOKUP_LIMIT)
async def look_up(
    asks: Proven[tuple[SeatQuery, ...]],
    about: Proven[RequestContext],
    also: Proven[tuple[str, ...]] = (),
    at: Proven[datetime | None] = None,
    people: People = resource(People),
) -> Proven[Resolution]:
    """Resolve every seat now. `at`: the time at which to check absences."""
    return await find_seats(asks, about, people, also, at)


async def find_seats(
    asks: Sequence[SeatQuery],
    about: RequestContext,
    people: People,
    also: Sequence[str] = (),
    at: datetime | None = None,
) -> Resolution:
    """Resolve every seat, for a step. Logs what an operator should mend."""
    found = await resolve_seats(asks, about, people, also, at)
    if any(each.trouble for each in found.away.values()):
        logger.warning("the delegates of an absent person lead nowhere; `approvals-bot doctor` says whose")
    return found


@step(retries=0, timeout=LOOKUP_LIMIT)
async def look_up_rank(
    address: str, person: str, owners: tuple[str, ...], about: RequestContext, people: People = resource(People)
) -> Rank:
    """Look up whether this person is an owner or an admin, and whether anybody knows `person`."""
    about = with_identities(about, people)
    owns, unsure_owner = await is_among(address, owners, about, people)
    rules, unsure_admin = await is_among(address, people.admins, about, people)
    knows, unsure = False, tuple[str, ...]()
    try:
        knows = await people.knows(person)
    except AddressError:
        pass
    except SourceUnavailable as error:
        unsure = (str(error),)
    return Rank(owns, rules, knows, (*unsure_owner, *unsure_admin), unsure)


look_up.only_reads = look_up_rank.only_reads = True


async def find_rank(address: str, person: str, owners: Sequence[str], about: RequestContext) -> Rank:
    """Call `look_up_rank`; a failed look-up becomes an error in the rank."""
    try:
        return await look_up_rank(address, person, tuple(owners), about)
    except StepFailedError as failure:
        return Rank(errors=(f"looking it up failed: {failure.cause_message}",))


async def find_people(
    asks: Sequence[SeatQuery], about: RequestContext, also: Sequence[str] = (), at: datetime | None = None
) -> Resolution:
    """Call `look_up`. A failed or slow look-up makes every seat unknown; it never fails the request."""
    try:
        return await look_up(tuple(asks), about, tuple(also), at)
    except StepFailedError as failure:
        seats = [ResolvedSeat(ask.id, {}, (), (_fault_of(ask, failure.cause_message),)) for ask in asks]
        veto = next((seat for seat in seats if seat.id == VETO), None)
        return Resolution(tuple(seat for seat in seats if seat is not veto), {}, veto=veto)


def _fault_of(ask: SeatQuery, why: str) -> SourceFault:
    """Return the fault of a look-up that failed as a whole: any of the seat's lists may be the cause."""
    addresses = dict.fromkeys(address for source in ask.sources for address in source.addresses)
    return SourceFault(" or ".join(one for one in addresses if not is_mail(one)) or "the list of approvers", why)


async def resolve_seats(
    asks: Sequence[SeatQuery],
    about: RequestContext,
    people: People,
    also: Sequence[str] = (),
    at: datetime | None = None,
) -> Resolution:
    """Resolve every seat.

    `also`: people whose name and zone are needed, too. `at`: the time at which to check absences; None: don't.
    """
    wanted = (about.requester, about.on_behalf_of, *about.named, *also)
    known = {address: people.person(address) for address in wanted if address and is_mail(address)}
    about = with_identities(about, people)
    seats = tuple([await _seat(ask, about, people, known) for ask in asks])
    out, concerned = dict[str, None](), {*also}  # excluded people are only named where they matter
    if about.exclude and asks:
        concerned.update(address for seat in seats for address in seat.eligible)
        seats, out = await _without_excluded(seats, about, people)
    veto = next((seat for seat in seats if seat.id == VETO), None)
    if veto is not None:
        seats = tuple(seat for seat in seats if seat is not veto)
    if at is None or not people.has_absences:
        return Resolution(seats, known, excluded=_among(out, concerned), veto=veto)
    entitled = dict.fromkeys(address for seat in seats for address in seat.eligible)
    absences = {address: absence for address in entitled if (absence := people.away(address, at)) is not None}
    away = {
        address: await _with_known_delegates(_without_barred(absence, about, out), people)
        for address, absence in absences.items()
    }
    concerned.update(delegate for absence in absences.values() for delegate in absence.delegates)
    for absence in away.values():
        known |= {address: people.person(address) for address in absence.delegates}
    changes = (
        people.next_change(address, at)
        for address in (*entitled, *(one for each in away.values() for one in each.delegates))
    )
    changes_at = min((moment for moment in changes if moment is not None), default=None)
    return Resolution(seats, known, away, changes_at, _among(out, concerned), veto)


async def _without_excluded(
    seats: tuple[ResolvedSeat, ...], about: RequestContext, people: People
) -> tuple[tuple[ResolvedSeat, ...], dict[str, None]]:
    """Drop those whom the policy excludes, and return them. What can't be read makes every seat unknown."""
    out, faults = dict[str, None](), list[SourceFault]()
    for address in about.exclude:
        found = await _find(address, about, people)
        out.update(dict.fromkeys(person.address for person in found.persons))
        faults += (*found.errors, *found.missing)
    if faults:  # nobody is sure to be let in
        unsure = (replace(seat, eligible={}, notified=(), errors=_different((seat.errors, faults))) for seat in seats)
        return tuple(unsure), {}
    left = [
        replace(
            seat,
            eligible={address: why for address, why in seat.eligible.items() if address not in out},
            notified=tuple(address for address in seat.notified if address not in out),
            escalated=tuple(address for address in seat.escalated if address not in out),
        )
        for seat in seats
    ]
    return tuple(left), out


def _among(out: Iterable[str], concerned: Collection[str]) -> tuple[str, ...]:
    return tuple(address for address in out if address in concerned)


def _without_barred(absence: Away, about: RequestContext, out: Collection[str]) -> Away:
    """Drop delegates who count as the requester, whatever `self_approval` says, and those whom the policy excludes."""
    asking = (about.requester, about.on_behalf_of, *about.exclude, *out)
    return replace(absence, delegates=tuple(one for one in absence.delegates if one not in asking))


def with_identities(about: RequestContext, people: People) -> RequestContext:
    """Return the request's context with the identities of its people, by today's configuration."""
    behalf = about.on_behalf_of
    return replace(
        about,
        requester=people.identity(about.requester),
        on_behalf_of=None if behalf is None else people.identity(behalf),
    )


async def _with_known_delegates(absence: Away, people: People) -> Away:
    """Drop delegates whom nobody knows. While a source is down, the configuration's word is enough."""
    unknown = []
    for delegate in absence.delegates:
        try:
            if not await people.knows(delegate):
                unknown.append(delegate)
        except SourceUnavailable:
            continue
    if not unknown:
        return absence
    trouble = "; ".join(filter(None, (absence.trouble, f"nobody knows {', '.join(unknown)}")))
    return replace(absence, delegates=tuple(one for one in absence.delegates if one not in unknown), trouble=trouble)


async def is_among(
    actor: str, addresses: Sequence[str], about: RequestContext, people: People
) -> tuple[bool, tuple[str, ...]]:
    """Return whether these addresses name this person or app now, and errors of sources."""
    errors: list[str] = []
    for address in addresses:
        if address == actor:
            return True, ()
        if address.startswith("app:"):
            continue
        found = await _find(address, about, people)
        if any(person.address == actor for person in found.persons):
            return True, ()
        errors.extend(map(str, found.errors))
    return False, tuple(errors)


async def with_groups(definition: Definition, opening: Opening, people: People) -> Opening:
    """Return the opening with what the file's rules ask about its requester. Raises SourceUnavailable."""
    rules = rules_of(definition)
    if not rules.is_about_requester:
        return opening
    return replace(
        opening,
        groups=tuple([entry for entry in rules.named_groups if await is_named(opening.requester, entry, people)]),
    )


async def is_named(one: str, entry: str, people: People) -> bool:
    """Return whether this entry of a list of requesters means this person or app. Raises SourceUnavailable."""
    if one.startswith("app:") or entry.startswith("app:"):
        return one == entry or (entry == EVERY_APP and one.startswith("app:"))
    if entry == "*":
        return True
    if entry.startswith("@"):
        return await people.is_in(one, entry[1:])
    return (await people.resolve(entry, requester=one)).includes(one, entry)


async def _find(address: str, about: RequestContext, people: People, approver: str | None = None) -> Resolved:
    asks, behalf = about.requester, about.on_behalf_of
    meant = filled(address, about.fields) if "{{" in address else address
    if meant is None:
        return Resolved((), f"the request has no {' and no '.join(fields_of(address))}")
    return await people.resolve(meant, requester=asks, on_behalf_of=behalf, fields=about.fields, approver=approver)


async def _seat(ask: SeatQuery, about: RequestContext, people: People, known: dict[str, Person]) -> ResolvedSeat:
    """Resolve one seat, and add everybody found to `known`."""
    found, first = dict[int, ResolvedSeat](), 0
    for at, source in reversed([*enumerate(ask.sources)]):
        if source.replaces:
            found[at] = await _of_source(source, about, people, known)
            if found[at].eligible:  # an escalation that finds nobody must not leave the seat empty
                first = at
                break
    sources = [*enumerate(ask.sources)][first:]
    parts = [found[at] if at in found else await _of_source(source, about, people, known) for at, source in sources]
    eligible = dict[str, str]()
    for part in parts:
        eligible |= {address: why for address, why in part.eligible.items() if address not in eligible}
    notified, faults = tuple(eligible), [part.errors for part in parts]
    if ask.notify is not None:
        to_notify = await _seat(SeatQuery(ask.id, (PeopleSource(ask.notify),)), about, people, known)
        notified = tuple(each for each in to_notify.eligible if each in eligible)
        faults.append(to_notify.errors)
    groups = _different(part.slack_groups for part in parts)
    return ResolvedSeat(
        ask.id,
        eligible,
        notified,
        _different(faults),
        tuple(nobody for part in parts for nobody in part.nobody),
        slack_groups=groups,
        ungrouped=_different(part.ungrouped for part in parts) if groups else (),
        escalated=_different(part.escalated for part in parts),
    )


def _different(parts: Iterable[Iterable[T]]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(one for part in parts for one in part))


async def _of_source(
    source: PeopleSource, about: RequestContext, people: People, known: dict[str, Person]
) -> ResolvedSeat:
    """Resolve the addresses of one source as if they were a seat, and add everybody found to `known`."""
    eligible, errors, nobody = dict[str, str](), list[SourceFault](), list[str]()
    groups, ungrouped = list[str](), list[str]()
    for address in source.addresses:
        for approver in source.approvers if address.endswith("manager-of:approver") else (None,):
            found = await _find(address, about, people, approver)
            errors += found.errors
            if not found.persons and not found.errors:
                nobody.append(f"{address}: {found.why}")
            if found.persons and found.slack_group:
                groups.append(found.slack_group)
            for person in found.persons:
                chosen: Person | None = person
                why = found.why
                if person.address in about.barred:
                    chosen, why = _instead(person, why, address, about, people)
                if chosen is None:
                    continue
                known[chosen.address] = chosen
                eligible.setdefault(chosen.address, why)
                if chosen is not person or not found.slack_group:
                    ungrouped.append(chosen.address)
    escalated = tuple(eligible) if source.is_escalation else ()
    return ResolvedSeat(
        0,
        eligible,
        (),
        tuple(errors),
        tuple(nobody),
        slack_groups=tuple(groups),
        ungrouped=tuple(ungrouped),
        escalated=escalated,
    )


def _instead(
    person: Person, why: str, address: str, about: RequestContext, people: People
) -> tuple[Person | None, str]:
    """Return who decides in a requester's place: they themselves, a manager, or nobody."""
    if address == SELF and person.address == about.on_behalf_of and person.address != about.requester:
        return person, why
    seen, above = [person.address], person
    while about.self_approval == "skip-up":
        manager = people.manager_of(above.address)
        if manager is None or manager.address in seen:
            break
        above = manager
        if above.address not in about.barred:
            return above, f"the manager of {people.person(seen[-1]).name}, who can't decide on an own request"
        seen.append(above.address)
    return None, ""


async def find_undecidable_stage(
    definition: Definition, opening: Opening, people: People, now: datetime
) -> tuple[str, str] | None:
    """Find the first stage that nobody could ever decide, and why; None if there is none. "": no stage applies.

    A source of people that can't be read now doesn't count: it is read again when the stage opens.
    """
    rules = rules_of(definition, opening)
    request = judged(request_of(rules, opening, at=now), rules, now, *rules.stages)
    if rules.ruling_of(request).automatic is not None:
        return None
    if definition.policy.when_nobody is None and (why := uncovered(rules.ruling_of(request))):
        return "", why
    ahead = list[tuple[RequestStage, Resolution]]()
    for stage in request.stages:
        if stage.state != "skipped":
            found = await resolve_seats(seat_queries(request, rules, stage), context_of(request, rules, stage), people)
            ahead.append((stage, found))
            if reason := why_undecidable(request, rules, stage, found):
                return stage.id, reason
    title = different_people(request, rules, ahead) if definition.policy.distinct else ""
    return (title, TOO_FEW) if title else None
