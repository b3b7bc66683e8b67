"""Grants: an approval that ends. What is given is removed, once, however long its target is down."""

from __future__ import annotations

from typing import Any

from approvals_bot.approvals.port import Called, Refused, TryAgain
from tests.approvals.conftest import ANN, BO, CFO, CY, DI, OpenedRequest

ACCESS = """
[workflow]
id = "access"
title = "{{ role }} for {{ requester }}"
request = ["*", "app:ci"]
owners = ["cfo@acme.eu"]
[fields]
role = { type = "string", pinned = true }
duration = "duration"
[[stage]]
id = "go"
from = ["@release-managers"]
[deliver]
slack = "#access"
email = true
[clock]
deadline = "4h"
[grant]
lasts = "{{ duration }}"
max = "8h"
give = { http = "aws-grant", json = { who = "{{ requester.email }}", role = "{{ role }}" } }
take = { http = "aws-revoke", json = { who = "{{ requester.email }}", role = "{{ role }}" } }
extend = "ask"
"""


async def ask(office: Any, lasts: str = "2h", text: str = ACCESS) -> OpenedRequest:
    opened: OpenedRequest = await office.ask(text, {"role": "admin", "duration": lasts})
    return opened


def calls(office: Any, target: str) -> list[str]:
    return [event for name, event, _ in office.targets.calls if name == target]


def last_of(office: Any) -> list[Any]:
    """Return the messages that say that nothing was given."""
    sent = [*office.slack.sent, *office.email.sent]
    return [one for one in sent if one.card.grant is not None and one.card.grant.state == "not_given"]


async def grant_of(opened: OpenedRequest) -> Any:
    return (await opened.view()).grant


async def test_what_is_given_is_taken_back_at_its_end(office: Any) -> None:
    async with office.open():
        opened = await ask(office)
        assert await grant_of(opened) is None
        assert await opened.vote(ANN) == "decided"
        view = await opened.view()
        assert (view.state, view.grant and view.grant.state) == ("approved", "active")
        assert view.grant is not None
        assert view.grant.until is not None
        assert view.grant.given_at is not None
        assert (view.grant.until - view.grant.given_at).total_seconds() == 7200
        assert await opened.run.status() == "running"
        assert office.targets.calls == [
            ("aws-grant", office.targets.calls[0][1], {"who": DI, "role": "admin"}),
        ]
        await office.clock.advance("1h 59m")
        assert (await grant_of(opened)).state == "active"
        await office.clock.advance("1m")
        assert [name for name, _, _ in office.targets.calls] == ["aws-grant", "aws-revoke"]
        assert len({event for _, event, _ in office.targets.calls}) == 2
        ended = await grant_of(opened)
        assert (ended.state, ended.taken_at, ended.attempts) == ("ended", view.grant.until, 1)
        assert (await opened.run.return_value())["approved"] is True


async def test_a_target_that_is_down_is_overdue_then_ends(office: Any) -> None:
    async with office.open():
        opened = await ask(office, "2s")
        await opened.vote(ANN)
        office.targets.answers = [TryAgain("no answer")] * 5
        await office.clock.advance("6s")
        overdue = await grant_of(opened)
        assert (overdue.state, overdue.error) == ("overdue", "no answer")
        assert any(sent.to.person.address == CFO for sent in office.slack.sent if hasattr(sent.to, "person"))
        await office.clock.advance("20m")
        assert (await grant_of(opened)).state == "ended"
        assert len(set(calls(office, "aws-grant"))) == len(calls(office, "aws-grant")) == 1
        assert len(calls(office, "aws-revoke")) == 6
        assert len(set(calls(office, "aws-revoke"))) == 1


async def test_a_refused_grant_is_said_and_none_is_active(office: Any) -> None:
    async with office.open():
        opened = await ask(office)
        office.targets.answers = [Refused("it answered 404")]
        await opened.vote(ANN)
        view = await opened.view()
        assert view.grant is not None
        assert (view.state, view.grant.state, view.grant.error) == ("approved", "not_given", "it answered 404")
        assert await opened.run.status() == "completed"
        assert {ANN, DI, CFO} <= {sent.to.person.address for sent in last_of(office) if hasattr(sent.to, "person")}
        assert calls(office, "aws-revoke") == []


async def test_an_uncertain_grant_is_taken_back(office: Any) -> None:
    async with office.open():
        opened = await ask(office)
        office.targets.answers = [TryAgain("no answer"), Refused("it answered 404")]
        await opened.vote(ANN)
        assert (await grant_of(opened)).state == "giving"
        await office.clock.advance("1m")
        assert [name for name, _, _ in office.targets.calls] == ["aws-grant", "aws-grant", "aws-revoke"]
        assert (await grant_of(opened)).state == "not_given"


