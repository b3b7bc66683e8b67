"""People, and the addresses that name them.

A person is their mail address; everything else only helps to reach them. A workflow names people by *addresses*:

    ann@acme.eu · @group · slack:@usergroup · manager-of:requester|approver|on-behalf-of · on-behalf-of
    owner-of:<field> · oncall:<name> · field:<name>

Addresses are resolved when a stage opens and again at the click. Live sources (a file, Slack, a URL) are read each time
and never cached here. A source that can't be read is an error of the resolution, never an empty group: its members
learn that their group can't be checked, and an outage neither lets anybody in nor shuts anybody out.
"""

from __future__ import annotations

from approvals_bot.people.addresses import (
    Address,
    AddressError,
    GroupAddress,
    IdentityRules,
    InField,
    ManagerOf,
    OnBehalfOf,
    OnCall,
    OwnerOf,
    PersonAddress,
    SlackGroupAddress,
    canonical,
    is_mail,
    parse_address,
)
from approvals_bot.people.people import People
from approvals_bot.people.persons import Directory, GroupSource, Person, Resolved
from approvals_bot.people.sources import (
    FileSource,
    ListedGroup,
    LiveSource,
    NestedGroup,
    SlackGroupSource,
    SourceFault,
    SourceUnavailable,
)

__all__ = [
    "Address",
    "AddressError",
    "Directory",
    "FileSource",
    "GroupAddress",
    "GroupSource",
    "IdentityRules",
    "InField",
    "ListedGroup",
    "LiveSource",
    "ManagerOf",
    "NestedGroup",
    "OnBehalfOf",
    "OnCall",
    "OwnerOf",
    "People",
    "Person",
    "PersonAddress",
    "Resolved",
    "SlackGroupAddress",
    "SlackGroupSource",
    "SourceFault",
    "SourceUnavailable",
    "canonical",
    "is_mail",
    "parse_address",
]
