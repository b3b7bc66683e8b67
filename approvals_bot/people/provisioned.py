"""People and groups that an identity provider pushes here by SCIM.

Of each resource, only what people are looked up by is kept. `roster` is a view of it, so a change costs the same
however many people there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from approvals_bot.people.addresses import AddressError, IdentityRules
from approvals_bot.people.persons import Person
from approvals_bot.people.roster import Roster, Row

ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"
LONGEST_NAME = 200  # characters

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ProvisionedUser:
    """A user. `person`: None without a usable address. `manager`: the ID of another user, or an address.

    `addresses`: all that are theirs; the first is the person's.
    """

    id: str
    person: Person | None
    is_active: bool
    manager: str = ""
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ProvisionedGroup:
    """A group. `members`: the IDs of users and of other groups, in order."""

    id: str
    name: str
    members: tuple[str, ...] = ()


class ProvisionedPeople:
    """Everybody whom the identity provider keeps here, as this process has read them last."""

    def __init__(self, rules: IdentityRules) -> None:
        self.rules = rules
        self._users: dict[str, ProvisionedUser] = {}
        self._groups: dict[str, ProvisionedGroup] = {}
        self._by_address: dict[str, dict[str, None]] = {}  # the IDs of users who are known by this address
        self._having: dict[str, dict[str, None]] = {}  # the IDs of users with this among their addresses
        self._by_name: dict[str, dict[str, None]] = {}  # the IDs of groups with this name
        self._groups_of: dict[str, dict[str, None]] = {}  # the IDs of the groups that have this member
        self._barred: set[str] = set()
        self._domains: set[str] = set()
        self._members: dict[str, Mapping[str, None]] = {}  # of groups by name, until anything changes
        self.roster = Roster(
            rows=_View(self._row, self._by_address),
            groups=_View(self._members_of, self._by_name),
            domains=self._domains,
            barred=self._barred,
        )

    def put(self, kind: str, id: str, document: Mapping[str, Any] | None) -> None:
        """Update a resource from the provider's description; None: it was deleted."""
        if kind == "User":
            self.put_user(id, document)
        else:
            self.put_group(id, document)

    def put_user(self, id: str, document: Mapping[str, Any] | None) -> ProvisionedUser | None:
        """Update a user from the provider's description; None: they were deleted. Returns what they were before."""
        before = self._users.pop(id, None)
        self._members.clear()
        if before is not None and before.person is not None:
            _forget(self._by_address, before.person.address, id)
            for address in before.addresses:
                _forget(self._having, address, id)
        if document is not None:
            self._users[id] = after = self.read_user(id, document)
            if after.person is not None:
                self._by_address.setdefault(after.person.address, {})[id] = None
            for address in after.addresses:
                self._having.setdefault(address, {})[id] = None
        for user in (before, self._users.get(id)):
            for address in () if user is None else user.addresses:
                self._note(address)
        return before

    def put_group(self, id: str, document: Mapping[str, Any] | None) -> None:
        """Update a group from the provider's description; None: it was deleted."""
        before = self._groups.pop(id, None)
        self._members.clear()
        if before is not None:
            _forget(self._by_name, before.name, id)
            for member in dict.fromkeys(before.members):
                _forget(self._groups_of, member, id)
        if document is not None:
            members = (str(member.get("value", "")) for member in _list(document.get("members")))
            self._groups[id] = ProvisionedGroup(id, str(document.get("displayName") or ""), tuple(members))
            self._by_name.setdefault(self._groups[id].name, {})[id] = None
            for member in self._groups[id].members:
                self._groups_of.setdefault(member, {})[id] = None

    def read_user(self, id: str, document: Mapping[str, Any]) -> ProvisionedUser:
        """Return the user that the provider describes, without taking them over."""
        return _user(id, document, self.rules)

    def user(self, id: str) -> ProvisionedUser | None:
        return self._users.get(id)

    def groups_of(self, id: str) -> list[ProvisionedGroup]:
        """Return the groups that have this user as a member."""
        return [self._groups[group] for group in self._groups_of.get(id, ())]

    def counts(self) -> tuple[int, int]:
        """Return how many users and groups there are."""
        return len(self._users), len(self._groups)

    def _note(self, address: str) -> None:
        """Bar this address unless one of its users is active.

        Files may name a person by any of their addresses, and mail to each reaches them.
        """
        users = [self._users[id] for id in self._having.get(address, ())]
        if users and not any(user.is_active for user in users):
            self._barred.add(address)
        else:
            self._barred.discard(address)
        if users:
            self._domains.add(address.rpartition("@")[2])

    def _row(self, address: str) -> Row | None:
        """Return the active user with this address, the first of several."""
        users = (self._users[id] for id in self._by_address.get(address, ()))
        user = next((user for user in users if user.is_active), None)
        if user is None or user.person is None:
            return None
        return Row(user.person, self._address(user.manager), ())

    def _address(self, manager: str) -> str:
        user = self._users.get(manager)
        if user is not None:
            return "" if user.person is None else user.person.address
        try:
            return self.rules.canonical(manager)
        except AddressError:
            return ""

    def _members_of(self, name: str) -> Mapping[str, None] | None:
        if name not in self._by_name:
            return None
        if name not in self._members:
            self._members[name] = dict.fromkeys(self._within([*self._by_name[name]]))
        return self._members[name]

    def _within(self, groups: Sequence[str]) -> Iterator[str]:
        """Yield the addresses of everybody active in these groups and in the groups inside them."""
        waiting, seen = [*reversed(groups)], set[str]()
        while waiting:
            id = waiting.pop()
            if id in seen:
                continue
            seen.add(id)
            if (user := self._users.get(id)) is not None:
                if user.is_active and user.person is not None:
                    yield user.person.address
            elif (group := self._groups.get(id)) is not None:
                waiting += reversed(group.members)


