"""Files over HTTP: uploaded by programs, downloaded from a request's page and below a decision link.

What strangers have uploaded is never a page of ours. A browser shows only images and plain text, as what their content
is, in a sandbox; everything else is a download.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from urllib.parse import quote

from starlette.requests import Request as HttpRequest
from starlette.responses import Response, StreamingResponse

from approvals_bot.approvals.files import (
    INLINE,
    LARGEST_FILE,
    PLAIN_TEXT,
    UNKNOWN_TYPE,
    StoredFile,
    file_name,
    find_file,
)
from approvals_bot.approvals.json_values import UnfitError
from approvals_bot.approvals.request import Request
from approvals_bot.durable.engine import Engine
from approvals_bot.service.files import MOST_UNCLAIMED, TooManyFilesError, content_of, is_kept, keep_file
from approvals_bot.web.decisions import Decisions
from approvals_bot.web.keys import key_of
from approvals_bot.web.pages import PeoplePages
from approvals_bot.web.responses import JsonResponse, Problem
from approvals_bot.web.validation import bad_query, read_parts, read_query

SANDBOX = "sandbox; default-src 'none'; frame-ancestors 'none'"
"""The policy of a file's own answer: no script, no form, no other content, no origin."""

_UNSAFE = re.compile("[^A-Za-z0-9._ -]")


class FilesApi:
    """`/api/files`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def upload(self, request: HttpRequest) -> Response:
        """201: the body is kept as a file with the name of the query, for a field of a request."""
        given = read_query(request, "name").get("name", "")
        try:
            name = file_name(given)
        except UnfitError as error:
            raise bad_query([{"loc": ["query", "name"], "msg": str(error)}]) from None
        parts = _not_empty(read_parts(request, LARGEST_FILE))
        try:
            file = await keep_file(self._engine, key_of(request).address, name, parts)
        except TooManyFilesError:
            detail = (
                f"This key has uploaded {MOST_UNCLAIMED} files that no request has. Use them, or wait until the oldest "
                "are an hour old."
            )
            raise Problem(429, "Too many files", detail, headers={"Retry-After": "60"}) from None
        return JsonResponse(file.as_json(), 201)


async def _not_empty(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    size = 0
    async for part in parts:
        size += len(part)
        yield part
    if not size:
        raise Problem(422, "Invalid input", "The file is empty.", errors=[{"loc": ["body"], "msg": "is empty"}])


class Downloads:
    """The files of a request, for its readers: signed in, or with a decision link."""

    def __init__(self, engine: Engine, pages: PeoplePages, decisions: Decisions) -> None:
        self._engine = engine
        self._pages = pages
        self._decisions = decisions

    async def of_request(self, request: HttpRequest) -> Response:
        """GET: a file of a request that the signed-in reader may see."""
        found = await self._pages.find_visible(request)
        return found if isinstance(found, Response) else await self._answer(request, found)

    async def of_link(self, request: HttpRequest) -> Response:
        """GET: a file of the request behind a decision link, whose page shows it."""
        found = await self._decisions.find_shown(request)
        return found if isinstance(found, Response) else await self._answer(request, found)

    async def _answer(self, request: HttpRequest, view: Request) -> Response:
        id = request.path_params["file"]
        file = find_file(view.fields, view.files, id) or find_file(view.was, view.files, id)
        if file is None or not await is_kept(self._engine, file):
            raise Problem(404)
        content = content_of(self._engine, file) if request.method != "HEAD" else _nothing()
        return StreamingResponse(content, headers=file_headers(file))


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield  # makes it a generator


def file_headers(file: StoredFile) -> dict[str, str]:
    """Return the headers of a file's own answer."""
    is_shown = file.type in INLINE
    kind = file.type if is_shown or file.type == "application/pdf" else UNKNOWN_TYPE
    return {
        "Content-Type": f"{kind}; charset=utf-8" if kind == PLAIN_TEXT else kind,
        "Content-Length": str(file.size),
        "Content-Disposition": disposition("inline" if is_shown else "attachment", file.name),
        "Content-Security-Policy": SANDBOX,
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Resource-Policy": "same-origin",
    }


def disposition(kind: str, name: str) -> str:
    """Return a Content-Disposition with this name: for all in ASCII (RFC 6266), exactly where it has more (RFC 8187).

    >>> disposition("attachment", 'plän "1".pdf')
    'attachment; filename="pl_n _1_.pdf"; filename*=UTF-8\\'\\'pl%C3%A4n%20%221%22.pdf'
    """
    plain = _UNSAFE.sub("_", name)
    exact = "" if plain == name else f"; filename*=UTF-8''{quote(name, safe='')}"
    return f'{kind}; filename="{plain}"{exact}'
