"""Signed tokens: what they are bound to, and which keys sign and verify them."""

from __future__ import annotations

import pytest

from approvals_bot.durable.engine import Engine
from approvals_bot.durable.store import connect
from approvals_bot.durable.tokens import Tokens
from approvals_bot.errors import InvalidTokenError

KEY = "a-key-of-these-tests-that-has-32-bytes!"
LINK = {"h": "hook", "g": 1}


def test_a_token_is_forged_in_another_installation() -> None:
    ours, theirs = Tokens([KEY], installation="ours"), Tokens([KEY], installation="theirs")
    assert ours.read("webhook.v1", ours.sign("webhook.v1", LINK)) == LINK
    with pytest.raises(InvalidTokenError):
        theirs.read("webhook.v1", ours.sign("webhook.v1", LINK))
    with pytest.raises(InvalidTokenError):
        ours.read("decision.v1", ours.sign("webhook.v1", LINK))


def test_a_seal_is_worthless_in_another_installation() -> None:
    ours, theirs = Tokens([KEY], installation="ours"), Tokens([KEY], installation="theirs")
    assert ours.is_sealed("bounce.v1", "run-1-1", ours.seal("bounce.v1", "run-1-1"))
    assert not theirs.is_sealed("bounce.v1", "run-1-1", ours.seal("bounce.v1", "run-1-1"))


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_an_installation_is_made_once_with_its_database(
    kind: str, request: pytest.FixtureRequest, tmp_path: object
) -> None:
    url = f"sqlite:///{tmp_path}/runs.db" if kind == "sqlite" else request.getfixturevalue("postgres_url")
    async with Engine.open(url) as engine:
        first = engine.installation
    async with Engine.open(url) as engine:
        assert engine.installation == first
    async with Engine.open(f"sqlite:///{tmp_path}/other.db") as other:
        assert len(other.installation) == len(first) == 32
        assert other.installation != first


async def test_an_engine_refuses_tokens_of_another_installation(tmp_path: object) -> None:
    store = await connect(f"sqlite:///{tmp_path}/runs.db")
    try:
        with pytest.raises(ValueError, match="another installation"):
            Engine(store, tokens=Tokens([KEY], installation="theirs"))
    finally:
        await store.close()
