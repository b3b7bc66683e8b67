"""Checks of `[[schedule]]`: names that differ, requesters that may request, and input that the workflow takes."""

from __future__ import annotations

from collections.abc import Iterator

from approvals_bot.approvals import fields
from approvals_bot.approvals.base import nearest
from approvals_bot.approvals.field_specs import FieldSpec
from approvals_bot.approvals.opening_policy import SCHEDULE, WorkflowSchedule
from approvals_bot.approvals.policy import Definition
from approvals_bot.config.messages import Finding
from approvals_bot.config.positions import Path
from approvals_bot.config.service import ServiceSettings
from approvals_bot.people import AddressError, is_mail
from approvals_bot.people.addresses import canonical_in_file


def schedule_faults(definition: Definition, service: ServiceSettings) -> Iterator[Finding]:
    """Yield what is wrong with a workflow's schedules in this service."""
    seen: set[str] = set()
    for at, schedule in enumerate(definition.schedule):
        path = ("schedule", at)
        if schedule.id in seen:
            yield Finding((*path, "id"), f'another schedule is called "{schedule.id}"')
        seen.add(schedule.id)
        if definition.workflow.on_behalf_of == "required":
            yield Finding(path, "a schedule names nobody that its request is for, which workflow.on_behalf_of requires")
        yield from _requester((*path, "requester"), schedule.requester, definition, service)
        if definition.is_approval or definition.fields:
            yield from input_faults(path, schedule, definition.fields)


def input_faults(path: Path, schedule: WorkflowSchedule, of: dict[str, FieldSpec]) -> Iterator[Finding]:
    """Yield what these fields refuse of a schedule's input."""
    for rejection in fields.read_values(of, schedule.input)[1]:
        if "input" in schedule.model_fields_set:
            yield Finding((*path, "input", *rejection.path), rejection.text, about=("fields",))
        else:
            yield Finding((*path, "input"), f"{'.'.join(rejection.path)} {rejection.text}", about=("fields",))


def _requester(path: Path, address: str, definition: Definition, service: ServiceSettings) -> Iterator[Finding]:
    if address == SCHEDULE:
        return
    if address.startswith("app:"):
        if address[4:] not in service.api_keys:
            near = nearest(address[4:], service.api_keys)
            yield Finding(path, f"no key in [api_keys] is called {address[4:]}", near and f"app:{near}")
            return
    else:
        try:
            canonical_in_file(address)
        except AddressError as error:
            yield Finding(path, "write a person's address, or app:name" if error.is_shapeless else str(error))
            return
    if not any(_may_list(entry, address, service) for entry in definition.workflow.request):
        yield Finding(path, f"workflow.request doesn't list {address}", about=("workflow",))


def _may_list(entry: str, address: str, service: ServiceSettings) -> bool:
    """Return whether an entry of `request` lists this person or app, or may do so: only live sources know."""
    if address.startswith("app:") or entry.startswith("app:"):
        return entry == address
    listed = service.people_in(entry.removeprefix("@")) if entry.startswith("@") else None
    if listed is not None:
        return service.is_among(address, listed)
    return entry == "*" or entry.startswith(("@", "slack:")) or (is_mail(entry) and service.is_among(address, (entry,)))
