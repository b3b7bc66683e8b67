"""Bounced mails: which copy a bounce is about, and its way into the request's log.

Each mail has its own envelope sender (VERP). The address names the request and the copy, and carries a seal that needs
the signing key. Mail to any other address is not a bounce. A report marks that copy only if it is about its mailbox:
people who forward their mail cause reports about others. An address has no room for several requests, so a digest names
all of them in a header with a seal of its own; reports include the headers of the mail that bounced.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from email import message_from_bytes, message_from_string

from approvals_bot.channels.email.reports import Failure, parts_of, read_failures
from approvals_bot.durable.core.events import Event
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
    for part in parts_of(message_from_bytes(report)):
        match part.get_content_type():
            case "message/rfc822" | "message/global" | "message/global-headers":  # all three hold a mail, for Python
                returned = parts_of(part)[:1]
            case "text/rfc822-headers":
                returned = [message_from_string(str(part.get_payload()))]
            case _:
                continue
        for mail in returned:
            return str(mail.get(TOGETHER, ""))
    return ""


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
            failures = read_failures(content)
            together = self._return_paths.read_together(content) if failures else ()
        except Exception as error:  # noqa: BLE001  # a stranger's bytes may make the parser raise anything
            log.warning("A mail to a return address can't be parsed (%s).", type(error).__name__)
            return False
        for each in (together if returned in together else (returned,)) if failures else ():
            await self._record(each, failures)
        return bool(failures)

    async def _record(self, returned: Returned, failures: Sequence[Failure]) -> None:
        """Add the bounce to the request's log. After the decision, only the audit keeps it."""
        record = await find_record(self._engine, returned.request_id)
        view = request_of(record) if record is not None else None
        target = await self._engine.find(view.hook_id) if view is not None else None
        if target is None:
            return
        mailboxes = mailboxes_of(await self._engine.events(target.record.id), returned)
        failure = next((each for each in failures if each.is_about(mailboxes)), None) if mailboxes else failures[0]
        if failure is None:
            # Forwarded by the recipient, or by their server to several others: our mail has reached its mailbox.
            log.info("A report is about another mailbox than the mail's, so it marks no delivery.")
            return
        if failure.blame != "recipient":
            log.error("Mail doesn't work: it came back for a fault of ours: %s. Check [email].", failure.reason)
        reason, data = failure.reason, {"copy": returned.copy, "why": failure.reason}
        message = {"kind": "bounced", "by": "relay", "via": "email", "copy": returned.copy, "reason": reason}
        await self._engine.audit("mail_came_back", run_id=target.record.id, data=data)
        try:
            await self._engine.resume_webhook(target, WebhookRequest.of_json(message))
        except HookNotFoundError:
            log.info("A mail bounced after its request was decided.")
        except HookFullError as error:
            log.warning("A mail bounced, and its request doesn't show it: %s", error)


def mailboxes_of(events: Iterable[Event], returned: Returned) -> tuple[str, ...]:
    """Return the mailbox that a copy was mailed to, and its person's address; () if the log doesn't say."""
    prefix = f"{returned.request_id}-{returned.copy}-"
    for event in events:
        dispatch = event.data["input"].get("dispatch") if event.type == "step_created" else None
        if isinstance(dispatch, dict) and dispatch["delivery_id"].startswith(prefix):
            person = dispatch["to"].get("person", {})
            return tuple(person[name] for name in ("mail", "address") if person.get(name))
    return ()
