"""Every history that these tests write is also replayed from each of its prefixes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from approvals_bot.testing import History


@pytest.fixture
def history() -> Iterator[Callable[..., History]]:
    made: list[History] = []

    def begin(*args: Any, **options: Any) -> History:
        made.append(History(*args, **options))
        return made[-1]

    yield begin
    for each in made:
        each.check_prefixes()
