"""The life of a grant in its run: given, kept until its end, and removed.

Each of the two calls has one event id, the same at every try and after a reset of the run, so a target that compares
ids gives once and takes once. What may have been given is always removed: also when the first try got no answer,
and the grant was revoked before a second one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal

from pydantic import JsonValue

from approvals_bot.approvals.card_model import GrantState
from approvals_bot.approvals.delivery import LONGEST_TRY, attempt, call_target, wait_before
from approvals_bot.approvals.grant_policy import Grant
from approvals_bot.approvals.grants import (
    LONGEST_REASON,
    OVERDUE_FROM,
    GrantTerms,
    LengthError,
    terms_of,
    wait_before_taking,
)
from approvals_bot.approvals.port import Called, Refused, TryAgain
from approvals_bot.approvals.request import Request, RequestGrant
from approvals_bot.approvals.rules import Rules
from approvals_bot.approvals.templates import TemplateError
from approvals_bot.approvals.text import rejection_text
from approvals_bot.durable.core.api import now, random, resource, step, uuid4
from approvals_bot.errors import StepFailedError

GrantFact = Literal["grant_given", "grant_not_given", "grant_overdue", "grant_taken", "grant_extended"]
"""The audit's words for what becomes of a grant. What people do about it has lines as all acts have."""


class GrantLines:
    """The audit's lines about grants, as the service writes them. This class writes none."""

    async def write(self, what: GrantFact, run_id: str, who: str, data: dict[str, JsonValue]) -> None:
        """Write a line, once for the same `what` and data. `who`: the person whom the grant is for."""


@step(retries=3, timeout=60.0)
async def write_grant_line(
    what: GrantFact, run_id: str, who: str, data: dict[str, JsonValue], lines: GrantLines = resource(GrantLines)
) -> None:
    """Write a line of the audit."""
    await lines.write(what, run_id, who, data)


class GrantLife:
    """The grant of one request."""

    def __init__(
        self, policy: Grant, request: Request, rules: Rules, changed: Callable[[RequestGrant, GrantFact | None], None]
    ) -> None:
        """`changed`: called with each new state, and with what has happened, if people are to be notified."""
        self.policy = policy
        self.grant = RequestGrant(may_extend=policy.extend == "ask")
        self._request = request
        self._rules = rules
        self._changed = changed
        self._id = f"grant_{uuid4().hex}"
        self._is_uncertain = False  # whether it may have been given without an answer that says so
        self._interrupt = asyncio.Event()  # it was revoked or extended

    async def run(self) -> None:
        """Give the grant, wait for its end, and remove it."""
        try:
            terms = terms_of(self.policy, self._request, self._rules)
        except (LengthError, TemplateError) as error:
            why = rejection_text(error.code, error.params) if isinstance(error, LengthError) else str(error)
            await self._end("not_given", "grant_not_given", error=why)
            return
        if await self._give(terms):
            await self._wait_for_end()
        elif not self._is_uncertain:
            await self._end("revoked" if self.grant.revoked_by else "not_given", "grant_not_given")
            return
        await self._take(terms)

    def revoke(self, by: str, reason: str) -> None:
        """End the grant now. One that is being given is removed once that call has returned."""
        self._becomes(revoked_by=by, reason=reason.strip()[:LONGEST_REASON])
        self._interrupt.set()

    async def extend(self, lasts: timedelta, by: str) -> None:
        """Extend the grant by `lasts`. `by`: the person or rule that decided it."""
        assert self.grant.until is not None, "it is active"
        self._becomes(what="grant_extended", until=self.grant.until + lasts)
        self._interrupt.set()
        await self._audit("grant_extended", by=by, until=self.grant.until.isoformat())

    # The calls

    async def _give(self, terms: GrantTerms) -> bool:
        """Call the target until it accepts, refuses, or somebody revokes. Returns whether the grant is active."""
        until, attempts = now() + LONGEST_TRY, 0
        while not self.grant.revoked_by:
            attempts += 1
            self._becomes(attempts=attempts)
            match await attempt(call_target(self.policy.give.http, f"{self._id}-give", terms.give)):
                case Called():
                    given_at = now()
                    ends_at = given_at + terms.lasts
                    self._becomes("active", "grant_given", given_at=given_at, until=ends_at, error="")
                    await self._audit("grant_given", until=ends_at.isoformat(), attempts=attempts)
                    return True
                case Refused(error):
                    self._becomes(error=error)
                    return False
                case TryAgain(error, after):
                    self._is_uncertain = True  # it may have been given: what got no answer may have arrived
                    wait = wait_before(attempts, after, random().random())
                    self._becomes(error=error)
                    if now() + wait > until:
                        return False
                    await self._pause(wait)
        return False

    async def _wait_for_end(self) -> None:
        """Wait until the grant is over, or revoked. An extension moves its end."""
        while not self.grant.revoked_by:
            assert self.grant.until is not None, "it is active"
            left = self.grant.until - now()
            if left <= timedelta(0):
                return
            await self._pause(left)

    async def _take(self, terms: GrantTerms) -> None:
        """Call the target until it has removed the grant, however long that takes."""
        self._becomes("ending", attempts=0, error="")
        attempts = 0
        while True:
            attempts += 1
            result = await attempt(call_target(self.policy.take.http, f"{self._id}-take", terms.take))
            if isinstance(result, Called):
                break
            self._becomes(attempts=attempts, error=result.error)
            if attempts == OVERDUE_FROM:
                self._becomes("overdue", "grant_overdue")
                await self._audit("grant_overdue", attempts=attempts, error=result.error)
            after = result.after if isinstance(result, TryAgain) else None
            await asyncio.sleep(wait_before_taking(attempts, after, random().random()).total_seconds())
        state: GrantState = "revoked" if self.grant.revoked_by else "ended" if self.grant.given_at else "not_given"
        await self._end(state, "grant_taken", taken_at=now(), attempts=attempts, error="")

    async def _pause(self, wait: timedelta) -> None:
        """Wait, but not longer than until the grant is revoked or extended."""
        self._interrupt.clear()
        if not self.grant.revoked_by:
            # Not wait_for: Python 3.11 takes another number of turns of the loop for it than later versions.
            with suppress(TimeoutError):
                async with asyncio.timeout(wait.total_seconds()):
                    await self._interrupt.wait()

    async def _end(self, state: GrantState, what: GrantFact, **changes: Any) -> None:
        self._becomes(state, what, **changes)
        await self._audit(what, state=state, error=self.grant.error)

    def _becomes(self, state: GrantState | None = None, what: GrantFact | None = None, **changes: Any) -> None:
        self.grant = replace(self.grant, state=state or self.grant.state, **changes)
        self._changed(self.grant, what)

    async def _audit(self, what: GrantFact, **data: JsonValue) -> None:
        """Write what has happened into the audit. A failure doesn't keep the grant from ending."""
        request = self._request
        with suppress(StepFailedError):
            await write_grant_line(what, request.run_id, request.on_behalf_of or request.requester, data)
