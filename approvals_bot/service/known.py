"""The people whom somebody knows now: rights end with a leave, whatever version of a workflow a run has pinned.

A person is known if the configuration names them, or a group, the directory, or the file of a workflow that is
offered now.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property

from approvals_bot.approvals.policy import Definition
from approvals_bot.people import People, PersonAddress, parse_address
from approvals_bot.service.catalog import Catalog


class KnownPeople:
    """Everybody who is known by this configuration. A reload makes a new one."""

    def __init__(self, people: People, workflows: Catalog, others: Iterable[str] = ()) -> None:
        """`others`: addresses and @groups that the configuration names elsewhere, such as roles."""
        self._people = people
        self._workflows = workflows
        self._others = tuple(others)

    async def knows(self, address: str) -> bool:
        """Return whether anybody knows this person now. Raises SourceUnavailable if a source that may can't be read."""
        return self._people.canonical(address) in self._named or await self._people.knows(address)

    @cached_property
    def _named(self) -> frozenset[str]:
        """The addresses that workflow files and the rest of the configuration name."""
        definitions = (each.definition for each in self._workflows.listed.values() if each.definition is not None)
        texts = (*self._others, *(text for each in definitions for text in _people_in(each)))
        return frozenset(self._people.canonical(mail) for text in texts for mail in _mails(text))


def _people_in(definition: Definition) -> Iterator[str]:
    """Yield what a workflow's file has where it names people."""
    yield from definition.workflow.request
    yield from definition.workflow.owners or ()
    for stage in definition.stage:
        for seat in stage.seat:
            yield from seat.from_
            yield from seat.notify or ()
    for escalation in definition.escalate:
        yield from escalation.to
    for schedule in definition.schedule:
        yield schedule.requester


def _mails(text: str) -> Iterator[str]:
    try:
        match parse_address(text):
            case PersonAddress(mail):
                yield mail
    except ValueError:
        return
