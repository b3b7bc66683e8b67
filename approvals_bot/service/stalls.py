"""Cards of requests whose run has stalled. They are redrawn from outside, because a stalled run can't act.

A message that can be edited, such as one in Slack, says ⚠ Waiting for a fix while its run is stalled, and shows the
newest state again once the run goes on or has ended. The run's own log says which messages there are.

What survives a restart is in the store: a new process remembers, before it works on any run, which runs are stalled.
Their messages may say so, and are redrawn whatever becomes of the runs.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field, replace

from approvals_bot.approvals.card import card_of
from approvals_bot.approvals.delivery import LONGEST_VALUE, sent_cards, shortened
from approvals_bot.approvals.port import Channels, ToPerson, TryAgain
from approvals_bot.durable.engine import Engine
from approvals_bot.errors import StoreUnavailableError
from approvals_bot.service.read import requests_of

LOOK_EVERY = 2.0  # seconds between two looks at the runs that are followed
SETTLED = 3.0  # seconds: a newer replica may continue a run that stalls on an older one, and then nobody need know
PAGE_SIZE = 100  # runs
MOST_TURNS = 5  # times that a card is drawn again because the run went on meanwhile; the next look draws again

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Followed:
    """A run that is stalled, or was when this process last looked. `requests`: ids of those that were open then."""

    since: float  # seconds of the event loop's clock
    requests: set[str] = field(default_factory=set)
    is_marked: bool = False  # some of its messages may say that it is stalled
    is_drawn: bool = False  # all of them do


class StalledCards:
    """The follower of stalled runs in one process."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._runs: dict[str, Followed] = {}
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Look at the stalled runs: there is a new one."""
        self._woken.set()

    async def remember(self) -> None:
        """Remember the runs that are stalled before this process works on any: another may have marked their cards."""
        for run_id in await self._find_stalled():
            self._runs[run_id].is_marked = True

    async def run(self) -> None:
        """Follow stalled runs until cancelled. Idle while there are none."""
        while True:
            if not self._runs:
                await self._woken.wait()
            self._woken.clear()
            pause = LOOK_EVERY
            try:
                began = asyncio.get_running_loop().time()
                await self.look()
                pause = max(pause, 20 * (asyncio.get_running_loop().time() - began))  # the more, the less often
            except StoreUnavailableError:
                pass  # the next look finds the same
            except Exception:
                logger.exception("redrawing the cards of stalled runs failed, trying again")
            await asyncio.sleep(pause)

    async def look(self, settled: float = SETTLED) -> None:
        """Mark the cards of runs that have been stalled for `settled` seconds; redraw those of runs that go on."""
        stalled = await self._find_stalled()
        now = asyncio.get_running_loop().time()
        for run_id, followed in list(self._runs.items()):
            if run_id not in stalled:
                if not followed.is_marked or await self._drawn(run_id, followed):
                    del self._runs[run_id]
            elif not followed.is_drawn and now - followed.since >= settled:
                followed.is_marked = True
                followed.is_drawn = await self._drawn(run_id, followed)

    async def _find_stalled(self) -> set[str]:
        """Follow every stalled run that has requests. Returns their ids."""
        now, found, cursor = asyncio.get_running_loop().time(), set[str](), None
        while True:
            page = await self._engine.records(status="stalled", limit=PAGE_SIZE, cursor=cursor)
            for record in page.records:
                if is_open := {view.id for view in requests_of(record) if view.is_open}:
                    self._runs.setdefault(record.id, Followed(now)).requests |= is_open
                    found.add(record.id)
            cursor = page.cursor
            if cursor is None:
                return found

    async def _drawn(self, run_id: str, followed: Followed) -> bool:
        """Draw a run's cards. Returns False to try again. A run whose log can't be read harms no other."""
        try:
            return await self._draw(run_id, followed)
        except StoreUnavailableError:
            raise
        except Exception as error:  # noqa: BLE001  # a bug in a channel, or a message of another release
            logger.error("The cards of run %s could not be redrawn (%s).", run_id, type(error).__name__)
            return True

    async def _draw(self, run_id: str, followed: Followed) -> bool:
        """Draw the run's cards as they are now. Returns False if a channel couldn't be reached.

        The run may go on meanwhile and edit the same message. So this looks again after the last edit: what was edited
        before that look shows the newest state, and what the run edits later does, too.
        """
        is_done = False
        for _ in range(MOST_TURNS):
            found = await self._engine.store.read(run_id)
            if found is None:
                return True
            record, log = found
            views = {view.id: view for view in requests_of(record) if view.id in followed.requests}
            is_done = True
            for receipt, sent in sent_cards(log):
                view = views.get(sent.card.run_id)
                if view is not None:
                    reader = sent.to.person.address if isinstance(sent.to, ToPerson) else None
                    card = shortened(card_of(view, reader, self._engine.now()), LONGEST_VALUE)
                    channels: Channels = self._engine.resources[Channels]
                    result = await channels.send(replace(sent, card=card), receipt)
                    is_done = is_done and not isinstance(result, TryAgain)
            after = await self._engine.record(run_id)
            if after is None or (after.status, after.parts) == (record.status, record.parts):
                break
        return is_done
