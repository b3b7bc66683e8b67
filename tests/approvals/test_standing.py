"""Approvals that also cover later requests."""

from __future__ import annotations

import random
import tomllib
from decimal import Decimal
from typing import Any

import pytest
from pydantic import JsonValue

from approvals_bot.approvals.explain import explain
from approvals_bot.approvals.given_grants import GivenVote, StandingGrant
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.request import Opening
from approvals_bot.approvals.simulate import simulate
from approvals_bot.approvals.standing import amount_of
from approvals_bot.approvals.standing_grants import (
    GrantUse,
    Revoked,
    StandingGrants,
    grants_in,
    with_grant,
    with_revocation,
    with_use,
)
from approvals_bot.cli.show import simulated
from approvals_bot.service.standing import StoredGrants
from tests.approvals.conftest import ANN, BO, CFO, CY, DI, START, Office, OpenedRequest

ACCESS = """
[workflow]
id = "standing-access"
title = "{{ role }} in {{ account }}"
request = ["*", "app:ci"]
[fields]
account = { type = "enum", values = ["dev", "prod"], pinned = true }
role = { type = "string", pinned = true }
amount = { type = "decimal", default = "10", pinned = true }
note = { type = "string", required = false }
[standing]
match = ["account", "role"]
lasts = "30d"
times = 3
sum = { field = "amount", max = "100" }
[[stage]]
id = "go"
from = ["@live"]
[[stage]]
id = "money"
when = 'amount > 50'
from = ["@finance"]
[[auto]]
when = 'role == "root"'
decision = "reject"
[deliver]
email = true
"""

PROD: dict[str, JsonValue] = {"account": "prod", "role": "admin"}


async def ask(office: Office, fields: dict[str, JsonValue] = PROD, text: str = ACCESS, **more: Any) -> OpenedRequest:
    office.engine.resources[StandingGrants] = StoredGrants(office.engine)
    await office.clock.advance("1s")
    return await office.ask(text, {**PROD, **fields}, **more)


async def given(office: Office, fields: dict[str, JsonValue] = PROD, text: str = ACCESS, **more: Any) -> OpenedRequest:
    """Open a request and have it approved, by Bo."""
    opened = await ask(office, fields, text, **more)
    assert await opened.vote(BO) in ("decided", "counted")
    return opened


async def by(opened: OpenedRequest) -> str:
    """Return who has decided; "" while nobody has."""
    view = await opened.view()
    return view.outcome.by if view.outcome is not None else ""


async def test_an_approval_covers_later_equal_requests(office: Office) -> None:
    async with office.open():
        first = await given(office)
        grant = f"grant:{first.run.id}"
        view = await first.view()
        assert view.standing is not None
        assert (view.standing.grant.id, view.standing.grant.times) == (grant, 3)
        covered = [await ask(office, {"note": f"nr {n}"}) for n in range(4)]
        assert [await by(each) for each in covered] == [grant, grant, grant, ""], "the approved one doesn't count"
        view = await covered[1].view()
        assert view.state == "approved"
        assert view.outcome is not None
        assert view.outcome.actor is not None
        assert (view.outcome.actor.kind, view.outcome.actor.id) == ("grant", grant)
        assert view.outcome.because == (
            "Covered by the approval of “admin in prod” by Bo Lund: use 2 of 3, until 1 Apr 2026."
        )
        assert view.name(grant).text == "an earlier approval"
        assert explain(view)["rules"][-1]["because"] == view.outcome.because
        assert [each["rule"] for each in explain(await first.view())["rules"]][-1] == grant
        assert view.standing is None, "what is covered gives nothing"
        assert (await covered[1].record()).status == "completed"
        assert [dispatch.occasion for dispatch in office.email.to(DI)].count("outcome") == 4
        occasions = [dispatch.occasion for dispatch in office.email.to(BO)]
        assert occasions.count("request") == 2, "nobody is asked about what is covered"


async def test_a_simulation_says_what_the_file_allows_besides(office: Office) -> None:
    definition = Definition.model_validate(tomllib.loads(ACCESS))
    found = await simulate(definition, Opening({**PROD}, DI), office.people, START)
    assert found["besides"] == [
        "An approval also covers later requests with the same account and role, of the same requester, for 30 d: "
        "at most 3 of them and 100 of amount in all."
    ]
    assert found["besides"][0] in simulated("access", found, START)


