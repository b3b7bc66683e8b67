"""Whether a store has parents and children as their logs do. A part of `fsck`.

A child's first event names its parent, and the parent's log names the child. A run that takes the place of another one
takes over the children in its log, and a child's place may be taken as well. So a child's row names a run whose log
names the child, or the run whose place that has taken; of several, the last one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from approvals_bot.durable.core.events import ChildInLog, Log, children_of
from approvals_bot.durable.store.encoding import storable

Row = dict[str, Any]
REPORTED = frozenset({"completed", "failed", "cancelled"})
"""The ends of which a parent's log has a `child_ended`."""

_NO_PARENT: Row = {"parent": None, "parent_number": None, "on_parent_close": None}


class FamilyFault(NamedTuple):
    """What is wrong with a run's relatives, and the columns of its row that would mend it; None: nothing would."""

    run_id: str
    what: str
    row: Row | None


@dataclass(slots=True)
class _Relative:
    """A run that has relatives, or whose place another has taken. `parent`: as its own log names it."""

    row: Row
    log_is_whole: bool
    parent: Mapping[str, Any] | None = None
    before: str | None = None  # the run whose place it has taken
    next_run: str | None = None  # the first run that has taken its place, as its own log names it


class _Named(NamedTuple):
    """A child as a log has it: the run of that log, and the child's number there."""

    run_id: str
    number: int


_KEPT = ("parent", "parent_number", "on_parent_close", "next_run", "created_at", "ended_at", "status")


class Families:
    """All runs of a store that have relatives, as their rows and logs have them."""

    def __init__(self) -> None:
        self._members: dict[str, _Relative] = {}
        self._named: dict[str, list[_Named]] = {}  # each child, by the logs that have it
        self._done: set[_Named] = set()  # those that have ended by that log
        self._after: dict[str, list[str]] = {}  # the runs that have taken a run's place, one after the other

    def add(self, row: Row, log: Log | None) -> None:
        """Take note of a run. `log`: None if it isn't whole."""
        id, kept = row["id"], {name: row[name] for name in _KEPT}
        if log is None:
            self._members[id] = _Relative(kept, log_is_whole=False)
            return
        created = log[0].data
        before = created.get("reset_of") or created.get("continues")
        parent = created.get("parent")
        children = _children_by(log)
        if row["parent"] is None and not (row["next_run"] or before or parent or children):
            return
        following = log[-1].data["next"] if log[-1].type in ("run_reset", "run_continued") else None
        self._members[id] = _Relative(kept, True, parent, before and before["run_id"], following)
        if before:
            self._after.setdefault(before["run_id"], []).append(id)
        done = {event.key for event in log if event.key.endswith(".done")} if children else set[str]()
        for child in children:
            named = _Named(id, child.number)
            self._named.setdefault(child.run_id, []).append(named)
            if f"{child.number}.done" in done:
                self._done.add(named)

    def faults(self) -> Iterator[FamilyFault]:
        """Yield what is wrong, once all runs have been added."""
        for id, member in self._members.items():
            if member.log_is_whole:
                yield from self._check_child(id, member)
                yield from self._check_next(id, member)
        for child, named in self._named.items():
            for each in named:
                yield from self._check_parent(child, each)

    def _check_child(self, id: str, member: _Relative) -> Iterator[FamilyFault]:
        *_, first = chain = [*self._places(id)]
        given = {name: member.row[name] for name in _NO_PARENT}
        parent = next((each.parent for each in chain if each.parent is not None), None)
        if parent is None:
            if first.before is None and first.log_is_whole and given != _NO_PARENT:
                yield FamilyFault(id, f"its row has the parent {given['parent']}, its log has none", _NO_PARENT)
            return
        closes = {"on_parent_close": parent["on_parent_close"]}
        fitting = self._parents(id, only_last=member.row["next_run"] is None)
        named = {(storable(one.run_id), one.number) for one in fitting}
        if not named or (given["parent"], given["parent_number"]) in named:  # none: it was deleted, or is damaged
            expected = given | closes
        else:
            last = max(fitting, key=lambda one: self._members[one.run_id].row["created_at"])
            expected = {"parent": storable(last.run_id), "parent_number": last.number, **closes}
        for name, value in expected.items():
            if given[name] != value:
                yield FamilyFault(id, f"its row has {name} {given[name]!r}, the logs say {value!r}", {name: value})

    def _check_next(self, id: str, member: _Relative) -> Iterator[FamilyFault]:
        """Check which run has taken a run's place. One that was reset again has several, and its log names the first.

        Those that were deleted count for nothing, nor do those with damaged logs.
        """
        given, after = member.row["next_run"], self._after.get(id, [])
        if given in after or (given in self._members and not self._members[given].log_is_whole):
            return
        if after:
            expected: str | None = max(after, key=lambda each: self._members[each].row["created_at"])
        elif given is None or given in self._members:
            expected = member.next_run
        else:
            return
        if given != expected:
            yield FamilyFault(id, f"its row has next_run {given!r}, the logs say {expected!r}", {"next_run": expected})

    def _check_parent(self, child: str, named: _Named) -> Iterator[FamilyFault]:
        parent = self._members[named.run_id]
        if parent.row["ended_at"] is not None:
            return
        if child not in self._members:
            yield FamilyFault(named.run_id, f"its child {child} isn't there", None)
            return
        last = child
        while (following := self._members[last].row["next_run"]) is not None and following in self._members:
            last = following
        if self._members[last].row["status"] in REPORTED and named not in self._done:
            yield FamilyFault(named.run_id, f"its child {last} has ended, and its log doesn't say so", None)

    def _parents(self, id: str, *, only_last: bool) -> list[_Named]:
        """Return where logs have a run, or one whose place it has taken, as a child."""
        places = {id}
        before = self._members[id].before
        while before is not None and before not in places:
            places.add(before)
            before = self._members[before].before if before in self._members else None
        found = [named for place in places for named in self._named.get(place, ())]
        return [one for one in found if not (only_last and any(self._leads(one, other) for other in found))]

    def _leads(self, one: _Named, other: _Named) -> bool:
        """Return whether the run of `other` has taken the place of that of `one`, or of one that had."""
        seen, before = set[str](), self._members[other.run_id].before
        while before is not None and before not in seen:
            if before == one.run_id:
                return True
            seen.add(before)
            before = self._members[before].before if before in self._members else None
        return False

    def _places(self, id: str) -> Iterator[_Relative]:
        """Yield a run, and those whose place it has taken as far as they are there, the first one last."""
        seen, at = set[str](), id
        while at in self._members and at not in seen:
            seen.add(at)
            yield self._members[at]
            at = self._members[at].before or ""


def _children_by(log: Log) -> list[ChildInLog]:
    """Return the children that a run has had, but for those that it didn't take over from the run before."""
    reset = log[0].data.get("reset_of")
    copied = 1 if reset is None else max(reset["seq"], 1)
    later = [
        ChildInLog(event.data["run_id"], event.data["id"]) for event in log[copied:] if event.type == "child_started"
    ]
    return [*children_of(log[:copied]), *later]
