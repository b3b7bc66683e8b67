"""Live pages: which of the pages that are open in browsers a change concerns.

A page hears that it has changed, never what: it asks for itself again, and so with the rights of that moment.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from approvals_bot.approvals.request import Request
from approvals_bot.durable.engine import Engine, RunRecord
from approvals_bot.durable.engine.notifier import Feed
from approvals_bot.errors import StoreUnavailableError
from approvals_bot.service.read import is_concerned, requests_of
from approvals_bot.service.sessions import Sessions

TOGETHER = 0.1  # seconds; an act writes several events, and people notice no tenth of a second
STORE_AWAY = 1.0  # seconds before a store that is away is read again
SESSIONS_READ_EVERY = 1.0  # seconds; one read for all pages
INBOX = "inbox"


@dataclass(eq=False, slots=True)
class LivePage:
    """A page that is open in a browser.

    `run_id`: the run that it shows, "" for none; `person`: whose inbox it shows, "" for nobody's. `browser`: the
    session, several of whose pages count together. `has_session`: somebody has signed in there. `is_over`: another
    page of the browser has taken its place, or the session has ended.
    """

    run_id: str
    person: str
    browser: str
    has_session: bool
    is_over: bool = False
    _topics: dict[str, int] = field(default_factory=dict)
    _inbox_changes: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def changes(self, seconds: float) -> Mapping[str, int]:
        """Return the topics that have changed, each with a number that grows; none after this many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        self._changed.clear()
        topics, self._topics = self._topics, {}
        return topics

    def change_run(self, version: int) -> None:
        self._topics[f"run:{self.run_id}"] = version
        self._changed.set()

    def change_inbox(self) -> None:
        self._inbox_changes += 1
        self._topics[INBOX] = self._inbox_changes
        self._changed.set()

    def change_all(self) -> None:
        """Say that anything may have changed."""
        if self.run_id:
            self.change_run(0)
        if self.person:
            self.change_inbox()

    def end(self) -> None:
        self.is_over = True
        self._changed.set()


class LivePages:
    """The pages that are open at this replica. Nothing runs while there are none."""

    def __init__(self, engine: Engine, sessions: Sessions, *, most_of_a_browser: int) -> None:
        self._engine = engine
        self._sessions = sessions
        self._most = most_of_a_browser
        self._open: OrderedDict[LivePage, None] = OrderedDict()  # the oldest first
        self._tasks: list[asyncio.Task[None]] = []

    def __len__(self) -> int:
        return len(self._open)

    @contextmanager
    def opened(self, page: LivePage) -> Iterator[LivePage]:
        """Let the page hear of changes. One page too many of a browser ends the oldest of that browser."""
        siblings = [each for each in self._open if each.browser == page.browser]
        for oldest in siblings[: max(0, len(siblings) + 1 - self._most)]:
            oldest.end()
            del self._open[oldest]
        self._open[page] = None
        if not self._tasks:
            self._tasks = [
                asyncio.create_task(self._follow(), name="follow changes for live pages"),
                asyncio.create_task(self._watch_sessions(), name="watch the sessions of live pages"),
            ]
        try:
            yield page
        finally:
            self._open.pop(page, None)
            if not self._open:
                for task in self._tasks:
                    task.cancel()
                self._tasks = []

    async def _follow(self) -> None:
        with Feed(self._engine.notifier) as feed:
            while True:
                runs = await feed.changed(TOGETHER)
                try:
                    for run_id in runs or ():
                        await self._spread(run_id)
                except StoreUnavailableError:
                    await asyncio.sleep(STORE_AWAY)
                    runs = None
                if runs is None:
                    for page in self._open:
                        page.change_all()

    async def _watch_sessions(self) -> None:
        """End the pages whose sessions end: at once here, and soon after another replica ended them."""
        ended = self._sessions.some_ended
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(SESSIONS_READ_EVERY):
                    await ended.wait()
            ended.clear()
            signed_in = [page for page in self._open if page.has_session]
            with suppress(StoreUnavailableError):
                left = await self._engine.store.sessions_left({page.browser for page in signed_in})
                for page in signed_in:
                    if page.browser not in left:
                        page.end()

    async def _spread(self, run_id: str) -> None:
        """Say that this run has changed, to the pages that show it and the inboxes of the people it concerns."""
        pages = [page for page in self._open if page.person or page.run_id == run_id]
        if not pages or (record := await self._engine.record(run_id)) is None:
            return
        for page in pages:
            if page.run_id == run_id:
                page.change_run(record.seq)
            if page.person and concerns_inbox(record, page.person):
                page.change_inbox()


def concerns_inbox(record: RunRecord, person: str) -> bool:
    """Return whether one of the run's requests is, or was, in this person's inbox."""
    return any(is_concerned(each, person) or _could_vote(each, person) for each in requests_of(record))


def _could_vote(request: Request, person: str) -> bool:
    return any(person in seat.eligible for stage in request.stages for seat in stage.lists)
