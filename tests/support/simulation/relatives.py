"""What a piece of work that touches several runs must have written: parents and children, and runs that take the place
of others. All of this is known from the logs alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tests.support.simulation.violation import Violation

if TYPE_CHECKING:
    from tests.support.simulation.auditor import Line, RunHistory

REPLACED = ("run_reset", "run_continued")
REPORTED = ("run_completed", "run_failed", "run_cancelled")
"""How a run ends that is its parent's child, so that the parent hears of it."""


class Relatives:
    """The parents and children of all runs, by their logs."""

    def __init__(self) -> None:
        self.parents: dict[str, tuple[str, int, str]] = {}  # of each child: its parent, its number there, its policy
        self._children: defaultdict[str, dict[int, str]] = defaultdict(dict)  # the current one of each number

    def judge(self, runs: Mapping[str, RunHistory], lines: list[tuple[str, Line]]) -> None:
        """Look at what one piece of work has written."""
        touched = dict.fromkeys(run_id for run_id, _ in lines)
        created = [run_id for run_id, line in lines if line.type == "run_created"]
        for run_id, line in lines:
            if line.type == "child_started" and line.seq > runs[run_id].copied:
                self._start(run_id, line, created)
        for run_id in created:
            self._create(run_id, runs)
        for run_id, line in lines:
            if line.seq <= runs[run_id].copied:
                continue
            if line.type == "child_ended":
                self._hear(run_id, line, runs)
            elif line.type == "child_cancelled":
                self._give_up(run_id, line, runs)
        for run_id in touched:
            end = runs[run_id].end
            if end is not None and end.batch == lines[0][1].batch:
                self._end(run_id, end, runs, created)

    def _start(self, run_id: str, line: Line, created: list[str]) -> None:
        child, number = line.data["run_id"], line.data["id"]
        if child not in created:
            raise Violation(f"{run_id} has started {child}, which wasn't created with that")
        if number in self._children[run_id]:
            raise Violation(f"{run_id}: child {number} is {self._children[run_id][number]}, and now {child}")
        self._children[run_id][number] = child

    def _create(self, run_id: str, runs: Mapping[str, RunHistory]) -> None:
        data = runs[run_id].lines[0].data
        before = (data.get("reset_of") or data.get("continues") or {}).get("run_id")
        if before is not None:
            self._replace(run_id, before, runs)
        elif "parent" in data:
            parent, number, policy = data["parent"].values()
            if self._children[parent].get(number) != run_id:
                raise Violation(f"{run_id} was created as child {number} of {parent}, which hasn't started it")
            self.parents[run_id] = (parent, number, policy)

    def _replace(self, new: str, old: str, runs: Mapping[str, RunHistory]) -> None:
        was, now = runs[old], runs[new]
        continues = "reset_of" not in now.lines[0].data
        if was.end is None or (continues and (was.end.type, was.end.batch) != ("run_continued", now.lines[0].batch)):
            raise Violation(f"{new} is in the place of {old}, whose end is {was.end}")
        was.next = new
        if old in self.parents:
            parent, number, policy = self.parents[new] = self.parents[old]
            if self._children[parent].get(number) == old:
                self._children[parent][number] = new
        _judge_copy(new, now, was)
        for number, child in _open_children(now).items():
            current = child  # one that had ended before it was reset stays what it was to its parent
            while (end := runs[current].end) is not None and end.type in REPLACED:
                current = runs[current].next or end.data["next"]
            self._children[new][number] = current
            parent, earlier, policy = self.parents[current]
            self._children[parent].pop(earlier, None)
            self.parents[current] = (new, number, policy)
            self._must_have_heard(current, runs)

    def _must_have_heard(self, child: str, runs: Mapping[str, RunHistory]) -> None:
        """A child that has ended is known to have ended to its open parent."""
        end = runs[child].end
        if child not in self.parents or end is None or end.type not in REPORTED:
            return
        parent, number, _ = self.parents[child]
        if runs[parent].end is None and ("done", number) not in runs[parent].once:
            raise Violation(f"{child} has ended, and its parent {parent} has no child_ended for {number}")

    def _hear(self, run_id: str, line: Line, runs: Mapping[str, RunHistory]) -> None:
        child, end = line.data["run_id"], runs[line.data["run_id"]].end
        if self.parents.get(child, ("", 0, ""))[:2] != (run_id, line.data["id"]):
            raise Violation(f"{run_id} heard of {child}, whose parent is {self.parents.get(child)}")
        said = {key: value for key, value in line.data.items() if key not in ("id", "run_id", "status")}
        if end is None or (f"run_{line.data['status']}", said) != (end.type, end.data):
            raise Violation(f"{run_id} heard {line.data}; its child's end is {end}")

    def _give_up(self, run_id: str, line: Line, runs: Mapping[str, RunHistory]) -> None:
        child = self._children[run_id].get(line.data["id"])
        if child is None:
            raise Violation(f"{run_id} gives up {line.data}, which it hasn't started")
        if self.parents[child][2] == "abandon":
            raise Violation(f"{run_id} gives up {child}, which goes on without it")
        if runs[child].end is None and runs[child].cancellation is None:
            raise Violation(f"{run_id} gives up {child}, which isn't asked to cancel")

    def _end(self, run_id: str, end: Line, runs: Mapping[str, RunHistory], created: list[str]) -> None:
        if end.type in REPLACED and end.data["next"] not in created:
            raise Violation(f"{run_id} ends with {end.data}, which wasn't created with that")
        self._must_have_heard(run_id, runs)
        for child in self._children[run_id].values():
            policy, history = self.parents[child][2], runs[child]
            if policy == "cancel" and history.end is None and history.cancellation is None:
                raise Violation(f"{run_id} has ended, and its child {child} isn't asked to cancel")
            asked = history.cancellation
            if policy == "abandon" and asked is not None and asked.batch == end.batch and asked.seq > history.copied:
                raise Violation(f"{run_id} has ended, and its child {child} is asked to cancel, but goes on without it")


