"""Starts that claim a hook's token: `start(hook_token=…)`, and `start_or_resume`, which always delivers its payload."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from typing import Any, NamedTuple

from approvals_bot.durable.core.api import Workflow
from approvals_bot.durable.core.commands import Refuse
from approvals_bot.durable.core.events import Event, NewEvent
from approvals_bot.durable.core.idempotency import abridged, as_sent, difference
from approvals_bot.durable.engine.intake import Intake, encode_unchecked
from approvals_bot.durable.engine.scheduler import Scheduler
from approvals_bot.durable.store.protocol import Created, HookRow, NewRun
from approvals_bot.errors import (
    HookConflictError,
    HookNotFoundError,
    InvalidArgumentError,
    InvalidPayloadError,
)

FIRST = -1
"""The number of the hook that a run is started with."""


def first_hook(token: str, entropy: bytes) -> dict[str, Any]:
    """Return the hook that a run is started with. It must be the first that its body creates."""
    if not isinstance(token, str) or not token:
        raise InvalidArgumentError("a hook's token must be a string that is not empty")
    hook_id = urlsafe_b64encode(entropy).decode().replace("-", "a").replace("_", "b")[:26]
    return {"id": FIRST, "hook_id": hook_id, "token": token, "first": True}


class StartOrResume(NamedTuple):
    """One call of `start_or_resume`."""

    scheduler: Scheduler
    intake: Intake
    workflow: Workflow[Any, Any]
    input: dict[str, Any]
    token: str
    payload: Any
    resume_id: str | None

    async def deliver(self) -> HookRow:
        """Deliver the payload to the hook that has the token, or to a new run's. Returns the hook.

        Each turn of the loop but the last has found that something has changed since its look: the hook has ended, or
        another caller was first.
        """
        payload = self._fact()
        while True:
            try:
                target = await self.intake.open_hook(self.token, self.resume_id, is_webhook=False)
                return (await self.intake.receive(target, self.payload, self.resume_id)).hook
            except HookNotFoundError:
                pass
            started = await self._start(payload)
            if started is not None:
                return started
            live = await self.scheduler.store.hook(token=self.token)
            if live is not None and live.is_webhook:
                raise HookConflictError(self.token, live.run_id)

    def _fact(self) -> NewEvent:
        """Return the payload as a new run's log has it. Its schema isn't known yet."""
        encoded = encode_unchecked(self.payload)
        resume_id = self.resume_id or self.scheduler.entropy()[:12].hex()
        data: dict[str, Any] = {"id": FIRST, "resume_id": resume_id, "payload": encoded, "raw": True}
        sent = as_sent(self.payload, encoded)
        if self.resume_id and difference(encoded, sent, "") is not None:
            data["sent"] = abridged(sent)
        return NewEvent("hook_received", data)

    async def _start(self, payload: NewEvent) -> HookRow | None:
        """Start a run with the payload, in one transaction. Returns None if another hook has the token by now.

        Raises InvalidPayloadError, with nothing written, if the body creates the hook at once and it doesn't fit.
        """
        hook = first_hook(self.token, self.scheduler.entropy())
        new = self.intake.new_run(self.workflow, self.input, {}, hooks=[hook])._replace(payload=payload)
        await self._check(new)
        if not isinstance(await self.intake.create(new), Created):
            return None
        return HookRow.of(new.row.id, Event(1, "hook_created", new.row.created_at, hook))

    async def _check(self, new: NewRun) -> None:
        log = [Event(seq, event.type, new.row.created_at, event.data) for seq, event in enumerate(new.events(), 1)]
        try:
            outcome = await self.scheduler.replayer.replay(self.workflow, log, self.scheduler.entropy())
        except Exception:  # noqa: BLE001
            return  # the run's activation gets the same error, and records it
        for command in outcome.commands:
            if isinstance(command, Refuse):
                raise InvalidPayloadError(command.errors)
