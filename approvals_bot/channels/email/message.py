"""A dispatch as the bytes of one mail to one person.

We write the headers and the two parts ourselves: the standard library re-encodes long ids (which breaks threads) and
decodes encoded words that people typed. A delivery always gets the same Message-ID, so most clients show a mail that
was sent twice only once.
"""

from __future__ import annotations

import hashlib
import quopri
import re
import unicodedata
from base64 import b32encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.header import Header
from email.utils import format_datetime

from approvals_bot.approvals.plain_text import header
from approvals_bot.approvals.port import Dispatch, ToPerson
from approvals_bot.channels.email import letter
from approvals_bot.errors import ApprovalsBotError
from approvals_bot.people import AddressError, canonical

NAMED = re.compile(r"(?P<name>[^<>\r\n]*)<(?P<address>[^<>\s]+)>")
SPECIALS = re.compile(r"[^A-Za-z0-9 !#$%&\'*+/=?^_`{|}~-]")  # a display name with one of these needs quotes
MESSAGE_ID_LIMIT = 60  # characters without the brackets; from 77 on, mailers start to fold or encode an id


class InvalidAddressError(ApprovalsBotError, ValueError):
    """This is not one mail address. Correct it where the person is configured; nothing was sent."""


@dataclass(frozen=True, slots=True)
class Address:
    """A mailbox for an envelope: one address, its domain in ASCII."""

    address: str
    name: str = ""
    needs_utf8: bool = False  # its local part can't be written in ASCII

    @property
    def domain(self) -> str:
        return self.address.rpartition("@")[2]

    @classmethod
    def parse(cls, address: str, name: str = "") -> Address:
        """Parse `ann@acme.eu`. Raises InvalidAddressError for anything but one bare address."""
        try:
            domain = canonical(address).rpartition("@")[2]
        except AddressError:
            raise InvalidAddressError("Not a valid mail address.") from None  # errors and logs quote no address
        # The local part stays as given: only its own server knows whether it is case-sensitive.
        local = unicodedata.normalize("NFKC", address).rpartition("@")[0]
        return cls(f"{local}@{domain}", header(name, 80), not local.isascii())

    @classmethod
    def parse_sender(cls, text: str) -> Address:
        """Parse `approvals@acme.eu` or `Approvals <approvals@acme.eu>`."""
        named = NAMED.fullmatch(text.strip())
        return cls.parse(named["address"], named["name"].strip(' "')) if named else cls.parse(text.strip())


@dataclass(frozen=True, slots=True)
class OutgoingMail:
    """A mail ready to send: envelope and bytes. The bytes contain the person's link, so never log them."""

    sender: str
    recipient: str
    message_id: str  # without brackets
    content: bytes
    needs_utf8: bool = False


def compose(dispatch: Dispatch, *, sender: Address, now: datetime, replies_to: str | None = None) -> OutgoingMail:
    """Compose the mail for this dispatch, dated `now`. Raises InvalidAddressError for an invalid address.

    `replies_to`: the address at which the service reads replies to this mail; None: they go to the human requester.
    """
    assert isinstance(dispatch.to, ToPerson), "a mail goes to a mailbox"
    to = Address.parse(dispatch.to.person.mailbox, dispatch.to.person.name)
    message_id = message_id_of(dispatch.delivery_id, sender.domain)
    human = _human(dispatch)
    if replies_to is not None:
        name = sender.name or "Approvals"
        reply_to: Address | None = Address.parse(replies_to, f"{human.name} via {name}" if human else name)
    else:
        reply_to = human
    replies = letter.Replies(human.name or human.address if human else "", are_read=replies_to is not None)
    headers = {} if reply_to is None else {"Reply-To": _mailbox("Reply-To", reply_to)}
    written = letter.write(dispatch, now, replies)
    return _mail(sender, to, message_id, written, now, reply_to=headers, thread=_thread(dispatch))


