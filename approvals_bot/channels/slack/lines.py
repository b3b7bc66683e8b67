"""The line in front of each conversation: posts go out one by one, a second apart, in the order in which they came.

A post whose turn is near waits in place. One whose turn is not is told when it will be, and keeps its place until then:
so a thousand posts to one channel cost two attempts each, not thousands. While Slack does not answer for a
conversation, only the first in its line tries, ever more rarely; the others are told to come after it. So nothing
overtakes, and an outage ends with a line and not with a storm.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from math import ceil

from approvals_bot.channels.slack.client import LaterError

POST_EVERY = 1.0  # seconds between two posts to one conversation, as Slack asks
POST_WAIT = 3.0  # seconds that a post waits for its turn in place; longer, and it comes back later
GRACE = 15.0  # seconds after its turn until one that does not come back has lost its place
FIRST_PAUSE, LONGEST_PAUSE = 3.0, 120.0  # seconds until a conversation is tried again that did not answer; doubled

METHOD = "chat.postMessage"
KEPT = 10_000  # conversations

HERE = float("inf")  # in place of the moment when one is expected back


class InLineError(LaterError):
    """Its turn comes later, exactly `after` from now. Nothing was sent."""


@dataclass(eq=False)
class _Line:
    """One conversation's. Times are monotonic seconds."""

    expected: OrderedDict[str, float] = field(default_factory=OrderedDict)  # who waits, in order → when it is back
    free_at: float = 0.0  # no post before
    failures: int = 0  # in a row
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    def enter(self, key: str, now: float) -> None:
        for absent in [one for one, at in self.expected.items() if at + GRACE < now and one != key]:
            del self.expected[absent]
        self.expected[key] = HERE

    def ahead_of(self, key: str) -> int:
        self.expected.setdefault(key, HERE)
        return list(self.expected).index(key)

    def leave(self, key: str) -> None:
        self.expected.pop(key, None)
        self.move()

    def move(self) -> None:
        self.moved.set()
        self.moved = asyncio.Event()


class Lines:
    """All conversations' lines. `patience`: seconds that a post waits in place; `every`: seconds between two posts."""

    def __init__(
        self, monotonic: Callable[[], float], *, patience: float = POST_WAIT, every: float = POST_EVERY
    ) -> None:
        self._monotonic = monotonic
        self._patience = patience
        self._every = every
        self._lines: dict[str, _Line] = {}

    @asynccontextmanager
    async def turn(self, conversation: str, key: str) -> AsyncIterator[None]:
        """Be the one who posts to this conversation. InLineError when that is not soon.

        What the block raises decides what comes next: after a LaterError the place is kept, and its `after` is when to
        come back; after anything else, and after a success, the next one posts.
        """
        line = self._line(conversation)
        line.enter(key, self._monotonic())
        try:
            await self._wait(line, key)
            yield
        except InLineError:
            raise
        except LaterError as later:
            now = self._monotonic()
            if later.after is None:
                later.after = _span(min(FIRST_PAUSE * 2 ** min(line.failures, 16), LONGEST_PAUSE))
                line.failures += 1
            line.free_at = max(line.free_at, now + later.after.total_seconds())
            line.expected[key] = line.free_at
            line.move()
            raise
        except BaseException:
            line.leave(key)
            raise
        line.failures = 0
        line.leave(key)

    def posted(self, conversation: str) -> None:
        """Something was posted there just now, or may have been: the next post keeps its distance."""
        line = self._line(conversation)
        line.free_at = max(line.free_at, self._monotonic() + self._every)

    async def _wait(self, line: _Line, key: str) -> None:
        """Until it is this one's turn; InLineError as soon as that turns out to be too far away."""
        while True:
            now = self._monotonic()
            ahead = line.ahead_of(key)
            turn = max(now, line.free_at) + ahead * self._every
            if turn - now > self._patience:
                line.expected[key] = turn
                raise InLineError(METHOD, "waits for its turn", _span(turn - now))
            if ahead == 0:
                if turn > now:
                    await asyncio.sleep(turn - now)
                return
            try:
                async with asyncio.timeout(self._patience):
                    await line.moved.wait()
            except TimeoutError:  # the one before takes long
                line.expected[key] = self._monotonic() + self._every
                raise InLineError(METHOD, "waits for its turn", _span(self._every)) from None

    def _line(self, conversation: str) -> _Line:
        if len(self._lines) > KEPT:
            now = self._monotonic()
            self._lines = {name: line for name, line in self._lines.items() if line.expected or line.free_at > now}
        return self._lines.setdefault(conversation, _Line())


def _span(seconds: float) -> timedelta:
    """Rounded up, so that nobody comes a moment too early."""
    return timedelta(milliseconds=max(1, ceil(seconds * 1_000)))
