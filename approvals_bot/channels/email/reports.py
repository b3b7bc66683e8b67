"""What a mail that came back says: whose delivery failed for good, and why.

Reports of today's servers are read here: `message/delivery-status` (RFC 3464), and `message/global-delivery-status` for
addresses beyond ASCII (RFC 6533), which Python's parser and `flufl.bounce` leave alone. What qmail, old Exchange and
others write instead is read by `flufl.bounce`, where the extra `bounces` has installed it.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message
from importlib.util import find_spec
from typing import Any

from approvals_bot.approvals.plain_text import one_line
from approvals_bot.channels.email.blame import Blame, blame_for_report
from approvals_bot.people import AddressError, canonical

_STATUS_TYPE = re.compile(rb"(?im)^(content-type:\s*)message/(global-)?delivery-status\b")
_STATUS_LEAF = "text/x-delivery-status"  # under its own name, Python's parser would keep the raw bytes from us
_ADDRESS = re.compile(r"<?[^\s<>]+@[^\s<>]+>?")
_ESCAPED = re.compile(r"\\x\{([0-9A-Fa-f]{2,6})\}")  # RFC 6533, utf-8-addr-xtext
_DIAGNOSTIC_TYPE = re.compile(r"^\s*[\w.-]+\s*;")  # `smtp;`, which some servers leave out
_NAMES = ("original-recipient", "final-recipient")
_FAILED = ("failed", "error")  # OpenSMTPD says "error"


@dataclass(frozen=True, slots=True)
class Failure:
    """One recipient whom a mail can't reach. `recipients`: all names that the report gives them; () for none."""

    recipients: tuple[str, ...]
    reason: str  # one line, without addresses
    blame: Blame

    def is_about(self, mailboxes: tuple[str, ...]) -> bool:
        """Return whether the report names one of these mailboxes, or nobody."""
        return not self.recipients or any(_is_same(name, box) for name in self.recipients for box in mailboxes)


def read_failures(content: bytes) -> tuple[Failure, ...]:
    """Return the permanent failures that a report is about.

    () for everything else: a delay, a receipt, an out-of-office reply, a person's reply, a malformed report. A
    stranger's bytes may make Python's parser raise anything.
    """
    mail = message_from_bytes(_STATUS_TYPE.sub(rb"\1" + _STATUS_LEAF.encode(), content))
    status = next((part for part in parts_of(mail) if part.get_content_type() == _STATUS_LEAF), None)
    if status is None:
        return () if mail.get_content_type() == "multipart/report" else _read_by_library(content)
    is_report = mail.get_content_type() == "multipart/report"
    is_of_delivery = (
        str(mail.get_param("report-type") or "delivery-status").lower() == "delivery-status"
    )  # some omit it
    return tuple(_failures(status)) if is_report and is_of_delivery else ()


def parts_of(mail: Message[Any, Any]) -> list[Message[Any, Any]]:
    """Return the parts of a mail, or the mail in a part; [] if it has none."""
    payload = mail.get_payload()
    return [part for part in payload if isinstance(part, Message)] if isinstance(payload, list) else []


def _failures(status: Message[Any, Any]) -> Iterator[Failure]:
    raw = status.get_payload(decode=True)
    text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else ""
    for block in re.split(r"\r?\n[ \t]*\r?\n", text):
        unfolded = re.sub(r"\r?\n[ \t]+", " ", block)
        fields = dict(reversed([_field(line) for line in unfolded.splitlines() if ":" in line]))
        if fields.get("action", "").lower().startswith(_FAILED):
            yield _failure(fields)


def _field(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.strip().lower(), value.strip()


def _failure(fields: dict[str, str]) -> Failure:
    status = re.match(r"[245]\.\d{1,3}\.\d{1,3}", fields.get("status", ""))
    words = one_line(_DIAGNOSTIC_TYPE.sub("", fields.get("diagnostic-code", "")), 400)
    named = (_named(fields[name]) for name in _NAMES if name in fields)
    shown = one_line(_ADDRESS.sub("<…>", words), 120)
    reason = ": ".join(filter(None, (status[0] if status else "", shown))) or "no reason was given"
    blame = blame_for_report(status[0] if status else "", words.strip())
    return Failure(tuple(dict.fromkeys(filter(None, named))), reason, blame)


def _named(value: str) -> str:
    """Return the address in `rfc822; ann@acme.eu` or `utf-8; änn@acme.eu`, also where its letters are escaped.

    Some servers put a name, a comment or quotation marks around it.
    """
    kind, separator, address = value.partition(";")
    bare = re.sub(r"^.*<|>.*$|\s*\([^()]*\)$", "", (address if separator else kind).strip()).strip('"')
    return _ESCAPED.sub(lambda found: chr(min(int(found[1], 16), 0x10FFFF)), bare) if "@" in bare else ""


def _is_same(name: str, mailbox: str) -> bool:
    """Return whether two names are of one mailbox.

    Case, the domain's spelling and the part after a plus are no matter. A mailbox beyond ASCII has an ASCII name for
    servers that need one, by custom the same without accents: either may be in the report.
    """
    one, other = _identity(name), _identity(mailbox)
    return one == other or _without_accents(one) == _without_accents(other)


def _identity(address: str) -> str:
    try:
        local, _, domain = canonical(address).rpartition("@")
    except AddressError:
        return address.lower()
    return f"{local.partition('+')[0] or local}@{domain}"


def _without_accents(text: str) -> str:
    return "".join(sign for sign in unicodedata.normalize("NFKD", text) if not unicodedata.combining(sign))


def _read_by_library(content: bytes) -> tuple[Failure, ...]:
    """Read the report of a server that doesn't write RFC 3464. It counts only if it names the mailbox."""
    if find_spec("flufl") is None or find_spec("flufl.bounce") is None:
        return ()
    from flufl.bounce import all_failures

    logging.getLogger("flufl.bounce").setLevel(
        logging.CRITICAL
    )  # it names each detector, and what it raises comes here
    _, permanent = all_failures(message_from_bytes(content))
    named = [address.decode("ascii", "replace") for address in permanent if b"@" in address]
    return tuple(Failure((name,), "no reason was given", "recipient") for name in sorted(named))
