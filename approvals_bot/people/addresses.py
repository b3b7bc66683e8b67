"""Addresses as workflow files write them. The people they mean are looked up elsewhere, at each use."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

_MAIL = re.compile(r"[^\s@<>\"',;:()\[\]\\]{1,64}@[^\s@<>\"',;:()\[\]\\]{1,253}")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,62}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class PersonAddress:
    address: str


@dataclass(frozen=True, slots=True)
class GroupAddress:
    name: str


@dataclass(frozen=True, slots=True)
class SlackGroupAddress:
    handle: str  # without the @


@dataclass(frozen=True, slots=True)
class ManagerOf:
    whom: Literal["requester", "approver", "on-behalf-of"]


@dataclass(frozen=True, slots=True)
class OnBehalfOf:
    pass


@dataclass(frozen=True, slots=True)
class OwnerOf:
    field: str


@dataclass(frozen=True, slots=True)
class OnCall:
    name: str


Address = PersonAddress | GroupAddress | SlackGroupAddress | ManagerOf | OnBehalfOf | OwnerOf | OnCall


@lru_cache(maxsize=4096)
def parse_address(text: str) -> Address:
    """Parse an address as workflow files write it. Raises ValueError that says how to write one."""
    scheme, colon, rest = text.partition(":")
    match scheme, rest:
        case "on-behalf-of", "" if not colon:
            return OnBehalfOf()
        case "manager-of", ("requester" | "approver" | "on-behalf-of") as whom:
            return ManagerOf(whom)
        case "manager-of", _:
            raise ValueError("write manager-of:requester, manager-of:approver or manager-of:on-behalf-of")
        case "owner-of", _ if _NAME.fullmatch(rest):
            return OwnerOf(rest)
        case "oncall", _ if _NAME.fullmatch(rest):
            return OnCall(rest)
        case "slack", _ if rest.startswith("@") and _NAME.fullmatch(rest[1:]):
            return SlackGroupAddress(rest[1:])
    if not colon and text.startswith("@") and _NAME.fullmatch(text[1:]):
        return GroupAddress(text[1:])
    if is_mail(text):
        return PersonAddress(text.lower())
    raise ValueError(
        f'"{text[:60]}" is not an address; write ann@acme.eu, @group, slack:@usergroup, manager-of:requester, …'
    )


def is_mail(text: str) -> bool:
    """Check whether this is a mail address, and so may name a person."""
    return _MAIL.fullmatch(text) is not None and text.isprintable()
