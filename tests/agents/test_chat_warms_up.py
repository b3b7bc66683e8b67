"""What a chat imports in the background, when somebody first looks at it."""

from __future__ import annotations

import sys

import pytest

from approvals_bot.agents.chat import STREAMING
from approvals_bot.agents.chats import ChatForm, Chats
from approvals_bot.service.catalog import Catalog
from approvals_bot.testing.fixtures import OpenEngine


class FailsOnce:
    """An import that fails the first time, as one that two threads begin at once may."""

    def __init__(self) -> None:
        self.tries = 0

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == STREAMING:
            self.tries += 1
            if self.tries == 1:
                raise ImportError("half of it is missing", name=name)


async def test_a_failed_import_is_tried_again(open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    import_that = FailsOnce()
    monkeypatch.delitem(sys.modules, STREAMING, raising=False)
    monkeypatch.setattr(sys, "meta_path", [import_that, *sys.meta_path])
    async with open_engine() as engine:
        chats = Chats(engine, Catalog({}), ChatForm())
        with pytest.raises(ImportError):
            await chats.warm_up()
        await chats.warm_up()
    assert import_that.tries == 2
