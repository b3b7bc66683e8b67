"""Acts whose answer takes too long are answered with what is true by then."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import Response

from approvals_bot.approvals.acts import Vote
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.port import Channels
from approvals_bot.approvals.request import Opening
from approvals_bot.approvals.workflow import approval
from approvals_bot.durable.core.registry import Registry
from approvals_bot.durable.engine import Engine, HookTarget
from approvals_bot.durable.store import connect
from approvals_bot.durable.store.protocol import MAX_UNREAD
from approvals_bot.durable.tokens import Tokens
from approvals_bot.people import People
from approvals_bot.service import act as acting
from approvals_bot.service.act import RECEIVED, SentAct, perform, send_act

ANN, BO, CY = "ann@acme.eu", "bo@acme.eu", "cy@acme.eu"
DEPLOY = Definition.model_validate(
    {
        "workflow": {"id": "deploy", "title": "Deploy", "request": ["*"]},
        "stage": [{"id": "go", "from": [ANN, BO]}],
    }
)


class Slow:
    """The engine, with answers to webhooks that come too late: the act is durable and gets decided meanwhile."""

    def __init__(self, engine: Engine, meanwhile: Vote | None = None) -> None:
        self._engine = engine
        self._meanwhile = meanwhile

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def send_to_webhook(self, hook: HookTarget, request: Any, **more: Any) -> Any:
        if self._meanwhile is None:
            return await self._engine.send_to_webhook(hook, request, **more)
        sent = await send_act(self._engine, hook.hook.id, self._meanwhile)
        assert isinstance(sent, SentAct)
        return sent.kept

    async def answer_to(self, kept: object, timeout: float) -> Response:
        await self._engine.settle()
        return Response(status_code=504)


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    resources: dict[type, Any] = {Channels: Channels(), People: People()}
    url = f"sqlite:///{tmp_path}/runs.db"
    async with Engine.open(url, signing_keys=["k" * 40], base_url="http://127.0.0.1", resources=resources) as engine:
        yield engine


async def ask(engine: Engine) -> str:
    workflow = approval.under("deploy", DEPLOY.model_dump(mode="json"))
    run = await engine.start(workflow, Opening({}, CY))
    await engine.settle()
    record = await engine.record(run.id)
    assert record is not None
    return str(record.parts[0]["hook_id"])


async def test_a_late_answer_after_a_decision_says_how_it_ended(engine: Engine) -> None:
    slow = Slow(engine, meanwhile=Vote(ANN, "approve"))
    reply = await perform(slow, await ask(engine), Vote(BO, "reject", comment="no"))  # type: ignore[arg-type]
    assert reply.verdict == "already_decided"
    assert "Already decided by ann" in reply.text
    assert not reply.changed


async def test_a_late_answer_to_the_vote_that_decided_is_that_it_is_saved(engine: Engine) -> None:
    reply = await perform(Slow(engine), await ask(engine), Vote(ANN, "approve"))  # type: ignore[arg-type]
    assert (reply.verdict, reply.changed) == ("received", True)


async def test_a_late_answer_while_it_is_open_is_that_it_is_saved(engine: Engine) -> None:
    hook_id = await ask(engine)
    slow: Any = Slow(engine, meanwhile=Vote(CY, "approve"))  # refused: it is their own request
    reply = await perform(slow, hook_id, Vote(BO, "approve"))
    assert (reply.verdict, reply.text) == ("received", RECEIVED.text)


async def test_a_repeated_press_gets_its_first_reply_after_the_end(engine: Engine) -> None:
    hook_id = await ask(engine)
    first = await perform(engine, hook_id, Vote(ANN, "approve"), press="press-1")
    await engine.settle()
    found = await engine.find(hook_id)
    assert found is not None
    assert not found.hook.is_live
    before = await engine.events(found.record.id), await engine.audit_lines()
    assert (first.verdict, first.changed) == ("decided", True)
    assert await perform(engine, hook_id, Vote(ANN, "approve"), press="press-1") == first
    assert await perform(engine, hook_id, Vote(ANN, "reject", comment="no"), press="press-1") == RECEIVED
    assert (await engine.events(found.record.id), await engine.audit_lines()) == before
    another = await perform(engine, hook_id, Vote(BO, "reject", comment="no"), press="press-2")
    assert another.verdict == "already_decided"


async def presses(engine: Engine, hook_id: str, count: int, by: str = BO) -> list[str]:
    """Press one button after the other, each with another comment. Returns the verdicts."""
    return [
        (await perform(engine, hook_id, Vote(by, "reject", comment=str(n)), timeout=0.05)).verdict for n in range(count)
    ]


async def test_one_person_cannot_use_up_a_requests_log(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acting, "CROWDED", 30)
    monkeypatch.setattr(acting, "MOST_ACTS", 20)
    hook_id = await ask(engine)
    verdicts = await presses(engine, hook_id, 25, CY)  # refused, as their own request, and in the log all the same
    assert verdicts == ["own_request"] * 20 + ["busy"] * 5
    assert (await perform(engine, hook_id, Vote(ANN, "approve"))).verdict == "decided"


async def test_one_person_cannot_fill_a_stalled_request(tmp_path: Path) -> None:
    resources: dict[type, Any] = {Channels: Channels(), People: People()}
    store = await connect(f"sqlite:///{tmp_path}/runs.db")
    engine = Engine(
        store,
        tokens=Tokens(["k" * 40], installation=store.installation),
        base_url="http://127.0.0.1",
        resources=resources,
    )
    async with engine.running():
        hook_id = await ask(engine)
        found = await engine.find(hook_id)
        assert found is not None
        engine.registry = engine.scheduler.registry = Registry()  # a release without this workflow
        engine.scheduler.cache.close()
        assert (await presses(engine, hook_id, 1))[0] == "received"
        await engine.settle()
        assert await engine.get_run(found.record.id).status() == "stalled"
        assert await presses(engine, hook_id, 25) == ["received"] * 19 + ["busy"] * 6
        assert await presses(engine, hook_id, 1, ANN) == ["received"]
        for n in range(acting.MOST_WAITING * 5):
            await presses(engine, hook_id, 1, f"p{n}@acme.eu")
        assert await presses(engine, hook_id, 1, "last@acme.eu") == ["busy"]
        log = await engine.events(found.record.id)
        assert [event.type for event in log].count("hook_received") == MAX_UNREAD