@pytest.mark.parametrize(
    ("fields", "more"),
    [
        ({"role": "reader"}, {}),
        ({"role": "Admin"}, {}),
        ({"account": "dev"}, {}),
        ({}, {"by": CY}),
        ({}, {"behalf": ANN}),
        ({}, {"by": "app:ci"}),
        ({"amount": "-1"}, {}),
        ({"amount": "60"}, {}),  # another stage, which the approval never passed
    ],
)
async def test_other_requests_are_not_covered(
    office: Office, fields: dict[str, JsonValue], more: dict[str, Any]
) -> None:
    async with office.open():
        await given(office)
        opened = await ask(office, fields, **more)
        assert await by(opened) == ""
        assert (await opened.view()).state == "waiting"


async def test_a_changed_file_begins_without_grants(office: Office) -> None:
    async with office.open():
        await given(office)
        assert await by(await ask(office, text=ACCESS.replace("30d", "31d"))) == ""
        assert await by(await ask(office)) != ""


async def test_a_rule_decides_before_any_grant(office: Office) -> None:
    async with office.open():
        rejecting = ACCESS.replace('role == "root"', 'note == "no"')
        await given(office, {"note": "yes"}, rejecting)
        assert await by(await ask(office, {"note": "no"}, rejecting)) == "rule:1"


async def test_sums_are_limited_over_all_uses(office: Office) -> None:
    async with office.open():
        await given(office)
        amounts = ["50", "45", "5.01", "5"]
        found = [await by(await ask(office, {"amount": amount})) for amount in amounts]
        assert [each.partition(":")[0] for each in found] == ["grant", "grant", "", "grant"]


async def test_a_grant_ends_with_its_time(office: Office) -> None:
    async with office.open():
        await given(office)
        await office.clock.advance("29d")
        assert (await by(await ask(office))).startswith("grant:")
        await office.clock.advance("1d")
        assert await by(await ask(office)) == ""


async def test_a_grant_ends_at_once_when_it_is_revoked(office: Office) -> None:
    async with office.open():
        first = await given(office)
        gives = (await first.view()).standing
        assert gives is not None
        stored = StoredGrants(office.engine)
        assert await stored.revoke(gives.scope, gives.grant.id, DI, "left the team")
        assert not await stored.revoke(gives.scope, gives.grant.id, DI, "again"), "it is over"
        assert await by(await ask(office)) == ""
        await given(office)
        assert (await by(await ask(office))).startswith("grant:"), "a new approval gives a new one"


async def test_a_grant_is_void_while_its_giver_has_left(office: Office) -> None:
    async with office.open():
        await given(office)
        office.live.people = [CY]
        assert await by(await ask(office)) == ""
        office.live.is_down = True
        assert await by(await ask(office)) == "", "who can't be looked up gives nothing"
        office.live.is_down, office.live.people = False, [BO, CY]
        assert (await by(await ask(office))).startswith("grant:")


async def test_nobody_is_covered_by_their_own_approval(office: Office) -> None:
    async with office.open():
        text = ACCESS.replace("times = 3", 'times = 3\nfor = "anyone"')
        await given(office, text=text)
        assert await by(await ask(office, text=text, by=BO)) == "", "Bo gave it"
        assert (await by(await ask(office, text=text, by=CFO))).startswith("grant:")
        assert (await by(await ask(office, text=text, by=CFO, behalf=ANN))).startswith("grant:")
        assert await by(await ask(office, text=text, by=CFO, behalf=BO)) == "", "nor is it for Bo"


async def test_all_votes_of_a_grant_have_to_count_still(office: Office) -> None:
    text = ACCESS.replace('from = ["@live"]', 'from = ["@live"]\nneed = "all"')
    async with office.open():
        first = await given(office, text=text)
        assert await first.vote(CY) == "decided"
        assert (await by(await ask(office, text=text))).startswith("grant:")
        office.live.people = [BO, CY, ANN]
        assert await by(await ask(office, text=text)) == "", "everybody includes Ann now"


