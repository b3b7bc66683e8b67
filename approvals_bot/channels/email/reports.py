"""A report of a mail that came back, however it reached us: into the log of the request that the mail was about."""

from __future__ import annotations

import logging

from approvals_bot.channels.email.bounces import Returned, ReturnPaths, why_it_failed
from approvals_bot.durable.core.hooks import WebhookRequest
from approvals_bot.durable.engine import Engine
from approvals_bot.errors import HookNotFoundError
from approvals_bot.service.read import find_record, request_of

log = logging.getLogger(__name__)


class Reports:
    """Takes what was mailed to return addresses. The same report twice is told once."""

    def __init__(self, engine: Engine, return_paths: ReturnPaths) -> None:
        self._engine = engine
        self._return_paths = return_paths

    async def take(self, returned: Returned, content: bytes) -> bool:
        """Whether it was a report of a failure. ApprovalsBotError or OSError: it can't be kept now."""
        try:
            reason = why_it_failed(content)
            together = self._return_paths.read_together(content) if reason else ()
        except Exception as error:  # noqa: BLE001  # the parser's, whatever was sent: it is no report then
            log.warning("A mail to a return address can't be read (%s).", type(error).__name__)
            return False
        if reason is None:
            return False
        for each in together if returned in together else (returned,):
            await self._tell(each, reason)
        return True

    async def _tell(self, returned: Returned, reason: str) -> None:
        """Into the request's log. After the decision nothing is to be done any more but to remember it."""
        record = await find_record(self._engine, returned.request_id)
        view = request_of(record) if record is not None else None
        target = await self._engine.find(view.hook_id) if view is not None else None
        if target is None:
            return
        message = {"kind": "bounced", "by": "relay", "via": "email", "copy": returned.copy, "reason": reason}
        await self._engine.audit("mail_came_back", run_id=target.row.id, data={"copy": returned.copy, "why": reason})
        try:
            await self._engine.resume_webhook(target, WebhookRequest.of_json(message))
        except HookNotFoundError:
            log.info("A mail came back after its request was decided.")
