"""`[api_keys]`: the programs that may call the API, and what each of them may do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, WithJsonSchema, model_validator

from approvals_bot.approvals.base import Bool, Frozen, WorkflowName, refuse
from approvals_bot.approvals.business_time import Day
from approvals_bot.config.secret import Secret
from approvals_bot.people import GroupAddress, PersonAddress, SlackGroupAddress
from approvals_bot.people.addresses import parse_address

SHORTEST_SECRET = 32  # bytes, as long as the SHA-256 digest: nobody guesses it, however often they may try
MOST_SECRETS = 8  # of one key; a rotation needs two

Right = Literal["start", "read", "read-all", "vote", "operate", "audit", "scim"]
"""What a key may be allowed to do. `start` and `read` reach only what the key itself has opened."""

DEFAULT_RIGHTS: tuple[Right, ...] = ("start", "read")
OF_VOTERS: tuple[Right, ...] = ("start", "read-all", "vote")
"""What `may_vote = true` stands for, with `requesters = ["*"]`."""

ANYBODY = "*"


def _long_enough(value: SecretStr) -> SecretStr:
    if len(value.get_secret_value().encode()) < SHORTEST_SECRET:
        raise refuse(f"an API key has at least {SHORTEST_SECRET} bytes; `approvals-bot keys new NAME` makes one")
    return value


def _several(value: object) -> object:
    return [value] if isinstance(value, str | SecretStr) else value


def _requester(value: str) -> str:
    if value == ANYBODY:
        return value
    try:
        address = parse_address(value)
    except ValueError as error:
        raise refuse(str(error)) from None
    if not isinstance(address, PersonAddress | GroupAddress | SlackGroupAddress):
        raise refuse('write "*" for everyone who is known, "@group", "slack:@usergroup" or an email address')
    return value


def short_form(secret: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON Schema of a key's value, or its values. It is also the short form of the whole entry."""
    about = "The key itself, or several values while it is replaced; short for { key = … }."
    return {"anyOf": [secret, {"type": "array", "items": secret, "minItems": 1}], "description": about}


KeyValue = Annotated[Secret, AfterValidator(_long_enough)]
KeyValues = Annotated[
    tuple[KeyValue, ...],
    BeforeValidator(_several),
    Field(min_length=1, max_length=MOST_SECRETS),
    WithJsonSchema(short_form({"type": "string", "pattern": "^(env|file):.+"})),
]
Requester = Annotated[str, AfterValidator(_requester)]


class ApiKeyEntry(Frozen):
    """A caller of the API, named by the table's key.

    `key`: its values, all of them accepted, so that one can be replaced without a gap. `may_vote`: short for what a
    trusted desk needs. `may`: its rights. `workflows`: those that it is limited to. `requesters`: the people it may
    name as a requester. `expires`: the first day on which it is refused.
    """

    key: KeyValues
    may_vote: Bool = False
    may: tuple[Right, ...] | None = None
    workflows: tuple[WorkflowName, ...] | None = None
    requesters: tuple[Requester, ...] | None = None
    expires: Day | None = None

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: object) -> object:
        return {"key": value} if isinstance(value, str | list) else value

    @property
    def rights(self) -> frozenset[Right]:
        """What this key may do, `may_vote` included."""
        voters = OF_VOTERS if self.may_vote else ()
        own = self.may if self.may is not None else () if self.may_vote else DEFAULT_RIGHTS
        return frozenset((*voters, *own))

    @property
    def may_name(self) -> tuple[str, ...]:
        """The addresses of the people that this key may name as a requester."""
        return self.requesters if self.requesters is not None else (ANYBODY,) if self.may_vote else ()


def values_twice(keys: dict[str, ApiKeyEntry]) -> Iterator[tuple[str, str]]:
    """Yield pairs of names that have a value in common."""
    seen: dict[str, str] = {}
    for name, entry in keys.items():
        for value in entry.key:
            other = seen.setdefault(value.get_secret_value(), name)
            if other != name:
                yield other, name