@pytest.mark.parametrize(
    "text",
    [
        ACCESS.replace("[deliver]", '[clock]\ndeadline = "1h"\non_deadline = "approve"\ni_know = true\n[deliver]'),
        ACCESS.replace('"reject"\n[deliver]', '"approve"\n[deliver]').replace('role == "root"', 'role == "admin"'),
    ],
)
async def test_silence_and_rules_cover_nothing_later(office: Office, text: str) -> None:
    async with office.open():
        opened = await ask(office, text=text)
        await office.clock.advance("1h")
        view = await opened.view()
        assert view.state == "approved"
        assert view.standing is None


async def test_an_edited_request_is_not_covered(office: Office) -> None:
    async with office.open():
        other = await ask(office, {"role": "reader"})
        await given(office)
        assert (await other.act(kind="edit", by=DI, fields={"role": "admin"}))["verdict"] == "edited"
        assert await by(other) == "", "its own stages decide it"
        covered = await ask(office)
        assert (await covered.view()).hook_id == "", "nothing about a covered request can be edited"


async def test_what_was_open_before_is_not_covered(office: Office) -> None:
    async with office.open():
        before = await ask(office)
        await given(office)
        assert await by(before) == ""
        assert (await before.view()).state == "waiting"


# ── the list, as a store keeps it ──


def grant(number: int = 1, times: int = 5, **more: Any) -> StandingGrant:
    return StandingGrant(
        f"grant:{number}", "r", "t", (GivenVote("go", BO),), START, more.pop("until", END), times, **more
    )


END = START.replace(year=2027)
LATER = START.replace(hour=12)


def use(number: int, **values: Any) -> GrantUse:
    return GrantUse(f"run_{number}", LATER, values, {name: Decimal(str(value)) for name, value in values.items()})


def test_a_use_counts_once_however_often_it_comes() -> None:
    state = with_grant({}, grant(times=2))
    assert state is not None
    first, after = with_use(state, "grant:1", use(1), LATER)
    assert after is not None
    assert first is not None
    assert first.number == 1
    again, unchanged = with_use(after, "grant:1", use(1), LATER)
    assert (again, unchanged) == (first, None)
    assert with_grant(after, grant(times=9)) is None, "nor is it given twice"


@pytest.mark.parametrize("seed", range(20))
def test_limits_hold_for_any_order_of_uses(seed: int) -> None:
    draw = random.Random(seed)  # noqa: S311  # the same amounts each time
    limits: dict[str, Any] = {"sums": {"price": Decimal(40)}, "at_most": {"price": Decimal(20)}}
    state: Any = with_grant({}, grant(times=5, **limits))
    for _ in range(60):
        amount = draw.choice([0, 1, 7, 12.5, 19, 20, 21, 30])
        _, after = with_use(state, "grant:1", use(draw.randrange(30), price=amount), LATER)
        state = after or state
    (kept,) = grants_in(state)
    assert len(kept.uses) <= 5
    assert kept.total("price") <= 40
    assert all(each.amounts["price"] <= 20 for each in kept.uses)
    assert len({each.request for each in kept.uses}) == len(kept.uses)


def test_a_missing_or_other_value_is_not_covered() -> None:
    for limit in ({"sums": {"price": Decimal(9)}}, {"at_most": {"price": Decimal(9)}}, {"same": {"price": 5}}):
        state = with_grant({}, grant(**limit))
        assert state is not None
        assert with_use(state, "grant:1", use(1), LATER) == (None, None)
        assert with_use(state, "grant:1", use(1, price=6 if "same" in limit else 10), LATER) == (None, None)
        assert with_use(state, "grant:1", use(1, price=5), LATER)[0] is not None
    same = with_grant({}, grant(same={"who": "1"}))
    assert same is not None
    assert with_use(same, "grant:1", GrantUse("r", LATER, {"who": 1}), LATER) == (None, None), "another type"


@pytest.mark.parametrize("value", [None, True, -1, "-1", "x", "NaN", "Infinity", "1e999", [], {}, 10**15])
def test_what_is_no_amount_is_not_added_up(value: Any) -> None:
    assert amount_of(value) is None


def test_the_oldest_grants_that_are_over_are_dropped_first() -> None:
    state: Any = with_grant({}, grant(0))
    state = with_grant(state, grant(1, until=LATER)) or state
    state = with_revocation(state, "grant:1", Revoked(DI, START)) or state
    for number in range(2, 51):
        state = with_grant(state, grant(number)) or state
    ids = [each.grant.id for each in grants_in(state)]
    assert len(ids) == 50
    assert "grant:0" in ids
    assert "grant:1" not in ids
