"""A store whose process dies at a chosen call: before it is carried out, or after it was and before the answer came."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, cast

from approvals_bot.durable.store.protocol import OpenStore

When = Literal["before", "after"]


class Died(BaseException):  # not an error that anybody may handle: nothing runs after it
    """The process is no more."""


class DyingStore:
    """Passes every call on to a real store, and counts them.

    At call `at` the process dies; after that no call is answered.
    """

    def __init__(self, store: OpenStore, at: int | None = None, when: When = "before") -> None:
        self._store = store
        self._at = at
        self._when = when
        self.calls = 0
        self.is_dead = False
        self.installation = store.installation

    def __getattr__(self, name: str) -> Any:
        return self._mortal(getattr(self._store, name))

    def listen(self, heard: Any, seen: Any = None) -> None:
        self._store.listen(heard, seen)

    async def begin_work(self) -> None:
        """Not counted: a process that dies here has not begun to live."""
        await self._store.begin_work()

    async def close(self) -> None:
        """The operating system closes the files of a dead process too."""
        await self._store.close()

    def _mortal(self, call: Callable[..., Any]) -> Callable[..., Any]:
        async def called(*args: Any, **options: Any) -> Any:
            self._die_if(self.is_dead)
            self.calls += 1
            number = self.calls
            self._die_if(number == self._at and self._when == "before")
            result = await call(*args, **options)
            self._die_if(self.is_dead or (number == self._at and self._when == "after"))
            return result

        return called

    def _die_if(self, condition: bool) -> None:
        if condition:
            self.is_dead = True
            raise Died


def dying(store: OpenStore, at: int | None, when: When) -> OpenStore:
    return cast(OpenStore, DyingStore(store, at, when))
