"""Resolving addresses to people: from the configuration, live sources, or the mail address alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from approvals_bot.people import (
    AddressError,
    Directory,
    FileSource,
    GroupAddress,
    GroupSource,
    IdentityRules,
    ManagerOf,
    NestedGroup,
    OnBehalfOf,
    OnCall,
    OwnerOf,
    People,
    Person,
    PersonAddress,
    Resolved,
    SlackGroupAddress,
    SlackGroupSource,
    SourceFault,
    SourceUnavailable,
    parse_address,
)

ANN = Person("ann@acme.eu", "Ann Ode", "U0ANN", "Europe/Berlin")
MANAGERS = {"ann@acme.eu": "cfo@acme.eu", "bo@acme.eu": "ann@acme.eu"}
BO = Person("bo@acme.eu", "Bo Lund", "U0BO")


class Slack:
    """A Slack with one user group, which can go down."""

    def __init__(self) -> None:
        self.up = True
        self.asked: list[str] = []

    async def members(self, handle: str) -> Sequence[str]:
        self.asked.append(handle)
        if not self.up:
            raise SourceUnavailable(f"slack:@{handle}", "Slack doesn't answer")
        return ["di@acme.eu", "BO@acme.eu"] if handle == "sre" else []


class FixedSource:
    """A live source that returns this JSON."""

    def __init__(self, answer: Any) -> None:
        self.name = "hr"
        self.answer = answer

    async def read(self) -> Any:
        return self.answer


def office(tmp_path: Path | None = None, slack: Slack | None = None, directory: Any = None) -> People:
    groups: dict[str, Any] = {"managers": ("ann@acme.eu", "Bo@acme.eu", "bo@acme.eu"), "empty": ()}
    if tmp_path is not None:
        groups["on-file"] = FileSource(tmp_path / "people.json")
    if slack is not None:
        groups["sre"] = SlackGroupSource("sre", slack.members)
    tables = Directory({"sre": ("di@acme.eu",)}, {"account": {"prod": ("cy@acme.eu", "ann@acme.eu")}})
    return People([ANN, BO], groups, directory or tables, slack.members if slack else None, managers=MANAGERS)


async def found(people: People, address: str, **about: Any) -> tuple[list[str], str]:
    resolved = await people.resolve(address, **{"requester": "bo@acme.eu"} | about)
    assert not resolved.errors
    return [person.address for person in resolved.persons], resolved.why


def test_person_is_identified_by_their_address() -> None:
    people = office()
    assert people.person("ANN@acme.eu") == ANN
    assert people.person("New.Hire@Acme.eu") == Person("new.hire@acme.eu", "new.hire", mail="New.Hire@Acme.eu")
    assert people.person("ann+work@acme.eu") == ANN
    assert people.by_slack("U0BO") == BO
    assert people.by_slack("U0NOBODY") is None


def test_known_people_are_all_that_the_configuration_names() -> None:
    addresses = {person.address for person in office().known()}
    assert addresses == {"ann@acme.eu", "bo@acme.eu", "cfo@acme.eu", "di@acme.eu", "cy@acme.eu"}


async def test_every_kind_of_address_resolves_with_a_reason() -> None:
    people = office(slack=Slack())
    assert await found(people, "zoe@acme.eu") == (["zoe@acme.eu"], "named in the workflow")
    assert await found(people, "@managers") == (["ann@acme.eu", "bo@acme.eu"], "in Managers")
    assert await found(people, "slack:@sre") == (["di@acme.eu", "bo@acme.eu"], "in slack:@sre")
    assert await found(people, "manager-of:requester") == (["ann@acme.eu"], "the manager of Bo Lund")
    assert await found(people, "manager-of:approver", approver="ann@acme.eu") == (
        ["cfo@acme.eu"],
        "the manager of Ann Ode",
    )
    assert await found(people, "manager-of:manager-of:requester") == (["cfo@acme.eu"], "the manager of Ann Ode")
    assert await found(people, "manager-of:manager-of:manager-of:requester") == ([], "cfo has no manager")
    assert await found(people, "oncall:sre") == (["di@acme.eu"], "on call for sre")
    assert await found(people, "owner-of:account", fields={"account": "prod"}) == (
        ["cy@acme.eu", "ann@acme.eu"],
        "the owner of account prod",
    )
    behalf = {"requester": "app:agent", "on_behalf_of": "ann@acme.eu"}
    assert await found(people, "on-behalf-of", **behalf) == (["ann@acme.eu"], "the person this is requested for")
    assert (await found(people, "manager-of:on-behalf-of", **behalf))[0] == ["cfo@acme.eu"]
    assert (await found(people, "manager-of:requester", **behalf))[0] == ["cfo@acme.eu"], "the human counts"


async def test_empty_resolution_says_why() -> None:
    people = office()
    assert await found(people, "@empty") == ([], "nobody is in empty")
    assert await found(people, "@nowhere") == ([], "there is no group nowhere")
    assert await found(people, "manager-of:requester", requester="cfo@acme.eu") == ([], "cfo has no manager")
    assert await found(people, "manager-of:requester", requester="app:ci") == ([], "there is no requester")
    assert await found(people, "manager-of:approver") == ([], "there is no approver")
    assert await found(people, "on-behalf-of") == ([], "the request isn't on anybody's behalf")
    assert await found(people, "owner-of:account", fields={"account": None}) == ([], "the request has no account")
    assert await found(people, "owner-of:account", fields={"account": "x"}) == ([], "nobody owns account x")
    assert await found(people, "oncall:dba") == ([], "nobody is on call for dba")


async def test_file_source_is_read_at_each_lookup(tmp_path: Path) -> None:
    people, path = office(tmp_path), tmp_path / "people.json"
    path.write_text(json.dumps({"people": ["ann@acme.eu"]}))
    assert await found(people, "@on-file") == (["ann@acme.eu"], "in On file")
    path.write_text(json.dumps(["cy@acme.eu"]))
    assert await found(people, "@on-file") == (["cy@acme.eu"], "in On file")
    assert await people.is_in("CY@acme.eu", "on-file")
    assert not await people.is_in("ann@acme.eu", "on-file")


@pytest.mark.parametrize(
    "content",
    [None, "", "{", "[" * 100_000, '{"members": []}', '{"people": "x y"}', '{"people": [5]}', "x" * 1_000_001, "null"],
    ids=lambda content: str(content)[:20],
)
async def test_failing_source_is_an_error_and_never_an_empty_group(tmp_path: Path, content: str | None) -> None:
    people = office(tmp_path)
    if content is not None:
        (tmp_path / "people.json").write_text(content)
    resolved = await people.resolve("@on-file", requester="bo@acme.eu")
    assert resolved.persons == ()
    assert len(resolved.errors) == 1
    assert resolved.errors[0].source == "people.json"
    assert str(tmp_path) not in str(resolved.errors[0])
    assert people.unreadable == {"people.json": resolved.errors[0].reason}
    with pytest.raises(SourceUnavailable):
        await people.is_in("ann@acme.eu", "on-file")


async def test_slack_group_is_read_at_each_lookup_and_may_fail() -> None:
    slack = Slack()
    people = office(slack=slack)
    assert await people.is_in("di@acme.eu", "sre")
    slack.up = False
    resolved = await people.resolve("@sre", requester="bo@acme.eu")
    assert resolved == Resolved((), resolved.why, (SourceFault("slack:@sre", "Slack doesn't answer"),))
    assert str(resolved.errors[0]) == "slack:@sre can't be read (Slack doesn't answer)"
    assert slack.asked == ["sre", "sre"]
    without = await office().resolve("slack:@sre", requester="bo@acme.eu")
    assert "not configured" in without.errors[0].reason


async def test_live_directory_has_the_shape_of_the_table() -> None:
    tables = {"oncall": {"sre": ["di@acme.eu"]}, "owner-of": {"account": {"prod": "cy@acme.eu"}}}
    people = office(directory=FixedSource(tables))
    assert (await found(people, "oncall:sre"))[0] == ["di@acme.eu"]
    assert (await found(people, "owner-of:account", fields={"account": "prod"}))[0] == ["cy@acme.eu"]
    wrong: list[Any] = [
        [],
        {},
        {"oncall": []},
        {"owner-of": {"account": ["x"]}},
        {"oncall": {"sre": "nobody"}},
        {"oncall": {"sre": {"a": "b"}}},
    ]
    for answer in wrong:
        resolved = await office(directory=FixedSource(answer)).resolve("oncall:sre", requester="bo@acme.eu")
        assert resolved.errors, answer


def test_every_kind_of_address_is_parsed() -> None:
    assert parse_address("Ann@Acme.eu") == PersonAddress("ann@acme.eu")
    assert parse_address("@release-managers") == GroupAddress("release-managers")
    assert parse_address("slack:@sre") == SlackGroupAddress("sre")
    assert parse_address("manager-of:requester") == ManagerOf("requester")
    assert parse_address("on-behalf-of") == OnBehalfOf()
    assert parse_address("owner-of:account") == OwnerOf("account")
    assert parse_address("oncall:sre") == OnCall("sre")


@pytest.mark.parametrize(
    "text",
    [
        *("", "ann", "@", "@a b", "slack:sre", "slack:@", "manager-of:me", "manager-of:", "owner-of:", "oncall:@x"),
        *("on-behalf-of:", "http://x", "a@b@c", "Ann <a@b.c>", "a@b\n", "a@b\u202e", "*", "app:ci"),
    ],
)
def test_invalid_addresses_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_address(text)


@given(st.text(max_size=40))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        parse_address(text)
    except ValueError:
        return
    assert "\n" not in text


async def test_somebody_is_known_by_any_source_and_an_outage_is_no_answer(tmp_path: Path) -> None:
    people, slack = office(tmp_path), Slack()
    (tmp_path / "people.json").write_text(json.dumps({"people": ["cy@acme.eu", "eve@acme.eu"]}))
    for spelling in ("Ann@ACME.eu", "cfo@acme.eu", "di@acme.eu", "EVE@acme.eu"):
        assert await people.knows(spelling)
    assert not await people.knows("zoe@acme.eu")
    with pytest.raises(AddressError):
        await people.knows("zoe")
    (tmp_path / "people.json").unlink()
    assert await people.knows("ann@acme.eu")
    with pytest.raises(SourceUnavailable):
        await people.knows("zoe@acme.eu")
    with_slack = office(slack=slack)
    slack.up = False
    with pytest.raises(SourceUnavailable):
        await with_slack.knows("zoe@acme.eu")


async def test_a_bad_entry_is_left_out_and_never_its_group(caplog: pytest.LogCaptureFixture) -> None:
    source = FixedSource({"people": ["Bo+x@acme.eu", "bo@acme.eu", "ann@acme", 5, "cy@ac\u200bme.eu", "cy@acme.eu"]})
    people = People([ANN, BO], {"live": source})
    assert await found(people, "@live") == (["bo@acme.eu", "cy@acme.eu"], "in Live")
    assert people.bad_entries == {"hr": 3}
    assert "hr has 3 entries" in caplog.text
    assert "@" not in caplog.text
    await people.resolve("@live", requester="bo@acme.eu")
    assert len(caplog.records) == 1
    source.answer = ["bo@acme.eu"]
    await people.read_sources()
    assert people.bad_entries == {"hr": 0}


async def test_a_bad_entry_of_a_directory_leaves_the_rest() -> None:
    tables = {"oncall": {"sre": ["x", "di@acme.eu"], "dba": ["x"]}, "owner-of": {"account": {"prod": "Cy@acme.eu"}}}
    people = People(directory=FixedSource(tables))
    assert (await found(people, "oncall:sre"))[0] == ["di@acme.eu"]
    assert (await found(people, "owner-of:account", fields={"account": "prod"}))[0] == ["cy@acme.eu"]
    assert (await people.resolve("oncall:dba", requester="bo@acme.eu")).errors, "unknown, not nobody"
    assert people.bad_entries == {"hr": 2}


async def test_mail_goes_where_it_is_configured_and_identity_is_one() -> None:
    rules = IdentityRules(domains={"acme.com": "acme.eu"})
    work = Person("Ann+Work@acme.com", "Ann Ode")
    people = People([work], {"us": ("ann@acme.eu", "ANN@acme.com", "Bo+x@acme.eu")}, rules=rules)
    resolved = await people.resolve("@us", requester="cy@acme.eu")
    assert [(each.address, each.mailbox) for each in resolved.persons] == [
        ("ann@acme.eu", "Ann+Work@acme.com"),
        ("bo@acme.eu", "Bo+x@acme.eu"),
    ]
    assert people.identity("app:ci") == "app:ci"
    assert people.identity("BO@acme.com") == "bo@acme.eu"


NESTED: dict[str, GroupSource] = {
    "core": ("ann@acme.eu", "bo@acme.eu", "cy@acme.eu"),
    "contractors": ("cy@acme.eu", "ed@acme.eu"),
    "staff": NestedGroup(("@core",), ("@contractors",)),
    "everyone": NestedGroup(("@staff", "slack:@sre", "fay@acme.eu")),
    "own": NestedGroup(("@core",), ("@outside",)),
}


async def members(people: People, group: str) -> list[str]:
    return [each.address for each in (await people.resolve(f"@{group}", requester="ann@acme.eu")).persons]


async def test_nested_group_has_its_parts_without_the_others() -> None:
    people = People([ANN, BO], NESTED, slack_group=Slack().members)
    assert await members(people, "staff") == ["ann@acme.eu", "bo@acme.eu"]
    assert await members(people, "everyone") == ["ann@acme.eu", "bo@acme.eu", "di@acme.eu", "fay@acme.eu"]
    everyone = await people.resolve("@everyone", requester="ann@acme.eu")
    assert everyone.why == "in Everyone (Staff, sre, fay)"
    assert (await people.resolve("@staff", requester="ann@acme.eu")).why == "in Staff (Core without Contractors)"
    assert {"ed@acme.eu", "fay@acme.eu"} <= {person.address for person in people.known()}


async def test_part_that_cannot_be_read_leaves_the_others_in() -> None:
    slack = Slack()
    slack.up = False
    people = People([ANN, BO], NESTED, slack_group=slack.members)
    assert await people.is_in("bo@acme.eu", "everyone")
    with pytest.raises(SourceUnavailable):
        await people.is_in("di@acme.eu", "everyone")


async def test_nobody_is_in_a_group_whose_exceptions_are_unknown() -> None:
    source = FixedSource({"people": ["bo@acme.eu"]})
    people = People([ANN, BO], {**NESTED, "outside": source})
    assert await members(people, "own") == ["ann@acme.eu", "cy@acme.eu"]
    source.answer = None
    unread = await people.resolve("@own", requester="ann@acme.eu")
    assert (unread.persons, [fault.source for fault in unread.errors]) == ((), ["hr"])
    with pytest.raises(SourceUnavailable):
        await people.is_in("ann@acme.eu", "own")
