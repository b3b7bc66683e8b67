"""A person's offer to approve the next calls of a tool with this one, as a form with the file's ceilings. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import Decimal, InvalidOperation

from approvals_bot.approvals.acts import Rejection, Reply, Vote
from approvals_bot.approvals.agent_policy import Allowance, CallAllowance
from approvals_bot.approvals.call_limits import arguments_of, values_at
from approvals_bot.approvals.card_model import FormField, NextCalls
from approvals_bot.approvals.durations import duration_text, parse_duration
from approvals_bot.approvals.field_specs import FieldSpec
from approvals_bot.approvals.plain_text import one_line
from approvals_bot.approvals.request import Request
from approvals_bot.approvals.tool_call import TOOL
from approvals_bot.approvals.visible import revealed
from approvals_bot.client.digests import canonical

ALLOWANCE = "allowance"
"""What the names of the form's inputs begin with, as the path of what is wrong with one does."""

LONGEST_VALUE = 60  # characters of a value that later calls have to share
LARGEST = 10**15


def ceilings_for(request: Request, ceilings: Allowance | None) -> Allowance | None:
    """Return how far an approval of this call may go; None if it covers this call alone."""
    if ceilings is None or request.fields.get(TOOL) not in ceilings.tools:
        return None
    arguments = arguments_of(request)
    return ceilings if all(values_at(arguments, leaf.split(".")) for leaf in ceilings.same) else None


def next_calls_of(request: Request) -> NextCalls | None:
    """Return the form for the next calls, with everything that the file permits; None if it permits nothing."""
    ceilings = ceilings_for(request, request.allowance)
    if ceilings is None:
        return None
    until, found = duration_text(ceilings.until), arguments_of(request)
    inputs = [_input("count", "Calls, at most", str(ceilings.count), f"{ceilings.count:,} or fewer")]
    inputs += [
        _input(
            f"{table}.{leaf}",
            f"{one_line(leaf, 60)}, at most {where}",
            f"{most.normalize():f}",
            f"{most.normalize():,f} or less",
        )
        for table, limits, where in (("at_most", ceilings.at_most, "in each"), ("sum", ceilings.sum, "in all"))
        for leaf, most in limits.items()
    ]
    inputs.append(_input("until", "For how long", until, f"{until} or less, like 30m"))
    same = [
        f"{leaf} = {one_line(revealed(canonical(value)), LONGEST_VALUE)}"
        for leaf in ceilings.same
        for _, value in values_at(found, leaf.split("."))[:1]
    ]
    with_same = f", if they have the same {' and '.join(same)}" if same else ""
    text = (
        f"Later calls of {one_line(revealed(str(request.fields[TOOL])), LONGEST_VALUE)} by the same requester are "
        f"approved in your name when they come{with_same}, within these limits. You can end that at any time."
    )
    return NextCalls(text, tuple(inputs))


def _input(name: str, label: str, value: str, hint: str) -> FormField:
    return FormField(f"{ALLOWANCE}.{name}", label, FieldSpec(type="string", hint=hint), value)


def with_next_calls(vote: Vote, request: Request, texts: Mapping[str, str]) -> Vote | Reply:
    """Return the vote with the allowance that this form gives; a Reply with what can't be read.

    Whether it stays within the file's ceilings is for the request to say, as for every vote.
    """
    ceilings = ceilings_for(request, request.allowance)
    if ceilings is None:
        return Reply("invalid", rejections=(Rejection((ALLOWANCE, "tool"), "no_allowance"),))
    faults = tuple(_faults(ceilings, texts))
    if faults:
        return Reply("invalid", rejections=faults)
    given = CallAllowance(
        tool=str(request.fields[TOOL]),
        same=ceilings.same,
        at_most={leaf: _amount(_text(texts, "at_most", leaf)) for leaf in ceilings.at_most},
        count=int(_text(texts, "count")),
        sum={leaf: _amount(_text(texts, "sum", leaf)) for leaf in ceilings.sum},
        until=parse_duration(_text(texts, "until")),
    )
    return replace(vote, allowance=given)


def _faults(ceilings: Allowance, texts: Mapping[str, str]) -> Iterator[Rejection]:
    count = _text(texts, "count")
    if not (count.isascii() and count.isdecimal() and len(count) < 7 and int(count) > 0):
        yield Rejection((ALLOWANCE, "count"), "not_a_count")
    for table, limits in (("at_most", ceilings.at_most), ("sum", ceilings.sum)):
        for leaf in limits:
            amount = _amount(_text(texts, table, leaf))
            if not (amount.is_finite() and 0 <= amount < LARGEST):
                yield Rejection((ALLOWANCE, table, leaf), "not_a_number")
    try:
        is_time = parse_duration(_text(texts, "until")).total_seconds() > 0
    except ValueError:
        is_time = False
    if not is_time:
        yield Rejection((ALLOWANCE, "until"), "no_duration")


def _text(texts: Mapping[str, str], *path: str) -> str:
    return texts.get(".".join((ALLOWANCE, *path)), "").strip()[:64]


def _amount(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        return Decimal("NaN")
