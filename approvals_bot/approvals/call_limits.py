"""What limits of a tool call's arguments mean, and whether an allowance stays within those of the file. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pydantic import JsonValue

from approvals_bot.approvals.acts import Rejection, Vote
from approvals_bot.approvals.agent_policy import Allowance, CallAllowance, CallLimits
from approvals_bot.approvals.request import Request
from approvals_bot.approvals.tool_call import ARGUMENTS, TOOL


def allowance_faults(ceilings: Allowance | None, act: Vote, request: Request) -> tuple[Rejection, ...]:
    """Return where an allowance goes further than the file permits, or than this call shows what it means."""
    if act.allowance is None:
        return ()
    if act.choice not in ("approve", "edit"):
        return (Rejection(("allowance",), "allowance_without_yes"),)
    return tuple(Rejection(("allowance", *path), code) for path, code in _faults(ceilings, act.allowance, request))


def _faults(
    ceilings: Allowance | None, given: CallAllowance, request: Request
) -> Iterator[tuple[tuple[str, ...], str]]:
    if ceilings is None or given.tool not in ceilings.tools:
        yield ("tool",), "no_allowance"
        return
    if given.tool != request.fields.get(TOOL):
        yield ("tool",), "other_tool"
    for path in wider_places(ceilings, given):
        yield path, "allowance_wider"
    for leaf in given.same:
        if not values_at(arguments_of(request), leaf.split(".")):
            yield ("same", leaf), "not_in_call"


def wider_places(ceilings: CallLimits, given: CallLimits) -> Iterator[tuple[str, ...]]:
    """Yield where these limits let through more than the ceilings do."""
    if given.count > ceilings.count:
        yield ("count",)
    if given.until > ceilings.until:
        yield ("until",)
    for leaf in ceilings.same:
        if leaf not in given.same:
            yield "same", leaf
    for name, most, own in (("at_most", ceilings.at_most, given.at_most), ("sum", ceilings.sum, given.sum)):
        for leaf, limit in most.items():
            if leaf not in own or own[leaf] > limit:
                yield name, leaf


def arguments_of(request: Request) -> Mapping[str, JsonValue]:
    """Return the arguments of a tool call."""
    arguments = request.fields.get(ARGUMENTS)
    return arguments if isinstance(arguments, dict) else {}


def values_at(
    value: JsonValue | Mapping[str, JsonValue], path: Sequence[str], place: str = ""
) -> list[tuple[str, JsonValue]]:
    """Return the values at a path, each with its place. `*` is every item of a list."""
    if not path:
        return [(place, value)]  # type: ignore[list-item]  # the arguments themselves are never asked for
    name, rest = path[0], path[1:]
    match value:
        case list():
            chosen = range(len(value)) if name == "*" else [int(name)] if name.isdecimal() and len(name) < 9 else []
            found = [(str(at), value[at]) for at in chosen if at < len(value)]
        case Mapping():
            found = [(name, value[name])] if name in value else []
        case _:
            found = []
    return [each for part, item in found for each in values_at(item, rest, f"{place}.{part}" if place else part)]
