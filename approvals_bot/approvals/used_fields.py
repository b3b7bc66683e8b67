"""The fields that a workflow's file uses: to decide, to find people, to act, and in the title.

An edit of any other field that isn't pinned keeps the votes: it changes nothing that anybody has agreed to. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from jinja2 import nodes
from pydantic import JsonValue

from approvals_bot.approvals.delivery_policy import CallTarget, SayInSlack
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.templates import TemplateError, read

_OF_FIELDS = ("field:", "owner-of:")


def fields_in_texts(definition: Definition) -> frozenset[str]:
    """Return the names in the file's title, addresses, channels and calls; not those in conditions."""
    found = set(names_in(definition.workflow.title or ""))
    for address in _addresses(definition):
        found.update(address.removeprefix(start) for start in _OF_FIELDS if address.startswith(start))
        found.update(names_in(address))
    for deliver in definition.deliveries:
        found.update(names_in(deliver.slack or ""))
    for action in definition.follow_ups():
        match action:
            case CallTarget(json_=body):
                found.update(name for text in _texts(body) for name in names_in(text))
            case SayInSlack(slack=channel):
                found.update(names_in(channel))
    if (grant := definition.grant) is not None:
        texts = (grant.lasts, *_texts(grant.give.json_), *_texts(grant.take.json_))
        found.update(name for text in texts for name in names_in(text))
    return frozenset(found)


def _addresses(definition: Definition) -> Iterator[str]:
    lists: list[Iterable[str]] = [rule.from_ for rule in definition.request or ()]
    lists += [definition.policy.exclude or (), *(more.to for more in definition.escalate)]
    for stage in definition.stage:
        lists += [part for seat in stage.seats for part in (seat.from_, seat.notify or ())]
        lists += [stage.veto.from_] if stage.veto is not None else []
    for each in lists:
        yield from each


def _texts(value: JsonValue) -> Iterator[str]:
    match value:
        case str():
            yield value
        case list():
            for each in value:
                yield from _texts(each)
        case dict():
            for each in value.values():
                yield from _texts(each)


def names_in(text: str) -> Iterator[str]:
    """Yield the names in a template."""
    if "{" not in text:
        return
    try:
        yield from (node.name for node in read(text).find_all(nodes.Name))
    except TemplateError:
        return  # it names nothing that could be edited
