"""Who somebody is: everybody the configuration and directories name, and everybody else by their address alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cached_property

from approvals_bot.people import absences
from approvals_bot.people.absences import Absence, Away
from approvals_bot.people.addresses import AddressError, IdentityRules, is_mail
from approvals_bot.people.own import OwnPeople
from approvals_bot.people.persons import Directory, GroupSource, Person
from approvals_bot.people.roster import Rosters, completed, merged
from approvals_bot.people.sources import LiveSource, NestedGroup


class PersonLookup:
    """Everybody the configuration names, and everybody else by address. No live source is asked."""

    def __init__(
        self,
        persons: Iterable[Person] = (),
        groups: Mapping[str, GroupSource] | None = None,
        directory: Directory | LiveSource | None = None,
        away: Mapping[str, Sequence[Absence]] | None = None,
        managers: Mapping[str, str] | None = None,
        rules: IdentityRules | None = None,
    ) -> None:
        """Collect what the configuration says about people; all mappings but `groups` are by address."""
        self.rules = rules or IdentityRules()
        self.own = OwnPeople()  # what people have set themselves: it adds to the configuration, or wins over it
        self.rosters = Rosters()  # everybody whom directories list: the configuration adds to it, and wins over it
        self._given: dict[str, Person] = {}
        for person in persons:
            self._given.setdefault(self.canonical(person.address), self._identified(person))
        self._persons = {identity: completed(person) for identity, person in self._given.items()}
        self._by_slack = {person.slack: person for person in self._persons.values() if person.slack}
        self.groups: Mapping[str, GroupSource] = dict(groups or {})
        self.directory = directory if directory is not None else Directory()
        self._managers = {self.canonical(address): manager for address, manager in (managers or {}).items()}
        self._away = {
            self.canonical(address): tuple(self._with_canonical_delegates(each) for each in planned)
            for address, planned in (away or {}).items()
        }

    def canonical(self, text: str) -> str:
        """Return the address by which this person is compared and stored. Raises AddressError."""
        return self.rules.canonical(text)

    def identity(self, key: str) -> str:
        """Return the identity behind a stored key: a person's address, or `app:ci` and the like as it is."""
        try:
            return self.canonical(key)
        except AddressError:
            return key

    def person(self, address: str) -> Person:
        """Return the person with this address. The name of an unknown one is the address's local part."""
        identity = self.canonical(address)
        row = self.rosters.row(identity)
        if row is not None:
            known = completed(merged(self._given.get(identity), row.person))
        else:
            known = self._persons.get(identity) or completed(self._identified(Person(address, "")))
        own = self.own.by_address.get(identity)
        return replace(known, zone=own.zone) if own is not None and own.zone else known

    def _identified(self, person: Person) -> Person:
        """Return the person by their identity. Their mailbox stays as it is written."""
        identity = self.canonical(person.address)
        if identity == person.address:
            return person
        return replace(person, address=identity, mail=person.mail or person.address)

    def _different(self, addresses: Iterable[str]) -> tuple[Person, ...]:
        """Return the different people among these addresses, in order."""
        found: dict[str, Person] = {}
        for address in addresses:
            person = self.person(address)
            found.setdefault(person.address, person)
        return tuple(found.values())

    def _with_canonical_delegates(self, absence: Absence) -> Absence:
        return replace(absence, delegates=tuple(dict.fromkeys(map(self.canonical, absence.delegates))))

    def by_slack(self, user_id: str) -> Person | None:
        """Return the person with this Slack ID in the configuration or a directory, or None.

        Others are found by the mail address that Slack has for them.
        """
        found = self._by_slack.get(user_id)
        if found is not None:
            return self.person(found.address)
        listed = self.rosters.by_slack(user_id)
        person = None if listed is None else self.person(listed)
        return person if person is not None and person.slack == user_id else None

    def manager_of(self, address: str) -> Person | None:
        """Return this person's manager; None if there is none, or nobody knows them any more.

        Raises SourceUnavailable if only the directory can say that, and it could not be read yet.
        """
        identity = self.canonical(address)
        manager = self._managers.get(identity)
        if manager is None:
            row = self.rosters.row(identity)
            manager = None if row is None else row.manager
            if not manager:
                self.rosters.check()
                return None
            if not self._is_named(self.canonical(manager)):
                return None
        person = self.person(manager)
        return None if self.rosters.is_barred(person.address) else person

    def is_colleague(self, address: str) -> bool:
        """Check whether the configuration or a directory names anybody with an address of the same domain.

        Raises AddressError for what is not an address.
        """
        domain = self.canonical(address).rpartition("@")[2]
        return domain in self._domains or self.rosters.has_domain(domain)

    def known(self) -> tuple[Person, ...]:
        """List everybody the configuration names, as a person, manager, group member or in the directory."""
        addresses = [*self._persons, *self._managers.values()]
        for members in self.groups.values():
            match members:
                case NestedGroup():
                    addresses += filter(is_mail, (*members.all, *members.without))
                case Sequence():
                    addresses += members
                case _:
                    pass
        if isinstance(self.directory, Directory):
            addresses += listed_in(self.directory)
        return self._different(addresses)

    def _is_named(self, person: str) -> bool:
        """Return whether the configuration or a directory names this person."""
        return person in self._named or self.rosters.row(person) is not None

    @cached_property
    def _domains(self) -> frozenset[str]:
        return frozenset(address.rpartition("@")[2] for address in self._named)

    @cached_property
    def _named(self) -> frozenset[str]:
        return frozenset(person.address for person in self.known())

    @property
    def has_absences(self) -> bool:
        """Whether anybody may ever be away. Nobody's absences have to be looked up otherwise."""
        return bool(self._away or self.own.by_address or self.rosters.has_absences)

    def away(self, address: str, at: datetime) -> Away | None:
        """Return this person's absence at this time, with its delegates; None if they aren't away."""
        return absences.away(self.canonical(address), at, self._absences) if self.has_absences else None

    def next_change(self, address: str, at: datetime) -> datetime | None:
        """Return when this person next leaves or comes back, by today's configuration; None for never."""
        return absences.next_change(self.canonical(address), at, self._absences) if self.has_absences else None

    @property
    def absences(self) -> Mapping[str, Sequence[Absence]]:
        """Every absence in the configuration and in directories, by address: past, present and future."""
        return {address: self.absences_of(address) for address in (*self._away, *self.rosters.absent())}

    def absences_of(self, address: str) -> tuple[Absence, ...]:
        """Return a person's absences but for those they have entered themselves: the configuration's first."""
        row = self.rosters.row(address)
        return (*self._away.get(address, ()), *(row.away if row is not None else ()))

    def _absences(self, address: str) -> tuple[Sequence[Absence], str]:
        return (*self.own.of(address).away, *self.absences_of(address)), self.person(address).zone


def listed_in(directory: Directory) -> Iterator[str]:
    for table in (directory.oncall, *directory.owner_of.values()):
        for members in table.values():
            yield from members
