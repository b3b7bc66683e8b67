"""`/scim/v2`: an identity provider pushes its users and groups here, with an API key that may do so.

Errors have SCIM's shape, also those of the key and of the body.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from approvals_bot.durable.engine import Engine
from approvals_bot.errors import StoreUnavailableError
from approvals_bot.service.provisioning import Provisioning
from approvals_bot.web.keys import SCIM, KeyGate, actor_of
from approvals_bot.web.responses import Problem
from approvals_bot.web.validation import read_body

if TYPE_CHECKING:
    from scim2_server.service import ScimService

ROOT = "/scim/v2"
LARGEST_BODY = 4_000_000  # bytes; a group with 50,000 members has fewer
MEDIA_TYPE = "application/scim+json"
ERROR = "urn:ietf:params:scim:api:messages:2.0:Error"


class ScimEndpoint:
    """Everything below `/scim/v2`."""

    def __init__(self, engine: Engine, gate: KeyGate, kept: Provisioning | None, base_url: str) -> None:
        """`kept`: None where nothing is kept: then everything is answered with 501."""
        self._engine = engine
        self._gate = gate
        self._kept = kept
        self._base_url = f"{base_url}{ROOT}"
        self._service: ScimService | None = None

    async def respond(self, request: HttpRequest) -> Response:
        """Serve any request. The package decides which there are."""
        try:
            await self._gate.admit(request, SCIM)
            return await self._serve(request)
        except Problem as problem:
            return _error(problem.status, problem.detail or problem.title, problem.headers)
        except StoreUnavailableError:
            return _error(503, "The database can't be reached. Nothing was changed; try again.")

    async def _serve(self, request: HttpRequest) -> Response:
        try:
            from scim2_models import SCIMException
            from scim2_server.requests import ScimRequest

            from approvals_bot.web.scim_resources import respond, scim_service
        except ModuleNotFoundError as error:
            if error.name is None or not error.name.startswith("scim2"):
                raise
            missing = "SCIM isn't installed here. Install it with `pip install 'approvals-bot[scim]'`, and restart."
            return _error(501, missing)
        if self._kept is None:
            return _error(501, "This service keeps no users.")
        if self._service is None:
            self._service = scim_service()
        asked = ScimRequest(
            "GET" if request.method == "HEAD" else request.method,
            self._base_url,
            f"/{request.path_params['path']}",
            dict(request.query_params),
            request.headers.items(),
            await read_body(request, LARGEST_BODY),
        )
        try:
            found = await respond(self._engine, self._kept, self._service, asked, actor_of(request).as_json())
        except SCIMException as refused:
            found = self._service.error_response(refused)
        body = b"" if found.body is None else json.dumps(found.body).encode()
        return Response(body, int(found.status), found.headers)


def _error(status: int, detail: str, headers: Mapping[str, Any] | None = None) -> Response:
    body = {"schemas": [ERROR], "status": str(status), "detail": detail}
    return Response(json.dumps(body), status, headers, media_type=MEDIA_TYPE)
