"""Cards of requests whose run has stalled, or has ended too early to redraw them. They are redrawn from outside.

A message that can be edited, such as one in Slack, says ⚠ Waiting for a fix while its run is stalled, and shows the
newest state again once the run goes on or has ended. The run's own log says which messages there are, and what they
show. After a run has failed, or was ended from outside, those that still look open show how the request has ended. A
reset to before a card was sent makes the new run send another, so the old one loses its buttons.

What survives a restart is in the store: a new process remembers, before it works on any run, which runs are stalled.
Their messages may say so, and are redrawn whatever becomes of the runs. So are messages that look open of runs that
ended shortly before, and those of runs that were reset, because the process may have died before it redrew them.
"""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import dataclass, field, replace
from datetime import timedelta

from approvals_bot.approvals.card import card_of, closed
from approvals_bot.approvals.card_model import Card
from approvals_bot.approvals.delivery import LONGEST_VALUE, sent_cards, shortened
from approvals_bot.approvals.port import Channels, ToPerson, TryAgain
from approvals_bot.approvals.request import Request
from approvals_bot.durable.engine import Engine
from approvals_bot.durable.store.protocol import Filter, Status
from approvals_bot.errors import StoreUnavailableError
from approvals_bot.service.read import requests_of

LOOK_EVERY = 2.0  # seconds between two looks at the runs that are followed
SETTLED = 3.0  # seconds: a newer replica may continue a run that stalls on an older one, and then nobody need know
PAGE_SIZE = 100  # runs
RECENT = timedelta(days=1)  # at a start, runs that ended within this time are looked at
MOST_RECENT = 50  # runs that failed, and as many that were cancelled, and that were reset
ENDED_EARLY: tuple[Status, ...] = ("failed", "cancelled", "reset")
MOST_TURNS = 5  # times that a card is drawn again because the run went on meanwhile; the next look draws again

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Followed:
    """A run whose cards may be wrong: it is or was stalled, or has ended early. `requests`: those to draw anyhow."""

    since: float  # seconds of the event loop's clock
    requests: set[str] = field(default_factory=set)
    is_marked: bool = False  # some of its messages may say what isn't so any more
    is_drawn: bool = False  # all of them do
    is_successor: bool = False  # it may be in the place of a run whose cards it doesn't know


class StalledCards:
    """The follower of runs that can't redraw their cards, in one process."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._runs: dict[str, Followed] = {}
        self._cut_off: dict[str, float] = {}  # runs to look at, and since when, in seconds of the event loop's clock
        self._woken = asyncio.Event()

    def wake(self, cut_off: str | None = None) -> None:
        """Look at the runs: one has stalled. `cut_off`: this one has ended early, or begins in such a run's place."""
        if cut_off is not None:
            self._cut_off[cut_off] = asyncio.get_running_loop().time()
        self._woken.set()

    async def remember(self) -> None:
        """Remember the runs that are stalled before this process works on any: another may have marked their cards.

        The last runs to fail, to be cancelled or to begin in another's place are looked at, too.
        """
        for run_id in await self._find_stalled():
            self._runs[run_id].is_marked = True
        for status in ENDED_EARLY:
            recent = Filter(status=status, ended_since=self._engine.now() - RECENT, limit=MOST_RECENT)
            page = await self._engine.list_runs(recent)
            self._cut_off |= {record.next_run or record.id: -math.inf for record in page.records if record.parts}

    async def run(self) -> None:
        """Follow these runs until cancelled. Idle while there are none."""
        while True:
            if not self._runs and not self._cut_off:
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
                logger.exception("redrawing cards from outside their runs failed, trying again")
            await asyncio.sleep(pause)

    async def look(self, settled: float = SETTLED) -> None:
        """Mark the cards of runs that have been stalled for `settled` seconds; redraw those of runs that go on.

        Runs that were cut off wait as long, for edits of theirs that are still on the way.
        """
        stalled, now = await self._find_stalled(), asyncio.get_running_loop().time()
        await self._follow_cut_off(now - settled)
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

    async def _follow_cut_off(self, before: float) -> None:
        """Follow the runs that were cut off before then, as far as they have requests."""
        for run_id in [run_id for run_id, since in self._cut_off.items() if since <= before]:
            record = await self._engine.record(run_id)
            if record is not None and record.parts:
                followed = self._runs.setdefault(run_id, Followed(before))
                followed.is_marked = followed.is_successor = True
                followed.requests |= {view.id for view in requests_of(record) if view.is_open}  # after a reset
            del self._cut_off[run_id]

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
        channels: Channels = self._engine.resources[Channels]
        for _ in range(MOST_TURNS):
            found = await self._engine.store.read(run_id)
            if found is None:
                return True
            record, log = found
            views = {view.hook_id: view for view in requests_of(record)}  # a reset keeps hooks, and no other ids
            is_replaced = record.has_ended and record.next_run is not None  # its cards are those of the next run
            is_done = True
            for receipt, sent in sent_cards(log):
                view = None if is_replaced else views.get(sent.card.hook_id)
                if view is not None and (view.id in followed.requests or _looks_open(sent.card, view)):
                    reader = sent.to.person.address if isinstance(sent.to, ToPerson) else None
                    card = shortened(card_of(view, reader, self._engine.now()), LONGEST_VALUE)
                    result = await channels.send(replace(sent, card=card), receipt)
                    is_done = is_done and not isinstance(result, TryAgain)
            after = await self._engine.record(run_id)
            if after is None or (after.status, after.parts) == (record.status, record.parts):
                break
        return (not followed.is_successor or await self._close_replaced(run_id)) and is_done

    async def _close_replaced(self, run_id: str) -> bool:
        """Close the cards of the run that this one replaces, but for those it goes on with. Returns False to retry."""
        found = await self._engine.store.read(run_id)
        before = found[1][0].data.get("reset_of") if found is not None else None
        replaced = await self._engine.store.read(before["run_id"]) if before is not None else None
        if found is None or replaced is None:
            return True
        kept = {(receipt.place, receipt.id) for receipt, _ in sent_cards(found[1])}
        views, now, is_done = {view.hook_id: view for view in requests_of(found[0])}, self._engine.now(), True
        channels: Channels = self._engine.resources[Channels]
        for receipt, sent in sent_cards(replaced[1]):
            if (receipt.place, receipt.id) in kept:
                continue
            view, card = views.get(sent.card.hook_id), sent.card
            if view is not None:
                card = card_of(view, sent.to.person.address if isinstance(sent.to, ToPerson) else None, now)
            result = await channels.send(replace(sent, card=shortened(closed(card), LONGEST_VALUE)), receipt)
            is_done = is_done and not isinstance(result, TryAgain)
        return is_done


def _looks_open(shown: Card, view: Request) -> bool:
    """Return whether a message shows a request as open that isn't."""
    return shown.outcome is None and not view.is_open
