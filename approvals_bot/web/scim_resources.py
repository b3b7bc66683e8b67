"""SCIM 2.0 over the store: what the package scim2-server asks of a storage, and how the service describes itself.

The package checks and applies requests, also PATCH as Okta and Entra send it. This module is imported when the first
request comes: the package is an extra, and takes 0.4 s.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from scim2_models import (
    URI,
    AnyExtension,
    AuthenticationScheme,
    Bulk,
    ChangePassword,
    Email,
    EnterpriseUser,
    ETag,
    Filter,
    Group,
    InvalidValueException,
    Meta,
    NotFoundException,
    Patch,
    PreconditionFailedException,
    Reference,
    Resource,
    ResourceType,
    ResponseParameters,
    ScimFilter,
    ScimPolicy,
    ScimProvider,
    SearchRequest,
    ServiceProviderConfig,
    Sort,
    UniquenessException,
    User,
)
from scim2_models.path import Comparison
from scim2_server.handler import AsyncScimHandler
from scim2_server.requests import ScimRequest
from scim2_server.responses import ScimResponse
from scim2_server.service import ScimService
from scim2_server.storage import AsyncScimStorage, SearchPage

from approvals_bot.durable.engine import Engine
from approvals_bot.durable.store.documents import DocumentRow
from approvals_bot.service.provisioning import Kind, Provisioning, folded

MOST_RESULTS = 200
MOST_TRIES = 5  # of a change that meets another one
INDEXED = ("id", "username", "displayname", "externalid", "emails", "emails.value")


class AnyEmail(Email):
    """An address as the provider has it. Whether it is usable is decided where people are looked up."""

    value: str | None = None  # users without a usable address are stored, too


class ProvidedUser(User[AnyExtension]):
    """A user with such addresses."""

    emails: list[AnyEmail] | None = None  # type: ignore[assignment]  # a narrower kind of theirs


def scim_service() -> ScimService:
    """Return the protocol's side: what this service has, can, and forgives."""
    of_user = ResourceType.from_resource(ProvidedUser[EnterpriseUser])
    of_user.id = of_user.name = "User"
    of_user.endpoint = Reference[URI]("/Users")
    config = ServiceProviderConfig(
        patch=Patch(supported=True),
        bulk=Bulk(supported=False, max_operations=0, max_payload_size=0),
        filter=Filter(supported=True, max_results=MOST_RESULTS),
        change_password=ChangePassword(supported=False),
        sort=Sort(supported=False),
        etag=ETag(supported=True),
        authentication_schemes=[
            AuthenticationScheme(
                type=AuthenticationScheme.Type.oauthbearertoken,
                name="API key",
                description='A key of [api_keys] with may = ["scim"]',
            )
        ],
    )
    policy = ScimPolicy(
        unknown=ScimPolicy.Unknown.ignore,
        remove_value_as_filter=ScimPolicy.RemoveValue.apply,
        unmatched_path_filter=ScimPolicy.UnmatchedPathFilter.create,
    )
    models = (ProvidedUser, EnterpriseUser, Group)
    return ScimService(ScimProvider(models, [of_user, ResourceType.from_resource(Group)], config, policy))