def compose_together(
    dispatches: Sequence[Dispatch], *, sender: Address, now: datetime, more: Mapping[str, str] | None = None
) -> OutgoingMail:
    """Compose one mail for several dispatches to one person.

    `more`: additional headers; they are folded at every space. Raises InvalidAddressError.
    """
    first = dispatches[0]
    assert isinstance(first.to, ToPerson), "a mail goes to a mailbox"
    to = Address.parse(first.to.person.mailbox, first.to.person.name)
    message_id = message_id_of(" ".join(dispatch.delivery_id for dispatch in dispatches), sender.domain)
    folded = {name: value.replace(" ", "\r\n ") for name, value in (more or {}).items()}
    return _mail(sender, to, message_id, letter.write_together(dispatches, now), now, reply_to={}, thread=folded)


def _mail(
    sender: Address,
    to: Address,
    message_id: str,
    written: letter.Letter,
    now: datetime,
    *,
    reply_to: Mapping[str, str],
    thread: Mapping[str, str],
) -> OutgoingMail:
    boundary = f"=_{hashlib.sha256(message_id.encode()).hexdigest()[:32]}"  # "=_" never occurs in quoted-printable
    headers = {
        "From": _mailbox("From", sender),
        "To": _mailbox("To", to),
        **reply_to,
        "Subject": _unstructured("Subject", written.subject),
        "Date": format_datetime(now),
        "Message-ID": f"<{message_id}>",
        **thread,
        "Auto-Submitted": "auto-generated",  # RFC 3834: suppresses out-of-office replies
        "X-Auto-Response-Suppress": "OOF, AutoReply, DR, RN, NRN",  # the same for Exchange; All would mean bounces, too
        "MIME-Version": "1.0",
        "Content-Type": f'multipart/alternative; boundary="{boundary}"',
    }
    lines = [f"{name}: {value}" for name, value in headers.items()]
    parts = [_part("plain", written.text), _part("html", written.html)]
    body = b"".join(b"--" + boundary.encode() + b"\r\n" + part + b"\r\n" for part in parts)
    content = "\r\n".join(lines).encode() + b"\r\n\r\n" + body + b"--" + boundary.encode() + b"--\r\n"
    return OutgoingMail(sender.address, to.address, message_id, content, to.needs_utf8 or sender.needs_utf8)


def message_id_of(delivery_id: str, domain: str) -> str:
    """Return the delivery's Message-ID without brackets. It never changes, and has at most 60 characters."""
    local = b32encode(hashlib.sha256(delivery_id.encode()).digest())[:26].decode().lower()
    while len(local) + 1 + len(domain) > MESSAGE_ID_LIMIT and "." in domain:
        domain = domain.partition(".")[2]
    return f"{local}@{domain}"[:MESSAGE_ID_LIMIT]


def _thread(dispatch: Dispatch) -> dict[str, str]:
    if dispatch.thread is None:
        return {}
    first = "".join(char for char in dispatch.thread.id if char.isascii() and char.isprintable() and char not in "<> ")
    return {"In-Reply-To": f"<{first}>", "References": f"<{first}>"}


def _human(dispatch: Dispatch) -> Address | None:
    """Return the mailbox of the human behind the request, for replies: not an app, nor the reader."""
    assert isinstance(dispatch.to, ToPerson), "a mail goes to a mailbox"
    card = dispatch.card
    for name in (card.requester, card.on_behalf_of):
        if name is None or name.key == dispatch.to.person.address:
            continue
        try:
            human = Address.parse(name.key, name.text)
        except InvalidAddressError:
            continue
        return None if human.needs_utf8 else human
    return None


def _mailbox(field: str, mailbox: Address) -> str:
    if not mailbox.name:
        return mailbox.address
    if not mailbox.name.isascii():
        return f"{_unstructured(field, mailbox.name)}\r\n <{mailbox.address}>"
    if SPECIALS.search(mailbox.name):
        escaped = mailbox.name.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}" <{mailbox.address}>'
    return f"{mailbox.name} <{mailbox.address}>"


def _unstructured(field: str, text: str) -> str:
    """Fold the text at 76, as RFC 2047 encoded words where it isn't ASCII. `header` has cleaned it before."""
    charset = "us-ascii" if text.isascii() else "utf-8"
    return Header(text, charset, maxlinelen=76, header_name=field).encode(linesep="\r\n")


def _part(subtype: str, text: str) -> bytes:
    head = f'Content-Type: text/{subtype}; charset="utf-8"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n'
    lines = quopri.encodestring(text.encode("utf-8", "replace")).splitlines()
    return head.encode() + b"\r\n".join(lines) + b"\r\n"
