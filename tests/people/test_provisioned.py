"""Whom an identity provider pushes: who they are, and what a change of one of them changes."""

from __future__ import annotations

from typing import Any

import pytest

from approvals_bot.approvals.eligibility import PeopleSource, RequestContext, SeatQuery
from approvals_bot.approvals.resolution import resolve_seats
from approvals_bot.people import IdentityRules, ListedGroup, NestedGroup, People, Person, SourceUnavailable
from approvals_bot.people.provisioned import ENTERPRISE, ProvisionedPeople

ANN, BO, CY = "ann@acme.eu", "bo@acme.eu", "cy@acme.eu"
NIGHT = ListedGroup("scim", "night-crew")


def user(address: str = "", **more: Any) -> dict[str, Any]:
    return {"userName": address or "b.lund", "emails": [{"value": address}] if address else [], "active": True} | more


@pytest.fixture
def kept() -> ProvisionedPeople:
    kept = ProvisionedPeople(IdentityRules())
    kept.put_user("1", user("Ann@acme.eu", displayName="Ann Ode", timezone="Europe/Berlin"))
    kept.put_user(
        "2", user(BO, name={"givenName": "Bo", "familyName": "Lund"}, **{ENTERPRISE: {"manager": {"value": "1"}}})
    )
    kept.put_group("3", {"displayName": "night-crew", "members": [{"value": "2"}, {"value": "4"}, {"value": "9"}]})
    kept.put_group("4", {"displayName": "day", "members": [{"value": "1"}, {"value": "3"}]})
    return kept


def people_with(kept: ProvisionedPeople, *persons: Person) -> People:
    people = People(persons, {"night": ListedGroup("scim", "night-crew"), "all": [ANN, CY]})
    people.rosters.pushed = kept.roster
    return people


async def listed(people: People, address: str, requester: str = BO) -> list[str]:
    resolved = await people.resolve(address, requester=requester)
    assert not resolved.errors
    return [person.address for person in resolved.persons]


async def test_pushed_people_have_names_managers_and_groups(kept: ProvisionedPeople) -> None:
    people = people_with(kept)
    ann, bo = people.person(ANN), people.person(BO)
    assert (ann.name, ann.zone, ann.mailbox, bo.name, bo.zone) == (
        "Ann Ode",
        "Europe/Berlin",
        "Ann@acme.eu",
        "Bo Lund",
        "UTC",
    )
    assert await listed(people, "manager-of:requester") == [ANN]
    assert await listed(people, "@night") == [BO, ANN]  # and a group within, without circles
    assert [await people.knows(one) for one in (BO, "eve@acme.eu")] == [True, False]
    assert len(people.rosters.pushed.rows) == 2
    kept.put_group("3", {"displayName": "night-crew", "members": [{"value": "1"}]})
    assert await listed(people, "@night") == [ANN]
    kept.put_group("3", None)
    assert await listed(people, "@night") == []


async def test_who_is_deactivated_may_nothing_whatever_files_say(kept: ProvisionedPeople) -> None:
    people = people_with(kept, Person(ANN, "Ann"))
    kept.put_user("1", user(ANN, active=False))
    assert not await people.knows(ANN)
    assert (await listed(people, "@all"), await listed(people, ANN), await listed(people, "@night")) == ([CY], [], [BO])
    assert await listed(people, "manager-of:requester") == []
    assert not await people.is_in(ANN, "night")
    kept.put_user("7", user(ANN))  # they are back, as a new user
    assert await people.knows(ANN)
    assert await listed(people, "@all") == [ANN, CY]
    kept.put_user("7", None)
    assert not await people.knows(ANN)
    kept.put_user("1", None)  # nobody says anything about them any more: the file does
    assert await people.knows(ANN)


async def test_a_deactivated_user_is_barred_at_every_address(kept: ProvisionedPeople) -> None:
    """Files may name them by another one than their primary address, and a mailed code reaches them there."""
    lund, old = "bo.lund@acme.eu", "bo@old.acme.eu"
    emails = [{"value": lund, "primary": True}, {"value": old}]
    kept.put_user("2", {"userName": BO, "emails": emails, "active": True})
    people = people_with(kept, Person(BO, "Bo"), Person(old, "Bo"))
    assert people.person(lund).address == lund
    assert [await people.knows(one) for one in (BO, lund, old)] == [True, True, True]
    kept.put_user("2", {"userName": BO, "emails": emails, "active": False})
    assert [await people.knows(one) for one in (BO, lund, old)] == [False, False, False]
    kept.put_user("8", user(old))  # somebody else has it now
    assert [await people.knows(one) for one in (BO, lund, old)] == [False, False, True]
    kept.put_user("2", None)
    assert [await people.knows(one) for one in (BO, lund, old)] == [True, False, True]


async def test_whom_a_missing_group_keeps_out_is_unknown(kept: ProvisionedPeople) -> None:
    groups: dict[str, Any] = {"staff": NestedGroup(("@all",), ("@night",)), "all": [ANN, BO, CY], "night": NIGHT}
    people = People([], groups)
    people.rosters.pushed = kept.roster
    assert await listed(people, "@staff") == [CY], "the night crew is Bo, and Ann within"
    kept.put_group("3", {"displayName": "night crew", "members": [{"value": "2"}]})  # it was renamed
    found = await people.resolve("@staff", requester=BO)
    assert (found.persons, [fault.source for fault in found.errors]) == ((), ["scim:night-crew"])
    with pytest.raises(SourceUnavailable):
        await people.is_in(CY, "night")  # as in `not requester.in("@night")`
    about = RequestContext("eve@acme.eu", exclude=("@night",))
    (seat,) = (await resolve_seats([SeatQuery(0, (PeopleSource(("@all",)),))], about, people)).seats
    assert (dict(seat.eligible), len(seat.errors)) == ({}, 1)


@pytest.mark.parametrize(
    ("document", "address"),
    [
        ({"userName": "b.lund", "emails": [{"value": "b@x.eu"}, {"value": BO, "primary": True}]}, BO),
        ({"userName": "b.lund", "emails": [{"value": "b@x.eu", "type": "home"}, {"value": BO, "type": "work"}]}, BO),
        ({"userName": "BO@acme.eu", "emails": [{"value": "bo at acme"}, {"type": "work"}]}, BO),
        ({"userName": "bo+x@acme.eu"}, BO),
        ({"userName": "bo@acme.local"}, "bo@acme.local"),
        ({"userName": "b.lund", "emails": "bo@acme.eu"}, None),
        ({"userName": "b.lund", "emails": [{"value": "bo@acme"}]}, None),
        ({}, None),
    ],
)
def test_a_usable_address_makes_a_person(document: dict[str, Any], address: str | None) -> None:
    kept = ProvisionedPeople(IdentityRules())
    kept.put_user("1", document)
    assert list(kept.roster.rows) == ([address] if address else [])
    assert kept.counts() == (1, 0)
