"""Bounced mails: which copy a bounce is about, and why the mail failed.

Each mail has its own envelope sender (VERP). The address names the request and the copy, and carries a seal that needs
the signing key. Mail to any other address is not a bounce. We take the reason from the report's text, but never the
recipient. An address has no room for several requests, so a digest names all of them in a header with a seal of its
own; reports include the headers of the mail that bounced.
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
from approvals_bot.errors import HookFullError, HookNotFoundError
from approvals_bot.people import AddressError, canonical
from approvals_bot.service.read import find_record, request_of

log = logging.getLogger(__name__)

SEAL = "bounce.v1"
TOGETHER = "X-Approvals-Copies"  # the header of a digest
TOGETHER_SEAL = "bounces.v1"  # the purpose it is sealed for
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
    """The envelope senders of our mails, made and read: `bounces+<request>-<copy>-<seal>@acme.eu`."""

    def __init__(self, address: str, tokens: Tokens) -> None:
        self._name, _, self._domain = canonical(address).rpartition("@")
        self._tokens = tokens

    def of(self, delivery_id: str) -> str | None:
        """Return this delivery's envelope sender; None for a mail that is no copy of a request (a code)."""
        copy = _copy(delivery_id)
        if copy is None:
            return None
        return f"{self._name}+{copy}-{self._tokens.seal(SEAL, copy)}@{self._domain}"

    def read(self, address: str) -> Returned | None:
        """Return the copy that this address was made for, in any case; None if it isn't ours."""
        try:
            local, _, domain = canonical(address).rpartition("@")
        except AddressError:
            return None
        found = _LOCAL.fullmatch(local)
        if found is None or (found["name"], domain) != (self._name, self._domain):
            return None
        if not self._tokens.is_sealed(SEAL, found["copy"], found["seal"]):
            return None
        return _returned(found["copy"])

    def of_together(self, delivery_ids: Sequence[str]) -> str:
        """Return a digest's header value: the copies it contains, and the seal."""
        copies = " ".join(copy for each in delivery_ids if (copy := _copy(each)) is not None)
        return f"{copies} {self._tokens.seal(TOGETHER_SEAL, copies)}"

    def read_together(self, report: bytes) -> tuple[Returned, ...]:
        """Return the copies in the digest that bounced; () without a valid header of ours."""
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
    """Find the header in the bounced mail. A report includes that mail in full, or its headers alone."""
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
    """Return why a mail failed for good, by its delivery report (RFC 3464). One line, without addresses.

    None for everything else: a delay, a receipt, an out-of-office reply, a person's reply, a malformed report.
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
                    return _reason(recipient)
    return None


def _parts(mail: Message[Any, Any]) -> list[Message[Any, Any]]:
    payload = mail.get_payload()
    return [part for part in payload if isinstance(part, Message)] if isinstance(payload, list) else []


def _reason(recipient: Message[Any, Any]) -> str:
    """Return `5.1.1: no such user`: the status, and the server's own words as plain text."""
    status = re.match(r"\s*([245]\.\d{1,3}\.\d{1,3})", str(recipient.get("Status", "")))
    words = str(recipient.get("Diagnostic-Code", "")).partition(";")[2]
    words = one_line(re.sub(r"<?[^\s<>]+@[^\s<>]+>?", "<…>", one_line(words, 400)), 120)
    return ": ".join(filter(None, (status[1] if status else "", words))) or "no reason was given"


class Reports:
    """Delivery reports on their way into the requests' logs. A repeated report counts once."""

    def __init__(self, engine: Engine, return_paths: ReturnPaths) -> None:
        self._engine = engine
        self._return_paths = return_paths

    async def take(self, returned: Returned, content: bytes) -> bool:
        """Record a failure report, and return whether it was one.

        Raises ApprovalsBotError or OSError when it can't be stored now.
        """
        try:
            reason = why_it_failed(content)
            together = self._return_paths.read_together(content) if reason else ()
        except Exception as error:  # noqa: BLE001  # a stranger's bytes may make the parser raise anything
            log.warning("A mail to a return address can't be parsed (%s).", type(error).__name__)
            return False
        if reason is None:
            return False
        for each in together if returned in together else (returned,):
            await self._record(each, reason)
        return True

    async def _record(self, returned: Returned, reason: str) -> None:
        """Add the bounce to the request's log. After the decision, only the audit keeps it."""
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
            log.info("A mail bounced after its request was decided.")
        except HookFullError as error:
            log.warning("A mail bounced, and its request doesn't show it: %s", error)
