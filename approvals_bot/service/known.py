"""The people whom somebody knows now: rights end with a leave, whatever version of a workflow a run has pinned.

A person is known if the configuration names them, or a group, the directory, or the file of a workflow that is
offered now.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING

from approvals_bot.approvals.published import Relation
from approvals_bot.approvals.request import Request
from approvals_bot.durable.engine import Engine
from approvals_bot.people import People, PersonAddress, SourceUnavailable, parse_address
from approvals_bot.service.read import is_concerned, list_requests, request_of

if TYPE_CHECKING:
    from approvals_bot.service.catalog import Catalog


class KnownPeople:
    """Everybody who is known by this configuration. A reload makes a new one."""

    def __init__(self, people: People, workflows: Catalog, others: Iterable[str] = ()) -> None:
        """`others`: addresses and @groups that the configuration names elsewhere, such as roles."""
        self._people = people
        self._workflows = workflows
        self._others = tuple(others)

    def has_left(self, address: str) -> bool:
        """Return whether the identity provider has deactivated this person, whatever the configuration says."""
        return self._people.rosters.is_barred(self._people.identity(address))

    async def knows(self, address: str) -> bool:
        """Return whether anybody knows this person now. Raises SourceUnavailable if a source that may can't be read."""
        person = self._people.canonical(address)
        if self._people.rosters.is_barred(person):
            return False
        return person in self._named or await self._people.knows(person)

    async def may_act(self, address: str, workflow: str) -> bool:
        """Return whether this person may have to do with this workflow's requests. Raises SourceUnavailable.

        A Python workflow names people in its own code, which nobody can look through: those are known there.
        """
        if self._is_code(workflow):
            return not self.has_left(address)
        return await self.knows(address)

    async def may_sign_in(self, engine: Engine, address: str) -> bool:
        """Return whether this person has anything to do here: they are known, or asked by a Python workflow's code.

        Those whom only code names may sign in while a request of it waits for them or has their vote, and no longer.
        Raises SourceUnavailable.
        """
        if self.has_left(address):
            return False
        try:
            if await self.knows(address):
                return True
        except SourceUnavailable:
            if not await self._is_asked_by_code(engine, address):
                raise
            return True
        return await self._is_asked_by_code(engine, address)

    async def _is_asked_by_code(self, engine: Engine, address: str) -> bool:
        relations: tuple[Relation, ...] = ("waiting_for", "open_vote_of")
        pages = [await list_requests(engine, relation, address) for relation in relations]
        return any(self._is_code(record.workflow) for page in pages for record, _ in page.rows)

    def _is_code(self, workflow: str) -> bool:
        listed = self._workflows.find(workflow)
        return listed is not None and (listed.definition is None or listed.definition.workflow.run is not None)

    @cached_property
    def _named(self) -> frozenset[str]:
        """The people whom workflow files and the rest of the configuration name."""
        others = [mail for text in self._others for mail in _mails(text)]
        return frozenset(map(self._people.canonical, (*others, *self._workflows.named_people)))


async def concerns_now(engine: Engine, view: Request, reader: str | None) -> bool:
    """Return whether this person has to do with the request, and may. Raises SourceUnavailable."""
    if reader is None or not (is_concerned(view, reader) or await _has_covered(engine, view, reader)):
        return False
    known = engine.resources.get(KnownPeople)
    return known is None or await known.may_act(reader, view.workflow)


async def _has_covered(engine: Engine, view: Request, reader: str) -> bool:
    """Return whether an earlier approval that this person gave has decided the request."""
    kind, _, id = ("" if view.outcome is None else view.outcome.by).partition(":")
    record = await engine.record(id.partition(".")[0]) if kind in ("grant", "allowance") else None
    giving = None if record is None else request_of(record)
    return giving is not None and any(vote.counts and vote.by == reader for vote in giving.votes)


def _mails(text: str) -> Iterator[str]:
    try:
        match parse_address(text):
            case PersonAddress(mail):
                yield mail
    except ValueError:
        return
