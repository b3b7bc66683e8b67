"""`config.toml`: the whole service in one file, as frozen models."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from approvals_bot.approvals.base import Bool, Frozen, Int, Slug, Text, nearest, refuse
from approvals_bot.approvals.business_time import Calendar, Day, TimeZone
from approvals_bot.approvals.durations import DurationOrZero
from approvals_bot.approvals.opening_policy import SCHEDULE
from approvals_bot.config.api_keys import ApiKeyEntry, values_twice
from approvals_bot.config.audit import AuditTable
from approvals_bot.config.channels import BUILT_IN, CHANNELS_GROUP, installed_channels, make_channel
from approvals_bot.config.chat import ChatTable
from approvals_bot.config.directory import Directory, DirectoryTable, People
from approvals_bot.config.groups import (
    DirectoryGroupEntry,
    FolderPath,
    Group,
    HttpSourceEntry,
    SlackGroupEntry,
    in_folder,
    listed_people,
    nesting_faults,
)
from approvals_bot.config.hosts import is_loopback
from approvals_bot.config.login import LoginTable, Network, RolesTable
from approvals_bot.config.mail import Email, MailAddress, mail_address
from approvals_bot.config.monitoring import AlertsTable, LogTable, MetricsTable
from approvals_bot.config.proxy import DirectHost, Proxy, ProxyUrl
from approvals_bot.config.retention import RetentionTable
from approvals_bot.config.secret import Secret, look_up
from approvals_bot.people.addresses import (
    AddressError,
    GroupAddress,
    IdentityRules,
    canonical_domain,
    canonical_in_file,
    parse_address,
)

SHORTEST_SIGNING_KEY = 32  # bytes, as long as the SHA-256 digest
LONGEST_CLEAN_UP = timedelta(days=7)  # MOST_GRACE, see `Server`


class ServiceSettings(Frozen):
    """The whole config.toml. An absent channel is None; every other absent table is empty."""

    server: Server
    api_keys: dict[Slug, ApiKeyEntry] = Field(default_factory=dict)
    slack: Slack | None = None
    email: Email | None = None
    identity: IdentityTable = Field(default_factory=lambda: IdentityTable())
    people: dict[MailAddress, PersonEntry] = Field(default_factory=dict)
    groups: dict[Slug, Group] = Field(default_factory=dict)
    directory: Directory = Field(default_factory=lambda: DirectoryTable())
    calendars: dict[Slug, Calendar] = Field(default_factory=dict)
    http: dict[Slug, HttpTarget] = Field(default_factory=dict)
    channels: dict[Slug, ChannelTable] = Field(default_factory=dict)
    limits: dict[Slug, Limit] = Field(default_factory=dict)
    hook: HookTable = Field(default_factory=lambda: HookTable())
    chat: ChatTable = Field(default_factory=ChatTable)
    login: LoginTable = Field(default_factory=LoginTable)
    roles: RolesTable = Field(default_factory=RolesTable)
    audit: AuditTable = Field(default_factory=AuditTable)
    retention: RetentionTable = Field(default_factory=RetentionTable)
    log: LogTable = Field(default_factory=LogTable)
    metrics: MetricsTable = Field(default_factory=MetricsTable)
    alerts: AlertsTable = Field(default_factory=AlertsTable)

    @property
    def step_limits(self) -> dict[str, int]:
        """How many steps with each limit may run at a time, as `Engine.open(limits=…)` takes it."""
        return {name: limit.at_once for name, limit in self.limits.items()}

    @cached_property
    def rules(self) -> IdentityRules:
        """Which addresses are one person."""
        return IdentityRules(self.identity.plus, self.identity.domains)

    def person(self, address: str) -> PersonEntry | None:
        """Return what the file says about the person with this address, however it is written."""
        return self._persons.get(self.rules.canonical(address))

    def people_in(self, group: str) -> tuple[str, ...] | None:
        """Return a group's members as the file lists them; None if only a live source knows them."""
        return listed_people(self.groups, group)

    def is_among(self, address: str, addresses: Iterable[str]) -> bool:
        """Return whether one of these addresses is this person's, however they are written."""
        return self.rules.canonical(address) in map(self.rules.canonical, addresses)

    @cached_property
    def _persons(self) -> dict[str, PersonEntry]:
        return {self.rules.canonical(address): person for address, person in self.people.items()}

    @property
    def group_names(self) -> dict[str, str]:
        """What people read instead of the id, of each group that has a name."""
        return {id: group.name for id, group in self.groups.items() if group.name is not None}

    @field_validator("channels")
    @classmethod
    def _channels_can_be_made(cls, channels: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name, settings in channels.items():
            if name in BUILT_IN:
                raise refuse(f"{name} has a table of its own, [{name}]", f"[{name}]", at=name)
            if name not in (installed := installed_channels()):
                what = f"no channel with this name is installed (entry point group {CHANNELS_GROUP})"
                raise refuse(what, nearest(name, installed.keys() - BUILT_IN), at=name)
            try:
                make_channel(name, settings)
            except KeyError as missing:
                raise refuse("is missing", at=(name, str(missing.args[0]))) from None
            except Exception as error:  # noqa: BLE001  # another package's code may raise anything
                raise refuse(f"this channel can't be created: {error or type(error).__name__}", at=name) from None
        return channels

    @model_validator(mode="after")
    def _token_servers_are_behind_the_proxy(self) -> ServiceSettings:
        for oauth in self.email.oauths if self.email is not None else ():
            oauth.use_proxy(self.server.outgoing_proxy)
        return self

    @model_validator(mode="after")
    def _sources_exist(self) -> ServiceSettings:
        for at, source in (
            (("directory",), self.directory),
            (("directory", "people"), self.directory.people),
            *((("groups", name), of) for name, of in self.groups.items()),
        ):
            if isinstance(source, HttpSourceEntry) and source.http not in self.http:
                raise refuse(f"there is no [http.{source.http}]", at=(*at, "http"))
            if isinstance(source, SlackGroupEntry) and self.slack is None:
                raise refuse("Slack is not configured", at=at)
            if isinstance(source, DirectoryGroupEntry) and self.directory.people is None:
                what = 'no directory is read: in [directory], write people = { file = "people.json" }'
                raise refuse(what, at=(*at, "directory"))
        return self

    @model_validator(mode="after")
    def _groups_nest(self) -> ServiceSettings:
        for at, what, suggestion in nesting_faults(self.groups, has_slack=self.slack is not None):
            raise refuse(what, suggestion, at=("groups", *at))
        return self

    @model_validator(mode="after")
    def _anchors_have_targets(self) -> ServiceSettings:
        for at, name in self.audit.targets():
            if name not in self.http:
                raise refuse(f"there is no [http.{name}]", at=("audit", "anchors", at, "http"))
        return self

    @model_validator(mode="after")
    def _admins_exist(self) -> ServiceSettings:
        for at, text in enumerate(self.server.admins):
            if text.startswith("@") and text[1:] not in self.groups:
                raise refuse(f"no group is called {text[1:]}", at=("server", "admins", at))
        return self

    @model_validator(mode="after")
    def _recipients_of_alerts_exist(self) -> ServiceSettings:
        for at, text in enumerate(self.alerts.to):
            if text.startswith("@") and text[1:] not in self.groups:
                raise refuse(f"no group is called {text[1:]}", at=("alerts", "to", at))
        return self

    @model_validator(mode="after")
    def _roles_exist(self) -> ServiceSettings:
        for role, entries in self.roles.entries.items():
            for at, text in enumerate(entries):
                if text.startswith("@") and text[1:] not in self.groups:
                    raise refuse(f"no group is called {text[1:]}", at=("roles", role, at))
        return self

    @model_validator(mode="after")
    def _people_can_sign_in(self) -> ServiceSettings:
        for at, method in enumerate(self.login.methods or ()):
            if method == "code" and self.email is None:
                raise refuse("codes are mailed, and there is no [email]", at=("login", "methods", at))
            if method == "slack" and self.slack is None:
                raise refuse("there is no [slack]", at=("login", "methods", at))
        return self

    @model_validator(mode="after")
    def _groups_of_keys_exist(self) -> ServiceSettings:
        for name, entry in self.api_keys.items():
            for at, text in enumerate(entry.requesters or ()):
                if text.startswith("@") and text[1:] not in self.groups:
                    what = f"no group is called {text[1:]}"
                    raise refuse(what, nearest(text[1:], self.groups), at=("api_keys", name, "requesters", at))
                if text.startswith("slack:") and self.slack is None:
                    raise refuse("Slack is not configured", at=("api_keys", name, "requesters", at))
        return self

    @model_validator(mode="after")
    def _chat_approvers_exist(self) -> ServiceSettings:
        for at, text in enumerate(self.chat.approvers):
            try:
                address = parse_address(text)
            except ValueError as error:
                raise refuse(str(error), at=("chat", "approvers", at)) from None
            if isinstance(address, GroupAddress) and address.name not in self.groups:
                raise refuse(f"no group is called {address.name}", at=("chat", "approvers", at))
        return self

    @model_validator(mode="after")
    def _nobody_is_their_own_delegate(self) -> ServiceSettings:
        for address, person in self.people.items():
            for at, absence in enumerate(person.away):
                path = ("people", address, "away", at, "delegate")
                if stranger := next((one for one in absence.delegate if not self._may_be_known(one)), None):
                    raise refuse(f"nobody knows {stranger}: add them to [people] or to a group", at=path)
                if self.is_among(address, absence.delegate):
                    raise refuse("people can't be their own delegate", at=path)
        return self

    def _may_be_known(self, address: str) -> bool:
        """Return whether the file names this person besides as a delegate, or a live source or Slack may know them."""
        directory, groups = self.directory, [self.people_in(name) for name in self.groups]
        if self.slack is not None or not isinstance(directory, DirectoryTable) or directory.people is not None:
            return True
        named = [*self.people, *(person.manager for person in self.people.values() if person.manager)]
        for people in groups:
            if people is None:
                return True
            named += people
        for table in (directory.oncall, *directory.owner_of.values()):
            named += (one for people in table.values() for one in people)
        return self.is_among(address, named)

    @model_validator(mode="after")
    def _nobody_has_two_entries(self) -> ServiceSettings:
        seen: dict[str, str] = {}
        for address, person in self.people.items():
            if person.slack is not None and (other := seen.setdefault(person.slack, address)) != address:
                what = f"{other} has this Slack ID too, so a press could be by either"
                raise refuse(what, at=("people", address, "slack"))
        return self

    @model_validator(mode="after")
    def _people_differ(self) -> ServiceSettings:
        """Refuse two entries for one person: one would silently replace the other."""
        seen: dict[str, str] = {}
        for address in self.people:
            other = seen.setdefault(self.rules.canonical(address), address)
            if other != address:
                what = f'"{other}" and "{address}" are the same person; merge the two entries'
                raise refuse(what, at=("people", address))
        return self

    @field_validator("api_keys")
    @classmethod
    def _keys_differ(cls, keys: dict[str, ApiKeyEntry]) -> dict[str, ApiKeyEntry]:
        name = SCHEDULE.removeprefix("app:")
        if name in keys:
            raise refuse(f"{SCHEDULE} is the requester of what schedules start; give the key another name", at=name)
        for one, other in values_twice(keys):
            raise refuse(f'"{one}" and "{other}" have the same key, so a call could be by either')
        return keys


_DATABASE: Any = "sqlite:///approvals.db"  # as written in a file, and validated like it


class Server(Frozen):
    """The service's address, folders, database, signing keys and admins, and how its process runs steps."""

    base_url: BaseUrl
    database: Database = _DATABASE
    signing_keys: Annotated[tuple[SigningKey, ...], Field(min_length=1)]  # first signs, all verify
    workflows: FolderPath = Path("workflows")
    allow_private: tuple[PrivateAddress, ...] = ()  # the only private addresses that outgoing calls may reach
    admins: tuple[Admin, ...] = ()  # "@group" or an address: people who may reassign every request
    step_threads: Annotated[Int, Field(ge=1, le=10_000)] = 32  # STEP_THREADS, whose import would build the engine
    cancel_grace: CancelGrace = timedelta(minutes=1)  # CANCEL_GRACE
    insecure_http: Bool = False  # base_url may be http:// on a network; anybody on it can read and use links
    trusted_proxies: tuple[Network, ...] = ()  # whose X-Forwarded-For, -Proto and -Host count
    proxy: ProxyUrl | None = None  # for calls to [http.*], to the identity provider, and to token servers
    no_proxy: tuple[DirectHost, ...] = ()  # hosts that are called without it

    @property
    def outgoing_proxy(self) -> Proxy | None:
        """The proxy for calls to other services than Slack and mail."""
        return Proxy.of(None if self.proxy is None else self.proxy.get_secret_value(), self.no_proxy)

    @model_validator(mode="after")
    def _is_encrypted(self) -> Server:
        url = urlsplit(str(self.base_url))
        if url.scheme == "http" and not is_loopback(url.hostname or "") and not self.insecure_http:
            what = "decision links would travel unencrypted; put TLS in front, or write insecure_http = true"
            raise refuse(what, str(self.base_url).replace("http:", "https:", 1), at="base_url")
        return self


class Slack(Frozen):
    """Slack over HTTP (`signing_secret`), Socket Mode (`app_token`), or both."""

    bot_token: Secret
    signing_secret: Secret | None = None
    app_token: Secret | None = None
    api_url: HttpUrl = "https://slack.com/api/"
    external_users: Literal["deny", "see-only"] = "deny"
    app_id: Text | None = None
    proxy: ProxyUrl | None = None  # for all calls to Slack, the websocket included

    @property
    def proxy_url(self) -> str | None:
        return None if self.proxy is None else self.proxy.get_secret_value()

    @model_validator(mode="after")
    def _has_a_way_in(self) -> Slack:
        if self.signing_secret is None and self.app_token is None:
            raise refuse("Slack needs signing_secret (HTTP) or app_token (Socket Mode)")
        return self


class IdentityTable(Frozen):
    """Which addresses are one person.

    `plus`: whether `bo+x@acme.eu` is `bo@acme.eu`. `domains`: each alias domain, with the domain that it means.
    """

    plus: Literal["same", "different"] = "same"
    domains: dict[Domain, Domain] = Field(default_factory=dict)

    @field_validator("domains")
    @classmethod
    def _lead_to_a_domain(cls, domains: dict[str, str]) -> dict[str, str]:
        aliases = {canonical_domain(alias) for alias in domains}
        for alias, of in domains.items():
            if canonical_domain(of) in aliases:
                raise refuse(f"{of} is itself an alias; name the domain that people are known by", at=alias)
        return domains


class PersonEntry(Frozen):
    """What is known about a person beyond their address."""

    name: Text | None = None
    slack: Annotated[str, Field(pattern=r"^[UW][A-Z0-9]{2,20}$")] | None = None
    manager: MailAddress | None = None
    zone: TimeZone = "UTC"
    number_format: Literal["1.234,56", "1,234.56", "1 234,56"] | None = None
    away: tuple[AbsenceEntry, ...] = ()


class AbsenceEntry(Frozen):
    """Days on which a person is away, first and last included. `delegate`: their delegates, in order of preference."""

    from_: Annotated[Day, Field(alias="from")]
    until: Day
    delegate: People = ()

    @model_validator(mode="after")
    def _ends_after_it_begins(self) -> AbsenceEntry:
        if self.until < self.from_:
            raise refuse("is before the first day", at="until")
        return self


class HttpTarget(Frozen):
    """A URL that may be called. `secret` signs the calls; only sources of people do without."""

    url: HttpUrl
    secret: Secret | None = None


class Limit(Frozen):
    """How many steps with `@step(limit="<name>")` this process runs at a time."""

    at_once: Annotated[Int, Field(ge=1, le=10_000)]


class HookTable(Frozen):
    """What a hook keeps for its workflow."""

    # One person has 20 acts on a stalled request (service/act.py): with fewer than 50, two would fill its hook.
    max_waiting: Annotated[Int, Field(ge=50, le=10_000)] = 100  # MAX_UNREAD, whose import would build the store


def _channel_table(value: object, info: ValidationInfo) -> object:
    """Look up every secret in a channel's own settings, which may have any shape."""
    match value:
        case dict():
            return {key: _channel_table(each, info) for key, each in value.items()}
        case list():
            return [_channel_table(each, info) for each in value]
        case str() if value.startswith(("env:", "file:")):
            return look_up(value, info)
        case _:
            return value


def _http_url(value: str) -> str:
    try:
        url = urlsplit(value)
        well_formed = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        well_formed = False
    if not well_formed or not value.isprintable() or " " in value:
        raise refuse('write a URL like "https://deploy.acme.eu/hooks"')
    if url.username is not None or url.password is not None:
        raise refuse("a URL may not contain a user name or password")
    if url.fragment:
        raise refuse("a URL that is called has no #fragment")
    return value


def _base_url(value: str) -> str:
    url = urlsplit(_http_url(value))
    if url.query or "?" in value:
        raise refuse('links begin with base_url; write a URL like "https://approve.acme.eu", without a query')
    return value.rstrip("/")


def _database(value: object, info: ValidationInfo) -> SecretStr:
    is_named = isinstance(value, str) and value.startswith(("env:", "file:"))
    url = look_up(value, info).get_secret_value() if is_named or isinstance(value, SecretStr) else value
    scheme, separator, rest = url.partition("://") if isinstance(url, str) else ("", "", "")
    if separator and scheme in ("postgresql", "postgres") and rest:
        return SecretStr(f"{scheme}://{rest}")
    if scheme == "sqlite" and rest.startswith("/") and len(rest) > 1:
        return SecretStr("sqlite:///" + str(in_folder(Path(rest[1:]), info)))
    raise refuse('write the database like "sqlite:///approvals.db" or "postgresql://user@host/name", or "env:NAME"')


_PLACEHOLDER = re.compile(r"(?i)(change|replace)[-_ ]?(me|this)|your[-_ ]?(signing|secret|key)|insert[-_ ]|<[^>]*>")


def _signing_key(value: SecretStr) -> SecretStr:
    if len(value.get_secret_value().encode()) < SHORTEST_SIGNING_KEY:
        raise refuse(f"a signing key has at least {SHORTEST_SIGNING_KEY} bytes; `approvals-bot init` makes one")
    if _PLACEHOLDER.search(value.get_secret_value()):
        raise refuse("this signing key is a placeholder from an example; `approvals-bot init` makes one")
    return value


def _admin(value: str) -> str:
    return value if value.startswith("@") else mail_address(value)


def _domain(value: str) -> str:
    try:
        canonical_in_file(f"a@{value}")
    except AddressError:
        raise refuse(f'"{value[:80]}" is not a domain of email addresses', "acme.eu") from None
    return value


def _private_address(value: str) -> str:
    try:
        url = urlsplit(f"//{value}")
        fine = bool(url.hostname) and url.port is not None and not (url.path or url.query or url.username)
    except ValueError:
        fine = False
    if not fine:
        raise refuse('write an address and port that may be called, like "127.0.0.1:9000"')
    return value


def _cancel_grace(value: timedelta) -> timedelta:
    if value > LONGEST_CLEAN_UP:
        raise refuse("a cancelled run can tidy up for a week at most", "7d")
    return value


ChannelTable = Annotated[
    dict[str, Any], BeforeValidator(_channel_table), WithJsonSchema({"type": "object", "additionalProperties": True})
]
"""The settings of a registered channel, whose `make` checks them."""
Admin = Annotated[str, AfterValidator(_admin)]
BaseUrl = Annotated[str, AfterValidator(_base_url)]
CancelGrace = Annotated[DurationOrZero, AfterValidator(_cancel_grace)]
Database = Annotated[SecretStr, BeforeValidator(_database), WithJsonSchema({"type": "string"})]
"""A database URL; secret, because it may contain a password."""
Domain = Annotated[str, AfterValidator(_domain)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
PrivateAddress = Annotated[str, AfterValidator(_private_address)]
SigningKey = Annotated[Secret, AfterValidator(_signing_key)]
