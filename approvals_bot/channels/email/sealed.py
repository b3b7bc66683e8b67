"""Addresses of ours that name one copy of a request, and carry a seal: `bounces+<request>-<copy>-<seal>@acme.eu`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from approvals_bot.people import AddressError, canonical

LONGEST_NAME = 10  # characters before the "+": with an id and its seal the local part has at most 63
SEAL = 16  # characters

_DELIVERY = re.compile(r"run_(?P<copy>[0-9a-f]{27}(\.\d{1,2})?-\d{1,4})-\d+")
_COPY = re.compile(r"[0-9a-f]{27}(\.\d{1,2})?-\d{1,4}")
_LOCAL = re.compile(rf"(?P<name>[^+@]+)\+(?P<copy>[0-9a-f]{{27}}(\.\d{{1,2}})?-\d{{1,4}})-(?P<seal>[a-z2-7]{{{SEAL}}})")


@dataclass(frozen=True, slots=True)
class MailedCopy:
    """One copy of a request, by the request's id and the copy's number."""

    request_id: str
    copy: int

    @property
    def text(self) -> str:
        """What an address or a header calls it."""
        return f"{self.request_id.removeprefix('run_')}-{self.copy}"

    @property
    def deliveries(self) -> str:
        """What the ids of its deliveries begin with."""
        return f"{self.request_id}-{self.copy}-"


class SealedAddresses:
    """Addresses below one mailbox, written and read. Their seals are their users' affair."""

    def __init__(self, address: str) -> None:
        self._name, _, self._domain = canonical(address).rpartition("@")

    def write(self, copy: MailedCopy, seal: str) -> str:
        return f"{self._name}+{copy.text}-{seal}@{self._domain}"

    def read(self, address: str) -> tuple[MailedCopy, str] | None:
        """Return the copy and the seal in an address, in any case; None if it is none of these."""
        try:
            local, _, domain = canonical(address).rpartition("@")
        except AddressError:
            return None
        found = _LOCAL.fullmatch(local)
        if found is None or (found["name"], domain) != (self._name, self._domain):
            return None
        return _copy(found["copy"]), found["seal"]


def copy_of(delivery_id: str) -> MailedCopy | None:
    """Return the copy that is delivered; None for a mail that is no copy of a request (a code)."""
    found = _DELIVERY.fullmatch(delivery_id)
    return None if found is None else _copy(found["copy"])


def read_copies(text: str) -> tuple[MailedCopy, ...]:
    """Return the copies in a header's words; () if one of them is none."""
    words = text.split(" ")
    return tuple(map(_copy, words)) if all(map(_COPY.fullmatch, words)) else ()


def _copy(text: str) -> MailedCopy:
    request, _, number = text.partition("-")
    return MailedCopy(f"run_{request}", int(number))
