"""Mails that come back: which copy a bounce is about, and what it says.

The envelope's sender of each mail is an address of its own (VERP): it names the request and the copy, and bears a seal
that only a holder of the signing key can make. Whatever arrives at another address is nobody's bounce. The report's
text is never believed in who it is about, only in why. A mail about several requests names the others in a header with
a seal of its own, since an address has no room for them; a report bears the headers of the mail that came back.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from email import message_from_bytes, message_from_string
from email.message import Message
from typing import Any

from approvals_bot.approvals.plain_text import one_line
from approvals_bot.durable.core.hooks import WebhookRequest
from approvals_bot.durable.engine import Engine
from approvals_bot.durable.tokens import Tokens
from approvals_bot.errors import HookNotFoundError
from approvals_bot.service.read import find_record, request_of

log = logging.getLogger(__name__)

SEAL = "bounce.v1"
TOGETHER = "X-Approvals-Copies"  # the header, and
TOGETHER_SEAL = "bounces.v1"  # what it is sealed for
LONGEST_NAME = 10  # characters before the "+": with an id and its seal the local part has at most 63

_DELIVERY = re.compile(r"run_(?P<copy>[0-9a-f]{27}(\.\d{1,2})?-\d{1,4})-\d+")
_COPY = re.compile(r"[0-9a-f]{27}(\.\d{1,2})?-\d{1,4}")
_LOCAL = re.compile(r"(?P<name>[^+@]+)\+(?P<copy>[0-9a-f]{27}(\.\d{1,2})?-\d{1,4})-(?P<seal>[a-z2-7]{16})")


@dataclass(frozen=True, slots=True)
class Returned:
    """One copy of a request, by the request's id and the copy's number."""

    request_id: str
    copy: int


class ReturnPaths:
    """Makes and reads the addresses to which mails come back: `bounces+<request>-<copy>-<seal>@acme.eu`."""

    def __init__(self, address: str, tokens: Tokens) -> None:
        self._name, _, self._domain = address.lower().rpartition("@")
        self._tokens = tokens

    def of(self, delivery_id: str) -> str | None:
        """Where this delivery comes back to; None for a mail that belongs to no copy (a code)."""
        copy = _copy(delivery_id)
        if copy is None:
            return None
        return f"{self._name}+{copy}-{self._tokens.seal(SEAL, copy)}@{self._domain}"

    def read(self, address: str) -> Returned | None:
        """The copy that this address was made for; None if we never made it. Case doesn't matter: relays change it."""
        local, _, domain = address.lower().rpartition("@")
        found = _LOCAL.fullmatch(local)
        if found is None or (found["name"], domain) != (self._name, self._domain):
            return None
        if not self._tokens.is_sealed(SEAL, found["copy"], found["seal"]):
            return None
        return _returned(found["copy"])

    def of_together(self, delivery_ids: Sequence[str]) -> str:
        """The header of one mail for several deliveries: all their copies, and the seal."""
        copies = " ".join(copy for each in delivery_ids if (copy := _copy(each)) is not None)
        return f"{copies} {self._tokens.seal(TOGETHER_SEAL, copies)}"

    def read_together(self, report: bytes) -> tuple[Returned, ...]:
        """The copies that were in the mail which this report is about, as its header says. None, where it has no such
        header or we did not make it."""
        copies, _, seal = " ".join(_header_of_returned(report).split()).rpartition(" ")
        named = copies.split(" ")
        if not all(map(_COPY.fullmatch, named)) or not self._tokens.is_sealed(TOGETHER_SEAL, copies, seal):
            return ()
        return tuple(map(_returned, named))


def _copy(delivery_id: str) -> str | None:
    found = _DELIVERY.fullmatch(delivery_id)
    return None if found is None else found["copy"]


def _returned(copy: str) -> Returned:
    request, _, number = copy.partition("-")
    return Returned(f"run_{request}", int(number))


def _header_of_returned(report: bytes) -> str:
    """That header of the mail that came back, which follows a report whole or by its headers alone."""
    for part in _parts(message_from_bytes(report)):
        match part.get_content_type():
            case "message/rfc822" | "message/global":
                returned = _parts(part)[:1]
            case "text/rfc822-headers" | "message/global-headers":
                returned = [message_from_string(str(part.get_payload()))]
            case _:
                continue
        for mail in returned:
            return str(mail.get(TOGETHER, ""))
    return ""


def why_it_failed(content: bytes) -> str | None:
    """What a delivery report (RFC 3464) says of a mail that failed for good, on one line, without addresses. None for
    everything else: a delay, a receipt, a holiday answer, a person's reply, a mail that only looks like a report.
    """
    mail = message_from_bytes(content)
    if mail.get_content_type() != "multipart/report" or not mail.is_multipart():
        return None
    if str(mail.get_param("report-type", "")).lower() != "delivery-status":
        return None
    for part in _parts(mail):
        if part.get_content_type() in ("message/delivery-status", "message/global-delivery-status"):
            for recipient in _parts(part):
                if str(recipient.get("Action", "")).strip().lower() == "failed":
                    return _said(recipient)
    return None


def _parts(mail: Message[Any, Any]) -> list[Message[Any, Any]]:
    payload = mail.get_payload()
    return [part for part in payload if isinstance(part, Message)] if isinstance(payload, list) else []


def _said(recipient: Message[Any, Any]) -> str:
    """ "5.1.1: no such user": the status, and the receiving server's own words as far as they are plain text."""
    status = re.match(r"\s*([245]\.\d{1,3}\.\d{1,3})", str(recipient.get("Status", "")))
    words = str(recipient.get("Diagnostic-Code", "")).partition(";")[2]
    words = one_line(re.sub(r"<?[^\s<>]+@[^\s<>]+>?", "<…>", one_line(words, 400)), 120)
    return ": ".join(filter(None, (status[1] if status else "", words))) or "no reason was given"


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
        await self._engine.audit("mail_came_back", run_id=target.record.id, data={"copy": returned.copy, "why": reason})
        try:
            await self._engine.resume_webhook(target, WebhookRequest.of_json(message))
        except HookNotFoundError:
            log.info("A mail came back after its request was decided.")
