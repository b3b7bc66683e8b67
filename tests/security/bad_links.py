"""Rows of the table of bad inputs that are about links: see test_bad_inputs.py."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlencode

from itsdangerous import Signer

from approvals_bot.web.links import DECISION
from tests.security.table import OURS, bad
from tests.support.whole_service import KEY

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def token_of(asked: Any) -> str:
    token: str = asked.path.rpartition("/")[2]
    return token


def signed_by(asked: Any, key: bytes, salt: str) -> str:
    """Return the link's path with its own payload, signed in another way."""
    payload = token_of(asked).rpartition(".")[0]
    made = Signer(key or b"\0", salt=salt, digest_method=hashlib.sha256)
    made.secret_keys = [key]
    return "/decisions/" + made.sign(payload).decode()


async def opened(asked: Any, *paths: str) -> list[int]:
    """Open each of these, and try to decide by it."""
    found = []
    for path in paths:
        found.append((await asked.web.get(path)).status_code)
        found.append((await asked.web.post(path, data={"choice": "approve"}, headers=OURS)).status_code)
    return found


async def posted(asked: Any, **headers: str) -> list[int]:
    """POST the page's own form with these headers."""
    page = (await asked.web.get(asked.path)).text
    form_token = page.partition('name="form_token" value="')[2].partition('"')[0]
    assert form_token
    body = urlencode({"form_token": form_token, "choice": "approve"})
    return [(await asked.web.post(asked.path, content=body, headers=FORM | headers)).status_code]


@bad("B21", "HEAD", 200)
async def _head(asked: Any) -> Iterable[int]:
    return [(await asked.web.head(asked.path)).status_code]


@bad("B22", "GET fifty times", 200)
async def _fifty_times(asked: Any) -> Iterable[int]:
    return [(await asked.web.get(asked.path)).status_code for _ in range(50)]


@bad("B24", "a browser that fetches ahead", 200)
async def _ahead(asked: Any) -> Iterable[int]:
    ahead = {"Sec-Purpose": "prefetch;prerender", "Purpose": "prefetch"}
    return [(await asked.web.get(asked.path, headers=ahead)).status_code]


@bad("B25", "a form without its token", 403, audited=("form_refused",))
async def _no_form_token(asked: Any) -> Iterable[int]:
    return [(await asked.web.post(asked.path, data={"choice": "approve"}, headers=OURS)).status_code]


@bad("B26", "another Origin", 403, audited=("form_refused",))
async def _other_origin(asked: Any) -> Iterable[int]:
    return await posted(asked, Origin="https://evil.example")


@bad("B27", "a form from another site", 403, audited=("form_refused",))
async def _cross_site(asked: Any) -> Iterable[int]:
    return await posted(asked, **{"Sec-Fetch-Site": "cross-site", "Origin": "null"})


@bad("B30", "signed with an empty key", 404)
async def _empty_key(asked: Any) -> Iterable[int]:
    return await opened(asked, *(signed_by(asked, b"", salt) for salt in (DECISION, "", f"{DECISION}\0")))


@bad("B31", "signed for another purpose", 404)
async def _other_salt(asked: Any) -> Iterable[int]:
    return await opened(asked, *(signed_by(asked, KEY.encode(), salt) for salt in ("code.v1", "webhook.v1", DECISION)))


@bad("B32", "a compressed payload", 404)
async def _compressed(asked: Any) -> Iterable[int]:
    return await opened(asked, f"/decisions/.{token_of(asked)}", f"/decisions/.eJwDAAAAAAE.{token_of(asked)}")


@bad("B35", "another token in the query", 200)
async def _two_tokens(asked: Any) -> Iterable[int]:
    page = await asked.web.get(f"{asked.path}?token={token_of(asked)[::-1]}&signed=x")
    return [page.status_code]
