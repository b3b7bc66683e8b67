"""Everybody whom a directory lists: how it is read, what counts, and what a mistake costs."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from approvals_bot.people import IdentityRules, ListedGroup, People, Person, Resolved, SourceFault, SourceUnavailable
from approvals_bot.people.absences import Absence
from approvals_bot.people.own import OwnSettings
from approvals_bot.people.roster import LARGEST_DIRECTORY, Roster, read_roster

ANN, BO, CY, CFO = "ann@acme.eu", "bo@acme.eu", "cy@acme.eu", "cfo@acme.eu"
LISTED: list[Any] = [
    {"address": "Ann@Acme.eu", "name": "Ann Ode", "slack": "U0ANN", "manager": CFO, "zone": "Europe/Berlin"},
    {"address": BO, "manager": ANN, "groups": ["sre", "berlin"], "shoe_size": 43},
    {"address": CFO, "name": "Cleo Fox", "groups": ["sre"]},
]
WEEK: dict[str, Any] = {"from": "2026-12-24", "until": "2026-12-31"}
NOON = datetime(2026, 12, 28, 12, tzinfo=UTC)


def read(people: Any, **more: Any) -> Roster:
    return read_roster(json.dumps({"version": 2, "people": people} | more).encode(), IdentityRules(), "people.json")


def staff(people: Any = LISTED, persons: tuple[Person, ...] = (), **more: Any) -> People:
    found = People(persons, {"sre": ListedGroup("directory", "sre")}, **more)
    found.rosters.listed = read(people)
    return found


async def persons(people: People, address: str, requester: str = BO) -> tuple[list[str], str]:
    resolved: Resolved = await people.resolve(address, requester=requester)
    return [each.address for each in resolved.persons], resolved.why


async def test_a_directory_says_who_people_are() -> None:
    people = staff()
    ann = people.person("ANN@acme.eu")
    assert (ann.name, ann.slack, ann.zone, ann.mailbox) == ("Ann Ode", "U0ANN", "Europe/Berlin", "Ann@Acme.eu")
    assert (people.person(BO).name, people.person(BO).zone) == ("bo", "UTC")
    assert people.by_slack("U0ANN") == ann
    assert await persons(people, "manager-of:requester") == ([ANN], "the manager of bo")
    assert await persons(people, "manager-of:manager-of:requester") == ([CFO], "the manager of Ann Ode")
    assert await persons(people, "@sre") == ([BO, CFO], "in SRE")
    assert [await people.is_in(one, "sre") for one in (BO, ANN)] == [True, False]
    assert [await people.knows(one) for one in (ANN, "eve@acme.eu")] == [True, False]
    assert people.is_colleague("new@acme.eu")


async def test_the_configuration_wins_value_by_value() -> None:
    people = staff(
        persons=(Person(ANN, "", "U0NEW", "", numbers="1.234,56"), Person(BO, "Bo Lund")), managers={ANN: BO}
    )
    ann = people.person(ANN)
    assert (ann.name, ann.slack, ann.zone, ann.numbers) == ("Ann Ode", "U0NEW", "Europe/Berlin", "1.234,56")
    assert people.by_slack("U0ANN") is None
    assert people.by_slack("U0NEW") == ann
    assert people.person(BO).name == "Bo Lund"
    assert await persons(people, "manager-of:requester", ANN) == ([BO], "the manager of Ann Ode")


@pytest.mark.parametrize(
    ("entry", "key", "message"),
    [
        ("ann@acme.eu", "people[1]", "is not an object"),
        ({"name": "Ann"}, "people[1].address", "is missing"),
        ({"address": "ann@acme"}, "people[1].address", "there is no dot after the @"),
        ({"address": "CY@acme.eu"}, "people[1].address", "the same person"),
        ({"address": ANN, "zone": "Mars"}, "people[1].zone", "is not a time zone"),
        ({"address": ANN, "manager": "the boss"}, "people[1].manager", "is not an email address"),
        ({"address": ANN, "slack": "ann"}, "people[1].slack", "is not a Slack user ID"),
        ({"address": ANN, "slack": "U0CY"}, "people[1].slack", "another person has this Slack ID"),
        ({"address": ANN, "name": 7}, "people[1].name", "is not a name"),
        ({"address": ANN, "groups": "sre"}, "people[1].groups", "is not a list of names"),
        ({"address": ANN, "away": [{"from": "soon"}]}, "people[1].away", "write {"),
        ({"address": ANN, "away": [WEEK | {"until": "2026-12-01"}]}, "people[1].away", "before it begins"),
        ({"address": ANN, "away": [WEEK | {"delegate": 7}]}, "people[1].away", "its delegate is not an address"),
    ],
)
def test_a_mistake_costs_only_what_is_wrong(entry: Any, key: str, message: str) -> None:
    roster = read([{"address": CY, "slack": "U0CY", "groups": ["sre"]}, entry, {"address": BO}])
    assert {CY, BO} <= roster.rows.keys()
    assert (roster.bad, [fault.key for fault in roster.faults]) == (1, [key])
    is_about_address = key in ("people[1]", "people[1].address")
    assert (ANN in roster.rows) is not is_about_address
    if "Slack ID, so" in roster.faults[0].message:  # it is nobody's
        assert roster.by_slack == {}
        assert roster.rows[CY].person.slack is None
    assert message in roster.faults[0].message


def test_faults_have_their_lines_and_are_all_counted() -> None:
    entries = [{"address": f"p{at}"} for at in range(30)]
    content = json.dumps({"people": [{"address": BO}, *entries]}, indent=1).encode()
    roster = read_roster(content, IdentityRules(), "people.json")
    assert (roster.bad, len(roster.faults)) == (30, 20)
    assert roster.faults[0].line == content.decode().split("\n").index('   "address": "p0"')  # of its {


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"[]", b"{}", b'{"people": {}}', b'{"people": [}', b'{"people": [{"address": "a@b.eu"},]}', b"\xff\xfe"),
        *(b'{"people": []} {}', b'{"people": [] "more": 1}', b'{"people": [' + b"[" * 100_000, b"{people: []}"),
    ],
)
def test_what_is_no_directory_cannot_be_read(content: bytes) -> None:
    with pytest.raises(SourceUnavailable, match="it is not JSON like"):
        read_roster(content, IdentityRules(), "people.json")
    assert read_roster(b'\xef\xbb\xbf {"people":[ ], "more": [1]}\n', IdentityRules(), "people.json").rows == {}


def test_a_directory_has_a_limit() -> None:
    with pytest.raises(SourceUnavailable, match="larger than 64,000,000 bytes"):
        read_roster(b" " * (LARGEST_DIRECTORY + 1), IdentityRules(), "people.json")


async def test_who_is_no_longer_listed_is_nobodys_manager() -> None:
    people = staff([LISTED[1], LISTED[2]])  # without Ann, whom Bo's entry still names
    assert await persons(people, "manager-of:requester") == ([], "bo has no manager who is still here")
    assert await persons(people, "manager-of:requester", CFO) == ([], "Cleo Fox has no manager")
    assert not await people.knows(ANN)
    assert await persons(staff([LISTED[1]], (Person(ANN, "Ann"),)), "manager-of:requester") == (
        [ANN],
        "the manager of bo",
    )


async def test_a_directory_that_was_never_read_is_unknown() -> None:
    people = People((Person(ANN, "Ann"),), {"sre": ListedGroup("directory", "sre")}, managers={ANN: CFO})
    people.rosters.fault = SourceFault("people.json", "No such file or directory")
    for address in ("@sre", "manager-of:requester"):
        assert (await people.resolve(address, requester=BO)).errors == (people.rosters.fault,)
    with pytest.raises(SourceUnavailable):
        await people.knows(BO)
    with pytest.raises(SourceUnavailable):
        await people.is_in(BO, "sre")
    assert await people.knows(ANN)
    assert await persons(people, "manager-of:requester", ANN) == ([CFO], "the manager of Ann")


async def test_absences_come_from_everywhere() -> None:
    """The delegates are those of the first list that names any: one's own, the configuration's, the directory's."""
    people = staff(
        [{"address": ANN, "away": [WEEK | {"delegate": BO}]}, {"address": CY, "away": [WEEK]}, {"address": BO}],
        away={CY: [Absence(NOON.date(), NOON.date(), (BO,))]},
    )

    def away(person: str) -> tuple[str, tuple[str, ...]] | None:
        found = people.away(person, NOON)
        return None if found is None else (found.back.isoformat(), found.delegates)

    assert away(ANN) == ("2027-01-01", (BO,))
    assert away(CY) == ("2027-01-01", (BO,))
    assert away(BO) is None
    people.own.by_address[ANN] = OwnSettings(away=(Absence(NOON.date(), NOON.date(), (CFO,)),))
    assert away(ANN) == ("2027-01-01", (CFO,))
    people.own.by_address[ANN] = OwnSettings(away=(Absence(NOON.date(), NOON.date()),))
    assert away(ANN) == ("2027-01-01", (BO,))
    assert people.next_change(CY, NOON) == datetime(2026, 12, 29, tzinfo=UTC)
    assert set(people.absences) == {ANN, CY}
