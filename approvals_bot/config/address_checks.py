"""Checks of whom a file names: people, groups and apps, and fields that hold people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from approvals_bot.approvals.agent_policy import EVERY_APP
from approvals_bot.approvals.base import nearest
from approvals_bot.approvals.field_addresses import TAKING, fields_of, variants
from approvals_bot.approvals.field_specs import FieldSpec
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.rules import IN_FIELD
from approvals_bot.config.directory import DirectoryTable
from approvals_bot.config.messages import Finding
from approvals_bot.config.positions import Path
from approvals_bot.config.service import ServiceSettings
from approvals_bot.people import (
    AddressError,
    GroupAddress,
    InField,
    ManagerOf,
    OnBehalfOf,
    OnCall,
    OwnerOf,
    SlackGroupAddress,
    is_mail,
    parse_address,
)
from approvals_bot.people.addresses import canonical_in_file


def named_people_faults(definition: Definition, service: ServiceSettings) -> Iterator[Finding]:
    """Check the addresses that say whom a field may name."""
    tables: list[tuple[Path, Mapping[str, FieldSpec]]] = [(("fields",), definition.fields)]
    tables += [(("stage", at, "ask"), stage.ask) for at, stage in enumerate(definition.stage)]
    for path, fields in tables:
        for name, spec in fields.items():
            yield from address_list_faults((*path, name, "in"), spec.in_ or (), definition, service)


def excluded_faults(definition: Definition, service: ServiceSettings) -> Iterator[Finding]:
    """Check whom the policy excludes."""
    for at, entry in enumerate(definition.policy.exclude or ()):
        path = ("policy", "exclude", at)
        if entry.startswith(IN_FIELD):
            yield from _in_field(path, entry.removeprefix(IN_FIELD), definition, ("email", "string"))
        elif entry.startswith(("@", "slack:@")):
            yield from address_faults(path, entry, definition, service)
        else:
            yield from _mail_address(path, entry, 'write "field:name", "@group" or an email address')


def _in_field(path: Path, name: str, definition: Definition, others: Sequence[str] = ()) -> Iterator[Finding]:
    """Check that a field names people. `others`: types that may hold addresses, too."""
    spec = definition.fields.get(name)
    if spec is None:
        near = nearest(name, definition.fields)
        yield Finding(path, f"no field is called {name}", near and f"{IN_FIELD}{near}", about=("fields",))
    elif not spec.holds_people and spec.type not in others:
        yield Finding(path, f'{name} names nobody; give it type = "person"', about=("fields",))


def requester_faults(definition: Definition, service: ServiceSettings) -> Iterator[Finding]:
    """Check who may request."""
    if definition.request is None:
        yield from requester_list_faults(("workflow", "request"), definition.workflow.request, definition, service)
    for at, rule in enumerate(definition.request or ()):
        yield from requester_list_faults(("request", at, "from"), rule.from_, definition, service)


def requester_list_faults(
    path: Path, entries: Sequence[str], definition: Definition, service: ServiceSettings
) -> Iterator[Finding]:
    """Check a list of those who may do something: people, groups and apps."""
    for at, text in enumerate(entries):
        yield from requester_entry_faults((*path, at), text, definition, service)


def requester_entry_faults(
    path: Path, text: str, definition: Definition, service: ServiceSettings
) -> Iterator[Finding]:
    """Check one entry of such a list."""
    if text.startswith("app:"):
        if text != EVERY_APP and text[4:] not in service.api_keys:
            near = nearest(text[4:], service.api_keys)
            yield Finding(path, f"no key in [api_keys] is called {text[4:]}", near and f"app:{near}")
    elif text.startswith("@") and not fields_of(text):
        yield from address_faults(path, text, definition, service)
    elif text != "*":
        yield from _mail_address(path, text, 'write "*" for everyone, "@group", "app:name" or an email address')


def _mail_address(path: Path, text: str, how: str) -> Iterator[Finding]:
    """Check an address that must be a person's. `how`: what to write, if this is no address at all."""
    try:
        canonical_in_file(text)
    except AddressError as error:
        yield Finding(path, how if error.is_shapeless else str(error))


