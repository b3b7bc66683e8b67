"""Bounced mails: which copy a bounce is about, and its way into the request's log.

Each mail has its own envelope sender (VERP). The address names the request and the copy, and carries a seal that needs
the signing key. Mail to any other address is not a bounce. A report marks that copy only if it is about its mailbox:
people who forward their mail cause reports about others. An address has no room for several requests, so a digest names
all of them in a header with a seal of its own; reports include the headers of the mail that bounced.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from email import message_from_bytes, message_from_string

from approvals_bot.approvals.acts import SERVICE
from approvals_bot.channels.email.reports import Failure, parts_of, read_failures
from approvals_bot.channels.email.sealed import MailedCopy, SealedAddresses, copy_of, read_copies
from approvals_bot.durable.core.events import Event
from approvals_bot.durable.core.hooks import WebhookRequest
from approvals_bot.durable.engine import Engine
from approvals_bot.durable.tokens import Tokens
from approvals_bot.errors import HookFullError, HookNotFoundError
from approvals_bot.service.read import find_record, request_of

log = logging.getLogger(__name__)

TOGETHER = "X-Approvals-Copies"  # the header of a digest
SEAL_OF_BOUNCES, TOGETHER_SEAL = (
    "bounce.v1",
    "bounces.v1",
)  # the purposes that an address and that header are sealed for


class ReturnPaths:
    """The envelope senders of our mails, made and read: `bounces+<request>-<copy>-<seal>@acme.eu`."""

    def __init__(self, address: str, tokens: Tokens) -> None:
        self._addresses = SealedAddresses(address)
        self._tokens = tokens

    def of(self, delivery_id: str) -> str | None:
        """Return this delivery's envelope sender; None for a mail that is no copy of a request (a code)."""
        copy = copy_of(delivery_id)
        return None if copy is None else self._addresses.write(copy, self._tokens.seal(SEAL_OF_BOUNCES, copy.text))

    def read(self, address: str) -> MailedCopy | None:
        """Return the copy that this address was made for, in any case; None if it isn't ours."""
        found = self._addresses.read(address)
        if found is None or not self._tokens.is_sealed(SEAL_OF_BOUNCES, found[0].text, found[1]):
            return None
        return found[0]

    def of_together(self, delivery_ids: Sequence[str]) -> str:
        """Return a digest's header value: the copies it contains, and the seal."""
        copies = " ".join(copy.text for each in delivery_ids if (copy := copy_of(each)) is not None)
        return f"{copies} {self._tokens.seal(TOGETHER_SEAL, copies)}"

    def read_together(self, report: bytes) -> tuple[MailedCopy, ...]:
        """Return the copies in the digest that bounced; () without a valid header of ours."""
        copies, _, seal = " ".join(_header_of_returned(report).split()).rpartition(" ")
        return read_copies(copies) if self._tokens.is_sealed(TOGETHER_SEAL, copies, seal) else ()


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
    """The inlet for delivery reports, on their way into the requests' logs."""

    name = "bounces"
    takes_from_people = False

    def __init__(self, engine: Engine, return_paths: ReturnPaths) -> None:
        self._engine = engine
        self._return_paths = return_paths

    async def knows(self, address: str) -> bool:
        return self._return_paths.read(address) is not None

    async def take(self, address: str, sender: str, content: bytes) -> bool:
        """Record a failure report, and return whether it was one."""
        returned = self._return_paths.read(address)
        if returned is None:
            return False
        try:
            failures = read_failures(content)
            together = self._return_paths.read_together(content) if failures else ()
        except Exception as error:  # noqa: BLE001  # a stranger's bytes may make the parser raise anything
            log.warning("A mail to a return address can't be parsed (%s).", type(error).__name__)
            return False
        for each in (together if returned in together else (returned,)) if failures else ():
            await self._record(each, failures)
        return bool(failures)

    async def _record(self, returned: MailedCopy, failures: Sequence[Failure]) -> None:
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
        is_ours = failure.blame != "recipient"
        if is_ours:
            log.error("Mail doesn't work: it came back for a fault of ours: %s. Check [email].", failure.reason)
        reason, data = failure.reason, {"copy": returned.copy, "why": failure.reason}
        message = {"kind": "bounced", "by": "relay", "via": "email", "copy": returned.copy, "reason": reason}
        message |= {"is_ours": True} if is_ours else {}
        await self._engine.audit("mail_came_back", run_id=target.record.id, actor=SERVICE.as_json(), data=data)
        try:
            await self._engine.resume_webhook(target, WebhookRequest.of_json(message))
        except HookNotFoundError:
            log.info("A mail bounced after its request was decided.")
        except HookFullError as error:
            log.warning("A mail bounced, and its request doesn't show it: %s", error)


def mailboxes_of(events: Iterable[Event], copy: MailedCopy) -> tuple[str, ...]:
    """Return the mailbox that a copy was mailed to, and its person's address; () if the log doesn't say."""
    for event in events:
        dispatch = event.data["input"].get("dispatch") if event.type == "step_created" else None
        if isinstance(dispatch, dict) and dispatch["delivery_id"].startswith(copy.deliveries):
            person = dispatch["to"].get("person", {})
            return tuple(person[name] for name in ("mail", "address") if person.get(name))
    return ()
