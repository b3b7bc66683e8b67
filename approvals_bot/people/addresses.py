"""Mail addresses, which identify people, and the addresses that workflow files write.

One person has one identity, however their address is spelled: `canonical` maps every spelling of an address to the one
that is compared and stored, and `IdentityRules` adds what a company says about its own (`bo+x@` is Bo, acme.com is
acme.eu). Everything that takes an address from outside calls one of the two. Mail is sent to the address as it was
configured.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Literal

from approvals_bot.errors import ApprovalsBotError

LONGEST_ADDRESS = 254  # bytes; RFC 5321
LONGEST_SPELLING = 4 * LONGEST_ADDRESS  # characters of any spelling of one; what is longer isn't looked at

_LABEL = r"(?:(?!..--)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)"
_ATOM = r"[a-z0-9_!#$%&'*+/=?^`{|}~-]+"
_PLAIN = re.compile(rf"(?![!~-])(?=[^@]{{1,64}}@){_ATOM}(?:\.{_ATOM})*@(?:{_LABEL}\.)+(?=[^.]*[a-z]\Z){_LABEL}")
"""What is already canonical: ASCII in lower case, and no label of another alphabet. It is so common that what the rest
needs is imported only there."""

_ANY_LABEL = _LABEL.replace("(?!..--)", "(?!(?!xn)..--)")
_ANY_ATOM = _ATOM.replace("[a-z", "[a-z\u0080-\U0010ffff")
_ADDRESS = re.compile(
    rf"(?=[^@]{{1,64}}@){_ANY_ATOM}(?:\.{_ANY_ATOM})*@(?:{_ANY_LABEL}\.)+(?=[^.]*[a-z]\Z){_ANY_LABEL}"
)
"""An address without differences of case (RFC 5321 and 6531), its domain in A-labels. A test holds this to be what
email-validator says."""

_EXCLUSIONS = "!-~\u00ac\u2010\u2011\u2012\u2013\u2014\u2015\u2212"  # how people write "everybody but"
_SLACK_ID = re.compile(r"[UW][A-Z0-9]{2,20}")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,62}[A-Za-z0-9])?")

AddressFault = Literal["not_an_address", "no_dot", "exclusion", "invisible", "trailing_dot"]


class AddressError(ApprovalsBotError, ValueError):
    """This text names nobody: it is not an email address. The message is for the person who wrote it."""

    def __init__(self, code: AddressFault, text: str) -> None:
        self.code = code
        shown = f'"{_visible(text[:80])}"'
        super().__init__(
            {
                "not_an_address": f"{shown} is not an email address",
                "no_dot": f"{shown} is not an email address: there is no dot after the @",
                "exclusion": f"{shown} begins like an exclusion, which doesn't exist; list the people who are meant",
                "invisible": f"{shown} contains an invisible character; type the address instead of pasting it",
                "trailing_dot": f"{shown} ends with a dot; leave it out",
            }[code]
        )

    @property
    def is_shapeless(self) -> bool:
        """Whether this doesn't even look like an address, so that there is nothing to say about it."""
        return self.code == "not_an_address"


@lru_cache(maxsize=16_384)
def canonical(text: str) -> str:
    """Return the one spelling of an email address that people are compared by.

    >>> canonical("Bo@ACME.eu"), canonical("bo@bücher.example")
    ('bo@acme.eu', 'bo@xn--bcher-kva.example')

    Both parts are normalized (NFKC) and without case; the domain is an A-label (UTS #46), without a trailing dot.
    Raises AddressError for what is not an address, for one with invisible characters, and for one that begins like an
    exclusion.
    """
    folded = text.lower().removesuffix(".") if text.isascii() else ""
    if len(folded) <= LONGEST_ADDRESS and _PLAIN.fullmatch(folded):
        return folded
    return _validated(text)


def canonical_in_file(text: str) -> str:
    """Return the canonical spelling of an address in a configuration file.

    Raises AddressError as `canonical` does, and for a trailing dot: nobody means one.
    """
    found = canonical(text)
    if unicodedata.normalize("NFKC", text).endswith((".", "\u3002")):
        raise AddressError("trailing_dot", text)
    return found