def viewer_faults(definition: Definition, service: ServiceSettings) -> Iterator[Finding]:
    """Check who may see the workflow's requests."""
    for at, text in enumerate(definition.workflow.viewers or ()):
        path = ("workflow", "viewers", at)
        if text.startswith("@") and not fields_of(text):
            yield from address_faults(path, text, definition, service)
        elif not is_mail(text):
            yield Finding(path, 'write "@group" or an email address')


def owner_faults(definition: Definition, service: ServiceSettings) -> Iterator[Finding]:
    """Check who owns the workflow."""
    for at, text in enumerate(definition.workflow.owners or ()):
        path = ("workflow", "owners", at)
        if text.startswith("app:"):
            if text[4:] not in service.api_keys:
                yield Finding(path, f"no key in [api_keys] is called {text[4:]}")
        else:
            yield from address_faults(path, text, definition, service)


def address_list_faults(
    path: Path, addresses: Iterable[str], definition: Definition, service: ServiceSettings
) -> Iterator[Finding]:
    """Check each address of a list."""
    for at, text in enumerate(addresses):
        yield from address_faults((*path, at), text, definition, service)


def address_faults(
    path: Path, text: str, definition: Definition, service: ServiceSettings, of_approver: bool = False
) -> Iterator[Finding]:
    """Check one address: whether it names something, and whether that is known here."""
    if (names := fields_of(text)) or "{{" in text:
        yield from _of_fields(path, text, names, definition, service)
        return
    try:
        address = parse_address(text)
    except ValueError as error:
        yield Finding(path, str(error))
        return
    directory = service.directory
    match address:
        case GroupAddress(name) if name not in service.groups:
            near = nearest(name, service.groups)
            todo = "" if near else "; add it to [groups] of config.toml"
            yield Finding(path, f"no group is called {name}{todo}", near and f"@{near}")
        case SlackGroupAddress() if service.slack is None:
            yield Finding(path, "Slack is not configured")
        case ManagerOf("approver") if not of_approver:
            yield Finding(path, "there is no approver yet; this is for [[escalate]]", "manager-of:requester")
        case ManagerOf("on-behalf-of") | OnBehalfOf() if definition.workflow.on_behalf_of == "never":
            yield Finding(path, 'is never known: this workflow sets on_behalf_of = "never"')
        case InField(name):
            yield from _in_field(path, name, definition)
        case OwnerOf(name) if name not in definition.fields:
            near = nearest(name, definition.fields)
            yield Finding(path, f"no field is called {name}", near and f"owner-of:{near}", about=("fields",))
        case OwnerOf(name) if isinstance(directory, DirectoryTable) and name not in directory.owner_of:
            near = nearest(name, directory.owner_of)
            yield Finding(path, f"[directory] has no owner-of.{name}", near and f"owner-of:{near}")
        case OnCall(name) if isinstance(directory, DirectoryTable) and name not in directory.oncall:
            near = nearest(name, directory.oncall)
            yield Finding(path, f"[directory] has no oncall.{name}", near and f"oncall:{near}")


def _of_fields(
    path: Path, text: str, names: Sequence[str], definition: Definition, service: ServiceSettings
) -> Iterator[Finding]:
    """Check an address that depends on enums, for each of their values."""
    if not names or not text.startswith(TAKING):
        yield Finding(path, 'an address takes the value of an enum like this: "@team-{{ team }}"')
        return
    for name in names:
        spec = definition.fields.get(name)
        if spec is None:
            yield Finding(path, f"no field is called {name}", nearest(name, definition.fields), about=("fields",))
        elif spec.type != "enum":
            yield Finding(path, f"{name} is no enum, so it can't be known which groups there are", about=("fields",))
    for each, given in variants(text, definition.fields):
        said = " and ".join(f'{name} = "{value}"' for name, value in given.items())
        for found in address_faults(path, each, definition, service):
            yield Finding(path, f"{found.message}, for {said}", found.suggestion, about=("fields",))
