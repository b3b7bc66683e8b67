"""The interface between a way that mail comes to us (LMTP, SMTP, a mailbox) and what it is for."""

from __future__ import annotations

from typing import Protocol

LARGEST_MAIL = 1_000_000  # bytes; a report may include the bounced mail, and ours have less than 250 kB


class Inlet(Protocol):
    """Takes the mail that comes to some of our addresses: bounces, or replies."""

    name: str  # "bounces", "replies"
    takes_from_people: bool  # False: from the null sender alone, as reports are sent

    async def knows(self, address: str) -> bool:
        """Return whether this is one of its addresses."""

    async def take(self, address: str, sender: str, content: bytes) -> bool:
        """Take one mail, and return whether it meant anything. A repeated mail counts once.

        `sender`: the envelope's, "" for the null sender. Raises ApprovalsBotError or OSError when it can't be stored
        now, so that it comes again.
        """