def is_mail(text: str) -> bool:
    """Check whether this is a mail address, and so may name a person."""
    try:
        canonical(text)
    except AddressError:
        return False
    return True


@dataclass(frozen=True)
class IdentityRules:
    """What a company says about its own addresses.

    `plus`: whether `bo+x@acme.eu` is `bo@acme.eu`. `domains`: alias domains, each with the domain that it stands for.
    """

    plus: Literal["same", "different"] = "same"
    domains: Mapping[str, str] = field(default_factory=dict)

    def canonical(self, text: str) -> str:
        """Return the address that this person is compared by. Raises AddressError."""
        return self.identity_of(canonical(text))

    def identity_of(self, address: str) -> str:
        """Return the identity that a canonical address belongs to."""
        local, _, domain = address.rpartition("@")
        if self.plus == "same" and "+" in local:
            local = local.partition("+")[0] or local
        return f"{local}@{self._aliases.get(domain, domain)}"

    @cached_property
    def _aliases(self) -> Mapping[str, str]:
        return {canonical_domain(alias): canonical_domain(of) for alias, of in self.domains.items()}


def canonical_domain(text: str) -> str:
    """Return a domain as it is written in canonical addresses. Raises AddressError."""
    return canonical(f"a@{text}")[2:]


def _validated(text: str) -> str:
    """Return any spelling of an address as the canonical one, the slow way. Raises AddressError."""
    if len(text) > LONGEST_SPELLING:
        raise AddressError("not_an_address", text)
    if not text.isascii() and _has_invisible(text):
        raise AddressError("invisible", text)
    local, at, domain = unicodedata.normalize("NFKC", text).rpartition("@")
    if local.startswith(tuple(_EXCLUSIONS)) or local.casefold().startswith("not "):
        raise AddressError("exclusion", text)
    domain = _a_labels(domain, text)
    if not at or not local:
        raise AddressError("not_an_address", text)
    found = f"{_folded(local)}@{domain}"
    _validate(found, text)
    return found


def _folded(text: str) -> str:
    """Return the text without differences of case or of compatible characters (NFKC_Casefold)."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def _a_labels(domain: str, text: str) -> str:
    """Return a domain in A-labels. Case is folded by UTS #46 alone: by `casefold`, straße.de would be strasse.de."""
    if domain.isascii() and "xn--" not in domain.lower():
        return domain.lower().removesuffix(".")
    import idna

    try:
        mapped = idna.uts46_remap(domain, std3_rules=False).removesuffix(".")
        unicode = idna.decode(mapped)
        found = idna.encode(unicode).decode("ascii")
        if any(unicodedata.bidirectional(character) in ("R", "AL", "AN") for character in unicode):
            for label in unicode.split("."):  # RFC 5893: one label from right to left binds the others, too
                idna.check_bidi(label, check_ltr=True)
    except (idna.IDNAError, UnicodeError):
        raise AddressError("not_an_address", text) from None
    if _has_invisible(unicode):
        raise AddressError("invisible", text)
    return found


def _validate(address: str, text: str) -> None:
    """Check a folded address against the one definition of an address. Raises AddressError about `text`."""
    if "." not in address.rpartition("@")[2]:
        raise AddressError("no_dot", text)
    kinds = [unicodedata.category(character)[0] for character in address]
    if kinds[0] == "M" or not {"C", "Z"}.isdisjoint(kinds) or _ADDRESS.fullmatch(address) is None:
        raise AddressError("not_an_address", text)
    if len(address.encode()) > LONGEST_ADDRESS:
        raise AddressError("not_an_address", text)


@lru_cache(maxsize=1)
def _invisible() -> re.Pattern[str]:
    import regex

    return regex.compile(r"[\p{Default_Ignorable_Code_Point}\p{C}\p{Z}\u2800]")  # type: ignore[no-any-return]