class ScimResources(AsyncScimStorage):
    """Users and groups of the store, for one request."""

    def __init__(self, engine: Engine, kept: Provisioning, service: ScimService, actor: Mapping[str, Any]) -> None:
        self._engine = engine
        self._kept = kept
        self._service = service
        self._actor = actor

    async def get(
        self,
        resource_type: ResourceType,
        resource_id: str,
        *,
        response_parameters: ResponseParameters[Any] | None = None,
    ) -> Resource[Any]:
        return self._resource(resource_type, (await self._row(resource_type, resource_id)).document)

    async def search(
        self, resource_types: list[ResourceType], search_request: SearchRequest[Any], *, position: Any = None
    ) -> SearchPage:
        await self._kept.read()
        found = list[tuple[ResourceType, str]]()
        for resource_type in resource_types:
            found += [(resource_type, id) for id in await self._matching(resource_type, search_request.filter)]
        first = search_request.start_index_0 or 0
        last = None if search_request.count is None else first + search_request.count
        page = []
        for resource_type, id in found[first:last]:
            row = await self._kept.find(_kind(resource_type), id)
            if row is not None:
                page.append(self._resource(resource_type, row.document))
        return SearchPage(len(found), page)

    async def create(self, resource_type: ResourceType, resource: Resource[Any]) -> Resource[Any]:
        now = self._engine.now()
        new = resource.model_copy(deep=True)
        new.id = self._kept.new_id()
        new.meta = Meta(resource_type=resource_type.name, created=now, last_modified=now, version=_new_version())
        await self._put(resource_type, new, 0)
        return new

    async def update(
        self, resource_type: ResourceType, resource: Resource[Any], *, expected_version: str | None = None
    ) -> Resource[Any]:
        row = await self._row(resource_type, str(resource.id))
        stored = self._resource(resource_type, row.document)
        assert stored.meta is not None
        if expected_version is not None and stored.meta.version != expected_version:
            raise PreconditionFailedException
        new = type(resource).model_validate(resource.model_dump())
        changes = {"location": None, "last_modified": self._engine.now(), "version": _new_version()}
        new.meta = stored.meta.model_copy(update=changes)
        await self._put(resource_type, new, row.change)
        return new

    async def delete(
        self, resource_type: ResourceType, resource_id: str, *, expected_version: str | None = None
    ) -> None:
        row = await self._row(resource_type, resource_id)
        stored = self._resource(resource_type, row.document)
        if expected_version is not None and (stored.meta is None or stored.meta.version != expected_version):
            raise PreconditionFailedException
        if await self._kept.put(row._replace(name=None, document=None), self._actor):
            raise PreconditionFailedException

    async def _row(self, resource_type: ResourceType, id: str) -> DocumentRow:
        row = None if "\0" in id else await self._kept.find(_kind(resource_type), id)
        if row is None:
            raise NotFoundException
        return row

    async def _put(self, resource_type: ResourceType, resource: Resource[Any], change: int) -> None:
        name: str | None = None
        if isinstance(resource, User):
            resource.password = None  # nobody signs in with it here
            resource.groups = None  # the groups have their members
            name = folded(resource.user_name or "")
            if not name.isprintable():
                raise InvalidValueException(detail="userName has characters that can't be shown")
        row = DocumentRow(_kind(resource_type), str(resource.id), name, resource.model_dump(), change)
        match await self._kept.put(row, self._actor):
            case "taken":
                raise UniquenessException
            case "stale":
                raise PreconditionFailedException

    async def _matching(self, resource_type: ResourceType, asked: ScimFilter[Any] | None) -> Sequence[str]:
        """Return the IDs of the resources that match, the oldest first."""
        kind = _kind(resource_type)
        if asked is None:
            return self._kept.ids(kind)
        model = self._service.get_model(resource_type)
        precise = asked if asked.models else ScimFilter[model](str(asked))  # type: ignore[valid-type]
        matching = []
        for id in self._kept.ids(kind, _indexed_value(precise)):
            row = await self._kept.find(kind, id)
            if row is not None and precise.match(self._resource(resource_type, row.document)):
                matching.append(id)
        return matching

    def _resource(self, resource_type: ResourceType, document: Mapping[str, Any] | None) -> Resource[Any]:
        if document is not None and _kind(resource_type) == "User":  # whose groups only the groups say
            of = self._kept.people.groups_of(str(document.get("id")))
            document = {**document, "groups": [{"value": each.id, "display": each.name} for each in of] or None}
        return self._service.get_model(resource_type).model_validate(document)


async def respond(
    engine: Engine, kept: Provisioning, service: ScimService, request: ScimRequest, actor: Mapping[str, Any]
) -> ScimResponse:
    """Serve a request. A change that meets another one is made again, unless the caller names a version."""
    handler = AsyncScimHandler(service, ScimResources(engine, kept, service, actor))
    for tried in range(MOST_TRIES):
        try:
            return await handler.handle(request)
        except PreconditionFailedException:
            if request.header("If-Match") or request.header("If-None-Match") or tried == MOST_TRIES - 1:
                raise
    raise AssertionError


def _kind(resource_type: ResourceType) -> Kind:
    return "User" if resource_type.name == "User" else "Group"


def _new_version() -> str:
    return f'W/"{secrets.token_hex(8)}"'


def _indexed_value(asked: ScimFilter[Any]) -> str | None:
    """Return the value that every match has in an attribute with an index; None if the filter asks for none."""
    node = asked.ast
    if not isinstance(node, Comparison) or node.op != "eq" or not isinstance(node.value, str):
        return None
    attribute = str(node.attr_path).rpartition(":")[2].lower()
    return node.value if attribute in INDEXED else None