@dataclass(frozen=True, slots=True)
class _View(Mapping[str, T]):
    """A mapping whose values are found when they are asked for. `keys_of`: those that may have one."""

    find: Any = field(repr=False)
    keys_of: Mapping[str, Any] = field(repr=False)

    def __getitem__(self, key: str) -> T:
        found: T | None = self.find(key)
        if found is None:
            raise KeyError(key)
        return found

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value, or the default, without an exception: most people have none."""
        found = self.find(key)
        return default if found is None else found

    def __iter__(self) -> Iterator[str]:
        return (key for key in self.keys_of if self.find(key) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _forget(index: dict[str, dict[str, None]], key: str, id: str) -> None:
    index[key].pop(id, None)
    if not index[key]:
        del index[key]


def _user(id: str, document: Mapping[str, Any], rules: IdentityRules) -> ProvisionedUser:
    usable = _usable_addresses(document, rules)
    is_active = document.get("active") is not False
    if not usable:
        return ProvisionedUser(id, None, is_active)
    (address, mail), *_ = usable.items()
    person = Person(address, _name(document), None, _zone(document.get("timezone")), "" if mail == address else mail)
    manager = _object(_object(document.get(ENTERPRISE)).get("manager")).get("value")
    return ProvisionedUser(id, person, is_active, str(manager or ""), tuple(usable))


def _usable_addresses(document: Mapping[str, Any], rules: IdentityRules) -> dict[str, str]:
    """Return the usable addresses, each as it is written: the primary one, that at work, others, the user's name."""
    found = dict[str, str]()
    emails = sorted(_list(document.get("emails")), key=lambda one: (not one.get("primary"), one.get("type") != "work"))
    for given in (*(email.get("value") for email in emails), document.get("userName")):
        try:
            if isinstance(given, str):
                found.setdefault(rules.canonical(given), given)
        except AddressError:
            continue
    return found


def _name(document: Mapping[str, Any]) -> str:
    name = _object(document.get("name"))
    parts = " ".join(str(name[key]) for key in ("givenName", "familyName") if name.get(key))
    for given in (document.get("displayName"), name.get("formatted"), parts):
        if isinstance(given, str) and given.strip() and given.isprintable() and len(given) <= LONGEST_NAME:
            return given.strip()
    return ""


def _zone(given: Any) -> str:
    try:
        return str(ZoneInfo(given)) if isinstance(given, str) and given else ""
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return ""


def _list(given: Any) -> list[Mapping[str, Any]]:
    return [one for one in given if isinstance(one, dict)] if isinstance(given, list) else []


def _object(given: Any) -> Mapping[str, Any]:
    return given if isinstance(given, dict) else {}
