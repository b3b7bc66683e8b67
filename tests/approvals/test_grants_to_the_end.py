"""Whatever ends the run of a grant, what was given is removed first."""

from __future__ import annotations

import asyncio
import tomllib
from typing import Any

import pytest
from pydantic import JsonValue

from approvals_bot import RunCancelledError, run_child, workflow
from approvals_bot.approvals.grant_life import GrantLife
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.port import CallResult, Refused, TryAgain
from approvals_bot.approvals.request import Opening
from approvals_bot.approvals.standing_grants import StandingGrants
from approvals_bot.approvals.workflow import approval
from approvals_bot.durable.core.api import WebhookRequest
from approvals_bot.service.standing import StoredGrants
from tests.approvals.conftest import ANN, BO, DI, OpenedRequest
from tests.approvals.test_cancelled_runs import is_over
from tests.approvals.test_grants import ACCESS, ask, calls, grant_of

GIVE, TAKE = "aws-grant", "aws-revoke"
STANDING = ACCESS + '[standing]\nmatch = ["role"]\nlasts = "30d"\n'


async def send(office: Any, opened: OpenedRequest, **act: Any) -> None:
    """Send an act without waiting for its reply."""
    target = await office.engine.find((await opened.view()).hook_id)
    await office.engine.send_to_webhook(target, WebhookRequest.of_json(act))


@pytest.mark.parametrize("act", [{"kind": "revoke", "by": BO}, {"kind": "extend", "by": DI, "lasts": "1h"}])
async def test_an_act_right_behind_the_vote_ends_no_run(office: Any, act: dict[str, Any]) -> None:
    """The log has both before the run sees either: the service was down, or busy."""
    async with office.open():
        opened = await ask(office)
        may_read, read = asyncio.Event(), office.people.resolve

        async def slow(*args: Any, **options: Any) -> Any:
            await may_read.wait()
            return await read(*args, **options)

        office.people.resolve = slow
        await send(office, opened, kind="vote", by=ANN, choice="approve")
        await send(office, opened, **act)
        may_read.set()
        await office.settle()
        office.people.resolve = read
        grant = await grant_of(opened)
        is_over = act["kind"] == "revoke"
        assert (grant.state, await opened.run.status()) == (
            ("revoked", "completed") if is_over else ("active", "running")
        )
        assert len(calls(office, GIVE)) == len(calls(office, TAKE)) or not is_over


@pytest.mark.parametrize("how", ["the run", "its parent", "its end"])
async def test_a_cancelled_run_removes_it_however_long(office: Any, how: str) -> None:
    async with office.open():
        definition = Definition.model_validate(tomllib.loads(ACCESS))
        listed = approval.under(definition.id, definition.model_dump(mode="json"))

        @workflow
        async def parent_of_a_grant() -> None:
            child = asyncio.ensure_future(run_child(listed, Opening({"role": "admin", "duration": "2h"}, DI)))
            await (asyncio.sleep(3600) if how == "its end" else child)

        parent = await office.engine.start(parent_of_a_grant)
        await office.settle()
        (child,) = [each for each in (await office.engine.records()).records if each.workflow == "access"]
        opened = OpenedRequest(office, office.engine.get_run(child.id))
        await opened.vote(ANN)
        office.targets.answers = [TryAgain("no answer")] * 9
        if how == "its end":
            await office.clock.advance("1h")
        else:
            await (opened.run if how == "the run" else parent).cancel("enough")
        await office.clock.advance("2m")
        assert ((await grant_of(opened)).state, await opened.run.status()) == ("overdue", "running")
        await office.clock.advance("1h")
        assert ((await grant_of(opened)).state, await opened.run.status()) == ("revoked", "cancelled")
        assert len(set(calls(office, TAKE))) == 1
        with pytest.raises(RunCancelledError):
            await opened.run.return_value()


async def test_a_cancellation_before_it_is_given_gives_nothing(office: Any) -> None:
    """It comes after the decision, while the approval for later requests is being stored."""
    async with office.open():
        may_give = asyncio.Event()

        class Slow(StoredGrants):
            async def give(self, scope: str, grant: Any) -> None:
                await may_give.wait()
                await super().give(scope, grant)

        office.engine.resources[StandingGrants] = Slow(office.engine)
        opened = await ask(office, text=STANDING)
        await send(office, opened, kind="vote", by=ANN, choice="approve")
        await office.settle()
        await opened.run.cancel("a mistake")
        may_give.set()
        assert await is_over(opened.run) == ("cancelled", "a mistake")
        assert office.targets.calls == []
        assert (await grant_of(opened)).state == "revoked"


async def test_a_stalled_run_is_not_cancelled_with_its_grant(office: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*args: Any) -> None:
        raise NameError("no such name")

    async with office.open():
        opened = await ask(office)
        await opened.vote(ANN)
        with monkeypatch.context() as broken:
            broken.setattr(GrantLife, "_take", bug)
            await send(office, opened, kind="revoke", by=BO)
            await office.settle()
            assert await opened.run.status() == "stalled"
            await opened.run.cancel("enough")
            await office.clock.advance("2h")
            assert await opened.run.status() == "stalled", "nobody else would remove it"
        await office.engine.retry(opened.run.id)
        await office.settle()
        assert ((await grant_of(opened)).state, await opened.run.status()) == ("revoked", "cancelled")


async def test_a_refusal_after_a_crash_is_uncertain(office: Any) -> None:
    """The first call may have given it: a target that compares no IDs then says that it has that already."""
    called, post = asyncio.Event(), office.targets.post

    async def dies(target: str, event_id: str, body: dict[str, JsonValue]) -> CallResult:
        office.targets.calls.append((target, event_id, body))
        called.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with office.open():
        opened = await ask(office)
        office.targets.post = dies
        await send(office, opened, kind="vote", by=ANN, choice="approve")
        await called.wait()
        office.engine.scheduler.closing = 0.0
    office.targets.post = post
    office.targets.answers = [Refused("it answered 409")] * 2
    async with office.open():
        opened = OpenedRequest(office, office.engine.get_run(opened.run.id))
        await office.clock.advance("1m")
        await office.clock.advance("1m")
        assert (await grant_of(opened)).state == "not_given"
        assert len(calls(office, TAKE)) == 1
