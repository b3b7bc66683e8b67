"""Mails that come back: which copy a bounce is about, and what it says.

The envelope's sender of each mail is an address of its own (VERP): it names the request and the copy, and bears a seal
that only a holder of the signing key can make. Whatever arrives at another address is nobody's bounce. The report's
text is never believed in who it is about, only in why.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message
from typing import Any

from approvals_bot.channels.text import one_line
from approvals_bot.tokens import Tokens

SEAL = "bounce.v1"
LONGEST_NAME = 10  # characters before the "+": with an id and its seal the local part has at most 63

_DELIVERY = re.compile(r"run_(?P<copy>[0-9a-f]{27}(\.\d{1,2})?-\d{1,4})-\d+")
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
        found = _DELIVERY.fullmatch(delivery_id)
        if found is None:
            return None
        copy = found["copy"]
        return f"{self._name}+{copy}-{self._tokens.seal(SEAL, copy)}@{self._domain}"

    def read(self, address: str) -> Returned | None:
        """The copy that this address was made for; None if we never made it. Case doesn't matter: relays change it."""
        local, _, domain = address.lower().rpartition("@")
        found = _LOCAL.fullmatch(local)
        if found is None or (found["name"], domain) != (self._name, self._domain):
            return None
        if not self._tokens.is_sealed(SEAL, found["copy"], found["seal"]):
            return None
        request, _, number = found["copy"].partition("-")
        return Returned(f"run_{request}", int(number))


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