async def test_a_revocation_ends_the_grant_at_once(office: Any) -> None:
    async with office.open():
        opened = await ask(office)
        assert (await opened.act(kind="revoke", by=BO))["verdict"] == "no_grant"
        await opened.vote(ANN)
        assert (await opened.act(kind="revoke", by="eve@acme.eu"))["verdict"] == "not_an_approver"
        assert (await opened.act(kind="revoke", by=BO, reason="too long"))["changed"] is True
        ended = await grant_of(opened)
        assert (ended.state, ended.revoked_by, ended.reason) == ("revoked", BO, "too long")
        assert [name for name, _, _ in office.targets.calls] == ["aws-grant", "aws-revoke"]
        again = await opened.act(kind="revoke", by=DI)
        assert (again["verdict"], again["changed"]) == ("revoked", False)
        assert await opened.run.status() == "completed"


async def test_a_revocation_before_it_is_given_takes_it_back(office: Any) -> None:
    async with office.open():
        opened = await ask(office)
        office.targets.answers = [TryAgain("no answer")]
        await opened.vote(ANN)
        assert (await opened.act(kind="revoke", by=CFO))["changed"] is True, "an owner may"
        assert [name for name, _, _ in office.targets.calls] == ["aws-grant", "aws-revoke"]
        assert (await grant_of(opened)).state == "revoked"


async def test_an_extension_asks_the_same_people(office: Any) -> None:
    async with office.open():
        opened = await ask(office)
        await opened.vote(ANN)
        before = await grant_of(opened)
        assert (await opened.act(kind="extend", by=BO, lasts="1h"))["verdict"] == "not_an_approver"
        assert (await opened.act(kind="extend", by=DI, lasts="7h"))["verdict"] == "invalid"
        assert (await opened.act(kind="extend", by=DI, lasts="1h"))["verdict"] == "extending"
        assert (await opened.act(kind="extend", by=DI, lasts="1h"))["verdict"] == "no_grant"
        assert (await grant_of(opened)).until == before.until
        record = await opened.record()
        assert [part.get("number", 0) for part in record.parts] == [0, 1]
        hook = await office.engine.find_hook(record.parts[1]["hook_id"])
        from approvals_bot.durable.core.api import WebhookRequest

        vote = WebhookRequest.of_json({"kind": "vote", "by": CY, "choice": "approve"})
        await office.engine.resume_webhook(hook.token, vote, timeout=20)
        await office.settle()
        after = await grant_of(opened)
        assert (after.until - before.until).total_seconds() == 3600
        await office.clock.advance("3h")
        assert (await grant_of(opened)).state == "ended"
        assert await opened.run.status() == "completed"


async def test_an_open_extension_ends_with_the_grant(office: Any) -> None:
    async with office.open():
        opened = await ask(office)
        await opened.vote(ANN)
        await opened.act(kind="extend", by=DI, lasts="1h")
        await office.clock.advance("2h")
        record = await opened.record()
        assert record.parts[0]["grant"]["state"] == "ended"
        assert record.parts[1]["state"] == "cancelled"
        assert await opened.run.status() == "completed"


async def test_a_rule_that_approves_gives_and_takes_too(office: Any) -> None:
    auto = ACCESS.replace("[[stage]]", '[[auto]]\nwhen = \'role == "admin"\'\ndecision = "approve"\n[[stage]]', 1)
    async with office.open():
        opened = await ask(office, text=auto)
        assert (await grant_of(opened)).state == "active"
        assert (await opened.act(kind="revoke", by=DI))["changed"] is True
        assert (await grant_of(opened)).state == "revoked"


async def test_a_cancellation_revokes_first(office: Any) -> None:
    async with office.open():
        opened = await ask(office)
        await opened.vote(ANN)
        office.targets.answers = [TryAgain("no answer"), Called(200)]
        assert (await opened.act(kind="withdraw", by=DI, reason="done"))["verdict"] == "revoked"
        assert await opened.run.status() == "running"
        await office.clock.advance("1m")
        assert (await grant_of(opened)).state == "revoked"
        assert await opened.run.status() == "cancelled"


async def test_a_reset_gives_again_under_the_same_id(office: Any) -> None:
    async with office.open():
        opened = await ask(office)
        await opened.vote(ANN)
        voted = next(event.seq for event in await opened.run.events() if event.type == "hook_received")
        reset = await office.engine.reset(opened.run.id, to=voted)
        await office.settle()
        assert (await reset.status(), len(calls(office, "aws-grant"))) == ("running", 2)
        assert len(set(calls(office, "aws-grant"))) == 1