def _has_invisible(text: str) -> bool:
    return _invisible().search(text) is not None


def _visible(text: str) -> str:
    """Return the text with its invisible characters spelled out."""
    if text.isascii() and text.isprintable():
        return text
    return _invisible().sub(lambda found: " " if found[0] == " " else f"⟨U+{ord(found[0]):04X}⟩", text)


# ── addresses in workflow files ──


@dataclass(frozen=True, slots=True)
class PersonAddress:
    address: str


@dataclass(frozen=True, slots=True)
class GroupAddress:
    name: str


@dataclass(frozen=True, slots=True)
class SlackGroupAddress:
    handle: str  # without the @


MOST_LEVELS = 10  # of managers above managers


@dataclass(frozen=True, slots=True)
class ManagerOf:
    """Somebody's manager. `levels`: how far up; 2 is the manager's manager."""

    whom: Literal["requester", "approver", "on-behalf-of"]
    levels: int = 1


@dataclass(frozen=True, slots=True)
class OnBehalfOf:
    pass


@dataclass(frozen=True, slots=True)
class OwnerOf:
    field: str


@dataclass(frozen=True, slots=True)
class OnCall:
    name: str


@dataclass(frozen=True, slots=True)
class InField:
    """The people whom a field of the request names."""

    field: str


Address = PersonAddress | GroupAddress | SlackGroupAddress | ManagerOf | OnBehalfOf | OwnerOf | OnCall | InField


@lru_cache(maxsize=4096)
def parse_address(text: str) -> Address:
    """Parse an address as workflow files write it. Raises ValueError that says how to write one."""
    scheme, colon, rest = text.partition(":")
    match scheme, rest:
        case "on-behalf-of", "" if not colon:
            return OnBehalfOf()
        case "manager-of", ("requester" | "approver" | "on-behalf-of") as whom:
            return ManagerOf(whom)
        case "manager-of", _ if rest.startswith("manager-of:") and text.count("manager-of:") <= MOST_LEVELS:
            above = parse_address(rest)
            assert isinstance(above, ManagerOf), "it begins so"
            return ManagerOf(above.whom, above.levels + 1)
        case "manager-of", _:
            raise ValueError("write manager-of:requester, manager-of:approver or manager-of:on-behalf-of")
        case "owner-of", _ if _NAME.fullmatch(rest):
            return OwnerOf(rest)
        case "oncall", _ if _NAME.fullmatch(rest):
            return OnCall(rest)
        case "field", _ if _NAME.fullmatch(rest):
            return InField(rest)
        case "slack", _ if rest.startswith("@") and _NAME.fullmatch(rest[1:]):
            return SlackGroupAddress(rest[1:])
    if not colon and text.startswith("@") and _NAME.fullmatch(text[1:]):
        return GroupAddress(text[1:])
    try:
        return PersonAddress(canonical_in_file(text))
    except AddressError as error:
        if not error.is_shapeless:
            raise
        raise ValueError(_shapeless(text)) from None


def _shapeless(text: str) -> str:
    """Say what is no address, and what was probably meant."""
    shown, meant = text[:60], ""
    if text in ("manager", "requester.manager", "manager-of", "@manager"):
        meant = "manager-of:requester"
    elif text.startswith("@slack:"):
        meant = f"slack:@{shown.removeprefix('@slack:')}"
    elif text.startswith("#"):
        return f'"{shown}" is a channel, and where a card appears says nothing about who may decide; name a @group'
    elif re.search(r"[;,]|\s", text.strip()) and text.count("@") > 1:
        return f'"{shown}" are several addresses; write each as its own: ["ann@acme.eu", "bo@acme.eu"]'
    elif _NAME.fullmatch(text) and text not in ("requester", "approver") and not _SLACK_ID.fullmatch(text):
        meant = f"@{shown}"
    near = f" (did you mean {meant}?)" if meant else ""
    return f'"{shown}" is not an address; write ann@acme.eu, @group, slack:@usergroup, manager-of:requester, …{near}'