def _open_children(history: RunHistory) -> dict[int, str]:
    """Return the children that a run in the place of another has begun with."""
    first, *others = history.lines[: history.copied]
    found = {child["id"]: child["run_id"] for child in first.data.get("children", ())}
    found |= {line.data["id"]: line.data["run_id"] for line in others if line.type == "child_started"}
    return {number: child for number, child in found.items() if ("done", number) not in _done(history)}


def _done(history: RunHistory) -> set[tuple[Any, ...]]:
    return {("done", line.data["id"]) for line in history.lines[: history.copied] if line.type == "child_ended"}


def _judge_copy(new: str, now: RunHistory, was: RunHistory) -> None:
    """What the run before had, and is for this one, is there: once, in order, unchanged."""
    copied = now.lines[1 : now.copied]
    if "reset_of" not in now.lines[0].data:
        came = [_payload(line) for line in was.lines if line.type == "hook_received"]
        moved = [_payload(line) for line in copied if line.type == "hook_received"]
        if not _is_in_order(moved, came):
            raise Violation(f"{new} begins with {moved}, and to the run before came {came}")
        if (now.cancellation is None) != (was.cancellation is None):
            raise Violation(f"{new} begins with {now.cancellation}, the run before had {was.cancellation}")
        return
    seq = now.lines[0].data["reset_of"]["seq"]
    for line in copied[: seq - 1]:
        if line[:4] != was.lines[line.seq - 1][:4]:
            raise Violation(f"{new} begins with {line}, the run before had {was.lines[line.seq - 1]}")
    known = {hook["id"] for hook in now.lines[0].data.get("hooks", ())}
    known |= {
        line.data["id"] for line in copied[: seq - 1] if line.type == "hook_created" and "adopts" not in line.data
    }
    kept = [line[1:4] for line in copied[seq - 1 :] if line.type == "hook_received"]
    came_later = [line[1:4] for line in was.lines[seq:] if line.type == "hook_received" and line.data["id"] in known]
    if kept != came_later and not (now.drops and not kept):
        raise Violation(f"{new} has {kept} after what it was reset to; to the run before came {came_later}")


def _payload(line: Line) -> tuple[Any, Any]:
    return line.data["resume_id"], line.data["payload"]


def _is_in_order(part: list[Any], whole: list[Any]) -> bool:
    rest = iter(whole)
    return all(each in rest for each in part)
