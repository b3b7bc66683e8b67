"""Messages notify people: a card, a reminder and an escalation, by the rules of Slack's notifications."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from approvals_bot.approvals.port import Channels, Delivered, Dispatch, Receipt, Result, place_name
from approvals_bot.people import Person
from approvals_bot.playground import User
from tests.support.slack_office import DEPLOY, Office

ANN, CY, DI, FIN = (f"{name}@acme.eu" for name in ("ann", "cy", "di", "fin"))
SLOWLY = {"deadline": "8h", "remind": ["1h"]}


@dataclass
class Letters:
    """A mail channel that records."""

    sent: list[Dispatch] = field(default_factory=list)

    async def send(self, dispatch: Dispatch) -> Result:
        self.sent.append(dispatch)
        return Delivered(Receipt(place_name(dispatch.to), f"m{len(self.sent)}", dispatch.card.version))

    async def update(self, receipt: Receipt, dispatch: Dispatch) -> Result:
        return Delivered(receipt)


def stage(*people: str, **more: Any) -> list[dict[str, Any]]:
    return [DEPLOY["stage"][0] | {"from": list(people)} | more]


def rung(office: Office) -> list[tuple[str, str, tuple[str, ...]]]:
    """Return where each message is, what it says, and whom it notified."""
    space = office.playground.workspace
    where = [f"{space.channels[one.channel].label}{' thread' if one.thread_ts else ''}" for one in office.cards]
    return [(place, one.text.partition(".")[0], one.notified) for place, one in zip(where, office.cards, strict=True)]


def elements(message: Any, kind: str) -> list[dict[str, Any]]:
    """Return the elements of rich text of one kind."""

    def walk(value: Any) -> list[dict[str, Any]]:
        match value:
            case dict():
                own = [value] if value.get("type") == kind else []
                return own + [one for part in value.values() for one in walk(part)]
            case list():
                return [one for part in value for one in walk(part)]
            case _:
                return []

    return walk([block for block in message.blocks if block["type"] == "rich_text"])


async def test_a_first_card_mentions_its_few_approvers(office: Office) -> None:
    await office.ask()
    assert [one["user_id"] for one in elements(office.card, "user")] == ["U0ANN", "U0CY"]
    assert rung(office) == [("#deploys", "⏳ Waiting: Deploy api 2", ("U0ANN", "U0CY"))]
    answer = await office.press("U0ANN", "Why me?")
    assert "You're an approver" in answer["ephemeral"]


async def test_many_approvers_are_mentioned_by_their_group(office: Office) -> None:
    space = office.playground.workspace
    crew = [User(Person(f"p{number}@acme.eu", f"P {number}", f"U0P{number}")) for number in range(7)]
    space.add_people_and_channels(crew, ())
    space.set_group("sre", [one.address for one in crew])
    await office.ask(stage=stage("slack:@sre", CY))
    assert [one["usergroup_id"] for one in elements(office.card, "usergroup")] == ["S0SRE"]
    assert office.card.notified == (*(one.id for one in crew), "U0CY")


async def test_a_reminder_notifies_exactly_who_is_still_owed(office: Office) -> None:
    run_id = await office.ask(stage=stage(ANN, CY, DI, need=3), clock=SLOWLY)
    await office.press("U0ANN", "Approve")
    assert len(await office.votes(run_id)) == 1
    await office.clock.advance("61m")
    await office.until(lambda: len(office.cards) == 2)
    assert rung(office)[1] == ("#deploys thread", "Reminder: this is still waiting for a decision", ("U0CY", "U0DI"))
    await office.clock.advance("1h")
    assert len(office.cards) == 2


async def test_people_outside_the_channel_get_their_own_card(office: Office) -> None:
    channel = office.playground.workspace.find_channel("#deploys")
    assert channel is not None
    channel.members.discard("U0CY")
    await office.ask(clock=SLOWLY)
    await office.until(lambda: len(office.cards) == 2)
    assert rung(office) == [
        ("#deploys", "⏳ Waiting: Deploy api 2", ("U0ANN",)),
        ("@cy", "⏳ Waiting: Deploy api 2", ("U0CY",)),
    ]
    await office.clock.advance("61m")
    await office.until(lambda: len(office.cards) == 4)
    reminded = sorted((place, notified) for place, said, notified in rung(office) if said.startswith("Reminder"))
    assert reminded == [("#deploys thread", ("U0ANN",)), ("@cy thread", ("U0CY",))]


async def test_people_without_slack_are_notified_by_mail(office: Office) -> None:
    mail = office.engine.resources[Channels].by_name["email"] = Letters()
    await office.ask(stage=stage(ANN, FIN), clock=SLOWLY)
    await office.until(lambda: len(mail.sent) == 1)
    assert [(place_name(one.to), one.occasion) for one in mail.sent] == [(FIN, "request")]
    await office.clock.advance("61m")
    await office.until(lambda: len(mail.sent) == 2 and len(office.cards) == 2)
    assert [(place_name(one.to), one.occasion) for one in mail.sent[1:]] == [(FIN, "reminder")]
    assert rung(office)[1][2] == ("U0ANN",)


async def test_a_reminder_in_a_direct_message_mentions_its_reader(office: Office) -> None:
    await office.ask(stage=stage(ANN), deliver={"dm": True}, clock=SLOWLY)
    await office.clock.advance("61m")
    await office.until(lambda: len(office.cards) == 2)
    assert [(place, notified) for place, _, notified in rung(office)] == [
        ("@ann", ("U0ANN",)),
        ("@ann thread", ("U0ANN",)),
    ]


async def test_an_escalation_sends_a_direct_message_whatever_the_file_says(office: Office) -> None:
    await office.ask(stage=stage(ANN), clock={"deadline": "8h"}, escalate=[{"after": "2h", "to": [DI], "mode": "add"}])
    await office.clock.advance("121m")
    await office.until(lambda: len(office.cards) == 3)
    assert sorted(rung(office)[1:]) == [
        ("#deploys thread", "Nobody has decided yet, so this has been escalated", ("U0ANN",)),
        ("@di", "⏳ Waiting: Deploy api 2", ("U0DI",)),
    ]


async def test_an_escalation_reaches_people_without_slack_by_mail(office: Office) -> None:
    mail = office.engine.resources[Channels].by_name["email"] = Letters()
    late = [{"after": "2h", "to": [FIN], "mode": "replace"}]
    await office.ask(stage=stage(ANN), clock={"deadline": "8h"}, escalate=late)
    await office.clock.advance("121m")
    await office.until(lambda: len(mail.sent) == 1)
    assert [(place_name(one.to), one.occasion) for one in mail.sent] == [(FIN, "escalation")]


async def test_an_escalation_to_nobody_reminds_those_who_were_asked(office: Office) -> None:
    late = [{"after": "2h", "to": ["manager-of:approver"], "mode": "replace"}]
    await office.ask(stage=stage(ANN), clock={"deadline": "8h"}, deliver={"dm": True}, escalate=late)
    await office.clock.advance("121m")
    await office.until(lambda: len(office.cards) == 2)
    assert rung(office)[1] == ("@ann thread", "Reminder: this is still waiting for a decision", ("U0ANN",))
    answer = await office.press("U0ANN", "Approve", channel=office.card.channel, ts=office.card.ts)
    assert answer["status"] == 200


async def test_a_person_with_a_direct_message_is_not_mentioned_too(office: Office) -> None:
    await office.ask(stage=stage(ANN, CY), deliver={"slack": "#deploys", "dm": True})
    await office.until(lambda: len(office.cards) == 3)
    assert sorted(user for _, _, users in rung(office) for user in users) == ["U0ANN", "U0CY"]


async def test_the_next_stages_approvers_are_mentioned_when_it_opens(office: Office) -> None:
    stages = [*stage(ANN, id="one"), *stage(DI, id="two")]
    await office.ask(stage=stages)
    await office.press("U0ANN", "Approve")
    await office.until(lambda: len(office.cards) == 2)
    assert (rung(office)[1][0], rung(office)[1][2]) == ("#deploys thread", ("U0DI",))


async def test_an_edited_card_names_only_those_still_owed(office: Office) -> None:
    await office.ask(stage=stage(ANN, CY, need=2))
    await office.press("U0ANN", "Approve")
    await office.until(lambda: office.card.edited is not None)
    assert [one["user_id"] for one in elements(office.card, "user")] == ["U0CY"]


@pytest.mark.parametrize("scope", ["users:read.email", "channels:read"])
async def test_a_missing_scope_costs_a_mention_and_no_card(office: Office, scope: str) -> None:
    space = office.playground.workspace
    space.app = replace(space.app, scopes=tuple(each for each in space.app.scopes if each != scope))
    mail = office.engine.resources[Channels].by_name["email"] = Letters()
    await office.ask(stage=stage(ANN, CY))
    if scope == "users:read.email":
        await office.until(lambda: len(mail.sent) == 1)
        assert (office.card.notified, place_name(mail.sent[0].to)) == (("U0ANN",), CY)
    else:
        assert office.card.notified == ("U0ANN", "U0CY")


async def test_a_mention_that_cannot_be_looked_up_waits_with_its_card(office: Office) -> None:
    office.fault("server_error", "users.lookupByEmail")
    asking = asyncio.create_task(office.ask(stage=stage(CY)))
    await office.until(lambda: not office.playground.slack_faults.pending())
    assert office.cards == []
    await office.clock.advance("5s")
    await asking
    assert (len(office.cards), office.card.notified) == (1, ("U0CY",))
