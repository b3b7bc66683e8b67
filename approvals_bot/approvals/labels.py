"""How a set of people is called: "Release managers", "SRE", "the manager of Bo Lund", "Ann Ode or Cy Rus"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from approvals_bot.approvals.electorate import About
from approvals_bot.channels import Person

ACRONYM = 3  # letters; a group's name as short as that is one


def label_of(addresses: Sequence[str], about: About, people: Mapping[str, Person]) -> str:
    """The people of these addresses, as one would say it."""
    labels = list(dict.fromkeys(_label(address, about, people) for address in addresses))
    return labels[0] if len(labels) == 1 else ", ".join(labels[:-1]) + " or " + labels[-1]


def _label(address: str, about: About, people: Mapping[str, Person]) -> str:
    if ":" not in address and address in people:
        return people[address].name
    scheme, _, rest = address.partition(":")
    human = about.on_behalf_of if about.requester.startswith("app:") else about.requester
    match scheme, rest:
        case "on-behalf-of", "":
            return _name(about.on_behalf_of, people)
        case "manager-of", "approver":
            return "the manager of who was asked"
        case "manager-of", whom:
            return f"the manager of {_name(about.on_behalf_of if whom == 'on-behalf-of' else human, people)}"
        case "owner-of", field:
            return f"the owner of {about.fields.get(field) or field}"
        case "oncall", name:
            return f"on call for {_group(name)}"
        case "slack", group:
            return _group(group.removeprefix("@"))
        case _ if address.startswith("@"):
            return _group(address[1:])
        case _:
            return _name(address.lower(), people)


def _group(name: str) -> str:
    if len(name) <= ACRONYM:
        return name.upper()
    words = name.replace("-", " ").replace("_", " ")
    return words[0].upper() + words[1:]


def _name(who: str | None, people: Mapping[str, Person]) -> str:
    if who is None:
        return "somebody"
    return people[who].name if who in people else who.removeprefix("app:")
