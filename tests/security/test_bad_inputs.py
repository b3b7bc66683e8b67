"""Bad inputs by their number: each gets its status, changes nothing, is audited where it should be, and costs little.

To add one: write a function that sends it and returns the answers' statuses, under `@bad(number, what, statuses)`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest

from approvals_bot.approvals.policy import Definition, pinned
from approvals_bot.approvals.workflow import approval
from approvals_bot.cli.wire import BODY_END, IDLE_TIME, file_limit
from approvals_bot.config.load import load_configuration
from approvals_bot.config.messages import ConfigErrors
from approvals_bot.service.catalog import Listed
from approvals_bot.web.guard import REFUSED_A_MINUTE
from tests.security import bad_links  # noqa: F401  # adds its rows
from tests.security.table import OF_AUDIT, OURS, TABLE, Bad, bad
from tests.support.served import PARSERS, served, status


@pytest.fixture
async def asked(service: Any) -> Any:
    """A service with an open request. `link`: of one of its approvers; `run_id`: its run."""
    definition = Definition.model_validate(
        {
            "workflow": {"id": "deploy", "title": "Deploy {{ service }}", "request": ["*", "app:desk"]},
            "fields": {"service": "string", "count": {"type": "integer", "required": False}},
            "stage": [{"id": "go", "from": ["@release-managers"], "need": 2}],
            "clock": {"deadline": "4h"},
        }
    )
    service.workflows["deploy"] = Listed(approval.under("deploy", pinned(definition)), definition)
    service.run_id = await service.start("deploy", {"service": "api"})
    service.path = await service.link(service.run_id, "ann@acme.eu")
    return service


async def posts(asked: Any, *bodies: bytes, path: str = "/api/runs", **headers: str) -> list[int]:
    """POST each of these bodies with a key, and return the statuses."""
    headers = {"Content-Type": "application/json"} | headers
    return [(await asked.api.post(path, content=body, headers=headers)).status_code for body in bodies]


def wanted(value: str) -> bytes:
    """Return the body of a request whose text is this JSON."""
    return b'{"workflow": "deploy", "input": {"service": ' + value.encode() + b"}}"


def loads(tmp: Path, text: str) -> int:
    """Return 422 if config.toml is refused with a place, as `check` says it; 200 if it is loaded."""
    (tmp / "config.toml").write_text(text, "utf-8")
    try:
        load_configuration(tmp / "config.toml", {})
    except ConfigErrors as errors:
        return 422 if all(problem.file for problem in errors.problems) else 500
    return 200


@bad("B33", "a token of 10 MB", 414, on_sockets=True)
async def _long_token(asked: Any) -> Iterable[int]:
    head = b"GET /decisions/" + b"a" * 10_000_000 + b" HTTP/1.1\r\nHost: approve.acme.eu\r\n\r\n"
    short = b"GET /decisions/" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: approve.acme.eu\r\nConnection: close\r\n\r\n"
    return [status(await site.ask(sent)) for site in asked.sites for sent in (head, short)]


@bad("B34", "NUL in a token", 404)
async def _nul_in_token(asked: Any) -> Iterable[int]:
    paths = (f"{asked.path}%00", asked.path.replace("/decisions/", "/decisions/%00"), "/webhooks/%00")
    return [(await asked.web.request(method, path)).status_code for method in ("GET", "POST") for path in paths]


@bad("B53", "100 kB dotted key", 422)
async def _dotted(asked: Any) -> Iterable[int]:
    return [loads(asked.database.parent, ".".join(["a"] * 50_000) + " = 1")]


@bad("B54", "2,000 nested arrays", 400, 422)
async def _nested(asked: Any) -> Iterable[int]:
    deep = "[" * 2_000 + "]" * 2_000
    config = loads(asked.database.parent, f"a = {deep}")
    return [config, *await posts(asked, wanted(deep), deep.encode(), b'{"a":' * 2_000 + b"1" + b"}" * 2_000)]


@bad("B55", "a whole number of 5,000 digits", 400, 422)
async def _digits(asked: Any) -> Iterable[int]:
    config = loads(asked.database.parent, "a = " + "9" * 5_000)
    return [config, *await posts(asked, wanted("9" * 5_000), wanted("1e" + "9" * 5_000))]


@bad("B56", "a key twice", 400)
async def _twice(asked: Any) -> Iterable[int]:
    vote = b'{"by": "ann@acme.eu", "choice": "reject", "choice": "approve"}'
    again = b'{"by": "ann@acme.eu", "choice": "reject", "cho\\u0069ce": "approve"}'
    return await posts(asked, vote, again, path=f"/api/runs/{asked.run_id}/votes")


@bad("B57", "NaN and Infinity", 400)
async def _nan(asked: Any) -> Iterable[int]:
    return await posts(asked, wanted("NaN"), wanted("-Infinity"), wanted("1e999"))


@bad("B58", "half of a surrogate pair", 400)
async def _half(asked: Any) -> Iterable[int]:
    return await posts(asked, wanted('"\\ud800"'), wanted('"\\udc00\\ud800"'), b'{"\\ud800": 1}')


@bad("B59", "NUL in a text", 400, 404)
async def _nul(asked: Any) -> Iterable[int]:
    paths = ("/api/runs/a%00b", "/requests/a%00b", "/api/hooks/a%00b", "/decisions/a%00b", "/webhooks/a%00b")
    gets = [(await asked.api.get(path)).status_code for path in paths]
    return [*gets, *await posts(asked, wanted('"a\\u0000b"'), b'{"\\u0000": 1}')]


@bad("B60", "2**63", 422)
async def _large(asked: Any) -> Iterable[int]:
    query = [(await asked.api.get("/api/runs", params={"limit": 2**63})).status_code]
    return [*query, *await posts(asked, wanted(str(2**63)), wanted(f'"api", "count": {2**63}'))]


@bad("B61", "a body of 11 MB", 413)
async def _huge(asked: Any) -> Iterable[int]:
    body = b"x" * 11_000_000
    forms = {"Content-Type": "application/x-www-form-urlencoded"}
    return [
        *await posts(asked, body),
        *await posts(asked, body, path=asked.path, **forms),
        *await posts(asked, body, path="/login", **forms),
    ]


async def forever() -> AsyncIterator[bytes]:
    while True:
        yield b"x" * 10_000


@bad("B62", "a compressed body, and chunks without end", 413, 415)
async def _compressed(asked: Any) -> Iterable[int]:
    found = []
    for path in ("/api/runs", asked.path, "/login"):
        for coding in ("gzip", "br", "identity, gzip"):
            found += await posts(asked, b"\x1f\x8b", path=path, **{"Content-Encoding": coding})
        found.append((await asked.api.post(path, content=forever())).status_code)
    return found


@bad(
    "B63",
    "texts that make careless patterns slow",
    401,
    403,
    404,
    413,
    414,
    422,
    audited=("key_refused", *["form_refused"] * 5),
)
async def _slow_texts(asked: Any) -> Iterable[int]:
    found = []
    for text in (
        "a" * 7_000 + "!",
        "a@" * 3_500,
        "." * 7_000,
        " " * 7_000 + "x",
        "1 " * 3_500,
        "(" * 7_000,
        "-" * 7_000,
    ):
        found += await posts(asked, wanted('"api"'), **{"Idempotency-Key": text.strip() or "x", "Authorization": text})
        for name in ("requester", "waiting_for", "cursor", "workflow", "attribute.x"):
            found.append((await asked.api.get("/api/runs", params={name: text})).status_code)
        form = {"address": text, "code": text, "code_token": text, "form_token": text, "choice": text, "comment": text}
        for path in ("/login", asked.path):
            found.append((await asked.web.post(path, data=form, headers=OURS)).status_code)
        found.append((await asked.web.get("/inbox", headers={"Cookie": f"__Host-approvals={text}"})).status_code)
        found.append((await asked.web.get("/decisions/" + text.replace(" ", "+"))).status_code)
    return found


@bad("B83", "a forged X-Forwarded-For", 404, 429)
async def _forged_peer(asked: Any) -> Iterable[int]:
    found = []
    for number in range(REFUSED_A_MINUTE + 5):
        forged = {"X-Forwarded-For": f"198.51.100.{number}", "X-Real-IP": "::1", "Forwarded": "for=127.0.0.1"}
        found.append((await asked.web.get("/decisions/x", headers=forged)).status_code)
    assert found.count(429) == 5, "a caller's own header made it another caller"
    return found


@bad("B87", "two lengths of one body", 400, on_sockets=True)
async def _two_lengths(asked: Any) -> Iterable[int]:
    found = []
    for site in asked.sites:
        for first, second in ((b"Content-Length: 5", b"Transfer-Encoding: chunked"), (b"Content-Length: 5",) * 2):
            lines = first, second if first != second else b"Content-Length: 6"
            head = b"POST /login HTTP/1.1\r\nHost: approve.acme.eu\r\n" + b"\r\n".join(lines)
            answer = await site.ask(head + b"\r\n\r\n0\r\n\r\nGET /metrics HTTP/1.1\r\nHost: approve.acme.eu\r\n\r\n")
            assert answer.count(b"HTTP/1.1 ") == 1, "a second request was read from the body of the first"
            found.append(status(answer))
    return found


@bad("B88", "a body that drips", 400, 408, on_sockets=True)
async def _slow_body(asked: Any) -> Iterable[int]:
    for site in asked.sites:
        reader, writer = await site.connect()
        writer.write(b"POST /login HTTP/1.1\r\nHost: approve.acme.eu\r\nContent-Length: 900\r\n\r\n")
        connection = await site.one(lambda each: each.reads_body() and each.is_working)
        for _ in range(5):
            writer.write(b"x")
            await asyncio.sleep(0.01)
        connection.check(connection.body_since + BODY_END + 1)
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
    return [408]


@bad("B89", "1,000 idle connections", 200, on_sockets=True, cpu=2.0)
async def _idle(asked: Any) -> Iterable[int]:
    found = []
    for site in asked.sites:
        held = [await site.connect() for _ in range(1_000)]
        found.append(status(await site.ask(b"GET /healthz HTTP/1.1\r\nHost: a.eu\r\nConnection: close\r\n\r\n")))
        later = asyncio.get_running_loop().time() + IDLE_TIME + 1
        for connection in [*site.server.server_state.connections]:
            connection.check(later)
        async with asyncio.timeout(10):
            while site.server.server_state.connections:
                await asyncio.sleep(0.01)
        for _, writer in held:
            writer.close()
    return found


@bad("B90", "TRACE and PUT on a decision page", 405)
async def _methods(asked: Any) -> Iterable[int]:
    return [
        (await asked.web.request(method, asked.path, headers=OURS, content=b"choice=approve")).status_code
        for method in ("TRACE", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "BREW")
    ]


async def _played(row: Bad, asked: Any) -> tuple[list[int], float]:
    """Play it; return what was answered, and the CPU seconds of an answer."""
    started = time.process_time()
    found = [*await row.play(asked)]
    return found, (time.process_time() - started) / max(len(found), 1)


@pytest.mark.parametrize("row", TABLE, ids=str)
async def test_a_bad_input_is_refused(row: Bad, asked: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with contextlib.AsyncExitStack() as stack:
        asked.sites = []
        if row.on_sockets:
            file_limit()  # both ends of each connection are in this process
            sites = [served(parser, app=asked.app, most=2_000) for parser in PARSERS]
            asked.sites = [await stack.enter_async_context(site) for site in sites]
        before, lines = asked.content(), await asked.engine.audit_lines()
        found, used = await _played(row, asked)
        added = [line.entry.what for line in (await asked.engine.audit_lines())[len(lines) :]]
        for _ in range(2 if used > row.cpu else 0):  # the first may have imported modules, or collected garbage
            used = min(used, (await _played(row, asked))[1])
    assert found
    assert set(found) <= row.statuses, row.what
    assert tuple(added) == row.audited
    assert {name: kept for name, kept in asked.content().items() if name not in OF_AUDIT} == {
        name: kept for name, kept in before.items() if name not in OF_AUDIT
    }
    assert used < row.cpu, row.what
    logged = "\n".join(record.getMessage() for record in caplog.records if record.name != "httpx2")  # the caller's own
    for secret in ("desk-key", asked.path.rpartition("/")[2], asked.path.rpartition("/")[2][-20:]):
        assert secret not in logged


def test_every_row_has_its_own_number() -> None:
    assert len({row.number for row in TABLE}) == len(TABLE)
